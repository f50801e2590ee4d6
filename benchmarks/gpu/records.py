"""What a part found: one line of JSON per check or figure, written as soon as it is known."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Record:
    """One check or figure. ``ok`` is None for a figure that nothing is asked of."""

    group: str
    name: str
    ok: bool | None
    value: str = ""
    error: str = ""


class Failed(AssertionError):
    """A check that ran and found something else than it should."""


@dataclass
class Log:
    """Appends to a file, and prints failures at once and a line per group."""

    path: Path
    seconds: float  #: after which the rest is not run, and counts as failed
    device: str
    start: float = field(default_factory=time.perf_counter)

    @property
    def late(self) -> bool:
        """The part's time is up."""
        return time.perf_counter() - self.start > self.seconds

    def add(self, group: str, name: str, ok: bool | None, value: str = "", error: str = "") -> None:
        """Write a record."""
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(Record(group, name, ok, value, error))) + "\n")
        if ok is False:
            print(f"  FAILED {group}: {name} {value} {error}", flush=True)

    def check(self, group: str, name: str, run: Callable[[], str]) -> None:
        """Run a check, which gives the figure it looked at or raises; whatever it raises, go on."""
        if self.late:
            return self.add(group, name, False, error="not run: the part's time was up")
        try:
            value = run()
        except Failed as failed:
            self.add(group, name, False, error=str(failed))
        except Exception as error:  # of any kind: the rest is to be run
            self.add(group, name, False, error=_line(error))
        else:
            self.add(group, name, True, value)

    def checks(self, group: str, names: list[str], run: Callable[[str], str]) -> None:
        """A check per name, and a line of how long the group took."""
        start = time.perf_counter()
        for name in names:
            self.check(group, name, lambda name=name: run(name))
        print(f"  {group}: {len(names)} in {time.perf_counter() - start:.1f} s", flush=True)


def _line(error: Exception) -> str:
    """Type, message and place of an error, in one line."""
    text = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    place = next((f for f in reversed(frames) if "mtlweights" in f.filename), frames[-1])
    return f"{type(error).__name__}: {text[:300]} ({Path(place.filename).name}:{place.lineno})"


def read(path: Path) -> list[Record]:
    """The records of a file, none where it is missing."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Record(**json.loads(line)) for line in lines]
