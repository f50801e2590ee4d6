"""COSMOS (Ruchte and Grabocka 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..base import ALL, Index, LossStrategy
from ..hyperparameters import check_above, check_at_least, preference_vector


class COSMOS(LossStrategy):
    """COSMOS: a preference-weighted sum, less the cosine between losses and preference.

    ``L = sum_i r_i l_i - penalty cos(r, l)`` with the preference vector r. Over the tasks present if some
    are missing; without a cosine where all losses are 0.

    M. Ruchte, J. Grabocka, "Scalable Pareto Front Approximation for Deep Multi-Objective Learning", ICDM
    2021, https://arxiv.org/abs/2103.13392, equation 5.

    In the paper r is drawn anew in every step and *the network sees it*, so that one network holds the
    whole front. For that call :meth:`draw` before each forward pass and feed what it returns to the model.
    Without it ``preference`` stays as it is and only the scalarisation remains.

    A weight is negative where the penalty would rather have a loss grow towards the preference's ray.

    Args:
        n_tasks: T.
        penalty: >= 0, in units of the losses (paper: 0.01 to 8, by data set).
        preference: r, T numbers >= 0, used as given; default 1/T each.
        concentration: > 0, of the Dirichlet distribution of :meth:`draw`; 1 is uniform on the simplex.
    """

    paper = "Ruchte and Grabocka 2021, https://arxiv.org/abs/2103.13392"
    family = "loss"
    space = {"penalty": (0.01, 8.0, "log")}  # noqa: RUF012
    scale_degree = None
    signed_weights = True
    properties = frozenset({"permutation_equivariant"})

    preference: Tensor  #: r [T], the current preference

    def __init__(
        self,
        n_tasks: int,
        *,
        penalty: float = 1.0,
        preference: Sequence[float] | None = None,
        concentration: float = 1.0,
    ) -> None:
        super().__init__(n_tasks)
        check_at_least(0, penalty=penalty)
        check_above(0, concentration=concentration)
        self.penalty, self.concentration = penalty, concentration
        self.register_buffer("preference", preference_vector(preference, n_tasks, 1 / n_tasks).float())

    def draw(self) -> Tensor:
        """Set and return the preference of the coming step: r [T], a function of seed and step alone.

        It reads the step on the host.
        """
        rng = np.random.default_rng([self.seed, int(self.step)])
        r = rng.dirichlet(np.full(self.n_tasks, self.concentration))
        self.preference.copy_(torch.from_numpy(r))
        return self.preference.clone()

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The penalised sum of ``losses`` [m]."""
        r = self.preference[present]
        largest = losses.detach().abs().max()  # out of the squares, for which float32 is short
        scaled = losses / torch.where(largest > 0, largest, 1.0)
        squares = (scaled**2).sum() * (r**2).sum()
        defined = squares > 0
        cosine = (r * scaled).sum() / torch.where(defined, squares, 1.0).sqrt()
        return (r * losses).sum() - self.penalty * torch.where(defined, cosine, 0.0)
