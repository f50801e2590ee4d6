"""Known answers of loss strategies with a preference, with epochs, with validation scores."""

import math

import numpy as np
import pytest
import torch

from mtlweights import Balancer
from tests.strategies.test_strategies_loss import LOSSES, loss_weights, make
from tests.strategies.test_strategies_loss_more import NAN, end_epoch

# stch, both forms


def test_stch():
    value, weights = loss_weights(make("stch", 3))
    assert value == pytest.approx(2.863401)
    assert weights == pytest.approx([0.022475, 0.037055, 0.273803], abs=1e-6)


@pytest.mark.parametrize("mu", [1e-3, 0.1, 1, 10])
def test_stch_is_between_the_maximum_and_its_bound(mu):
    preference, ideal, losses = np.array([0.5, 2, 1]), np.array([-1, 0, 3]), np.array([1.0, 0.7, 5.0])
    options = {"preference": preference.tolist(), "ideal": ideal.tolist()}
    value, weights = loss_weights(make("stch", 3, mu=mu, **options), losses)
    largest = (preference * (losses - ideal)).max()
    assert largest - 1e-6 <= value <= largest + mu * math.log(3) + 1e-6
    if mu == 1e-3:
        assert weights == pytest.approx([0, 0, 1])


def stch_mtl(*nadir, **hyperparameters):
    strategy = make("stch_mtl", len(nadir), warmup=2, **hyperparameters)
    end_epoch(strategy, [9.0] * len(nadir), [9.0] * len(nadir), nadir)
    return strategy


def test_stch_mtl():
    value, weights = loss_weights(stch_mtl(1, 1, 4))
    assert value == pytest.approx(4.512232)
    assert weights == pytest.approx([2 / 3, 2 / 3, 1 / 6])
    assert loss_weights(stch_mtl(1, 1, 4, mu=0.01))[1] == pytest.approx([0, 0.75, 0.1875])
    assert loss_weights(stch_mtl(1, 1, 4), LOSSES[:2], np.array([0, 1]))[1] == pytest.approx([0.8, 0.8])


def test_stch_mtl_warms_up_with_log_losses():
    strategy = make("stch_mtl", 3)
    for _ in range(5):
        value, weights = loss_weights(strategy)
        assert value == pytest.approx(math.log(8))
        assert weights == pytest.approx([2, 0.5, 0.125])
        end_epoch(strategy, (1, 1, 4))
    assert loss_weights(strategy)[0] == pytest.approx(4.512232)


def test_stch_mtl_task_without_nadir():
    strategy = stch_mtl(1, NAN)
    assert loss_weights(strategy, (3.0, 7.0))[1] == pytest.approx([2 * 0.75 / 3, 2 * 0.25 / 7])
    end_epoch(strategy, (5, 14))
    assert strategy.nadir.tolist() == [1, 14]


# igb


def test_igb():
    strategy = make("igb", 3)
    for losses in ((9, 9, 9), (4, 4, 4)):
        value, weights = loss_weights(strategy, losses)
        assert weights == pytest.approx(1 / np.array(losses))
        end_epoch(strategy, losses)
    value, weights = loss_weights(strategy, (2.0, 8.0, 8.0))
    assert weights * (2, 8, 8) == pytest.approx([0.301103, 1.349449, 1.349449], abs=1e-6)
    assert value == pytest.approx(0.301103 * math.log(2) + 2 * 1.349449 * math.log(8), abs=1e-5)


# ldc


def test_ldc_at_the_start():
    """sigma = sigmoid(1) each: shares of 1/3, and the penalty's signs -, 0, +."""
    strategy, sigma = make("ldc", 3, penalty=0.1), 1 / (1 + math.exp(-1))
    value, weights = loss_weights(strategy)
    assert value == pytest.approx(10.5 / 3 + 0.1 * sigma * 7.5)
    assert weights == pytest.approx([1 / 3 - 0.1 * sigma, 1 / 3, 1 / 3 + 0.1 * sigma])
    gradient = torch.autograd.grad(strategy.combine(torch.tensor(LOSSES)), strategy.phi)[0]
    by_sigma = np.array(LOSSES) / (3 * sigma) + 0.1 * np.array([-0.5, 0, 8])  # the sum of sigma is a constant
    assert gradient.tolist() == pytest.approx(sigma * (1 - sigma) * by_sigma)


