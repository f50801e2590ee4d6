"""Suites and run_suite: what is refused before anything runs, what is computed, what names a run."""

import itertools
import json
import re
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_pool import pretend

from mtlweights import problems
from mtlweights.bench import RunSpec, load_suite, read_results, results, run_suite
from mtlweights.bench.report import text_tables
from mtlweights.bench.results import read_result, runs_folder, write_result
from mtlweights.bench.run import run
from mtlweights.problems import Task
from mtlweights.train import Settings

NER = Task("ner", "tokens", ("span_f1",), ("O", "B-x", "I-x"))
OK = {"status": "ok"}
AGE = Task("age", "regression", ("rmse",), untrained=3.0, target=0.0)


@pytest.fixture
def toy(monkeypatch):
    """A problem that loads at once; what was loaded, in order."""
    loaded = []

    def load(spec):
        loaded.append(spec)
        tasks = (NER,) if "alone" in spec else (NER, AGE)
        settings = {"epochs": 7, "lr": 0.01}
        return SimpleNamespace(name=spec, tasks=tasks, settings=settings, splits=load.splits, notes=())

    load.splits = {"train": [{"input": [1.0], "targets": {"age": 2.0}}]}
    monkeypatch.setattr(problems, "load", load)
    monkeypatch.setattr(problems, "problems", lambda: ["toy", "tagging"])
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
    (spec, *_) = suite(tmp_path, GOOD).runs("toy", problems.load("toy"), {"batch_size": 99})
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
        ("seeds: 2", "seeds: two", 4, "seeds should be a number above 0, .*'two'"),
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
        ("seeds: 2", "seeds: 1000000000", 4, "at most 10000"),
        ("seeds: 2", "seeds: !!int two", 4, "'two' is no int"),
        ("seeds: 2", "seeds: !!bool two", 4, "'two' is no bool"),
        ("seeds: 2", "seeds: !!timestamp two", 4, "'two' is no timestamp"),
        ("seeds: 2", "seeds: !!python/name:os.system x", 4, "could not determine a constructor"),
        ("seeds: 2", "seeds: &a [*a]", 4, "more than 20 levels"),
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
        ("[" * 5000, r"mine\.yaml is nested too deep"),
    ],
)
def test_a_suite_that_compares_nothing_is_refused(tmp_path, toy, text, message):
    with pytest.raises(ValueError, match=message):
        suite(tmp_path, text)


def test_aliases_that_explode_are_refused_at_once(tmp_path, toy):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in itertools.pairwise("abcdefghi")]
    with pytest.raises(ValueError, match=r"mine\.yaml, line 1: more than 20000 values, with its aliases"):
        suite(tmp_path, "\n".join(lines))


def test_an_alias_is_what_it_stands_for(tmp_path, toy):
    found = suite(tmp_path, GOOD.replace("{epochs: 3}", "&own {epochs: 3}\n  tagging: *own"))
    assert found.problems == {"toy": {"epochs": 3}, "tagging": {"epochs": 3}}


def test_a_suite_larger_than_any(tmp_path, toy):
    with pytest.raises(ValueError, match="larger than 256 KiB"):
        suite(tmp_path, GOOD + "#" * 300_000)


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
    with pytest.raises(OSError, match=r"cannot write to .*out.runs: .*choose another folder"):
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


def test_other_data_are_named_and_computed_again(tmp_path, toy, capsys, monkeypatch):
    found = suite(tmp_path, GOOD)
    first = run_suite(found, tmp_path, jobs=1, progress=False, runner=pretend)
    monkeypatch.setattr(problems.load, "splits", {"train": [{"input": [1.0], "targets": {"age": 2.5}}]})
    again = run_suite(found, tmp_path, jobs=1, runner=pretend)
    assert [a["id"] for a in again] == [b["id"] for b in first]
    assert len({result["data"] for result in first + again}) == 2
    said = capsys.readouterr().err
    assert (
        "8 runs: 0 in" in said
        and f"again: {first[0]['id']} is of other data ({first[0]['data'][:8]}, now" in said
    )
    assert said.count("again: ") == 8
    path = tmp_path / "runs" / f"{again[0]['id']}.json"
    before = {key: value for key, value in again[0].items() if key not in ("data", "checksum")}
    path.write_text(json.dumps({**before, "schema": 1}))  # as they were before data had a digest
    assert run_suite(found, tmp_path, jobs=1, progress=False, runner=pretend)[0] == {**before, "schema": 1}


