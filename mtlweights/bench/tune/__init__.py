"""Tuning with Optuna: a strategy, its hyperparameters, the loop's settings and the model's are one search."""

from .objective import Aim
from .own import suggest
from .study import Search
from .tuning import Outcome, tune

__all__ = ["Aim", "Outcome", "Search", "suggest", "tune"]
