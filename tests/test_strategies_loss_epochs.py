"""Known answers of loss strategies with a preference, with epochs, with validation scores, and of FAMO."""

import copy
import math

import numpy as np
import pytest
import torch

from mtlweights import Balancer
from tests.test_strategies_loss import LOSSES, loss_weights, make
from tests.test_strategies_loss_more import NAN, end_epoch
from tests.toys import assert_same_state, batch, losses_of, names, toy

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


def test_ldc_weight_may_be_negative():
    assert loss_weights(make("ldc", 3, penalty=1), (8.0, 0.5, 2.0))[1][1] < 0


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
    assert weights == pytest.approx([0.6, 0.8], abs=1e-6) or abs(weights @ [0.6, 0.8] - 1) < 1e-6
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
    """Shortfalls 0.8 and 0.2, so a = 0.64 and 0.04."""
    exponent = 1 / (1 + math.exp(-0.6))
    strategy = scored("achievement", (0.21, 0.84))
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
        ("stch_mtl", {"warmup": 1.5}, "warmup should be a whole number of epochs, at least 0, found 1.5"),
        ("go4align", {"groups": 0}, "groups should be a whole number of at least 1, found 0"),
        ("go4align", {"step_size": math.inf}, "step_size should be a number of at least 0, found inf"),
        ("igb", {"base": -1}, "base should be a whole number, the epoch counted from 0, found -1"),
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


# famo


def test_famo_weights():
    value, weights = loss_weights(make("famo", 3))
    assert value == pytest.approx(0.792168)
    assert weights == pytest.approx([0.761905, 0.190476, 0.047619], abs=1e-6)
    assert loss_weights(make("famo", 3), np.array(LOSSES) * 1e5)[1] == pytest.approx(weights, rel=1e-5)


def linear_balancer(**options):
    """Losses that are plain numbers times one parameter."""
    w = torch.nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([w], lr=0.0)
    balancer = Balancer("famo", names(3), **options).attach(optimizer)

    def step(losses, after=None):
        optimizer.zero_grad()
        balancer({f"t{i}": w * x for i, x in enumerate(losses)}).backward()
        optimizer.step()
        if after is not None:
            balancer.after_step(lambda: {f"t{i}": w * x for i, x in enumerate(after)})
        return balancer.strategy.logits.tolist()

    return balancer, step


AFTER = (0.4, 1.9, 7.8)
GRADIENT = (0.041075, -0.016208, -0.024867)


def test_famo_gradient():
    strategy = make("famo", 3)
    loss_weights(strategy)
    strategy.after_step(torch.tensor(AFTER))
    assert strategy.logits.grad.tolist() == pytest.approx(GRADIENT, abs=1e-6)
    value = strategy.combine(torch.tensor(LOSSES))
    assert torch.autograd.grad(value, strategy.logits)[0].tolist() == [0, 0, 0]  # taken already
    value = strategy.combine(torch.tensor(AFTER))
    assert torch.autograd.grad(value, strategy.logits)[0].tolist() == pytest.approx(GRADIENT, abs=1e-6)


def test_famo_decays_only_what_moves():
    strategy = make("famo", 3, gamma=0.5)
    with torch.no_grad():
        strategy.logits.copy_(torch.tensor([0.2, -0.4, 0.2]))
    loss_weights(strategy, LOSSES[:2], np.array([0, 1]))
    strategy.after_step(torch.tensor(LOSSES))
    assert strategy.logits.grad.tolist() == pytest.approx([0.1, -0.2, 0])


def test_famo_moves_at_once_after_a_step_and_once_per_step():
    balancer, step = linear_balancer(gamma=0.0)
    twin = torch.zeros(3, requires_grad=True)
    adam = torch.optim.Adam([twin], lr=0.025)
    assert step(LOSSES, AFTER) == pytest.approx([-0.025, 0.025, 0.025], abs=1e-6)
    twin.grad = torch.tensor(GRADIENT)
    adam.step()
    for losses, after in (((1.0, 3.0, 2.0), (0.9, 2.9, 1.5)), ((0.7, 2.0, 2.0), (0.9, 1.9, 1.2))):
        found = step(losses, after)
        delta = torch.log(torch.tensor(losses)) - torch.log(torch.tensor(after))
        adam.zero_grad()
        (torch.softmax(twin, 0) * delta).sum().backward()
        adam.step()
        assert found == pytest.approx(twin.tolist(), abs=1e-6)
    assert balancer.state_dict()["updates"].tolist() == [3, 3, 3]


def test_famo_takes_the_next_batch_without_after_step():
    balancer, step = linear_balancer(gamma=0.0)
    assert step(LOSSES) == [0, 0, 0]
    assert balancer.state_dict()["updates"].tolist() == [0, 0, 0]
    assert step(AFTER) == pytest.approx([-0.025, 0.025, 0.025], abs=1e-6)


@pytest.mark.parametrize("after", [(NAN, 1.0, 1.0), (0.4, float("inf"), 7.8)])
def test_famo_does_not_move_on_losses_that_are_not_finite(after):
    balancer, step = linear_balancer()
    step(LOSSES, AFTER)
    before = copy.deepcopy(balancer.state_dict())
    assert step(LOSSES, after) == before["strategy"]["logits"].tolist()
    assert_same_state(balancer.state_dict()["moments"], before["moments"])


def test_famo_skipped_step_takes_no_difference():
    """The scaler drops the second step: there is nothing that its losses could be compared to."""
    model = toy(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    balancer = Balancer("famo", names(3), model).attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for poison in (False, True):
        optimizer.zero_grad()
        scaler.scale(balancer(losses_of(model, batch()))).backward()
        before = copy.deepcopy(balancer.strategy.state_dict())
        if poison:
            model.heads[1].weight.grad[0, 0] = float("inf")
        scaler.step(optimizer)
        scaler.update()
        balancer.after_step(lambda: losses_of(model, batch()))
    assert before["logits"].abs().min() > 0.02
    assert_same_state(balancer.strategy.state_dict(), before)


def test_famo_absent_task_keeps_its_logit_and_its_last_loss():
    balancer, step = linear_balancer(gamma=0.0)
    step(LOSSES)
    found = step(AFTER[:2])
    assert found == pytest.approx([-0.025, 0.025, 0], abs=1e-6)
    assert balancer.strategy.before.tolist() == pytest.approx(np.log([0.4, 1.9, 8.0]))
