"""Suites and run_suite: what is refused before anything runs, what is computed, what names a run."""

import json
import re
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
from test_pool import pretend

from mtlweights import data
from mtlweights.bench import RunSpec, load_suite, read_results, run_suite
from mtlweights.bench.results import read_result, runs_folder, write_result
from mtlweights.bench.run import run
from mtlweights.report import text_tables
from mtlweights.tasks import Task
from mtlweights.train import Settings

NER = Task("ner", "tokens", ("span_f1",), ("O", "B-x", "I-x"))
AGE = Task("age", "regression", ("rmse",), untrained=3.0, target=0.0)


@pytest.fixture
def toy(monkeypatch):
    """A problem that loads at once; what was loaded, in order."""
    loaded = []

    def load(spec):
        loaded.append(spec)
        tasks = (NER,) if "alone" in spec else (NER, AGE)
        return SimpleNamespace(name=spec, tasks=tasks, settings={"epochs": 7, "lr": 0.01}, notes=())

    monkeypatch.setattr(data, "load", load)
    monkeypatch.setattr(data, "problems", lambda: ["toy", "tagging"])
    return loaded


def suite(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_suite(path)


GOOD = """\
problems:
  toy: {epochs: 3}
strategies: [equal, 'fixed:alpha=0.3', single]
seeds: 2
settings: {lr: 1e-3, batch_size: 8}
"""


def test_a_suite_becomes_runs(tmp_path, toy):
    found = suite(tmp_path, GOOD)
    assert (found.name, found.strategies, found.seeds) == ("mine", ("equal", "fixed:alpha=0.3"), (0, 1))
    results = run_suite(found, tmp_path / "out", jobs=1, progress=False, runner=pretend)
    arms = [(result["strategy"], result["only"], result["seed"]) for result in results]
    one_seed = [("equal", "ner"), ("equal", "age"), ("equal", None), ("fixed:alpha=0.3", None)]
    assert arms == [(*arm, seed) for seed in (0, 1) for arm in one_seed]
    assert toy == ["toy"]  # loaded once, here, and not by the workers


def test_later_settings_win(tmp_path, toy):
    (spec, *_) = suite(tmp_path, GOOD).runs("toy", data.load("toy"), {"batch_size": 99})
    # problem's default < suite < the suite's for this problem < overrides; 1e-3 is a number, not text
    assert spec.settings == Settings(epochs=3, lr=0.001, batch_size=99, seed=0)


def test_seeds_may_be_listed(tmp_path, toy):
    assert suite(tmp_path, GOOD.replace("seeds: 2", "seeds: [5, 3]")).seeds == (5, 3)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("strategies", "stratgies", 3, "unknown key 'stratgies'; did you mean 'strategies'"),
        ("equal,", "equall,", 3, "equall.*did you mean 'equal'"),
        ("toy: {", "toyy: {", 2, "unknown problem 'toyy'; did you mean 'toy'"),
        ("epochs: 3", "epoch: 3", 2, "unknown setting 'epoch'; did you mean 'epochs'"),
        ("lr: 1e-3", "lr: fast", 5, "lr.*'fast'"),
        ("batch_size: 8", "seed: 8", 5, "seeds come from its key 'seeds'"),
        ("seeds: 2", "seeds: two", 4, "seeds should be a number above 0 or a list.*'two'"),
        ("seeds: 2", "seeds: 0", 4, "seeds should be a number above 0"),
        ("seeds: 2", "seeds: [1, 1]", 4, "seed 1 is listed twice"),
        ("seeds: 2", "seeds: [-1]", 4, "at least 0, found -1"),
        ("seeds: 2", "seeds: []", 4, "no seed is listed"),
        ("seeds: 2", "seeds: 2\nseeds: 3", 5, "'seeds' is given twice"),
        ("'fixed:alpha=0.3'", "{fixed: 0.3}", 3, "expected a spec"),
        ("'fixed:alpha=0.3'", "'fixed:alpha='", 3, "key=value"),
        ("single", "'single:alpha=1'", 3, "takes no options"),
        ("[equal, 'fixed:alpha=0.3', single]", "equal", 3, "should be a list"),
        ("{lr: 1e-3, batch_size: 8}", "[lr]", 5, "should be a mapping"),
        ("problems:\n", "problems: [\n", 3, "not valid YAML"),
    ],
)
def test_a_typo_is_one_line_that_names_the_line(tmp_path, toy, old, new, line, message):
    assert old in GOOD
    with pytest.raises(ValueError, match=rf"mine\.yaml, line {line}: .*{message}") as caught:
        suite(tmp_path, GOOD.replace(old, new, 1))
    assert "\n" not in str(caught.value)
    assert not toy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("- toy", "a suite should be a mapping"),
        ("problems: [toy]", "a suite needs 'strategies'"),
        (GOOD.replace("equal, 'fixed:alpha=0.3', ", ""), "no strategy is listed"),
        (
            GOOD.replace("single", "'fixed:alpha=0.30'"),
            "'fixed:alpha=0.30' is listed twice, first as 'fixed:alpha=0.3'",
        ),
        (GOOD.replace("toy: {epochs: 3}", "{}"), "no problem is listed"),
    ],
)
def test_a_suite_that_compares_nothing_is_refused(tmp_path, toy, text, message):
    with pytest.raises(ValueError, match=message):
        suite(tmp_path, text)


