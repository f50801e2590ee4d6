"""A DataLoader over a data set per task, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import BatchSampler, DataLoader

from .order import Labels, Order
from .sampling import Sampling
from .scoring import labelled

if TYPE_CHECKING:
    from ..problems import Problem


class TaskLoader(DataLoader[Any]):
    """Batches of a problem's training split, as ``sampling`` draws them; a pass is an epoch.

    Batches are those of `Problem.collate`: ``inputs``, ``targets`` and ``counts``, where a task without a
    label in them is missing from the last two. ``balancer(model(batch["inputs"], batch["targets"]).losses,
    batch["counts"])`` takes that as it is. The order is a function of ``seed`` and of the epoch's number, so
    that the state is two numbers: saved in the middle of an epoch and loaded into a new loader, it goes on
    with the next batch. Batches that a worker has made, but that the loop has not had, are made again.

    Args:
        sampling: see `mtlweights.train.sampling.Sampling`; None: each labelled example once.
        epochs: there will be, for ``annealed``.
        options: of `torch.utils.data.DataLoader`, ``num_workers`` for one.

    Attributes:
        epoch: number of the pass at hand, from 1.
        position: batches of it that were handed out.

    Raises:
        ValueError: no training example has a label, or `Sampling.parse` refuses ``sampling``.
    """

    def __init__(
        self,
        problem: Problem,
        batch_size: int = 32,
        sampling: str | None = None,
        *,
        seed: int = 0,
        epochs: int = 1,
        **options: Any,
    ) -> None:
        examples = labelled(problem, "train")
        if not examples:
            raise ValueError(f"no training example of problem {problem.name!r} has a label.")
        how = None if sampling is None else Sampling.parse(sampling)
        order = Order(problem, examples, batch_size, how, torch.Generator(), problem.epoch)
        batches: Any = _Rest(BatchSampler(order, batch_size, drop_last=False))  # type: ignore[arg-type]
        super().__init__(
            Labels(examples),  # type: ignore[arg-type]
            batch_sampler=batches,
            collate_fn=problem.collate,
            **options,
        )
        self.order, self.rest, self.seed, self.epochs = order, batches, seed, epochs
        self.epoch, self.position = 1, 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """The rest of the epoch at hand; the next one begins after its last batch."""
        self.order.generator.manual_seed(self.seed * 1_000_003 + self.epoch)
        self.order.start(self.epoch, self.epochs)
        self.rest.skipped = self.position
        for batch in super().__iter__():
            self.position += 1
            yield batch
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the batches of it that were handed out."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where the loader that gave the state was; the next ``for`` begins there.

        Raises:
            ValueError: it is no such state, or of a longer epoch.
        """
        epoch, position = state.get("epoch"), state.get("position")
        if (
            type(epoch) is not int
            or type(position) is not int
            or not (epoch >= 1 and 0 <= position <= len(self))
        ):
            raise ValueError(f"expected an epoch from 1 and a position to {len(self)}, found {state!r}.")
        self.epoch, self.position = epoch, position


class _Rest:
    """The batches of another sampler without the first ``skipped``."""

    def __init__(self, batches: BatchSampler) -> None:
        self.batches, self.skipped = batches, 0

    def __iter__(self) -> Iterator[list[Any]]:
        for number, batch in enumerate(self.batches):
            if number >= self.skipped:
                yield batch

    def __len__(self) -> int:
        return len(self.batches)
