"""FERERO, preferences as conditions on the losses (Chen, Saif, Shen, Chen 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..base import GramStrategy
from ..hyperparameters import check_above, numbers, preference_vector, shown
from ..solvers import along_ray, under_bounds

_NONE = float("nan")  #: the limit of a task without one, in the state


class FERERO(GramStrategy):
    """FERERO: the steepest common descent under conditions, such as a loss of at most so much.

    The update is ``-d`` of

    ``min_d max_i g_i . d + |d|^2 / 2``  with

    - ``g_i . d <= -c (l_i - limit_i)`` for a task with a limit: one above it comes down, and one below it may
      rise by what is left;
    - with a preference r, ``h_i . d = -c H_i`` for ``H_i = r_i l_i - r_T l_T`` and ``h_i`` its gradient: the
      losses come to the ray where all ``r_i l_i`` are equal.

    The weights are the programme's multipliers, ``lambda_f + lambda_g + B' lambda_h``, over the sum of their
    sizes. Without any condition that is MGDA. On a ray a weight may be negative: a task that is ahead waits.

    L. Chen, A. F. M. Saif, Y. Shen, T. Chen, "FERERO: A Flexible Framework for Preference-Guided
    Multi-Objective Learning", NeurIPS 2024, https://arxiv.org/abs/2412.01773; the cone of the paper's
    relative preference is here the positive one (A the identity), as in the authors' code.

    Departures: the programme is solved exactly in every step, as in the paper's first algorithm, where the
    authors' code takes a projected gradient step of the multipliers per step. The scaling to a sum of 1 and
    ``c = 0.5`` are that code's. Where no step meets all limits, the tasks above theirs have weights in
    proportion to what they are above, the gradient of ``sum_i max(l_i - limit_i, 0)^2``.

    Args:
        n_tasks: T.
        preference: T positive numbers r. Default: all ones, that is equal losses; none beside limits.
        at_most: T limits of the losses, None for a task without one.
        c: > 0, how fast a condition is met, per unit of the learning rate. Adam's step does not follow the
            length of the gradient: there take 10 to 100.

    Raises ValueError for a number out of range, or where no limit is given in ``at_most``.
    """

    paper = "Chen et al. 2024, https://arxiv.org/abs/2412.01773"
    family = "gramian"
    space = {"c": (0.05, 100.0, "log")}  # noqa: RUF012
    heads = "weighted"
    signed_weights = True
    scale_degree = None
    most_tasks = (64, "'stch' with a preference, which is loss-based")
    properties = frozenset({"permutation_equivariant"})

    preference: Tensor
    at_most: Tensor

    def __init__(
        self,
        n_tasks: int,
        *,
        preference: Sequence[float] | None = None,
        at_most: Sequence[float | None] | None = None,
        c: float = 0.5,
    ) -> None:
        super().__init__(n_tasks)
        check_above(0, c=c)
        self.c = float(c)
        self.on_ray = preference is not None or at_most is None
        self.register_buffer("preference", preference_vector(preference, n_tasks, 1.0, positive=True))
        self.register_buffer("at_most", _limits(at_most, n_tasks))

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m] whose sizes sum to 1."""
        limit, m = np.nan_to_num(self.at_most.numpy()[present], nan=np.inf), len(gram)
        above = losses - limit
        if self.on_ray:
            r = self.preference.numpy()[present]
            u = along_ray(gram, self.c * losses, r, self.c * float((r * limit).min()))
        else:
            found = under_bounds(gram, -self.c * above)
            u = np.maximum(above, 0.0) if found is None else found
        total = np.abs(u).sum()
        return u / total if total > 0 else np.full(m, 1 / m)


def _limits(at_most: object, n_tasks: int) -> Tensor:
    """Limits, float64 [T], NaN for none; ValueError for anything else."""
    if at_most is None:
        return torch.full((n_tasks,), _NONE, dtype=torch.float64)
    if not isinstance(at_most, Sequence) or isinstance(at_most, str) or len(at_most) != n_tasks:
        raise ValueError(
            f"at_most should have {n_tasks} limits, one per task, None for none, found {shown(at_most)}."
        )
    given = [k for k, limit in enumerate(at_most) if limit is not None]
    if not given:
        raise ValueError("at_most should hold a limit for one task at least, found None for all.")
    limits = np.full(n_tasks, _NONE)
    limits[given] = numbers("at_most", [at_most[k] for k in given])
    return torch.from_numpy(limits)
