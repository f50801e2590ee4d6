"""Task gradients in units of their own, for any Gramian strategy."""

from __future__ import annotations

import numpy as np


def divisors(kind: str, gram: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """What each task's gradient is divided by [m]: its norm or its loss, 1 where that is 0.

    ``gram`` [m, m] is that of the gradients as they are, ``losses`` [m] are at least 0 for "loss".
    """
    by = np.sqrt(np.diagonal(gram)) if kind == "l2" else losses
    return np.where(by >= np.finfo(np.float64).tiny, by, 1.0)
