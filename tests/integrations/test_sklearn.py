"""The estimator keeps scikit-learn's contract, and learns several targets."""

import sys

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_regression
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

import mtlweights
from mtlweights import Estimator

SMALL = {"hidden": (16,), "epochs": 12, "random_state": 0}


@parametrize_with_checks([Estimator(strategy="uw", hidden=(16,), epochs=25, batch_size=64, random_state=0)])
def test_the_contract_of_scikit_learn(estimator, check):
    check(estimator)


def table(n=120, scale=1.0):
    X, y = make_regression(n, 5, n_targets=2, random_state=0)
    return X, y * np.array([1.0, scale])


@pytest.mark.parametrize("strategy", ["equal", "uw", "famo", "dwa", "cagrad", "moco"])
def test_two_numbers_of_other_units_are_learned(strategy):
    X, y = table(scale=1e4)
    model = Estimator(strategy, hidden=(32,), epochs=30, random_state=0).fit(X[:90], y[:90])
    assert model.score(X[90:], y[90:]) > 0.7 and model.predict(X).shape == (120, 2)
    assert model.balancer_.weights.keys() in ({"y0", "y1"}, set())


def test_a_class_and_a_number():
    X, y = table()
    mixed = np.column_stack([np.where(y[:, 0] > 0, "up", "down").astype(object), y[:, 1].astype(object)])
    model = Estimator(kinds=["classification", "regression"], **SMALL).fit(X, mixed)
    found = model.predict(X)
    assert set(found[:, 0]) == {"up", "down"} and isinstance(found[0, 1], float)
    assert model.score(X, mixed) > 0.8 and [None if c is None else list(c) for c in model.classes_] == [
        ["down", "up"],
        None,
    ]


def test_options_reach_the_strategy_and_a_search_can_vary_them():
    X, y = table(60)
    search = GridSearchCV(
        Estimator("fixed", **SMALL), {"options": [{"alpha": [1, 1]}, {"alpha": [1, 0]}]}, cv=2
    )
    search.fit(X, y)
    assert search.best_params_ == {"options": {"alpha": [1, 1]}}
    again = clone(search.best_estimator_).fit(X, y)
    assert np.array_equal(again.predict(X), search.best_estimator_.predict(X))


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        ({"kinds": ["regression"]}, "kinds should be 2"),
        ({"kinds": ["regression", "ranking"]}, "'ranking'"),
        ({"epochs": 0}, "epochs"),
        ({"lr": -1.0}, "lr"),
        ({"strategy": "auto_lambda"}, "needs validation losses"),
        ({"strategy": "pcgard"}, "pcgrad"),
    ],
)
def test_what_cannot_be_fitted_is_refused(arguments, pieces):
    with pytest.raises(ValueError, match=pieces):
        Estimator(**arguments).fit(*table(20))


def test_without_scikit_learn_it_says_what_installs_it(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "mtlweights.integrations.sklearn")
    with pytest.raises(ImportError, match=r"mtlweights\[sklearn\]"):
        mtlweights.Estimator  # noqa: B018
