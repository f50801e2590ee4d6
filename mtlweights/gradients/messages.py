"""The factors of weights' gradients as messages between ranks: what is in them, and the exchange."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from . import factored
from .factored import Product
from .graph import Use

KINDS = ["", "linear", "transposed", "embedding"]  #: by code; "": not used on this rank
REFUSED = -1  #: code of a leaf that is used otherwise than in one kind of product
TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32]
WORD = 8  #: every tensor of a message starts at a multiple of this


@dataclass
class Table:
    """What all W ranks have of each of L leaves."""

    heads: np.ndarray  #: [W, L, 4]: code of the kind, N, codes of the types of D and of A
    tasks: np.ndarray  #: [W, L, T], those that reach it


@dataclass
class Leaf:
    """A weight whose factors are exchanged."""

    kind: str
    param: Tensor
    uses: Sequence[Use]  #: on this rank

    @property
    def widths(self) -> tuple[int, int]:
        """Columns of D and of A."""
        return widths(self.param, self.kind)


def head(every: Sequence[Use], device: torch.device) -> list[int]:
    """A rank's row [4] of the table, for a leaf that is reached; REFUSED for one without uses as products."""
    made: list[Any] = [use.node._input_metadata[0] for use in every]
    types = [{meta.dtype for meta in made}, {use.input.dtype for use in every}]
    places = {meta.device for meta in made} | {use.input.device for use in every}
    if places != {device} or any(len(found) > 1 or not found <= set(TYPES) for found in types):
        return [REFUSED, 0, 0, 0]
    codes = [TYPES.index(found.pop()) for found in types]
    return [KINDS.index(every[0].kind), sum(len(use.input) for use in every), *codes]


def gather(own: Table, ranks: int, group: Any, device: torch.device) -> Table:
    """The table of all ranks from each one's part [1, L, ...], by one collective that the host waits for."""
    bits = np.packbits(own.tasks, axis=-1)
    mine = torch.from_numpy(np.concatenate([own.heads.view(np.uint8).ravel(), bits.ravel()])).to(device)
    every = [torch.empty_like(mine) for _ in range(ranks)]
    dist.all_gather(every, mine, group=group)
    host, split = torch.stack(every).cpu().numpy(), own.heads.nbytes
    heads = np.ascontiguousarray(host[:, :split]).view(np.int32).reshape(ranks, *own.heads.shape[1:])
    packed = host[:, split:].reshape(ranks, *bits.shape[1:])
    tasks = np.unpackbits(packed, axis=-1, count=own.tasks.shape[-1]).astype(bool)
    return Table(heads, tasks)


def widths(weight: Tensor, kind: str) -> tuple[int, int]:
    """Columns of D and of A; token ids are one column."""
    outputs, inputs = factored.widths(weight, kind)
    return outputs, 1 if kind == "embedding" else inputs


def sent(heads: np.ndarray, tasks: np.ndarray, weight: Tensor, kind: str) -> int:
    """Bytes that all ranks send for one weight: heads [W, 4], numbers of tasks [W]."""
    outputs, inputs = widths(weight, kind)
    total = 0
    for (code, n, of_d, of_a), m in zip(heads.tolist(), tasks.tolist(), strict=True):
        if code:
            total += n * (m * outputs * TYPES[of_d].itemsize + len(heads) * inputs * TYPES[of_a].itemsize)
    return total


