"""Structured pruning: whole hidden units go, so that what is left is a smaller model of the same kind.

A unit's importance is the norm of the weights into and out of it (Li et al. 2017 take those into it alone).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ...problems.models import MLP, BiLSTM, MultiTaskModel, Pair, TokenHead, Transformer
from ..architecture import describe_encoder

_WAYS = ("", "_reverse")


def prune(model: MultiTaskModel, keep: float) -> MultiTaskModel:
    """A copy with the share ``keep`` of the hidden units of every layer, those of the largest weights.

    Of a BiLSTM and an MLP the hidden units; of a BERT-like transformer those between the two linear layers
    of each block.

    Raises:
        ValueError: ``keep`` is not in (0, 1), or the encoder is of another kind.
    """
    if not 0 < keep < 1:
        raise ValueError(f"keep should be a share between 0 and 1, found {keep}.")
    model = copy.deepcopy(model)
    widths = model.encoder.token_dim, model.encoder.pooled_dim
    with torch.no_grad():
        encoder, tokens, pooled = _pruned(model.encoder, keep)
        for each in model.heads.values():
            head: Any = each
            units, width = (tokens, widths[0]) if isinstance(head, TokenHead) else (pooled, widths[1])
            told = torch.arange(width or 0, head.output.in_features)  # by the heads before it, in a cascade
            head.output = _columns(head.output, torch.cat([units, told]))
    return model.around(encoder)


def _pruned(encoder: Any, keep: float) -> tuple[Any, Tensor, Tensor]:
    """The smaller encoder, and the indices of its units in the old one's word states and pooled states."""
    if isinstance(encoder, Pair):
        inner, tokens, pooled = _pruned(encoder.encoder, keep)
        width = encoder.encoder.pooled_dim
        return Pair(inner), tokens, torch.cat([part * width + pooled for part in range(4)])
    if isinstance(encoder, BiLSTM):
        return _bilstm(encoder, keep)
    if isinstance(encoder, MLP):
        return _mlp(encoder, keep)
    if isinstance(encoder, Transformer):
        return _transformer(encoder, keep)
    raise ValueError(f"pruning knows a BiLSTM, MLP, Pair and Transformer, found {type(encoder).__name__}.")


def _best(importance: Tensor, keep: float) -> Tensor:
    """Indices of the most important units, in their order; at least one."""
    n = max(1, round(keep * len(importance)))
    return importance.topk(n).indices.sort().values


def _bilstm(encoder: BiLSTM, keep: float) -> tuple[BiLSTM, Tensor, Tensor]:
    old, hidden = encoder.lstm, encoder.lstm.hidden_size
    said = {key: value for key, value in describe_encoder(encoder).items() if key != "type"}
    features = said.pop("features")
    said["hidden"] = max(1, round(keep * hidden))
    small = BiLSTM(**said, features=features and tuple(features))
    rest = {key: value for key, value in encoder.state_dict().items() if not key.startswith("lstm.")}
    small.load_state_dict(rest, strict=False)
    columns: Tensor | None = None
    for layer in range(old.num_layers):
        kept = [_best(_importance(old, layer, way), keep) for way in _WAYS]
        for units, way in zip(kept, _WAYS, strict=True):
            gates = torch.cat([gate * hidden + units for gate in range(4)])
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                value = getattr(old, f"{name}_l{layer}{way}")[gates]
                if name == "weight_hh":
                    value = value[:, units]
                elif name == "weight_ih" and columns is not None:
                    value = value[:, columns]
                getattr(small.lstm, f"{name}_l{layer}{way}").copy_(value)
        columns = torch.cat([kept[0], hidden + kept[1]])
    assert columns is not None
    return small, columns, torch.cat([columns, 2 * hidden + columns])


def _importance(lstm: nn.LSTM, layer: int, way: str) -> Tensor:
    """Squared norm of the weights of each unit: into its four gates, and out of it into all of them."""
    into, within = (getattr(lstm, f"{name}_l{layer}{way}") for name in ("weight_ih", "weight_hh"))
    gates: Tensor = into.square().sum(1) + within.square().sum(1)
    importance: Tensor = gates.view(4, -1).sum(0) + within.square().sum(0)
    return importance


def _mlp(encoder: MLP, keep: float) -> tuple[MLP, Tensor, Tensor]:
    linear = [layer for layer in encoder.layers if isinstance(layer, nn.Linear)]
    said = {key: value for key, value in describe_encoder(encoder).items() if key != "type"}
    kept = []
    for layer, following in zip(linear, [*linear[1:], None], strict=True):
        importance = layer.weight.square().sum(1)
        if following is not None:
            importance = importance + following.weight.square().sum(0)
        kept.append(_best(importance, keep))
    small = MLP(**{**said, "hidden": [len(units) for units in kept]})
    columns = torch.arange(linear[0].in_features)
    new = [layer for layer in small.layers if isinstance(layer, nn.Linear)]
    for layer, own, units in zip(linear, new, kept, strict=True):
        own.weight.copy_(layer.weight[units][:, columns])
        own.bias.copy_(layer.bias[units])
        columns = units
    return small, columns, columns


def _transformer(encoder: Transformer, keep: float) -> tuple[Transformer, Tensor, Tensor]:
    model: Any = encoder.model
    for each in blocks(model):
        block: Any = each
        first, second = _inner(block)
        units = _best(first.weight.square().sum(1) + second.weight.square().sum(0), keep)
        block.intermediate.dense = _rows(first, units)
        block.output.dense = _columns(second, units)
        model.config.intermediate_size = len(units)
    every = torch.arange(encoder.pooled_dim)
    return encoder, every, every


def blocks(model: Any) -> nn.ModuleList:
    """The blocks of a BERT-like transformer.

    Raises:
        ValueError: it is of another kind.
    """
    found = getattr(getattr(model, "encoder", None), "layer", None)
    if not isinstance(found, nn.ModuleList) or not hasattr(model.config, "num_hidden_layers"):
        raise ValueError(f"expected a BERT-like transformer, found {type(model).__name__}.")
    return found


def _inner(block: Any) -> tuple[nn.Linear, nn.Linear]:
    try:
        return block.intermediate.dense, block.output.dense
    except AttributeError:
        raise ValueError(f"expected a BERT-like transformer, found {type(block).__name__}.") from None


def _rows(layer: nn.Linear, units: Tensor) -> nn.Linear:
    new = nn.Linear(layer.in_features, len(units))
    new.weight.copy_(layer.weight[units])
    new.bias.copy_(layer.bias[units])
    return new


def _columns(layer: nn.Linear, units: Tensor) -> nn.Linear:
    new = nn.Linear(len(units), layer.out_features)
    new.weight.copy_(layer.weight[:, units])
    new.bias.copy_(layer.bias)
    return new
