"""GradCraft (Bai et al. 2024)."""

from __future__ import annotations

import numpy as np

from ..base import GramStrategy
from ..hyperparameters import check_fraction, check_from_to
from ..solvers import cosines_and_norms, equal_norms
from .averages import RunningMeans

#: Eigenvalues of the cosines below this are of gradients that depend on each other.
_DEPENDENT = 1e-10


class GradCraft(GramStrategy):
    """GradCraft: gradients drawn to the longest one's norm, then each freed of all its conflicts at once.

    With ``<|g_i|>`` the moving average of the norm of task i's gradient, first

    ``h_i = (r max_k <|g_k|> / <|g_i|> + 1 - r) g_i``;

    then ``h_i`` is changed, within the span of all h_j that it conflicts with, so that its cosine with each
    of them, in units of its own length before, is ``margin``. d is the mean.

    Y. Bai, Y. Zhang, F. Feng, J. Lu, X. Zang, C. Lei, Y. Song, "GradCraft: Elevating Multi-task
    Recommendations through Holistic Gradient Crafting", KDD 2024, https://arxiv.org/abs/2407.19682.

    The mean, and no averaging of the norms, are what the authors' code runs. Departures: it inverts the
    Gramian of the conflicting gradients, which fails where they depend on each other; here that is a
    pseudo-inverse. It treats the heads as part of the gradients; here they get plain gradients, since a
    weight may be negative.

    Args:
        n_tasks: T.
        r: in [0, 1], how much of the difference in norms is taken away (authors: tuned from 0 to 1).
        margin: from 0 to 1, the cosine that is left (authors: 1e-10 to 1e-8).
        decay: in [0, 1), of the moving average (authors' code: 0).

    Raises ValueError for a number out of range.
    """

    paper = "Bai et al. 2024, https://arxiv.org/abs/2407.19682"
    family = "gramian"
    space = {"r": (0.0, 1.0)}  # noqa: RUF012
    signed_weights = True
    most_tasks = (256, "'pcgrad', which removes one conflict after the other")
    properties = frozenset({"permutation_equivariant"})

    def __init__(self, n_tasks: int, *, r: float = 1.0, margin: float = 1e-10, decay: float = 0.0) -> None:
        super().__init__(n_tasks)
        check_from_to(0, 1, r=r, margin=margin)
        check_fraction(decay=decay)
        self.r, self.margin = r, margin
        self.norms = RunningMeans(n_tasks, decay)

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m] of either sign; moves the averages of the tasks present."""
        cosines, norms = cosines_and_norms(gram)
        means = self.norms.take(norms, present)
        factor = self.r * equal_norms(means, means.max()) + 1 - self.r
        lengths = factor * norms
        weights = factor.copy()
        for i in np.flatnonzero(lengths):
            against = np.flatnonzero((cosines[i] < 0) & (lengths > 0))
            if len(against):
                change = self._change(cosines[against[:, None], against], cosines[i, against])
                weights[against] += lengths[i] * change / norms[against]
        return weights / len(gram)

    def _change(self, inner: np.ndarray, cosines: np.ndarray) -> np.ndarray:
        """Multiples [c] of unit vectors, ``inner`` [c, c], that raise ``cosines`` [c] to the margin."""
        from scipy.linalg.lapack import dpocon, dposv

        factor, change, failed = dposv(inner, self.margin - cosines)
        if not failed and dpocon(factor, np.abs(inner).sum(axis=0).max())[0] > 10 * _DEPENDENT:
            return np.asarray(change)  # the condition in the 1-norm bounds the eigenvalues' ratio
        inverse = np.linalg.pinv(inner, rcond=_DEPENDENT, hermitian=True)
        return np.asarray(inverse @ (self.margin - cosines))
