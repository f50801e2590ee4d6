"""Reading the autograd graph: its leaves, which loss reaches which, and how they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

PRODUCTS = {"AddmmBackward0": 2, "MmBackward0": 1}  # name -> place of the weight
SEVERAL = ("_DDPSinkBackward", "CompiledFunctionBackward")  # nodes of several values
UNSIGNED = 1 << 63  # a padding index of -1 arrives as an unsigned number
Edge = tuple[Any, int]  # a node and which of its outputs, None at the end of the graph
Probe = Callable[[Node, int], "frozenset[int] | None"]


CAPTURED = "GraphedBackward"  # of torch.cuda.make_graphed_callables


def captured(loss: Tensor, stop: Node | None = None) -> list[Node]:
    """The captured CUDA graphs behind a loss, down to the node ``stop``."""
    seen, stack, found = set(), [loss.grad_fn], []
    while stack:
        node = stack.pop()
        if node is None or node is stop or node in seen:
            continue
        seen.add(node)
        found += [node] if type(node).__name__ == CAPTURED else []
        stack += [following for following, _ in node.next_functions]
    return found


def nodes(losses: Iterable[Tensor]) -> Iterator[Node]:
    """Every node of the graph behind the losses, once, as far as the caller goes on."""
    stack = [loss.grad_fn for loss in losses if loss.grad_fn is not None]
    seen = set(stack)
    while stack:
        node = stack.pop()
        yield node
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                stack.append(following)


def leaf(node: Node) -> Tensor | None:
    """The leaf whose gradient this node accumulates, if it is such a node."""
    return getattr(node, "variable", None) if type(node).__name__ == "AccumulateGrad" else None


class Graph:
    """The graph behind some losses, walked once.

    A set of leaves is an int here, bit k for ``leaves[k]``. The walk follows values, not nodes, where one
    node holds several values that do not depend on each other: all that DDP returns, all that a compiled
    function returns.

    Args:
        losses: One per task; one without a graph reaches nothing.
        probe: (node of a compiled function, output) -> places of its inputs on which that output depends,
            None where that cannot be told.

    Raises:
        ValueError: reentrant checkpointing, or another balancer's scalar that hangs on no parameters.
    """

    def __init__(self, losses: Sequence[Tensor], probe: Probe) -> None:
        self.leaves: list[Tensor] = []
        self.nodes: list[Node] = []  #: of the leaves
        self.following: dict[Node, tuple[Edge, ...]] = {}  #: node -> what its gradient goes to
        #: nodes that end in leaves: what else goes through any part of this graph goes through some of them
        self.bottom: list[Node] = []
        self.compiled = self._several = False
        #: a captured CUDA graph is in it, which can go backward once for each forward
        self.replayed = False
        self._probe = probe
        self._below: dict[Any, int] = {}
        self._through: dict[Edge, int] = {}  # for nodes of several values
        #: the losses' own values
        self.roots = [_root(loss) for loss in losses]
        self.reached = [0 if edge is None else self._reach(edge) for edge in self.roots]

    def _reach(self, root: Edge) -> int:
        """The leaves below a value, after a walk from its node in postorder."""
        below, following, stack = self._below, self.following, [root[0]]
        while stack:
            node = stack[-1]
            if node in below:
                stack.pop()
                continue
            edges = following.get(node)
            if edges is None:
                edges = following[node] = node.next_functions
                waiting = [n for n, _ in edges if n is not None and n not in below]
                if waiting:
                    stack += waiting
                    continue
            below[node] = self._visit(node, edges) if edges else self._end(node)
            stack.pop()
        return self._value(root)

    def _visit(self, node: Node, edges: Sequence[Edge]) -> int:
        """The leaves below all values of a node whose following nodes are known."""
        following, kind = self.following, type(node).__name__
        if kind == "CheckpointFunctionBackward":
            raise ValueError(
                "Reentrant activation checkpointing hides parameters from per-task gradients: "
                "use checkpoint(..., use_reentrant=False)."
            )
        found, last = 0, True
        for edge in edges:
            if edge[0] is not None:
                found |= self._value(edge) if self._several else self._below[edge[0]]
                last = last and not following[edge[0]]
        if last:
            self.bottom.append(node)
        self.replayed |= kind == CAPTURED
        if kind in SEVERAL:
            self._several = True
            self.compiled |= kind == "CompiledFunctionBackward"
        return found

    def _end(self, node: Node) -> int:
        """A leaf, if this node accumulates the gradient of one."""
        param = leaf(node)
        if param is None:
            return 0
        if param.dim() == 0 and hasattr(param, "_is_anchor"):
            raise ValueError(
                "A loss is the scalar of another balancer whose gradient is not known yet (several "
                "processes, FSDP2, an accumulation window): give this balancer the losses themselves, or "
                "the inner one a loss-based strategy."
            )
        self.nodes.append(node)
        self.leaves.append(param)
        return 1 << len(self.leaves) - 1

    def _value(self, edge: Edge) -> int:
        """The leaves below one value of a node that was visited."""
        node = edge[0]
        kind = type(node).__name__
        if kind not in SEVERAL:
            return self._below[node]
        edges = self.following[node]
        if kind == "_DDPSinkBackward":
            return self._value(edges[edge[1]]) if edges[edge[1]][0] is not None else 0
        if edge not in self._through:
            places = self._probe(*edge)
            found = 0
            for k in range(len(edges)) if places is None else places:
                found |= self._value(edges[k]) if edges[k][0] is not None else 0
            self._through[edge] = found
        return self._through[edge]

    def behind(self) -> dict[Node, int]:
        """Of every node the losses behind which it is, bit k for the k-th that has a graph."""
        found = dict.fromkeys(self._below, 0)
        for bit, (node, _) in enumerate(root for root in self.roots if root is not None):
            found[node] |= 1 << bit
        for node in reversed(self._below):  # of a postorder: a node comes after all that lead to it
            for following, _ in self.following[node]:
                if following is not None:
                    found[following] |= found[node]
        return found

    def order(self) -> list[tuple[int, int]]:
        """When each leaf is used last in the forward pass: the operation, and the place in a compiled one."""
        place = {node: k for k, node in enumerate(self.nodes)}
        last = [(-1, 0)] * len(self.leaves)
        for node, edges in self.following.items():
            inside = type(node).__name__ == "CompiledFunctionBackward"
            for at, (following, _) in enumerate(edges):
                for k in self._used(following, place):
                    last[k] = max(last[k], (node._sequence_nr(), at if inside else 0))
        return last

    def _used(self, node: Any, place: dict[Node, int]) -> Iterator[int]:
        """The leaf an operation takes, also through a cast or a transpose of it."""
        for _ in range(4):
            if node in place:
                yield place[node]
            edges = self.following.get(node, ())
            if len(edges) != 1:
                break
            node = edges[0][0]


def _root(loss: Tensor) -> Edge | None:
    if loss.grad_fn is not None:
        return loss.grad_fn, loss.output_nr
    return (get_gradient_edge(loss).node, 0) if loss.requires_grad else None


@contextmanager
def unhooked(params: Iterable[Tensor]) -> Iterator[None]:
    """Without the hooks of these leaves, which are for their final gradients and not for a task's."""
    taken = [(p._backward_hooks, dict(p._backward_hooks)) for p in params if p._backward_hooks]
    for hooks, _ in taken:
        hooks.clear()  # in place: autograd holds this very dict
    try:
        yield
    finally:
        for hooks, before in taken:
            hooks.update(before)


