"""One run in a process of its own, and what is made of however that process ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from .results import RUNS, read_result, write_result
from .runspec import RunSpec

Runner = Callable[[RunSpec], dict[str, Any]]

GRACE = 5.0  #: seconds to end in, once the result is written or the process was asked to
PRELOADED = "mtlweights.bench.run"  #: imported once for all runs, and of use for any runner
FIRST_STEP = ("accelerate", "torch._dynamo")  #: what training imports at its first step, which takes seconds
_SAFE = "PYTHONSAFEPATH"


class Worker:
    """A process that calls ``runner`` on a spec and writes what it returns.

    Args:
        limit: seconds; one that takes longer is ended, and its run failed.
    """

    def __init__(self, spec: RunSpec, runner: Runner, folder: Path, threads: int, limit: float) -> None:
        self.spec, self.folder, self.limit = spec, folder, limit
        self.written = False
        self.late = False
        self.pipe: Connection | None
        self.process, self.pipe = _start(spec, runner, folder, threads)
        self.deadline = time.monotonic() + limit

    def handles(self) -> list[Any]:
        """What becomes ready when something has happened."""
        return [self.process.sentinel, *([self.pipe] if self.pipe else [])]

    def ended(self) -> bool:
        """Whether the run is over; a process that stays too long, or leaves others behind, is ended here."""
        self._listen()
        _wake_server()
        if self.process.is_alive():
            if time.monotonic() < self.deadline:
                return False
            if not self.written:
                self.late = True
                self.process.terminate()
                self.process.join(GRACE)
        self.kill()
        self._listen()
        return True

    def kill(self) -> None:
        """End the process and every other one it started, and wait a moment for it."""
        if hasattr(os, "killpg"):
            with suppress(OSError):
                os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.kill()
        _wake_server()
        self.process.join(GRACE)

    def status(self) -> str:
        """Status of the ended run; one that left no result gets a failed one, with the cause, here."""
        try:
            if self.written:
                return str(read_result(self.folder / RUNS / f"{self.spec.id}.json")["status"])
            cause = self._cause()
        except (ValueError, FileNotFoundError) as wrong:
            cause = f"the process said that it had written a result, but {wrong}"
        error = {"type": "TimeLimit" if self.late else "WorkerDied", "message": cause, "traceback": ""}
        write_result(self.spec.result(status="failed", error=error), self.folder)
        return "failed"

    def _listen(self) -> None:
        """Take the word that the result is written; the process has little time left then."""
        try:
            if self.pipe and self.pipe.poll():
                self.written = self.pipe.recv_bytes(1) == b"w"
                self.deadline = min(self.deadline, time.monotonic() + GRACE)
        except (EOFError, OSError):
            self.pipe = None

    def _cause(self) -> str:
        code = self.process.exitcode
        if self.late or code is None:
            return f"the run did not end within {self.limit / 60:g} minutes and was ended (--limit-minutes)"
        if code >= 0:
            return f"the process ended with exit code {code} without a result; see what it wrote to stderr"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = " (often: out of memory; try fewer jobs)" if name == "SIGKILL" else ""
        return f"the process was ended by {name}, exit code {code}{hint}"


def end_all(workers: list[Worker]) -> None:
    """End processes that still run, in order where they let us, else by force."""
    for worker in workers:
        worker.process.terminate()
    end = time.monotonic() + GRACE
    for worker in workers:
        worker.process.join(max(0.0, end - time.monotonic()))
        worker.kill()


def _start(spec: RunSpec, runner: Runner, folder: Path, threads: int) -> tuple[BaseProcess, Connection]:
    # a fork of this process would inherit torch's thread pools in an unusable state
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(method)
    if method == "forkserver":
        trains = runner.__module__ == PRELOADED
        context.set_forkserver_preload([PRELOADED, *(FIRST_STEP if trains else ())])
    for last in (False, True):
        mine, theirs = context.Pipe(duplex=False)
        told = (spec, runner, folder, threads, theirs, os.environ.get(_SAFE))
        process = context.Process(target=_work, args=told, name=spec.id)
        _wake_server()
        try:
            with _safe_path():
                process.start()
            theirs.close()
            return process, mine
        except (EOFError, OSError):  # the server of forks was killed: the second try starts another
            if last:
                raise
    raise AssertionError("not reached")


def _wake_server() -> None:
    """Let the server of forks go on if it was stopped from outside: it alone tells that a process ended."""
    server = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    if pid := getattr(server, "_forkserver_pid", None):
        with suppress(OSError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def _safe_path() -> Iterator[None]:
    """Python processes that start meanwhile do not import from the working folder (Python 3.11 and later).

    Nor does Ctrl-C reach them: one that is just importing would show where it was.
    """
    before = os.environ.get(_SAFE)
    os.environ[_SAFE] = "1"
    _interrupts("SIG_BLOCK")
    try:
        yield
    finally:
        _interrupts("SIG_UNBLOCK")
        _restore(before)


def _interrupts(how: str) -> None:
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(getattr(signal, how), [signal.SIGINT])


def _restore(safe: str | None) -> None:
    os.environ.pop(_SAFE, None)
    if safe is not None:
        os.environ[_SAFE] = safe


def _work(
    spec: RunSpec, runner: Runner, folder: Path, threads: int, pipe: Connection, safe: str | None
) -> None:
    import torch

    _restore(safe)
    # Ctrl-C reaches the whole group, but it is the parent that ends its workers, and in order: killed
    # outright, they would leave semaphores behind
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _interrupts("SIG_UNBLOCK")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if hasattr(os, "setsid"):
        os.setsid()  # so that whatever the run starts can be ended with it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    pid = os.getpid()
    result = runner(spec)
    if os.getpid() != pid:
        os._exit(1)  # a fork made within the run: the result is the other's to write
    write_result(result, folder)
    pipe.send_bytes(b"w")


def _end_with_parent() -> None:
    """Without this a worker whose parent was killed would live on and write its result later."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        if hasattr(os, "killpg"):
            os.killpg(0, signal.SIGKILL)
        os._exit(1)
