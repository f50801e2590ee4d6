"""Axes: what arms differ in where it is not the strategy; options of a problem, or settings of the loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..problems import scales
from ..problems.models.sharing import OPTIONS
from ..problems.variants import TRAINING
from ..specs import format_spec, parse_spec, suggest
from ..train import Settings

_SETTINGS = frozenset(field.name for field in fields(Settings))

#: name -> arm -> what makes it: options of the problem's spec, settings of the loop. The others are judged by
#: the first one.
AXES: dict[str, dict[str, dict[str, Any]]] = {
    "sharing": {form: {} if form == "agnostic" else {"sharing": form} for form in OPTIONS},
    "training": {training: {} if training == "joint" else {"training": training} for training in TRAINING},
    "regularisation": {
        "none": {"dropout": 0.0, "weight_decay": 0.0},
        "dropout": {"dropout": 0.3, "weight_decay": 0.0},
        "weight_decay": {"dropout": 0.0, "weight_decay": 0.1},
        "both": {"dropout": 0.3, "weight_decay": 0.1},
    },
}


@dataclass(frozen=True)
class Axis:
    """A named list of arms.

    Attributes:
        arms: label -> options of the problem's spec and settings of the loop, as in `AXES`.

    Raises:
        ValueError: fewer than two arms, a label that is no spec, or a value that a setting cannot have.
    """

    name: str
    arms: Mapping[str, Mapping[str, Any]]

    def __post_init__(self) -> None:
        if len(self.arms) < 2:
            raise ValueError(f"axis {self.name!r} should have two arms or more, found {len(self.arms)}.")
        for label, own in self.arms.items():
            parse_spec(label)
            if not isinstance(own, Mapping):
                raise ValueError(f"axis {self.name!r}, arm {label!r}: expected options, found {own!r}.")
            if "seed" in own:
                raise ValueError(f"axis {self.name!r}: seed is no setting of an arm.")
            Settings(**self.settings(label))

    @property
    def base(self) -> str:
        """The arm that others are judged by."""
        return next(iter(self.arms))

    def settings(self, label: str) -> dict[str, Any]:
        """The settings of an arm."""
        return {key: value for key, value in self.arms[label].items() if key in _SETTINGS}

    def on(self, problem: str, label: str) -> str:
        """The problem's spec with the options of an arm.

        Raises:
            ValueError: it has one of the axis's options already.
        """
        from .tune.space import with_options

        varied = {key for own in self.arms.values() for key in own} - _SETTINGS
        if said := varied & parse_spec(scales.split(problem)[0])[1].keys():
            raise ValueError(
                f"axis {self.name!r} is about {min(said)}, which {problem!r} says: leave it out there."
            )
        own = {key: value for key, value in self.arms[label].items() if key not in _SETTINGS}
        return with_options(problem, own) if own else problem


def axis_of(said: str) -> Axis:
    """An axis by its name in `AXES`, or of one option or setting with its values, ``hidden=[32,64]``.

    Raises:
        ValueError: there is none of that name, or no list of values.
    """
    if said in AXES:
        return Axis(said, AXES[said])
    name, equals, _ = said.partition("=")
    if not equals:
        raise ValueError(
            f"there is no axis {said!r}; {suggest(said, AXES)} Or an option or setting with values, as in "
            "hidden=[32,64]."
        )
    values = parse_spec(f"axis:{said}")[1].get(name)
    if not isinstance(values, list):
        raise ValueError(f"an axis of one option takes values, as in hidden=[32,64], found {said!r}.")
    labels = {format_spec("x", {name: value}).partition(":")[2]: value for value in values}
    return Axis(name, {label: {name: value} for label, value in labels.items()})
