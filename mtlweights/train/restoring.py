"""Put a checkpoint back, each part checked: torch takes what it is given, and trips over it later."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..files import schemas


def restore(
    state: dict[str, Any], own: dict[str, Any], model: nn.Module, optimizer: Any, schedule: Any, scaler: Any
) -> None:
    """Load a checkpoint's parts into a run's; ``own`` is the state of that run as it is.

    Raises:
        ValueError, and whatever a part raises on loading: it is not of this run.
    """
    model.load_state_dict(state["model"])
    shapes = {name: value.shape for name, value in model.state_dict().items()}
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
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        found = {name: getattr(value, "shape", None) for name, value in moments.items()}
        if found != {"step": (), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}:
            raise ValueError("the state of its optimizer is not that of these weights")
