"""What Accelerate makes of a run: its Accelerator, and its process-wide state kept as it was."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import sharding
from .settings import Settings

_FORWARD = ("forward", "_original_forward")


def accelerator(
    settings: Settings,
    window: int,
    device: torch.device,
    sharded: bool,
    path: Path | None,
    trackers: Sequence[str],
) -> Any:
    """An Accelerator for windows of so many batches; DDP's, or FSDP2's where ``sharded``.

    DDP is told that a batch may leave a parameter out: a head, where no example has a label for its task.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.utils import GradientAccumulationPlugin

    found = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="no" if sharded else settings.precision,
        gradient_accumulation_plugin=GradientAccumulationPlugin(window),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        log_with=list(trackers) or None,
        project_dir=None if path is None else path.parent,
    )
    warnings.filterwarnings("ignore", "find_unused_parameters=True was specified", UserWarning)
    if sharded:
        sharding.prepare(found)
    return found


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
        with warnings.catch_warnings():
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
