"""The sum of the logarithms of the losses."""

from __future__ import annotations

from torch import Tensor

from ..base import ALL, Index, LossStrategy
from .positive import positive_logs


class ScaleInvariant(LossStrategy):
    """SI: the sum of the log losses, which no loss's unit can change.

    ``L = sum_i log l_i``, so each task's weight is ``1 / l_i``. Also registered as ``si``.

    A baseline of A. Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022,
    https://arxiv.org/abs/2202.01017. Some public code has ``log(1 + l)``, which does depend on the
    scale. The weights are those of UW and IMTL-L at their optimum (UW's up to the factor 1/2) and of
    the analytical UW-O.

    A loss of 0 is left out of its step, with weight 0; a negative one is refused.
    """

    paper = "Navon et al. 2022, https://arxiv.org/abs/2202.01017"
    family = "loss"
    space = {}  # noqa: RUF012
    scale_degree = 0
    positive_losses = True
    properties = frozenset({"permutation_equivariant", "loss_scale_invariant"})

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The sum of the logs of ``losses`` [m]."""
        return positive_logs(losses).sum()
