"""Whether a saved state fits: all of it is looked at before any of it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ...strategies import JacobianStrategy, Strategy
from ...strategies.hyperparameters import is_whole, shown

#: what is kept by a parameter's name, for parameters that a run has met
OPEN = ("reach", "rows", "finished")


def check_saved(saved: Any, own: Mapping[str, Any], strategy: Strategy) -> None:
    """Raise ValueError unless ``saved`` has the parts of ``own``, a fresh ``state_dict``, and their shapes.

    Args:
        saved: What a user loads.
        own: The state of the balancer that loads it.
        strategy: Its strategy.
    """
    if not isinstance(saved, Mapping):
        raise ValueError(f"The saved balancer should be what state_dict() gave, found {shown(saved)}.")
    if list(_listed(saved.get("tasks"))) != own["tasks"]:
        raise ValueError(
            f"The saved balancer is for the tasks {shown(saved.get('tasks'))}, this one for {own['tasks']}: "
            "build it with the same tasks in the same order."
        )
    theirs, ours = (list(_listed(state.get("groups"))) or None for state in (saved, own))
    if theirs != ours:
        raise ValueError(
            f"The saved balancer has the parameter groups {shown(theirs)}, this one {shown(ours)}: build it "
            "with the same groups= on the same model."
        )
    wrong = _misfit(saved, own, "") or _reach(saved["reach"], strategy.n_tasks)
    wrong = wrong or _finished(saved["finished"], own["tasks"])
    wrong = wrong or _rows(saved["rows"], strategy)
    if wrong is not None:
        raise ValueError(f"The saved balancer does not fit {type(strategy).__name__}: {wrong}.")


def _listed(tasks: Any) -> Sequence[Any]:
    return tasks if isinstance(tasks, (list, tuple)) else ()


def _misfit(saved: Any, own: Any, path: str) -> str | None:
    """The first part that is missing or of another form than ``own``'s, in words."""
    if isinstance(own, Mapping):
        if not isinstance(saved, Mapping):
            return f"{path} should be a dict, found {shown(saved)}"
        for key, value in own.items():
            at = f"{path}.{key}" if path else str(key)
            if key not in saved:
                return f"{at} is missing"
            if key not in OPEN and (wrong := _misfit(saved[key], value, at)):
                return wrong
        unknown = [key for key in saved if key not in own]
        return f"{path or 'the state'} has an unknown {shown(unknown[0])}" if unknown else None
    if isinstance(own, Tensor):
        return _tensor(saved, own, path)
    if isinstance(own, (list, tuple)):
        if not isinstance(saved, (list, tuple)) or len(saved) != len(own):
            return f"{path} should be {len(own)} values, found {shown(saved)}"
        found = (_misfit(a, b, f"{path}[{k}]") for k, (a, b) in enumerate(zip(saved, own, strict=True)))
        return next((wrong for wrong in found if wrong), None)
    if type(saved) is not type(own):
        return f"{path} should be {type(own).__name__}, found {shown(saved)}"
    return None


def _tensor(saved: Any, own: Tensor, path: str) -> str | None:
    if not isinstance(saved, Tensor):
        return f"{path} should be a tensor, found {shown(saved)}"
    if saved.shape != own.shape:
        return f"{path} should have shape {tuple(own.shape)}, found {tuple(saved.shape)}"
    kinds = [(x.is_floating_point(), x.is_complex(), x.layout, x.is_quantized) for x in (saved, own)]
    if kinds[0] != kinds[1] or saved.device.type == "meta":
        return f"{path} should be like {own.dtype}, found {saved.dtype}, {saved.layout}, on {saved.device}"
    return None


def _reach(reach: Any, n_tasks: int) -> str | None:
    """Parameter name -> indices of the tasks that reach it."""
    if not isinstance(reach, Mapping):
        return f"reach should be a dict, found {shown(reach)}"
    for name, tasks in reach.items():
        fine = isinstance(tasks, (list, tuple)) and all(is_whole(i) and 0 <= i < n_tasks for i in tasks)
        if not (isinstance(name, str) and fine):
            return f"reach.{shown(name)} should be indices of {n_tasks} tasks, found {shown(tasks)}"
    return None


def _finished(finished: Any, tasks: Sequence[str]) -> str | None:
    """Some of the tasks, not all."""
    fine = isinstance(finished, (list, tuple)) and all(
        isinstance(task, str) and task in tasks for task in finished
    )
    if not (fine and len(set(finished)) == len(finished) < len(tasks)):
        return f"finished should be some of the tasks, found {shown(finished)}"
    return None


def _rows(rows: Any, strategy: Strategy) -> str | None:
    """State's name -> parameter's name -> tensor [T, elements], of the same parameters each."""
    if not isinstance(rows, Mapping):
        return f"rows should be a dict, found {shown(rows)}"
    per_tensor = strategy.tensor_state if isinstance(strategy, JacobianStrategy) else ()
    whole = strategy.memory if isinstance(strategy, JacobianStrategy) else {}
    names = {*per_tensor, *whole, *(strategy.row_state if isinstance(strategy, JacobianStrategy) else ())}
    if rows and set(rows) != names:
        return f"rows should be of {', '.join(sorted(names)) or 'nothing'}, found {shown(list(rows))}"
    layouts = []
    for key, by_name in rows.items():
        if not isinstance(by_name, Mapping) or not by_name:
            return f"rows.{key} should be a dict by parameter, found {shown(by_name)}"
        for name, piece in by_name.items():
            height = strategy.n_tasks if whole.get(key, True) else 1
            fine = isinstance(piece, Tensor) and piece.dim() == 2 and len(piece) == height
            fine = fine and piece.is_floating_point() and piece.device.type != "meta"
            if not (fine and isinstance(name, str) and (key not in per_tensor or piece.shape[1] == 1)):
                return f"rows.{key}.{shown(name)} should be floating point, [{height}, elements]"
        layouts.append({name: 1 if per_tensor else piece.shape[1] for name, piece in by_name.items()})
    return "rows are of different parameters" if any(each != layouts[0] for each in layouts) else None
