"""The coordinate-wise trimmed mean (Yin et al. 2018)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..base import ALL, Index, JacobianStrategy
from ..hyperparameters import is_number, is_whole, shown
from . import blockwise


class TrimmedMean(JacobianStrategy):
    """The mean of the gradients, element by element, without the largest and the smallest ones.

    Of an element's m values the b largest and the b smallest are left out; d is the mean of the other
    ``m - 2 b``.

    D. Yin, Y. Chen, K. Ramchandran, P. Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal
    Statistical Rates", ICML 2018, https://arxiv.org/abs/1803.01498, definition 2, for gradients of many
    machines; here, of the tasks present.

    Departures: where the share is no whole number of tasks, b is rounded down; with too few tasks present,
    as many are left out as leave one or two. So the default trims nothing of two tasks and gives the median
    of three.

    Args:
        n_tasks: T.
        trim: b, a whole number from 0 to 1 or, if that is more, to what leaves one or two of T tasks; or
            b over m, a share in [0, 0.5).

    Raises ValueError for anything else.
    """

    paper = "Yin et al. 2018, https://arxiv.org/abs/1803.01498"
    family = "element-wise"
    space = {"trim": [1, 0.0, 0.15, 0.3, 0.45]}  # noqa: RUF012
    properties = frozenset({"permutation_equivariant"})

    def __init__(self, n_tasks: int, *, trim: float = 1) -> None:
        super().__init__(n_tasks)
        # of one and of two tasks the default is as much as may be asked for: it trims nothing there
        most = max(1, (n_tasks - 1) // 2)
        if not (is_number(trim) and (0 <= trim <= most if is_whole(trim) else 0 <= trim < 0.5)):
            raise ValueError(
                f"trim should be a share below 0.5 or, for {n_tasks} tasks, a whole number from 0 to {most}, "
                f"found {shown(trim)}."
            )
        self.trim = int(trim) if is_whole(trim) else float(trim)

    def direction(self, jacobian: Tensor, losses: Tensor, present: Index = ALL) -> Tensor:
        """The direction [P]."""
        m = len(jacobian)
        # The product of a share and m may lie just below the whole number it means.
        wanted = self.trim if isinstance(self.trim, int) else math.floor(self.trim * m + 1e-9)
        b = min(wanted, (m - 1) // 2)
        out = torch.empty_like(jacobian[0])
        for _, columns in blockwise.pieces([len(out)]):
            out[columns] = torch.stack(_without_extremes(jacobian[:, columns], b)).mean(0)
        return out


def _without_extremes(values: Tensor, b: int) -> list[Tensor]:
    """The columns of ``values`` [m, k] without the b largest and smallest entries of each, m - 2 b of [k].

    b passes that carry the largest up and the smallest down: for few rows many times faster than a sort.
    """
    left = list(values.unbind())
    for _ in range(b):
        for i in range(len(left) - 1):
            left[i], left[i + 1] = torch.minimum(left[i], left[i + 1]), torch.maximum(left[i], left[i + 1])
        left.pop()
        for i in range(len(left) - 1, 0, -1):
            left[i - 1], left[i] = torch.minimum(left[i - 1], left[i]), torch.maximum(left[i - 1], left[i])
        left.pop(0)
    return left
