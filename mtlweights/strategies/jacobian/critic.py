"""The InfoNCE loss of a critic with one parameter."""

from __future__ import annotations

import torch
from torch import Tensor


def info_nce(similarity: Tensor, sharpness: Tensor) -> tuple[Tensor, Tensor]:
    """First and second derivative [] of ``mean_i(log sum_j exp(b x_ij) - b x_ii)`` in b."""
    guess = torch.softmax(sharpness * similarity, 1)
    mean = (guess * similarity).sum(1)
    spread = (guess * (similarity - mean[:, None]) ** 2).sum(1)
    return (mean - similarity.diagonal()).mean(), spread.mean()
