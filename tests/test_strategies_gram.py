"""Known answers of the Gramian strategies: from the papers, and worked out by hand."""

import math

import numpy as np
import pytest
import torch

from mtlweights import strategies
from mtlweights.strategies.gram.pcgrad import random_orders

# The two gradients, and what the two rules give for them.
CASES = {
    "A: unit norms, 120 degrees": ((1, 0), (-0.5, math.sqrt(0.75)), (0.75, 1.299038), (0.25, 0.433013)),
    "B: unequal norms, 135 degrees": ((2, 0), (-1, 1), (1, 2), (0.2, 0.6)),
    "C: orthogonal, 1 to 10": ((1, 0), (0, 10), (1, 10), (100 / 101, 10 / 101)),
    "C2: 60 degrees, 1 to 10": ((1, 0), (5, 5 * math.sqrt(3)), (6, 8.660254), (1, 0)),
    "D: identical": ((1, 1), (1, 1), (2, 2), (1, 1)),
    "E: opposite": ((1, 0), (-1, 0), (0, 0), (0, 0)),
    "E2: opposite, 1 to 2": ((1, 0), (-2, 0), (0, 0), (0, 0)),
    "F: one zero gradient": ((1, 0), (0, 0), (1, 0), (0, 0)),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def make(name, n_tasks, **hyperparameters):
    return strategies.get(name)(n_tasks, **hyperparameters)


def direction(name, *gradients, **hyperparameters):
    jacobian = np.array(gradients, dtype=np.float64)
    strategy = make(name, len(jacobian), **hyperparameters)
    weights = strategy.weights(jacobian @ jacobian.T, np.ones(len(jacobian)), np.arange(len(jacobian)))
    return weights @ jacobian


# gradnorm


def gradnorm_step(norms, losses, initial, alpha=1.5, present=None):
    present = np.arange(len(norms)) if present is None else present
    strategy = make("gradnorm", len(initial), alpha=alpha)
    strategy.weights(np.eye(len(initial)), np.array(initial, dtype=np.float64), np.arange(len(initial)))
    strategy.weights(np.diag(np.square(norms)), np.array(losses, dtype=np.float64), present)
    return strategy


def test_gradnorm_gradient():
    """r = (2/3, 4/3), targets (.816, 2.309); with the sign of alpha inverted it is (-2, 1)."""
    assert gradnorm_step([2.0, 1.0], [0.5, 1.0], [1.0, 1.0]).w.grad.tolist() == [2, -1]


def test_gradnorm_gradient_is_of_the_unweighted_norm():
    strategy = make("gradnorm", 2)
    strategy.w.data = torch.tensor([0.4, 1.6], dtype=torch.float64)
    strategy.weights(np.diag([4.0, 1.0]), np.ones(2), np.arange(2))  # G = (.8, 1.6)
    assert strategy.w.grad.tolist() == [-2, 1]


def test_gradnorm_step_and_rescaling():
    strategy = gradnorm_step([2.0, 1.0], [0.5, 1.0], [1.0, 1.0])
    with torch.no_grad():
        strategy.w -= 0.025 * strategy.w.grad
    strategy.project(torch.ones(2, dtype=torch.bool))
    assert strategy.w.tolist() == pytest.approx([0.962025, 1.037975], abs=1e-6)
    assert strategy.weights(np.eye(2), np.ones(2), np.arange(2)) == pytest.approx(
        [0.962025, 1.037975], abs=1e-6
    )


@pytest.mark.parametrize("n_tasks", [2, 3, 7])
def test_gradnorm_balanced_tasks_do_not_move(n_tasks):
    strategy = gradnorm_step([0.1] * n_tasks, [0.3] * n_tasks, [0.7] * n_tasks)
    assert (strategy.w.grad == 0).all()


def test_gradnorm_initial_losses_are_those_first_seen():
    strategy = make("gradnorm", 3)
    strategy.weights(np.eye(2), np.array([4.0, 6.0]), np.array([0, 2]))
    assert strategy.initial.tolist() == pytest.approx([4, math.nan, 6], nan_ok=True)
    strategy.weights(np.eye(3), np.array([1.0, 5.0, 2.0]), np.arange(3))
    assert strategy.initial.tolist() == [4, 5, 6]


def test_gradnorm_means_are_over_the_tasks_present():
    """Norms (2, 1) of tasks 0 and 2 of three have the mean 1.5; over T it would be 1."""
    strategy = gradnorm_step([2.0, 1.0], [1.0, 1.0], [1.0, 9.0, 1.0], alpha=0, present=np.array([0, 2]))
    assert strategy.w.grad.tolist() == [2, 0, -1]


def test_gradnorm_project_floors_and_leaves_the_others():
    strategy = make("gradnorm", 3)
    strategy.w.data = torch.tensor([-0.5, 0.7, 1.5], dtype=torch.float64)
    strategy.project(torch.tensor([True, False, True]))
    assert strategy.w[1] == 0.7
    assert strategy.w.sum().item() == pytest.approx(3)
    assert strategy.w[0].item() == pytest.approx(2.3 * 0.001 / 1.501)


def test_gradnorm_zero_initial_loss_stays_finite():
    strategy = gradnorm_step([1.0, 2.0], [0.5, 0.0], [0.0, 0.0])
    assert torch.isfinite(strategy.w.grad).all()


# pcgrad, mgda


@cases
def test_pcgrad_cases(case):
    assert direction("pcgrad", *case[:2]) == pytest.approx(case[2], abs=1e-6)


@cases
def test_mgda_cases(case):
    assert direction("mgda", *case[:2]) == pytest.approx(case[3], abs=1e-6)


def test_two_task_closed_forms():
    rng = np.random.default_rng(0)
    for _ in range(300):
        g = rng.normal(size=(2, 5)) * 10.0 ** rng.uniform(-3, 3, size=(2, 1))
        dot, norm = g[0] @ g[1], (g * g).sum(axis=1)
        surgery = sum(g[i] * (1 - min(dot, 0) / norm[i]) for i in range(2))
        assert direction("pcgrad", *g) == pytest.approx(surgery, rel=1e-9)
        share = np.clip((g[1] - g[0]) @ g[1] / ((g[0] - g[1]) @ (g[0] - g[1])), 0, 1)
        shortest = share * g[0] + (1 - share) * g[1]
        assert direction("mgda", *g) == pytest.approx(shortest, rel=1e-9, abs=1e-12 * np.abs(g).max())
        assert (g @ direction("mgda", *g) >= -1e-12 * norm.max()).all()


def test_pcgrad_without_conflict_is_the_sum():
    jacobian = np.abs(np.random.default_rng(0).normal(size=(5, 3)))
    assert direction("pcgrad", *jacobian) == pytest.approx(jacobian.sum(axis=0))


def test_pcgrad_orders_are_fresh_permutations_of_the_others():
    seen = []
    for step in range(2000):
        orders = random_orders(4, 0, step)
        assert [sorted(row) for row in orders.tolist()] == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
        assert (orders == random_orders(4, 0, step)).all()
        seen.append(orders)
    firsts = np.array(seen)[:, :, 0]
    assert [np.mean(firsts[:, 0] == j) for j in (1, 2, 3)] == pytest.approx([1 / 3] * 3, abs=0.04)
    # Independent between tasks: 0 and 1 both start with 2 once in nine.
    assert np.mean((firsts[:, 0] == 2) & (firsts[:, 1] == 2)) == pytest.approx(1 / 9, abs=0.03)
    assert (random_orders(4, -1, 0) != seen[0]).any()


@pytest.mark.parametrize(
    ("normalisation", "expected"),
    [("none", (0.4, 0.6)), ("l2", (0.5, 0.5)), ("loss", (3 / 13, 10 / 13))],  # loss: G = [[4, -1], [-1, .5]]
)
def test_mgda_normalises_only_to_find_the_weights(normalisation, expected):
    """Case B with losses (1, 2), which halve g_2; the weights are for the raw gradients."""
    gram = np.array([[4.0, -2.0], [-2.0, 2.0]])
    weights = make("mgda", 2, normalisation=normalisation).weights(gram, np.array([1.0, 2.0]), np.arange(2))
    assert weights == pytest.approx(expected)


def test_mgda_loss_plus_is_both():
    gram, losses = np.array([[4.0, -2.0], [-2.0, 2.0]]), np.array([1.0, 2.0])
    both = make("mgda", 2, normalisation="loss+").weights(gram, losses, np.arange(len(losses)))
    divisor = losses * np.sqrt([4, 2])
    by_hand = make("mgda", 2).weights(gram / np.outer(divisor, divisor), losses, np.arange(len(losses)))
    assert both == pytest.approx(by_hand)


def test_mgda_takes_no_negative_losses_where_they_divide():
    """The Balancer asks; rounding below 0 counts as 0."""
    found = {
        name: make("mgda", 2, normalisation=name).positive_losses for name in ("none", "l2", "loss", "loss+")
    }
    assert found == {"none": False, "l2": False, "loss": True, "loss+": True}
    strategy = make("mgda", 2, normalisation="loss")
    noise = strategy.weights(np.eye(2), np.array([1.0, -1e-9]), np.arange(2))
    assert noise.tolist() == strategy.weights(np.eye(2), np.array([1.0, 0.0]), np.arange(2)).tolist()
