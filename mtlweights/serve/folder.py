"""A model's folder: what is in it, written so that damage shows, read without running any code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..files.atomic import prepare, replacing
from ..files.escapes import message_of, visible
from ..files.schemas import Each, Maybe, check

FORMAT = 2  #: the newest that is read; what older versions know too is still written as 1
CONFIG, WEIGHTS, VOCABULARY, CARD, GRAPH = (
    "config.json",
    "model.safetensors",
    "vocabulary.json",
    "README.md",
    "model.onnx",
)
LARGEST = 64 << 20  #: bytes of a JSON file

_PLAIN = Maybe((str, int, float, bool))
_TASK = {"name": str, "kind": str, "metrics": [str], "labels": [str]}
_TASK |= {key: (int, float) for key in ("untrained", "target", "mean", "std", "unit")}
SHAPE: dict[str, Any] = {
    "format": int,
    "mtlweights": str,
    "runtime": str,
    "problem": Maybe(str),
    "kind": str,
    "tasks": [_TASK],
    "encoder": dict,
    "inputs": dict,
    "about": dict,
    "cascade?": {"order": [str], "detach": bool},
    "files": Each(str),
}


def write(folder: str | Path, config: dict[str, Any], files: dict[str, bytes], others: list[str]) -> Path:
    """Write the files, and last ``config.json`` with a SHA-256 of each; ``others`` are there already.

    Format 2 has a cascade.

    A model that was in the folder is replaced: while that lasts, the folder reads as damaged.

    Raises:
        OSError: the folder cannot be written.
    """
    path = prepare(folder)
    for name, content in files.items():
        with replacing(path / name) as file:
            file.write(content)
    names = [*(name for name in files if name != CARD), *others]
    whole = {
        "format": 2 if "cascade" in config else 1,
        **config,
        "files": {name: _sha256(path / name) for name in sorted(names)},
    }
    with replacing(path / CONFIG) as file:
        file.write(json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")
    for name in {WEIGHTS, VOCABULARY, GRAPH} - set(names):
        (path / name).unlink(missing_ok=True)
    return path


def read(path: Path) -> dict[str, Any]:
    """The configuration of a folder whose files are all as they were written.

    Raises:
        ValueError: it is no folder of ours, is of a newer version, or a file is damaged or missing.
    """
    config = read_json(path / CONFIG)
    version = config.get("format") if isinstance(config, dict) else None
    if not isinstance(version, int) or "mtlweights" not in config:
        raise ValueError(f"{_name(path)} is no model folder of mtlweights: save_pretrained makes one.")
    if version > FORMAT:
        raise ValueError(
            f"{_name(path)} is of format {version}, written by mtlweights {str(config['mtlweights'])[:20]}; "
            f"this version reads up to {FORMAT}: pip install -U mtlweights."
        )
    with whole(path):
        check(config, SHAPE, CONFIG)
        for name, expected in config["files"].items():
            inside = Path(name)
            if inside.is_absolute() or ".." in inside.parts:
                raise ValueError(f"{CONFIG} names the file {name!r} outside the folder")
            if not (path / name).is_file():
                raise ValueError(f"{name} is missing")
            if _sha256(path / name) != expected:
                raise ValueError(f"{name} is not as it was written, its checksum is another")
    found: dict[str, Any] = config
    return found


def read_json(path: Path) -> Any:
    """A JSON file of limited size.

    Raises:
        ValueError: it cannot be read.
    """
    with whole(path.parent), path.open("rb") as file:
        content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError(f"{path.name} is larger than {LARGEST >> 20} MiB")
        try:
            return json.loads(content.decode("utf-8"))
        except RecursionError:
            raise ValueError(f"{path.name} is nested too deep") from None
        except ValueError as error:
            raise ValueError(f"{path.name} cannot be read as JSON: {error}") from None


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """Whatever a damaged or foreign file makes the layer raise that trips over it: one line here."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, ImportError):
        raise
    except Exception as error:
        raise ValueError(
            f"Model folder {_name(path)} is damaged ({message_of(error)[:200]}): get it again."
        ) from None


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def _name(path: Path) -> str:
    return visible(str(path))
