"""Work on the rows of a Jacobian [m, P] where they are, in pieces: no second matrix of that size is made.

``sizes`` are the elements of each of the n parameter tensors, in the order of the P columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

BLOCK = 1 << 15  # columns of one matrix product
PIECE = 1 << 18  # columns of one element-wise step


def wide(device: torch.device) -> torch.dtype:
    """The widest floating-point type of a device."""
    return torch.float32 if device.type == "mps" else torch.float64


def pieces(sizes: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """(k, columns): slices that cover all columns in order, each inside one tensor k."""
    start = 0
    for k, size in enumerate(sizes):
        for offset in range(0, size, PIECE):
            yield k, slice(start + offset, start + min(offset + PIECE, size))
        start += size


def gramian(*rows: Tensor) -> Tensor:
    """Inner products of all the rows [., P], float64 [m, m] on their device."""
    parts = zip(*(some.split(BLOCK, 1) for some in rows), strict=True)
    blocks = (torch.cat([block.to(wide(block.device)) for block in part]) for part in parts)
    return torch.stack([block @ block.T for block in blocks]).sum(0)


def norms(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """Norm of every row in every tensor, float64 [m, n] on their device; no square underflows."""
    squares = torch.zeros(len(rows), len(sizes), dtype=wide(rows.device), device=rows.device)
    for k, columns in pieces(sizes):
        squares[:, k] += torch.linalg.vector_norm(rows[:, columns], dim=1, dtype=squares.dtype) ** 2
    return squares.sqrt()


def mix(old: Tensor, new: Tensor, keep: Tensor, take: Tensor, sizes: Sequence[int]) -> Tensor:
    """``keep * old + take * new`` [m, P]; the factors [m, n] are per row and tensor."""
    keep, take, out = keep.to(old), take.to(new), torch.empty_like(new)
    for k, columns in pieces(sizes):
        part = torch.mul(old[:, columns], keep[:, k : k + 1], out=out[:, columns])
        part.addcmul_(new[:, columns], take[:, k : k + 1])
    return out


# the rows as directions: over their lengths, without a copy of them


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
