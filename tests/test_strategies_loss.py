"""Known answers of the loss strategies: from the papers, and worked out by hand."""

import math

import numpy as np
import pytest
import torch

from mtlweights import strategies

LOSSES = (0.5, 2.0, 8.0)


def make(name, n_tasks, **hyperparameters):
    return strategies.get(name)(n_tasks, **hyperparameters)


def loss_weights(strategy, losses=LOSSES, present=slice(None)):
    """(objective, weights) of a loss strategy: the weights are the objective's gradient."""
    losses = torch.tensor(losses, dtype=torch.float64, requires_grad=True)
    value = strategy.combine(losses, present)
    return value.item(), torch.autograd.grad(value, losses)[0].numpy()


# equal, fixed


def test_equal_is_the_sum():
    value, weights = loss_weights(make("equal", 3))
    assert value == 10.5
    assert (weights == 1).all()


@pytest.mark.parametrize(
    ("n_tasks", "alpha", "expected"),
    [
        (3, None, [1, 1, 1]),
        (3, [0, 2.5, 1], [0, 2.5, 1]),
        (2, 0.3, [0.3, 0.7]),
        (2, 1, [1, 0]),
        (1, [4], [4]),
    ],
)
def test_fixed_uses_the_weights_as_given(n_tasks, alpha, expected):
    losses = LOSSES[:n_tasks]
    value, weights = loss_weights(make("fixed", n_tasks, alpha=alpha), losses)
    assert weights == pytest.approx(expected)
    assert value == pytest.approx(np.dot(expected, losses))


@pytest.mark.parametrize(
    ("n_tasks", "alpha", "message"),
    [
        (3, [1, 2], "alpha should have 3 numbers, one per task, found 2"),
        (3, 0.3, "alpha should have 3 numbers, one per task, found one number"),
        (2, [[1, 2]], "alpha should have 2 numbers"),
        (2, 1.3, "between 0 and 1"),
        (2, [1, -1], "at least 0"),
        (2, float("nan"), "finite"),
        (2, [1, float("inf")], "finite"),
        (2, "half", "alpha should be numbers, found 'half'"),
    ],
)
def test_fixed_refuses(n_tasks, alpha, message):
    with pytest.raises(ValueError, match=message):
        make("fixed", n_tasks, alpha=alpha)


# random


def random_weights(n_tasks, step, seed=0, present=slice(None)):
    strategy = make("random", n_tasks)
    strategy.seed = seed
    strategy.step.fill_(step)
    losses = np.ones(n_tasks)[present]
    return loss_weights(strategy, losses, present)[1]


def test_random_weights_are_a_softmax_of_standard_normals():
    draws = np.log([random_weights(4, step) for step in range(4000)])
    assert np.exp(draws).sum(axis=1) == pytest.approx(1)
    # log w_i - log w_j is a difference of two standard normals, N(0, 2).
    for i, j in ((0, 1), (1, 2), (2, 3), (0, 3)):
        difference = draws[:, i] - draws[:, j]
        assert difference.mean() == pytest.approx(0, abs=4 * math.sqrt(2 / 4000))
        assert difference.var() == pytest.approx(2, rel=0.09)
        assert np.mean(np.abs(difference) > math.sqrt(2) * 1.959964) == pytest.approx(0.05, abs=0.014)
    assert abs(np.corrcoef(draws[:-1, 0] - draws[:-1, 1], draws[1:, 0] - draws[1:, 1])[0, 1]) < 0.065


def test_random_weights_depend_on_seed_and_step_alone():
    assert (random_weights(3, 7, seed=1) == random_weights(3, 7, seed=1)).all()
    different = [random_weights(3, step, seed) for step in range(20) for seed in range(20)]
    assert len(np.unique(different, axis=0)) == 400
    assert np.isfinite(random_weights(3, 10**12, seed=2**63)).all()


def test_random_draws_of_present_tasks_do_not_move():
    everyone = random_weights(4, 5)
    subset = random_weights(4, 5, present=np.array([1, 3]))
    assert subset.sum() == pytest.approx(1)
    assert subset[0] / subset[1] == pytest.approx(everyone[1] / everyone[3], rel=1e-5)


# uw


def uw_gradient(strategy, losses=LOSSES):
    value = strategy.combine(torch.tensor(losses))
    return value.item(), torch.autograd.grad(value, strategy.log_variance)[0].tolist()


def test_uw_regression_form():
    value, gradient = uw_gradient(make("uw", 3))
    assert value == pytest.approx(5.25)
    assert gradient == pytest.approx([0.25, -0.5, -3.5])
    assert loss_weights(make("uw", 3))[1] == pytest.approx([0.5] * 3)


def test_uw_classification_form():
    value, gradient = uw_gradient(make("uw", 3, forms="classification"))
    assert value == pytest.approx(10.5)
    assert gradient == pytest.approx([0, -1.5, -7.5])  # 1/2 - l
    assert loss_weights(make("uw", 3, forms=["classification", "regression", "classification"]))[
        1
    ] == pytest.approx([1, 0.5, 1])


