"""The task gradients of a trunk in one batched backward pass, where that is quicker and known to be right.

The graph behind T losses falls into what a task has for itself and the trunk, which all of them reach. T
short passes go from each loss to the edges into the trunk, and one pass under ``vmap`` from there for all
tasks, so that an operation is launched once and not T times. It pays where launching is what a pass costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from .graph import Edge, Graph, unhooked

Gradients = list[list[Tensor | None]]  # per loss, per input; None: not reached

#: The backward of these gives each task the same, alone or batched: `test_batched` has one of each. The last
#: three are a GPU's, which ``vmap`` takes task by task.
# fmt: off
SAFE = frozenset([
    "AbsBackward0", "AdaptiveAvgPool2DBackward0", "AddBackward0", "AddmmBackward0", "AliasBackward0",
    "AmaxBackward0", "AvgPool2DBackward0", "BaddbmmBackward0", "BmmBackward0", "CatBackward0",
    "ClampBackward1", "CloneBackward0", "ConvolutionBackward0", "CosBackward0", "CumsumBackward0",
    "DivBackward0", "DotBackward0", "EluBackward0", "EmbeddingBackward0", "ErfBackward0", "ExpBackward0",
    "ExpandBackward0", "GatherBackward0", "GeluBackward0", "HardswishBackward0", "HardtanhBackward0",
    "IndexBackward0", "IndexSelectBackward0", "LeakyReluBackward0", "LinalgVectorNormBackward0",
    "Log1PBackward0", "LogBackward0", "LogSoftmaxBackward0", "LogsumexpBackward0", "MaskedFillBackward0",
    "MaxPool2DWithIndicesBackward0", "MaximumBackward0", "MeanBackward0", "MeanBackward1", "MishBackward0",
    "MmBackward0", "MulBackward0", "MulBackward1", "MvBackward0", "NativeBatchNormBackward0",
    "NativeDropoutBackward0", "NativeGroupNormBackward0", "NativeLayerNormBackward0", "NegBackward0",
    "PermuteBackward0", "PowBackward0", "ReciprocalBackward0", "ReluBackward0", "RepeatBackward0",
    "ReshapeAliasBackward0", "RsqrtBackward0", "RsubBackward1", "SafeSoftmaxBackward0",
    "ScaledDotProductFlashAttentionForCpuBackward0", "SelectBackward0", "SigmoidBackward0", "SiluBackward0",
    "SinBackward0", "SliceBackward0", "SoftmaxBackward0", "SoftplusBackward0", "SplitBackward0",
    "SplitWithSizesBackward0", "SqrtBackward0", "SqueezeBackward0", "SqueezeBackward1", "StackBackward0",
    "SubBackward0", "SumBackward0", "SumBackward1", "TBackward0", "TanhBackward0", "ToCopyBackward0",
    "TransposeBackward0", "UnbindBackward0", "UnsafeViewBackward0", "UnsqueezeBackward0", "VarBackward0",
    "ViewBackward0", "WhereBackward0", "ScaledDotProductCudnnAttentionBackward0",
    "ScaledDotProductEfficientAttentionBackward0", "ScaledDotProductFlashAttentionBackward0",
])
# fmt: on
FEW_TASKS, FEW_NODES = 3, 32  #: fewer of them are no slower in a pass per task
#: elements of one value's gradients in a pass: more leave a CPU's cache, or take a GPU's memory
ELEMENTS = {"cpu": 1 << 17, "cuda": 1 << 28}


@dataclass
class Trunk:
    """The part of a graph that lies behind every loss."""

    edges: list[Edge]  #: where every task's own part enters it
    nodes: set[Node]
    leaves: set[Node]  #: behind these nodes
    kind: frozenset[str]  #: its operations

    @cached_property
    def elements(self) -> int:
        """In the largest gradient of a value in it."""
        values: Iterator[Any] = (value for node in self.nodes for value in node._input_metadata)
        return max(int(math.prod(value.shape)) for value in values)


def trunk(graph: Graph) -> Trunk | None:
    """The trunk of a graph, where all tasks enter it by the same edges and none lies behind another.

    A task that entered by other edges would be zero on some of them, which an infinite derivative makes NaN;
    an edge behind another would be reached in the first pass and again in the second.
    """
    every, behind = (1 << sum(root is not None for root in graph.roots)) - 1, graph.behind()
    entering: dict[Edge, int] = {}
    inside: set[Node] = set()
    for node, tasks in behind.items():
        for edge in graph.following[node]:
            if tasks == every:
                inside.add(edge[0])
            elif edge[0] is not None and behind[edge[0]] == every:
                entering[edge] = entering.get(edge, 0) | tasks
    apart = any(tasks != every for tasks in entering.values())
    if apart or not inside.isdisjoint(node for node, _ in entering):
        return None
    nodes = {node for node, tasks in behind.items() if tasks == every and graph.following[node]}
    edges = [edge for edge in entering if edge[0] in nodes]
    kind = frozenset(node.name() for node in nodes)
    return Trunk(edges, nodes, {n for n in inside if n not in nodes}, kind) if edges else None


class Batched:
    """Takes the gradients of several losses, those of a trunk in one pass where `SAFE` and `ELEMENTS` say so.

    A kind of trunk is tried with its graph kept. Where that raises (a hook on a value reads a number, a
    checkpoint draws its dropout again), it is taken in a pass per task, now and ever after.
    """

    def __init__(self) -> None:
        self.together = False  #: the last call took the trunk in one pass
        self._works: dict[frozenset[str], bool] = {}

    def __call__(
        self,
        graph: Graph | None,
        losses: Sequence[Tensor],
        inputs: Sequence[Any],
        seeds: Sequence[Tensor],
        retain_graph: bool,
    ) -> Gradients:
        """The gradients of each loss, all of which have a graph, in every input, a leaf or an edge."""
        self.together = False
        found = trunk(graph) if graph is not None and len(losses) >= FEW_TASKS else None
        if found is None or graph is None or not self._pays(found, losses[0].device.type):
            return one_by_one(losses, inputs, seeds, retain_graph)
        known = found.kind in self._works
        try:
            passes = _through(found, graph, losses, inputs, seeds, retain_graph or not known)
        except RuntimeError:
            if known:
                raise
            self._works[found.kind] = False
            return one_by_one(losses, inputs, seeds, retain_graph)
        if passes is None:
            return one_by_one(losses, inputs, seeds, retain_graph)
        self._works[found.kind] = self.together = True
        return passes

    def _pays(self, trunk: Trunk, device: str) -> bool:
        if len(trunk.nodes) < FEW_NODES or not trunk.kind <= SAFE or not self._works.get(trunk.kind, True):
            return False
        return trunk.elements * FEW_TASKS <= ELEMENTS.get(device, 0)


def one_by_one(
    losses: Sequence[Tensor], inputs: Sequence[Any], seeds: Sequence[Tensor], retain_graph: bool
) -> Gradients:
    """A pass per loss; the last one frees the graph unless ``retain_graph``."""
    keep = [True] * (len(losses) - 1) + [retain_graph]
    return [
        list(torch.autograd.grad(loss, inputs, seed, retain_graph=kept, allow_unused=True))
        for loss, seed, kept in zip(losses, seeds, keep, strict=True)
    ]


def _through(
    trunk: Trunk,
    graph: Graph,
    losses: Sequence[Tensor],
    inputs: Sequence[Any],
    seeds: Sequence[Tensor],
    retain_graph: bool,
) -> Gradients | None:
    """A pass per loss down to the trunk, and as few through it as its gradients leave room for.

    None where a loss has no gradient on an edge into it (a Function may say so), and nothing is freed yet.
    """
    node_of = {id(leaf): node for leaf, node in zip(graph.leaves, graph.nodes, strict=True)}
    nodes = [x.node if isinstance(x, GradientEdge) else node_of.get(id(x)) for x in inputs]
    below = [k for k, node in enumerate(nodes) if node in trunk.nodes or node in trunk.leaves]
    behind = set(below)
    own = [k for k, node in enumerate(nodes) if node is not None and k not in behind]
    edges = [GradientEdge(*edge) for edge in trunk.edges]
    # A value's hooks are for the second pass: torch captures its gradient before them only where it goes on.
    further = [_after(graph, node) for node, _ in trunk.edges]
    with unhooked(graph.leaves):
        first = one_by_one(losses, [*edges, *(inputs[k] for k in own), *further], seeds, True)
    if any(gradient is None for row in first for gradient in row[: len(edges)]):
        return None
    found: Gradients = [[None] * len(inputs) for _ in losses]
    for row, gradients in zip(found, first, strict=True):
        for k, gradient in zip(own, gradients[len(edges) :], strict=False):
            row[k] = gradient
    entering = [torch.stack(every) for every in zip(*(row[: len(edges)] for row in first), strict=True)]
    del first
    step = ELEMENTS[losses[0].device.type] // trunk.elements
    for start in range(0, len(losses) if below else 0, step):
        batch = torch.autograd.grad(
            edges,
            [inputs[k] for k in below],
            [x[start : start + step] for x in entering],
            retain_graph=retain_graph or start + step < len(losses),
            allow_unused=True,
            is_grads_batched=True,
        )
        for k, gradient in zip(below, batch, strict=True):
            for row, part in zip(found[start:], () if gradient is None else gradient, strict=False):
                row[k] = part
    return found


def _after(graph: Graph, node: Node) -> GradientEdge:
    """An edge out of a node of the trunk, to another such node rather than to a leaf."""
    edges = [edge for edge in graph.following[node] if edge[0] is not None]
    return GradientEdge(*max(edges, key=lambda edge: bool(graph.following[edge[0]])))
