"""The processes that train one model together, as a launcher (torchrun, accelerate launch) started them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

Value = TypeVar("Value")
_ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR")
#: what Gloo, NCCL and the launcher's store say of a partner that is gone
_GONE = ("connection closed", "connection reset", "broken pipe", "connection refused", "socket", "nccl")


@dataclass(frozen=True)
class Processes:
    """This process and those it trains with: by default none.

    Attributes:
        rank: The number of this process, from 0.
        number: How many there are.
    """

    rank: int = 0
    number: int = 1

    @property
    def first(self) -> bool:
        """Whether this one writes and prints."""
        return self.rank == 0

    def same(self, make: Callable[[], Value]) -> Value:
        """What ``make()`` gives in the first process, or raises there, in all of them."""
        if self.number == 1:
            return make()
        found: list[Any] = [None]
        if self.first:
            found = [_tried(make)]
        dist.broadcast_object_list(found, 0)
        value: Value = _opened(found[0])
        return value

    def each_machine_first(self, make: Callable[[], Value]) -> Value:
        """``make()`` in every process, on each machine in one before the others: what it downloads is there.

        What it raises in one is raised in all.
        """
        mine: tuple[Any, Exception | None] = (None, None)
        local = int(os.environ.get("LOCAL_RANK", self.rank))
        for turn in (local == 0, local != 0):
            mine = _tried(make) if turn else mine
            for _, error in self.all((None, mine[1])):
                if error is not None:
                    raise error
        value: Value = _opened(mine)
        return value

    def all(self, value: Value) -> list[Value]:
        """The values of all processes, by rank."""
        if self.number == 1:
            return [value]
        found: list[Any] = [None] * self.number
        dist.all_gather_object(found, value)
        return found

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, by rank, in the first one; none in the others."""
        if self.number == 1:
            return [value]
        found: list[Any] = [None] * self.number if self.first else []
        dist.gather_object(value, found if self.first else None)
        return found

    def check_alike(self, value: dict[str, Any]) -> None:
        """Raise ValueError, in all processes, unless all have the same ``value``."""
        every = self.all(value)
        for rank, other in enumerate(every):
            names = [name for name in {**every[0], **other} if every[0].get(name) != other.get(name)]
            if names:
                raise ValueError(
                    f"process {rank} differs from process 0 in {', '.join(names)}: start all processes with "
                    "the same command, on the same data"
                )


def launched() -> int:
    """How many processes the launcher has started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def joined() -> Processes:
    """Those of torch's default process group."""
    several = dist.is_available() and dist.is_initialized()
    return Processes(dist.get_rank(), dist.get_world_size()) if several else Processes()


def join() -> Processes:
    """Meet the processes that a launcher has started with this one; alone at once where there is none.

    Raises:
        ValueError: the launcher has told only half of what is needed.
    """
    told = all(name in os.environ for name in _ENVIRONMENT)
    if (told or launched() > 1) and not dist.is_initialized():
        # Gloo for what is told in Python objects, whatever the device
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    return joined()


def leave() -> None:
    """End the group that `join` made, once all are here."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


@contextmanager
def partners_watched(processes: Processes) -> Iterator[None]:
    """A partner that is gone ends a collective with an error of its library: say it in one line.

    Raises:
        ConnectionError: another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if processes.number == 1 or not any(word in str(error).lower() for word in _GONE):
            raise
        raise ConnectionError(
            "another process of this run has ended, and says why unless it was killed: start all again to "
            "continue from the last finished epoch"
        ) from error


def _tried(make: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return make(), None
    except Exception as error:
        return None, error


def _opened(found: tuple[Any, Exception | None]) -> Any:
    value, error = found
    if error is not None:
        raise error
    return value
