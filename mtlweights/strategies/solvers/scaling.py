"""The Gramian without its gradients' lengths."""

from __future__ import annotations

import numpy as np

#: Of a gradient's length, what float32 leaves uncertain in it after a backward pass. Gramians are exact for
#: the rows they are made of; no solver should act on less than this, nor on its square in a Gramian.
UNCERTAIN = 1e-6


def cosines_and_norms(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines [m, m] and norms [m]. A zero gradient counts as orthogonal to all others."""
    norms = np.sqrt(np.diagonal(gram))
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    cosines = gram * inverse * inverse[:, None]
    np.fill_diagonal(cosines, 1.0)
    return np.clip(cosines, -1.0, 1.0), norms
