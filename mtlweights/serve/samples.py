"""Examples drawn at random: what a model is checked, warmed and timed on where no data are at hand."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from ..problems.models import PairInputs, SubwordInputs, TableInputs

if TYPE_CHECKING:
    from .trained import TrainedModel

LONGEST = 30  #: words of a sentence


def sample(model: TrainedModel, n: int, seed: int = 0) -> list[Any]:
    """Examples for `TrainedModel.predict`: words of its vocabulary and others, empty ones too; or rows."""
    draw = random.Random(seed)
    if isinstance(model.inputs, TableInputs):
        return [_row(model.inputs, draw) for _ in range(n)]
    words = _words(model.inputs)
    if model.kind == "pair":
        return [(_sentence(words, draw), _sentence(words, draw)) for _ in range(n)]
    return [_sentence(words, draw) for _ in range(n)]


def _words(inputs: Any) -> list[str]:
    if isinstance(inputs, PairInputs):
        return _words(inputs.inputs)
    if isinstance(inputs, SubwordInputs):
        special = set(inputs.tokenizer.all_special_tokens)
        vocabulary = sorted(set(inputs.tokenizer.get_vocab()) - special)
        return [word.removeprefix("##").strip("Ġ▁") or "a" for word in vocabulary]
    words: list[str] = sorted(inputs.words if isinstance(inputs.words, dict) else inputs.words.words)
    return words


def _sentence(words: list[str], draw: random.Random) -> list[str]:
    return [draw.choice(words) if draw.random() < 0.9 else "Xyzzy1" for _ in range(draw.randint(0, LONGEST))]


def _row(inputs: TableInputs, draw: random.Random) -> Any:
    if not inputs.features:
        return [draw.gauss(mean, std) for mean, std in zip(inputs.mean, inputs.std, strict=True)]
    row: dict[str, Any] = {}
    at = 0
    for feature in inputs.features:
        if feature.categories:
            row[feature.name] = draw.choice([name for name in feature.categories if name] or [""])
        else:
            row[feature.name] = draw.gauss(inputs.mean[at], inputs.std[at])
        at += feature.width
    return row
