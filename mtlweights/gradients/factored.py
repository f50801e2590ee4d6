"""Gradients of weights that are never formed: the two factors of a matrix product are enough.

A linear layer with inputs A [N, i] and output gradients D_t [N, o] has the weight gradient D_t^T A. Inner
products of two tasks' gradients are ``sum((A A^T) * (D_s D_t^T))``, and their weighted sum is
``(sum_t w_t D_t)^T A``: one product for all tasks. An embedding's gradient is D_t summed by token id.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .graph import Graph, Use, uses
from .inner_products import inner, mix

Weight = float | Tensor

BLOCK = 1 << 17  # elements of all tasks' factors that are in float64 at a time: they stay in a CPU's cache
LARGE = 1 << 22  # where that would be too few columns at a time
TRAFFIC = 100  # writing, reading and freeing one element of a row costs about as much as this many products


@dataclass
class Product:
    """One task's gradient in one weight, as factors; ``outputs`` [N, o] per use, None where not reached."""

    weight: Tensor
    uses: list[Use]  #: shared by all tasks
    outputs: list[Tensor | None]

    @property
    def reached(self) -> bool:
        """Whether the task's loss depends on this weight."""
        return any(output is not None for output in self.outputs)

    def dense(self) -> Tensor:
        """The gradient itself, of the weight's shape."""
        return _form(self.weight, self.uses, self.outputs)


def plan(graph: Graph, n_tasks: int, params: Sequence[Tensor], all_of_them: bool) -> dict[int, list[Use]]:
    """The weights whose gradients stay factors, by place in ``params``.

    Args:
        graph: of the losses of ``n_tasks`` tasks.
        params: where gradients are wanted.
        all_of_them: also where they are slower than a row, but smaller.
    """
    if any(param.device.type == "mps" for param in params):  # no float64
        return {}
    found = uses(graph, params)
    small = {k: all_of_them and elements(params[k], u) < params[k].numel() for k, u in found.items()}
    return {k: u for k, u in found.items() if small[k] or _faster(params[k], u, n_tasks)}


def elements(weight: Tensor, uses: Sequence[Use]) -> int:
    """Elements that one task's factors take: D [N, o]."""
    width, _ = widths(weight, uses[0].kind)
    return width * sum(len(use.input) for use in uses)


def _faster(weight: Tensor, uses: Sequence[Use], n_tasks: int) -> bool:
    """Compare multiplications and memory traffic of both ways."""
    n, size = sum(len(use.input) for use in uses), weight.numel()
    if weight.is_cuda and uses[0].kind == "linear" and 2 * n > min(weight.shape):
        return False  # a row is written by fast kernels, and many products in float64 are not fast
    rows = TRAFFIC * n_tasks * size
    if uses[0].kind == "embedding":
        return TRAFFIC * n * weight.shape[1] * n_tasks < rows
    outputs, inputs = widths(weight, uses[0].kind)
    return _closed(n, outputs, inputs, n_tasks) + n * size < n_tasks * n * size + rows


def widths(weight: Tensor, kind: str) -> tuple[int, int]:
    """Columns of D and of A."""
    outputs, inputs = weight.shape if kind == "linear" else reversed(weight.shape)
    return outputs, inputs


def _closed(n: int, outputs: int, inputs: int, n_tasks: int) -> int:
    """Multiplications of the Gramian through A A^T."""
    return n * n * (inputs + n_tasks * outputs) + n_tasks * n_tasks * n * outputs


def gramian(products: Sequence[Product | None]) -> Tensor:
    """The Gramian [m, m], float64, of these gradients in one weight.

    Of what exact arithmetic makes of the float32 factors, to 1e-15 of the terms it is summed from: their
    cosines are right to 1e-12 unless samples cancel to less than a thirtieth. A gradient formed in float32 is
    right to 1e-7 of its terms, as is the direction that is written: far more than is lost here.
    """
    first = next(p for p in products if p is not None)
    found = [None if p is None else outputs_of(p) for p in products]
    return of_factors(first.uses[0].kind, found, inputs_of(first.uses))


def of_factors(kind: str, found: Sequence[Tensor | None], inputs: Tensor) -> Tensor:
    """`gramian` from D [N, o] of each of the m tasks, None where not reached, and A or the token ids."""
    n, m = len(inputs), len(found)
    outputs = next((d.shape[1] for d in found if d is not None), 0)
    size = outputs * (1 if kind == "embedding" else inputs.shape[1])
    if not n or not size:
        return torch.zeros(m, m, dtype=torch.float64, device=inputs.device)
    if kind == "embedding":
        return _of_tokens(found, inputs)
    if _closed(n, outputs, inputs.shape[1], m) < m * (m + n) * size:
        return _of_samples(found, inputs)
    return _of_formed(found, inputs)


