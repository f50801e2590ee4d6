"""Gramians over the ranks of a data-parallel run from factors, where those are less to send than rows.

A linear layer's gradients over all ranks have as factors those of every rank's samples. Their Gramian is a
sum over the columns of D, which are dealt out: a rank is sent its columns of every other rank's D, and their
A, and the ranks' Gramians add up. What is written is summed over the ranks after it was weighted, and so is
what no Gramian is taken over. Which way a weight goes is decided from sizes that all ranks have told, in each
step; where nothing was to be gained, the sizes travel with the rows, and nothing is sent beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist

from .batch import Batch
from .graph import Use, uses
from .messages import KINDS, REFUSED, WORD, Leaf, Messages, Table, gather, head, sent
from .packing import wide_enough
from .ranks import Averaged, Ranks
from .task_gradients import Own, Row, size

BACKENDS = ("gloo", "nccl")  #: that have an all-to-all of unequal parts
LEAST = 1 << 18  #: bytes that a rank must save in all: the collectives added cost as much in waiting
FIRST_LOOKS, LOOK_EVERY = 3, 20  #: steps whose sizes are told while there is nothing to gain

Unmeasured = Callable[[int, int], bool]


@dataclass
class Plan:
    """How the leaves of a step go; the same on all ranks but for ``uses``."""

    exchanged: dict[int, str] = field(default_factory=dict)  #: leaf -> kind
    alone: list[int] = field(default_factory=list)  #: leaves that are weighted only
    uses: dict[int, list[Use]] = field(default_factory=dict)  #: of those exchanged, on this rank
    table: Table | None = None  #: of those exchanged
    saving: float = 0.0  #: bytes that this rank would expect to save, to tell the others

    @property
    def apart(self) -> list[int]:
        """The leaves whose rows are not averaged."""
        return sorted([*self.exchanged, *self.alone])


class Exchange:
    """The choice in each step, and what follows from it.

    Args:
        ranks: Those that train together.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.on = False  #: there was something to gain when the ranks last told their sizes
        self.looks = 0

    def possible(self, device: torch.device) -> bool:
        """Whether there are ranks, a backend that has what an exchange takes, and float64."""
        if self.ranks.number == 1 or device.type == "mps":
            return False
        group = dist.group.WORLD if self.ranks.group is None else self.ranks.group
        return group is not None and group._get_backend(device).name() in BACKENDS

    def plan(
        self, batch: Batch, columns: Sequence[int], n_tasks: int, unmeasured: Unmeasured | None = None
    ) -> Plan:
        """How the leaves ``columns`` go in this step. A collective, if the last sizes were worth it.

        ``unmeasured(leaf, tasks)``: whether no Gramian is taken over a leaf that these have reached. None:
        the rows are for the Gramian alone, since the gradients come from a weighted pass.
        """
        if not self.on:
            self.looks += 1
            if self.looks > FIRST_LOOKS and self.looks % LOOK_EVERY:
                return Plan()
        inside, device = [c for c in columns if c < batch.leaves.inside], batch.values[0].device
        found, own = _own_sizes(batch, inside, n_tasks)
        if not self.on:
            n = self.ranks.number
            alike = Table(own.heads.repeat(n, 0), own.tasks.repeat(n, 0))
            return Plan(saving=choose(alike, inside, batch, unmeasured)[1])
        table = gather(own, self.ranks.number, self.ranks.group, device)
        plan, saving = choose(table, inside, batch, unmeasured)
        self.on = saving > LEAST
        if not self.on:
            return Plan()
        at = [inside.index(c) for c in plan.exchanged]
        plan.table = Table(table.heads[:, at], table.tasks[:, at])
        plan.uses = {c: found[c] for c in plan.exchanged if c in found}
        return plan

    def average(
        self, plan: Plan, rows: list[Row], batch: Batch, columns: Sequence[int], n_tasks: int
    ) -> tuple[Averaged, list[Row]]:
        """As `Ranks.mean_rows`, with the gradients ``plan.apart`` as `Own`."""
        apart = set(plan.apart)
        averaged, out, saving = self.ranks.mean_rows(
            rows, batch, columns, n_tasks, apart=apart, note=plan.saving
        )
        self.on = self.on or saving > LEAST * self.ranks.number
        if plan.exchanged:
            self._measure(plan, rows, out, batch, averaged, columns)
        return averaged, out

    def _measure(
        self,
        plan: Plan,
        rows: list[Row],
        out: list[Row],
        batch: Batch,
        averaged: Averaged,
        columns: Sequence[int],
    ) -> None:
        """Give the averaged rows ``out`` the Gramians in the leaves exchanged."""
        assert plan.table is not None
        anywhere, _, counts = averaged
        at, params = [columns.index(c) for c in plan.exchanged], batch.leaves.params
        leaves = [Leaf(kind, params[c], plan.uses.get(c, [])) for c, kind in plan.exchanged.items()]
        messages = Messages(leaves, plan.table, dist.get_rank(self.ranks.group))
        shares = torch.zeros(messages.n_tasks, dtype=torch.float64, device=counts.device)
        for i, count in zip(batch.present, batch.counts, strict=True):
            if i in anywhere:
                shares[i] = torch.as_tensor(count).to(shares) / counts[anywhere.index(i)]
        given = [[row[k] for row in rows] for k in at]
        received = messages.exchange(shares, given, batch.present, self.ranks.group)
        grams = torch.stack([messages.gramian(received, k, anywhere) for k in range(len(leaves))])
        dist.all_reduce(grams, group=self.ranks.group)
        for k, gram in zip(at, grams, strict=True):
            for row in out:
                if isinstance(row[k], Own):
                    row[k].gram = gram