def test_a_missing_suite(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere\.yaml"):
        load_suite(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("fixed:alpha=[1,2,3]", "fixed:alpha=.*on 'toy'"),
        ("fixed:alfa=0.3", "alfa"),
        ("pcgrad:every=0", "every"),
    ],
)
def test_hyperparameters_are_tried_before_anything_runs(tmp_path, toy, strategy, message):
    found = replace(suite(tmp_path, GOOD), strategies=("equal", strategy))
    with pytest.raises(ValueError, match=message):
        run_suite(found, tmp_path / "out", jobs=1, progress=False, runner=pretend)
    assert not list((tmp_path / "out" / "runs").iterdir())


def test_one_task_cannot_be_balanced(tmp_path, toy):
    found = suite(tmp_path, GOOD.replace("toy: {epochs: 3}", "'toy:alone=true':"))
    with pytest.raises(ValueError, match="has one task"):
        run_suite(found, tmp_path / "out", jobs=1, progress=False, runner=pretend)


@pytest.mark.parametrize("overrides", [{"epoch": 1}, {"epochs": 0}, {"seed": 1}])
def test_overrides_are_checked_first(tmp_path, toy, overrides):
    with pytest.raises(ValueError, match=next(iter(overrides))):
        run_suite(suite(tmp_path, GOOD), tmp_path / "out", overrides=overrides, runner=pretend)
    assert not toy


def test_an_unwritable_folder_is_told_before_anything_is_loaded(tmp_path, toy):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OSError, match=r"cannot write results to .*out: .*choose another folder"):
        run_suite(suite(tmp_path, GOOD), tmp_path / "out", jobs=1, progress=False, runner=pretend)
    assert not toy


def test_more_processes_than_cores_are_refused(tmp_path, toy):
    with pytest.raises(ValueError, match=r"more than the .* cores"):
        run_suite(suite(tmp_path, GOOD), tmp_path, jobs=1, threads=10_000, runner=pretend)
    with pytest.raises(ValueError, match="at least 1, found jobs=0"):
        run_suite(suite(tmp_path, GOOD), tmp_path, jobs=0, runner=pretend)


def test_only_what_is_missing_or_failed_runs_again(tmp_path, toy, capsys):
    found = suite(tmp_path, GOOD)
    first = run_suite(found, tmp_path, jobs=1, runner=pretend)
    assert "8 runs: 0 in" in capsys.readouterr().err
    files = {result["id"]: tmp_path / "runs" / f"{result['id']}.json" for result in first}
    gone, _failed, broken, *kept = files
    files[gone].unlink()
    write_result(
        {**first[1], "status": "failed", "error": {"type": "E", "message": "", "traceback": ""}}, tmp_path
    )
    files[broken].write_text("{")
    before = {run_id: files[run_id].stat().st_mtime_ns for run_id in kept}
    assert run_suite(found, tmp_path, jobs=1, runner=pretend) == first
    assert "8 runs: 5 in" in (errors := capsys.readouterr().err)
    assert "3 to do, 1 of them again because they failed" in errors
    assert before == {run_id: files[run_id].stat().st_mtime_ns for run_id in kept}


def test_another_setting_is_another_run(tmp_path, toy):
    found = suite(tmp_path, GOOD)
    short = run_suite(found, tmp_path, jobs=1, progress=False, runner=pretend)
    long = run_suite(found, tmp_path, jobs=1, progress=False, runner=pretend, overrides={"epochs": 4})
    assert not {result["id"] for result in short} & {result["id"] for result in long}
    tables = text_tables(read_results(tmp_path))
    assert "toy (epochs=3)\n" in tables and "toy (epochs=4)\n" in tables


