"""Put a checkpoint back, each part checked: torch takes what it is given, and trips over it later."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..files import schemas
from ..files.escapes import message_of
from . import checkpoint, sharding
from .history import History

if TYPE_CHECKING:
    from .loop import Loop


def state_of(loop: Loop) -> dict[str, Any]:
    """All that a run needs to go on, whole in the first process; all of them call."""
    updates, scaler = loop.updates, loop.accelerator.scaler
    return {
        "run": loop.identity,
        "model": sharding.whole(updates.inner.state_dict()),
        "best": sharding.whole_of(loop.best, updates.inner),
        "optimizer": sharding.whole(updates.optimizer.state_dict()),  # with the balancer's, attached to it
        "schedule": updates.schedule.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "rng": checkpoint.rng_state(),
        "history": asdict(loop.history),
    }


def resume(loop: Loop, path: Path) -> None:
    """Go on from the checkpoint, if there is one: the first process reads it for all.

    Raises:
        ValueError: it is damaged, or of another run or model.
        OSError, MemoryError: it cannot be read here and now.
    """
    state = loop.processes.same(lambda: checkpoint.load(path) if path.exists() else None)
    if state is None:
        return
    checkpoint.check_same(path, state["run"], loop.identity)
    updates = loop.updates
    try:
        history = History(**state["history"])
        history.check(loop.settings.epochs, updates.per_epoch)
        parts = (updates.inner, updates.optimizer, updates.schedule, loop.accelerator.scaler)
        restore(state, state_of(loop), *parts)
        loop.best = sharding.parts_of(state["best"], updates.inner)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever the part that does not fit raises
        reason = message_of(error)[:200]
        raise ValueError(f"{path} is of another model ({reason}): use another folder") from None
    loop.history, updates.number = history, history.steps
    checkpoint.set_rng_state(state["rng"])


def restore(
    state: dict[str, Any], own: dict[str, Any], model: nn.Module, optimizer: Any, schedule: Any, scaler: Any
) -> None:
    """Load a checkpoint's parts, of whole tensors, into a run's; ``own`` is the state of that run as it is.

    Raises:
        ValueError, and whatever a part raises on loading: it is not of this run.
    """
    likes = model.state_dict()
    model.load_state_dict(sharding.shard_all(state["model"], likes))
    shapes = {name: value.shape for name, value in likes.items()}
    if {name: value.shape for name, value in state["best"].items()} != shapes:
        raise ValueError("its best weights are not those of this model")
    for part in ("schedule", "scaler"):
        schemas.alike(state[part], own[part], f"its {part}")
    for kind in state["rng"].keys() & own["rng"].keys():  # a GPU's is in one of them, perhaps
        schemas.alike(state["rng"][kind], own["rng"][kind], f"its rng.{kind}")
    if state["schedule"]["base_lrs"] != own["schedule"]["base_lrs"]:
        raise ValueError("its schedule starts from another learning rate")
    _restore_optimizer(state["optimizer"], own["optimizer"], optimizer)
    schedule.load_state_dict(state["schedule"])
    if scaler is not None:
        scaler.load_state_dict(state["scaler"])


def _restore_optimizer(state: dict[str, Any], own: dict[str, Any], optimizer: Any) -> None:
    schemas.alike(state["param_groups"], own["param_groups"], "its optimizer")
    for theirs, ours in zip(state["param_groups"], own["param_groups"], strict=True):
        same = all(theirs[key] == value for key, value in ours.items() if key != "lr")
        if not same or not 0 <= theirs["lr"] <= ours["initial_lr"]:
            raise ValueError("its optimizer has other settings")
    if state.keys() != own.keys() or not state["state"]:
        raise ValueError("the state of its optimizer is not whole")
    optimizer.load_state_dict(sharding.shard_moments(state, optimizer))
    for parameter, moments in optimizer.state.items():
        found = {name: getattr(value, "shape", None) for name, value in moments.items()}
        if found != {"step": (), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}:
            raise ValueError("the state of its optimizer is not that of these weights")
