"""Budgets: the same chance for every arm, seeds that nothing moves, a choice by validation alone."""

import json
import math
from dataclasses import replace
from functools import partial
from types import ModuleType

import numpy as np
import pytest

from mtlweights import Balancer, problems, strategies
from mtlweights.bench import RunSpec, load_suite, read_results, run_suite, schedule
from mtlweights.bench import run as bench_run
from mtlweights.bench.budget import ALWAYS, BUDGETS, Draws, arms_of, budget_of, seed_of
from mtlweights.bench.report import text_tables, verdicts
from mtlweights.bench.report.comparison import compare
from mtlweights.bench.results import write_result
from mtlweights.bench.run import execute, run
from mtlweights.bench.selection import FILE, choose, keep, labelled, read_choices
from mtlweights.bench.suite import Suite
from mtlweights.train import Settings


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    """Runs here and now: what a pool of processes is worth is tested in test_pool.py."""

    def run_pool(specs, runner, folder, **_):
        for spec in specs:
            write_result(runner(spec), folder)

    monkeypatch.setattr(schedule, "run_pool", run_pool)


SETTINGS = Settings(epochs=1, lr=0.002)
TASKS = {
    "diagnosis": {"kind": "classification", "metrics": ["accuracy"], "higher_is_better": {"accuracy": True}},
    "radius": {"kind": "regression", "metrics": ["rmse"], "higher_is_better": {"rmse": False}},
}


def arms(budget="tuned8", strategies=(*ALWAYS, "cagrad"), problem="breast_cancer", seeds=range(3)):
    return arms_of(problem, list(TASKS), strategies, SETTINGS, BUDGETS[budget], seeds)


def knows(spec):
    """A run whose scores follow from its configuration: the best learning rate is 0.004 on validation."""
    distance = abs(math.log(spec.settings.lr / 0.004))
    names = [spec.only] if spec.only else list(TASKS)
    tasks = {name: TASKS[name] for name in names}
    effect = {"uw": 0.05, "cagrad": 0.02, "random": -0.03}.get(spec.strategy.split(":")[0], 0.0)
    good = 0.9 - 0.1 * distance + effect + spec.seed % 7 * 1e-4
    test = {name: {TASKS[name]["metrics"][0]: good if name == "diagnosis" else 2 - good} for name in names}
    row = {"epoch": 1, "dev": test, "weight": {}, "score": good}
    # on the test split the largest learning rate would win
    scored = {name: {m: v * (1 + spec.settings.lr) for m, v in own.items()} for name, own in test.items()}
    found = {"tasks": tasks, "test": scored if spec.scored else {}, "dev": test, "history": [row]}
    return spec.result(status="ok", best_epoch=1, steps=10, seconds=0.1, **found)


def test_every_arm_has_the_same_number_of_trials_and_the_same_learning_rates():
    found = arms()
    assert [(arm.name, arm.only) for arm in found[:2]] == [("single", "diagnosis"), ("single", "radius")]
    assert [arm.name for arm in found[2:]] == [*ALWAYS, "cagrad"]
    rates = {tuple(run.settings.lr for run in arm.trials) for arm in found}
    assert len(rates) == 1 and {len(arm.trials) for arm in found} == {8}
    (rates,) = rates
    assert rates[0] == SETTINGS.lr  # the default comes first
    logs = sorted(math.log10(rate / SETTINGS.lr) for rate in rates[1:])
    assert -1 <= logs[0] < -0.5 and 0.5 < logs[-1] <= 1 and np.diff(logs).max() < 0.6  # spread over all of it
    assert {run.settings.seed for arm in found for run in arm.trials} == {seed_of("breast_cancer", -1)}
    assert len({run.strategy for run in found[3].trials}) == 8  # static weights are searched
    assert len({run.strategy for run in found[-1].trials}) == 8  # and cagrad's c
    assert {run.strategy for run in found[2].trials} == {"equal"}
    assert not any(run.scored for arm in found for run in arm.trials)


def test_a_larger_budget_goes_on_from_the_trials_of_a_smaller_one():
    small, large = arms("tuned8"), arms("tuned16")
    for few, many in zip(small, large, strict=True):
        assert many.trials[:8] == few.trials


def test_seeds_follow_from_the_problem_and_the_repetition_alone():
    alone, more = arms(strategies=("equal",)), arms()
    assert {arm.seeds for arm in alone + more} == {alone[0].seeds}
    assert alone[0].seeds == arms(problem="breast_cancer@radius*100")[0].seeds
    assert len({seed_of(problem, k) for problem in ("a", "b:c=1") for k in range(-1, 50)}) == 102
    assert seed_of("b:c=1.0,d=2", 3) == seed_of("b:d=2,c=1.0", 3)
    assert alone[0].finals(0)[0].settings.seed == alone[0].seeds[0]


def test_one_trial_has_no_static_weights_which_would_be_equal_ones():
    assert [arm.name for arm in arms("default") if arm.only is None] == [
        "equal",
        "random",
        "scale_invariant",
        "cagrad",
    ]


