"""Encoders and inputs as plain values, and back: what a folder's ``config.json`` says of them.

An encoder is described by its modules as they are, not by how they were made: a pruned one, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..problems import Task
from ..problems.models import (
    MLP,
    BiLSTM,
    Encoder,
    Joint,
    Pair,
    PairInputs,
    Shared,
    Sharing,
    SubwordInputs,
    TableInputs,
    Transformer,
    WordInputs,
)
from ..problems.models.features import Feature
from ..problems.models.sharing.stack import Stack, TableStack
from ..problems.models.transformer import load_model, load_tokenizer
from .live import LiveFrozen, LiveInputs

TRANSFORMER = "transformer"  #: folder of a transformer's configuration and tokenizer


def describe_encoder(encoder: nn.Module) -> dict[str, Any]:
    """An encoder of ours as plain values; a transformer's own configuration is in a folder beside.

    Raises:
        ValueError: it is of another class.
    """
    if isinstance(encoder, Joint):
        return {"type": "joint", "encoder": describe_encoder(encoder.encoder)}
    if isinstance(encoder, Shared):
        own = {"form": encoder.form, "options": encoder.said, "blocks": encoder.stack.depth}
        return {"type": "shared", **own, "encoder": _whole(encoder.stack)}
    if isinstance(encoder, BiLSTM):
        return {"type": "bilstm", **_bilstm(encoder)}
    if isinstance(encoder, MLP):
        linear = [layer for layer in encoder.layers if isinstance(layer, nn.Linear)]
        dropout = next((layer.p for layer in encoder.layers if isinstance(layer, nn.Dropout)), 0.0)
        widths = [layer.out_features for layer in linear]
        return {"type": "mlp", "n_inputs": linear[0].in_features, "hidden": widths, "dropout": dropout}
    if isinstance(encoder, Pair):
        return {"type": "pair", "encoder": describe_encoder(encoder.encoder)}
    if isinstance(encoder, LiveFrozen):
        return {"type": "frozen", "encoder": describe_encoder(encoder.encoder)}
    if isinstance(encoder, Transformer):
        return {"type": "transformer"}
    raise ValueError(
        f"a folder holds a BiLSTM, MLP, Pair or Transformer, found the encoder {type(encoder).__name__}: "
        "save its state_dict yourself."
    )


def _whole(stack: Stack) -> dict[str, Any]:
    """The encoder that a stack was made of."""
    if isinstance(stack, TableStack):
        n_inputs, *hidden = stack.widths
        return {"type": "mlp", "n_inputs": n_inputs, "hidden": hidden, "dropout": stack.dropout}
    return describe_encoder(stack.encoder)  # type: ignore[arg-type]


def _bilstm(encoder: BiLSTM) -> dict[str, Any]:
    chars, mix = encoder.chars, encoder.mix
    return {
        "n_words": encoder.words.num_embeddings,
        "n_chars": chars.embedding.num_embeddings,
        "word_dim": encoder.words.embedding_dim,
        "char_dim": chars.embedding.embedding_dim,
        "char_filters": chars.convolution.out_channels,
        "hidden": encoder.lstm.hidden_size,
        "layers": encoder.lstm.num_layers,
        "dropout": encoder.dropout.p,
        "word_dropout": encoder.word_dropout,
        "features": None if mix is None else [len(mix.weights), encoder.project.in_features],
        "feature_dim": 256 if mix is None else encoder.project.out_features,
    }


def make_encoder(said: dict[str, Any], folder: Path, tasks: Sequence[Task] = ()) -> Encoder:
    """The encoder of a description, weights to be loaded; ``folder`` has a transformer's configuration."""
    kind, options = said["type"], {key: value for key, value in said.items() if key != "type"}
    if kind == "bilstm":
        features = options.pop("features")
        return BiLSTM(**options, features=features and tuple(features))
    if kind == "mlp":
        return MLP(**options)
    if kind in ("joint", "shared"):
        sharing = Sharing(kind if kind == "joint" else options["form"], options.get("options", {}))
        sharing = replace(sharing, blocks=options.get("blocks", 1))
        return sharing.around(make_encoder(options["encoder"], folder, tasks), tasks)
    if kind == "pair":
        return Pair(make_encoder(options["encoder"], folder, tasks))
    if kind == "frozen":
        return LiveFrozen(load_model(_configuration(folder)), make_encoder(options["encoder"], folder, tasks))
    if kind == "transformer":
        return Transformer(_configuration(folder))
    raise ValueError(f"there is no encoder {kind!r}")


def _configuration(folder: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder / TRANSFORMER, trust_remote_code=False)


def transformer_of(encoder: nn.Module) -> Any:
    """The transformers model inside an encoder; None if there is none."""
    if isinstance(encoder, (Pair, Joint)):
        return transformer_of(encoder.encoder)
    if isinstance(encoder, Shared):
        return transformer_of(getattr(encoder.stack, "encoder", encoder.stack))
    return encoder.frozen if isinstance(encoder, LiveFrozen) else getattr(encoder, "model", None)


def describe_inputs(inputs: Any) -> tuple[dict[str, Any], dict[str, list[str]] | None, Any]:
    """Inputs as plain values, their vocabulary, and their tokenizer; None where they have none.

    Raises:
        ValueError: they are of another class.
    """
    if isinstance(inputs, PairInputs):
        said, vocabulary, tokenizer = describe_inputs(inputs.inputs)
        return {"type": "pair", "inputs": said}, vocabulary, tokenizer
    if isinstance(inputs, WordInputs):
        return {"type": "words"}, {"words": [*inputs.words], "chars": [*inputs.chars]}, None
    if isinstance(inputs, LiveInputs):
        _, vocabulary, _ = describe_inputs(inputs.words)
        said = {"type": "frozen", "max_length": inputs.subwords.max_length}
        return said, vocabulary, inputs.subwords.tokenizer
    if isinstance(inputs, SubwordInputs):
        return {"type": "subwords", "max_length": inputs.max_length}, None, inputs.tokenizer
    if isinstance(inputs, TableInputs):
        features = [[f.name, f.missing, list(f.categories)] for f in inputs.features]
        numbers = {"mean": inputs.mean.tolist(), "std": inputs.std.tolist()}
        return {"type": "table", **numbers, "features": features}, None, None
    raise ValueError(
        f"a folder holds word, sub-word, pair or table inputs, found {type(inputs).__name__}: "
        "save its state_dict yourself."
    )


def make_inputs(said: dict[str, Any], vocabulary: dict[str, list[str]], folder: Path) -> Any:
    """The inputs of a description; ``folder`` has their tokenizer."""
    kind = said["type"]
    if kind == "pair":
        return PairInputs(make_inputs(said["inputs"], vocabulary, folder))
    if kind == "table":
        features = [Feature(name, missing, tuple(names)) for name, missing, names in said["features"]]
        return TableInputs(np.array(said["mean"]), np.array(said["std"]), features)
    if kind == "subwords":
        return SubwordInputs(load_tokenizer(str(folder / TRANSFORMER)), said["max_length"])
    words, chars = ({v: i for i, v in enumerate(vocabulary[key], 2)} for key in ("words", "chars"))
    if kind == "words":
        return WordInputs(words, chars)
    if kind == "frozen":
        subwords = SubwordInputs(load_tokenizer(str(folder / TRANSFORMER)), said["max_length"])
        return LiveInputs(WordInputs(words, chars), subwords)
    raise ValueError(f"there are no inputs {kind!r}")
