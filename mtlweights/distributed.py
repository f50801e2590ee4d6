"""Reductions over the ranks of a data-parallel run.

The Gramian is that of the averaged rows: averaging local Gramians would drop the products between ranks
and add the noise of each. All ranks see the same numbers, so all compute the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from .gradients import Row


class Ranks:
    """The processes that train one model together.

    Args:
        group: Their process group; None: that of a DDP wrapper, else the default group, which is all.
        wrapper: The model as the user passed it.
    """

    def __init__(self, group: Any = None, wrapper: nn.Module | None = None) -> None:
        if group is not None and not (dist.is_available() and isinstance(group, dist.ProcessGroup)):
            raise ValueError(
                f"process_group should be a torch.distributed.ProcessGroup, found {type(group).__name__}."
            )
        self.wrapper: Any = wrapper if hasattr(wrapper, "_join_config") else None  # DDP, also compiled
        self.group = getattr(self.wrapper, "process_group", None) if group is None else group

    @property
    def number(self) -> int:
        """How many there are, 1 where there is no group."""
        return dist.get_world_size(self.group) if dist.is_available() and dist.is_initialized() else 1

    def check_join(self) -> None:
        """Raise ValueError inside DDP's ``join()``: a rank without input answers only DDP's own calls."""
        if self.wrapper is not None and self.wrapper._join_config.enable:
            raise ValueError(
                "DistributedDataParallel.join() cannot be balanced: ranks that have run out of batches would "
                "not take part. Give every rank the same number of batches (DistributedSampler, drop_last)."
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> Ranks:
        """A copy of the balancer trains with the same ranks."""
        return self

    def __reduce__(self) -> tuple[type[Ranks], tuple[()]]:
        """A group belongs to its process: an unpickled balancer has the default group."""
        return Ranks, ()

    def mean_losses(
        self, losses: Sequence[Tensor], present: Sequence[int], counts: Sequence[Tensor | float], n_tasks: int
    ) -> tuple[list[int], Tensor, Tensor]:
        """Tasks present on any rank, their losses [m] averaged by count, and the total counts [m]."""
        sums = _sums(losses, present, counts, n_tasks)
        dist.all_reduce(sums, group=self.group)
        anywhere = np.flatnonzero(sums[1].cpu().numpy() > 0).tolist()
        total = sums[1, anywhere]
        return anywhere, sums[0, anywhere] / total, total

    def mean_rows(
        self,
        rows: Sequence[Row],
        losses: Sequence[Tensor],
        present: Sequence[int],
        counts: Sequence[Tensor | float],
        params: Sequence[Tensor],
        n_tasks: int,
    ) -> tuple[list[int], list[Row], Tensor, Tensor]:
        """Average the rows by count over the ranks, in one collective.

        A rank that lacks a task sends zeros with count 0; which task reaches which parameter travels along,
        so that all ranks agree on it.

        Returns:
            The tasks present on any rank, their rows, losses [m] and counts [m].
        """
        device, dtype = losses[0].device, torch.float32
        if any(p.dtype == torch.float64 for p in params):
            dtype = torch.float64
        sizes = [p.numel() for p in params]
        flat = torch.zeros(n_tasks, sum(sizes) + len(params) + 2, dtype=dtype, device=device)
        for i, row, loss, count in zip(present, rows, losses, counts, strict=True):
            for c, piece in enumerate(flat[i, : sum(sizes)].split(sizes)):
                gradient, row[c] = row[c], None
                if gradient is not None:
                    dense = gradient.to_dense() if gradient.is_sparse else gradient
                    piece.copy_(dense.reshape(-1)).mul_(count)
                    flat[i, sum(sizes) + c] = 1
            flat[i, -2], flat[i, -1] = loss.detach() * count, count
        dist.all_reduce(flat, group=self.group)
        tail = flat[:, sum(sizes) :].cpu().numpy()
        anywhere = np.flatnonzero(tail[:, -1] > 0).tolist()
        out: list[Row] = []
        for i in anywhere:
            pieces = flat[i, : sum(sizes)].div_(flat[i, -1]).split(sizes)
            reached = tail[i, :-2] > 0
            out.append([x.view_as(p) if r else None for x, p, r in zip(pieces, params, reached, strict=True)])
        return anywhere, out, flat[anywhere, -2] / flat[anywhere, -1], flat[anywhere, -1]

    def add_grams(self, gram: Tensor, at: Sequence[int], m: int) -> Tensor:
        """The sum over the ranks of Gramians of their own tasks, which are ``at`` places of the m."""
        whole = gram.new_zeros(m, m)
        index = torch.tensor(at, device=gram.device)
        whole[index[:, None], index] = gram
        dist.all_reduce(whole, group=self.group)
        return whole

    def total(self, found: Row, params: Sequence[Tensor], reached: Sequence[bool]) -> None:
        """Sum gradients over the ranks in place, in one collective; ``reached`` is the same on all ranks."""
        columns = [k for k, r in enumerate(reached) if r]
        parts = [torch.zeros_like(params[k]) if found[k] is None else found[k] for k in columns]
        flat = torch.cat(
            [x.to_dense().reshape(-1) if x.is_sparse else x.reshape(-1) for x in parts if x is not None]
        )
        dist.all_reduce(flat, group=self.group)
        for k, piece in zip(columns, flat.split([params[k].numel() for k in columns]), strict=True):
            found[k] = piece.view_as(params[k])


def _sums(
    losses: Sequence[Tensor], present: Sequence[int], counts: Sequence[Tensor | float], n_tasks: int
) -> Tensor:
    """Sum of losses and number of items per task, [2, T]."""
    dtype = torch.float32 if losses[0].device.type == "mps" else torch.float64
    sums = torch.zeros(2, n_tasks, dtype=dtype, device=losses[0].device)
    for i, loss, count in zip(present, losses, counts, strict=True):
        sums[0, i] = loss.detach() * count
        sums[1, i] = count
    return sums
