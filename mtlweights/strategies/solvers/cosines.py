"""The Gramian without its gradients' lengths, and the direction that has the same cosine with all of them."""

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


def equal_cosines(cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``x = C^+ 1`` [m], and the part [m] of the ones that no combination of gradients can give.

    With u_i the unit gradients, ``sum_i x_i u_i`` has the same cosine with all of them wherever the
    second result is zero. That result is a vector of the null space of C: its combination of the
    u_i is the zero vector. Eigenvalues at most ``1e-12 m`` times the largest count as zero: what float32
    leaves of dependent gradients.
    """
    values, vectors = np.linalg.eigh(cosines)
    share = vectors.sum(axis=0)  # of the ones, along every eigenvector
    share[np.abs(share) <= 1e-14 * len(values)] = 0.0  # rounding: none
    null = values <= UNCERTAIN**2 * len(values) * values[-1]
    x = vectors @ np.divide(share, values, out=np.zeros_like(share), where=~null)
    return x, vectors @ np.where(null, share, 0.0)
