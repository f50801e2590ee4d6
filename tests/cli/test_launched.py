"""`mtlweights train` under torchrun and accelerate launch: one voice, and what one process leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtlweights.cli import main
from tests.tiny import ROOT, free_port

TRAIN = ["train", "breast_cancer", "-s", "famo", "--epochs", "12", "--device", "cpu"]
ACCELERATE = ["accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no"]
SHARDED = [*ACCELERATE, "--dynamo_backend", "no", "--use_fsdp", "--fsdp_version", "2", "--num_processes", "2"]


def start(launcher, *arguments):
    """Two processes of the command line."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    port = ["--main_process_port", str(free_port())]
    command = [sys.executable, "-m", *launcher, *port, "-m", "mtlweights", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=env, cwd=ROOT, **pipes)


def slurm(folder, *arguments):
    """examples/slurm.sh on one machine of two slots, SLURM's own programs being stand-ins."""
    for name, does in (("srun", 'exec "$@"'), ("scontrol", "echo localhost")):
        (folder / name).write_text(f"#!/bin/sh\n{does}\n")
        (folder / name).chmod(0o755)
    told = {"SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_NODELIST": "localhost"}
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    mine = {"SLURM_JOB_ID": str(free_port()), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": path}
    command = ["bash", str(ROOT / "examples" / "slurm.sh"), *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, **told, **mine}, cwd=folder, capture_output=True, text=True
    )


def said(errors):
    """The command's own lines."""
    return [line for line in errors.splitlines() if "mtlweights: " in line]


def second_of(launcher):
    """The number of the second process it started."""
    found = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text(encoding="utf-8")
    return int(found.split()[1])


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the children of a process in /proc")
def test_killed_and_started_again_it_ends_as_one_process(tmp_path, capsys):
    two, one = tmp_path / "two", tmp_path / "one"
    run = start(SHARDED, *TRAIN, "--out", two)
    while not (two / "checkpoint.pt").exists():
        assert run.poll() is None, run.communicate()
        time.sleep(0.01)
    os.kill(second_of(run), signal.SIGKILL)
    assert (
        "another process of this run has ended" in (lines := said(run.communicate()[1]))[0]
        and len(lines) == 1
    )
    assert run.returncode

    run = slurm(tmp_path, *TRAIN[1:], "--out", two)
    printed = run.stdout
    assert run.returncode == 0 and not said(run.stderr), run.stderr
    assert main([*TRAIN, "--out", str(one)]) == 0
    expected = capsys.readouterr().out
    assert printed.count("best epoch") == 1 and printed.splitlines()[:5] == expected.splitlines()[:5]
    (found,), (alone,) = ([*folder.glob("runs/*.json")] for folder in (two, one))
    assert found.name == alone.name
    found, alone = (json.loads(path.read_text(encoding="utf-8")) for path in (found, alone))
    assert len(found["history"]) == 12 and found["best_epoch"] == alone["best_epoch"]
    for part in ("dev", "test"):
        for task, scores in alone[part].items():
            assert found[part][task] == pytest.approx(scores, rel=1e-3)


def test_what_shards_cannot_do_is_one_line_before_training(tmp_path):
    run = start(SHARDED, "train", "breast_cancer", "-s", "graddrop", "--device", "cpu", "--out", tmp_path)
    printed, errors = run.communicate()
    assert run.returncode and not printed and "step/s" not in errors
    (line,) = said(errors)
    assert "GradDrop, which needs more than a Gramian" in line and "use DDP or another strategy" in line
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize("command", ["bench", "tune", "list"])
def test_other_commands_are_for_one_process(monkeypatch, capsys, command):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([command, *(["tagging", "-s", "uw"] if command == "tune" else [])]) == 2
    assert f"mtlweights {command} runs in one process" in capsys.readouterr().err
