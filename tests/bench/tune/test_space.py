"""The space of a study: what is declared, what a user narrows and fixes, and the run of a trial."""

from __future__ import annotations

import optuna
import pytest

from mtlweights.bench.tune.narrow import read_fixed, read_narrowed
from mtlweights.bench.tune.space import make_space
from mtlweights.strategies.registry import STRATEGIES
from mtlweights.strategies.space import Choices, Numbers, Ratios


def test_a_space_is_what_strategies_loop_and_encoder_declare():
    space = make_space("breast_cancer", ["cagrad", "fixed", "equal"])
    assert list(space.strategies) == ["cagrad", "fixed", "equal"]
    assert space.strategies["cagrad"] == {"c": Numbers(0.0, 0.95)} and not space.strategies["equal"]
    assert space.strategies["fixed"] == {"alpha": Ratios(100.0)}
    assert "lr" in space.loop and list(space.model) == ["hidden", "layers", "dropout"]


def test_all_is_every_strategy_and_each_first_trial_is_its_default():
    space = make_space("breast_cancer", ["all"])
    assert set(STRATEGIES) <= set(space.strategies)
    study = optuna.create_study()
    for _, parameters in space.first():
        study.enqueue_trial(parameters)
    runs = [space.suggest(study.ask()) for _ in space.first()]
    assert {run.problem for run in runs} == {"breast_cancer"} and {r.settings for r in runs} == {
        space.settings
    }
    assert [run.strategy for run in runs] == list(space.strategies)


def test_ranges_are_narrowed_fixed_and_added():
    narrowed = {"lr": (1e-3, 1e-2, "log"), "epochs": 3, "hidden": [8, 16], "layers": 1}
    narrowed |= {"cagrad.c": 0.4, "cagrad.rescale": ["none", "1+c"]}
    space = make_space("breast_cancer", ["cagrad", "uw"], narrowed=narrowed)
    assert space.loop["lr"] == Numbers(1e-3, 1e-2, True) and space.settings.epochs == 3
    assert space.model == {"hidden": Choices((8, 16)), "dropout": Numbers(0.0, 0.6)}
    assert space.problem == "breast_cancer:layers=1"
    assert space.strategies["cagrad:c=0.4"] == {"rescale": Choices(("none", "1+c"))}


@pytest.mark.parametrize(
    ("narrowed", "said"),
    [
        ({"lr ": 1}, "did you mean 'lr'"),
        ({"uw.c": 1}, "no 'uw.c'"),
        ({"pcgrad.c": 1}, "no 'pcgrad.c'"),
        ({"lr": (-1.0, 1.0)}, "lr must be"),
        ({"lr": -1.0}, "lr must be"),
        ({"cagrad.c": (0.0, 2.0)}, "c "),
        ({"hidden": 0}, "hidden should be"),
        ({"lr.low": 1}, "lr is no strategy, so it has no 'low'"),
        ({"lr": (1, 2, 3)}, "a range is"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_trial(narrowed, said):
    with pytest.raises(ValueError, match=said):
        make_space("breast_cancer", ["cagrad", "uw"], narrowed=narrowed)


def test_a_space_file_is_read(tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text(
        "lr: {from: 1e-4, to: 1e-2, log: true}\nclip: 1.0\nhidden: [32, 64]\n"
        "cagrad:\n  c: {from: 0.1, to: 0.5}\nfixed:\n  alpha: {ratios: 10}\n"
    )
    assert read_narrowed(file) == {
        "lr": (1e-4, 1e-2, "log"),
        "clip": 1.0,
        "hidden": [32, 64],
        "cagrad.c": (0.1, 0.5),
        "fixed.alpha": ("ratios", 10),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr: {from: 1, to: 0}", "line 1: lr: expected {from: LOW, to: HIGH}.*found {'from': 1, 'to': 0}"),
        ("hidden: 1\nlr: {from: 1, to: 2, log: maybe}", "line 2: lr: log is true or false, found 'maybe'"),
        ("clip: 1\nlr: {from: 1, to: 2, lgo: true}", "line 2.*found 'lgo'"),
        ("- lr", "should be a mapping"),
    ],
)
def test_a_faulty_space_file_is_named_with_its_line(tmp_path, text, said):
    file = tmp_path / "space.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_narrowed(file)


def test_fixed_values_are_read():
    assert read_fixed(["lr=1e-3", "cagrad.c=0.4", "schedule=linear"]) == {
        "lr": 1e-3,
        "cagrad.c": 0.4,
        "schedule": "linear",
    }
    for wrong in ("lr", "=3", "fixed.alpha=[1,2]"):
        with pytest.raises(ValueError, match="--fix takes"):
            read_fixed([wrong])
