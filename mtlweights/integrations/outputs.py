"""The losses and counts in the output of a model that returns one loss per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

IGNORED = -100  # the label that cross-entropy leaves out


def read(
    outputs: Any, inputs: Mapping[str, Any], tasks: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The losses [] of the tasks that a batch has, and how many items each is the mean of.

    Args:
        outputs: A mapping or an object with ``losses``, or a tuple with them first; ``counts`` beside it.
        inputs: Of the model; ``<task>_labels`` are counted where the output has no counts.
        tasks: The order of losses that come without names; none known: 0, 1, ...

    Raises:
        ValueError: there are no losses.
    """
    found = _entry(outputs, "losses")
    if found is None:
        raise ValueError(
            "The model returned no losses: its output needs `losses`, task -> mean loss, or a tuple with "
            "them first."
        )
    if not isinstance(found, Mapping):
        names = tasks or [str(i) for i in range(len(found))]
        if len(found) != len(names):
            raise ValueError(
                f"The model returned {len(found)} losses without names, expected one for each of "
                f"{', '.join(names)}: None where a batch lacks a task, or a dict of task -> loss."
            )
        found = dict(zip(names, found, strict=True))
    counts = dict(_entry(outputs, "counts") or {})
    for task in found:
        if task not in counts and inputs.get(f"{task}_labels") is not None:
            counts[task] = _count(inputs[f"{task}_labels"])
    losses = {k: v for k, v in found.items() if v is not None and counts.get(k, 1) != 0}
    return losses, {k: v for k, v in counts.items() if k in losses}


def _entry(outputs: Any, name: str) -> Any:
    """``losses`` or ``counts`` of an output: a mapping, an object, or a tuple with the losses first."""
    if isinstance(outputs, Mapping):
        return outputs.get(name)
    if isinstance(outputs, tuple) and not hasattr(outputs, name):
        return outputs[0] if name == "losses" else None
    return getattr(outputs, name, None)


def _count(labels: Tensor) -> int:
    """Labels that count; a number on the host, so that a task without any is seen to be missing."""
    return int((labels == labels if labels.is_floating_point() else labels != IGNORED).sum())
