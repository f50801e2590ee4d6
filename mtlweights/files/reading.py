"""JSON files, of limited size where somebody else may have left them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json(path: Path, largest: int | None = None) -> Any:
    """What is in a JSON file of at most ``largest`` bytes.

    Raises:
        ValueError: it is larger, or no JSON; RecursionError: it is nested too deep.
        OSError: it cannot be read; FileNotFoundError: there is none.
    """
    with path.open("rb") as file:
        content = file.read() if largest is None else file.read(largest + 1)
    if largest is not None and len(content) > largest:
        raise ValueError(f"it is larger than {largest >> 20} MiB")
    return json.loads(content.decode("utf-8"))
