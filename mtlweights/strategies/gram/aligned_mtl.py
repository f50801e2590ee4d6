"""Aligned-MTL (Senushkin et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from ..base import GramStrategy
from ..hyperparameters import check_choice, preference_vector

_SCALES: dict[str, Callable[[np.ndarray], float]] = {"min": np.min, "median": np.median, "rmse": np.mean}


class AlignedMTL(GramStrategy):
    """Aligned-MTL: task gradients made orthogonal and of one size, then summed.

    With ``G = V diag(e) V'``, the weights are ``B r``, ``B = sqrt(e_ref) V diag(e^(-1/2)) V'``, r the
    preference: the aligned gradients ``B J`` all have the singular value sqrt(e_ref). Eigenvalues
    below float32's accuracy, ``2^-23 T`` times the largest, are left out. Weights may be negative.

    D. Senushkin, N. Patakin, A. Kuznetsov, A. Konushin, "Independent Component Alignment for
    Multi-Task Learning", CVPR 2023, https://arxiv.org/abs/2305.19000, equation 12 and algorithm 1.

    When the rank drops, "min" jumps to the next eigenvalue, as in the paper; for a rank of one the
    direction is that of the sum weighted by r. Tasks present are aligned among themselves.

    Args:
        n_tasks: T.
        scale: which eigenvalue is e_ref: "min" (paper), "median", or "rmse", their mean.
        preference: T numbers >= 0. Default: all ones, as in the authors' code; some libraries use 1/T.

    Raises ValueError for an unknown ``scale`` or an unusable ``preference``.
    """

    paper = "Senushkin et al. 2023, https://arxiv.org/abs/2305.19000"
    family = "gramian"
    space = {"scale": ["min", "median", "rmse"]}  # noqa: RUF012
    signed_weights = True
    properties = frozenset({"permutation_equivariant"})

    preference: Tensor

    def __init__(
        self, n_tasks: int, *, scale: str = "min", preference: Sequence[float] | None = None
    ) -> None:
        super().__init__(n_tasks)
        check_choice(_SCALES, scale=scale)
        self.scale = scale
        self.register_buffer("preference", preference_vector(preference, n_tasks, 1.0))

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m] of either sign."""
        preference = self.preference.numpy()
        wanted = preference[present]
        values, vectors = np.linalg.eigh(gram)
        keep = values > 2.0**-23 * len(gram) * values[-1]
        if not keep.any():  # all gradients are zero
            return np.zeros(len(gram))
        values, vectors = values[keep], vectors[:, keep]
        gain = np.sqrt(_SCALES[self.scale](values) / values)
        return vectors @ (gain * (wanted @ vectors))
