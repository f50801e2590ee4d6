"""What Accelerate makes of a run: its Accelerator, and its process-wide state kept as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from ..gradients import graph
from . import sharding
from .processes import Processes
from .scoring import is_labelled, labelled, modes_kept, to_device
from .settings import Settings

if TYPE_CHECKING:
    from ..problems import Problem

_FORWARD = ("forward", "_original_forward")


class Place(NamedTuple):
    """Where a run runs, and what it leaves."""

    device: torch.device
    path: Path | None  #: of the checkpoint
    trackers: Sequence[str]
    processes: Processes
    sharded: bool  #: by FSDP2


def accelerator(
    settings: Settings,
    window: int,
    place: Place,
    partial: bool,
) -> Any:
    """An Accelerator for windows of so many batches; DDP's, or FSDP2's where ``sharded``.

    ``partial``: a batch may leave parameters out, which DDP has to look for.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.utils import GradientAccumulationPlugin

    found = Accelerator(
        cpu=place.device.type == "cpu",
        mixed_precision="no" if place.sharded else settings.precision,
        gradient_accumulation_plugin=GradientAccumulationPlugin(window),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=partial)],
        log_with=list(place.trackers) or None,
        project_dir=None if place.path is None else place.path.parent,
    )
    if place.sharded:
        sharding.prepare(found)
    return found


def leaves_out(model: nn.Module, problem: Problem) -> bool:
    """Whether the losses of a batch may leave a parameter without a gradient.

    They do where an example lacks a label, whose task no other of its batch may have, and where the model has
    a parameter that a forward pass, in evaluation mode, on an example for every task does not reach.
    """
    examples = labelled(problem, "train")
    if not all(is_labelled(task, e) for e in examples for task in problem.tasks):
        return True
    batch = problem.collate(examples[:1])
    place = next(model.parameters()).device
    with modes_kept(model), torch.enable_grad():
        model.eval()
        losses = model(to_device(batch["inputs"], place), to_device(batch["targets"], place)).losses
    reached = {id(graph.leaf(node)) for node in graph.nodes(list(losses.values()))}
    return any(param.requires_grad and id(param) not in reached for param in model.parameters())


def cast(model: nn.Module, device: torch.device) -> None:
    """Run the model's forward in bf16 where that pays, as Accelerate does for a model that is not sharded."""
    model.forward = torch.autocast(device.type, torch.bfloat16)(model.forward)


@contextmanager
def fresh_accelerate() -> Iterator[None]:
    """Accelerate's process-wide state, emptied for the while.

    Without this a second fit with another device or precision is refused, and a caller's own Accelerator
    would decide ours.
    """
    from accelerate.state import AcceleratorState, GradientState, PartialState

    shared = [kind._shared_state for kind in (PartialState, AcceleratorState, GradientState)]
    kept = [dict(state) for state in shared]
    for state in shared:
        state.clear()
    try:
        yield
    finally:
        for state, before in zip(shared, kept, strict=True):
            state.clear()
            state.update(before)


@contextmanager
def forward_kept(model: nn.Module) -> Iterator[None]:
    """Under autocast a `forward` is set on the model itself; take it off again."""
    before = {name: vars(model)[name] for name in _FORWARD if name in vars(model)}
    try:
        yield
    finally:
        for name in _FORWARD:
            vars(model).pop(name, None)
        vars(model).update(before)


@contextmanager
def training_kept(model: nn.Module) -> Iterator[None]:
    """Parameters frozen meanwhile, as heads of finished tasks and ``freeze=`` are, are trained again."""
    before = [param for param in model.parameters() if param.requires_grad]
    try:
        yield
    finally:
        for param in before:
            param.requires_grad_(True)
