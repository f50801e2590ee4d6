"""A model's parameters in groups, a layer each, the one nearest to the inputs first."""

from __future__ import annotations

import re

from torch import nn

_RECURRENT = re.compile(r"(?P<module>.+)\.(?:weight|bias)_[hi]h_l(?P<layer>\d+)(?:_reverse)?")


def layer_groups(module: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Layer -> its parameters, in the order in which the module has them.

    A layer is a numbered part of a module (``model.encoder.layer.3``, ``layers.0``, layer 1 of an LSTM), else
    a part of its first or second level (``model.embeddings``, ``words``).
    """
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        groups.setdefault(group_of(name), []).append(parameter)
    return groups


def group_of(name: str) -> str:
    """The layer that a parameter of this name is in."""
    if match := _RECURRENT.fullmatch(name):
        return f"{match['module']}.{match['layer']}"
    parts = name.split(".")[:-1] or [name]
    for place, part in enumerate(parts):
        if part.isdecimal():
            return ".".join(parts[: place + 1])
    return ".".join(parts[:2])
