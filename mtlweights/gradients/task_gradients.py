"""The gradient engine: the only file that calls autograd.

Letters: T tasks, m <= T present, n parameters, P their elements. A *row* is one task's gradient, held as
one tensor (or None: not reached) per parameter, so no row is ever copied into a flat vector unless a
JacobianStrategy asks for it. A complex parameter is two real ones, its gradient [..., 2].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.backends import mkldnn

from . import factored
from .factored import Product, Weight
from .graph import Use, unhooked
from .inner_products import BATCH, BLOCK, inner, mix

Row = list[Any]  # per parameter a Tensor, a Product, or None
Found = list[tuple[Tensor, Tensor]]  # parameters and the step's gradients in them


GPUS = ("cuda",)


def rows(
    losses: Sequence[Tensor],
    params: Sequence[Tensor],
    factor: Tensor,
    *,
    retain_graph: bool = False,
    factored: Mapping[int, list[Use]] | None = None,
) -> list[Row]:
    """The gradient of ``factor * loss`` in every parameter, one backward pass per loss.

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
    for i in alive:
        keep = retain_graph or i != alive[-1]
        seed = factor.to(losses[i].device, losses[i].dtype)
        inputs: Any = [*wanted, *edges]
        if not inputs:
            continue
        with unhooked(wanted):
            grads = torch.autograd.grad(losses[i], inputs, seed, retain_graph=keep, allow_unused=True)
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


def as_gradient(param: Tensor, gradient: Tensor) -> Tensor:
    """What a parameter's ``.grad`` takes: of its type and shape, complex where it is."""
    if not param.is_complex():
        return gradient.to(param.dtype)
    parts = gradient.reshape(*param.shape, 2).to(param.real.dtype)
    return torch.view_as_complex(parts.clone())  # a pair that starts at an odd place is no complex number


def gramian(rows: Sequence[Row], columns: Sequence[int]) -> Tensor:
    """Inner products of the rows over the parameters ``columns``, [m, m], as `inner` gives them."""
    terms: list[Tensor] = []
    short: list[list[Tensor]] = []
    for column in columns:
        gradients = [row[column] for row in rows]
        if any(isinstance(gradient, Product) for gradient in gradients):
            terms.append(factored.gramian(gradients))
            continue
        like = next((gradient for gradient in gradients if gradient is not None), None)
        if like is None:
            continue
        flat = [None if gradient is None else _flat(gradient) for gradient in gradients]
        block = BLOCK if like.device.type == "cpu" else BATCH // len(rows)
        if like.numel() >= block:
            terms.append(inner(flat))
            continue
        blank = torch.zeros_like(_flat(like))
        short.append([blank if gradient is None else gradient for gradient in flat])
        if like.device.type != "cpu" and sum(len(pieces[0]) for pieces in short) >= block:
            terms.append(_end_to_end(short))
            short = []
    if short:
        terms.append(_end_to_end(short))
    if not terms:
        return torch.zeros(len(rows), len(rows), dtype=torch.float64)
    return torch.stack([term.to(terms[0].device) for term in terms]).sum(0)


def _end_to_end(short: Sequence[Sequence[Tensor]]) -> Tensor:
    """The Gramian over several parameters, by few products for all of them."""
    return inner([torch.cat(pieces) for pieces in zip(*short, strict=True)])


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


def combine(rows: Sequence[Row], column: int, weights: Sequence[Weight], wide: bool = False) -> Tensor | None:
    """``sum_i weights[i] * rows[i]`` for one parameter. Takes the gradients out of the rows.

    ``wide``: in float64, for rows that cancel; rounded in float32, each of them leaves an error of its own
    length, and so does its weight.
    The first product allocates: autograd may hand the same tensor to two parameters, or one with
    overlapping memory, so nothing that it returned is written to.
    """
    total: Tensor | None = None
    taken = [row[column] for row in rows]
    for row in rows:
        row[column] = None
    if any(isinstance(gradient, Product) for gradient in taken):
        return factored.combine(taken, weights, wide)
    some = [(g, w) for g, w in zip(taken, weights, strict=True) if g is not None]
    if wide and some and not any(g.is_sparse for g, _ in some):
        return mix([g for g, _ in some], [w for _, w in some])
    for k, weight in enumerate(weights):
        gradient, taken[k] = taken[k], None
        if gradient is None:
            continue
        if total is None:
            total = gradient * weight
        elif total.is_sparse or gradient.is_sparse or isinstance(weight, Tensor):
            total = total + gradient * weight
        else:
            total.add_(gradient, alpha=weight)
    return total


