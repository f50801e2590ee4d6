"""What a comparison may claim: intervals and verdicts against SciPy, by hand, and by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from mtlweights.bench.statistics import (
    anytime_t,
    critical_difference,
    fixed_t,
    interquartile_mean,
    judge,
    ranks,
    seeds_needed,
)

VALUES = [0.3, -0.1, 0.8, 0.4, 0.5, 0.1]


def test_the_fixed_interval_is_student_s():
    found, expected = fixed_t(VALUES, 0.1), stats.ttest_1samp(VALUES, 0)
    low, high = expected.confidence_interval(0.9)
    assert (found.low, found.high, found.p) == pytest.approx((low, high, expected.pvalue))


def evidence(values, mean):
    """E_n by numerical integration over the effect size, of the likelihood of x / |x_1|."""
    x = np.array(values) - mean
    n, squares, total = len(x), x @ x, x.sum()
    effect, step = np.linspace(-9, 9, 3_001, retstep=True)
    # the integral over sigma of sigma^(-n-1) exp(-sum((x - sigma d)^2) / (2 sigma^2)), by u = 1 / sigma
    u, du = np.linspace(1e-3, 60 / math.sqrt(squares / n), 2_000, retstep=True)
    each = u ** (n - 1) * np.exp(-squares * u**2 / 2)
    alone = each.sum() * du
    slope = np.exp(np.clip(np.outer(effect, u) * total, -600, 600)) @ each * du
    prior = stats.norm.pdf(effect)
    return float((prior * np.exp(-n * effect**2 / 2) * slope).sum() * step / alone)


def test_the_anytime_interval_ends_where_the_evidence_is_one_over_alpha():
    found = anytime_t(VALUES * 2, 0.1)
    assert evidence(VALUES * 2, found.low) == pytest.approx(10, rel=2e-3)
    assert evidence(VALUES * 2, found.high) == pytest.approx(10, rel=2e-3)
    assert found.p == pytest.approx(min(1, 1 / evidence(VALUES * 2, 0.0)), rel=2e-3)


def test_looking_after_every_seed_keeps_the_level():
    """600 comparisons without a difference, looked at 20 times each; Student's t is wrong far too often."""
    rng = np.random.default_rng(0)
    wrong = {fixed_t: 0, anytime_t: 0}
    for values in rng.normal(size=(600, 40)):
        for interval in wrong:
            wrong[interval] += any(interval(values[:n], 0.05).p <= 0.05 for n in range(2, 41, 2))
    assert wrong[anytime_t] <= stats.binom.ppf(0.99, 600, 0.05) < wrong[fixed_t]


@pytest.mark.parametrize(("design", "interval"), [("fixed", fixed_t), ("until-resolved", anytime_t)])
def test_the_seeds_that_are_needed_are_the_fewest(design, interval):
    n = seeds_needed(design, 0.6, 1.0, 0.5, 0.05)
    rng = np.random.default_rng(0)

    def half(n):
        values = rng.normal(size=n)
        return interval((values - values.mean()) / values.std(ddof=1), 0.05).half

    assert half(n) < 0.6 <= half(n - 1)
    assert seeds_needed(design, 1e-9, 1.0, 0.0, 0.05) is None
    assert seeds_needed(design, 0.5, 0.0, 0.0, 0.05) == 2


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([2.0, 2.1, 2.2], "better"),
        ([-2.0, -2.1, -2.2], "worse"),
        ([0.10, 0.11, 0.12], "equal"),  # beyond 0, and less than matters
        ([-3.0, 3.0, 1.0], "unresolved"),
        ([2.0, 2.0001], "unresolved"),  # two seeds
        ([2.0], "unresolved"),
        ([2.0, 2.0, 2.0], "unresolved"),  # no width: the same few items
        ([0.3 - 0.1, 0.4 - 0.2, 0.2], "unresolved"),  # none but rounding
        ([0.0, 0.0, 0.0], "equal"),
    ],
)
@pytest.mark.parametrize("design", ["fixed", "until-resolved"])
def test_verdicts(values, verdict, design):
    repeated = values if len(values) < 3 else values * (1 if design == "fixed" else 8)
    assert judge({"arm": repeated}, 0.5, design=design)["arm"].verdict == verdict


def test_holm_by_hand():
    rng = np.random.default_rng(1)
    arms = {f"a{k}": list(rng.normal(k / 2, 1, size=10)) for k in range(5)}
    found = judge(arms, 0.1)
    p = {arm: stats.ttest_1samp(values, 0).pvalue for arm, values in arms.items()}
    order = sorted(p, key=p.get)
    adjusted = np.maximum.accumulate([min(1, (5 - k) * p[arm]) for k, arm in enumerate(order)])
    assert [found[arm].p for arm in order] == pytest.approx(list(adjusted))
    better = [arm for arm, value in zip(order, adjusted, strict=True) if value <= 0.05]
    assert better == [arm for arm in order if found[arm].verdict == "better"] != []
    for k, arm in enumerate(order):
        assert found[arm].interval == fixed_t(arms[arm], 0.05 / (5 - k))


def test_an_unresolved_arm_is_resolved_by_the_seeds_it_asks_for():
    values = [1.0, -0.5, 0.9, 0.3, -0.1]
    more = judge({"arm": values}, 0.1)["arm"].more_seeds
    side, n = np.std(values, ddof=1), len(values) + more
    again = np.resize([side, -side], n) * math.sqrt((n - 1) / (n - n % 2)) + np.mean(values)
    assert judge({"arm": list(again - again.mean() + np.mean(values))}, 0.1)["arm"].verdict == "better"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: judge({"a": [1.0]}, -1), "worth should be at least 0"),
        (lambda: judge({"a": [1.0]}, 0.5, design="x"), "design should be one of fixed, until-resolved"),
        (lambda: judge({"a": []}, 0.5), "at least one finite value"),
        (lambda: fixed_t([math.nan, 1.0]), "at least one finite value"),
        (lambda: fixed_t([1.0], 0), r"alpha should be in \(0, 1\)"),
        (lambda: interquartile_mean({"p": []}), "at least one score"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_interquartile_mean_and_its_interval():
    rng = np.random.default_rng(0)
    scores = {f"p{k}": list(rng.normal(k, 1, size=8)) for k in range(4)}
    mean, low, high = interquartile_mean(scores)
    every = np.sort(np.concatenate(list(scores.values())))
    assert mean == pytest.approx(every[8:24].mean())
    assert low < mean < high and interquartile_mean(scores) == (mean, low, high)


def test_ranks_and_their_critical_difference():
    table = np.array([[0.9, 0.5, 0.5], [0.8, 0.9, 0.1]])
    assert ranks(table) == pytest.approx([1.5, 1.75, 2.75])
    assert critical_difference(14, 5) is None
    # Demsar 2006, table 5: q_0.05 = 2.728 for five classifiers
    assert critical_difference(30, 5) == pytest.approx(2.728 * math.sqrt(5 * 6 / (6 * 30)), rel=1e-3)
