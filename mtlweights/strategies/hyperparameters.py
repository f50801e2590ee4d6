"""Checks of hyperparameters that several strategies share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST = 2**31  # of whole numbers: what an int32 holds
INF = float("inf")
LEAST = float(np.finfo(np.float32).tiny)  # above 0: what is below it overflows when divided by


def shown(value: object) -> str:
    """``repr`` for an error: on one line, and short."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:60]}... ({type(value).__name__})"


def check_above(bound: float, **values: Any) -> None:
    """Raise ValueError for a value that is not a finite number above ``bound``."""
    _check(values, lambda x: is_number(x) and bound < x, f"a number above {bound:g}")


def check_at_least(bound: float, **values: Any) -> None:
    """Raise ValueError for a value that is not a finite number of at least ``bound``."""
    wanted = "a finite number" if bound == -INF else f"a number of at least {bound:g}"
    _check(values, lambda x: is_number(x) and bound <= x, wanted)


def check_from_to(least: float, most: float, **values: Any) -> None:
    """Raise ValueError for a value that is not a number in [least, most]."""
    _check(values, lambda x: is_number(x) and least <= x <= most, f"a number from {least:g} to {most:g}")


def check_share(**values: Any) -> None:
    """Raise ValueError for a value outside (0, 1]."""
    _check(values, lambda x: is_number(x) and 0 < x <= 1, "above 0 and at most 1")


def check_fraction(**values: Any) -> None:
    """Raise ValueError for a value outside [0, 1)."""
    _check(values, lambda x: is_number(x) and 0 <= x < 1, "at least 0 and below 1")


def check_whole(least: int, **values: Any) -> None:
    """Raise ValueError for a value that is not an integer of at least ``least``, below 2^31."""
    _check(values, lambda x: is_whole(x) and least <= x < MOST, f"a whole number of at least {least}")


def check_task(n_tasks: int, **values: Any) -> None:
    """Raise ValueError for a value that is not the index of one of ``n_tasks`` tasks."""
    wanted = f"the index of one of {n_tasks} tasks, 0 to {n_tasks - 1}"
    _check(values, lambda x: is_whole(x) and 0 <= x < n_tasks, wanted)


def check_choice(known: Sequence[str] | Mapping[str, Any], **values: Any) -> None:
    """Raise ValueError for a value that is not one of the words ``known``."""
    _check(values, lambda x: isinstance(x, str) and x in known, f"one of {', '.join(known)}")


def check_switch(**values: Any) -> None:
    """Raise ValueError for a value that is neither True nor False."""
    _check(values, lambda x: isinstance(x, bool), "True or False")


def _check(values: Mapping[str, Any], fits: Callable[[Any], bool], wanted: str) -> None:
    for name, value in values.items():
        if not fits(value):
            raise ValueError(f"{name} should be {wanted}, found {shown(value)}.")


def is_whole(value: object) -> bool:
    """Whether this is an integer; True and False are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether this is a finite number, of Python's or NumPy's, 0 or of a size that float32 holds.

    True and False are none.
    """
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value) and not 0 < abs(float(value)) < LEAST
    except OverflowError:  # an integer beyond any float
        return False


def preference_vector(
    preference: Sequence[float] | None, n_tasks: int, default: float, *, positive: bool = False
) -> Tensor:
    """A preference, float64 [T]: as given, by default ``default`` for each task.

    Raises ValueError unless it holds T finite numbers >= 0, not all 0; with ``positive``, all > 0.
    """
    values = numbers("preference", [default] * n_tasks if preference is None else preference)
    if values.shape != (n_tasks,):
        raise ValueError(
            f"preference should have {n_tasks} numbers, one per task, found {shown(preference)}."
        )
    if values.min() < 0 or (values.min() if positive else values.max()) == 0:
        wanted = "numbers above 0" if positive else "numbers of at least 0, one of them above 0"
        raise ValueError(f"preference should hold {wanted}, found {shown(preference)}.")
    return torch.from_numpy(values)


def per_task(name: str, value: float | Sequence[float], n_tasks: int) -> Tensor:
    """One number for all tasks or one per task, as float32 [T]; ValueError for anything else."""
    values = numbers(name, value)
    if values.shape not in ((), (n_tasks,)):
        raise ValueError(f"{name} should have {n_tasks} numbers, one per task, found {shown(value)}.")
    return torch.tensor(np.broadcast_to(values, n_tasks).copy(), dtype=torch.float32)


def decays(name: str, value: Any) -> tuple[float, float]:
    """The two decays of Adam's moments; ValueError for anything but two numbers in [0, 1)."""
    values = numbers(name, value)
    if values.shape != (2,) or values.min() < 0 or values.max() >= 1:
        raise ValueError(f"{name} should be two numbers of at least 0 and below 1, found {shown(value)}.")
    return float(values[0]), float(values[1])


def numbers(name: str, value: Any) -> np.ndarray:
    """A fresh float64 array of numbers that float32 holds; ValueError for anything else.

    A set is refused: it has no order. Text is none of numbers, though NumPy would read it.
    """
    try:
        found = None if isinstance(value, (set, frozenset, Mapping)) else np.array(value)
    except Exception:  # ragged, too deep, on another device: NumPy and torch have their own words for each
        found = None
    if found is None or found.dtype.kind not in "iuf":
        raise ValueError(f"{name} should be numbers, found {shown(value)}.")
    values = found.astype(np.float64)
    sizes = np.abs(values)
    if not ((sizes <= np.finfo(np.float32).max) & ((sizes == 0) | (sizes >= LEAST))).all():
        raise ValueError(f"{name} should hold finite numbers, found {shown(value)}.")
    return values
