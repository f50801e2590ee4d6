"""Half of the trunk's layers: fine-tuned, the rest makes up for much of it (Sajjad et al. 2023)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from ...problems.models import MLP, BiLSTM, MultiTaskModel, Pair, Transformer
from ..architecture import describe_encoder
from .prune import blocks


def halve(model: MultiTaskModel) -> MultiTaskModel | None:
    """A copy with half of the encoder's layers, rounded up; None if it has one alone.

    Of a transformer every other block stays, the first one included; of a BiLSTM and an MLP the lower half.

    Raises:
        ValueError: the encoder is of another kind, or the widths of an MLP differ.
    """
    model = copy.deepcopy(model)
    encoder = _halved(model.encoder)
    if encoder is None:
        return None
    return model.around(encoder)


def _halved(encoder: Any) -> Any:
    if isinstance(encoder, Pair):
        inner = _halved(encoder.encoder)
        return inner and Pair(inner)
    if isinstance(encoder, Transformer):
        return _transformer(encoder)
    said = describe_encoder(encoder)
    if isinstance(encoder, BiLSTM):
        if said["layers"] == 1:
            return None
        said["layers"] = (said["layers"] + 1) // 2
        small: Any = BiLSTM(**{**_arguments(said), "features": said["features"] and tuple(said["features"])})
    elif isinstance(encoder, MLP):
        if len(said["hidden"]) == 1:
            return None
        said["hidden"] = said["hidden"][: (len(said["hidden"]) + 1) // 2]
        if said["hidden"][-1] != encoder.pooled_dim:
            raise ValueError(f"expected layers of one width, found {encoder.pooled_dim} and others.")
        small = MLP(**_arguments(said))
    else:
        raise ValueError(
            f"halving knows a BiLSTM, MLP, Pair and Transformer, found {type(encoder).__name__}."
        )
    old = encoder.state_dict()
    small.load_state_dict({key: old[key] for key in small.state_dict()})
    return small


def _transformer(encoder: Transformer) -> Transformer | None:
    model: Any = encoder.model
    layers = blocks(model)
    if len(layers) == 1:
        return None
    with torch.no_grad():
        model.encoder.layer = nn.ModuleList(layers[::2])
    model.config.num_hidden_layers = len(model.encoder.layer)
    return encoder


def _arguments(said: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in said.items() if key != "type"}
