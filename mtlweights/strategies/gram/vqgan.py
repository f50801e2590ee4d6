"""VQGAN's adaptive weight (Esser, Rombach, Ommer 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..base import GramStrategy
from ..hyperparameters import check_above, check_task, preference_vector
from ..solvers import equal_norms


class VQGAN(GramStrategy):
    """VQGAN's adaptive weight: every other loss pulls on the last layer as hard as the reference does.

    With r the reference task and p the preference, ``w_r = 1`` and

    ``w_i = p_i min(|g_r| / |g_i|, limit)``,

    the gradients being those in the last shared layer. The reference is the reconstruction loss, the other
    one that of the discriminator.

    P. Esser, R. Rombach, B. Ommer, "Taming Transformers for High-Resolution Image Synthesis", CVPR 2021,
    https://arxiv.org/abs/2012.09841, equation 7; the limit of 1e4 and p, there ``discriminator_weight``, are
    in the authors' code.

    Departures: the paper adds 1e-6 to the norm and the authors' code 1e-4, so that the weight falls short
    where gradients are small, as in half precision or under a gradient scaler; here nothing is added. A loss
    without a gradient in that layer, such as a codebook's, has weight p_i. So have all in a step without the
    reference. A discriminator that joins late is a task that is absent until then.

    Args:
        n_tasks: T.
        reference: index of the reference task.
        preference: T numbers p of at least 0, that of the reference unused. Default: all ones.
        limit: > 0, the largest ratio.

    Raises ValueError for an argument out of range.
    """

    paper = "Esser, Rombach, Ommer 2021, https://arxiv.org/abs/2012.09841"
    family = "gradient norm"
    space = {"limit": (1.0, 1e4, "log")}  # noqa: RUF012
    heads = "weighted"
    measured_at = "last_shared"

    preference: Tensor

    def __init__(
        self,
        n_tasks: int,
        *,
        reference: int = 0,
        preference: Sequence[float] | None = None,
        limit: float = 1e4,
    ) -> None:
        super().__init__(n_tasks)
        check_task(n_tasks, reference=reference)
        check_above(0, limit=limit)
        self.reference, self.limit = reference, limit
        self.register_buffer("preference", preference_vector(preference, n_tasks, 1.0))

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m], at least 0."""
        preference = self.preference.numpy()[present]
        reference = present == self.reference
        if not reference.any():
            return preference
        norms = np.sqrt(np.diagonal(gram))
        ratio = equal_norms(norms, norms[reference][0])
        return np.where(reference, 1.0, preference * np.where(norms > 0, np.minimum(ratio, self.limit), 1.0))
