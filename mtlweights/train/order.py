"""Which examples an epoch is made of, and in which order, where it is not simply all of them shuffled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from ..problems import Example, Problem
from .sampling import Sampling
from .scoring import is_labelled, labelled
from .settings import Settings

Drawn = tuple[int, tuple[str, ...]]  #: number of an example, and the tasks whose labels are used


class Labels:
    """Examples, each with the labels of some tasks alone."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, drawn: Drawn) -> Example:
        example, tasks = self.examples[drawn[0]], drawn[1]
        targets = {name: value for name, value in example["targets"].items() if name in tasks}
        return {"input": example["input"], "targets": targets}


class Order:
    """The examples of an epoch, as a function of its number and of the generator's seed alone.

    An epoch has as many as there are labelled ones. A task's examples come in random order, all of them
    before one comes again.

    Args:
        problem, examples: whose tasks, and which examples, all of them labelled.
        batch_size: with batches of one task, every so many examples are of the same.
        sampling: None: whatever is labelled for a task at hand, each example once.
        length: examples of an epoch; None: all.
    """

    def __init__(
        self,
        problem: Problem,
        examples: Sequence[Example],
        batch_size: int,
        sampling: Sampling | None,
        generator: torch.Generator,
        length: int | None = None,
    ) -> None:
        self.sampling, self.batch_size, self.generator = sampling, batch_size, generator
        self.length = length or len(examples)
        self.sets = {
            task.name: [k for k, example in enumerate(examples) if is_labelled(task, example)]
            for task in problem.tasks
        }
        self.start(1, 1)

    def start(self, epoch: int, epochs: int, tasks: Sequence[str] | None = None) -> None:
        """The next pass is this epoch, from 1, of so many, over the data sets of these tasks (None: all)."""
        self.epoch, self.epochs = epoch, epochs
        self.tasks = tuple(self.sets) if tasks is None else tuple(tasks)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Drawn]:
        if self.sampling is None:
            rows = sorted({row for name in self.tasks for row in self.sets[name]})
            nexts = self._turns(rows)
            yield from ((nexts(), self.tasks) for _ in range(self.length))
            return
        turns = [self._turns(self.sets[name]) for name in self.tasks]
        one = self.sampling.batches == "task"
        for task in self._chosen():
            yield turns[task](), (self.tasks[task],) if one else self.tasks

    def _chosen(self) -> list[int]:
        """The place of the task that each example is drawn for."""
        sampling, n = self.sampling, len(self.tasks)
        assert sampling is not None
        size = self.batch_size if sampling.batches == "task" else 1
        draws = -(-self.length // size)
        if sampling.way == "round_robin":
            chosen = [k % n for k in range(draws)]
        else:
            shares = sampling.shares([len(self.sets[t]) for t in self.tasks], self.epoch, self.epochs)
            weights = torch.tensor(shares, dtype=torch.float64)
            chosen = torch.multinomial(weights, draws, replacement=True, generator=self.generator).tolist()
        return [task for task in chosen for _ in range(size)][: self.length]

    def _turns(self, rows: Sequence[int]) -> Callable[[], int]:
        """Gives the rows in random order, and again in another once all were there."""

        def endless() -> Iterator[int]:
            while True:
                yield from (rows[k] for k in torch.randperm(len(rows), generator=self.generator).tolist())

        drawn = endless()
        return lambda: next(drawn)


def order_of(problem: Problem, settings: Settings, generator: torch.Generator) -> Order | None:
    """The order that the settings, or a training in stages, ask for; None: all examples, shuffled."""
    if settings.sampling is None and not problem.staged:
        return None
    sampling = None if settings.sampling is None else Sampling.parse(settings.sampling)
    return Order(problem, labelled(problem, "train"), settings.batch_size, sampling, generator, problem.epoch)