def _own_sizes(batch: Batch, columns: Sequence[int], n_tasks: int) -> tuple[dict[int, list[Use]], Table]:
    """The products of this rank, by leaf, and its part of the table [1, L, ...]."""
    leaves, graph = batch.leaves, batch.leaves.graph
    found: dict[int, list[Use]] = {}
    if graph is not None and not graph.compiled:
        found = uses(graph, [leaves.params[c] for c in columns])
    heads = np.zeros((1, len(columns), 4), dtype=np.int32)
    for k, c in enumerate(columns):
        if leaves.here[c]:
            heads[0, k] = head(found.get(k, []), batch.values[0].device)
    reach = [[leaves.here[c] >> i & 1 for i in range(n_tasks)] for c in columns]
    tasks = np.array(reach, dtype=bool).reshape(1, len(columns), n_tasks)
    here = {columns[k]: every for k, every in found.items() if leaves.here[columns[k]]}
    return here, Table(heads, tasks)  # what DDP returns beside these losses is in the graph as well


def choose(
    table: Table, columns: Sequence[int], batch: Batch, unmeasured: Unmeasured | None
) -> tuple[Plan, float]:
    """The cheaper way of each leaf, and the bytes that a rank saves by them.

    In bytes sent by a rank, times W / (W - 1): a ring all-reduce sends its tensor twice, an all-to-all once.
    """
    leaves, plan, saved = batch.leaves, Plan(), 0.0
    n_ranks, _, n_tasks = table.tasks.shape
    word = wide_enough(leaves).itemsize
    for k, c in enumerate(columns):
        row = 2 * size(leaves.params[c]) * word
        reached = sum(1 << i for i in np.flatnonzero(table.tasks[:, k].any(0)).tolist())
        if not reached or (unmeasured is not None and unmeasured(c, leaves.known[c].tasks | reached)):
            plan.alone.append(c)
            saved += (n_tasks - (reached > 0)) * row
            continue
        codes = set(table.heads[:, k, 0].tolist()) - {0}
        if len(codes) != 1 or REFUSED in codes:
            continue
        kind = KINDS[codes.pop()]
        factors = sent(table.heads[:, k], table.tasks[:, k].sum(-1), leaves.params[c], kind) / n_ranks
        cost = factors + 2 * WORD * n_tasks**2 + (0 if unmeasured is None else row)
        if cost < n_tasks * row:
            plan.exchanged[c] = kind
            saved += n_tasks * row - cost
    return plan, saved