def test_an_id_holds_everything_that_decides_a_run():
    spec = RunSpec("csv:/data/My File.csv:regress=age", "fixed:alpha=0.3", None, Settings())
    changed = {"problem": "toy", "strategy": "fixed:alpha=0.4", "only": "ner"}
    others = [replace(spec, **{key: value}) for key, value in changed.items()]
    values = {
        "epochs": 9,
        "batch_size": 9,
        "lr": 0.5,
        "weight_decay": 0.5,
        "schedule": "cosine",
        "warmup": 0.5,
    }
    values |= {"clip": None, "accumulate": 2, "precision": "bf16", "patience": 3, "device": "cpu", "seed": 8}
    assert values.keys() == {field.name for field in fields(Settings)}
    others += [replace(spec, settings=Settings(**{key: value})) for key, value in values.items()]
    assert len({spec.id, *(other.id for other in others)}) == 1 + len(others)
    assert replace(spec, strategy="fixed:alpha=0.30").id.split("-")[-1] == spec.id.split("-")[-1]
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*-s0-[0-9a-f]{8}", spec.id)


def test_reading_names_what_it_cannot_read_and_skips_what_is_half_written(tmp_path):
    spec = RunSpec("toy", "equal", None, Settings())
    runs = runs_folder(tmp_path)
    write_result(spec.result(test={"ner": {"span_f1": float("nan")}}), tmp_path)
    (runs / ".half.json.1.tmp").write_text("{")
    (result,) = read_results(tmp_path)
    assert result["test"] == {"ner": {"span_f1": None}}
    (runs / "broken.json").write_text("{")
    with pytest.warns(UserWarning, match=r"broken\.json"):
        assert read_results(tmp_path) == [result]
    (runs / "broken.json").unlink()
    (runs / "other.json").write_text(json.dumps({"schema": 1}))
    with pytest.warns(UserWarning, match=r"other\.json is no result of a run: it lacks best_epoch"):
        read_results(tmp_path)
    (runs / "other.json").write_text(json.dumps({**result, "schema": 7}))
    with pytest.raises(ValueError, match="is of schema 7"):
        read_result(runs / "other.json")


def test_a_result_is_whole_or_absent(tmp_path):
    spec = RunSpec("toy", "equal", None, Settings())
    runs = runs_folder(tmp_path)
    with pytest.raises(TypeError):
        write_result(spec.result(history=[object()]), tmp_path)
    assert not list(runs.iterdir())


def test_an_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no readable result in"):
        read_results(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_results(tmp_path / "nowhere")


def test_whatever_goes_wrong_in_a_run_is_in_its_result(monkeypatch):
    def load(spec):
        raise OSError("the disk is gone")

    monkeypatch.setattr(data, "load", load)
    result = run(RunSpec("toy", "equal", None, Settings()))
    assert result["status"] == "failed"
    assert (result["error"]["type"], result["error"]["message"]) == ("OSError", "the disk is gone")
    assert "in load" in result["error"]["traceback"] and result["environment"]["torch"]


def test_a_real_comparison_from_suite_to_table(tmp_path):
    """Nothing pretended: a worker's result is the one the same run gives here."""
    path = tmp_path / "small.yaml"
    path.write_text("problems: [breast_cancer]\nstrategies: [pcgrad]\nseeds: [4]\nsettings: {epochs: 2}")
    results = run_suite(load_suite(path), tmp_path, jobs=1, progress=False)
    assert [(result["strategy"], result["only"], result["status"]) for result in results] == [
        ("equal", "diagnosis", "ok"),
        ("equal", "radius", "ok"),
        ("pcgrad", None, "ok"),
    ]
    assert [list(result["test"]) for result in results] == [
        ["diagnosis"],
        ["radius"],
        ["diagnosis", "radius"],
    ]
    settings = Settings(**results[2]["settings"])
    assert (settings.epochs, settings.seed) == (2, 4)
    here = run(RunSpec("breast_cancer", "pcgrad", None, settings))
    assert here["test"] == results[2]["test"] and here["id"] == results[2]["id"]
    assert len(here["history"]) == 2 and here["dev"] == here["history"][here["best_epoch"] - 1]["dev"]
    assert "breast_cancer" in text_tables(results)


def test_the_embedded_suite():
    found = load_suite()
    assert found.name == "embedded" and list(found.problems) == ["tagging", "breast_cancer"]
    assert len(found.strategies) == 9 and len(found.seeds) == 3
