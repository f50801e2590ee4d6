"""DB-MTL: logs, averages, the longest norm."""

import math

import numpy as np
import pytest

from tests.strategies.helpers import B
from tests.strategies.jacobian.helpers import Run, first, near, random_jacobians


def test_db_mtl_takes_gradients_of_the_logs():
    """g / l = (1, 0) and (-2, 2): the second is the longer now, by sqrt(8)."""
    run = Run("db_mtl", 2)
    assert run.step(B, [2.0, 0.5]) == near((math.sqrt(8) - 2, 2))
    assert run.weights.tolist() == [0.5, 2.0]


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_db_mtl_against_a_plain_loop(sigma):
    losses = np.random.default_rng(1).uniform(0.1, 3, size=(12, 3))
    run, q = Run("db_mtl", 3, beta=0.8, sigma=sigma, sizes=[3, 4]), None
    for k, (jacobian, loss) in enumerate(zip(random_jacobians(12), losses, strict=True), 1):
        g = jacobian / loss[:, None]
        beta = 0.8 / k**sigma
        q = g if q is None else beta * q + (1 - beta) * g
        norms = np.linalg.norm(q, axis=1)
        assert run.step(jacobian, loss) == near(
            sum(norms.max() / n * x for n, x in zip(norms, q, strict=True))
        )


def test_db_mtl_all_parts_have_the_norm_of_the_longest():
    jacobian = random_jacobians(1)[0] * np.array([[1e-3], [1.0], [50.0]])
    longest = np.linalg.norm(jacobian[2])
    for i in range(3):
        others = [j for j in range(3) if j != i]
        rest = sum(longest * jacobian[j] / np.linalg.norm(jacobian[j]) for j in others)
        assert np.linalg.norm(first("db_mtl", jacobian) - rest) == pytest.approx(longest, rel=1e-5)


def test_db_mtl_takes_a_negative_loss_by_its_absolute_value():
    runs = [Run("db_mtl", 2) for _ in range(2)]
    for loss in (0.5, 2.0):
        found, right = (run.step(B, [0.7, sign * loss]) for run, sign in zip(runs, (-1, 1), strict=True))
        assert np.array_equal(found, right) and runs[0].weights.tolist() == runs[1].weights.tolist()


def test_db_mtl_leaves_out_a_loss_of_zero():
    run = Run("db_mtl", 2)
    for _ in range(2):
        assert run.step(B, [0.5, 0.0]) == near((4, 0))
        assert run.weights.tolist() == [2, 0]
    assert run.kept["counts"].tolist() == [[2], [0]]
    assert run.step(B, [1.0, 1.0])[1] > 0  # its first gradient counts in full
    assert run.kept["averages"][1].tolist() == [-1, 1]
    assert run.step(B, [1.0, 0.0]) == near((0.9 * (0.9 * 4 + 0.1 * 2) + 0.1 * 2, 0))
    assert run.kept["averages"][1].tolist() == [-1, 1]
