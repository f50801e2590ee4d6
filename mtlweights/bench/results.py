"""Result files: one JSON per run, in ``FOLDER/runs/``; the standard library reads them."""

from __future__ import annotations

import json
import math
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

SCHEMA = 1
RUNS = "runs"
_WHAT = {"schema", "id", "problem", "strategy", "only", "seed", "settings", "environment"}
_KEYS = _WHAT | {"status", "error", "tasks", "test", "dev", "history", "best_epoch", "steps", "seconds"}


def runs_folder(folder: str | Path) -> Path:
    """Make ``folder/runs`` and try a file in it, before any work that could be lost.

    Raises:
        OSError: the folder cannot be made or written.
    """
    path = Path(folder) / RUNS
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"cannot write results to {folder}: {reason}; choose another folder.") from None
    return path


def write_result(result: dict[str, Any], folder: str | Path) -> Path:
    """Write one result; a reader sees the whole file or none. Non-finite numbers become null."""
    path = Path(folder) / RUNS / f"{result['id']}.json"
    text = json.dumps(_finite(result), indent=1, allow_nan=False)
    # named after the process: a second bench over the same folder does not write into the same file
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_result(path: str | Path) -> dict[str, Any]:
    """One result file.

    Raises:
        ValueError: the file is not JSON, is not a result, or is of another schema.
    """
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(result, dict) or not result.keys() >= _KEYS:
        lacks = ", ".join(sorted(_KEYS - result.keys())) if isinstance(result, dict) else "everything"
        raise ValueError(f"{path} is no result of a run: it lacks {lacks}.")
    if result["schema"] != SCHEMA:
        raise ValueError(f"{path} is of schema {result['schema']!r}; this version reads schema {SCHEMA}.")
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
        except ValueError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
    if not results:
        raise FileNotFoundError(
            f"there is no readable result in {Path(folder, RUNS)}; give the folder `mtlweights bench` wrote."
        )
    return results


def _finite(value: Any) -> Any:
    """The same value with NaN and infinities as None: JSON has no word for them."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
