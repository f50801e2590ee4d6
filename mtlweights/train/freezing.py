"""Layers of the encoder that are not trained: some for good, or all of them until their epoch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..problems.models.groups import layer_groups
from ..specs import parse_way

_DEFAULTS = {"lowest": {"layers": 1}, "gradual": {"every": 1}}


@dataclass(frozen=True)
class Freezing:
    """What is frozen.

    ``lowest:layers=1``: so many layers of the encoder, from the inputs on, throughout. ``gradual:every=1``:
    the heads and the top layer are trained in the first epoch, and every so many epochs one more layer is,
    from the top down (Howard and Ruder, "Universal Language Model Fine-tuning", ACL 2018, section 3.3).
    At least one layer of the encoder is trained at any time: a strategy weighs gradients where tasks meet.
    """

    way: str
    number: int = 1

    @classmethod
    def parse(cls, spec: str) -> Freezing:
        """``"gradual:every=2"``.

        Raises:
            ValueError: another way or option, or a number below 1.
        """
        way, options = parse_way("freeze", spec, _DEFAULTS)
        ((key, number),) = {**_DEFAULTS[way], **options}.items()
        if type(number) is not int or number < 1:
            raise ValueError(f"{key} of freeze={way} should be a whole number from 1, found {number!r}.")
        return cls(way, number)


class Freezer:
    """Freezes and frees the layers of an encoder, epoch by epoch.

    Raises:
        ValueError: fewer layers than are to be frozen.
    """

    def __init__(self, encoder: nn.Module, how: Freezing) -> None:
        found = layer_groups(encoder).items()
        self.how = how
        self.layers = {name: own for name, all_ in found if (own := [p for p in all_ if p.requires_grad])}
        if how.way == "lowest" and how.number >= len(self.layers):
            raise ValueError(
                f"freeze=lowest takes fewer than the {len(self.layers)} layers of this encoder, found "
                f"{how.number}"
            )

    def frozen(self, epoch: int) -> list[str]:
        """The layers that are not trained in an epoch, from 1."""
        names = [*self.layers]
        if self.how.way == "lowest":
            return names[: self.how.number]
        return names[: max(len(names) - 1 - (epoch - 1) // self.how.number, 0)]

    def start(self, epoch: int) -> None:
        """Freeze what an epoch does not train, and free the rest."""
        frozen = self.frozen(epoch)
        for name, parameters in self.layers.items():
            for parameter in parameters:
                parameter.requires_grad_(name not in frozen)
