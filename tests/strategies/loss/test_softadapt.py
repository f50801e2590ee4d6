"""SoftAdapt's rules against their formulas, written out."""

import math

import numpy as np
import pytest

from mtlweights import strategies
from mtlweights.testing.harness import Case, Harness

STEPS = np.random.default_rng(0).uniform(0.2, 3, (6, 3))


def play(steps, **hyperparameters):
    """The weights of every step [steps, T]."""
    harness = Harness(strategies.get("softadapt")(len(steps[0]), **hyperparameters))
    rows = np.eye(len(steps[0]))
    return [harness.step(Case("", rows, np.array(losses))).weights[0] for losses in steps]


def rates(now, before, rate):
    if rate == "ratio":
        return [a / b for a, b in zip(now, before, strict=True)]
    change = [a - b for a, b in zip(now, before, strict=True)]
    total = sum(abs(c) for c in change) if rate == "normalised" else 1.0
    return [c / total for c in change]


def shares(s, beta, factors=(1.0, 1.0, 1.0)):
    terms = [f * math.exp(beta * x) for x, f in zip(s, factors, strict=True)]
    return [t / sum(terms) for t in terms]


@pytest.mark.parametrize("loss_weighted", [False, True])
@pytest.mark.parametrize("beta", [0.1, 2.0, -1.5])
@pytest.mark.parametrize("rate", ["difference", "normalised", "ratio"])
def test_the_softmax_of_the_rates(rate, beta, loss_weighted):
    found = play(STEPS, rate=rate, beta=beta, loss_weighted=loss_weighted)
    if not loss_weighted:
        assert found[0] == pytest.approx([1 / 3] * 3)
    for n in range(1, 6):
        factors = STEPS[n] if loss_weighted else (1.0,) * 3
        assert found[n] == pytest.approx(shares(rates(STEPS[n], STEPS[n - 1], rate), beta, factors), rel=1e-5)


def test_the_moving_average_of_them():
    found, w = play(STEPS, alpha=0.6), [1 / 3] * 3
    for n in range(1, 6):
        new = shares(rates(STEPS[n], STEPS[n - 1], "difference"), 0.1)
        w = [0.6 * a + 0.4 * b for a, b in zip(w, new, strict=True)]
        assert found[n] == pytest.approx(w, rel=1e-5)


def test_while_all_losses_fall_the_slowest_gets_most():
    """The authors' package divides by the sum -4 and not by 4, which turns it round: (0.38, 0.62)."""
    found = play([(4.0, 4.0), (3.0, 1.0)], rate="normalised", beta=1.0)[1]
    assert found == pytest.approx([1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(0.5))])


def test_nothing_to_compare_with():
    assert play([(4.0, 4.0), (4.0, 4.0)], rate="normalised")[1] == pytest.approx([0.5, 0.5])
    assert play([(0.0, 1.0), (2.0, 1.0)], rate="ratio")[1] == pytest.approx([0.5, 0.5])
    assert play([(0.0, 0.0)], loss_weighted=True)[0].tolist() == [0, 0]


def test_the_unit_matters_to_the_difference_alone():
    cls = strategies.get("softadapt")
    assert cls(2).scale_degree is None and cls.scale_degree is None
    assert cls(2, rate="ratio").scale_degree == cls(2, rate="normalised").scale_degree == 1
    for rate in ("normalised", "ratio"):
        assert play(1e-6 * STEPS, rate=rate)[-1] == pytest.approx(play(STEPS, rate=rate)[-1], rel=1e-5)


@pytest.mark.parametrize(
    "wrong", [{"beta": math.nan}, {"rate": "slope"}, {"loss_weighted": 1}, {"alpha": 1.0}]
)
def test_bad_hyperparameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        strategies.get("softadapt")(2, **wrong)
