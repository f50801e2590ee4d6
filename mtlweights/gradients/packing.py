"""The rows of a rank as one tensor for a collective, and out of it again."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from .batch import Batch
from .leaves import Leaves
from .task_gradients import Own, Row, shape, size

WIDE = (torch.float64, torch.complex128)


class Part:
    """The leaves ``span`` of a collective: elements per row, but of those ``apart``, then two flags for each.

    The first is 1 where a rank has a gradient, n + 1 for n ranks where its task reaches the parameter as well
    (compiled code gives zeros where it does not); the second is 1 where the gradient is sparse.
    """

    def __init__(
        self, leaves: Leaves, columns: Sequence[int], span: range, apart: Collection[int] = ()
    ) -> None:
        self.leaves, self.span, self.apart = leaves, span, apart
        self.at = [(k, c) for k, c in enumerate(columns) if c in span]  # place in a row, leaf
        self.sizes = [0 if c in apart else size(leaves.params[c]) for _, c in self.at]
        self.flags = np.zeros((0, 2, len(span)))

    def pack(self, rows: Sequence[Row], batch: Batch, like: Tensor, n_tasks: int, ranks: int) -> Tensor:
        """Rows times their counts, taken out of ``rows``, and flags: [places, elements + 2 leaves]."""
        n, start = sum(self.sizes), self.span.start
        whole = like.new_zeros(len(like), n + 2 * len(self.span))
        for i, row, count in zip(batch.present, rows, batch.counts, strict=True):
            flags = np.zeros((2, len(self.span)))
            flags[0] = [(self.leaves.here[c] >> i % n_tasks & 1) * (ranks + 1) for c in self.span]
            for (k, c), piece in zip(self.at, whole[i, :n].split(self.sizes), strict=True):
                gradient = row[k]
                if gradient is None:
                    flags[0, c - start] = 0
                    continue
                if c in self.apart:
                    flags[0, c - start] += 1
                    continue
                row[k] = None
                flags[:, c - start] += 1, gradient.is_sparse
                dense = gradient.to_dense() if gradient.is_sparse else gradient
                piece.copy_(dense.reshape(-1)).mul_(count)
            whole[i, n:] = torch.from_numpy(flags.ravel())
        return whole

    def unpack(self, whole: Tensor, counts: Tensor, anywhere: list[int]) -> list[Row]:
        """The averaged rows of the places ``anywhere``; True where one stays apart."""
        n, start = sum(self.sizes), self.span.start
        self.flags = whole[:, n : n + 2 * len(self.span)].cpu().numpy().reshape(len(whole), 2, -1)
        out: list[Row] = []
        for i in anywhere:
            row: Row = []
            for (_, c), piece in zip(self.at, whole[i, :n].div_(counts[i]).split(self.sizes), strict=True):
                here, sparse = self.flags[i, :, c - start]
                if c in self.apart:
                    row.append(True if here else None)
                    continue
                shaped = piece.view(shape(self.leaves.params[c]))
                row.append(None if not here else shaped.to_sparse(1) if sparse else shaped)
            out.append(row)
        return out

    def masks(self, n_tasks: int, ranks: int) -> list[int]:
        """The tasks that reach each leaf, bit i for task i."""
        places = [np.flatnonzero(self.flags[:, 0, k] > ranks) for k in range(len(self.span))]
        return [sum({1 << i % n_tasks for i in found.tolist()}) for found in places]


def give_own(
    out: Sequence[Row],
    rows: Sequence[Row],
    present: Sequence[int],
    anywhere: Sequence[int],
    shares: np.ndarray,
    places: Sequence[int],
) -> None:
    """Put a rank's ``rows`` [of those present] at ``places`` of the averaged ones [of those ``anywhere``].

    Where these say that some rank has a gradient. ``shares`` [T] are the rank's.
    """
    mine = dict(zip(present, rows, strict=True))
    for i, row in zip(anywhere, out, strict=True):
        for k in places:
            if row[k]:
                row[k] = Own(mine[i][k] if i in mine else None, float(shares[i]))


def wide_enough(leaves: Leaves) -> torch.dtype:
    """The type of what is summed over the ranks."""
    return torch.float64 if any(p.dtype in WIDE for p in leaves.params) else torch.float32
