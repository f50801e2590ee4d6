"""MGDA: its normalisations, and its preference."""

import numpy as np
import pytest

from tests.strategies.helpers import make


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


@pytest.mark.parametrize("seed", range(10))
def test_preference_of_two_tasks_in_closed_form(seed):
    rng = np.random.default_rng(seed)
    jacobian, p = rng.normal(size=(2, 3)), rng.uniform(0.2, 3, 2)
    first, second = p[:, None] * jacobian
    a = np.clip((second - first) @ second / ((first - second) ** 2).sum(), 0, 1)
    weights = make("mgda", 2, preference=p).weights(jacobian @ jacobian.T, np.ones(2), np.arange(2))
    assert weights == pytest.approx([a * p[0], (1 - a) * p[1]], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("n_tasks", [3, 8])
def test_preference_evens_out_the_rates_of_the_scaled_losses(n_tasks):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        jacobian, p = rng.normal(size=(n_tasks, 9)), rng.uniform(0.2, 3, n_tasks)
        weights = make("mgda", n_tasks, preference=p.tolist()).weights(
            jacobian @ jacobian.T, np.ones(n_tasks), np.arange(n_tasks)
        )
        d = weights @ jacobian
        rates, active = p * (jacobian @ d), weights > 0
        assert (weights / p).sum() == pytest.approx(1, rel=1e-12)
        assert rates[active] == pytest.approx(d @ d, rel=1e-9) and (rates >= d @ d * (1 - 1e-9)).all()


def test_equal_preferences_are_plain_mgda():
    for seed in range(5):
        jacobian, losses = np.random.default_rng(seed).normal(size=(4, 6)), np.arange(1.0, 5)
        gram = jacobian @ jacobian.T
        for kind in ("none", "l2", "loss", "loss+"):
            plain = make("mgda", 4, normalisation=kind).weights(gram, losses, np.arange(len(losses)))
            ones = make("mgda", 4, normalisation=kind, preference=[1, 1, 1, 1]).weights(
                gram, losses, np.arange(len(losses))
            )
            assert (plain == ones).all() and plain.sum() == pytest.approx(1)
            threes = make("mgda", 4, normalisation=kind, preference=[3.0] * 4).weights(
                gram, losses, np.arange(len(losses))
            )
            assert threes == pytest.approx(3 * plain, rel=1e-9, abs=1e-12)


def test_preference_with_normalised_gradients_and_absent_tasks():
    strategy = make("mgda", 3, normalisation="l2", preference=[2, 7, 1])
    # Orthogonal and of norms 2 and 3: on p_i u_i, a = (1, 4) / 5.
    weights = strategy.weights(np.diag([4.0, 9.0]), np.ones(2), np.array([0, 2]))
    assert weights == pytest.approx([2 / 5, 4 / 5])
    assert strategy.weights(np.diag([9.0, 4.0]), np.ones(2), np.array([2, 0])) == pytest.approx(
        [4 / 5, 2 / 5]
    )
