"""Checkpoints of a run: one file, replaced in one move, so that a kill at any moment leaves a whole one."""

from __future__ import annotations

import hashlib
import os
import random
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch

from ..files import atomic, schemas
from ..files.escapes import visible
from ..strategies.loading import code_digest
from .settings import Settings

if TYPE_CHECKING:
    from ..balancer.balancer import Balancer
    from ..problems import Problem

FILE = "checkpoint.pt"
_FORMAT = 1
_SEAL = b"mtlweights sha256 "  #: before the digest at a checkpoint's end, which zip readers do not mind


@contextmanager
def held(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Make `folder` if need be, try a file in it, keep other processes out; the path of its checkpoint file.

    Raises:
        OSError: the folder cannot be made or written to.
        ValueError: another process trains in it.
    """
    path = atomic.prepare(folder) / FILE
    claim = atomic.Claim(path.with_name(f".{FILE}.claim"))
    if not claim.take():
        raise ValueError(
            f"{folder} is in use: {claim.owner()} trains in it; wait for it, or use another folder"
        )
    try:
        yield path
    finally:
        claim.drop()


class _Noting:
    """A file that keeps the error of a write (torch raises one of its own over it) and a digest of it all."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None
        self.digest = hashlib.sha256()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, content: Any) -> int:
        """Write, and remember what went wrong."""
        self.digest.update(content)
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values) beside `path`, flush it to the disk, move it over `path`.

    Raises:
        OSError: it cannot be written; `path` is as before.
    """
    with atomic.replacing(path) as file:
        noting = _Noting(file)
        try:
            torch.save({"format": _FORMAT, **state}, noting)
        except RuntimeError:
            if noting.error is None:
                raise
            raise noting.error from None
        file.write(_SEAL + noting.digest.hexdigest().encode())


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote, on the CPU. No code in the file is run.

    Raises:
        ValueError: the file is damaged, is no checkpoint, or was written by another version.
        OSError, MemoryError: it cannot be read here and now, whatever it holds.
    """
    try:
        _check_seal(path)
        with zipfile.ZipFile(path) as archive:  # torch reads on over a wrong checksum
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise zipfile.BadZipFile("compressed, as no checkpoint is")
            if part := archive.testzip():
                raise zipfile.BadZipFile(f"wrong checksum of {part}")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged archive raises whatever the layer that trips over it raises
        reason = visible(" ".join(str(error).strip().partition("\n")[0].split()))[:120]
        raise ValueError(f"{path} is damaged ({reason}): delete it to train from the start") from None
    try:
        schemas.check(state, schemas.CHECKPOINT, "the file")
        if state["format"] != _FORMAT:
            raise ValueError(f"its format is {state['format']}")
    except ValueError as error:
        reason = visible(str(error))
        raise ValueError(f"{path} is no checkpoint of this version ({reason}): use another folder") from None
    return state  # type: ignore[no-any-return]


def _check_seal(path: Path) -> None:
    """Whether the file is as it was written; its format's own checksums leave out its table of contents."""
    digest, size = hashlib.sha256(), path.stat().st_size - len(_SEAL) - 64
    with path.open("rb") as file:
        for start in range(0, max(size, 0), 1 << 20):
            digest.update(file.read(min(1 << 20, size - start)))
        seal = file.read(len(_SEAL) + 64)
    if seal.startswith(_SEAL) and seal != _SEAL + digest.hexdigest().encode():
        raise zipfile.BadZipFile("its checksum is another")


def check_same(path: Path, saved: dict[str, Any], asked: dict[str, Any]) -> None:
    """Refuse to continue a run under other settings.

    Raises:
        ValueError: naming every field that differs, with both values.
    """
    names = [name for name in {**saved, **asked} if saved.get(name) != asked.get(name)]
    if names:
        both = [f"{name}: {_short(saved.get(name))} there, {_short(asked.get(name))} here" for name in names]
        other = "data" if names == ["data"] else "settings"
        where = f"{path} is of another run ({visible(', '.join(both))})"
        raise ValueError(f"{where}: use its {other} or another folder")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def identity(balancer: Balancer, problem: Problem, settings: Settings) -> dict[str, Any]:
    """What two runs must share for one to continue the other, as flat plain values.

    The balancer has to be fresh: its strategy's buffers hold hyperparameters then (a fixed weight, say).
    """
    strategy = balancer.strategy
    return {
        **settings.said(),
        "problem": problem.name,
        "strategy": type(strategy).__name__,
        "code": code_digest(type(strategy)),
        "balancer.tasks": balancer.tasks,
        # an option that is left to the balancer, None or "auto", says nothing of the run
        **{f"balancer.{name}": value for name, value in _plain(balancer.options).items() if value != "auto"},
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
