"""Kills, hostile strategies and several processes on one folder: nothing lost, torn, done twice or left."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_pool import alive, alive_pid, finished, some_specs, start_bench, until

from mtlweights.bench.results import read_result, runs_folder

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")

MAIN = [sys.executable, "-c", "import sys; from mtlweights.cli import main; sys.exit(main())"]
QUICK = ["--batch-size", "64", "--device", "cpu"]
SPECS = {spec.id for spec in some_specs("equal", "pcgrad")}


def start(*argv, cwd=None):
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*MAIN, *argv], cwd=cwd, env=env, start_new_session=True, **pipes)


def whole(folder):
    """Every result is there and can be read, and there is nothing else."""
    names = {path.name for path in (folder / "runs").iterdir()}
    assert names == {f"{name}.json" for name in SPECS}, sorted(names)
    return all(read_result(path)["status"] == "ok" for path in (folder / "runs").iterdir())


def test_benches_that_are_killed(attack, tmp_path):
    """A bench killed at a random moment, and run again: no result lost, torn or done twice."""
    for index, draw in enumerate(attack.draws(1)):
        folder, pids = tmp_path / f"out{index}", tmp_path / f"pids{index}"
        runs_folder(folder)
        bench = start_bench(folder, pids, 99)
        whom, number = (
            draw.choice(["parent", "group", "worker"]),
            draw.choice([signal.SIGKILL, signal.SIGTERM]),
        )
        until(lambda pids=pids: list(pids.iterdir()), "the first run")
        time.sleep(draw.uniform(0, 1.5))
        with attack.trial(f"{whom} {number!r}"):
            workers = alive(pids)
            if whom == "worker" and workers:
                os.kill(int(draw.choice(workers)), number)
                bench.communicate(timeout=120)
            else:
                (os.killpg if whom == "group" else os.kill)(bench.pid, number)
                bench.wait(120)
                bench.stderr.close()
            until(lambda pids=pids: not alive(pids), "the workers to end")
            before = {name: when for name, when in finished(folder).items() if _ok(folder, name)}
            again = start_bench(folder, pids, 99)
            again.communicate(timeout=120)
            # the script runs what has no file: a failed result of the killed worker is one
            assert before.items() <= finished(folder).items()
            assert whole(folder) or whom == "worker"


def _ok(folder, name):
    return read_result(folder / "runs" / name)["status"] == "ok"


def test_benches_on_one_folder(attack, tmp_path):
    """Two to four benches on one folder: every run is done once, none fails."""
    for index, draw in enumerate(attack.draws(1)):
        folder, pids = tmp_path / f"out{index}", tmp_path / f"pids{index}"
        runs_folder(folder)
        with attack.trial(f"trial {index}"):
            benches = []
            for _ in range(draw.randint(2, 4)):
                benches.append(start_bench(folder, pids, 99))
                time.sleep(draw.uniform(0, 0.5))
            for bench in benches:
                _, said = bench.communicate(timeout=240)
                assert bench.returncode == 0, said
            assert whole(folder) and len(list(pids.iterdir())) == len(SPECS)


@pytest.fixture
def table(tmp_path):
    """A small table, and the command that trains on it."""
    draw = random.Random(1)
    rows = [
        f"{draw.random():.3f},{draw.random():.3f},{draw.choice('ab')},{draw.random():.3f}" for _ in range(300)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["x,y,kind,price", *rows]) + "\n")
    return ["train", f"csv:{tmp_path}/t.csv", "--classify", "kind", "--regress", "price", "-s", "uw", *QUICK]


def outcome(folder):
    (path,) = (folder / "runs").iterdir()
    assert {path.name for path in folder.iterdir()} == {"checkpoint.pt", "runs"}
    return {key: value for key, value in read_result(path).items() if key in ("test", "dev", "steps")}


def test_trainings_that_are_killed(attack, table, tmp_path):
    """A training killed at random moments, and run again: the result of one that was not."""
    command = [*table, "--epochs", "12", "--out"]
    start(*command, str(tmp_path / "whole")).communicate(timeout=120)
    for index, draw in enumerate(attack.draws(1)):
        with attack.trial(f"trial {index}"):
            folder = tmp_path / f"run{index}"
            for _ in range(draw.randint(1, 3)):
                run = start(*command, str(folder))
                until(lambda run=run, folder=folder: run.poll() is not None or folder.exists(), "a folder")
                time.sleep(draw.uniform(0, 2.5))
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(run.pid, signal.SIGKILL)
                run.communicate(timeout=60)
            run = start(*command, str(folder))
            _, said = run.communicate(timeout=120)
            assert run.returncode == 0, said
            assert outcome(folder) == outcome(tmp_path / "whole")


def test_trainings_on_one_folder(attack, table, tmp_path):
    """Two or three trainings at once in one folder: the others are refused by the name of the first."""
    for index, draw in enumerate(attack.draws(1)):
        with attack.trial(f"trial {index}"):
            folder = tmp_path / f"run{index}"
            runs = []
            for _ in range(draw.randint(2, 3)):
                runs.append(start(*table, "--epochs", "12", "--out", str(folder)))
                time.sleep(draw.uniform(0, 0.3))
            ends = [(run.communicate(timeout=240)[1], run.returncode) for run in runs]
            assert 0 in [code for _, code in ends]
            for said, code in ends:
                last = said.splitlines()[-1] if said else ""
                assert code == 0 or (code == 2 and "is in use: process " in last), said
            outcome(folder)


HOSTILE = {
    "exit 0": "os._exit(0)",
    "sys.exit": "sys.exit()",
    "exit 7": "os._exit(7)",
    "abort": "os.abort()",
    "segfault": "import ctypes; ctypes.string_at(0)",
    "an exception of no kind": "class Odd(BaseException): pass\n        raise Odd",
    "memory": "raise MemoryError",
    "recursion": "def f(): f()\n        f()",
    "interrupt": "raise KeyboardInterrupt",
    "hang": "time.sleep(600)",
    "hang in C": "import threading; a = threading.Lock(); a.acquire(); a.acquire()",
    "deaf": "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
    "a thread": "threading.Thread(target=time.sleep, args=(600,)).start()",
    "a process": "subprocess.Popen(['sleep', '617'])",
    "a fork": "os.fork()",
    "no files": "os.closerange(3, 200)",
    "elsewhere": "os.chdir('/')",
    "noise": "print('x' * 100_000, file=sys.stderr)",
    "nothing": "return None",
    "text": "return 'x'",
    "too many": "return np.ones(9)",
    "NaN": "return np.full(len(gram), np.nan)",
    "complex": "return np.ones(len(gram)) * 1j",
    "float16": "torch.set_default_dtype(torch.float16)",
    "a full table of strings": "raise ValueError('x\\n' * 10_000 + '\\x1b[31m')",
}

STRATEGY = """
import os, signal, subprocess, sys, threading, time
import numpy as np
import torch
from mtlweights.strategies import GramStrategy


