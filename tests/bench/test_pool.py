"""The pool: runs that die, an interrupted bench, and its workers, with runs that only pretend to train."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mtlweights.bench import worker
from mtlweights.bench.pool import _workers, run_pool
from mtlweights.bench.report import text_tables
from mtlweights.bench.results import read_result, read_results, runs_folder, write_result
from mtlweights.bench.runspec import RunSpec
from mtlweights.files import atomic
from mtlweights.train import Settings

TASKS = {
    "ner": {"kind": "tokens", "metrics": ["span_f1"], "higher_is_better": {"span_f1": True}},
    "age": {"kind": "regression", "metrics": ["rmse"], "higher_is_better": {"rmse": False}},
}


def stays(spec):
    """A thread that outlives the run."""
    threading.Thread(target=time.sleep, args=(600,)).start()


def forks(spec):
    """A process that goes on as if it were the run, and one that only sleeps."""
    if os.fork() and os.fork() == 0:
        Path(spec.problem).write_text(str(os.getpid()))
        time.sleep(600)


def deaf(spec):
    """Neither ends nor listens to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


HOSTILE = {
    "leaves_at_once": lambda spec: os._exit(0),
    "leaves": lambda spec: sys.exit(),
    "stays": stays,
    "forks": forks,
    "hangs": lambda spec: time.sleep(600),
    "deaf": deaf,
    "closes": lambda spec: os.closerange(3, 256),
    "stops_the_server": lambda spec: os.kill(os.getppid(), signal.SIGSTOP),
}


def some_specs(*strategies, seeds=3):
    found = []
    for seed in range(seeds):
        settings = Settings(seed=seed)
        found += [RunSpec("toy", "equal", task, settings) for task in TASKS]
        found += [RunSpec("toy", strategy, None, settings) for strategy in strategies]
    return found


def pretend(spec):
    """A run whose scores follow from its spec alone; the strategy's name says how it ends."""
    pids = os.environ.get("POOL_PIDS")
    if pids:
        Path(pids, str(os.getpid())).touch()
        if len(finished(Path(pids).parent / "out")) >= int(os.environ["POOL_HANGS_AFTER"]):
            time.sleep(120)  # in flight for as long as a test may look
    if spec.strategy == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if spec.strategy == "exits":
        os._exit(3)
    if spec.strategy in HOSTILE:
        HOSTILE[spec.strategy](spec)
    if spec.strategy == "raises":
        raise RuntimeError("not caught by the runner")
    value = 0.5 + len(spec.strategy) / 100 + spec.seed / 50
    tasks = {name: task for name, task in TASKS.items() if spec.only in (None, name)}
    test = {name: {task["metrics"][0]: value} for name, task in tasks.items()}
    history = [{"epoch": 1, "train": {}, "weight": {}, "dev": test, "score": 0.0}]
    threads = {"threads": sys.modules["torch"].get_num_threads()}
    return spec.result(
        status="ok", tasks=tasks, test=test, dev=test, history=history, seconds=1.0, environment=threads
    )


def pool(specs, folder, jobs=2, threads=1, limit=600.0):
    runs_folder(folder)
    run_pool(specs, pretend, folder, jobs=jobs, threads=threads, progress=False, limit=limit)
    return read_results(folder)


def test_every_run_leaves_one_file_and_no_other(tmp_path):
    specs = some_specs("equal", "pcgrad")
    results = pool(specs, tmp_path)
    assert {result["id"] for result in results} == {spec.id for spec in specs}
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == sorted(f"{spec.id}.json" for spec in specs)


