"""Loss-balanced task weighting (Liu, Liang, Gitter 2019)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..base import ALL, Index, LossStrategy
from ..hyperparameters import check_at_least


class LossBalancedTaskWeighting(LossStrategy):
    """LBTW: more weight to tasks whose loss has fallen less since the epoch's first batch.

    ``w_i = m r_i^alpha / sum_k r_k^alpha`` with ``r_i = l_i / l_i(first)``, over the m tasks present,
    l_i(first) being the loss in the first batch of the epoch that has task i. The weights sum to m.

    S. Liu, Y. Liang, A. Gitter, "Loss-Balanced Task Weighting to Reduce Negative Transfer in Multi-Task
    Learning", AAAI 2019 (student abstract), https://doi.org/10.1609/aaai.v33i01.33019977. The
    normalisation is that of the authors' code; a later version by others leaves it out.

    r_i counts as 1 where l_i(first) is 0; if all ratios are 0 the weights are equal. A negative loss, whose
    ratio grows as the loss falls, is refused.

    Args:
        n_tasks: T.
        alpha: >= 0; 0 is equal weighting (authors: around 0.5).
    """

    paper = "Liu, Liang, Gitter 2019, https://doi.org/10.1609/aaai.v33i01.33019977"
    family = "loss"
    space = {"alpha": (0.0, 2.0)}  # noqa: RUF012
    needs = ("end_epoch",)
    positive_losses = True
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    first: Tensor

    def __init__(self, n_tasks: int, *, alpha: float = 0.5) -> None:
        super().__init__(n_tasks)
        check_at_least(0, alpha=alpha)
        self.alpha = alpha
        self.register_buffer("first", torch.full((n_tasks,), float("nan")))

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The weighted sum of ``losses`` [m]; takes the first losses of the epoch."""
        values = losses.detach()
        first = torch.where(torch.isnan(self.first[present]), values, self.first[present])
        self.first[present] = first.to(self.first)
        positive = first > 0
        ratio = torch.where(positive, values.clamp(min=0) / torch.where(positive, first, 1.0), 1.0)
        largest = ratio.max().clamp(max=torch.finfo(ratio.dtype).max)
        power = (ratio.clamp(max=largest) / torch.where(largest > 0, largest, 1.0)) ** self.alpha
        total = power.sum()
        weight = torch.where(total > 0, len(values) * power / torch.where(total > 0, total, 1.0), 1.0)
        return (weight * losses).sum()

    def end_epoch(self, mean_losses: np.ndarray, scores: np.ndarray | None) -> None:
        """Forgets the first losses of the tasks seen in the epoch."""
        seen = torch.as_tensor(np.isfinite(mean_losses), device=self.first.device)
        self.first.masked_fill_(seen, float("nan"))
