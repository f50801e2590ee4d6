"""The dry run of ``make gpu`` on the CPU: it runs, it finds what is wrong, and its page says so."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu" / "run.py"
FEW = ["uw", "pcgrad", "graddrop"]


@pytest.fixture
def parts(monkeypatch):
    """The folders whose modules the script imports."""
    for folder in ("tests", "benchmarks/micro", "benchmarks/gpu"):
        monkeypatch.syspath_prepend(str(ROOT / folder))


@pytest.fixture
def log(parts, tmp_path):
    import records

    return records.Log(tmp_path / "part.jsonl", 60.0, "cpu")


def found(log):
    return [json.loads(line) for line in log.path.read_text().splitlines()]


def test_a_part_by_the_command_and_its_page(tmp_path):
    command = [sys.executable, SCRIPT, "--device", "cpu", "--only", "reads", "--out", tmp_path]
    done = subprocess.run([*command, "--strategies", *FEW], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "step-gpu.md").read_text()
    assert torch.__version__ in page and "16 of 16 checks and targets hold" in page
    assert "| Gramian | SGD, by call |" in page
    assert "| loss-based | SGD, by call | 0 | uw |" in page


def test_every_check_holds_on_the_cpu(log):
    import checks

    checks.run(FEW, log)
    records = found(log)
    assert len(records) > 60 and [r for r in records if r["ok"] is False] == []
    groups = {r["group"] for r in records}
    assert {"captured CUDA graph, one pass", "fp16, GradScaler", "torch.compile, mode default"} <= groups


def test_a_wrong_gradient_an_error_and_a_late_check_fail_and_the_rest_goes_on(log, tmp_path, monkeypatch):
    import checks
    import page
    from loops import Way

    from mtlweights.gradients import write_grad

    way = Way(torch.device("cpu"))
    log.check("group", "right", lambda: checks.compare("mgda", way))
    weighted = write_grad.combine
    monkeypatch.setattr(write_grad, "combine", lambda *args: 1.01 * weighted(*args))
    rows = Way(torch.device("cpu"), arguments={"gradients": "rows"})
    checks.reference("mgda", way)
    log.check("group", "wrong", lambda: checks.compare("mgda", way))
    log.check("group", "raises", lambda: checks.compare("no such strategy", rows))
    log.seconds = 0.0
    log.check("group", "late", lambda: "")
    assert [r["ok"] for r in found(log)] == [True, False, False, False]
    errors = [r["error"] for r in found(log)]
    assert "apart" in errors[1] and "No strategy named" in errors[2] and "time was up" in errors[3]
    log.path.rename(tmp_path / "checks.jsonl")
    (tmp_path / "machine.txt").write_text("a machine")
    page.write(tmp_path / "page.md", tmp_path)
    text = (tmp_path / "page.md").read_text()
    assert "1 of 4 checks and targets hold" in text and "| checks | group | wrong |" in text


def test_a_column_of_the_step_times_and_a_missed_target(log, monkeypatch):
    import speed

    column = speed.COLUMNS[0]
    log.check(column.name, "times", lambda: speed._times(column, torch.device("cpu"), 0.01, log))
    records = {r["name"]: r for r in found(log)}
    assert records["times"]["ok"] and records["uw / plain"]["ok"] is None
    assert {"plain, ms", "floor, ms", "pcgrad / floor", "equal / plain", "every 8 / plain"} <= records.keys()
    lines = {label: (least, most) for label, *_, least, most in speed._lines(column, dict.fromkeys(LINES))}
    assert lines == {
        "uw / plain": (None, 1.02),
        "pcgrad / floor": (None, 1.03),
        "pcgrad, rows / floor": (None, None),
        "torchjd pcgrad, fastest / ours": (1.0, None),
        "libmtl pcgrad / ours": (1.0, None),
    }


LINES = ("plain", "floor", "uw", "pcgrad", "pcgrad, rows", "torchjd pcgrad, fastest", "libmtl pcgrad")


def test_the_transformer_has_a_hundred_million_parameters(parts):
    import encoder

    with torch.device("meta"):
        problem = encoder.transformer(2)
    assert 100e6 < problem.shared_elements < 120e6


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_to_do():
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    assert done.returncode == 2 and "--device cpu" in done.stderr and "Traceback" not in done.stderr
