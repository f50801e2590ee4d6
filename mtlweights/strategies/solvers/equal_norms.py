"""Gradients brought to one length: for `encodec`, `gradcraft`, `norm_balance`, `ntkmtl` and `vqgan`."""

from __future__ import annotations

import numpy as np


def equal_norms(norms: np.ndarray, length: float) -> np.ndarray:
    """Factors ``length / norms`` [m]; 0 for a gradient of norm 0, which no factor makes longer."""
    return np.divide(length, norms, out=np.zeros(len(norms)), where=norms > 0)
