"""Inner products and weighted sums of rows in float64, in which float32 rows lose nothing.

Near-opposed gradients need that. The sine of a small angle is what is left of two squares that cancel: from
products in float32 no angle below 5e-4 is to be had, from these every angle that float32 rows can have.
No row is converted as a whole: blocks of all rows are, one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

BLOCK = 1 << 15  # rows shorter than this are worth putting end to end
BUFFER = 1 << 19  # elements of all rows together that a CPU converts at a time: they stay in its cache
LEAST, MOST = 1 << 14, 1 << 16  # of one row; a larger buffer costs more in page faults than it saves
PIECE = 1 << 17  # elements of one row that are weighted at a time
BATCH = 1 << 24  # elements of all rows together that a GPU converts at a time
STRIP = 1 << 12  # elements of one row in one of a GPU's parallel products
FEW = 10  # rows up to which a CPU's dot products are faster than its matrix products


def inner(rows: Sequence[Tensor | None]) -> Tensor:
    """The Gramian [m, m], float64, of m flat rows of one size; None is a row of zeros.

    On the rows' device, but on the CPU for one without float64. Each entry is right to 1e-13 of the product
    of the two rows' lengths, whatever the rows' real floating-point type and scale.
    """
    given = [row for row in rows if row is not None]
    make = {"cpu": _on_cpu, "mps": compensated}.get(given[0].device.type, by_strips)
    gram = make(given)
    if len(given) == len(rows):
        return gram
    for _ in range(2):  # rows, then columns: an index from the host would make it wait for the device
        blank, found = gram.new_zeros(gram.shape[1]), iter(gram.unbind())
        gram = torch.stack([blank if row is None else next(found) for row in rows]).T
    return gram


def mix(rows: Sequence[Tensor], weights: Sequence[float | Tensor]) -> Tensor:
    """``sum_i weights[i] * rows[i]``, rounded once, to the type of the rows, which are of one shape."""
    out = torch.empty_like(rows[0], memory_format=torch.contiguous_format)
    short = out.device.type == "mps"
    wide = out.dtype if short else torch.promote_types(out.dtype, torch.float64)
    pieces = [row.reshape(-1).split(PIECE) for row in rows]
    for k, piece in enumerate(out.view(-1).split(PIECE)):
        piece.copy_(sum(row[k].to(wide) * weight for row, weight in zip(pieces, weights, strict=True)))
    return out


def _on_cpu(rows: Sequence[Tensor]) -> Tensor:
    m, n = len(rows), rows[0].numel()
    step = max(1, min(n, MOST, max(LEAST, BUFFER // m)))
    wide = torch.empty(m, step, dtype=torch.float64)
    array, gram = wide.numpy(), np.zeros((m, m))
    for start in range(0, n, step):
        size = min(step, n - start)
        for place, row in zip(wide, rows, strict=True):
            place[:size].copy_(row[start : start + size])
        block = array[:, :size]
        with np.errstate(all="ignore"):  # a row that is not finite is the caller's to see
            gram += _by_dots(block) if m <= FEW else block @ block.T
    return torch.from_numpy(gram)


def _by_dots(rows: np.ndarray) -> np.ndarray:
    gram = np.empty((len(rows), len(rows)))
    for i, row in enumerate(rows):
        for j in range(i + 1):
            gram[i, j] = gram[j, i] = row.dot(rows[j])
    return gram


def by_strips(rows: Sequence[Tensor]) -> Tensor:
    """The Gramian on a GPU: one product is too few for it, so many short ones at a time."""
    m, n = len(rows), rows[0].numel()
    gram = torch.zeros(m, m, dtype=torch.float64, device=rows[0].device)
    step = max(1, BATCH // m // STRIP) * STRIP
    for start in range(0, n, step):
        wide = torch.stack([row[start : start + step].double() for row in rows])
        even = wide.shape[1] // STRIP * STRIP
        strips = wide[:, :even].unflatten(1, (-1, STRIP)).transpose(0, 1)
        gram += torch.bmm(strips, strips.mT).sum(0)
        gram.addmm_(wide[:, even:], wide[:, even:].T)
    return (gram + gram.T) / 2  # a product with itself is not symmetric to the last digit


def compensated(rows: Sequence[Tensor]) -> Tensor:
    """The Gramian, on the CPU, of rows on a device without float64: float32 with all that it rounds off.

    Products by T. J. Dekker, "A floating-point technique for extending the available precision", Numerische
    Mathematik 18, 1971; their sum as in algorithm 5.3 of T. Ogita, S. M. Rump, S. Oishi, "Accurate sum and
    dot product", SIAM Journal on Scientific Computing 26, 2005, but by halves.
    """
    m, n = len(rows), rows[0].numel()
    tops = torch.stack([row.abs().amax().float() for row in rows]).tolist() if n else [0.0] * m
    # Rows of about 1, by powers of two: no square overflows, and none that counts underflows.
    powers = [max(-126, min(126, -math.frexp(top)[1])) if math.isfinite(top) else 0 for top in tops]
    step, parts = max(LEAST, BATCH // m), []
    for start in range(0, n, step):
        pieces = [row[start : start + step].float() * 2.0**k for row, k in zip(rows, powers, strict=True)]
        block = torch.stack(pieces)
        sums = [_sum(*_product(block[i], block[: i + 1])) for i in range(m)]
        parts.append(torch.stack([torch.cat(part) for part in zip(*sums, strict=True)]))
    gram = torch.zeros(m, m, dtype=torch.float64)
    left, right = torch.tril_indices(m, m)
    total = torch.stack(parts).cpu().double().sum((0, 1)) if parts else gram.new_zeros(1)
    gram[left, right] = gram[right, left] = total
    scale = torch.tensor(powers, dtype=torch.float64).neg().exp2()
    return gram * scale * scale[:, None]


def _product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """``a * b`` as rounded, and what that rounded off."""
    product = a * b
    (high, low), (upper, lower) = _halves(a), _halves(b)
    return product, ((high * upper - product) + high * lower + low * upper) + low * lower


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Two numbers of 12 digits that sum to one of 24."""
    large = x * 4097
    high = large - (large - x)
    return high, x - high


def _sum(terms: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """The sums [k] of terms [k, n], and of what they and the summation rounded off."""
    while terms.shape[1] > 1:
        if terms.shape[1] % 2:
            terms, rest = (torch.nn.functional.pad(x, (0, 1)) for x in (terms, rest))
        (a, b), (first, second) = terms.chunk(2, 1), rest.chunk(2, 1)
        terms = a + b
        seen = terms - a
        rest = first + second + ((a - (terms - seen)) + (b - seen))
    return terms[:, 0], rest[:, 0]
