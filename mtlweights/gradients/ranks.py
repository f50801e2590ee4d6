"""Reductions over the ranks of a data-parallel run.

The Gramian is that of the averaged rows: averaging local Gramians would drop the products between ranks
and add the noise of each. All ranks see the same numbers, so all compute the same weights. Which task
reaches which parameter travels along. Parameters outside the model go in a second collective, after the
first has told that all ranks have met the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .batch import Batch
from .graph import nodes
from .leaves import Leaves
from .packing import Part, give_own, wide_enough
from .task_gradients import Row, shape

Averaged = tuple[list[int], Tensor, Tensor]  #: m tasks present on any rank, losses [m], counts [m]
FIRST_STEPS = 2


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
        self._forwards: list[bool] = []  #: whether the first steps had several forward passes

    @property
    def number(self) -> int:
        """How many there are, 1 where there is no group."""
        return dist.get_world_size(self.group) if dist.is_available() and dist.is_initialized() else 1

    @property
    def shares_forward(self) -> bool:
        """Other terms may go through the forward pass of the losses; in DDP's own forward its outputs do."""
        return self.number == 1 or getattr(DistributedDataParallel, "_active_ddp_module", None) is not None

    def several_forwards(self, losses: Sequence[Tensor]) -> bool:
        """Whether the losses come from several forward passes of a DDP model, on any rank.

        With ``find_unused_parameters`` its reducer takes what the last one leaves out for done, and must not
        be relied on. Asked in the first steps alone, since the answer makes the host wait.
        """
        if self.number == 1 or not getattr(self.wrapper, "find_unused_parameters", False):
            return False
        if len(self._forwards) < FIRST_STEPS:
            passes = sum(node.name() == "_DDPSinkBackward" for node in nodes(losses))
            found = torch.tensor(float(passes > 1), device=losses[0].device)
            dist.all_reduce(found, dist.ReduceOp.MAX, group=self.group)
            self._forwards.append(bool(found))
        return any(self._forwards)

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

    def first(self, number: int) -> int:
        """The first rank's number, on all ranks."""
        if self.number == 1:
            return number
        found = [number]
        source = 0 if self.group is None else dist.get_global_rank(self.group, 0)
        dist.broadcast_object_list(found, source, self.group)
        return found[0]

    def mean_losses(
        self,
        losses: Sequence[Tensor],
        present: Sequence[int],
        counts: Sequence[Tensor | float],
        n_tasks: int,
        leaves: Leaves | None = None,
    ) -> Averaged:
        """Losses averaged by count, of the tasks present on any rank; agrees on who reaches ``leaves``."""
        sums = _sums(losses, present, counts, n_tasks)
        n = 0 if leaves is None else leaves.inside
        flags = sums.new_zeros(0, n_tasks) if leaves is None else _flags(leaves.here, n_tasks).to(sums)
        packed = torch.cat([sums, flags[:n]]).flatten()
        if leaves is not None:
            packed = torch.cat([packed, _signature(leaves).to(packed)])
        dist.all_reduce(packed, group=self.group)
        sums = packed[: (2 + n) * n_tasks].view(-1, n_tasks)
        host = sums[1:].cpu().numpy()
        if leaves is not None:
            self._check(packed[-4:])
            rest = flags[n:].contiguous()
            if len(rest):
                dist.all_reduce(rest, group=self.group)
            reached = np.concatenate([host[1:], rest.cpu().numpy()]) > 0
            leaves.learn((reached @ (1 << np.arange(n_tasks, dtype=object))).tolist())
        anywhere = np.flatnonzero(host[0] > 0).tolist()
        total = sums[1, anywhere]
        return anywhere, sums[0, anywhere] / total, total

    def mean_rows(
        self,
        rows: Sequence[Row],
        batch: Batch,
        columns: Sequence[int],
        n_tasks: int,
        batches: int = 1,
        apart: Collection[int] = (),
        note: float = 0.0,
    ) -> tuple[Averaged, list[Row], float]:
        """Average the rows over ``columns`` by count over the ranks, and agree on who reaches the leaves.

        A rank that lacks a task sends zeros with count 0. Rows of task i in batch b are at i + b * n_tasks.
        Gradients in the leaves ``apart`` stay here, as `Own`.

        Returns:
            The losses and counts of the tasks present on any rank, and their rows; the sum of the ``note`` s.
        """
        leaves, inside = batch.leaves, batch.leaves.inside
        parts = [
            Part(leaves, columns, range(inside), apart),
            Part(leaves, columns, range(inside, len(leaves.known)), apart),
        ]
        dtype = wide_enough(leaves)
        like = torch.zeros(n_tasks * batches, 7, dtype=dtype, device=batch.values[0].device)
        for i, loss, count in zip(batch.present, batch.values, batch.counts, strict=True):
            like[i, 0], like[i, 1] = loss.detach() * count, count
        like[:, 2:6], like[:, 6] = _signature(leaves).to(like), note
        whole = torch.cat([parts[0].pack(rows, batch, like, n_tasks, self.number), like], 1)
        dist.all_reduce(whole, group=self.group)
        tail = whole[:, -7:]
        self._check(tail[0, 2:6])
        flats = [whole, parts[1].pack(rows, batch, like, n_tasks, self.number)]
        if parts[1].span:
            dist.all_reduce(flats[1], group=self.group)
        host = tail.cpu().numpy()
        anywhere = np.flatnonzero(host[:, 1] > 0).tolist()
        found = [part.unpack(flat, tail[:, 1], anywhere) for part, flat in zip(parts, flats, strict=True)]
        masks = [mask for part in parts for mask in part.masks(n_tasks, self.number)]
        leaves.learn(masks)
        out = [[*a, *b] for a, b in zip(found[0], found[1], strict=True)]
        if apart:
            shares = like[:, 1].cpu().double().numpy() / np.where(host[:, 1] > 0, host[:, 1], 1)
            places = [k for k, c in enumerate(columns) if c in apart]
            give_own(out, rows, batch.present, anywhere, shares, places)
        return (anywhere, tail[anywhere, 0] / tail[anywhere, 1], tail[anywhere, 1]), out, float(host[0, 6])

    def _check(self, sums: Tensor) -> None:
        """Raise ValueError, on every rank, if the ranks' signatures differ: n sum(x^2) > sum(x)^2."""
        a, aa, b, bb = sums.tolist()
        if self.number * aa != a * a or self.number * bb != b * b:
            raise ValueError(
                "The ranks have met different parameters outside the model: pass model= a module that holds "
                "all that is trained (nn.ModuleList([encoder, losses])), the same on every rank."
            )

    def add_grams(self, gram: Tensor, at: Sequence[int], m: int) -> Tensor:
        """The sum over the ranks of Gramians of their own tasks, which are ``at`` places of the m."""
        whole = gram.new_zeros(m, m)
        index = torch.tensor(at, device=gram.device)
        whole[index[:, None], index] = gram
        dist.all_reduce(whole, group=self.group)
        return whole

    def total(self, found: Row, leaves: Leaves, columns: Sequence[int]) -> None:
        """Sum gradients over the ranks in place, in one collective, in the leaves ``columns``."""
        if not columns:
            return
        shapes = [shape(leaves.params[k]) for k in columns]
        parts = [
            torch.zeros(s) if found[k] is None else found[k] for k, s in zip(columns, shapes, strict=True)
        ]
        device, dtype = leaves.params[0].device, wide_enough(leaves)
        thin = torch.tensor([float(x.is_sparse) for x in parts])
        dense = [(x.to_dense() if x.is_sparse else x).reshape(-1).to(device, dtype) for x in [*parts, thin]]
        flat = torch.cat(dense)
        dist.all_reduce(flat, group=self.group)
        *pieces, thin = flat.split([x.numel() for x in dense])
        for k, piece, like, sparse in zip(columns, pieces, shapes, thin.tolist(), strict=True):
            found[k] = piece.view(like).to_sparse(1) if sparse else piece.view(like)


def _signature(leaves: Leaves) -> Tensor:
    """Two small numbers and their squares [4], alike on ranks whose leaves outside the model are."""
    shapes = [tuple(p.shape) for p in leaves.params[leaves.inside :]]
    a, b = len(shapes) % 509, zlib.crc32(str(shapes).encode()) % 509
    return torch.tensor([a, a * a, b, b * b])


def _flags(masks: Sequence[int], n_tasks: int) -> Tensor:
    """Bits as numbers [n, T]."""
    return torch.tensor([[mask >> i & 1 for i in range(n_tasks)] for mask in masks]).view(-1, n_tasks)


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
