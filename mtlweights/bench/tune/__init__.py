"""Tuning with Optuna: a strategy, its hyperparameters, the loop's settings and the model's are one search."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .objective import Aim
    from .own import suggest
    from .study import Search
    from .tuning import Outcome, tune

__all__ = ["Aim", "Outcome", "Search", "suggest", "tune"]

#: name -> module that has it. A bench has its spaces and costs from here as well, and does without Optuna
_LATER = {"Aim": "objective", "suggest": "own", "Search": "study", "Outcome": "tuning", "tune": "tuning"}


def __getattr__(name: str) -> Any:
    """What needs Optuna, once it is asked for."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LATER[name]}", __name__), name)
