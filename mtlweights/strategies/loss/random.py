"""Random loss weighting (Lin et al. 2022)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..base import LossStrategy


class RandomLossWeighting(LossStrategy):
    """RLW: the softmax of fresh normal draws at every step.

    ``w = softmax(e)``, ``e_i ~ N(0, 1)``, ``L = sum_i w_i l_i``; the weights sum to 1.

    B. Lin, F. Ye, Y. Zhang, I. W. Tsang, "Reasonable Effectiveness of Random Weighting: A Litmus
    Test for Multi-Task Learning", TMLR 2022, https://arxiv.org/abs/2111.10603 (there with other
    distributions too; the normal one is its default).

    Departures: a draw is a hash of (seed, committed step, task), so a repeated or resumed step
    draws the same weights. A task that is missing from the batch leaves the others' draws as they
    are; the softmax is over the tasks present.
    """

    paper = "Lin et al. 2022, https://arxiv.org/abs/2111.10603"
    family = "loss"
    space = {}  # noqa: RUF012
    properties = frozenset({"linear_under_scaling"})

    def combine(self, losses: Tensor, present: np.ndarray | None = None) -> Tensor:
        """The randomly weighted sum of ``losses`` [m]."""
        draws = _normal(self.seed, self.step, self.n_tasks, losses.device)
        if present is not None:
            draws = draws[present]
        return (torch.softmax(draws, 0) * losses).sum()


_BITS = 64


def _normal(seed: int, step: Tensor, n: int, device: torch.device) -> Tensor:
    """n standard normal draws, a pure function of (seed, step, index): float32 [n] on ``device``.

    The stream is SplitMix64 (Steele, Lea, Flood 2014, https://doi.org/10.1145/2660193.2660195), read
    at step * n + index, in int64 arithmetic that wraps.
    """
    x = (step * n + torch.arange(n, device=device)) * _signed(0x9E3779B97F4A7C15)
    x = x + _signed((seed + 1) * 0xD1342543DE82EF95)  # where the stream of this seed starts
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    # 23 bits, so that the midpoints of the cells are exact in float32 and never reach 0 or 1.
    cells = _shift(x ^ _shift(x, 31), _BITS - 23)
    uniform = (cells.to(torch.float32) + 0.5) / 2**23
    return math.sqrt(2) * torch.erfinv(2 * uniform - 1)


def _shift(x: Tensor, bits: int) -> Tensor:
    # torch's int64 shift copies the sign bit; the hash needs zeros there.
    return (x >> bits) & ((1 << (_BITS - bits)) - 1)


def _signed(x: int) -> int:
    x %= 1 << _BITS
    return x - (1 << _BITS) if x >> (_BITS - 1) else x
