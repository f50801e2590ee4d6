"""The command line, as a user meets it: what it prints, leaves behind, and says when something is wrong."""

import json
import random
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from mtlweights.bench import read_results
from mtlweights.cli import main
from mtlweights.cli.main import parser
from mtlweights.cli.settings import given_settings
from mtlweights.strategies import names
from mtlweights.train import Settings, fitting

QUICK = ["--epochs", "2", "--batch-size", "64", "--device", "cpu"]


@pytest.fixture
def houses(tmp_path, monkeypatch):
    """The working folder, with a small table in it: two inputs, a class and a number."""
    monkeypatch.chdir(tmp_path)
    draw = random.Random(1)
    rows = ["size,age,kind,price"]
    for _ in range(240):
        size, age = draw.uniform(40, 200), draw.uniform(0, 90)
        kind = "flat" if size + draw.gauss(0, 20) < 100 else "house"
        rows.append(f"{size:.1f},{age:.1f},{kind},{3 * size - age + draw.gauss(0, 10):.1f}")
    Path("houses.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


SPEC = "csv:houses.csv:classify=kind,regress=price"
COLUMNS = ["csv:houses.csv", "--classify", "kind", "--regress", "price"]


def one_line(capsys):
    """The error that was printed, which must be all there is on stderr."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("mtlweights: error: "), lines
    return lines[0]


def status(argv):
    """The exit status of a command, whether argparse or we end it."""
    try:
        return main(argv)
    except SystemExit as stop:
        return stop.code


# list


def test_list_as_json(capsys):
    assert main(["list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == names()
    assert rows["equal"]["backward"] == "1"
    assert rows["pcgrad"]["backward"] == "T"
    assert rows["gradnorm"]["backward"] == "T at last layer"
    assert rows["modo"]["backward"] == "T on each of 3 batches"
    assert rows["auto_lambda"]["backward"] == "T + validation"
    assert rows["dwa"]["needs"] == "end_epoch"
    states = {"equal": "", "dwa": "T", "uw": "T, learned", "gradvac": "T x T", "moco": "T x P"}
    assert {name: rows[name]["state"] for name in states} == states
    assert rows["metabalance"]["state"] == "T x tensors"


def test_list_works_on_the_base_install():
    missing = "accelerate transformers sklearn seqeval yaml tqdm matplotlib jinja2 tensorboard"
    code = f"import sys\nfor name in '{missing}'.split(): sys.modules[name] = None\n"
    code += "from mtlweights.cli import main\nsys.exit(main(['list']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pcgrad" in done.stdout


# settings


def test_every_setting_is_an_option():
    given = {"clip": "none", "patience": "3", "lr": "2e-3", "schedule": "cosine", "seed": "7"}
    argv = [f"--{name}={value}" for name, value in given.items()]
    found = given_settings(parser().parse_args(["train", "tagging", "-s", "equal", *argv]))
    assert found == {"clip": None, "patience": 3, "lr": 2e-3, "schedule": "cosine", "seed": 7}
    for field in fields(Settings):
        option = f"--{field.name.replace('_', '-')}"
        assert parser().parse_args(["train", "tagging", "-s", "equal", option, _valid(field)])


def _valid(field):
    return "cpu" if field.name == "device" else "1" if field.default is None else str(field.default)


def test_settings_that_are_not_given_stay_the_problems():
    assert given_settings(parser().parse_args(["bench"])) == {}


# train


def test_train_prints_the_test_scores_and_leaves_a_result(houses, capsys):
    assert main(["train", *COLUMNS, "-s", "pcgrad", *QUICK, "--seed", "3", "--out", "here"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["task", "kind", "price"] or "rmse" in out
    (result,) = read_results("here")
    assert result["status"] == "ok" and result["strategy"] == "pcgrad" and result["seed"] == 3
    assert result["settings"]["epochs"] == 2 and len(result["history"]) == 2
    for task in ("kind", "price"):
        for value in result["test"][task].values():
            assert f"{value:.4f}" in out
    assert (houses / "here" / "checkpoint.pt").exists() and str(Path("here", "checkpoint.pt")) in out


@pytest.mark.parametrize(
    ("problem", "means"), [("mulan:slump", ["rrmse"]), ("burgers:points=200", ["relative_l2"])]
)
def test_train_prints_the_mean_of_a_metric_that_all_tasks_have(
    problem, means, data_dir, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["train", problem, "-s", "pcgrad", *QUICK]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[1] for row in rows if row[:1] == ["mean"]] == means
    own = [float(row[3]) for row in rows if row[1:2] == means and row[0] != "mean"]
    mean = next(float(row[3]) for row in rows if row[:1] == ["mean"])
    assert len(own) == 3 and mean == pytest.approx(sum(own) / 3, abs=1e-4)


def test_train_goes_on_where_it_was_interrupted(houses, capsys, monkeypatch):
    command = ["train", *COLUMNS, "-s", "uw", *QUICK, "--epochs", "4"]
    assert main([*command, "--out", "whole"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(fitting.checkpoint, "save", _interrupt_second(fitting.checkpoint.save))
        assert main([*command, "--out", "parts"]) == 130
    assert "run the same command again" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError):
        read_results("parts")
    assert main([*command, "--out", "parts"]) == 0
    (whole,), (parts,) = read_results("whole"), read_results("parts")
    assert parts["test"] == whole["test"] and parts["id"] == whole["id"]
    assert len(parts["history"]) == 4


def _interrupt_second(save):
    calls = []

    def interrupted(*args):
        calls.append(args)
        save(*args)
        if len(calls) == 2:
            raise KeyboardInterrupt

    return interrupted


def test_train_of_one_task_alone(houses, capsys):
    assert main(["train", *COLUMNS, "--task", "price", *QUICK]) == 0
    assert "kind" not in capsys.readouterr().out.split("checkpoint")[0]
    (folder,) = Path("runs").iterdir()
    assert folder.name.endswith("--single-price--0")
    (result,) = read_results(folder)
    assert result["only"] == "price" and set(result["test"]) == {"price"}
    assert main(["report", str(folder)]) == 0
    assert (folder / "page.html").exists()


def test_columns_as_options_are_the_spec(houses):
    for problem, out in (COLUMNS, "options"), ([SPEC], "spec"):
        assert main(["train", *problem, "-s", "equal", *QUICK, "--out", out]) == 0
    (a,), (b,) = read_results("options"), read_results("spec")
    assert a["id"] == b["id"] and a["test"] == b["test"]


# bench and report


def test_bench_of_a_suite_on_the_command_line(houses, capsys):
    command = ["bench", "-p", SPEC, "-s", "uw", "-s", "single", "--seeds", "1", "--jobs", "1", *QUICK]
    assert main([*command, "--out", "out"]) == 0
    first = capsys.readouterr()
    assert "uw" in first.out and str(Path("out", "page.html")) in first.out
    assert "<html" in Path("out", "page.html").read_text(encoding="utf-8")
    assert sorted(result["only"] or "" for result in read_results("out")) == ["", "kind", "price"]
    assert {result["seed"] for result in read_results("out")} == {0}

    times = {path: path.stat().st_mtime_ns for path in Path("out", "runs").iterdir()}
    assert main([*command, "--out", "out"]) == 0
    again = capsys.readouterr()
    assert again.out == first.out
    assert times == {path: path.stat().st_mtime_ns for path in Path("out", "runs").iterdir()}

    assert main(["report", "out", "--markdown"]) == 0
    assert "| `uw` |" in capsys.readouterr().out


def test_bench_says_which_runs_failed(houses, capsys):
    command = ["bench", "-p", SPEC, "-s", "equal", "--seeds", "5", "6", "--jobs", "1", "--lr", "1e30"]
    assert main([*command, *QUICK, "--epochs", "1"]) == 1
    said = capsys.readouterr()
    # other problems than the embedded suite's do not land in its folder
    folder = Path("results", "csv-houses.csv-classify-kind-regress-price")
    # two seeds of three runs: together, and each task alone
    assert "6 of 6 runs failed" in said.err
    assert sum("FloatingPointError" in line for line in said.out.splitlines()) == 6
    assert {result["seed"] for result in read_results(folder)} == {5, 6}


# what can go wrong

BAD = {
    "unknown strategy": (["train", SPEC, "-s", "pcgard"], ["'pcgard'", "'pcgrad'"]),
    "unknown strategy in bench": (["bench", "-p", SPEC, "-s", "pcgard"], ["'pcgard'", "'pcgrad'"]),
    "unknown option of a strategy": (["train", SPEC, "-s", "fixed:alfa=0.3"], ["alfa"]),
    "weights for three tasks of two": (["train", SPEC, "-s", "fixed:alpha=[1,2,3]"], ["alpha", "3"]),
    "unknown problem": (["train", "taging", "-s", "uw"], ["'taging'", "'tagging'"]),
    "a problem like none": (["train", "xyzzy", "-s", "uw"], ["'xyzzy'", "tagging"]),
    "single as a strategy": (["train", SPEC, "-s", "single"], ["--task"]),
    "unknown task": (["train", SPEC, "--task", "prize"], ["'prize'", "'price'"]),
    "wrong column": (["train", "csv:houses.csv:classify=kid,regress=price", "-s", "uw"], ["'kid'", "'kind'"]),
    "no such file": (["train", "csv:house.csv", "--classify", "kind", "-s", "uw"], ["house.csv"]),
    "tags without a column": (["train", "conll:x", "-s", "uw", "--tags", "ner"], ["TASK=COLUMN", "'ner'"]),
    "a task given twice": (["train", "conll:x", "-s", "uw", "--tags", "ner=1", "ner=0"], ["'ner' twice"]),
    "no task of a table": (["train", "csv:houses.csv", "-s", "uw"], ["--classify", "--regress", "price"]),
    "no task of sentences": (["train", "conll:houses.csv", "-s", "uw"], ["--tags"]),
    "an ignored task": (["train", *COLUMNS, "-s", "uw", "--ignore", "kind"], ["ignore", "'kind'"]),
    "missing GPU": (["train", SPEC, "-s", "uw", "--device", "cuda"], ["cuda", "cpu"]),
    "setting out of range": (["train", SPEC, "-s", "uw", "--epochs", "0"], ["epochs", "0"]),
    "setting that is no number": (["train", SPEC, "-s", "uw", "--lr", "fast"], ["--lr", "fast"]),
    "setting of bench": (["bench", "-p", SPEC, "-s", "uw", "--lr", "-1"], ["lr", "-1"]),
    "unknown schedule": (["train", SPEC, "-s", "uw", "--schedule", "linar"], ["linar", "linear"]),
    "unknown tracker": (
        ["train", SPEC, "-s", "uw", "--trackers", "tensorbord"],
        ["tensorbord", "tensorboard"],
    ),
    "folder that is a file": (["train", SPEC, "-s", "uw", "--out", "houses.csv/x"], ["houses.csv"]),
    "folder of bench that is a file": (
        ["bench", "-p", SPEC, "-s", "uw", "--out", "houses.csv"],
        ["houses.csv"],
    ),
    "neither strategy nor task": (["train", SPEC], ["--strategy", "--task"]),
    "both strategy and task": (["train", SPEC, "-s", "uw", "--task", "kind"], ["--task", "--strategy"]),
    "unknown command": (["trian"], ["trian", "train"]),
    "unknown flag": (["bench", "--job", "1"], ["--job"]),
    "no such suite": (["bench", "suite.yaml"], ["suite.yaml"]),
    "no results": (["report", "nowhere"], ["nowhere"]),
    "an encoder that is a list": (["bench", "-p", "tagging:encoder=[1]"], ["encoder", "[1]", "bilstm"]),
    "no such file of a strategy": (["train", SPEC, "-s", "nope.py:Mine"], ["nope.py"]),
    "a device of bench": (["bench", "-p", SPEC, "-s", "uw", "--device", "cuda"], ["cuda", "cpu"]),
    "a limit of nothing": (["bench", "-p", SPEC, "-s", "uw", "--limit-minutes", "0"], ["limit_minutes", "0"]),
    "more seeds than memory": (["bench", "-p", SPEC, "-s", "uw", "--seeds", "9" * 12], ["--seeds", "10000"]),
    "an escape sequence": (["train", "\x1b[31mtagging", "-s", "uw"], ["\\x1b[31mtagging"]),
    "seeds": (["bench", "-p", SPEC, "-s", "uw", "--seeds", "0"], ["--seeds"]),
    "too many jobs": (["bench", "-p", SPEC, "-s", "uw", "--jobs", "9999"], ["9999"]),
}


@pytest.mark.parametrize("argv, pieces", BAD.values(), ids=BAD)
def test_bad_input_gives_one_line(argv, pieces, houses, capsys):
    assert status(argv) == 2
    line = one_line(capsys)
    assert all(piece in line for piece in pieces) and "\x1b" not in line, line
    assert not list(houses.rglob("*.json")) and not list(houses.rglob("*.pt"))


def test_a_loss_that_is_not_finite(houses, capsys):
    assert main(["train", SPEC, "-s", "uw", *QUICK, "--lr", "1e30"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("mtlweights: error: ") and "epoch" in line and ("kind" in line or "price" in line)


def test_a_corrupt_data_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "abalone").mkdir()
    (tmp_path / "abalone" / "abalone.csv").write_text("M,0.4\n", encoding="utf-8")
    monkeypatch.setenv("MTLWEIGHTS_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["train", "abalone", "-s", "uw"]) == 2
    line = one_line(capsys)
    assert "abalone.csv" in line and "MTLWEIGHTS_DATA" in line
    assert "eb2de13be807" in line  # the start of the SHA-256 that was expected


@pytest.mark.parametrize(
    "text, pieces",
    [
        ("problems: [abalone]\nstratgies: [uw]\n", ["line 2", "stratgies", "strategies"]),
        ("problems: [abalone\nstrategies: [uw]\n", ["line", "YAML"]),
        ("problems: [abalone]\nstrategies: [uw, pcgard]\n", ["line 2", "'pcgard'", "'pcgrad'"]),
    ],
)
def test_a_typo_in_a_suite(text, pieces, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("suite.yaml").write_text(text, encoding="utf-8")
    assert main(["bench", "suite.yaml"]) == 2
    line = one_line(capsys)
    assert all(piece in line for piece in ["suite.yaml", *pieces]), line
    assert not Path("results").exists()


def test_a_checkpoint_of_other_settings(houses, capsys):
    command = ["train", SPEC, "-s", "equal", "--out", "out", *QUICK]
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command, "--lr", "0.5"]) == 2
    assert "lr" in one_line(capsys)


def test_debug_shows_the_traceback(houses):
    with pytest.raises(ValueError, match="pcgard"):
        main(["train", SPEC, "-s", "pcgard", "--debug"])


# as a program

PROGRAM = Path(sys.executable).with_name("mtlweights")


def test_the_program_is_installed():
    done = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("mtlweights 0.")


MINE = """
import beside
from mtlweights.strategies import LossStrategy
class Largest(LossStrategy):
    def combine(self, losses, present):
        return losses.max()
"""


@pytest.fixture
def own(houses):
    """The working folder with a strategy, a file that it needs, and modules that nobody named."""
    Path("mine.py").write_text(MINE, encoding="utf-8")
    Path("beside.py").write_text("", encoding="utf-8")
    for name in PLANTED:
        Path(f"{name}.py").write_text(f"open('ran-{name}', 'w').close()", encoding="utf-8")
    return houses


#: modules that packages we use look for and can do without, and one that everybody has
PLANTED = ("uarray", "sksparse", "triton", "torch_xla", "gmpy2", "colorama", "yaml", "random")


def program(*argv):
    done = subprocess.run([PROGRAM, *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["mine:Largest", "mine.py:Largest", "mine.py"])
def test_a_strategy_of_the_users_own_in_the_working_folder(own, name):
    program("train", SPEC, "-s", name, *QUICK, "--epochs", "1", "--out", "out")
    (result,) = read_results("out")
    assert result["strategy"] == name and len(result["code"]) == 32
    assert not list(own.glob("ran-*"))


def test_nothing_in_the_working_folder_runs_that_is_not_named(own):
    bench = ["bench", "-p", SPEC, "-s", "mine.py:Largest", "--seeds", "1", "--jobs", "1", "--out", "out"]
    assert "mine.py:Largest" in program(*bench, *QUICK, "--epochs", "1")
    Path("mine.py").write_text("open('ran-mine', 'w')", encoding="utf-8")  # a report needs no strategy
    program("report", "out")
    program("list")
    assert not list(own.glob("ran-*"))


def test_data_that_changed_are_computed_again_and_no_run_goes_on_with_them(houses, capsys, monkeypatch):
    bench = ["bench", "-p", SPEC, "--seeds", "1", "--jobs", "1", *QUICK, "--epochs", "1", "--out", "out"]
    train = ["train", SPEC, "-s", "uw", *QUICK, "--epochs", "4", "--out", "run"]
    assert main([*bench, "-s", "equal"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(fitting.checkpoint, "save", _interrupt_second(fitting.checkpoint.save))
        assert main(train) == 130
    with open("houses.csv", "a", encoding="utf-8") as table:
        table.write("100.0,50.0,flat,250.0\n")
    capsys.readouterr()
    assert main([*bench, "-s", "uw"]) == 0
    said = capsys.readouterr().err
    assert "3 runs: 0 in out already, 3 to do" in said and said.count("is of other data") == 2
    assert len({result["data"] for result in read_results("out") if result["strategy"] != "equal"}) == 1
    assert main(train) == 2
    assert "of another run (data: " in one_line(capsys)


def test_a_reader_that_leaves_is_no_error():
    # head closes the pipe after one line; the table is longer than a pipe's buffer only with many strategies,
    # so it is written to a pipe nobody reads
    code = (
        "import os, sys\n"
        "read, write = os.pipe()\n"
        "os.dup2(write, 1); os.close(write); os.close(read)\n"
        "sys.stdout.reconfigure(line_buffering=True)\n"
        "from mtlweights.cli import main\n"
        "sys.exit(main(['list']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == ""