def test_threads_reach_the_worker(tmp_path):
    (result,) = pool(some_specs(seeds=1)[:1], tmp_path, jobs=1, threads=2)
    assert result["environment"]["threads"] == 2


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("killed", "SIGKILL, exit code -9"),
        ("exits", "exit code 3"),
        ("raises", "exit code 1"),
        ("leaves_at_once", "exit code 0 without a result"),
        ("leaves", "exit code 0 without a result"),
        ("closes", "exit code"),
    ],
)
def test_a_worker_that_dies_is_recorded_and_the_rest_go_on(tmp_path, strategy, message):
    specs = some_specs(strategy, "pcgrad", seeds=1)
    results = {(result["strategy"], result["only"]): result for result in pool(specs, tmp_path)}
    dead = results.pop((strategy, None))
    assert dead["status"] == "failed" and dead["error"]["type"] == "WorkerDied"
    assert message in dead["error"]["message"]
    assert dead["settings"] == results["pcgrad", None]["settings"]
    assert len(results) == 3 and all(result["status"] == "ok" for result in results.values())


@pytest.fixture
def short(monkeypatch):
    """Patience of a moment."""
    monkeypatch.setattr(worker, "GRACE", 0.3)


@pytest.mark.parametrize("strategy", ["hangs", "deaf"])
def test_a_run_without_end_is_ended_at_its_limit(tmp_path, short, strategy):
    dead, *others = reversed(pool(some_specs("pcgrad", strategy, seeds=1), tmp_path, jobs=1, limit=2.0))
    (dead,) = [result for result in [dead, *others] if result["strategy"] == strategy]
    assert (dead["status"], dead["error"]["type"]) == ("failed", "TimeLimit")
    assert "within 0.0333333 minutes" in dead["error"]["message"]
    assert len(others) == 3 and sum(result["status"] == "ok" for result in read_results(tmp_path)) == 3


def test_a_thread_that_stays_does_not_hold_up_the_bench(tmp_path, short):
    assert [r["status"] for r in pool(some_specs("stays", "pcgrad", seeds=1), tmp_path, jobs=1)] == ["ok"] * 4


def test_a_server_of_forks_that_is_stopped_goes_on(tmp_path, short):
    specs = some_specs("stops_the_server", "pcgrad", seeds=1)
    assert [result["status"] for result in pool(specs, tmp_path, jobs=1)] == ["ok"] * 4


def test_a_second_ctrl_c_does_not_keep_the_workers_from_being_ended(monkeypatch):
    ended = []

    def interrupted(workers):
        signal.raise_signal(signal.SIGINT)
        ended.append(workers)

    monkeypatch.setattr("mtlweights.bench.pool.end_all", interrupted)
    with pytest.raises(KeyboardInterrupt, match="the first"), _workers():
        raise KeyboardInterrupt("the first")
    assert ended == [[]] and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_process_that_a_run_leaves_is_ended_with_it(tmp_path, short):
    spec = replace(some_specs("forks", seeds=1)[-1], problem=str(tmp_path / "left"))
    (result,) = pool([spec], tmp_path)
    assert result["status"] == "ok"  # the run's own: the fork's result is never written
    left = tmp_path / "left"
    until(lambda: not left.exists() or not alive_pid(left.read_text()), "the process that was left behind")


@pytest.mark.parametrize(("fails", "statuses"), [(1, ["ok"] * 2), (9, ["failed"] * 2)])
def test_a_server_of_forks_that_dies_while_a_run_starts(tmp_path, monkeypatch, fails, statuses):
    process, starts = multiprocessing.get_context("forkserver").Process, []
    start = process.start

    def dying(self):
        starts.append(self)
        if len(starts) <= fails:
            raise EOFError
        start(self)

    monkeypatch.setattr(process, "start", dying)
    results = pool(some_specs(seeds=1), tmp_path, jobs=1)
    assert [result["status"] for result in results] == statuses
    assert fails == 1 or "no process could be started" in results[0]["error"]["message"]


def test_what_a_killed_writer_left_is_cleared(tmp_path):
    spec = some_specs(seeds=1)[0]
    runs = runs_folder(tmp_path)
    left = runs / f".{spec.id}.json.00.tmp"
    left.write_text("{")
    claim = runs / ".another.claim"
    claim.write_text("process 1 on another machine")
    with atomic.replacing(runs / "x.json") as file:
        file.write(b"[]")
        pool([spec], tmp_path)  # and a file that is being written is let be
    assert (
        not left.exists()
        and not (runs / ".another.claim").exists()
        and (runs / "x.json").read_bytes() == b"[]"
    )


