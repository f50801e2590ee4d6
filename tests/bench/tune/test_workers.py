"""Two processes on one study, one of them killed in the middle of a trial."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import optuna
import pytest
import torch

from mtlweights.bench.tune.storage import open_storage
from mtlweights.bench.tune.study import slots_of

TRIALS = 4
EPOCHS = 25


def start(storage, folder):
    command = [sys.executable, "-c", "import sys; from mtlweights.cli import main; sys.exit(main())"]
    command += ["tune", "breast_cancer", "-s", "pcgrad", "--study", "shared", "--trials", str(TRIALS)]
    command += ["--storage", storage, "--out", str(folder), "--fresh", "0", "--heartbeat", "0.4"]
    command += ["--fix", f"epochs={EPOCHS}", "--fix", "batch_size=32", "--pruner", "none", "--debug"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def kill_in_mid_trial(workers, folder):
    """Kill the worker of the first trial with a checkpoint; the trial's run and what the checkpoint holds."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        for path in folder.glob("checkpoints/*-pcgrad-*/checkpoint.pt"):
            try:
                owner = re.search(r"process (\d+)", (path.parent / f".{path.name}.claim").read_text())
            except FileNotFoundError:
                continue
            victim = next((w for w in workers if owner and w.pid == int(owner[1])), None)
            if victim is not None:
                os.kill(victim.pid, signal.SIGSTOP)  # what it has done can be read now
                if path.exists():
                    rows = torch.load(path, weights_only=True)["history"]["rows"]
                    if len(rows) < EPOCHS:
                        victim.kill()
                        return victim, path.parent.name, rows
                os.kill(victim.pid, signal.SIGCONT)
        time.sleep(0.02)
    raise TimeoutError("no trial came to a checkpoint")


def close(storage):
    """Leave no connection open."""
    storage.remove_session()
    backend = getattr(storage, "_backend", storage)
    for name, end in (("engine", "dispose"), ("_channel", "close")):
        if hasattr(backend, name):
            getattr(getattr(backend, name), end)()


@pytest.mark.parametrize("shared_storage", ["journal", "grpc", "postgresql"], indirect=True)
def test_two_workers_share_a_study_and_one_that_is_killed_loses_nothing(shared_storage, tmp_path):
    folder = tmp_path / "out"
    workers = [start(shared_storage, folder) for _ in range(2)]
    victim, run, rows = kill_in_mid_trial(workers, folder)
    survivor = next(worker for worker in workers if worker is not victim)
    said, _ = survivor.communicate(timeout=180)
    victim.communicate()
    assert survivor.returncode == 0, said
    assert "its worker is gone; it is queued again" in said

    storage = open_storage(shared_storage, tmp_path)
    trials = optuna.load_study(study_name="shared", storage=storage).get_trials()
    close(storage)
    slots = slots_of(trials)
    assert [t.state.name for t in slots] == ["COMPLETE"] * TRIALS
    assert Counter(t.state.name for t in trials) == {"COMPLETE": TRIALS, "FAIL": 1}
    # the training of the trial that was taken over went on: the epochs of before are those of before
    result = json.loads((folder / "runs" / f"{run}.json").read_text())
    assert result["status"] == "ok" and len(result["history"]) == EPOCHS
    assert [row["seconds"] for row in result["history"][: len(rows)]] == [row["seconds"] for row in rows]
    assert run in {t.user_attrs["run"]["id"] for t in slots if "retry_of" in t.user_attrs}
    assert not list((folder / "checkpoints").glob("*"))
