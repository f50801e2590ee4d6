"""MetaBalance: norms moved towards that of the target."""

import math

import numpy as np
import pytest

from tests.strategies.helpers import B
from tests.strategies.jacobian.helpers import Run, first, near, random_jacobians


def test_metabalance_first_step_of_case_b():
    """The auxiliary gradient becomes .7 * sqrt(2) / 2 + .3 times as long."""
    assert first("metabalance", B, target=1) == near((2 * (0.7 * math.sqrt(2) / 2 + 0.3) - 1, 1))


LESS, MORE = 0.7 * 3 / 6 + 0.3, 0.7 * 3 / 1.25 + 0.3  # norms 3 of the target, 6 and 1.25


@pytest.mark.parametrize(
    ("adapt", "factors"), [("both", (LESS, MORE)), ("shrink", (LESS, 1)), ("enlarge", (1, MORE))]
)
def test_metabalance_strategies(adapt, factors):
    d = first("metabalance", [(3, 0, 0), (0, 6, 0), (0, 0, 1.25)], adapt=adapt)
    assert d == near((3, 6 * factors[0], 1.25 * factors[1]))


def test_metabalance_r_at_its_ends():
    jacobian = random_jacobians(1)[0]
    assert first("metabalance", jacobian, r=0.0) == near(jacobian.sum(0))
    units = jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
    assert first("metabalance", jacobian, r=1.0) == near(np.linalg.norm(jacobian[0]) * units.sum(0))


def test_metabalance_against_a_plain_loop_per_tensor():
    sizes, r, beta = [2, 4, 1], 0.6, 0.8
    run, averages = Run("metabalance", 3, r=r, beta=beta, target=1, sizes=sizes), np.zeros((3, 3))
    for jacobian in random_jacobians(9):
        pieces = np.split(jacobian, np.cumsum(sizes)[:-1], axis=1)
        expected = []
        for k, piece in enumerate(pieces):
            averages[:, k] = beta * averages[:, k] + (1 - beta) * np.linalg.norm(piece, axis=1)
            ratio = averages[1, k] / averages[:, k]
            expected.append(((r * ratio + 1 - r)[:, None] * piece).sum(0))
        assert run.step(jacobian) == near(np.concatenate(expected))


def test_metabalance_without_its_target_is_the_sum_and_still_averages():
    run = Run("metabalance", 3, beta=0.5)
    assert run.step([(1, 0), (0, 4)], present=[1, 2]) == near((1, 4))
    assert run.kept["norms"].flatten().tolist() == [0, 0.5, 2]
    # The target's first step, norm 8; the others' averages are (1/2 + 4/2) / (1 - 1/4) ...
    d = run.step([(8, 0), (0, 1), (0, 4)])
    assert d == near((8, 1 * (0.7 * 8 / 1 + 0.3) + 4 * (0.7 * 8 / 4 + 0.3)))


def test_metabalance_leaves_a_tensor_that_the_target_does_not_reach():
    d = first("metabalance", [(1, 0, 0), (2, 3, 0), (0, 4, 5)], sizes=[1, 2])
    assert d == near((1 + 2 * (0.7 / 2 + 0.3), 7, 5))
