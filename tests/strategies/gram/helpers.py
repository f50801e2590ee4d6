"""Gramians of every rank, and of three batches."""

import numpy as np
import pytest


def of_third(strategy, *jacobians, present=None):
    """The weights of the third batch [m], checked to be the only ones; one jacobian stands for three."""
    first = jacobians[0]
    stacked = np.concatenate(jacobians * 3 if len(jacobians) == 1 else jacobians)
    m = len(first)
    present = np.arange(m) if present is None else present
    trunk, heads = strategy.weights(stacked @ stacked.T, np.ones(m), present)
    assert trunk.shape == heads.shape == (3 * m,)
    assert (trunk[: 2 * m] == 0).all() and heads == pytest.approx(1 / 3, rel=1e-15)
    return trunk[2 * m :]


def flat(tensors):
    return np.concatenate([t.detach().flatten() for t in tensors])


def stacks(n_tasks):
    """Gradients of three batches, of every kind of degeneracy."""
    rng = np.random.default_rng(0)
    rank_one = np.outer(np.arange(1.0, n_tasks + 1), [1.0, 2.0])
    zero_row = rng.normal(size=(n_tasks, 3))
    zero_row[-1] = 0
    yield [np.zeros((n_tasks, 2))] * 3
    yield [rank_one] * 3
    yield [rank_one * np.where(np.arange(n_tasks) % 2, -1.0, 1.0)[:, None]] * 3
    yield [zero_row] * 3
    yield [rank_one, -rank_one, rank_one]
    yield [rank_one, np.zeros((n_tasks, 2)), rank_one]
    yield list(rng.normal(size=(3, n_tasks, 5)))


def of_every_rank(n_tasks, seed, scales=(1e-6, 1.0, 1e6)):
    rng = np.random.default_rng(seed)
    for rank in {1, 2, max(1, n_tasks // 2), n_tasks, n_tasks + 5}:
        for scale in scales:
            yield scale * rng.normal(size=(n_tasks, rank))
            yield scale * rng.normal(size=(n_tasks, rank)) * 10.0 ** rng.uniform(-1, 1, size=(n_tasks, 1))
