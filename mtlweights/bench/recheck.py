"""Results of other code of this library: do they still come out, bit for bit?"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .results import RUNS, read_result, runs_folder, write_result
from .runspec import RunSpec

FOLDER = "recheck"  #: of what is computed again, until it is compared
_SAME = ("status", "test", "dev", "best_epoch", "steps")
_ROW = ("train", "weight", "dev", "score", "lr")


def recheck(
    old: Sequence[RunSpec], folder: Path, number: int, pool: Callable[..., None]
) -> tuple[list[RunSpec], list[str]]:
    """Compute ``number`` of the results of other code again, drawn at random, by ``pool(runs, folder=...)``.

    If they come out the same, all of them are stamped as of this code. Else none is: their code decided them.

    Returns:
        The runs to compute anew: none, or all of ``old``; and lines that say what was found.
    """
    drawn = random.SystemRandom().sample(list(old), min(number, len(old)))
    place = runs_folder(folder / FOLDER).parent
    try:
        pool(drawn, folder=place)
        other = [spec.id for spec in drawn if not _same(_read(spec, folder), _read(spec, place))]
    finally:
        shutil.rmtree(place, ignore_errors=True)
    if other:
        text = f"{len(other)} of {len(drawn)} come out differently under this code, {other[0]} among them"
        return list(old), [f"{text}: all {len(old)} results of other code are computed again"]
    for spec in old:
        write_result({**_read(spec, folder), "library": dict(spec.library or {})}, folder)
    return [], [f"{len(drawn)} came out the same: all {len(old)} results of other code count as of this one"]


def _read(spec: RunSpec, folder: Path) -> dict[str, Any]:
    return read_result(folder / RUNS / f"{spec.id}.json")


def _same(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    def rows(result: Mapping[str, Any]) -> list[Any]:
        return [[row.get(key) for key in _ROW] for row in result["history"]]

    return all(before[key] == now[key] for key in _SAME) and rows(before) == rows(now)
