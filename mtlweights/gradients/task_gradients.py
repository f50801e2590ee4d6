"""Task gradients out of autograd, and what strategies look at: their Gramian, their Jacobian.

Letters: T tasks, m <= T present, n parameters, P their elements. A *row* is one task's gradient, held as
one tensor (or None: not reached) per parameter, so no row is ever copied into a flat vector unless a
JacobianStrategy asks for it. A complex parameter is two real ones, its gradient [..., 2].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors
from torch.autograd.graph import GradientEdge

from . import factored
from .batched import Gradients, one_by_one
from .factored import Product, Weight
from .graph import Use, unhooked
from .inner_products import BATCH, BLOCK, inner

#: losses, inputs, seeds and whether to keep the graph -> the losses' gradients
Passes = Callable[[Sequence[Tensor], Sequence[Any], Sequence[Tensor], bool], Gradients]
Row = list[Any]  # per parameter a Tensor, a Product, an Own, or None


@dataclass
class Own:
    """One rank's own gradient, to be weighted first and added up over the ranks then.

    All n rows have one in a parameter, or None, on every rank alike.
    """

    gradient: Tensor | Product | None  #: None where another rank has one
    share: float  #: the rank's items of the task over those of all ranks
    gram: Tensor | None = None  #: [n, n], of the averaged rows in this parameter; None where none is taken


def rows(
    losses: Sequence[Tensor],
    params: Sequence[Tensor],
    factor: Tensor,
    *,
    retain_graph: bool = False,
    factored: Mapping[int, list[Use]] | None = None,
    passes: Passes = one_by_one,
) -> list[Row]:
    """The gradient of ``factor * loss`` in every parameter, by ``passes``: one per loss.

    ``factor`` is the gradient that reached the balancer (AMP scale, 1/accumulation); it stays in the rows,
    so that small gradients do not underflow. The graph is freed by the last pass unless ``retain_graph``.
    For the weights in ``factored`` the pass stops at their operations' outputs: those gradients are Products.
    """
    alive = [i for i, loss in enumerate(losses) if loss.requires_grad]
    out: list[Row] = [[None] * len(params) for _ in losses]
    kept = {} if factored is None else factored
    whole = [k for k in range(len(params)) if k not in kept]
    wanted = [params[k] for k in whole]
    edges = [GradientEdge(use.node, 0) for uses in kept.values() for use in uses]
    inputs: Any = [*wanted, *edges]
    if not inputs or not alive:
        return out
    some = [losses[i] for i in alive]
    seeds = [factor.to(loss.device, loss.dtype) for loss in some]
    with unhooked(wanted):
        found = passes(some, inputs, seeds, retain_graph)
    for i, grads in zip(alive, found, strict=True):
        for k, gradient in zip(whole, grads, strict=False):
            out[i][k] = _real(gradient)
        outputs = iter(grads[len(whole) :])
        for k, uses in kept.items():
            product = Product(params[k], uses, [next(outputs) for _ in uses])
            out[i][k] = product if product.reached else None
    return out


def weighted_pass(
    losses: Sequence[Tensor],
    weights: Sequence[Weight],
    params: Sequence[Tensor],
    factor: Tensor,
    *,
    retain_graph: bool = False,
) -> Row:
    """The gradient of ``factor * sum(weights * losses)`` in one backward pass."""
    alive = [(loss, w) for loss, w in zip(losses, weights, strict=True) if loss.requires_grad]
    if not alive or not params:
        return [None] * len(params)
    seeds = [(factor * w).to(loss.device, loss.dtype) for loss, w in alive]
    with unhooked(params):
        grads = torch.autograd.grad(
            [loss for loss, _ in alive], params, seeds, retain_graph=retain_graph, allow_unused=True
        )
    return [_real(gradient) for gradient in grads]


def _real(gradient: Tensor | None) -> Tensor | None:
    """A complex gradient as a real one [..., 2], with its inner products and combinations."""
    if gradient is None or not gradient.is_complex():
        return gradient
    return torch.view_as_real(gradient.resolve_conj())


def blank(param: Tensor) -> Tensor:
    """Zeros, as a dense gradient in the parameter."""
    zeros = torch.zeros_like(param, layout=torch.strided)
    return torch.view_as_real(zeros) if zeros.is_complex() else zeros


def gramian(rows: Sequence[Row], columns: Sequence[int]) -> Tensor:
    """Inner products of the rows over the parameters ``columns``, [m, m], as `inner` gives them."""
    terms: list[Tensor] = []
    short: list[list[Tensor]] = []
    for column in columns:
        gradients = [row[column] for row in rows]
        own = next((gradient for gradient in gradients if isinstance(gradient, Own)), None)
        if own is not None:
            assert own.gram is not None, "a parameter is measured that was not exchanged"
            terms.append(own.gram)
            continue
        if any(isinstance(gradient, Product) for gradient in gradients):
            terms.append(factored.gramian(gradients))
            continue
        like = next((gradient for gradient in gradients if gradient is not None), None)
        if like is None:
            continue
        block = BLOCK if like.device.type == "cpu" else BATCH // len(rows)
        if like.numel() >= block:
            terms.append(inner([None if gradient is None else _flat(gradient) for gradient in gradients]))
            continue
        short.append(_filled(gradients, like))
        if like.device.type != "cpu" and sum(pieces[0].numel() for pieces in short) >= block:
            terms.append(_end_to_end(short))
            short = []
    if short:
        terms.append(_end_to_end(short))
    if not terms:
        return torch.zeros(len(rows), len(rows), dtype=torch.float64)
    return torch.stack([term.to(terms[0].device) for term in terms]).sum(0)


def _end_to_end(short: Sequence[Sequence[Tensor]]) -> Tensor:
    """The Gramian over several parameters, by few products for all of them."""
    return inner([_flatten_dense_tensors(pieces) for pieces in zip(*short, strict=True)])


def _filled(gradients: Sequence[Tensor | None], like: Tensor) -> list[Tensor]:
    """Dense, with zeros for None."""
    whole = [g.to_dense() if g is not None and g.is_sparse else g for g in gradients]
    return [torch.zeros_like(like, layout=torch.strided) if g is None else g for g in whole]


def _flat(gradient: Tensor) -> Tensor:
    """One dense dimension."""
    return (gradient.to_dense() if gradient.is_sparse else gradient).reshape(-1)


def size(param: Tensor) -> int:
    """Real numbers in a parameter."""
    return param.numel() * (2 if param.is_complex() else 1)


def jacobian(rows: Sequence[Row], columns: Sequence[int], params: Sequence[Tensor]) -> Tensor:
    """The rows over the parameters ``columns`` as one matrix [m, P], zero where not reached.

    Float32 for narrower parameters; a complex number is two columns.
    """
    whole = [[blank(params[c]) if row[c] is None else row[c] for c in columns] for row in rows]
    matrix = torch.stack([torch.cat([_flat(gradient) for gradient in row]) for row in whole])
    return matrix.to(torch.promote_types(matrix.dtype, torch.float32))


def unflatten(
    direction: Tensor, columns: Sequence[int], params: Sequence[Tensor], sparse: Sequence[bool]
) -> dict[int, Tensor]:
    """Cut a direction [P] back into one tensor per parameter, sparse in its rows where ``sparse``."""
    pieces = direction.split([size(params[c]) for c in columns])
    shaped = [piece.view(shape(params[c])) for c, piece in zip(columns, pieces, strict=True)]
    return {
        c: piece.to_sparse(1) if thin else piece
        for c, piece, thin in zip(columns, shaped, sparse, strict=True)
    }


def shape(param: Tensor) -> tuple[int, ...]:
    """The shape of a gradient in the parameter."""
    return (*param.shape, 2) if param.is_complex() else tuple(param.shape)


def is_sparse(rows: Sequence[Row], column: int) -> bool:
    """A row is sparse in this parameter, so its gradient is to be."""
    return any(isinstance(row[column], Tensor) and row[column].is_sparse for row in rows)


def differentiate(
    combine: Callable[[Tensor], Tensor], losses: Tensor, learned: Sequence[Tensor]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Value [], weights [m] and the gradients of the learned parameters of a LossStrategy.

    Only the m detached loss values take part: the model's graph is not touched.

    Raises ValueError if ``combine`` gives no scalar that depends on them.
    """
    with torch.enable_grad():
        point = losses.detach().requires_grad_()
        value = combine(point)
        if not (isinstance(value, Tensor) and value.dim() == 0 and value.requires_grad):
            found = type(value).__name__ + (f" {list(value.shape)}" if isinstance(value, Tensor) else "")
            raise ValueError(f"combine should return a scalar that depends on the losses, found {found}.")
        grads = torch.autograd.grad(value, [point, *learned], allow_unused=True)
    filled = [torch.zeros_like(x) if g is None else g for x, g in zip([point, *learned], grads, strict=True)]
    return value.detach(), filled[0], filled[1:]
