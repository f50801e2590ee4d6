"""How far the verdicts can be trusted: the figures of ``benchmarks/proof`` that lie beside the results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...files import schemas
from ...files.reading import read_json

FILE = "proof.json"
LARGEST = 1 << 20  #: bytes
_TABLE = {"caption": str, "heads": [str], "rows": [[str]], "good": bool}


def proof_of(folder: Path) -> Mapping[str, Any] | None:
    """The tables of ``folder/proof.json``; None without one.

    Raises:
        ValueError: the file holds something else.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        found = read_json(path, LARGEST)
        schemas.check(found, {"tables": [_TABLE]}, "the file")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} holds no figures of benchmarks/proof: {error}") from None
    return dict(found)