def test_draws_of_one_kind_stay_in_their_range():
    draws = [Draws("p", k) for k in range(200)]
    whole = {d.suggest_int("s.k", 2, 4) for d in draws}
    assert whole == {2, 3, 4}
    assert {d.suggest_categorical("s.how", ["a", "b"]) for d in draws} == {"a", "b"}
    low = [d.suggest_float("s.c", 1e-4, 1.0, log=True) for d in draws]
    assert 0.4 < np.mean(np.log10(low) < -2) < 0.6 and 1e-4 <= min(low) <= max(low) <= 1


def test_the_best_by_validation_is_judged_on_fresh_seeds(tmp_path):
    suite = Suite("s", {"breast_cancer": {"epochs": 1, "lr": 0.002}}, ("uw",), (0,), {}).under("tuned8")
    suite = replace(suite, seeds=(0, 1, 2))
    results = run_suite(suite, tmp_path, runner=knows, progress=False, jobs=2)
    choices = read_choices(tmp_path)
    assert len(results) == 3 * (2 + 5) and all(result["test"] for result in results)
    for choice in choices:
        rates = [trial["settings"]["lr"] for trial in choice.trials]
        best = min(range(8), key=lambda k: abs(math.log(rates[k] / 0.004)))
        assert choice.chosen == best  # not the largest, which the test split would like
        assert choice.trials[best]["score"] == max(trial["score"] for trial in choice.trials)
    (comparison,) = compare(labelled(results, choices))
    assert [row.arm for row in comparison.rows] == [
        "single",
        "equal",
        "fixed",
        "random",
        "scale_invariant",
        "uw",
    ]
    assert {row.ok for row in comparison.rows[1:]} == {3} and comparison.settings["budget"] == "tuned8"
    assert "lr" not in comparison.settings or len({r["settings"]["lr"] for r in results}) == 1
    everything = labelled(read_results(tmp_path), choices)  # the trials are no results
    assert {r["id"] for r in everything} == {r["id"] for r in results}
    again = run_suite(suite, tmp_path, runner=None, progress=False, jobs=2)  # nothing is left to run
    assert again == results
    assert "budget=tuned8" not in text_tables(labelled(results, choices)).splitlines()[0]  # one comparison


def test_two_budgets_in_one_folder_are_two_comparisons(tmp_path):
    base = Suite("s", {"breast_cancer": {"epochs": 1, "lr": 0.004}}, ("uw",), (0,), {})
    for budget in ("default", "tuned8"):
        results = run_suite(replace(base.under(budget), seeds=(0, 1)), tmp_path, runner=knows, progress=False)
    choices = read_choices(tmp_path)
    both = compare(labelled(results, choices))
    assert [c.settings["budget"] for c in both] == ["default", "tuned8"]
    # the default is the best of the eight here, so one run judges both
    assert {v["budget"] for v in verdicts(labelled(results, choices))} == {"default", "tuned8"}


def test_scaled_losses_reuse_the_configurations(tmp_path):
    problem = "breast_cancer@radius*100"
    suite = Suite("s", {"breast_cancer": {"epochs": 1}, problem: {"epochs": 1}}, ("uw",), (0,), {})
    run_suite(replace(suite.under("tuned8"), seeds=(0,)), tmp_path, runner=knows, progress=False)
    by_problem = {}
    for choice in read_choices(tmp_path):
        by_problem.setdefault(choice.problem, []).append(choice)
    plain, scaled = by_problem.values()
    assert [c.trials for c in plain] == [c.trials for c in scaled]
    ran = {json.loads(path.read_text())["problem"] for path in (tmp_path / "runs").glob("*.json")}
    assert ran == {"breast_cancer", problem}


def test_a_loss_is_multiplied_and_a_metric_is_not():
    plain, scaled = problems.load("breast_cancer"), problems.load("breast_cancer@radius*100")
    batch = plain.collate(plain.splits["train"][:8])
    model = plain.build()
    found = model(batch["inputs"]).outputs
    for one, other, factor in zip(plain.tasks, scaled.tasks, (1, 100), strict=True):
        target, output = batch["targets"][one.name], found[one.name]
        assert other.loss(output, target).item() == pytest.approx(factor * one.loss(output, target).item())
        assert one.score([output], [target]) == other.score([output], [target])
    with pytest.raises(ValueError, match=r"no task 'radios' to scale; did you mean 'radius'"):
        problems.load("breast_cancer@radios*2")
    for wrong in ("breast_cancer@radius*0", "breast_cancer@radius*fast", "breast_cancer@radius*2@radius*3"):
        with pytest.raises(ValueError, match=r"number above 0|scaled twice"):
            problems.load(wrong)


