"""Gradients of weights that are never formed: the two factors of a matrix product are enough.

A linear layer with inputs A [N, i] and output gradients D_t [N, o] has the weight gradient D_t^T A. Inner
products of two tasks' gradients are those of ``R D_t`` with ``R^T R = A A^T``, and their weighted sum is
``(sum_t w_t D_t)^T A``: one product for all tasks. An embedding's gradient is D_t summed by token id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .graph import Graph, Use, uses
from .inner import inner

Weight = float | Tensor

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
    width = weight.shape[0 if uses[0].kind == "linear" else 1]
    return width * sum(len(use.input) for use in uses)


def _faster(weight: Tensor, uses: Sequence[Use], n_tasks: int) -> bool:
    """Compare multiplications and memory traffic of both ways."""
    n, size = sum(len(use.input) for use in uses), weight.numel()
    rows = TRAFFIC * n_tasks * size
    if uses[0].kind == "embedding":
        return TRAFFIC * n * weight.shape[1] * n_tasks < rows
    return _closed(weight, uses, n_tasks) + n * size < n_tasks * n * size + rows


def _closed(weight: Tensor, uses: Sequence[Use], n_tasks: int) -> int:
    """Multiplications of the Gramian through A A^T."""
    n = sum(len(use.input) for use in uses)
    outputs, inputs = weight.shape if uses[0].kind == "linear" else reversed(weight.shape)
    return n * n * (inputs + n_tasks * outputs) + n_tasks * n_tasks * n * outputs


def gramian(products: Sequence[Product | None]) -> Tensor:
    """The Gramian [m, m], float64, of these gradients in one weight."""
    first = next(p for p in products if p is not None)
    uses, weight, m = first.uses, first.weight, len(products)
    inputs = torch.cat([use.input for use in uses]) if len(uses) > 1 else uses[0].input
    if uses[0].kind == "embedding":
        return _of_samples(_by_token(_stacked(products), inputs))
    if _closed(weight, uses, m) < m * (m + len(inputs)) * weight.numel():
        outputs = _stacked(products)
        return _of_samples((_root(inputs).to(outputs.dtype) @ outputs.flatten(1)).view_as(outputs))
    return inner([None if p is None else _float(p.dense()).reshape(-1) for p in products])


def combine(products: Sequence[Product | None], weights: Sequence[Weight]) -> Tensor:
    """``sum_i weights[i] * gradient_i``, of the weight's shape."""
    first = next(p for p in products if p is not None)
    outputs: list[Tensor | None] = []
    for k in range(len(first.uses)):
        total: Tensor | None = None
        for product, weight in zip(products, weights, strict=True):
            part = None if product is None else product.outputs[k]
            if part is not None:
                total = part * weight if total is None else torch.add(total, part * weight)
        outputs.append(total)
    return _form(first.weight, first.uses, outputs)


def _stacked(products: Sequence[Product | None]) -> Tensor:
    """D of all tasks [N, m, o], zero where not reached."""
    found = [None if p is None else _outputs(p) for p in products]
    like = next(d for d in found if d is not None)
    return torch.stack([torch.zeros_like(like) if d is None else d for d in found], 1)


def _of_samples(outputs: Tensor) -> Tensor:
    """The Gramian [m, m] of [N, m, o]: the sum of those of N samples."""
    gram = torch.bmm(outputs, outputs.mT).double().sum(0)
    return (gram + gram.T) / 2


def _root(inputs: Tensor) -> Tensor:
    """R [N, N] with R^T R = A A^T, so that R D_t has the inner products of the gradients, to their accuracy.

    ``sum((A A^T) * (D_s D_t^T))`` itself loses twice as many digits where samples cancel. The ridge, for an
    A A^T without full rank, is far below that.
    """
    wide = inputs.double()
    kernel = wide @ wide.T
    ridge = 1e-12 * kernel.diagonal().sum() + torch.finfo(wide.dtype).tiny
    kernel.diagonal().add_(ridge)
    root: Tensor = torch.linalg.cholesky_ex(kernel).L.T
    return root


def _float(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _outputs(product: Product) -> Tensor:
    """D [N, o] over all uses, zero where not reached."""
    width = product.weight.shape[0 if product.uses[0].kind == "linear" else 1]
    like = next(d for d in product.outputs if d is not None)
    parts = [
        like.new_zeros(len(use.input), width) if d is None else d.reshape(-1, width)
        for use, d in zip(product.uses, product.outputs, strict=True)
    ]
    return _float(torch.cat(parts) if len(parts) > 1 else parts[0])


def _by_token(outputs: Tensor, ids: Tensor) -> Tensor:
    """[N, m, o] summed by token: a row per token that occurs, in the order of ids, then zeros."""
    ordered, order = ids.sort()
    place = (ordered[1:] != ordered[:-1]).cumsum(0)
    place = torch.cat([place.new_zeros(1), place])
    rows = _tokens(outputs.flatten(1), ids)[order]
    return torch.zeros_like(rows).index_add_(0, place, rows).view_as(outputs)


def _tokens(d: Tensor, ids: Tensor) -> Tensor:
    """D [N, width] of an embedding, zero at padding; no host read, as an index of the others would be."""
    return torch.where((ids >= 0)[:, None], d.reshape(len(ids), -1), 0.0)


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
