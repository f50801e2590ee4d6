"""Known answers of further loss strategies: from the papers, public measurements, or worked out by hand."""

import math

import numpy as np
import pytest
import torch

from mtlweights import strategies
from mtlweights.strategies.loss.go4align import cluster_means
from tests.test_strategies_loss import LOSSES, loss_weights, make

NAN = float("nan")


def feed(name, *steps, **hyperparameters):
    """A strategy after the given steps, and the weights of the last one."""
    strategy = make(name, len(steps[0]), **hyperparameters)
    for losses in steps:
        weights = loss_weights(strategy, losses)[1]
    return strategy, weights


def end_epoch(strategy, *epochs):
    for means in epochs:
        strategy.end_epoch(np.array(means, dtype=np.float64), None)


# scale_invariant, geometric


def test_scale_invariant():
    value, weights = loss_weights(make("scale_invariant", 3))
    assert value == pytest.approx(math.log(8))
    assert weights == pytest.approx([2, 0.5, 0.125])


def test_geometric_losses_contribute_alike():
    value, weights = loss_weights(make("geometric", 3))
    assert value == pytest.approx(2)
    assert weights == pytest.approx([4 / 3, 1 / 3, 1 / 12])
    assert weights * LOSSES == pytest.approx([2 / 3] * 3)


def test_geometric_mean_of_many_small_losses():
    value, weights = loss_weights(make("geometric", 40), [1e-12] * 40)  # the product is 1e-480
    assert value == pytest.approx(1e-12)
    assert weights == pytest.approx([1 / 40] * 40)


@pytest.mark.parametrize(
    ("name", "value", "weights"),
    [
        ("scale_invariant", math.log(4), [0.5, 0.5, 0, 0]),
        ("geometric", 2, [0.5, 0.5, 0, 0]),
        ("uw_so", 2, [0.5, 0.5, 0, 0]),
        ("ruw", 2 + 2 * math.log(2), [0.5, 0.5, 0, 0]),
        ("imtl_l", 4, [1, 1, 0, 0]),
        ("stch_mtl", math.log(4), [0.5, 0.5, 0, 0]),
        ("igb", math.log(4), [0.5, 0.5, 0, 0]),
        ("famo", 2 * math.log(2), [0.5, 0.5, 0, 0]),
        ("achievement", 2, [0.5, 0.5, 0, 0]),
    ],
)
def test_losses_that_are_not_positive_are_left_out(name, value, weights):
    found = loss_weights(make(name, 4), (2.0, 2.0, 0.0, -3.0))
    assert found[0] == pytest.approx(value)
    assert found[1] == pytest.approx(weights)
    assert (loss_weights(make(name, 2), (0.0, -1.0))[1] == 0).all()


ALL = [n for n in strategies.names() if issubclass(strategies.get(n), strategies.LossStrategy)]


@pytest.mark.parametrize("name", ALL)
def test_odd_losses_give_finite_weights_and_state(name):
    for losses in ((-1.0, 2.0, 0.0), (0.0, 0.0, 0.0), (1e-30, 1e30, -1e30), (1e-38, 1e-38, 1e-38)):
        strategy = make(name, 3)
        for _ in range(7):  # stch_mtl warms up for five epochs
            value, weights = loss_weights(strategy, losses)
            assert np.isfinite(value) and np.isfinite(weights).all(), losses
            end_epoch(strategy, losses)
        assert not any(torch.isinf(value).any() for value in strategy.state_dict().values())


@pytest.mark.parametrize("name", ALL)
def test_the_declared_scale_degree_holds_throughout_training(name):
    """Of strategies that learn nothing, whose state is all of it in their buffers."""
    degree, rng = strategies.get(name).scale_degree, np.random.default_rng(0)
    if degree is None or list(make(name, 3).parameters()):
        return
    steps = rng.uniform(0.5, 2, (18, 3))
    records = []
    for scale in (1.0, 1e-6, 1e6):
        strategy, record = make(name, 3), []
        for i, losses in enumerate(scale * steps):
            record.append(loss_weights(strategy, losses)[1] * scale ** (1 - degree))
            if i % 3 == 2:
                strategy.end_epoch(losses, np.array([0.1, 0.5, 0.9]))
        records.append(np.array(record))
    assert records[1] == pytest.approx(records[0], rel=1e-3, abs=1e-6)
    assert records[2] == pytest.approx(records[0], rel=1e-3, abs=1e-6)


# lbtw, cov, slaw


