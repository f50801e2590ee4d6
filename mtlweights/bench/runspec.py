"""RunSpec: everything that decides the outcome of one run, and the name that follows from it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..problems import scales
from ..specs import parse_spec
from ..train import Settings

SINGLE = "single"  #: the arm whose runs train one task each, alone, with plain losses


def spec_key(spec: str) -> list[Any]:
    """What a spec says, whatever its spelling: ``fixed:alpha=0.3`` and ``fixed:alpha=0.30`` are one."""
    name, options = parse_spec(spec)
    return [name, sorted(options.items())]


def problem_key(spec: str) -> list[Any]:
    """The same of a problem's spec, which may multiply a task's loss."""
    base, factors = scales.split(spec)
    return [*spec_key(base), *([sorted(factors.items())] if factors else [])]


@dataclass(frozen=True)
class RunSpec:
    """One run: a problem, a strategy, the one task trained alone (or None), and the full settings.

    ``data``, ``code`` and ``library`` are digests: of the data, of the file of a strategy of one's own, and
    of the code here (see `code.library`). They are no part of the id: a run on other data takes the place of
    the old one. Nor is ``scored``: a trial, which never sees the test split, gives way to a run that does.
    """

    problem: str
    strategy: str
    only: str | None
    settings: Settings
    data: str | None = None
    code: str | None = None
    library: Mapping[str, str] | None = None
    scored: bool = True

    @property
    def arm(self) -> str:
        """The row of the table this run belongs to."""
        return self.strategy if self.only is None else SINGLE

    @property
    def seed(self) -> int:
        """Seed of the run, part of its settings."""
        return self.settings.seed

    @property
    def id(self) -> str:
        """A readable name and a hash of the first four: other settings, another id, so never mixed up."""
        what = [problem_key(self.problem), spec_key(self.strategy), self.only, self.settings.said()]
        text = json.dumps(what, sort_keys=True)
        words = [self.problem, self.arm, self.only or "", f"s{self.seed}"]
        return f"{slug('-'.join(filter(None, words)))}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def result(self, **fields: Any) -> dict[str, Any]:
        """The result of this run: what it was, and ``fields`` over the values of a run that gave nothing."""
        from .results import SCHEMA

        blank: dict[str, Any] = {
            "status": "failed",
            "error": None,
            "tasks": {},
            "test": {},
            "dev": {},
            "history": [],
        }
        numbers: dict[str, Any] = {"best_epoch": None, "steps": 0, "seconds": 0.0, "environment": {}}
        what: dict[str, Any] = {
            "problem": self.problem,
            "strategy": self.strategy,
            "only": self.only,
            "seed": self.seed,
        }
        what |= {"settings": self.settings.said(), "data": self.data, "code": self.code}
        what["library"] = None if self.library is None else dict(self.library)
        return {"schema": SCHEMA, "id": self.id, **what, **blank, **numbers, **fields}


def slug(text: str) -> str:
    """A spec as part of a file's name."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[-80:].strip("-.")
