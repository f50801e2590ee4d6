"""Losses under a logarithm, in a denominator or in a likelihood, which must not be negative.

Where a loss is 0 these have no value, and what is learned would grow without end. A loss that cannot be
negative has its minimum, and so no gradient, at zero: to leave it out of the step loses nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: of learned log scales: exp of them stays far within float32
BOUND = 80.0


def usable(losses: Tensor) -> Tensor:
    """Which losses [m] are positive; those so small (1e-38 in float32) that 1 / l overflows count as 0."""
    return losses >= torch.finfo(losses.dtype).tiny


def positive_logs(losses: Tensor) -> Tensor:
    """log l [m]; 0, without a gradient, for a loss that is not positive."""
    return torch.log(torch.where(usable(losses), losses, 1.0))


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax [m] over the entries in ``mask`` [m]; 0 elsewhere, and everywhere if the mask is empty."""
    shares = torch.softmax(torch.where(mask, logits, -torch.inf), 0)
    return torch.where(mask, shares, 0.0)


def bound(log_scale: Tensor, moved: Tensor) -> None:
    """Keep the learned log scales [T] that ``moved`` [T] within ``BOUND``, in place."""
    log_scale.copy_(torch.where(moved, log_scale.clamp(-BOUND, BOUND), log_scale))
