"""GradDrop: one sign per element."""

import numpy as np
import pytest

from tests.strategies.jacobian.helpers import Run, first, near, random_jacobians


def test_graddrop_keeps_one_sign_per_element():
    jacobian = random_jacobians(1, m=4, p=1000)[0]
    d = first("graddrop", jacobian)
    above, below = np.maximum(jacobian, 0).sum(0), np.minimum(jacobian, 0).sum(0)
    up = np.abs(d - above) < 1e-5
    assert (up | (np.abs(d - below) < 1e-5)).all()
    assert 300 < up.sum() < 700


def test_graddrop_where_signs_agree_is_the_sum_and_zeros_stay():
    jacobian = np.array([(1, -2, 0, 0), (3, -1, 0, 5)])
    for seed in range(20):
        run = Run("graddrop", 2)
        run.strategy.seed = seed
        assert run.step(jacobian) == near((4, -3, 0, 5))


def test_graddrop_chance_is_the_purity():
    """p = 3 / (3 + 1): a + b = 2 in expectation."""
    jacobian = np.repeat([[3.0], [-1.0]], 200_000, axis=1)
    d = first("graddrop", jacobian)
    assert np.isin(d, (3, -1)).all()
    assert (d == 3).mean() == pytest.approx(0.75, abs=0.005)


def test_graddrop_expectation_is_the_sum_for_any_number_of_tasks():
    jacobian = random_jacobians(1, m=5, p=3)[0]
    run = Run("graddrop", 5)
    mean = run.step(np.tile(jacobian, 100_000)).reshape(-1, 3).mean(0)
    assert mean == pytest.approx(jacobian.sum(0), abs=0.03)


def test_graddrop_leaks():
    jacobian = random_jacobians(1, m=2, p=50)[0]
    assert first("graddrop", jacobian, leak=1.0) == near(jacobian.sum(0))
    kept = first("graddrop", jacobian)
    assert first("graddrop", jacobian, leak=0.25) == near(0.25 * jacobian.sum(0) + 0.75 * kept)
    mixed = first("graddrop", jacobian, leak=[0.0, 1.0])
    alone = first("graddrop", jacobian, leak=[0.0, 1.0]) - jacobian[1]
    assert (np.isclose(alone, jacobian[0], atol=1e-6) | np.isclose(alone, 0, atol=1e-6)).all()
    assert not np.allclose(mixed, jacobian.sum(0))
    run = Run("graddrop", 3, leak=[0.5, 0.0, 1.0])
    assert run.step(jacobian, present=[0, 2]) == near(first("graddrop", jacobian, leak=[0.5, 1.0]))


def test_graddrop_draws_depend_on_seed_and_committed_step():
    jacobian = random_jacobians(1, m=2, p=200)[0]
    run = Run("graddrop", 2)
    one = run.step(jacobian, commit=False)
    assert (run.step(jacobian) == one).all()
    two = run.step(jacobian)
    assert (two != one).any()
    seen = [one, two]
    for seed in (1, -1, 2**32, 2**40):
        other = Run("graddrop", 2)
        other.strategy.seed = seed
        seen.append(other.step(jacobian))
    assert len({d.tobytes() for d in seen}) == len(seen)
