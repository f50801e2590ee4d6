"""What each strategy costs in a step, what it keeps and what it needs from the loop."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

from ..files.escapes import message_of
from .base import JacobianStrategy, LossStrategy, Strategy
from .registry import ALIASES, STRATEGIES, get, names

#: where a strategy measures the task gradients, in words
_MEASURED_AT = {"shared": "", "all": "", "last_shared": " at last layer", "features": " at features"}


def strategies() -> list[dict[str, str]]:
    """One row per strategy: name, family, backward passes per step, state, needs, summary, paper.

    Warns of those that other packages register and that cannot be used, and leaves them out.
    """
    rows = []
    for name in names():
        try:
            rows.append(_row(name, get(name)))
        except (Exception, SystemExit) as error:  # whatever a package does that is none of ours
            if name in STRATEGIES:
                raise
            warnings.warn(f"Strategy {name!r} is left out: {message_of(error)}.", stacklevel=2)
    return rows


def _row(name: str, strategy: type[Strategy]) -> dict[str, str]:
    return {
        "name": name,
        "family": strategy.family,
        "backward": _passes(strategy),
        "state": _state(strategy),
        "needs": ", ".join(strategy.needs),
        "summary": (inspect.getdoc(strategy) or "").partition("\n")[0],
        "paper": strategy.paper,
    }


def describe(name: str) -> dict[str, Any]:
    """All there is to know of one strategy: its row of `strategies`, and

    ``class`` (where it is), ``aliases``, ``heads``, ``measured_at``, ``scale_degree``, ``signed_weights``,
    ``properties`` (sorted), ``hyperparameters`` (name -> default and search space, both None where there is
    none) and ``text``, the docstring below its first line: the rule, its source, where it departs from it.

    Raises:
        ValueError: there is no such strategy.
        ImportError: its module cannot be imported.
    """
    cls = get(name)
    name = ALIASES.get(name, name)
    return {
        **_row(name, cls),
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "aliases": [alias for alias, of in ALIASES.items() if of == name],
        "heads": cls.heads,
        "measured_at": cls.measured_at,
        "scale_degree": cls(3).scale_degree,
        "signed_weights": cls.signed_weights,
        "properties": sorted(cls.properties),
        "hyperparameters": _hyperparameters(cls),
        "text": (inspect.getdoc(cls) or "").partition("\n")[2].strip(),
    }


def _hyperparameters(cls: type[Strategy]) -> dict[str, dict[str, Any]]:
    """Name -> its default, and the range that is searched; learned weights have a rate in the Balancer."""
    space = dict(getattr(cls, "space", {}))
    defaults = {p.name: p.default for p in [*inspect.signature(cls).parameters.values()][1:]}
    defaults |= {name: getattr(cls, name, None) for name in space.keys() - defaults.keys()}
    return {name: {"default": value, "space": space.get(name)} for name, value in defaults.items()}


def _passes(strategy: type[Strategy]) -> str:
    if issubclass(strategy, LossStrategy):
        return "1"
    batches = strategy.batches
    passes = "T" + _MEASURED_AT[strategy.measured_at] if batches == 1 else f"T on each of {batches} batches"
    return passes + (" + validation" if "validate" in strategy.hooks() else "")


def _state(strategy: type[Strategy]) -> str:
    """What a checkpoint holds, by size."""
    if issubclass(strategy, JacobianStrategy) and strategy.memory:
        return "T x P" if any(strategy.memory.values()) else "P"
    if issubclass(strategy, JacobianStrategy) and (strategy.row_state or strategy.tensor_state):
        return "T x P" if strategy.row_state else "T x tensors"
    made = strategy(3)
    sizes = [x.dim() for name, x in made.state_dict().items() if name != "step"]
    kind = "T x T" if max(sizes, default=0) > 1 else "T" if sizes else ""
    return kind + (", learned" if any(True for _ in made.parameters()) else "")
