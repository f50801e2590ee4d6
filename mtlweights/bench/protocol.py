"""What was settled before the runs: the smallest difference that matters, the error rate, the design.

Kept in the results folder, so that a report of it judges by what was said beforehand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ..files import atomic, schemas
from ..files.reading import read_json
from .statistics import DESIGNS

FILE = "protocol.json"
WORTH = 0.5  #: Δm points (per cent of single-task training) that matter, where a suite does not say
_SHAPE = {"worth": schemas.Each(schemas.NUMBER), "alpha": schemas.NUMBER, "design": str}


@dataclass(frozen=True)
class Protocol:
    """How a comparison is judged. A wrong value raises ValueError.

    Attributes:
        worth: problem spec -> smallest difference that matters, in Δm points; `WORTH` where it is not named.
        alpha: share of comparisons without any difference in which an arm may be called better or worse.
        design: "fixed", a number of seeds chosen beforehand, or "until-resolved".
    """

    worth: Mapping[str, float] = field(default_factory=dict)
    alpha: float = 0.05
    design: str = "fixed"

    def __post_init__(self) -> None:
        for spec, value in self.worth.items():
            if isinstance(value, bool) or not (isinstance(value, (int, float)) and 0 <= value < math.inf):
                raise ValueError(f"worth of {spec!r} should be a number of at least 0, found {value!r}.")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha should be in (0, 1), found {self.alpha!r}.")
        if self.design not in DESIGNS:
            raise ValueError(f"design should be one of {', '.join(DESIGNS)}, found {self.design!r}.")

    def worth_of(self, problem: str) -> float:
        """The smallest difference that matters on a problem."""
        return float(self.worth.get(problem, WORTH))


def settle(protocol: Protocol, folder: str | Path) -> list[str]:
    """Keep what is to hold for a results folder; what was settled there before stays.

    Returns a line that says so where the two differ.

    A problem that is new to the folder is added.

    Raises:
        ValueError: the file is there and is no protocol.
        OSError: the folder cannot be written.
    """
    before = read_protocol(folder)
    if before is None:
        write_protocol(protocol, folder)
        return []
    joined = replace(before, worth={**protocol.worth, **before.worth})
    if joined != before:
        write_protocol(joined, folder)
    wanted = replace(protocol, worth={**joined.worth, **protocol.worth})
    if wanted == joined:
        return []
    return [f"{Path(folder, FILE)} was settled before these runs and stays, though the suite says otherwise."]


def write_protocol(protocol: Protocol, folder: str | Path) -> None:
    """Keep it in the results folder, before the first run.

    Raises:
        OSError: the folder cannot be written.
    """
    atomic.write(Path(folder) / FILE, json.dumps(asdict(protocol), indent=1, sort_keys=True) + "\n")


def read_protocol(folder: str | Path) -> Protocol | None:
    """What was settled for a results folder; None if nothing was.

    Raises:
        ValueError: the file is there and is no protocol.
    """
    path = Path(folder) / FILE
    try:
        content = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} cannot be read as JSON: {getattr(error, 'strerror', None) or error}"
        ) from None
    try:
        schemas.check(content, _SHAPE, "the protocol")
        return Protocol(content["worth"], content["alpha"], content["design"])
    except ValueError as error:
        raise ValueError(f"{path} is no protocol of a bench: {error}") from None