def test_a_worker_refuses_data_that_changed_meanwhile():
    spec = RunSpec("breast_cancer", "equal", None, Settings(epochs=1), data="0" * 32)
    result = run(spec)
    assert result["status"] == "failed" and "the data of breast_cancer changed" in result["error"]["message"]


def test_a_digest_follows_every_value_and_the_labels():
    def of(labels=("a", "b"), value=1.0, word="x", part="train"):
        tasks = (Task("kind", "classification", ("accuracy",), labels),)
        rows = [{"input": [word, value], "targets": {"kind": 0}}] * 1500
        return problems.digest(SimpleNamespace(tasks=tasks, splits={part: rows, "dev": rows[:1]}))

    others = [of(labels=("b", "a")), of(value=1.0 + 2**-52), of(word="y"), of(part="test")]
    assert of() == of() and len({of(), *others}) == 5
    arrays = [
        SimpleNamespace(tasks=(), splits={"train": [{"input": torch.full((2,), x)}]}) for x in (1, 1, 2)
    ]
    assert problems.digest(arrays[0]) == problems.digest(arrays[1]) != problems.digest(arrays[2])


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
    values |= {
        "stop": "all",
        "sampling": "annealed",
        "augment": "drop",
        "adversarial": "fgm",
        "freeze": "gradual",
    }
    assert values.keys() == {field.name for field in fields(Settings)}
    given = ({"patience": 3, key: value} if key == "stop" else {key: value} for key, value in values.items())
    others += [replace(spec, settings=Settings(**settings)) for settings in given]
    assert len({spec.id, *(other.id for other in others)}) == 1 + len(others)
    assert replace(spec, strategy="fixed:alpha=0.30").id.split("-")[-1] == spec.id.split("-")[-1]
    assert spec.id.endswith("-de0ec332")  # as before there was stop: results of then are found
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*-s0-[0-9a-f]{8}", spec.id)


def test_reading_names_what_it_cannot_read_and_skips_what_is_half_written(tmp_path):
    spec = RunSpec("toy", "equal", None, Settings())
    runs = runs_folder(tmp_path)
    write_result(spec.result(**OK, test={"ner": {"span_f1": float("nan")}}), tmp_path)
    (runs / ".half.json.1.tmp").write_text("{")
    (result,) = read_results(tmp_path)
    assert result["test"] == {"ner": {"span_f1": None}}
    (runs / "broken.json").write_text("{")
    with pytest.warns(UserWarning, match=r"broken\.json"):
        assert read_results(tmp_path) == [result]
    (runs / "broken.json").unlink()
    (runs / "other.json").write_text(json.dumps({"schema": 1}))
    with pytest.warns(UserWarning, match=r"other\.json is no result of a run: the result lacks id, problem"):
        read_results(tmp_path)


