"""`fit`: what is checked before a run, and what surrounds it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from torch import nn

from . import checkpoint
from .history import History
from .loop import Loop
from .scoring import check_split, modes_kept
from .settings import Settings, one_of, resolve_device

if TYPE_CHECKING:
    from ..balancer.balancer import Balancer
    from ..problems import Problem

_FORWARD = ("forward", "_original_forward")
TRACKERS = ("tensorboard", "wandb")


def fit(
    model: nn.Module,
    balancer: Balancer,
    problem: Problem,
    settings: Settings | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
    trackers: Sequence[str] = (),
    after_epoch: Callable[[History], None] | None = None,
) -> History:
    """Train a model on the training split; it ends with the weights of the epoch that scored best on dev.

    The score is the mean over tasks of the normalised first metric. The model stays on the device it was
    trained on, each of its modules in the mode (training or evaluation) it came in. The global generators of
    torch, NumPy and Python are seeded with `settings.seed`; the model's initial weights are the caller's to
    seed. Examples without any label are left out. A last window of fewer than `accumulate` batches weighs as
    much as a full one. Accelerate's process-wide state is as before at the end.

    Args:
        model: `model(inputs, targets)` gives an object with `.outputs` and `.losses`, dicts by task.
        balancer: of the problem's tasks, fresh.
        settings: by default the problem's own.
        folder: where a checkpoint is kept, replaced after every epoch. If it holds one of the same run, on
            the same data, training goes on from there as if never interrupted: bit for bit on a CPU, on a GPU
            as far as its kernels are deterministic. One process at a time trains in a folder.
        progress: show a bar of the steps, with the last epoch's loss and score.
        after_epoch: called with what was done so far after every epoch, once its checkpoint is written, and
            once where training goes on from a checkpoint. What it raises ends the run.
        trackers: any of "tensorboard" (needs `folder`; writes to its `mtlweights` folder) and "wandb".

    Raises:
        ValueError: something does not fit together; `folder` holds a damaged checkpoint, or another run's,
            or another process trains in it.
        OSError: `folder` cannot be written to.
        ImportError: Accelerate, tqdm or a tracker is not installed.
        FloatingPointError: a loss became NaN or infinite. Under fp16, where the scaler skips such a step,
            only if all losses of a task since the epoch's start are.
    """
    if settings is None:
        settings = Settings(**problem.settings)
    device = resolve_device(settings.device, settings.precision)
    _check(balancer, problem, folder, trackers)
    held = nullcontext() if folder is None else checkpoint.held(folder)
    with held as path, _fresh_accelerate(), modes_kept(model), _forward_kept(model):
        loop = Loop(model, balancer, problem, settings, device, path, trackers)
        try:
            return loop.run(progress, after_epoch)
        finally:
            loop.accelerator.end_training()


def _check(balancer: Balancer, problem: Problem, folder: object, trackers: Sequence[str]) -> None:
    """Raise whatever can be known before the first step."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("fit runs in one process; for several, call the balancer in your own loop")
    balanced, tasks = sorted(balancer.tasks), sorted(task.name for task in problem.tasks)
    if balanced != tasks:
        raise ValueError(f"the balancer is for the tasks {balanced}, problem {problem.name!r} has {tasks}")
    check_split(problem, "train")
    check_split(problem, "dev")
    for tracker in trackers:
        one_of("tracker", tracker, TRACKERS)
    if "tensorboard" in trackers and folder is None:
        raise ValueError("the tensorboard tracker writes to the folder of the run: give folder=")
    for package in ("accelerate", "tqdm", *trackers):
        if importlib.util.find_spec(package) is None:
            extra = "wandb" if package == "wandb" else '"mtlweights[bench]"'
            raise ImportError(f"fit needs the package {package} here: pip install {extra}")


@contextmanager
def _fresh_accelerate() -> Iterator[None]:
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
def _forward_kept(model: nn.Module) -> Iterator[None]:
    """Under autocast Accelerate sets a `forward` on the model itself; take it off again."""
    before = {name: vars(model)[name] for name in _FORWARD if name in vars(model)}
    try:
        yield
    finally:
        for name in _FORWARD:
            vars(model).pop(name, None)
        vars(model).update(before)
