"""The best of a study as an arm of a bench: named after it, and judged like the others on fresh seeds."""

from __future__ import annotations

import pytest
import yaml

from mtlweights import problems
from mtlweights.bench import load_suite, run_suite, schedule
from mtlweights.bench.planning import prepare
from mtlweights.bench.report import text_tables, verdicts
from mtlweights.bench.resolve import run_until_resolved
from mtlweights.bench.results import write_result
from mtlweights.bench.selection import labelled, read_choices
from mtlweights.cli import main
from mtlweights.cli.bench import _suite
from mtlweights.cli.main import parser

PROBLEM = "breast_cancer"
FOUND = {
    "problems": {f"{PROBLEM}:hidden=16": {"epochs": 2, "lr": 0.05, "batch_size": 16, "patience": 1}},
    "strategies": ["cagrad:c=0.2"],
    "seeds": [1, 2],
    "study": {"name": "My study", "problem": PROBLEM, "trials": 40},
}
NAME = "best of my-study (40 trials)"


@pytest.fixture
def best(tmp_path):
    return written(tmp_path / "best.yaml")


def written(path, **other):
    path.write_text(yaml.safe_dump({**FOUND, **other}))
    return str(path)


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    """Runs here and now, whose scores follow from strategy and seed."""

    def run_pool(specs, runner, folder, **_):
        for spec in specs:
            write_result(scored(spec), folder)

    monkeypatch.setattr(schedule, "run_pool", run_pool)


def scored(spec):
    tasks = {
        task.name: {"kind": task.kind, "metrics": ["m"], "higher_is_better": {"m": True}}
        for task in problems.load(PROBLEM).tasks
        if spec.only in (None, task.name)
    }
    good = 0.8 + 0.1 * (spec.strategy == "cagrad:c=0.2") + spec.seed % 7 * 1e-3
    test = {name: {"m": good} for name in tasks}
    row = {"epoch": 1, "dev": test, "weight": {}, "score": good}
    found = {"tasks": tasks, "test": test if spec.scored else {}, "dev": test, "history": [row]}
    return spec.result(status="ok", best_epoch=1, steps=10, seconds=0.1, **found)


def suite_of(*arguments):
    return _suite(parser().parse_args(["bench", *arguments]))


def test_its_runs_have_what_was_found_and_the_rest_from_the_bench(best):
    suite = suite_of("-p", PROBLEM, "-s", "uw", "-s", best, "--budget", "default")
    plan = prepare(suite, {"epochs": 2, "device": "cpu"}, [])
    arm, other = plan.arms[-1], plan.arms[-2]
    assert (arm.name, other.name) == (NAME, "uw") and arm.seeds == other.seeds and len(arm.seeds) == 10
    assert not {0, 1, 2} & set(arm.seeds)
    runs = arm.finals(0)
    assert {(run.problem, run.strategy) for run in runs} == {(f"{PROBLEM}:hidden=16", "cagrad:c=0.2")}
    settings = runs[0].settings
    assert (settings.lr, settings.batch_size) == (0.05, 16)
    assert (settings.epochs, settings.device, settings.patience) == (2, "cpu", None)
    assert all(run.data and run.scored for run in runs)


def test_it_is_a_row_of_the_same_table_under_its_name(best, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["-p", PROBLEM, "-s", "uw", "-s", best, "--budget", "default", "--seeds", "3"]
    assert main(["bench", *arguments, "--epochs", "2", "--out", str(out), "--jobs", "1"]) == 0
    assert NAME in capsys.readouterr().out
    assert NAME in (out / "page.html").read_text()
    results = run_suite(suite_of(*arguments), out, overrides={"epochs": 2}, progress=False)
    found = [v for v in verdicts(labelled(results, read_choices(out))) if v["arm"] == NAME]
    assert {v["problem"] for v in found} == {PROBLEM} and {v["seeds"] for v in found} == {3}
    (against,) = (v for v in found if (v["against"], v["what"]) == ("equal", "Δm"))
    assert against["mean"] == pytest.approx(100 * 0.1 / 0.8, rel=0.01)


def test_one_run_may_judge_two_arms(tmp_path):
    """A study whose best are an arm's defaults: the run counts for both."""
    own = problems.load(PROBLEM).settings
    best = written(tmp_path / "best.yaml", problems={PROBLEM: {**own, "epochs": 2}}, strategies=["uw"])
    suite = suite_of("-p", PROBLEM, "-s", "uw", "-s", best, "--budget", "smoke")
    results = run_suite(suite, tmp_path / "out", overrides={"epochs": 2}, progress=False)
    both = labelled(results, read_choices(tmp_path / "out"))
    ids = {arm: {r["id"] for r in both if r.get("arm") == arm} for arm in ("uw", NAME)}
    assert ids["uw"] == ids[NAME] and len(ids["uw"]) == 2
    assert NAME in text_tables(both)


def test_seeds_are_added_to_it_until_it_is_resolved(best, tmp_path):
    suite = suite_of("-p", PROBLEM, "-p", "tagging", "-s", best, "--budget", "default")
    suite = suite.on(PROBLEM)
    results = run_until_resolved(suite, tmp_path, overrides={"epochs": 2}, max_seeds=5, progress=False)
    judged = labelled(results, read_choices(tmp_path))
    assert len({r["seed"] for r in judged if r["arm"] == NAME}) >= 3


def test_a_suite_lists_it(best, tmp_path):
    file = tmp_path / "suite.yaml"
    file.write_text(f"problems: [{PROBLEM}, tagging]\nstrategies: [uw, {best}]\nbudget: smoke\n")
    suite = load_suite(file)
    assert suite.strategies[-1] == NAME and suite.bests[NAME].strategy == "cagrad:c=0.2"
    arms = prepare(suite, {"epochs": 2}, []).arms
    assert [arm.problem for arm in arms if arm.name == NAME] == [
        PROBLEM
    ]  # where the study was, and nowhere else
    assert [arm.problem for arm in arms if arm.name == "uw"] == [PROBLEM, "tagging"]


def refused(capsys, *arguments):
    assert main(["bench", *arguments, "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_what_cannot_be_compared_is_refused(best, tmp_path, capsys):
    two, budget = ["-p", PROBLEM, "-s", best], ["--budget", "default"]
    assert "under a budget: --budget default" in refused(capsys, *two)
    assert "with 2 epochs" in refused(capsys, *two, *budget)
    assert "none of the problems here: tagging" in refused(capsys, "-p", "tagging", "-s", best, *budget)
    assert "listed twice" in refused(capsys, *two, "-s", written(tmp_path / "b.yaml"), *budget)
    assert "there is no file nowhere.yaml" in refused(capsys, "-p", PROBLEM, "-s", "nowhere.yaml", *budget)
    for other, said in (
        ({"study": {"name": "x"}}, "its key 'study' lacks problem, trials"),
        ({"strategies": ["uw", "equal"]}, "several problems or strategies"),
    ):
        file = written(tmp_path / "other.yaml", **other)
        assert said in refused(capsys, "-p", PROBLEM, "-s", file, *budget)
    suite = tmp_path / "suite.yaml"
    suite.write_text(f"problems: [{PROBLEM}]\nstrategies:\n- uw\n- {tmp_path}/other.yaml\n")
    assert "suite.yaml, line 4" in refused(capsys, str(suite))
    suite.write_text(f"problems: [{PROBLEM}]\nstrategies: [{best}]\n")
    assert (
        main(["train", str(suite)]) == 2 and "give mtlweights train that best.yaml" in capsys.readouterr().err
    )