def test_lbtw_follows_the_ratio_to_the_epochs_first_loss():
    strategy, weights = feed("lbtw", (3.0, 4.0, 5.0))
    assert (weights == 1).all()
    assert loss_weights(strategy, (1.5, 8.0, 10.0))[1] == pytest.approx([0.6, 1.2, 1.2])
    assert loss_weights(strategy, (1.5, 8.0), np.array([0, 1]))[1] == pytest.approx([2 / 3, 4 / 3])
    assert (feed("lbtw", (3, 4), (1, 9), alpha=0)[1] == 1).all()


def test_lbtw_starts_anew_with_each_epoch():
    strategy, _ = feed("lbtw", (3.0, 4.0), (1.0, 9.0))
    end_epoch(strategy, (2.0, NAN))
    weights = loss_weights(strategy, (1.0, 16.0))[1]  # ratios 1, and 4: task 1 was not seen
    assert weights == pytest.approx([2 / 3, 4 / 3])


def test_cov_first_steps_and_statistics():
    steps = ((4.0, 1.0), (2.0, 1.0), (1.0, 1.5))
    for n, expected in ((1, [0.5, 0.5]), (2, [0.5, 0.5]), (3, [1, 0])):
        strategy, weights = feed("cov", *steps[:n])
        assert weights == pytest.approx(expected)
    assert strategy.mean_ratio.tolist() == pytest.approx([0.6111, 1.1667], abs=5e-5)
    assert strategy.squares.tolist() == pytest.approx([0.2407, 0.1667], abs=5e-5)
    assert strategy.mean_loss.tolist() == pytest.approx([2.3333, 1.1667], abs=5e-5)
    variation = np.sqrt(np.array([0.2407, 0.1667]) / 3) / [0.6111, 1.1667]
    assert loss_weights(strategy, (1.0, 1.0))[1] == pytest.approx(variation / variation.sum(), abs=1e-4)


def test_cov_does_not_see_the_scale_and_constant_losses_are_equal():
    steps = [np.array(s) for s in ((4.0, 1.0), (2.0, 0.9), (1.0, 1.5), (0.7, 1.1))]
    scaled = feed("cov", *[s * [1e5, 1e-5] for s in steps])[1]
    assert scaled == pytest.approx(feed("cov", *steps)[1], rel=1e-4)
    assert feed("cov", *[(3.0, 0.2)] * 5)[1] == pytest.approx([0.5, 0.5])


def test_cov_task_with_too_few_steps_has_its_even_share():
    strategy, _ = feed("cov", (4.0, 1.0, 1.0), (2.0, 2.0, 1.0))
    strategy.count[2] = 1
    weights = loss_weights(strategy, (1.0, 1.0, 1.0))[1]
    # rho: (1, 1/2) and (1, 2), so std / mean = (1/4) / (3/4) and (1/2) / (3/2)
    assert weights == pytest.approx([1 / 3] * 3)


def test_slaw():
    steps = ((1.0, 10.0), (1.2, 8.0), (0.8, 14.0))
    assert (feed("slaw", steps[0])[1] == 1).all()
    strategy, weights = feed("slaw", *steps)
    assert strategy.variance.sqrt().tolist() == pytest.approx([0.163299, 2.494438], abs=2e-6)
    assert weights == pytest.approx([1.877114, 0.122886], abs=2e-6)
    scaled = feed("slaw", *[(a, 10 * b) for a, b in steps])[1]
    assert scaled[1] / scaled[0] == pytest.approx(weights[1] / weights[0] / 10)


def test_slaw_averages_exponentially_and_does_not_lose_digits():
    losses = np.random.default_rng(0).uniform(1, 2, (20, 1))
    strategy, _ = feed("slaw", *losses, rate=0.25)
    mean = square = 0.0
    for t, (loss,) in enumerate(losses, 1):
        rate = max(1 / t, 0.25)
        mean, square = mean + rate * (loss - mean), square + rate * (loss**2 - square)
    assert strategy.variance.item() == pytest.approx(square - mean**2, rel=1e-4)
    flat = feed("slaw", (1000.0, 1.0), (1000.25, 1.25), (999.75, 0.75))[1]
    assert flat == pytest.approx([1, 1], rel=1e-6)


def test_slaw_constant_and_unseen_tasks():
    constant = feed("slaw", *[(1.0, 2.0)] * 3)[1]
    assert constant == pytest.approx([4 / 3, 2 / 3])  # the floor is relative
    assert feed("slaw", *[(1.0, 2.0, 0.0)] * 3)[1] == pytest.approx([4 / 3, 2 / 3, 1])


