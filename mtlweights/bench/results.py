"""Result files: one JSON per run, in ``FOLDER/runs/``; the standard library reads them."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from pathlib import Path
from typing import Any

from ..files import atomic, schemas
from ..files.escapes import visible
from ..files.reading import read_json
from . import predictions

SCHEMA = 2  #: 1 had no checksum, and is read as well
RUNS = "runs"
LARGEST = 64 << 20  #: bytes of a result; 50,000 epochs of two tasks have a quarter of it


def runs_folder(folder: str | Path) -> Path:
    """Make ``folder/runs`` and try a file in it, before any work that could be lost.

    Raises:
        OSError: the folder cannot be made or written.
    """
    return atomic.prepare(Path(folder, RUNS))


def write_result(result: dict[str, Any], folder: str | Path) -> Path:
    """Write one result and its checksum; a reader sees the whole file or none.

    Non-finite numbers become null. Predictions go to a file of their own before.

    Raises:
        OSError: the folder cannot be written, or is full.
    """
    path = Path(folder) / RUNS / f"{result['id']}.json"
    predictions.keep(result.get(predictions.PREDICTIONS), result["id"], folder)
    content = _finite({key: value for key, value in result.items() if key != predictions.PREDICTIONS})
    text = json.dumps({**content, "checksum": _checksum(content)}, indent=1, allow_nan=False)
    return atomic.write(path, text + "\n")


def read_result(path: str | Path) -> dict[str, Any]:
    """One result file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it cannot be read, is no result or another run's, is of another schema, or was changed.
    """
    path = Path(path)
    result = _json(path)
    if not isinstance(result, dict) or result.get("schema") not in (1, SCHEMA):
        found = repr(result.get("schema"))[:40] if isinstance(result, dict) else type(result).__name__
        raise ValueError(
            f"{_name(path)} is of schema {found}; this version reads result files of schema 1 and {SCHEMA}."
        )
    try:
        schemas.check(result, schemas.RESULT, "the result")
        _consistent(result, path.stem)
    except ValueError as error:
        raise ValueError(f"{_name(path)} is no result of a run: {error}.") from None
    found = result.pop("checksum", None)
    if found != _checksum(result) and not (found is None and result["schema"] == 1):
        raise ValueError(f"{_name(path)} was changed after it was written: its checksum is another.")
    return result


def read_results(folder: str | Path) -> list[dict[str, Any]]:
    """Every result in ``folder``, sorted by file name. A file that cannot be read is named in a warning.

    Raises:
        FileNotFoundError: there is no such folder, or no result in it.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; give the one that `mtlweights bench` wrote.")
    results = []
    for path in sorted(Path(folder, RUNS).glob("[!.]*.json")):
        try:
            results.append(read_result(path))
        except (ValueError, FileNotFoundError) as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
    if not results:
        raise FileNotFoundError(
            f"there is no readable result in {Path(folder, RUNS)}; give the folder `mtlweights bench` wrote."
        )
    return results


def _json(path: Path) -> Any:
    try:
        found = read_json(path, LARGEST)
        json.dumps(found)  # refuses what is nested too deep for the checksum
        return found
    except FileNotFoundError:
        raise
    except (ValueError, OSError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{_name(path)} cannot be read as JSON: {reason}") from None


def _consistent(result: dict[str, Any], name: str) -> None:
    """What a report relies on beyond the types."""
    if result["id"] != name:
        raise ValueError(f"it is that of run {visible(result['id'])[:100]}, by its id")
    if result["status"] not in ("ok", "failed") or (result["status"] == "failed") != bool(result["error"]):
        raise ValueError("its status should be 'ok', or 'failed' with an error")
    for task in result["tasks"].values():
        if not task["metrics"] or not set(task["metrics"]) <= task["higher_is_better"].keys():
            raise ValueError("a task of it has no metric, or one without a direction")


def _checksum(content: dict[str, Any]) -> str:
    """Of what the file says, not of its layout: an editor may indent it anew."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _name(path: Path) -> str:
    return visible(str(path))


def _finite(value: Any) -> Any:
    """The same value with NaN and infinities as None: JSON has no word for them."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
