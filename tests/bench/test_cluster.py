"""Runs on a Dask cluster: a real scheduler and two worker processes, one of which is killed."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from test_budget import knows

from mtlweights.bench import read_results, run_suite
from mtlweights.bench.cluster import run_on_dask
from mtlweights.bench.suite import Suite
from mtlweights.cli.main import main

SUITE = Suite("s", {"breast_cancer": {}}, ("equal", "uw", "random"), (0, 1, 2), {})


def slowly(spec, log):
    """A run that takes a moment, and says when it begins and ends."""
    line = f"{os.getpid()} {spec.id}\n"
    for word in ("begin", "end"):
        with Path(log).open("a") as file:
            file.write(f"{word} {line}")
        time.sleep(0.5 * (word == "begin"))
    return knows(spec)


@contextmanager
def cluster(threads=1, workers=2):
    """Its address, and the worker processes."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{one.getsockname()[1]}"
    here = Path(__file__).parent
    path = os.pathsep.join(
        [str(here), str(here.parents[1]), str(here.parent), os.environ.get("PYTHONPATH", "")]
    )
    start = [sys.executable, "-m", "dask"]
    quiet = {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "env": {**os.environ, "PYTHONPATH": path},
    }
    scheduler = [*start, "scheduler", "--host", address, "--no-dashboard", "--no-show"]
    worker = [*start, "worker", address, "--nthreads", str(threads), "--no-nanny", "--no-dashboard"]
    processes = [subprocess.Popen(command, **quiet) for command in (scheduler, *[worker] * workers)]
    try:
        yield address, processes[1:]
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def until(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_worker_that_is_killed_loses_its_run_to_another_and_no_other(tmp_path):
    log, written = tmp_path / "log", []
    with cluster() as (address, workers):

        def kill_one():
            until(lambda: log.exists() and log.read_text().count("end") >= 3)
            running = [line.split()[1] for line in log.read_text().splitlines() if line.startswith("begin")]
            victim = next(w for w in workers if str(w.pid) in running)
            written.extend(path.stem for path in (tmp_path / "runs").glob("[!.]*.json"))
            time.sleep(0.5)
            until(lambda: _busy(log, victim.pid))
            os.kill(victim.pid, signal.SIGKILL)

        pool = partial(run_on_dask, scheduler=address)
        thread = threading.Thread(target=kill_one)
        thread.start()
        results = run_suite(SUITE, tmp_path, runner=partial(slowly, log=str(log)), progress=False, pool=pool)
        thread.join()
        assert any(worker.poll() is not None for worker in workers)
        assert {result["status"] for result in results} == {"ok"} and len(results) == 15
        lines = [line.split() for line in log.read_text().splitlines()]
        begun, ended = ([id for word, _, id in lines if word == which] for which in ("begin", "end"))
        assert set(ended) == {result["id"] for result in results} and len(begun) > len(results)
        assert written and all(begun.count(id) == 1 for id in written)  # what was back is not done again
        again = run_suite(SUITE, tmp_path, runner=None, progress=False, pool=pool)
        assert again == results and len(read_results(tmp_path)) == 15
        assert not list((tmp_path / "runs").glob(".*"))


def _busy(log, pid):
    own = [line.split() for line in log.read_text().splitlines() if line.split()[1] == str(pid)]
    return bool(own) and own[-1][0] == "begin"


def test_what_cannot_work_is_one_line(tmp_path, monkeypatch, capsys):
    bench = ["bench", "-p", "breast_cancer", "-s", "uw", "--out", str(tmp_path), "--backend", "dask"]
    assert main(bench) == 2 and "needs --scheduler ADDRESS" in capsys.readouterr().err
    monkeypatch.setattr("mtlweights.bench.cluster.ANSWER", 0.5)
    assert main([*bench, "--scheduler", "tcp://127.0.0.1:9"]) == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setattr("mtlweights.bench.cluster.ANSWER", 60.0)
    with cluster(threads=2, workers=1) as (address, _):
        assert main([*bench, "--scheduler", address]) == 2
        assert "has 2 threads: start it with --nthreads 1" in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main([*bench, "--scheduler", "tcp://127.0.0.1:9"]) == 2
    assert 'pip install "mtlweights[dask]"' in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("error", [RuntimeError("lost")])
def test_an_error_of_a_worker_is_a_failed_result(tmp_path, error):
    with cluster(workers=1) as (address, _):
        pool = partial(run_on_dask, scheduler=address)
        found = run_suite(SUITE, tmp_path, runner=fails, progress=False, pool=pool)
    failed = [result for result in found if result["status"] == "failed"]
    assert {result["strategy"] for result in failed} == {"random"} and len(failed) == 3
    assert failed[0]["error"]["type"] == "RuntimeError" and failed[0]["error"]["message"] == "lost"


def fails(spec):
    if spec.strategy == "random":
        raise RuntimeError("lost")
    return knows(spec)
