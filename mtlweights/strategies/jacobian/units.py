"""Task gradients as directions: the rows of a Jacobian [m, P] over their lengths, without a copy of it."""

from __future__ import annotations

import torch
from torch import Tensor

from .blockwise import BLOCK, wide


def lengths(jacobian: Tensor) -> Tensor:
    """Euclidean length of every row, float64 [m] on its device; no square underflows."""
    found: Tensor = torch.linalg.vector_norm(jacobian, dim=1, dtype=wide(jacobian.device))
    return found


def inverse(values: Tensor) -> Tensor:
    """``1 / values``, and 0 for 0."""
    positive = values > 0
    return torch.where(positive, 1 / torch.where(positive, values, 1.0), 0.0)


def follow(key: Tensor, jacobian: Tensor, length: Tensor, decay: float) -> Tensor:
    """``decay * key + (1 - decay) * unit rows``, a new tensor [m, P]; a zero row adds nothing."""
    return (decay * key).addcmul_(jacobian, ((1 - decay) * inverse(length)).to(jacobian)[:, None])


def products(jacobian: Tensor, length: Tensor, key: Tensor) -> Tensor:
    """Inner products of the unit rows with the rows of ``key``, float64 [m, m]."""
    pairs = zip(jacobian.split(BLOCK, 1), key.split(BLOCK, 1), strict=True)
    total = torch.stack([a.to(length) @ b.to(length).T for a, b in pairs]).sum(0)
    return total * inverse(length)[:, None]


def combine(jacobian: Tensor, length: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """``mean(length) * sum_i shares_i unit row_i`` [P], and the weights [m] of the rows as they are."""
    weights = (shares.to(length) * length.mean() * inverse(length)).to(jacobian)
    return weights @ jacobian, weights