def test_a_result_from_before_does_not_stand_for_a_worker_that_died(tmp_path):
    spec = some_specs("killed", seeds=1)[-1]
    runs_folder(tmp_path)
    write_result(spec.result(status="ok"), tmp_path)
    (result,) = pool([spec], tmp_path)
    assert result["status"] == "failed"


SCRIPT = """
import sys
from pathlib import Path
import test_pool
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    specs = test_pool.some_specs("equal", "pcgrad")
    missing = [spec for spec in specs if not (folder / "runs" / f"{spec.id}.json").exists()]
    test_pool.pool(missing, folder)
"""


def start_bench(folder, pids, hangs_after):
    script = folder.parent / "bench_script.py"
    script.write_text(SCRIPT)
    pids.mkdir(exist_ok=True)
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    return subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        env={**os.environ, "PYTHONPATH": path, "POOL_PIDS": str(pids), "POOL_HANGS_AFTER": str(hangs_after)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(condition, what, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def alive_pid(pid):
    """Whether it still runs; a zombie has ended and only waits to be noticed."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def alive(pids):
    """Workers that still run."""
    return [file.name for file in pids.iterdir() if alive_pid(file.name)]


def finished(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "runs").glob("*.json")}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
@pytest.mark.parametrize("after", [0, 5])
def test_sigkill_loses_only_the_runs_in_flight(tmp_path, after):
    """Killed with no chance to clean up: workers end without writing, and the next call fills the gap."""
    folder, pids = tmp_path / "out", tmp_path / "pids"
    runs_folder(folder)
    bench = start_bench(folder, pids, after)
    until(lambda: len(finished(folder)) >= after and alive(pids), f"{after} results and a run in flight")
    bench.kill()
    bench.wait()  # and not communicate: a worker that lived on would keep stderr open, and this waiting
    until(lambda: not alive(pids), "the workers to end", seconds=30)
    bench.stderr.close()
    before = finished(folder)
    assert after <= len(before) < 12
    again = start_bench(folder, pids, 99)
    again.communicate(timeout=60)
    assert again.returncode == 0
    assert before.items() <= finished(folder).items()  # not one was computed again
    whole = pool(some_specs("equal", "pcgrad"), tmp_path / "whole")
    assert len(whole) == 12
    assert text_tables(read_results(folder)) == text_tables(whole)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_two_benches_share_the_runs_and_a_dead_one_loses_its_claims(tmp_path):
    folder, pids = tmp_path / "out", tmp_path / "pids"
    runs_folder(folder)
    first = start_bench(folder, pids, 2)  # hangs with two results and two runs in flight
    until(lambda: len(finished(folder)) >= 2 and len(alive(pids)) == 2, "two runs in flight")
    second = start_bench(folder, pids, 99)
    until(lambda: len(finished(folder)) == 10, "the second to do all but what the first is at")
    assert second.poll() is None
    first.kill()
    first.communicate()
    assert second.wait(60) == 0 and second.stderr.close() is None
    assert len(finished(folder)) == 12 and len(list(pids.iterdir())) == 14  # the two in flight, once more
    assert all(path.suffix == ".json" for path in (folder / "runs").iterdir())


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_ctrl_c_ends_the_workers_quietly(tmp_path):
    folder, pids = tmp_path / "out", tmp_path / "pids"
    runs_folder(folder)
    bench = start_bench(folder, pids, 1)
    until(lambda: finished(folder) and len(alive(pids)) == 2, "a result and two runs in flight")
    os.killpg(bench.pid, signal.SIGINT)
    _, errors = bench.communicate(timeout=60)
    assert not alive(pids)
    assert bench.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1  # the caller's own; none from a worker
    assert all(read_result(path)["status"] == "ok" for path in (folder / "runs").glob("*.json"))