def combine(products: Sequence[Product | None], weights: Sequence[Weight], wide: bool = False) -> Tensor:
    """``sum_i weights[i] * gradient_i``, of the weight's shape; ``wide``: D is summed in float64."""
    first = next(p for p in products if p is not None)
    outputs: list[Tensor | None] = []
    for k in range(len(first.uses)):
        total: Tensor | None = None
        parts = [p if p is None else p.outputs[k] for p in products]
        some = [(d, w) for d, w in zip(parts, weights, strict=True) if d is not None]
        if wide and some:
            total = mix([d for d, _ in some], [w for _, w in some])
        else:
            for d, w in some:
                total = d * w if total is None else torch.add(total, d * w)
        outputs.append(total)
    return _form(first.weight, first.uses, outputs)


def _blocks(found: Sequence[Tensor | None], elements: int) -> Iterator[list[Tensor]]:
    """D of all tasks, zero where not reached: m times [N, c], with c columns of ``elements`` for a task."""
    like = next(d for d in found if d is not None)
    blank = like.new_zeros(1, 1).expand_as(like)
    step = max(1, elements // len(found))
    return (list(x) for x in zip(*[(blank if d is None else d).split(step, 1) for d in found], strict=True))


def _of_samples(found: Sequence[Tensor | None], inputs: Tensor) -> Tensor:
    """``sum((A A^T) * (D_s D_t^T))``."""
    n, device = len(inputs), inputs.device
    columns = (BLOCK if device.type == "cpu" else LARGE) // n
    kernel = torch.zeros(n, n, dtype=torch.float64, device=device)
    for part in inputs.split(max(1, columns), 1):
        wide = part.double()
        kernel.addmm_(wide, wide.T)
    grams = []
    for block in _blocks(found, columns):
        outputs = torch.stack(block).double()
        products = torch.bmm(kernel.expand(len(block), -1, -1), outputs)
        grams.append(outputs.flatten(1) @ products.flatten(1).T)
    gram = torch.stack(grams).sum(0)
    return (gram + gram.T) / 2


def _of_formed(found: Sequence[Tensor | None], inputs: Tensor) -> Tensor:
    """Of the gradients, formed some columns of D at a time."""
    n, width = inputs.shape
    step = max(1, LARGE // width)
    grams = []
    for block in _blocks(found, step):
        rows = [d.new_zeros(d.shape[1], width, dtype=torch.float64) for d in block]
        for start in range(0, n, step):
            wide = inputs[start : start + step].double()
            for row, d in zip(rows, block, strict=True):
                row.addmm_(d[start : start + step].double().T, wide)
        grams.append(inner([row.view(-1) for row in rows]))
    return torch.stack(grams).sum(0)


def _of_tokens(found: Sequence[Tensor | None], ids: Tensor) -> Tensor:
    """Of an embedding's gradients: D summed by token, padding in a row that is left out."""
    n = len(ids)
    ordered, order = ids.sort()
    place = torch.empty_like(ids)
    place[order] = torch.cat([ids.new_zeros(1), (ordered[1:] != ordered[:-1]).cumsum(0)])
    place = torch.where(ids < 0, n, place)
    grams = []
    for block in _blocks(found, LARGE // n):
        blank = torch.zeros(n + 1, block[0].shape[1], dtype=torch.float64, device=ids.device)
        rows = [blank.index_add(0, place, d.double())[:n] for d in block]
        grams.append(inner([row.view(-1) for row in rows]))
    return torch.stack(grams).sum(0)


def inputs_of(uses: Sequence[Use]) -> Tensor:
    """A, or the token ids, over all uses."""
    return torch.cat([use.input for use in uses]) if len(uses) > 1 else uses[0].input


def outputs_of(product: Product) -> Tensor:
    """D [N, o] over all uses, zero where not reached."""
    width, _ = widths(product.weight, product.uses[0].kind)
    like = next(d for d in product.outputs if d is not None)
    parts = [
        like.new_zeros(len(use.input), width) if d is None else d.reshape(-1, width)
        for use, d in zip(product.uses, product.outputs, strict=True)
    ]
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _tokens(d: Tensor, ids: Tensor) -> Tensor:
    """D [N, width] of an embedding, zero at padding; no host read, as an index of the others would be."""
    return torch.where((ids >= 0)[:, None], d.reshape(len(ids), d.shape[-1]), 0.0)


def _form(weight: Tensor, uses: Sequence[Use], outputs: Sequence[Tensor | None]) -> Tensor:
    total: Tensor | None = None
    for use, d in zip(uses, outputs, strict=True):
        if d is None:
            continue
        if use.kind == "embedding":
            total = weight.new_zeros(weight.shape) if total is None else total
            total.index_add_(0, use.input.clamp(min=0), _tokens(d, use.input).to(weight.dtype))
            continue
        a, b = (d, use.input) if use.kind == "linear" else (use.input, d)
        if total is None:
            total = (a.T @ b).to(weight.dtype)
        elif a.dtype == weight.dtype:
            total.addmm_(a.T, b)
        else:
            total += a.T @ b
    assert total is not None
    return total
