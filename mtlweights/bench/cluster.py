"""Runs on the workers of a Dask cluster: processes on this machine or on many."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.atomic import Claim
from .claims import Shared
from .results import write_result
from .run import describe
from .runspec import RunSpec
from .worker import Runner

if TYPE_CHECKING:
    from distributed import Client

ANSWER = 60.0  #: seconds for the scheduler to answer, and for a first worker
_PAUSE = 1.0  #: seconds between two looks at what another bench is at


def run_on_dask(
    specs: Sequence[RunSpec], runner: Runner, folder: Path, *, scheduler: str, progress: bool, **_: Any
) -> None:
    """Call ``runner`` on every spec on a worker of the cluster, and write what it returns here.

    A run whose worker is lost is given to another one; one that loses several is a failed result. What comes
    back is written at once, so that nothing done is lost or done again. Runs that another bench on this
    folder is at are left to it.

    Args:
        scheduler: its address, ``tcp://HOST:8786``. Its workers have one thread each: a run seeds the
            generators of its process.

    Raises:
        ImportError: distributed is not installed.
        OSError: no scheduler answers there, or it has no worker.
        ValueError: a worker has several threads.
    """
    from tqdm import tqdm

    with (
        _client(scheduler) as client,
        tqdm(total=len(specs), desc="bench", unit="run", disable=None if progress else True) as bar,
    ):
        shared, claims = Shared(specs, folder), dict[Any, tuple[RunSpec, Claim]]()
        try:
            while shared.left or claims:
                bar.update(_submit(client, runner, shared, claims))
                bar.update(_gather(claims, folder))
        finally:
            client.cancel(list(claims))
            for _spec, claim in claims.values():
                claim.drop()


@contextmanager
def _client(scheduler: str) -> Iterator[Client]:
    try:
        from distributed import Client
    except ImportError:
        raise ImportError('--backend dask needs dask.distributed: pip install "mtlweights[dask]"') from None
    try:
        client = Client(scheduler, timeout=ANSWER, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OSError(
            f"no Dask scheduler answers at {scheduler} ({error}): start one with `dask scheduler`"
        ) from None
    with client, client.as_current():
        try:
            client.wait_for_workers(1, timeout=ANSWER)
        except TimeoutError:
            raise OSError(
                f"the Dask scheduler at {scheduler} has no worker: start some with `dask worker`"
            ) from None
        threads = {worker["nthreads"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()}
        if threads != {1}:
            raise ValueError(
                f"a Dask worker at {scheduler} has {max(threads)} threads: start it with --nthreads 1"
            )
        yield client


def _submit(client: Client, runner: Runner, shared: Shared, claims: dict[Any, tuple[RunSpec, Claim]]) -> int:
    """Send every run that can be claimed; how many another bench has done."""
    done = 0
    while taken := shared.take():
        spec, claim = taken
        if claim is None:
            done += 1
        else:
            future = client.submit(runner, spec, key=f"{spec.id}-{time.time_ns()}", pure=False)
            claims[future] = (spec, claim)
    return done


def _gather(claims: dict[Any, tuple[RunSpec, Claim]], folder: Path) -> int:
    """Write what has come back, or wait a moment for it; how many came."""
    from distributed import wait

    if not claims:
        time.sleep(_PAUSE)
        return 0
    try:
        ended = wait(list(claims), timeout=_PAUSE, return_when="FIRST_COMPLETED").done
    except TimeoutError:
        return 0
    for future in ended:
        spec, claim = claims.pop(future)
        try:
            result = future.result()
        except Exception as error:  # a worker lost again and again, or one without this package
            result = spec.result(status="failed", error=describe(error))
        future.release()  # or the scheduler has it done again should its worker be lost
        write_result(result, folder)
        claim.drop()
    return len(ended)
