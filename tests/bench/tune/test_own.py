"""Tuning a training of one's own, and `suggest` for a study of one's own."""

from __future__ import annotations

import optuna
import pytest

import mtlweights
from mtlweights import Balancer
from mtlweights.strategies import CAGrad


def test_suggest_gives_what_a_balancer_takes():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    found = mtlweights.suggest(trial, CAGrad, prefix="cagrad.")
    assert trial.params == {"cagrad.c": pytest.approx(found["c"], rel=1e-3)}
    assert Balancer("cagrad", ["a", "b"], **found).strategy.c == found["c"]
    weights = mtlweights.suggest(trial, "fixed", n_tasks=3)["alpha"]
    assert len(weights) == 3 and sum(weights) == pytest.approx(3, rel=1e-3)
    assert mtlweights.suggest(trial, "pcgrad") == {}
    with pytest.raises(ValueError, match="n_tasks=T"):
        mtlweights.suggest(trial, "fixed")


def test_an_objective_of_ones_own_is_tuned_over_strategies():
    seen = []

    def objective(trial, strategy, hyperparameters):
        seen.append((strategy, hyperparameters))
        Balancer(strategy, ["a", "b", "c"], **hyperparameters)
        return hyperparameters.get("c", 0.0) + trial.suggest_float("lr", 0.0, 0.1)

    found = mtlweights.tune(objective, ["cagrad", "fixed"], n_tasks=3, trials=12, say=str)
    assert len(found.study.trials) == 12 and found.folder is None and found.fresh == []
    assert seen[:3] == [("cagrad", {}), ("fixed", {}), ("equal", {})]
    assert found.value == max(trial.value for trial in found.study.trials)
    assert len({strategy for strategy, _ in seen[3:]}) == 2


def test_a_study_of_ones_own_is_used_as_it_is():
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    found = mtlweights.tune(lambda *_: 1.0, ["uw"], trials=2, study=study, say=str)
    assert found.study is study and len(study.trials) == 2
    with pytest.raises(ValueError, match="goes by its name"):
        mtlweights.tune("breast_cancer", ["uw"], study=study)


def test_without_optuna_it_is_said_what_to_install(monkeypatch):
    import sys

    for name in [name for name in sys.modules if name.startswith("mtlweights.bench.tune")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(sys.modules["mtlweights.bench"], "tune", raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"mtlweights\[tune\]"):
        mtlweights.tune  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'tunes'"):
        mtlweights.tunes  # noqa: B018
