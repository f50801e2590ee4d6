"""Runs in parallel: one process per run, so that a run that is killed takes nothing else with it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from ..files.atomic import Claim
from .claims import Shared, standing
from .results import write_result
from .runspec import RunSpec
from .worker import Runner, Worker, end_all

LIMIT = 24 * 3600.0  #: seconds that a run may take if nothing else is said
_PAUSE = 1.0  #: seconds between two looks at what other benches and the clock have done


def run_pool(
    specs: Sequence[RunSpec],
    runner: Runner,
    folder: Path,
    *,
    jobs: int,
    threads: int,
    progress: bool,
    limit: float = LIMIT,
) -> None:
    """Call ``runner`` on every spec in a process of its own, ``jobs`` at a time, and write what it returns.

    A process that ends without a result (killed, out of memory, out of time) leaves a failed one with the
    cause; the rest go on. When this process ends, in whatever way, its workers end with it. Runs that another
    call on the same folder is at are left to it.
    """
    from tqdm import tqdm

    quiet = None if progress else True  # None: where standard error is no terminal
    shared, counts = Shared(specs, folder), {"ok": 0, "failed": 0}
    with (
        _workers() as active,
        tqdm(total=len(specs), desc="bench", unit="run", disable=quiet, dynamic_ncols=True) as bar,
    ):
        while shared.left or active:
            found = _begin(shared, active, jobs, lambda spec: Worker(spec, runner, folder, threads, limit))
            wait([handle for worker in active for handle in worker.handles()], _PAUSE if not found else 0)
            for worker in [worker for worker in active if worker.ended()]:
                found.append(worker.status())
                active.pop(worker).drop()
            for status in found:
                counts["failed" if status == "failed" else "ok"] += 1
                bar.set_postfix(done=counts["ok"], failed=counts["failed"], refresh=False)
                bar.update()


def _begin(shared: Shared, active: dict[Worker, Claim], jobs: int, start: Any) -> list[str]:
    """Start what may run now; the statuses of runs that need not, or cannot."""
    found = []
    while len(active) < jobs and (taken := shared.take()):
        spec, claim = taken
        if claim is None:
            found.append(standing(spec, shared.folder)[0])
            continue
        try:
            active[start(spec)] = claim
        except (EOFError, OSError) as error:
            cause = {"type": type(error).__name__, "message": f"no process could be started: {error}"}
            write_result(spec.result(status="failed", error={**cause, "traceback": ""}), shared.folder)
            claim.drop()
            found.append("failed")
    return found


@contextmanager
def _workers() -> Iterator[dict[Worker, Claim]]:
    """The running processes and their claims; whatever ends the block (Ctrl-C, an error) ends them too."""
    active: dict[Worker, Claim] = {}
    try:
        yield active
    finally:
        with _uninterrupted():
            end_all(list(active))
            for claim in active.values():
                claim.drop()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A second Ctrl-C has nothing to add: the block, of seconds, goes to its end."""
    ours = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if ours else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
