"""A small study from end to end: its trials are runs, and its best is compared on fresh seeds."""

from __future__ import annotations

import warnings
from statistics import fmean

import optuna
import pytest
import yaml

from mtlweights import problems
from mtlweights.bench import load_suite, read_results
from mtlweights.bench.claims import standing
from mtlweights.bench.planning import prepare
from mtlweights.bench.report import read_study, without_trials, write_page
from mtlweights.bench.results import read_result
from mtlweights.bench.suitefile import read_arm
from mtlweights.bench.tune import Aim, Search, cost, tune
from mtlweights.bench.tune import objective as objectives
from mtlweights.bench.tune.objective import LOWEST, normalised
from mtlweights.bench.tune.outcome import BELOW
from mtlweights.bench.tune.study import slots_of
from mtlweights.cli import main

QUICK = {"epochs": 2, "layers": 1}
COMPLETE, PRUNED, FAIL = (optuna.trial.TrialState[name] for name in ("COMPLETE", "PRUNED", "FAIL"))

STRATEGIES = """
from mtlweights.strategies import LossStrategy
class Diverges(LossStrategy):
    "Infinite weights."
    family, space = "test", {}
    def combine(self, losses, present=None):
        return (losses * float("inf")).sum()
class Raises(LossStrategy):
    "Of no use."
    family, space = "test", {}
    def combine(self, losses, present=None):
        raise RuntimeError("of no use")
"""
HEAVY = """
import torch
from mtlweights.strategies import LossStrategy
class Heavy(LossStrategy):
    "Equal weights, and 240 MB for a moment."
    family, space = "test", {}
    def combine(self, losses, present=None):
        torch.ones(60_000_000)
        return losses.sum()
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    how = {"trials": 5, "narrowed": QUICK, "fresh": 2, "say": str}
    return tune("breast_cancer", ["cagrad", "uw"], folder=folder, search=Search(pruner="none"), **how)


def test_a_trial_is_a_run_that_never_saw_the_test_split(found):
    trials = slots_of(found.study.trials)
    assert len(trials) == 5
    for trial in trials:
        result = read_result(found.folder / "runs" / f"{trial.user_attrs['run']['id']}.json")
        assert result["status"] == "ok" and result["seed"] == 0
        # a run on fresh seeds has been scored there; a trial has not
        assert result["test"] == {}
    single = [r for r in read_results(found.folder) if r["only"] and r["seed"] == 0]
    assert len(single) == 2 and not any(result["test"] for result in single)


def test_the_value_of_a_trial_is_its_mean_gain_over_single_task_training(found):
    tasks = problems.load("breast_cancer").tasks
    alone = {r["only"]: r for r in read_results(found.folder) if r["only"] and r["seed"] == 0}
    for trial in slots_of(found.study.trials):
        result = read_result(found.folder / "runs" / f"{trial.user_attrs['run']['id']}.json")
        gains = [normalised(task, result) - normalised(task, alone[task.name]) for task in tasks]
        assert trial.value == pytest.approx(fmean(gains))
        best = max(row["score"] for row in result["history"])
        assert max(trial.intermediate_values.values()) == pytest.approx(trial.value)
        assert best == pytest.approx(trial.value + fmean(normalised(t, alone[t.name]) for t in tasks))


def test_no_run_is_trained_twice(found, monkeypatch):
    monkeypatch.setattr(objectives, "execute", lambda *_, **__: pytest.fail("trained again"))
    again = tune(
        "breast_cancer",
        ["cagrad", "uw"],
        folder=found.folder,
        storage=f"sqlite:///{found.folder}/another.db",
        trials=5,
        narrowed=QUICK,
        search=Search(pruner="none"),
        fresh=2,
        say=str,
    )
    assert [t.values for t in again.study.trials] == [t.values for t in found.study.trials]
    assert again.fresh == found.fresh


def test_the_best_is_a_suite_whose_runs_are_those_on_fresh_seeds(found):
    suite = load_suite(found.folder / "best.yaml")
    specs = [spec for spec in prepare(suite, {}, []).runs if spec.only is None]
    assert [spec.seed for spec in specs] == [1, 2]
    assert {standing(spec, found.folder)[0] for spec in specs} == {"ok"}
    run = found.best.user_attrs["run"]
    assert (specs[0].problem, specs[0].strategy) == (run["problem"], run["strategy"])


def test_bench_takes_the_best_as_an_arm(found):
    arm, run = read_arm(str(found.folder / "best.yaml")), found.best.user_attrs["run"]
    assert (arm.name, arm.on) == ("best of breast-cancer-cagrad-uw (5 trials)", "breast_cancer")
    assert (arm.problem, arm.strategy) == (run["problem"], run["strategy"])
    assert arm.settings == {key: value for key, value in run["settings"].items() if key != "seed"}


def test_train_reads_the_best(found, tmp_path, capsys):
    assert main(["train", str(found.folder / "best.yaml"), "--seed", "1", "--out", str(tmp_path)]) == 0
    name = next((tmp_path / "runs").glob("*.json")).name
    here, there = (read_result(folder / "runs" / name) for folder in (tmp_path, found.folder))
    assert here["test"] == there["test"]


def test_train_refuses_a_suite_of_several(tmp_path, capsys):
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump({"problems": ["tagging"], "strategies": ["uw", "equal"]}))
    assert main(["train", str(file)]) == 2
    assert "1 problems and 2 strategies" in capsys.readouterr().err


def test_bench_scores_a_run_that_was_a_trial(found):
    space_run = found.best.user_attrs["run"]["id"]
    result = read_result(found.folder / "runs" / f"{space_run}.json")
    suite = load_suite(found.folder / "best.yaml")
    spec = next(s for s in prepare(suite, {}, []).runs if s.only is None)
    assert result["test"] == {}
    object.__setattr__(spec, "settings", type(spec.settings)(**found.best.user_attrs["run"]["settings"]))
    assert spec.id == space_run and standing(spec, found.folder)[0] == "unscored"


def test_the_table_compares_on_fresh_seeds_and_says_how_optimistic_the_trial_was(found):
    tasks = problems.load("breast_cancer").tasks
    results = [r for r in read_results(found.folder) if r["seed"] in (1, 2)]
    run = found.best.user_attrs["run"]

    def gains(strategy, problem, split):
        own = {r["seed"]: r for r in results if (r["strategy"], r["problem"]) == (strategy, problem)}
        own = {seed: r for seed, r in own.items() if not r["only"]}
        alone = {(r["only"], r["seed"]): r for r in results if r["only"]}
        return [
            fmean(normalised(t, own[s], split) - normalised(t, alone[t.name, s], split) for t in tasks)
            for s in (1, 2)
        ]

    best, defaults, equal = found.fresh
    expected = gains(run["strategy"], run["problem"], "test")
    assert best["test"]["mean"] == pytest.approx(fmean(expected))
    others = gains(defaults["strategy"], equal_problem(found), "test")
    assert defaults["ahead"]["mean"] == pytest.approx(fmean(expected) - fmean(others))
    assert equal["strategy"] == "equal" and equal["test"]["n"] == 2
    record = read_study(found.folder)
    validation = fmean(gains(run["strategy"], run["problem"], "dev"))
    assert record["optimism"] == pytest.approx(found.value - validation)


def equal_problem(found):
    return read_study(found.folder)["of"]["problem"]


def test_the_page_shows_the_study_without_the_network(found):
    results, study = read_results(found.folder), read_study(found.folder)
    compared = without_trials(results, study)
    assert compared and all(result["test"] for result in compared)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = write_page(compared, found.folder / "page.html", study=study).read_text()
    assert (
        'id="study"' in text and "On fresh seeds" in text and found.best.user_attrs["run"]["strategy"] in text
    )
    for figure in (
        "The best so far",
        "How much each parameter mattered",
        "Epoch by epoch",
        "When each trial",
    ):
        assert figure in text
    assert "http:" not in text and "https:" not in text and text.count("<script") == 1


def test_report_of_a_study_without_fresh_seeds_is_a_page_too(tmp_path, capsys):
    tune("breast_cancer", ["pcgrad"], folder=tmp_path, trials=2, narrowed=QUICK, fresh=0, say=str)
    assert main(["report", str(tmp_path)]) == 0
    assert "Study breast-cancer-pcgrad" in (tmp_path / "page.html").read_text()


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "study.json").write_text('{"name": 1}')
    with pytest.raises(ValueError, match=r"study.json is no record of a study: it lacks"):
        read_study(tmp_path)


def test_a_trial_that_diverges_counts_as_the_worst_and_one_that_raises_as_failed(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(STRATEGIES)
    arms = [f"{file}:Diverges", f"{file}:Raises"]
    found = tune("breast_cancer", arms, folder=tmp_path / "out", trials=3, narrowed=QUICK, fresh=0, say=str)
    diverged, raised, equal = slots_of(found.study.trials)
    assert (diverged.state, raised.state, equal.state) == (COMPLETE, FAIL, COMPLETE)
    alone = fmean(equal.user_attrs["gains"].values()) - equal.value
    assert alone == 0 and diverged.user_attrs["diverged"] and diverged.value < equal.value
    single = {name: LOWEST - gain for name, gain in diverged.user_attrs["gains"].items()}
    assert all(-1 < score <= 1 for score in single.values())
    assert "of no use" in raised.user_attrs["error"] and found.failed == 1
    failed = [r for r in read_results(tmp_path / "out") if r["status"] == "failed"]
    assert sorted(r["error"]["type"] for r in failed) == ["FloatingPointError", "RuntimeError"]


def test_a_pruned_trial_leaves_no_result_and_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda trial: True)
    found = tune("breast_cancer", ["uw"], folder=tmp_path, trials=3, narrowed=QUICK, fresh=0, say=str)
    # the defaults and equal weights run to their end
    assert [t.state for t in found.study.trials] == [COMPLETE, COMPLETE, PRUNED]
    assert not (tmp_path / "runs" / f"{found.study.trials[2].user_attrs['run']['id']}.json").exists()
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_front_has_an_objective_per_task_and_a_hypervolume(tmp_path):
    how = {"trials": 3, "narrowed": QUICK, "search": Search("nsga"), "fresh": 0, "say": str}
    found = tune("breast_cancer", ["cagrad"], folder=tmp_path, aim=Aim(pareto=True), **how)
    points = [t.values for t in found.study.best_trials]
    assert len(found.study.directions) == 2 and all(len(t.values) == 2 for t in found.study.trials)
    assert not any(t.intermediate_values for t in found.study.trials)
    assert [*found.best.values] == [*found.best.user_attrs["gains"].values()]
    record = read_study(tmp_path)
    # two objectives: the staircase of rectangles over the reference, from right to left
    area, top = 0.0, -BELOW
    for x, y in sorted(points, reverse=True):
        area += max(x + BELOW, 0.0) * max(y - top, 0.0)
        top = max(top, y)
    assert record["hypervolume"] == {"value": pytest.approx(area), "reference": BELOW}
    assert main(["report", str(tmp_path)]) == 0
    assert "Pareto front" in (tmp_path / "page.html").read_text()


def test_limits_make_trials_infeasible(tmp_path):
    how = {"trials": 2, "narrowed": QUICK, "fresh": 0, "say": str}
    with pytest.raises(ValueError, match="within the constraints"):
        tune("breast_cancer", ["cagrad"], folder=tmp_path, aim=Aim(limits={"time": 1e-6}), **how)
    how |= {"study": "loose", "storage": f"sqlite:///{tmp_path}/loose.db"}
    found = tune(
        "breast_cancer", ["cagrad"], folder=tmp_path, aim=Aim(limits={"time": 99.0, "task": 3.0}), **how
    )
    assert found.best.constraints.keys() == {"time", "task"}
    assert found.best.user_attrs["task"] == pytest.approx(-min(found.best.user_attrs["gains"].values()))
    assert 0.1 < found.best.user_attrs["time"] < 99


@pytest.mark.skipif(not cost._REFERENCES.exists(), reason="a process's peak memory is read on Linux")
def test_a_strategy_that_takes_too_much_memory_is_never_the_best(tmp_path):
    file = tmp_path / "heavy.py"
    file.write_text(HEAVY)
    how = {"trials": 3, "narrowed": QUICK | {"device": "cpu"}, "fresh": 0, "say": str}
    limits = Aim(limits={"memory": 1.15})
    found = tune("breast_cancer", [f"{file}:Heavy", "uw"], folder=tmp_path / "out", aim=limits, **how)
    heavy, uw, equal = slots_of(found.study.trials)
    assert heavy.value == equal.value  # it does the same, and comes first
    assert heavy.user_attrs["memory"] > 1.2 and heavy.constraints["memory"] > 0.05
    assert 0.9 < uw.user_attrs["memory"] < 1.1 and equal.user_attrs["memory"] == 1
    assert found.best.number in (uw.number, equal.number)


def test_memory_is_refused_before_any_trial_where_it_cannot_be_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "_REFERENCES", tmp_path / "nowhere")
    how = {"trials": 1, "narrowed": QUICK | {"device": "cpu"}, "fresh": 0, "say": str}
    with pytest.raises(ValueError, match="memory needs a CUDA GPU or Linux"):
        tune("breast_cancer", ["uw"], folder=tmp_path, aim=Aim(limits={"memory": 2.0}), **how)
    assert not list((tmp_path / "runs").glob("*.json"))
