"""The command line in each of several processes: the first one prints, and an error is said once."""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from ..train.processes import launched


def check_command(name: str) -> None:
    """Raise ValueError for a command that is not for several processes."""
    if launched() > 1 and name != "train":
        raise ValueError(
            f"mtlweights {name} runs in one process, and a launcher has started {launched()}: "
            "start it without torchrun or accelerate launch"
        )


def silence() -> None:
    """In all but the first process: print nothing but errors."""
    if launched() > 1 and os.environ.get("RANK", "0") != "0":
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the process ends)
        warnings.simplefilter("ignore")


def say(line: str) -> None:
    """Print a line to standard error, unless another process of this launch has."""
    if launched() == 1 or _unsaid(line):
        print(line, file=sys.stderr, flush=True)


def _unsaid(line: str) -> bool:
    """Asked of the store that the launcher keeps; without one every process has its say."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    key = f"mtlweights/said/{attempt}/{hashlib.sha256(line.encode()).hexdigest()}"
    host, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "0")
    try:
        store = TCPStore(host, int(port), is_master=False, timeout=timedelta(seconds=5))
        return store.add(key, 1) == 1
    except (RuntimeError, ValueError):
        return True
