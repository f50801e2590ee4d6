"""Kills, hostile strategies and several processes on one folder: nothing lost, torn, done twice or left."""

import contextlib
import json
import multiprocessing
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
from mtlweights.bench.worker import FIRST_STEP, PRELOADED
from mtlweights.cli import main

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
    """Benches killed at random moments, and run again: no result lost, torn or done twice."""
    for index, draw in enumerate(attack.draws(1.4)):
        folder, pids, kills = tmp_path / f"out{index}", tmp_path / f"pids{index}", 0
        runs_folder(folder)
        with attack.trial(f"bench {index}"):
            most = draw.randint(2, 5)
            while kills < most and len(finished(folder)) < len(SPECS):
                kill_a_bench(draw, folder, pids)
                kills += 1
            start_bench(folder, pids, 99).communicate(timeout=120)
            assert whole(folder)
        attack.trials += kills - 1


def kill_a_bench(draw, folder, pids):
    """Start a bench, and kill it, its group or one of its workers: what was done stays as it is."""
    whom = draw.choice(["parent", "parent", "group", "group", "worker"])
    number = draw.choice([signal.SIGKILL, signal.SIGTERM])
    done, before = finished(folder), set(pids.iterdir()) if pids.exists() else set()
    bench = start_bench(folder, pids, 99)
    until(lambda: set(pids.iterdir()) - before, "the first run")
    more = min(draw.randint(0, 2), len(SPECS) - len(done) - 1)
    until(lambda: len(finished(folder)) >= len(done) + more, f"{more} results")
    time.sleep(draw.uniform(0, 0.1))
    workers = alive(pids)
    if whom == "worker" and workers:
        os.kill(int(draw.choice(workers)), number)
        bench.communicate(timeout=120)
    else:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if whom == "group" else os.kill)(bench.pid, number)
        bench.wait(120)
        bench.stderr.close()
    until(lambda: not alive(pids), "the workers to end")
    assert done.items() <= finished(folder).items()
    for path in (folder / "runs").glob("*.json"):
        if read_result(path)["status"] != "ok":
            assert whom == "worker"
            path.unlink()  # that of the killed worker: the script runs what has no file


def test_benches_on_one_folder(attack, tmp_path):
    """Two to four benches on one folder: every run is done once, none fails."""
    for index, draw in enumerate(attack.draws(0.2)):
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
def problem(tmp_path):
    """A small table."""
    draw = random.Random(1)
    rows = [
        f"{draw.random():.3f},{draw.random():.3f},{draw.choice('ab')},{draw.random():.3f}" for _ in range(300)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["x,y,kind,price", *rows]) + "\n")
    return f"csv:{tmp_path}/t.csv:classify=kind,regress=price"


def outcome(folder):
    (path,) = (folder / "runs").iterdir()
    assert {path.name for path in folder.iterdir()} == {"checkpoint.pt", "model", "predictions", "runs"}
    return {key: value for key, value in read_result(path).items() if key in ("test", "dev", "steps")}


def trained(argv, log):
    """What a forked process does: the command, with what it says in ``log``."""
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(main(argv))


def fork(argv, log):
    """The command in a process of its own, without the seconds that a start of Python takes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED, *FIRST_STEP])
    process = context.Process(target=trained, args=(argv, log))
    process.start()
    return process


def test_trainings_that_are_killed(attack, problem, tmp_path):
    """Trainings killed at random moments, and run again: the result of one that was not."""
    command, log = ["train", problem, "-s", "uw", *QUICK, "--epochs", "12", "--out"], str(tmp_path / "log")
    fork([*command, str(tmp_path / "whole")], log).join(120)
    for index, draw in enumerate(attack.draws(1.4)):
        folder, kills = tmp_path / f"run{index}", draw.randint(2, 4)
        with attack.trial(f"training {index}"):
            for _ in range(kills):
                run = fork([*command, str(folder)], log)
                until(lambda run=run, folder=folder: not run.is_alive() or folder.exists(), "a folder")
                time.sleep(draw.uniform(0, 1))
                run.kill()
                run.join(60)
            run = fork([*command, str(folder)], log)
            run.join(120)
            assert run.exitcode == 0, Path(log).read_text()[-500:]
            assert outcome(folder) == outcome(tmp_path / "whole")
        attack.trials += kills - 1


def test_trainings_on_one_folder(attack, problem, tmp_path):
    """Two or three trainings at once in one folder: the others are refused by the name of the first."""
    command = ["train", problem, "-s", "uw", *QUICK, "--epochs", "12", "--out"]
    for index, draw in enumerate(attack.draws(0.4)):
        with attack.trial(f"trial {index}"):
            folder = tmp_path / f"run{index}"
            runs = []
            for _ in range(draw.randint(2, 3)):
                runs.append(start(*command, str(folder)))
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
    "the server stopped": "os.kill(os.getppid(), signal.SIGSTOP)",
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


def test_hostile_strategies(attack, problem, tmp_path):
    """Hostile strategies in a bench: each leaves a result or a failed one, and the others are right."""
    names = list(HOSTILE) if attack.times > 1 else ["exit 0", "a process"]
    arms = []
    for index, name in enumerate(names):
        (tmp_path / f"h{index}.py").write_text(STRATEGY.format(code=HOSTILE[name]), encoding="utf-8")
        arms += ["-s", f"h{index}.py:Hostile"]
    bench = start(
        *["bench", "-p", problem, "-s", "equal", *arms, "--seeds", "1", "--jobs", "2", "--out", "o"],
        *["--epochs", "1", *QUICK, "--limit-minutes", "0.25"],
        cwd=tmp_path,
    )
    out, said = bench.communicate(timeout=1500)
    assert bench.returncode in (0, 1) and "Traceback" not in out and "\x1b[31m" not in out, said[-2000:]
    found = [json.loads(path.read_text()) for path in (tmp_path / "o" / "runs").iterdir()]
    results = {result["strategy"]: result for result in found if result["only"] is None}
    assert results["equal"]["status"] == "ok" and len(found) == len(names) + 3
    for index, name in enumerate(names):
        with attack.trial(name):
            result = results[f"h{index}.py:Hostile"]
            assert result["status"] == "ok" or result["error"]["message"]
    with attack.trial("nothing is left"):
        left = [pid for pid in os.listdir("/proc") if pid.isdigit() and alive_pid(pid) and _of(pid, tmp_path)]
        assert not left
        assert all(path.suffix == ".json" for path in (tmp_path / "o" / "runs").iterdir())


def _of(pid, folder):
    try:
        return os.readlink(f"/proc/{pid}/cwd") == str(folder)
    except OSError:
        return False
