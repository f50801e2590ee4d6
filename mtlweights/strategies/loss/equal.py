"""Equal weighting."""

from __future__ import annotations

from torch import Tensor

from ..base import ALL, Index, LossStrategy


class EqualWeighting(LossStrategy):
    """The sum of the losses, unweighted: the baseline.

    ``L = sum_i l_i``, every weight 1. Some libraries take the mean, which is the same objective
    with a learning rate T times smaller.

    Folklore; defended by D. Xin et al., "Do Current Multi-Task Optimization Methods in Deep
    Learning Even Help?", 2022, https://arxiv.org/abs/2209.11379, and V. Kurin et al., "In Defense
    of the Unitary Scalarization for Deep Multi-Task Learning", 2022,
    https://arxiv.org/abs/2201.04122.
    """

    paper = "Xin et al. 2022, https://arxiv.org/abs/2209.11379"
    family = "loss"
    space = {}  # noqa: RUF012
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The sum of ``losses`` [m]."""
        return losses.sum()
