"""Losses under a logarithm or in a denominator.

Where a loss is not positive these have no value. A loss that cannot be negative has its minimum, and so no
gradient, at zero: to leave it out of the step loses nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor


def positive_logs(losses: Tensor) -> Tensor:
    """log l [m]; 0, without a gradient, for a loss that is not positive."""
    return torch.log(torch.where(losses > 0, losses, 1.0))


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax [m] over the entries in ``mask`` [m]; 0 elsewhere, and everywhere if the mask is empty."""
    shares = torch.softmax(torch.where(mask, logits, -torch.inf), 0)
    return torch.where(mask, shares, 0.0)