class Hostile(GramStrategy):
    def weights(self, gram, losses, present):
        {code}
        return np.ones(len(gram))
"""


def test_hostile_strategies(attack, tmp_path):
    """Hostile strategies in a bench: each leaves a result or a failed one, and the others are right."""
    many = os.environ.get("MTLWEIGHTS_ATTACK", "1") != "1"
    names = list(HOSTILE) if many else ["exit 0", "a process"]
    arms = []
    for index, name in enumerate(names):
        (tmp_path / f"h{index}.py").write_text(STRATEGY.format(code=HOSTILE[name]), encoding="utf-8")
        arms += ["-s", f"h{index}.py:Hostile"]
    bench = start(
        *["bench", "-p", "breast_cancer", "-s", "equal", *arms, "--seeds", "1", "--jobs", "2", "--out", "o"],
        *["--epochs", "1", *QUICK, "--limit-minutes", "0.25"],
        cwd=tmp_path,
    )
    out, said = bench.communicate(timeout=1500)
    assert bench.returncode in (0, 1) and "Traceback" not in out and "\x1b[31m" not in out, said[-2000:]
    results = {
        r["strategy"]: r
        for r in map(json.loads, (p.read_text() for p in (tmp_path / "o" / "runs").iterdir()))
    }
    assert results["equal"]["status"] == "ok"
    for index, name in enumerate(names):
        with attack.trial(name):
            found = results[f"h{index}.py:Hostile"]
            assert found["status"] == "ok" or found["error"]["message"] is not None
    with attack.trial("nothing is left"):
        left = [pid for pid in os.listdir("/proc") if pid.isdigit() and alive_pid(pid) and _of(pid, tmp_path)]
        assert not left
        assert all(path.suffix == ".json" for path in (tmp_path / "o" / "runs").iterdir())


def _of(pid, folder):
    try:
        return os.readlink(f"/proc/{pid}/cwd") == str(folder)
    except OSError:
        return False
