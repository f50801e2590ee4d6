"""`fit`: what is checked before a run, and what surrounds it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from . import checkpoint, sharding
from .history import History
from .loop import Loop
from .preparing import Place, forward_kept, fresh_accelerate, training_kept
from .processes import Processes, join, partners_watched
from .scoring import check_split, is_labelled, labelled, modes_kept
from .settings import Settings, one_of, resolve_device

if TYPE_CHECKING:
    from ..balancer.balancer import Balancer
    from ..problems import Problem

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
    much as a full one. With ``stop="all"`` a task that is done leaves: its labels are no longer looked at,
    its head is frozen until the end. Accelerate's process-wide state is as before at the end.

    Started by a launcher (`torchrun`, `accelerate launch`), or where torch's default process group is there,
    all processes train one model together, under DDP or, if Accelerate's configuration says so, FSDP2: each
    takes its share of every batch, and all get the history that one would get. The first one alone writes
    and shows. A model under FSDP2 is sharded from then on.

    Args:
        model: `model(inputs, targets)` gives an object with `.outputs` and `.losses`, dicts by task.
        balancer: of the problem's tasks, fresh.
        settings: by default the problem's own.
        folder: where a checkpoint is kept, replaced after every epoch. If it holds one of the same run, on
            the same data, training goes on from there as if never interrupted: bit for bit on a CPU, on a GPU
            as far as its kernels are deterministic; over another number of processes up to rounding, but for
            dropout. One run at a time trains in a folder.
        progress: show a bar of the steps, with the last epoch's loss, score and the time left, where standard
            error is a terminal.
        after_epoch: called with what was done so far after every epoch, once its checkpoint is written, and
            once where training goes on from a checkpoint. What it raises ends the run. Of several processes
            in each.
        trackers: any of "tensorboard" (needs `folder`; writes to its `mtlweights` folder) and "wandb".

    Raises:
        ValueError: something does not fit together; `folder` holds a damaged checkpoint, or another run's,
            or another process trains in it.
        OSError: `folder` cannot be written to; of several processes another has ended (ConnectionError).
        ImportError: Accelerate, tqdm or a tracker is not installed.
        FloatingPointError: a loss became NaN or infinite. Under fp16, where the scaler skips such a step,
            only if all losses of a task since the epoch's start are.
    """
    if settings is None:
        settings = Settings(**problem.settings)
    device = resolve_device(settings.device, settings.precision)
    _check(balancer, problem, folder, trackers)
    sharded = sharding.asked(balancer, settings.precision)
    _check_stop(balancer, problem, settings, sharded)
    processes = join()
    _check_together(processes, balancer, settings)
    with ExitStack() as stack:
        stack.enter_context(partners_watched(processes))
        path = None if folder is None else _held(stack, processes, folder)
        for around in (fresh_accelerate(), modes_kept(model), forward_kept(model), training_kept(model)):
            stack.enter_context(around)
        place = Place(device, path, trackers, processes, sharded)
        loop = Loop(model, balancer, problem, settings, place)
        try:
            return loop.run(progress, after_epoch)
        finally:
            for tracker in loop.accelerator.trackers:
                tracker.finish()


def _check(balancer: Balancer, problem: Problem, folder: object, trackers: Sequence[str]) -> None:
    """Raise whatever can be known before the first step."""
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


def _check_stop(balancer: Balancer, problem: Problem, settings: Settings, sharded: bool) -> None:
    """Raise where tasks cannot leave one by one."""
    if settings.stop != "all":
        return
    if sharded:
        raise ValueError(
            "stop='all' does not go with FSDP2, which cannot freeze a part of its shards: use DDP"
        )
    examples = labelled(problem, "train")
    if balancer._engine.window is not None and not all(
        is_labelled(task, example) for example in examples for task in problem.tasks
    ):
        raise ValueError(
            "stop='all' with a window of batches (accumulation='window', or a strategy of several) wants "
            "examples labelled for every task: a batch of finished tasks alone would leave it open"
        )


def _check_together(processes: Processes, balancer: Balancer, settings: Settings) -> None:
    """Raise for what several processes cannot do together."""
    if settings.batch_size < processes.number:
        raise ValueError(
            f"batch_size={settings.batch_size} is for all processes together, and there are "
            f"{processes.number}: set it to {processes.number} at least"
        )
    trains = balancer._engine.ranks.number
    if trains != processes.number:
        raise ValueError(
            f"fit trains over {processes.number} processes, the balancer's process_group has {trains}: "
            "leave process_group out"
        )


def _held(stack: ExitStack, processes: Processes, folder: str | os.PathLike[str]) -> Path:
    """The path of the checkpoint, in a folder that the first process holds for all."""
    return processes.same(lambda: stack.enter_context(checkpoint.held(folder)))
