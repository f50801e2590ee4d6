"""IMTL, impartial multi-task learning with both its halves (Liu et al. 2021)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..base import GramStrategy
from ..loss.positive import bound
from .imtl_g import impartial


class IMTL(GramStrategy):
    """IMTL: equal projections for the trunk, learned loss scales for the heads.

    Every loss has a learned scale: ``L_i = e^(s_i) l_i - s_i``, least at ``e^(s_i) = 1 / l_i``. Heads
    descend L_i, so they get the weights e^s. The trunk gets IMTL-G's combination of the *scaled*
    gradients ``e^(s_i) g_i``, so its weights are ``a_i e^(s_i)`` with a from `IMTLG`, in which its
    departures are described.

    L. Liu, Y. Li, Z. Kuang, J.-H. Xue, Y. Chen, W. Yang, Q. Liao, W. Zhang, "Towards Impartial
    Multi-task Learning", ICLR 2021, https://openreview.net/forum?id=IMPnRXEWpvr, sections 3.1 to 3.3.

    s starts at 0 and is learned at 3e-4 a step by default, for the reasons that ``uw`` gives. Some public
    code that calls itself IMTL is IMTL-G alone, ``imtl_g`` here. A loss of 0 leaves its s, which would grow
    without end, where it is; a negative one, at which L_i has no minimum, is refused. s stays within -80
    and 80.
    """

    paper = "Liu et al. 2021, https://openreview.net/forum?id=IMPnRXEWpvr"
    family = "gramian"
    space = {"weight_lr": (1e-5, 0.1, "log")}  # noqa: RUF012
    heads = "weighted"
    scale_degree = None
    signed_weights = True
    weight_lr = 3e-4
    positive_losses = True
    properties = frozenset({"non_conflicting", "permutation_equivariant", "zero_at_stationary"})

    def __init__(self, n_tasks: int) -> None:
        super().__init__(n_tasks)
        self.s = nn.Parameter(torch.zeros(n_tasks, dtype=torch.float64))

    def weights(
        self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Trunk weights [m] of either sign, head weights e^s [m]; leaves ``e^s l - 1`` in ``s.grad``."""
        scale = np.exp(self.s.detach().numpy()[present])
        gradient = np.zeros(self.n_tasks)
        positive = losses >= np.finfo(np.float32).tiny
        gradient[present] = np.where(positive, scale * losses - 1, 0.0)
        self.s.grad = torch.from_numpy(gradient)
        return scale * impartial(gram * scale * scale[:, None]), scale

    @torch.no_grad()
    def project(self, moved: Tensor) -> None:
        """Keeps the s that ``moved`` within their bound."""
        bound(self.s, moved)
