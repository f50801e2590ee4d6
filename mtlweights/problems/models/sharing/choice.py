"""A form of sharing by its name, as a problem's spec has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ....specs import suggest
from ...task import Task
from ..encoders import Encoder, Pair
from .attention import MTAN
from .base import Shared
from .experts import PLE, MMoE
from .layerwise import Joint, TaskDependent
from .stack import stack_of
from .stitch import CrossStitch

#: the forms that take an encoder's layers apart
FORMS: dict[str, Callable[..., Shared]] = {
    "task_dependent": TaskDependent,
    "mmoe": MMoE,
    "ple": PLE,
    "cross_stitch": CrossStitch,
    "mtan": MTAN,
}
#: options of each form, with their defaults
OPTIONS: dict[str, dict[str, Any]] = {
    "agnostic": {},
    "task_dependent": {"private": None},
    "joint": {},
    "mmoe": {"experts": 4},
    "ple": {"experts": 2, "own_experts": 2, "levels": 1},
    "cross_stitch": {},
    "mtan": {},
}
#: every option of sharing that a problem's spec may have
NAMES = frozenset({"sharing", "blocks"}.union(*OPTIONS.values()))


@dataclass(frozen=True)
class Sharing:
    """How tasks share an encoder: the name of a form, and its options.

    Attributes:
        form: "agnostic" (all layers shared, an output layer per task), or one of `OPTIONS`.
        options: of the form.
        blocks: of a transformer, how many of its last blocks the form is about; the rest is shared.
    """

    form: str = "agnostic"
    options: Mapping[str, Any] = field(default_factory=dict)
    blocks: int = 1

    def around(self, encoder: Encoder, tasks: Sequence[Task]) -> Encoder:
        """The encoder in this form. Of a pair of inputs both are read by the same.

        Raises:
            ValueError: an option that does not fit the encoder.
        """
        if self.form == "agnostic":
            return encoder
        if self.form == "joint":
            return Joint(encoder, tasks)
        if isinstance(encoder, Pair):
            return Pair(self.around(encoder.encoder, tasks))
        names = [task.name for task in tasks]
        try:
            return FORMS[self.form](stack_of(encoder, self.blocks), names, **self.options)
        except ValueError as error:
            raise ValueError(f"sharing={self.form}: {error}") from error


def taken(options: Mapping[str, Any], what: str, transformer: bool = False) -> tuple[Sharing, dict[str, Any]]:
    """The form among a problem's options, and the other options; ``what``: a name for errors.

    Raises:
        ValueError: there is no such form, an option is another form's, or a value is out of range.
    """
    rest = {key: value for key, value in options.items() if key not in NAMES}
    form = options.get("sharing", "agnostic")
    if not isinstance(form, str) or form not in OPTIONS:
        raise ValueError(f"{what}: there is no form of sharing {form!r}; {suggest(str(form), OPTIONS)}")
    known = [*OPTIONS[form], *(["blocks"] if transformer and form in FORMS else [])]
    given = {key: options[key] for key in options if key in NAMES and key != "sharing"}
    for key, value in given.items():
        if key not in known:
            owners = ", ".join(name for name, own in OPTIONS.items() if key in own) or "a transformer"
            raise ValueError(f"{what}: sharing={form} has no option {key!r}, which is one of {owners}.")
        several = value if key == "private" and isinstance(value, (list, tuple)) else [value]
        if any(type(each) is not int or each < 1 for each in several):
            raise ValueError(f"{what}: {key} should be an integer of at least 1, found {value!r}.")
    blocks = given.pop("blocks", 1)
    return Sharing(form, given, blocks), rest
