"""Task gradients in units of their own, for any Gramian strategy."""

from __future__ import annotations

import numpy as np

from ...strategies.base import Weights


def divisors(kind: str, gram: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """What each task's gradient is divided by [m]: its norm or its loss, 1 where that is 0.

    ``gram`` [m, m] is that of the gradients as they are, ``losses`` [m] are at least 0 for "loss".
    """
    by = np.sqrt(np.diagonal(gram)) if kind == "l2" else losses
    return np.where(by >= np.finfo(np.float64).tiny, by, 1.0)


def undone(weights: Weights, by: np.ndarray) -> Weights:
    """Weights of the gradients divided by ``by`` [n], as weights of the gradients as they are."""
    return (weights[0] / by, weights[1] / by) if isinstance(weights, tuple) else weights / by
