"""Which runs are left to do: by what is in the folder, and by what other benches on it are at."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files.atomic import Claim
from .results import RUNS, read_result
from .runspec import RunSpec

KEPT = ("ok", "old", "diverged")  #: what is not computed again
DONE = (*KEPT, "failed")


def standing(spec: RunSpec, folder: Path) -> tuple[str, str]:
    """How a run stands, and why it is no good if it is none of `KEPT`.

    - ``ok``; ``diverged``: its loss became NaN or infinite, which it would again
    - ``old``: of other code of this library
    - ``failed``: for any other reason
    - ``missing``; ``unreadable``
    - ``other``: of other data, or of a strategy whose file has changed since
    - ``unscored``: it was a trial, which never sees the test split, and this one is to be scored on it
    """
    try:
        result = read_result(folder / RUNS / f"{spec.id}.json")
    except FileNotFoundError:
        return "missing", ""
    except ValueError as error:
        return "unreadable", str(error)
    for what, now in (("data", spec.data), ("code", spec.code)):
        before = result.get(what)  # a result from before they were kept has none
        if now is not None and before not in (None, now):
            return "other", f"{spec.id} is of other {what} ({before[:8]}, now {now[:8]})"
    if spec.scored and result["status"] == "ok" and not result["test"]:
        return "unscored", f"{spec.id} was a trial of a study, not scored on the test split"
    if diverged(result):
        return "diverged", ""
    old = spec.library is not None and result.get("library") != spec.library
    return ("old" if old and result["status"] == "ok" else str(result["status"])), ""


def diverged(result: Mapping[str, Any]) -> bool:
    """The run came to an end by a loss that is not finite: an outcome of the method, unlike a killed one."""
    return bool(result["status"] != "ok" and result["error"]["type"] == "FloatingPointError")


class Shared:
    """The runs to do. Each is claimed before it is begun; another bench's claim ends with its process."""

    def __init__(self, specs: Sequence[RunSpec], folder: Path) -> None:
        self.folder = folder
        self.left = deque((spec, self._stamp(spec)) for spec in specs)

    def take(self) -> tuple[RunSpec, Claim | None] | None:
        """A run with a claim on it; without one if another bench has done it; None if others are at them all.

        Raises:
            OSError: the folder cannot be written.
        """
        for _ in range(len(self.left)):
            spec, before = self.left.popleft()
            claim = Claim(self.folder / RUNS / f".{spec.id}.claim")
            if not claim.take():
                self.left.append((spec, before))
                continue
            if self._stamp(spec) != before and standing(spec, self.folder)[0] in DONE:
                claim.drop()
                return spec, None
            return spec, claim
        return None

    def _stamp(self, spec: RunSpec) -> tuple[int, int] | None:
        """What changes whenever the result is written."""
        try:
            found = (self.folder / RUNS / f"{spec.id}.json").stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns
