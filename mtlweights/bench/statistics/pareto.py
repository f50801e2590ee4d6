"""Points in the plane of several objectives, all to be maximised: domination and dominated volume."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dominating(point: NDArray[np.float64], others: NDArray[np.float64]) -> int | None:
    """Number of the first of ``others`` [n, T] as good as ``point`` [T] everywhere and better somewhere."""
    found = np.flatnonzero((others >= point).all(1) & (others > point).any(1))
    return int(found[0]) if found.size else None


def hypervolume(points: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Volume that ``points`` [n, T] dominate above ``reference`` [T], by exclusive volumes.

    While, Bradstreet and Barone 2012 (WFG), equations 1 to 3: the volume of a set is that of its first point,
    less what the others, cut down to that point, dominate of it, and that of the rest.
    """
    sides = np.maximum(points - reference, 0)
    sides = sides[(sides > 0).all(1)]
    sides = np.unique(sides, axis=0)[::-1]  # the largest in the first objective first: few are left to cut
    kept = [side for side in sides if dominating(side, sides) is None]
    return _volume(np.array(kept)) if kept else 0.0


def _volume(sides: NDArray[np.float64]) -> float:
    if len(sides) < 2:
        return float(sides.prod(1).sum())
    first, rest = sides[0], sides[1:]
    shared = hypervolume(np.minimum(rest, first), np.zeros_like(first))
    return float(first.prod()) - shared + _volume(rest)