def combine_alike(rows: Sequence[Row], columns: Sequence[int], weights: Sequence[Weight]) -> dict[int, Any]:
    """`combine` for many parameters by few kernels: those on a GPU that every row reaches densely.

    A part of them at a time, whose gradients are taken out of the rows.
    """
    out: dict[int, Any] = {}
    if any(isinstance(weight, Tensor) for weight in weights):
        return out
    left = [c for c in columns if all(_is_dense_on_gpu(row[c]) for row in rows)]
    while left:
        these, elements = [], 0
        while left and elements < BATCH:
            these.append(left.pop(0))
            elements += rows[0][these[-1]].numel()
        lists: list[list[Any]] = [[row[c] for c in these] for row in rows]
        total: list[Any] = list(torch._foreach_mul(lists[0], weights[0]))
        for part, weight in zip(lists[1:], weights[1:], strict=True):
            torch._foreach_add_(total, part, alpha=float(weight))
        out |= zip(these, total, strict=True)
        for row in rows:
            for c in these:
                row[c] = None
    return out


def _is_dense_on_gpu(gradient: object) -> bool:
    return isinstance(gradient, Tensor) and not gradient.is_sparse and gradient.device.type in GPUS


def accumulate(param: Tensor, gradient: Tensor | None) -> None:
    """Add to ``param.grad``, and call what waits for it, as a backward pass through the leaf would."""
    if gradient is None:
        return
    gradient = as_gradient(param, gradient)
    for hook in list((param._backward_hooks or {}).values()):
        changed = hook(gradient)
        gradient = gradient if changed is None else changed
    if param.grad is None:
        param.grad = gradient
    elif gradient.is_sparse:
        param.grad = param.grad + gradient
    else:
        param.grad.add_(gradient)
    for waiting in (getattr(param, "_post_accumulate_grad_hooks", None) or {}).values():
        waiting(param)


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


@contextmanager
def no_autocast(device: torch.device) -> Iterator[None]:
    """Whatever the caller has switched on."""
    if not torch.is_autocast_enabled(device.type):
        yield
        return
    with torch.autocast(device.type, enabled=False):
        yield


@contextmanager
def full_precision() -> Iterator[None]:
    """A strategy's products in the precision of their operands: no TF32, no bfloat16 inside.

    Not for passes through the model, which are the caller's to speed up. torch has an older switch, and since
    2.9 one per backend, after whose use the older may not be read.
    """
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:
        before = "highest"
    if before != "highest":
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    found: list[Any] = [getattr(backend, "matmul", None) for backend in (torch.backends.cuda, mkldnn)]
    switches = [(switch, switch.fp32_precision) for switch in found if hasattr(switch, "fp32_precision")]
    for switch, _ in switches:
        switch.fp32_precision = "ieee"
    try:
        yield
    finally:
        for switch, setting in switches:
            switch.fp32_precision = setting


def keep_compiled_graphs() -> None:
    """Have torch.compile keep the buffers of its backward graphs, which several passes go through.

    By default a graph compiled for a single backward gives them away, and a second pass raises, or reads what
    the first one wrote over: inductor's cache on the disk does not tell graphs that give buffers away from
    those that do not, so entries made from now on get a key of their own. Settings of the process, for graphs
    compiled from now on.
    """
    from torch._functorch import config

    if getattr(config, "donated_buffer", False):
        config.donated_buffer = False
        cache: Any = getattr(torch.compiler, "config", None)
        if hasattr(cache, "cache_key_tag"):
            cache.cache_key_tag = f"{cache.cache_key_tag} buffers kept"
