"""Batches of the training split, and of the dev split for strategies that learn from it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from ..problems.problem import unlabelled
from .augment import Augment
from .order import Labels, Order
from .processes import Processes
from .scoring import is_labelled, labelled

if TYPE_CHECKING:
    from ..problems import Problem


class Parts:
    """Every batch of another sampler in ``parts`` micro-batches, for strategies that want several.

    An epoch has the same examples and optimizer steps for every strategy. A batch of fewer examples than
    parts gives fewer micro-batches.
    """

    def __init__(self, batches: BatchSampler, parts: int) -> None:
        self.batches, self.parts = batches, parts
        self.sampler, self.batch_size = batches.sampler, batches.batch_size
        self.drop_last = batches.drop_last

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            for part in range(min(self.parts, len(batch))):
                yield batch[part :: self.parts]

    def __len__(self) -> int:
        last = len(self.sampler) % self.batch_size  # type: ignore[arg-type]
        missing = max(self.parts - last, 0) if last else 0
        return len(self.batches) * self.parts - missing


class Again:
    """The batches of another sampler, each of its parts ``views`` times: part by part, view by view."""

    def __init__(self, batches: Parts, views: int) -> None:
        self.batches, self.views = batches, views
        self.sampler, self.batch_size, self.drop_last = batches.sampler, batches.batch_size, batches.drop_last

    def __iter__(self) -> Iterator[list[int]]:
        whole = self.batches.batches
        for batch in whole:
            parts = [batch[k :: self.batches.parts] for k in range(min(self.batches.parts, len(batch)))]
            for _ in range(self.views):
                yield from parts

    def __len__(self) -> int:
        return len(self.batches) * self.views

    def place(self, index: int) -> tuple[int, int]:
        """Part and view of the batch that comes at this place of an epoch."""
        group = self.batches.parts * self.views
        first = index // group * group
        parts = min(group, len(self) - first) // self.views
        view, part = divmod(index - first, parts)
        return part, view


class Share:
    """Collates this process's examples of a batch: of n processes, the k-th gets every n-th from the k-th on.

    All processes get the tasks of the whole batch, as shards need it: one whose examples have no label for a
    task gets targets that are all missing, and a count of 0, as a tensor. So does a process without an
    example, in an epoch's last batch, with the first one's input.
    """

    def __init__(self, problem: Problem, processes: Processes, augment: Augment | None = None) -> None:
        self.problem, self.rank, self.number = problem, processes.rank, processes.number
        self.augment = augment

    def __call__(self, examples: list[Any]) -> Any:
        """The collated share of these examples."""
        mine = examples[self.rank :: self.number]
        if self.augment is not None:
            mine = self.augment.examples(mine)
        batch = self.problem.collate(mine or examples[:1])
        if not mine:
            batch["targets"], batch["counts"] = {}, {}
        for task in self.problem.tasks if self.number > 1 else ():
            if task.name not in batch["counts"] and any(is_labelled(task, e) for e in examples):
                batch["targets"][task.name] = unlabelled(task, mine or examples[:1])
                batch["counts"][task.name] = torch.zeros(())  # type: ignore[assignment]
        return batch


def training(
    problem: Problem,
    batch_size: int,
    parts: int,
    shuffle: torch.Generator,
    processes: Processes | None = None,
    order: Order | None = None,
    augment: Augment | None = None,
    views: int = 1,
) -> DataLoader[Any]:
    """This process's share of batches in random order, or in ``order``; examples without any label are left
    out.

    Each batch comes ``views`` times. Where `problem.epoch` asks for more examples than there are, one order
    of them follows the other.
    """
    examples: Any = labelled(problem, "train")
    drawn: Any = order
    if order is None:
        drawn = RandomSampler(examples, num_samples=problem.epoch, generator=shuffle)
    else:
        examples = Labels(examples)
    batches: Any = Parts(BatchSampler(drawn, batch_size, drop_last=False), parts)
    if views > 1:
        batches = Again(batches, views)
    return DataLoader(
        examples,
        batch_sampler=batches,
        generator=shuffle,
        collate_fn=Share(problem, processes or Processes(), augment),
    )


class HeldOut:
    """Batches of the dev split in turn, as a function of the step, so that a resumed run sees the same.

    Every process sees the whole batch: its gradients are averaged over them without counts.
    """

    def __init__(self, problem: Problem, batch_size: int) -> None:
        self.problem, self.examples = problem, labelled(problem, "dev")
        self.batch_size = min(batch_size, len(self.examples))

    def __call__(self, step: int) -> Any:
        """The collated batch of this step."""
        first, n = step * self.batch_size, len(self.examples)
        return self.problem.collate([self.examples[(first + k) % n] for k in range(self.batch_size)])


def leave_out(batch: Any, tasks: Collection[str]) -> None:
    """Take these tasks out of a collated batch."""
    for name in tasks:
        for part in ("targets", "counts"):
            batch[part].pop(name, None)