def test_ldc_where_sigma_underflows():
    """Shares of one half each, where exp(-phi) is beyond float32."""
    strategy = make("ldc", 2)
    with torch.no_grad():
        strategy.phi.fill_(-89.0)
    losses = torch.tensor([1.0, 2.0], requires_grad=True)
    value = strategy.combine(losses)
    gradient, learned = torch.autograd.grad(value, [losses, strategy.phi])
    assert value.item() == pytest.approx(1.5)
    assert gradient.tolist() == pytest.approx([0.5, 0.5])
    assert learned.tolist() == pytest.approx([0.5, 1.0])


@pytest.mark.parametrize("lr", [None, 1.0])
def test_ldc_lives_through_a_long_training(lr):
    """At a rate of 1, phi is past -88, where its exponential is 0, after 90 steps."""
    a, b = torch.tensor([2.0], requires_grad=True), torch.tensor([-1.0], requires_grad=True)
    balancer, optimizer = Balancer("ldc", ["a", "b"], weight_lr=lr), torch.optim.SGD([a, b], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        balancer({"a": (a * a).mean() + 1, "b": (b * b).mean() + 2}).backward()
        optimizer.step()
    fallen = 1 - balancer.strategy.phi  # it only falls, by up to the rate in a step
    assert (fallen > (0.05 if lr is None else 100)).all() and (fallen <= 150 * (lr or 1e-3) + 1e-3).all()
    weights = [w.item() for w in balancer.weights.values()]
    assert min(weights) > 0.1 and sum(weights) == pytest.approx(1, abs=0.02)
    assert abs(a.item()) < 0.02 and abs(b.item()) < 0.1


def test_ldc_weight_may_be_negative():
    assert loss_weights(make("ldc", 3, penalty=1), (8.0, 0.5, 2.0))[1][1] < 0


# stch


def test_stch_of_terms_that_overflow_over_mu():
    losses = torch.tensor([1e30, 2e30, 3e30], requires_grad=True)
    value = make("stch", 3, mu=1e-10).combine(losses)
    assert value.item() == pytest.approx(1e30)
    assert torch.autograd.grad(value, losses)[0].tolist() == pytest.approx([0, 0, 1 / 3])


# cosmos, pbi


def test_cosmos():
    assert loss_weights(make("cosmos", 3))[0] == pytest.approx(2.766200, abs=1e-6)
    assert loss_weights(make("cosmos", 3, penalty=0))[1] == pytest.approx([1 / 3] * 3)
    ray = (1.0, 2.0, 3.0)
    value, weights = loss_weights(make("cosmos", 3, preference=ray, penalty=2), ray)
    assert value == pytest.approx(14 - 2)
    assert weights == pytest.approx(ray)  # the cosine is 1, its maximum


def test_cosmos_draws_a_preference_per_step():
    strategy = make("cosmos", 3, concentration=2.0)
    draws = []
    for step in range(2000):
        strategy.step.fill_(step)
        draws.append(strategy.draw().numpy())
    draws = np.array(draws)
    assert draws.sum(1) == pytest.approx(1, abs=1e-6)
    # Dirichlet(2, 2, 2): mean 1/3, variance (1/3)(2/3) / 7
    assert draws.mean(0) == pytest.approx(1 / 3, abs=0.016)
    assert draws.var(0) == pytest.approx(2 / 63, rel=0.13)
    assert (strategy.draw().numpy() == draws[-1]).all()
    cosine = 1 / math.sqrt(3 * (draws[-1] ** 2).sum())
    assert loss_weights(strategy, (1.0, 1.0, 1.0))[0] == pytest.approx(1 - cosine)
    strategy.seed = 1
    assert (strategy.draw().numpy() != draws[-1]).all()


def test_pbi():
    assert loss_weights(make("pbi", 3))[0] == pytest.approx(34.124608, abs=1e-5)
    assert loss_weights(make("pbi", 3, theta=0))[0] == pytest.approx(6.062178)
    value, weights = loss_weights(make("pbi", 2, preference=[3, 4], ideal=[1, 0]), (7.0, 8.0))
    assert value == pytest.approx(10)
    assert weights == pytest.approx([0.6, 0.8])  # on the ray: the kink of d2
    _, weights = loss_weights(make("pbi", 2, theta=5), (1.0, 3.0))
    assert weights == pytest.approx([(1 - 5) / math.sqrt(2), (1 + 5) / math.sqrt(2)])


# dtp, achievement


def scored(name, *scores, **hyperparameters):
    strategy = make(name, len(scores[0]), **hyperparameters)
    for row in scores:
        strategy.end_epoch(np.full(len(row), NAN), np.array(row, dtype=np.float64))
    return strategy


def test_dtp():
    for gamma, expected in ((1, (0.346574, 0.010536)), (0.5, (0.490129, 0.033318))):
        weights = loss_weights(scored("dtp", (0.5, 0.9), gamma=gamma), (3, 3))[1]
        assert weights == pytest.approx(expected, abs=1e-6)


def test_dtp_averages_scores_and_keeps_to_its_range():
    strategy = scored("dtp", (0.5, NAN, 7, -3), (0.9, NAN, NAN, 0))
    assert strategy.indicator.tolist() == pytest.approx([0.54, NAN, 1, 0], nan_ok=True)
    weights = loss_weights(strategy, (1, 1, 1, 1))[1]
    assert weights == pytest.approx([-0.46 * math.log(0.54), 1, 0, -0.99 * math.log(0.01)], abs=1e-6)


def test_achievement():
    """Shortfalls 1 and 0.2, so a = 1 and 0.04."""
    exponent = 1 / (1 + math.exp(-0.96))
    strategy = scored("achievement", (0.0, 0.84))
    value, weights = loss_weights(strategy, (2.0, 8.0))
    assert value == pytest.approx(2**exponent * 8 ** (1 - exponent))
    assert weights == pytest.approx([exponent * value / 2, (1 - exponent) * value / 8])
    assert loss_weights(strategy, (8.0,), np.array([1]))[1] == pytest.approx([1])


def test_achievement_is_the_geometric_mean_until_scored():
    strategy = make("achievement", 3)
    assert loss_weights(strategy)[1] == pytest.approx(loss_weights(make("geometric", 3))[1])
    strategy = scored("achievement", (0.5, NAN, 7), (0.9, NAN, NAN))
    assert strategy.score.tolist() == pytest.approx([0.54, NAN, 1], nan_ok=True)


# what is refused


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("lbtw", {"alpha": -0.1}, "alpha should be a number of at least 0, found -0.1"),
        ("slaw", {"rate": 0}, "rate should be above 0 and at most 1, found 0"),
        ("uw_so", {"temperature": NAN}, "temperature should be a number above 0, found nan"),
        ("stch", {"mu": 0}, "mu should be a number above 0, found 0"),
        ("stch", {"preference": [1, 2]}, r"preference should have 3 numbers, one per task, found \[1, 2\]"),
        ("stch", {"ideal": [0, 0, math.inf]}, "ideal should hold finite numbers"),
        ("stch", {"ideal": "low"}, "ideal should be numbers, found 'low'"),
        ("stch_mtl", {"warmup": 1.5}, "warmup should be a whole number of at least 0, found 1.5"),
        ("go4align", {"groups": 0}, "groups should be a whole number of at least 1, found 0"),
        ("go4align", {"step_size": math.inf}, "step_size should be a number of at least 0, found inf"),
        ("igb", {"base": -1}, "base should be a whole number of at least 0, found -1"),
        ("famo", {"gamma": -1}, "gamma should be a number of at least 0"),
        ("ldc", {"penalty": -1}, "penalty should be a number of at least 0"),
        ("cosmos", {"concentration": 0}, "concentration should be a number above 0"),
        (
            "cosmos",
            {"preference": [0, 0, 0]},
            "at least 0, one of them above 0",
        ),
        ("pbi", {"preference": [1, -1, 1]}, "preference should hold numbers of at least 0"),
        ("pbi", {"theta": "5"}, "theta should be a number of at least 0, found '5'"),
        ("dtp", {"rate": 1.1}, "rate should be above 0 and at most 1, found 1.1"),
        ("achievement", {"margin": 0}, "margin should be a number above 0, found 0"),
    ],
)
def test_bad_hyperparameters_are_refused(name, hyperparameters, message):
    with pytest.raises(ValueError, match=message):
        make(name, 3, **hyperparameters)
