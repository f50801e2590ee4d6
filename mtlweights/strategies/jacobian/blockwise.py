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


def gramian(rows: Tensor) -> Tensor:
    """Inner products of the rows [m, P], float64 [m, m] on their device."""
    blocks = (block.to(wide(rows.device)) for block in rows.split(BLOCK, 1))
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