def depends(node: Any, output: int) -> frozenset[int] | None:
    """Places of a compiled function's inputs that one of its outputs depends on, seen by sending NaN back.

    Its backward returns zeros, not None, for what an output does not reach; so it also does where a weight or
    a mask is zero, but NaN times zero is NaN. None: nothing came through, which says nothing.
    """
    metadata = node._input_metadata[output]
    seed = torch.full(metadata.shape, torch.nan, dtype=metadata.dtype, device=metadata.device)
    places = [k for k, (following, _) in enumerate(node.next_functions) if following is not None]
    ends = [GradientEdge(*node.next_functions[k]) for k in places]
    leaves = [param for end in ends if (param := leaf(end.node)) is not None]
    with torch.autograd.set_detect_anomaly(False), unhooked(leaves):
        found = torch.autograd.grad(
            [GradientEdge(node, output)], ends, [seed], retain_graph=True, allow_unused=True
        )
    reached = [k for k, x in zip(places, found, strict=True) if x is not None and bool(x.isnan().any())]
    return frozenset(reached) or None


@dataclass
class Use:
    """One operation whose gradient in a weight is a product of two factors, over N samples or tokens."""

    node: Node
    kind: str  #: "linear": D^T A; "transposed": A^T D; "embedding": the rows of D summed by token id
    input: Tensor  #: A [N, inputs], or the token ids [N], -1 for padding


def uses(graph: Graph, params: Sequence[Tensor]) -> dict[int, list[Use]]:
    """All operations that use a weight, by place in ``params``, for weights used in one such way only.

    Any other use (a view of the weight, a recurrent kernel) leaves the weight out.
    """
    place_of = {id(param): k for k, param in enumerate(params) if param.dim() == 2}
    users: dict[Node, list[tuple[Node, int]]] = {}
    for node, edges in graph.following.items():
        for place, (following, _) in enumerate(edges):
            if following is not None:
                users.setdefault(following, []).append((node, place))
    found = {
        place_of[id(param)]: list(_uses_of(node, users, "transposed"))
        for node, param in zip(graph.nodes, graph.leaves, strict=True)
        if id(param) in place_of
    }
    return {
        k: [use for use in every if use is not None]
        for k, every in found.items()
        if None not in every and len({use.kind for use in every if use is not None}) == 1
    }


def _uses_of(node: Node, users: dict[Node, list[tuple[Node, int]]], kind: str) -> Iterator[Use | None]:
    """Every operation behind a weight, its casts and its transposes; None for one that is no product."""
    for user, place in users.get(node, []):
        if user.name() == "ToCopyBackward0":
            yield from _uses_of(user, users, kind)
        elif user.name() == "TBackward0":
            yield from _uses_of(user, users, "linear" if kind == "transposed" else "transposed")
        else:
            yield _use(user, place, kind)


def _use(node: Any, place: int, kind: str) -> Use | None:
    name = node.name()
    if name == "EmbeddingBackward0" and kind == "transposed":
        return _embedding(node)
    if name not in PRODUCTS or place != PRODUCTS[name]:
        return None
    raw = node._raw_saved_mat1 if name == "AddmmBackward0" else node._raw_saved_self
    if getattr(raw, "unpack_hook", None) is not None:  # checkpointed: a look would compute it again
        return None
    saved = node._saved_mat1 if name == "AddmmBackward0" else node._saved_self
    scaled = name == "AddmmBackward0" and node._saved_alpha != 1
    if saved is None or scaled or saved.layout != torch.strided:
        return None
    return Use(node, kind, saved.detach())


def _embedding(node: Any) -> Use | None:
    if node._saved_sparse or node._saved_scale_grad_by_freq:
        return None
    ids, padding = node._saved_indices.reshape(-1), node._saved_padding_idx
    return Use(node, "embedding", ids if padding >= UNSIGNED else torch.where(ids == padding, -1, ids))
