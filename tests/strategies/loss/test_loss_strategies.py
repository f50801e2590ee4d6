"""What all strategies on losses keep to: odd losses, and their scale."""

import math

import numpy as np
import pytest
import torch

from mtlweights import strategies
from tests.strategies.helpers import end_epoch, loss_weights, make


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
