"""RGW, random gradient weighting (Lin et al. 2022)."""

from __future__ import annotations

import numpy as np

from ..base import GramStrategy


class RandomGradientWeighting(GramStrategy):
    """RGW: as `random`, but only the shared parameters' gradients are weighted.

    The weights are the softmax of fresh standard normal draws at every step, and sum to 1. Heads
    get plain gradients, which is all that sets it apart from RLW, at T times the cost: it is the
    baseline for the other Gramian methods.

    B. Lin, F. Ye, Y. Zhang, I. W. Tsang, "Reasonable Effectiveness of Random Weighting: A Litmus Test
    for Multi-Task Learning", TMLR 2022, https://arxiv.org/abs/2111.10603, section 3.

    Departure: the draws are a function of (seed, committed step), so that a repeated or resumed
    step is the same. Absent tasks are left out of the softmax.
    """

    paper = "Lin et al. 2022, https://arxiv.org/abs/2111.10603"
    family = "gramian"
    space = {}  # noqa: RUF012
    properties = frozenset({"linear_under_scaling"})

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m], positive, summing to 1."""
        key = np.array([self.seed % 2**64, int(self.step)], dtype=np.uint64)
        draws = np.random.Generator(np.random.Philox(key=key)).standard_normal(self.n_tasks)
        exponentials = np.exp(draws[present])
        return exponentials / exponentials.sum()
