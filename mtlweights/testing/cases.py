"""The gradients and losses that the checks use: fixed, by seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ..strategies import ALL, Index
from .harness import Case

COLUMNS = 12  # parameters, more than any number of tasks whose rows should be independent


def ordinary(n_tasks: int, n: int, present: Index = ALL) -> Case:
    """The n-th step of a training: random gradients, losses from 0.1 to 3."""
    rng = np.random.default_rng([n, n_tasks])
    jacobian, losses = rng.normal(size=(n_tasks, COLUMNS)), rng.uniform(0.1, 3, n_tasks)
    return Case(f"step {n + 1} of random gradients", jacobian[present], losses[present], present)


def validated(n_tasks: int, n: int) -> Case:
    """The same with rows of a validation loss per task."""
    case = ordinary(n_tasks, n)
    case.validation = ordinary(n_tasks, n + 100).jacobian
    return case


def degenerate(n_tasks: int) -> Iterator[Case]:
    """Zero, rank-one, exactly opposed gradients, and one that is zero; with losses of 1 and of 0."""
    rng = np.random.default_rng(n_tasks)
    rank_one = np.outer(np.arange(1.0, n_tasks + 1), rng.integers(-3, 4, COLUMNS))
    zero_row = rng.normal(size=(n_tasks, COLUMNS))
    zero_row[-1] = 0
    kinds = {
        "all gradients zero": np.zeros((n_tasks, COLUMNS)),
        "gradients of rank one": rank_one,
        "exactly opposed gradients": rank_one * np.where(np.arange(n_tasks) % 2, -1.0, 1.0)[:, None],
        "one gradient zero": zero_row,
    }
    for name, jacobian in kinds.items():
        yield Case(name, jacobian, np.ones(n_tasks))
        yield Case(f"{name} and all losses zero", jacobian, np.zeros(n_tasks))


def of_every_rank(sizes: Iterable[int]) -> Iterator[Case]:
    """Random gradients for every number of tasks and every rank, rows from 1e-6 to 1e6 in size.

    For each rank three: whole numbers, whose Gramian is exact; real ones; real ones in which every row has a
    size of its own.
    """
    for n_tasks in sizes:
        for rank in range(1, n_tasks + 1):
            rng = np.random.default_rng([n_tasks, rank])
            losses = rng.uniform(0.1, 3, n_tasks)
            whole = _whole(rng, n_tasks, rank) @ _whole(rng, rank, COLUMNS)
            real = rng.normal(size=(n_tasks, rank)) @ rng.normal(size=(rank, COLUMNS))
            sizes_of_rows = 10.0 ** rng.uniform(-6, 6, (n_tasks, 1))
            yield Case(f"rank {rank}, whole numbers", whole, losses)
            yield Case(f"rank {rank}", real, losses)
            yield Case(f"rank {rank}, rows of 1e-6 to 1e6", sizes_of_rows * real, losses)


def _whole(rng: np.random.Generator, n: int, m: int) -> np.ndarray:
    """Small whole numbers [n, m], no row zero."""
    numbers = rng.integers(-3, 4, (n, m)).astype(float)
    numbers[~numbers.any(1), 0] = 1.0
    return np.asarray(numbers)


def stationary(sizes: Iterable[int]) -> Iterator[Case]:
    """Gradients with a combination of weights >= 0, not all 0, that is zero.

    It takes one task (its gradient is zero), two (exactly opposed, of unequal length), some, or all; the
    gradients of the other tasks are independent. Rows from 0.03 to 30, all times 1e-6, 1 or 1e6: of longer
    ones a Gramian in float64 no longer shows that they cancel a short one.
    """
    for n_tasks in sizes:
        for k in range(1, n_tasks + 1):
            rng = np.random.default_rng([n_tasks, k, 7])
            jacobian = rng.normal(size=(n_tasks, COLUMNS))
            jacobian[k - 1] = -(rng.uniform(0.5, 2, k - 1) @ jacobian[: k - 1])
            order, losses = rng.permutation(n_tasks), rng.uniform(0.1, 3, n_tasks)
            lengths = 10.0 ** rng.uniform(-1.5, 1.5, (n_tasks, 1))
            for scale in (1e-6, 1.0, 1e6):
                name = f"stationary by {k} gradients, times {scale:g}"
                yield Case(name, scale * (lengths * jacobian)[order], losses)
