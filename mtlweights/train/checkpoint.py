"""Checkpoints of a run: one file, replaced in one move, so that a kill at any moment leaves a whole one."""

from __future__ import annotations

import os
import random
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .settings import Settings

if TYPE_CHECKING:
    from ..balancer import Balancer
    from ..data import Problem

FILE = "checkpoint.pt"
_FORMAT = 1


def prepare(folder: str | os.PathLike[str]) -> Path:
    """Make `folder` if need be and write a byte to it; return the path of its checkpoint file.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    folder = Path(folder)
    probe = folder / f"{FILE}.{os.getpid()}.probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise OSError(f"cannot write to the folder {folder} ({error.strerror}): choose another one") from None
    return folder / FILE


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values) beside `path`, flush it to the disk, move it over `path`."""
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            torch.save({"format": _FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote, on the CPU. No code in the file is run.

    Raises:
        ValueError: the file is damaged, or was written by another version.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch reads on over a wrong checksum
            if part := archive.testzip():
                raise zipfile.BadZipFile(f"wrong checksum of {part}")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive raises whatever the layer that trips over it raises
        reason = str(error).strip().partition("\n")[0][:120]
        raise ValueError(f"{path} is damaged ({reason}): delete it to train from the start") from None
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise ValueError(f"{path} is no checkpoint of this version: delete it to train from the start")
    return state


def check_same(path: Path, saved: dict[str, Any], asked: dict[str, Any]) -> None:
    """Refuse to continue a run under other settings.

    Raises:
        ValueError: naming every field that differs, with both values.
    """
    names = [name for name in {**saved, **asked} if saved.get(name) != asked.get(name)]
    if names:
        both = ", ".join(f"{name}: {saved.get(name)!r} there, {asked.get(name)!r} here" for name in names)
        raise ValueError(f"{path} is of another run ({both}): use its settings or another folder")


def identity(balancer: Balancer, problem: Problem, settings: Settings) -> dict[str, Any]:
    """What two runs must share for one to continue the other, as flat plain values.

    The balancer has to be fresh: its strategy's buffers hold hyperparameters then (a fixed weight, say).
    """
    strategy = balancer.strategy
    return {
        **asdict(settings),
        "problem": problem.name,
        "strategy": type(strategy).__name__,
        **{f"balancer.{name}": value for name, value in _plain(balancer).items()},
        **{f"strategy.{name}": value for name, value in _plain(strategy).items()},
        **{f"strategy.{name}": repr(value.tolist()) for name, value in strategy.state_dict().items()},
    }


def _plain(thing: object) -> dict[str, Any]:
    """The public attributes that are plain values: what a strategy or balancer was made with."""
    kinds = (bool, int, float, str, list, tuple)
    return {k: v for k, v in vars(thing).items() if k[0] != "_" and k != "training" and isinstance(v, kinds)}


def rng_state() -> dict[str, Any]:
    """The state of the global generators of torch (CPU and current GPU), NumPy and Python."""
    legacy: Any = np.random.get_state()
    numpy = (legacy[0], legacy[1].tolist(), *legacy[2:])
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "numpy": numpy, "python": random.getstate()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what `rng_state` returned; a GPU's state is left out on a machine without one."""
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
