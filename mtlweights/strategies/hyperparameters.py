"""Checks of hyperparameters that several strategies share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def check_above(bound: float, **values: float) -> None:
    """Raise ValueError for a value that is not a finite number above ``bound``."""
    for name, value in values.items():
        if not (isinstance(value, (int, float)) and bound < value < float("inf")):
            raise ValueError(f"{name} should be a number above {bound:g}, found {value!r}.")


def check_at_least(bound: float, **values: float) -> None:
    """Raise ValueError for a value that is not a finite number of at least ``bound``."""
    for name, value in values.items():
        if not (isinstance(value, (int, float)) and bound <= value < float("inf")):
            raise ValueError(f"{name} should be a number of at least {bound:g}, found {value!r}.")


def check_share(**values: float) -> None:
    """Raise ValueError for a value outside (0, 1]."""
    for name, value in values.items():
        if not (isinstance(value, (int, float)) and 0 < value <= 1):
            raise ValueError(f"{name} should be above 0 and at most 1, found {value!r}.")


def preference_vector(preference: Sequence[float] | None, n_tasks: int) -> Tensor:
    """A preference, float32 [T]: as given, 1/T each by default.

    Raises ValueError unless it holds T finite numbers >= 0, not all 0.
    """
    values = 1 / n_tasks if preference is None else preference
    vector = per_task("preference", values, n_tasks)
    if np.min(values) < 0 or np.max(values) == 0:
        raise ValueError(
            f"preference should hold numbers of at least 0, one of them above 0, found {preference!r}."
        )
    return vector


def per_task(name: str, value: float | Sequence[float], n_tasks: int) -> Tensor:
    """One number for all tasks or one per task, as float32 [T]; ValueError for anything else."""
    try:
        values = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError):
        raise ValueError(f"{name} should be numbers, found {value!r}.") from None
    if values.shape not in ((), (n_tasks,)):
        raise ValueError(f"{name} should have {n_tasks} numbers, one per task, found {value!r}.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} should hold finite numbers, found {value!r}.")
    return torch.tensor(np.broadcast_to(values, n_tasks).copy())