DAMAGE = {
    "schema 7": ({"schema": 7}, "is of schema 7"),
    "no schema": ({"schema": None}, "is of schema None"),
    "no list": ({"history": None}, r"the result\.history should be list, found None"),
    "a score that is text": (
        {"test": {"ner": {"span_f1": "high"}}},
        r"test\.ner\.span_f1 should be int or float",
    ),
    "a score without end": ({"test": {"ner": {"span_f1": 1e999}}}, r"test\.ner\.span_f1 should be"),
    "test is null": ({"test": None}, r"\.test should be dict"),
    "failed without an error": ({"status": "failed"}, "its status should be 'ok', or 'failed' with an error"),
    "another status": ({"status": "fine"}, "its status should be"),
    "a task without a metric": (
        {"tasks": {"a": {"kind": "", "metrics": [], "higher_is_better": {}}}},
        "no metric",
    ),
    "environment is null": ({"environment": None}, r"\.environment should be dict"),
    "a history that is deep": ({"history": [{"dev": {"a": {"b": {}}}, "weight": {}}]}, r"a\.b should be"),
    "true is no number": ({"seed": True}, r"\.seed should be int, found True"),
    "another run's": ({"id": "other"}, "it is that of run other, by its id"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_result_of_another_shape_is_one_line(tmp_path, change, message):
    spec = RunSpec("toy", "equal", None, Settings())
    runs_folder(tmp_path)
    path = write_result(spec.result(**OK), tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message) as caught:
        read_result(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"schema": 2, "x": ' + '{"x":' * 5000 + "1" + "}" * 5001, "9" * 5000]
)
def test_a_file_too_deep_or_long_is_one_line(tmp_path, text):
    (tmp_path / "deep.json").write_text(text)
    with pytest.raises(ValueError, match=r"deep\.json") as caught:
        read_result(tmp_path / "deep.json")
    assert "\n" not in str(caught.value)


def test_a_result_larger_than_any_run_gives_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "LARGEST", 100)
    (tmp_path / "large.json").write_text(" " * 101)
    with pytest.raises(ValueError, match="it is larger than"):
        read_result(tmp_path / "large.json")


def test_a_checksum_notices_a_changed_value(tmp_path):
    spec = RunSpec("toy", "equal", None, Settings())
    runs_folder(tmp_path)
    path = write_result(spec.result(**OK, test={"ner": {"span_f1": 0.5}}), tmp_path)
    whole = path.read_text()
    path.write_text(json.dumps(json.loads(whole)))  # another layout says the same
    assert read_result(path)["test"] == {"ner": {"span_f1": 0.5}}
    for old, new in (("0.5", "0.7"), ('"checksum"', '"checksun"'), ("span_f1", "span_f0")):
        path.write_text(whole.replace(old, new))
        with pytest.raises(ValueError, match="changed after it was written"):
            read_result(path)


def test_results_of_the_first_schema_are_read():
    found = read_results(Path(__file__).parent / "schema1")  # written before there was a checksum
    assert [result["strategy"] for result in found] == ["dwa", "equal", "fixed:alpha=0.3", "gradnorm"]
    assert "abalone" in text_tables(found)


def test_a_result_that_cannot_be_read_is_named_before_it_is_replaced(tmp_path, toy, capsys):
    found = suite(tmp_path, GOOD)
    first = run_suite(found, tmp_path, jobs=1, progress=False, runner=pretend)
    path = tmp_path / "runs" / f"{first[0]['id']}.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    assert run_suite(found, tmp_path, jobs=1, runner=pretend) == first
    assert re.search(
        rf"again: .*{first[0]['id']}\.json was changed after it was written", capsys.readouterr().err
    )


OWN = """
from mtlweights.strategies import LossStrategy
class Mine(LossStrategy):
    def __init__(self, n_tasks, *, alpha=1.0):
        super().__init__(n_tasks)
        {init}
    def combine(self, losses, present):
        return losses.sum()
"""


def test_a_changed_file_of_a_strategy_is_other_code(tmp_path, toy, capsys):
    (tmp_path / "mine.py").write_text(OWN.format(init="pass"))
    found = replace(suite(tmp_path, GOOD), strategies=("equal", f"{tmp_path}/mine.py:Mine"), seeds=(0,))
    run_suite(found, tmp_path, jobs=1, progress=False, runner=pretend)
    (tmp_path / "mine.py").write_text(OWN.format(init="pass  # another file"))
    run_suite(found, tmp_path, jobs=1, runner=pretend)
    said = capsys.readouterr().err
    assert "4 runs: 3 in" in said and "is of other code" in said and said.count("again: ") == 1


@pytest.mark.parametrize(
    "init", ["raise RuntimeError('no')", "raise SystemExit(0)", "import os; os._exit(0)"]
)
def test_what_a_strategy_does_when_it_is_built_does_not_end_the_bench(tmp_path, toy, init):
    (tmp_path / "mine.py").write_text(OWN.format(init=init))
    found = replace(suite(tmp_path, GOOD), strategies=("equal", f"{tmp_path}/mine.py:Mine"), seeds=(0,))
    assert len(run_suite(found, tmp_path, jobs=1, progress=False, runner=pretend)) == 4
    wrong = replace(found, strategies=(f"{tmp_path}/mine.py:Mine:alfa=1",))
    with pytest.raises(ValueError, match=r"Mine has no hyperparameter 'alfa'\. It takes: alpha"):
        run_suite(wrong, tmp_path, jobs=1, progress=False, runner=pretend)


def test_a_device_that_is_not_there_is_told_before_any_run(tmp_path, toy):
    found = suite(tmp_path, GOOD.replace("lr: 1e-3", "device: mps"))
    with pytest.raises(ValueError, match="device='mps': torch sees no such device"):
        run_suite(found, tmp_path / "out", jobs=1, progress=False, runner=pretend)
    assert not list((tmp_path / "out" / "runs").iterdir())


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

    monkeypatch.setattr(problems, "load", load)
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