def test_uw_init():
    strategy = make("uw", 3, init=-0.5)
    value, weights = loss_weights(strategy)
    assert value == pytest.approx(7.905787)
    assert weights == pytest.approx([0.824361] * 3, rel=1e-6)


@pytest.mark.parametrize(("form", "shift"), [("regression", 0.0), ("classification", math.log(2))])
def test_uw_optimum(form, shift):
    strategy = make("uw", 3, forms=form)
    with torch.no_grad():
        strategy.log_variance.copy_(torch.log(torch.tensor(LOSSES)) + shift)
    assert uw_gradient(strategy)[1] == pytest.approx([0, 0, 0], abs=1e-6)
    value, weights = loss_weights(strategy)
    assert weights == pytest.approx([1, 0.25, 0.0625])  # 1 / (2 l)
    assert value == pytest.approx(2.539721 + 1.5 * shift)


# dwa


def dwa_weights(*epochs, **hyperparameters):
    strategy = make("dwa", len(epochs[0]), **hyperparameters)
    for means in epochs:
        strategy.end_epoch(np.array(means, dtype=np.float64), None)
    return loss_weights(strategy, [1.0] * len(epochs[0]))[1]


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [((0.5, 1), (0.875647, 1.124353)), ((0.9, 1, 1.1), (0.950437, 0.999167, 1.050396)), ((0.7, 0.7), (1, 1))],
)
def test_dwa_ratios(ratios, expected):
    first = np.array([3.0, 0.01, 200.0])[: len(ratios)]  # the scale of each loss is of no matter
    weights = dwa_weights(first, first * ratios)
    assert weights == pytest.approx(expected, abs=2e-6)
    assert weights.sum() == pytest.approx(len(ratios))


def test_dwa_is_equal_in_the_first_two_epochs():
    assert (dwa_weights((3, 1)) == 1).all()
    assert (loss_weights(make("dwa", 3))[1] == 1).all()


def test_dwa_temperature():
    assert dwa_weights((1, 1), (0.5, 1), temperature=1e6) == pytest.approx([1, 1], abs=1e-5)
    assert dwa_weights((1, 1), (0.5, 1), temperature=0.5) == pytest.approx([0.537883, 1.462117], abs=2e-6)


def test_dwa_task_not_seen_keeps_its_history():
    nan = float("nan")
    assert dwa_weights((2, 4), (nan, 4), (1, 4)) == pytest.approx(dwa_weights((2, 4), (1, 4)))
    assert dwa_weights((2, 4), (1, 4), (nan, 4)) == pytest.approx(dwa_weights((2, 4), (1, 4)))
    assert (dwa_weights((2, nan), (1, nan), (0.5, nan))[1]) > 1  # no history counts as no change


def test_dwa_zero_losses_stay_finite():
    assert dwa_weights((0, 1), (0, 1)) == pytest.approx([1, 1])
    assert dwa_weights((0, 1), (2, 1)) == pytest.approx([1, 1])
    assert np.isfinite(dwa_weights((1e-30, 1), (1e6, 1))).all()


# validation


def validation_weights(*scores, **hyperparameters):
    strategy = make("validation", len(scores[0]), **hyperparameters)
    for row in scores:
        strategy.end_epoch(np.full(len(row), np.nan), np.array(row, dtype=np.float64))
    return loss_weights(strategy, [1.0] * len(scores[0]))[1]


def test_validation_weights_are_powers_of_the_shortfall():
    shortfall = np.array([1 - 0.21 / 1.05, 1 - 0.84 / 1.05])  # 0.8, 0.2
    expected = 2 * shortfall**2 / (shortfall**2).sum()
    assert validation_weights((0.21, 0.84)) == pytest.approx(expected)
    assert expected == pytest.approx([32 / 17, 2 / 17])
    assert validation_weights((0.5, 0.5, 0.5)) == pytest.approx([1, 1, 1])
    assert validation_weights((0, 0.5), gamma=1, margin=1) == pytest.approx([8 / 7, 6 / 7])


def test_validation_is_ones_until_scored_and_follows_the_last_score():
    strategy = make("validation", 2)
    strategy.end_epoch(np.ones(2), None)
    assert (loss_weights(strategy, [1.0, 1.0])[1] == 1).all()
    assert validation_weights((0.9, 0.1), (0.3, 0.6)) == pytest.approx(validation_weights((0.3, 0.6)))


def test_validation_never_starves_a_task():
    done = validation_weights((1, 0))
    assert done == pytest.approx([2 / 442, 2 * 441 / 442], rel=1e-5)  # a = (1 / 21^2, 1)
    assert validation_weights((7, -3)) == pytest.approx(done)  # clipped to [0, 1]
    assert validation_weights((1, 1)) == pytest.approx([1, 1])


def test_validation_task_without_score():
    nan = float("nan")
    never = validation_weights((nan, 0.21, 0.84))
    assert never == pytest.approx([1, 32 / 17, 2 / 17])
    assert validation_weights((0.21, 0.5), (nan, 0.84)) == pytest.approx([32 / 17, 2 / 17])
    assert validation_weights((nan, nan)) == pytest.approx([1, 1])
