"""FERERO: limits are kept, the ray is reached, and what no step can meet is not a dead end."""

import numpy as np
import pytest

from mtlweights import strategies
from tests.strategies.helpers import jacobian, make, weigh

GOALS = np.array([[1.0, 0.0], [-1.0, 0.0]])


def end(strategy, steps=1500, lr=0.1):
    """The losses of two quadratic tasks, ``|x - goal|^2 / 2``, after descent from beside the front."""
    x = np.array([0.3, 0.9])
    for _ in range(steps):
        g = x - GOALS
        x = x - lr * strategy.weights(g @ g.T, (g**2).sum(1) / 2, np.arange(2)) @ g
    return ((x - GOALS) ** 2).sum(1) / 2, x


@pytest.mark.parametrize("limit", [0.3, 0.5, 1.5])
def test_a_limit_is_kept_on_the_front(limit):
    losses, x = end(make("ferero", 2, at_most=[limit, None]))
    assert abs(x[1]) < 1e-6  # on the front, the line between the goals
    assert losses[0] <= limit + 1e-5


def test_a_limit_comes_first():
    """At once, from far above it: only the task above its limit counts, until it is close."""
    g = np.eye(2)
    assert weigh("ferero", g, [10.0, 1.0], at_most=[0.1, None]) == pytest.approx([4.95 / 5.95, 1 / 5.95])
    free = weigh("ferero", g, [10.0, 1.0], at_most=[1e6, None])
    assert free == pytest.approx(weigh("mgda", g))


@pytest.mark.parametrize("r", [(1.0, 1.0), (1.0, 4.0), (9.0, 1.0)])
def test_the_ray_is_reached_on_the_front(r):
    losses, x = end(make("ferero", 2, preference=list(r)))
    assert abs(x[1]) < 1e-5 and r[0] * losses[0] == pytest.approx(r[1] * losses[1], rel=1e-4)


def test_a_limit_on_the_ray_moves_on_along_it():
    g, losses = jacobian(3, seed=4), np.array([2.0, 2.0, 2.0])
    slow = weigh("ferero", g, losses, preference=[1.0] * 3)
    fast = weigh("ferero", g, losses, preference=[1.0] * 3, at_most=[None, 0.5, None])
    assert fast == pytest.approx(slow)  # on the ray already: one direction alone is left, at length 1
    ahead = np.array([3.0, 1.0, 2.0])  # task 1 has to come down at once, and with it all others
    found = weigh("ferero", g, ahead, preference=[1.0] * 3, at_most=[None, -50.0, None])
    fall = g @ (found @ g)
    assert fall == pytest.approx(fall.mean(), rel=0.05) and fall.min() > 0


def test_limits_that_no_step_meets_share_what_is_left():
    opposed = np.array([[1.0, 0.0], [-1.0, 0.0]])
    assert weigh("ferero", opposed, [3.0, 2.0], at_most=[1.0, 1.0]) == pytest.approx([2 / 3, 1 / 3])


@pytest.mark.parametrize("kind", ["wide", "deficient"])
@pytest.mark.parametrize("limits", [None, 0.3])
def test_no_jacobian_is_too_much(kind, limits):
    for n_tasks in (2, 5, 40):
        g = jacobian(n_tasks, kind)
        g[0] = -g[1:].sum(0)
        at_most = None if limits is None else [limits] + [None] * (n_tasks - 1)
        for losses in (np.linspace(0.1, 2, n_tasks), np.zeros(n_tasks)):
            weights = weigh("ferero", g, losses, at_most=at_most)
            assert np.isfinite(weights).all() and np.abs(weights).sum() == pytest.approx(1)
    assert weigh("ferero", np.zeros((3, 4)), at_most=at_most and [0.3, None, None]).sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([0.3], "at_most should have 2 limits, one per task, None for none, found \\[0.3\\]"),
        ([None, None], "at_most should hold a limit for one task at least"),
        (["a", None], "at_most should be numbers"),
        (0.3, "at_most should have 2 limits"),
    ],
)
def test_wrong_limits_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        strategies.get("ferero")(2, at_most=wrong)