def test_a_trial_that_failed_is_never_chosen_and_a_diverged_one_is_not_tried_again(tmp_path):
    (single, *_) = arms()
    scores = {run.id: knows(run) for run in single.trials}
    best = choose(single, scores).chosen
    worse = dict(scores)
    error = {"type": "FloatingPointError", "message": "NaN", "traceback": ""}
    worse[single.trials[best].id] = single.trials[best].result(status="failed", error=error)
    assert choose(single, worse).chosen != best
    none = {run.id: run.result(status="failed", error=error) for run in single.trials}
    assert choose(single, none).chosen == 0  # the default, if nothing works
    keep([choose(single, scores)], tmp_path)
    assert read_choices(tmp_path)[0].chosen == best
    (tmp_path / FILE).write_text('[{"problem": "x"}]')
    with pytest.raises(ValueError, match="holds no choices of a bench: the file\\[0\\] lacks budget"):
        read_choices(tmp_path)


def test_diverging_is_an_outcome(tmp_path):
    suite = Suite("s", {"breast_cancer": {"epochs": 1}}, ("equal", "uw"), (0, 1), {})
    first = run_suite(suite, tmp_path, runner=diverges, progress=False, jobs=2)
    failed = [result for result in first if result["status"] != "ok"]
    assert {result["strategy"] for result in failed} == {"uw"}
    assert run_suite(suite, tmp_path, runner=None, progress=False, jobs=2) == first


def diverges(spec):
    if spec.strategy != "uw":
        return knows(spec)
    error = {"type": "FloatingPointError", "message": "NaN", "traceback": ""}
    return spec.result(status="failed", error=error)


@pytest.mark.parametrize("text", ["budget: tuned9", "budget: [smoke]", "budget: 3"])
def test_an_unknown_budget_names_the_line(tmp_path, text):
    path = tmp_path / "s.yaml"
    path.write_text(f"problems: [tagging]\nstrategies: [uw]\n{text}\n")
    with pytest.raises(ValueError, match=r"s\.yaml, line 3: there is no budget"):
        load_suite(path)


def test_a_suite_under_a_budget(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "problems: {tagging: {budget: default}, breast_cancer: {}}\nstrategies: [uw, equal]\nbudget: tuned8\n"
    )
    found = load_suite(path)
    assert found.strategies == (*ALWAYS, "uw") and found.seeds == tuple(range(10))
    assert [found.budget_of(name) for name in found.problems] == ["default", "tuned8"]
    assert "budget" not in found.problems["tagging"]
    path.write_text("problems: {tagging: {budget: default}}\nstrategies: [uw]\n")
    with pytest.raises(ValueError, match="give the suite one too"):
        load_suite(path)
    with pytest.raises(ValueError, match="there is no budget 'tuned'"):
        budget_of("tuned")


def test_single_task_training_takes_as_many_steps():
    whole = problems.load("breast_cancer")
    each = [
        {**example, "targets": {name: example["targets"][name] for name in [list(TASKS)[k % 3 == 0]]}}
        for k, example in enumerate(whole.splits["train"])
    ]
    halves = replace(whole, splits={**whole.splits, "train": each})  # an example is labelled for one task
    spec = RunSpec("breast_cancer", "equal", None, Settings(epochs=2, batch_size=16))
    joint = execute(spec, halves, progress=False)
    alone = execute(replace(spec, only="radius"), halves, progress=False)
    assert joint["steps"] == alone["steps"]
    seen = [result["history"][1]["seen"] for result in (joint, alone)]
    assert sum(seen[0].values()) == seen[1]["radius"] == len(each)  # those for one task come thrice


def test_a_trial_sees_no_test_split_and_the_last_epoch_is_scored_beside_the_best():
    spec = RunSpec("breast_cancer", "equal", None, Settings(epochs=3, lr=0.3, clip=None, weight_decay=0.0))
    found = run(spec)
    trial = run(replace(spec, scored=False))
    assert trial["status"] == "ok" and trial["test"] == {} == trial["last"]
    assert trial["dev"] == found["dev"] and found["test"]
    best = found["best_epoch"] == len(found["history"])
    assert (found["last"] == found["test"]) == best
    assert not best  # or the line above says nothing


def test_no_argument_of_a_strategy_leads_to_the_test_split(monkeypatch):
    seen = []

    class Spy(strategies.get("equal")):
        def combine(self, losses, present):
            seen.append((self, losses, present))
            return super().combine(losses, present)

        def end_epoch(self, mean_losses, scores):
            seen.append((mean_losses, scores))

    problem = problems.load("breast_cancer")
    spec = RunSpec("breast_cancer", "equal", None, Settings(epochs=2))
    spied = partial(Balancer, Spy, list(TASKS))
    monkeypatch.setattr(bench_run, "make_balancer", lambda strategy, tasks, model, seed: spied(model))
    inputs = {id(example) for example in problem.splits["test"]}
    reached = set()
    execute(spec, problem, progress=False)
    assert seen
    todo = [value for given in seen for value in given]
    while todo:
        value = todo.pop()
        if id(value) in reached or isinstance(value, (type, ModuleType)):
            continue
        reached.add(id(value))
        todo += list(vars(value).values()) if hasattr(value, "__dict__") else []
        todo += list(value.values()) if isinstance(value, dict) else []
        todo += list(value) if isinstance(value, (list, tuple)) else []
    assert not inputs & reached and id(problem) not in reached