# uw_so, ruw, imtl_l


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (1, (0.726488, 0.162101, 0.111411)),
        (2, (0.536489, 0.253419, 0.210092)),
        (20, (0.352329, 0.326871, 0.320799)),
        (1e9, (1 / 3, 1 / 3, 1 / 3)),
        (1e-9, (1, 0, 0)),
    ],
)
def test_uw_so(temperature, expected):
    value, weights = loss_weights(make("uw_so", 3, temperature=temperature))
    assert weights == pytest.approx(expected, abs=1e-6)
    assert value == pytest.approx(np.dot(expected, LOSSES), abs=1e-5)


def test_uw_so_inverse_beyond_the_largest_number():
    assert loss_weights(make("uw_so", 3, temperature=1e-9), (1e-308, 1e-308, 1.0))[1].tolist() == [
        0.5,
        0.5,
        0,
    ]


def test_ruw_and_its_optimum():
    strategy = make("ruw", 3)
    value = strategy.combine(torch.tensor(LOSSES))
    assert value.item() == pytest.approx(7.329442)
    assert torch.autograd.grad(value, strategy.sigma)[0].tolist() == pytest.approx([0.5, -1, -7])
    with torch.no_grad():
        strategy.sigma.copy_(torch.tensor([0.640388, 1.618034, 4.828427]).sqrt())
    value = strategy.combine(torch.tensor(LOSSES))
    assert torch.autograd.grad(value, strategy.sigma)[0].tolist() == pytest.approx([0, 0, 0], abs=1e-5)


def test_ruw_sigma_keeps_off_zero():
    strategy = make("ruw", 4)
    with torch.no_grad():
        strategy.sigma.copy_(torch.tensor([0.0, -1e-9, -0.5, 1e-9]))
    strategy.project(torch.tensor([True, True, True, False]))
    assert strategy.sigma.tolist() == pytest.approx([1e-3, -1e-3, -0.5, 1e-9])


def test_imtl_l_and_its_optimum():
    strategy = make("imtl_l", 3)
    value = strategy.combine(torch.tensor(LOSSES))
    assert value.item() == 10.5
    assert torch.autograd.grad(value, strategy.log_scale)[0].tolist() == pytest.approx([-0.5, 1, 7])
    with torch.no_grad():
        strategy.log_scale.copy_(-torch.log(torch.tensor(LOSSES)))
    assert loss_weights(strategy)[1] == pytest.approx([2, 0.5, 0.125])


# go4align


def test_go4align_without_groups():
    strategy = make("go4align", 3, groups=3)
    weights = loss_weights(strategy)[1]
    assert strategy.p.tolist() == pytest.approx([0.333433, 0.333383, 0.333183], abs=1e-6)
    assert weights == pytest.approx([7.0021, 1.7503, 0.4373], abs=5e-5)


def test_go4align_groups_share_a_weight():
    assert loss_weights(make("go4align", 3))[1] == pytest.approx([7.0021, 1.0938, 1.0938], abs=5e-5)
    assert loss_weights(make("go4align", 3, groups=1))[1] == pytest.approx([3.06323] * 3, abs=5e-5)


def test_clusters_are_the_best_of_all():
    def cost(x, labels):
        return sum(((x[labels == g] - x[labels == g].mean()) ** 2).sum() for g in set(labels))

    rng = np.random.default_rng(0)
    for _ in range(30):
        m, k = rng.integers(3, 7), rng.integers(1, 4)
        x = rng.exponential(size=m) * 10.0 ** rng.integers(-6, 6)
        labels = np.stack(np.unravel_index(np.arange(k**m), (k,) * m), 1)
        best = min(cost(x, row) for row in labels)
        means = cluster_means(torch.tensor(x), int(k)).numpy()
        assert len(np.unique(means)) <= k
        assert ((x - means) ** 2).sum() == pytest.approx(best, rel=1e-9, abs=1e-12 * x.max() ** 2)


# any unit of the losses


def weights_in_float32(name, losses):
    losses = torch.tensor(losses, dtype=torch.float32, requires_grad=True)
    (found,) = torch.autograd.grad(make(name, 2).combine(losses, None), losses)
    return found.double().numpy()


@pytest.mark.parametrize("scale", [1e-24, 1e-12, 1e12, 210e9**2])
def test_the_weights_of_pbi_do_not_depend_on_the_unit(scale):
    assert weights_in_float32("pbi", [3 * scale, scale]) == pytest.approx([3 * 2**0.5, -2 * 2**0.5])


@pytest.mark.parametrize("scale", [1e-24, 1e-12])
def test_the_cosine_of_cosmos_does_not_depend_on_the_unit(scale):
    """d cos / d l_i = (r_i - cos |r| l_i / |l|) / (|r| |l|): the penalty's weight is one over the unit."""
    found = weights_in_float32("cosmos", [3 * scale, scale])
    assert found * scale == pytest.approx([0.0447213595, -0.1341640786], rel=1e-5)
