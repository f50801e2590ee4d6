"""Frozen features without a cache: the transformer itself, in front of what was trained on its states.

Letters: B sentences, W words of the longest, L layers (embeddings included), F width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..problems import Task
from ..problems.models import Encoder, FrozenInputs, FrozenStates, SubwordInputs, WordInputs
from ..problems.models.transformer import load_model, load_tokenizer

LONGEST = 512  #: sub-words of a sentence, as in training


class LiveFrozen(Encoder):
    """An encoder on frozen features, and the transformer they come from. Inputs: those of `LiveInputs`.

    The states are rounded to float16 as the cached ones are that the encoder was trained on.
    """

    def __init__(self, frozen: nn.Module, encoder: Encoder) -> None:
        super().__init__()
        self.frozen, self.encoder = frozen.requires_grad_(False), encoder
        self.token_dim, self.pooled_dim = encoder.token_dim, encoder.pooled_dim
        self.per_task = encoder.per_task

    def output(self, task: Task, width: int) -> nn.Module:
        """As the encoder's."""
        return self.encoder.output(task, width)

    def forward(self, inputs: dict[str, Any], tasks: Sequence[str] | None = None) -> Any:
        """Encode a batch; for each of the tasks where the encoder does."""
        given = {k: inputs[k] for k in ("input_ids", "attention_mask", "token_type_ids") if k in inputs}
        layers = torch.stack(self.frozen(**given, output_hidden_states=True).hidden_states, 2)
        index = inputs["first"][..., None, None].expand(-1, -1, *layers.shape[2:])
        features = torch.gather(layers, 1, index) * inputs["seen"][..., None, None]
        own = {key: inputs[key] for key in ("words", "chars", "mask")}
        own = {**own, "features": features.half().float()}
        return self.encoder(own, tasks) if self.per_task else self.encoder(own)


class LiveInputs:
    """`WordInputs`' tensors, and the sub-words for the frozen transformer."""

    def __init__(self, words: WordInputs, subwords: SubwordInputs) -> None:
        self.words, self.subwords = words, subwords

    def __call__(self, sentences: Sequence[Sequence[str]]) -> dict[str, Tensor]:
        """As `WordInputs`, with ``input_ids``, ``attention_mask``, ``first`` and ``seen`` [B, W] bool."""
        subwords = self.subwords(sentences)
        return {**self.words(sentences), "seen": subwords.pop("mask"), **subwords}


def live(encoder: Encoder, inputs: FrozenInputs) -> tuple[LiveFrozen, LiveInputs]:
    """What computes the features of a model that was trained on cached ones."""
    states: FrozenStates = inputs.states
    frozen = load_model(str(states.folder)).train(False).to(next(encoder.parameters()).device)
    longest = min(getattr(frozen.config, "max_position_embeddings", LONGEST), LONGEST)
    subwords = SubwordInputs(load_tokenizer(str(states.folder)), longest)
    return LiveFrozen(frozen, encoder), LiveInputs(inputs.words, subwords)
