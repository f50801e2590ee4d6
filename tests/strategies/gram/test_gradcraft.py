"""GradCraft against its two stages, carried out on the gradients themselves, and what they promise."""

import numpy as np
import pytest

from mtlweights import strategies


def crafted(rows, means, r, margin):
    """The gradients after both stages [T, P]: one at a time, by normal equations of the conflicting ones."""
    longest = max(means)
    drawn = [r * longest / m * row + (1 - r) * row for row, m in zip(rows, means, strict=True)]
    out = []
    for g in drawn:
        against = [h for h in drawn if g @ h < 0]
        if against:
            h = np.array(against)
            wanted = [margin * np.linalg.norm(g) * np.linalg.norm(k) - g @ k for k in against]
            g = g + np.linalg.solve(h @ h.T, wanted) @ h
        out.append(g)
    return np.array(out)


@pytest.mark.parametrize(("r", "margin", "decay"), [(1.0, 1e-10, 0.0), (0.3, 0.2, 0.0), (0.6, 0.0, 0.8)])
def test_both_stages(r, margin, decay):
    rng = np.random.default_rng(0)
    strategy = strategies.get("gradcraft")(4, r=r, margin=margin, decay=decay)
    past = []
    for _ in range(20):
        rows = rng.normal(size=(4, 6)) * 10.0 ** rng.uniform(-3, 3, (4, 1))
        past.append(np.linalg.norm(rows, axis=1))
        shares = decay ** np.arange(len(past))[::-1]
        means = (shares[:, None] * past).sum(axis=0) / shares.sum()
        found = strategy.weights(rows @ rows.T, np.ones(4), np.arange(4)) @ rows
        assert found == pytest.approx(crafted(rows, means, r, margin).mean(axis=0), rel=1e-8, abs=1e-12)


def test_every_crafted_gradient_is_free_of_its_own_conflicts():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(5, 8))
    after = crafted(rows, np.linalg.norm(rows, axis=1), 1.0, 0.1)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    conflicts = units @ units.T < 0
    assert conflicts.any()
    longest = np.linalg.norm(rows, axis=1).max()
    assert (after @ units.T / longest)[conflicts] == pytest.approx(0.1)


def test_dependent_gradients_where_the_authors_inverse_fails():
    """Two equal ones against a third: their Gramian has no inverse; g_3 loses its part against both."""
    rows = np.array([[1.0, 0], [1, 0], [-1, 1]])
    strategy = strategies.get("gradcraft")(3, r=0.0, margin=0.0)
    found = strategy.weights(rows @ rows.T, np.ones(3), np.arange(3)) @ rows
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.inv(rows[:2] @ rows[:2].T)
    assert found == pytest.approx(np.mean([[0.5, 0.5], [0.5, 0.5], [0, 1]], axis=0))
    opposed = np.array([[1.0, 0], [-2, 0]])
    assert strategies.get("gradcraft")(2).weights(
        opposed @ opposed.T, np.ones(2), np.arange(2)
    ) @ opposed == pytest.approx([0, 0], abs=1e-9)


def test_a_zero_gradient_changes_nothing_for_the_others():
    rows = np.array([[3.0, 0], [0, 0], [-1, 1]])
    alone = rows[[0, 2]]
    two = strategies.get("gradcraft")(2).weights(alone @ alone.T, np.ones(2), np.arange(2)) @ alone
    three = strategies.get("gradcraft")(3).weights(rows @ rows.T, np.ones(3), np.arange(3)) @ rows
    assert 3 * three == pytest.approx(2 * two)


@pytest.mark.parametrize("wrong", [{"r": 1.5}, {"margin": -0.1}, {"decay": 1.0}])
def test_bad_hyperparameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        strategies.get("gradcraft")(2, **wrong)