class Messages:
    """From each rank to each: its shares [T], and for every leaf D [m, N, some columns] and A [N, inputs].

    Args:
        leaves: L weights, whose ``table`` all ranks have.
        rank: This one's number.
    """

    def __init__(self, leaves: Sequence[Leaf], table: Table, rank: int) -> None:
        self.leaves, self.table, self.rank = leaves, table, rank
        self.ranks, _, self.n_tasks = table.tasks.shape

    def exchange(
        self, shares: Tensor, given: Sequence[Sequence[Product | None]], present: Sequence[int], group: Any
    ) -> list[list[Tensor]]:
        """Send this rank's; what came from each rank. ``given``: for each leaf, one per task ``present``."""
        to = [self._size(self.rank, target) for target in range(self.ranks)]
        out = torch.empty(sum(to), dtype=torch.uint8, device=shares.device)
        views = [self._views(part, self.rank, target) for target, part in enumerate(out.split(to))]
        for view in views:
            view[0].copy_(shares)
        for k, products in enumerate(given):
            self._fill(k, views, dict(zip(present, products, strict=True)))
        come = [self._size(source, self.rank) for source in range(self.ranks)]
        found = torch.empty(sum(come), dtype=torch.uint8, device=shares.device)
        dist.all_to_all_single(found, out, come, to, group=group)
        return [self._views(part, source, self.rank) for source, part in enumerate(found.split(come))]

    def gramian(self, received: Sequence[Sequence[Tensor]], k: int, tasks: Sequence[int]) -> Tensor:
        """This rank's part of the Gramian [m, m] of ``tasks`` in the leaf ``k``, float64."""
        leaf = self.leaves[k]
        inputs = torch.cat([tensors[2 + 2 * k] for tensors in received])
        places = [np.flatnonzero(self.table.tasks[source, k]).tolist() for source in range(self.ranks)]
        found: list[Tensor | None] = []
        for i in tasks:
            parts = []
            for tensors, here in zip(received, places, strict=True):
                d = tensors[1 + 2 * k]
                if i in here:
                    parts.append(d[here.index(i)].double() * tensors[0][i])
                else:
                    parts.append(d.new_zeros(d.shape[1:], dtype=torch.float64))
            found.append(torch.cat(parts) if any(i in here for here in places) else None)
        return factored.of_factors(leaf.kind, found, inputs)

    def _columns(self, width: int, rank: int) -> slice:
        """The columns of D that are a rank's."""
        return slice(width * rank // self.ranks, width * (rank + 1) // self.ranks)

    def _shapes(self, source: int, target: int) -> Iterator[tuple[tuple[int, ...], torch.dtype]]:
        """Of the tensors in a message."""
        yield (self.n_tasks,), torch.float64
        for k, leaf in enumerate(self.leaves):
            _, n, of_d, of_a = self.table.heads[source, k].tolist()
            outputs, inputs = leaf.widths
            part = self._columns(outputs, target)
            yield (int(self.table.tasks[source, k].sum()), n, part.stop - part.start), TYPES[of_d]
            yield (n,) if leaf.kind == "embedding" else (n, inputs), TYPES[of_a]

    def _size(self, source: int, target: int) -> int:
        """Bytes of a message."""
        return sum(_padded(shape, dtype) for shape, dtype in self._shapes(source, target))

    def _views(self, buffer: Tensor, source: int, target: int) -> list[Tensor]:
        """The tensors in a message."""
        out, start = [], 0
        for shape, dtype in self._shapes(source, target):
            length = math.prod(shape) * dtype.itemsize
            out.append(buffer[start : start + length].view(dtype).view(shape))
            start += _padded(shape, dtype)
        return out

    def _fill(self, k: int, views: Sequence[Sequence[Tensor]], products: dict[int, Product | None]) -> None:
        """Write a leaf into the messages to all ranks."""
        leaf = self.leaves[k]
        if leaf.uses:
            inputs = factored.inputs_of(leaf.uses)
            for view in views:
                view[2 + 2 * k].copy_(inputs)
        for place, i in enumerate(np.flatnonzero(self.table.tasks[self.rank, k]).tolist()):
            product = products[i]
            whole = None if product is None else factored.outputs_of(product)
            for target, view in enumerate(views):
                if whole is None:
                    view[1 + 2 * k][place].zero_()
                else:
                    view[1 + 2 * k][place].copy_(whole[:, self._columns(whole.shape[1], target)])


def _padded(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return -(-math.prod(shape) * dtype.itemsize // WORD) * WORD
