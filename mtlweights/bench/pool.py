"""Runs in parallel: one process per run, so that a run that is killed takes nothing else with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

from .results import read_result, write_result
from .runspec import RunSpec

Runner = Callable[[RunSpec], dict[str, Any]]


def run_pool(
    specs: Sequence[RunSpec], runner: Runner, folder: Path, *, jobs: int, threads: int, progress: bool
) -> None:
    """Call ``runner`` on every spec in a process of its own, ``jobs`` at a time, and write what it returns.

    A process that dies (killed, out of memory) leaves a failed result with its exit code; the rest go on.
    When this process ends, in whatever way, its workers end with it.
    """
    from tqdm import tqdm

    waiting, counts = iter(specs), {"ok": 0, "failed": 0}
    with (
        _workers() as active,
        tqdm(total=len(specs), desc="bench", unit="run", disable=not progress, dynamic_ncols=True) as bar,
    ):
        while True:
            for spec in _take(waiting, jobs - len(active)):
                process = _start(spec, runner, folder, threads)
                active[process.sentinel] = (process, spec)
            if not active:
                return
            for sentinel in wait(list(active)):
                process, spec = active.pop(cast(int, sentinel))
                process.join()
                counts[_status(process, spec, folder)] += 1
                bar.set_postfix(done=counts["ok"], failed=counts["failed"], refresh=False)
                bar.update()


def _take(specs: Iterator[RunSpec], n: int) -> list[RunSpec]:
    return [spec for _, spec in zip(range(n), specs, strict=False)]


@contextmanager
def _workers() -> Iterator[dict[int, tuple[BaseProcess, RunSpec]]]:
    """The running processes; whatever ends the block (Ctrl-C, an error) ends them too."""
    active: dict[int, tuple[BaseProcess, RunSpec]] = {}
    try:
        yield active
    finally:
        for process, _ in active.values():
            process.terminate()
        for process, _ in active.values():
            process.join(5)
            process.kill()
            process.join()


def _start(spec: RunSpec, runner: Runner, folder: Path, threads: int) -> BaseProcess:
    # a fork of this process would inherit torch's thread pools in an unusable state
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["mtlweights.bench.run"])
    process = context.Process(target=_work, args=(spec, runner, folder, threads), name=spec.id)  # type: ignore[attr-defined]
    process.start()
    return process  # type: ignore[no-any-return]


def _work(spec: RunSpec, runner: Runner, folder: Path, threads: int) -> None:
    import torch

    # Ctrl-C reaches the whole group, but it is the parent that ends its workers, and in order: killed
    # outright, they would leave semaphores behind
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    write_result(runner(spec), folder)


def _end_with_parent() -> None:
    """Without this a worker whose parent was killed would live on and write its result later."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _status(process: BaseProcess, spec: RunSpec, folder: Path) -> str:
    """Status of a finished run; one that died without writing gets its result here."""
    code = process.exitcode or 0
    if code == 0:
        return str(read_result(folder / "runs" / f"{spec.id}.json")["status"])
    error = {"type": "WorkerDied", "message": _cause(code), "traceback": ""}
    write_result(spec.result(status="failed", error=error), folder)
    return "failed"


def _cause(code: int) -> str:
    if code > 0:
        return f"the process ended with exit code {code} without a result; see what it wrote to stderr"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = " (often: out of memory; try fewer jobs)" if name == "SIGKILL" else ""
    return f"the process was ended by {name}, exit code {code}{hint}"
