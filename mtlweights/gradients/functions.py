"""The scalars a Balancer returns: what their backward does, and what else may go through their graph."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .graph import Graph
from .write_grad import Found, accumulate, as_gradient

Run = Callable[[Tensor, bool], Found]


def refuse_transforms(losses: Sequence[Tensor]) -> None:
    """Raise ValueError for losses inside ``torch.func``'s grad, vmap and the like."""
    if any(torch._C._functorch.is_functorch_wrapped_tensor(loss) for loss in losses):
        raise ValueError(
            "A loss comes from inside a torch.func transform (grad, vmap, jacrev ...), which cannot go "
            "through a balancer: take the losses' gradients there, or call the balancer outside of it."
        )


def _refuse_create_graph() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "The balancer's weights are constants: backward(create_graph=True) is not supported. "
            "Differentiate the losses yourself and pass the result to the balancer."
        )


class Weighted(torch.autograd.Function):
    """A LossStrategy's scalar: its backward hands each loss its weight, in one ordinary pass."""

    @staticmethod
    def forward(ctx, value, weights, done, *losses):  # type: ignore[no-untyped-def]
        """The objective's value; ``weights`` [m] wait for the backward, ``done`` is called by it."""
        ctx.weights, ctx.done = weights, done
        ctx.like = [(loss.device, loss.dtype) for loss in losses]
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        """Each loss's weight times the incoming gradient."""
        _refuse_create_graph()
        ctx.done()
        parts = (ctx.weights * gradient).unbind()
        return None, None, None, *(p.to(*like) for p, like in zip(parts, ctx.like, strict=True))


class Deferred(torch.autograd.Function):
    """The scalar of every other strategy: a function of the leaves, whose gradients ``run`` finds.

    The outer engine hands them to the leaves as any others, with hooks, ``inputs=`` and all, and never walks
    the model's graph, which ``run`` goes through once per task. Where it hangs on no leaves (under DDP, whose
    reducer would take the result for one rank's part, and on shards) ``.grad`` is written here.
    """

    @staticmethod
    def forward(ctx, value, run, graph, shares, *leaves):  # type: ignore[no-untyped-def]
        """``value``, tied to ``leaves``."""
        ctx.run, ctx.graph, ctx.shares, ctx.leaves = run, graph, shares, leaves
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        """The gradient in each leaf that has one."""
        _refuse_create_graph()
        if ctx.run is None:
            raise RuntimeError("Backward a second time: pass retain_graph=True to the first backward.")
        again = torch._C._autograd._get_current_graph_task_keep_graph()
        keep = again or _shared_graph(ctx)
        run, graph = ctx.run, ctx.graph
        if not again:
            ctx.run = ctx.graph = None
        found, place = run(gradient, keep), {id(leaf): k for k, leaf in enumerate(ctx.leaves)}
        del run, graph
        out: list[Tensor | None] = [None] * len(ctx.leaves)
        while found:
            param, part = found.pop()
            if id(param) in place:
                out[place[id(param)]] = as_gradient(param, part)
            else:
                accumulate(param, part)
            del part
        return None, None, None, None, *out


_waiting: weakref.WeakSet[Any] = weakref.WeakSet()  #: nodes of scalars whose backward may still come


def defer(
    value: Tensor, run: Run, graph: Graph | None, leaves: Sequence[Tensor], shares: bool = True
) -> Tensor:
    """A scalar [] of this ``value`` whose backward is ``run(gradient, keep)``, which goes through ``graph``.

    ``run`` must keep the graph's buffers if ``keep`` says so: of the backward that is running, other parts
    go through it as well, which is refused unless it ``shares``. Without ``leaves`` the scalar hangs on one
    of its own.
    """
    if not leaves:
        anchor = torch.zeros((), device=value.device, requires_grad=True)
        anchor._is_anchor = True  # type: ignore[attr-defined]
        leaves = [anchor]
    scalar: Tensor = Deferred.apply(value, run, graph, shares, *leaves)  # type: ignore[no-untyped-call]
    _waiting.add(scalar.grad_fn)
    return scalar


def _shared_graph(ctx: Any) -> bool:
    """Whether the backward that is running goes through this scalar's graph by another way.

    A term of the user's own, or another balancer's scalar. This node runs before any node of its graph, all
    of which were made before it.
    """
    in_it = torch._C._will_engine_execute_node
    if any(node is not ctx and node.run is not None and in_it(node) for node in list(_waiting)):
        return True
    through = ctx.graph is not None and any(in_it(node) for node in ctx.graph.bottom)
    if through and not ctx.shares:
        raise ValueError(
            "With several processes no other term of a backward may go through the forward pass of the "
            "balancer's losses, since DDP would reduce a part of the gradients: add it to one of the losses."
        )
    return through


def after_backward(callback: Callable[[], None]) -> None:
    """Call ``callback`` when the backward pass now running has finished."""
    torch.autograd.Variable._execution_engine.queue_callback(callback)
