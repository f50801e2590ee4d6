"""The preference vector some strategies take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def preferences(values: Sequence[float] | None, n_tasks: int, *, positive: bool = False) -> np.ndarray:
    """A fresh float64 [T]; None gives ones. Raises ValueError for another length or a bad number."""
    if values is None:
        return np.ones(n_tasks)
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"preference should be {n_tasks} numbers, found {values!r}.") from None
    if array.shape != (n_tasks,):
        raise ValueError(f"preference should have {n_tasks} numbers, one per task, found {values!r}.")
    fit = array > 0 if positive else array >= 0
    if not (np.isfinite(array) & fit).all() or not array.any():
        wanted = "positive numbers" if positive else "numbers of at least 0, not all 0"
        raise ValueError(f"preference should hold finite {wanted}, found {values!r}.")
    return array
