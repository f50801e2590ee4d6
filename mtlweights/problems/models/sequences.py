"""Sequence to sequence: a Hugging Face encoder-decoder, its encoder for all tasks, its decoder a head of one.

Letters: B examples, W words of the longest, H width, L pieces of the longest target, V pieces there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..task import MISSING
from .encoders import States
from .transformer import Transformer, load_model

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class EncoderDecoder(Transformer):
    """The encoder of T5, BART and the like, for the heads of any kind; inputs: those of `SubwordInputs`.

    The embeddings that encoder and decoder have in common are reached by every task, the decoder's own
    layers by the task of kind "sequence" alone.

    Args:
        model: folder, name, or a config object, from which the weights are drawn.
        longest: pieces of an answer at most.

    Raises:
        ValueError: it is no encoder-decoder.
    """

    def __init__(self, model: str | PreTrainedConfig, longest: int = 64) -> None:
        super().__init__(model, load=_load)
        self.longest = longest

    def hidden(self, inputs: dict[str, Any]) -> Tensor:
        """The states of all sub-words [B, S, H]."""
        given = {key: inputs[key] for key in ("input_ids", "attention_mask")}
        hidden: Tensor = self.model.get_encoder()(**given).last_hidden_state
        return hidden


def _load(model: str | PreTrainedConfig) -> Any:
    found: Any = load_model(model, "AutoModelForSeq2SeqLM")
    if not found.config.is_encoder_decoder:
        raise ValueError(f"EncoderDecoder expects a model like T5 or BART, found {type(found).__name__}.")
    return found


class SequenceHead(nn.Module):
    """The decoder of an `EncoderDecoder`, which attends to the words' states.

    It has no parameters of its own: they are the encoder-decoder's.
    """

    def __init__(self, encoder: EncoderDecoder) -> None:
        super().__init__()
        self._encoder = (encoder,)  # no submodule: its parameters have one name each

    def forward(self, states: States, target: Tensor | None = None) -> Tensor:
        """Logits [B, L, V], each piece after those of ``target`` [B, L] before it; without: an answer.

        The answer is the greedy one, ids [B, L] up to and with the end piece, -100 behind it.
        """
        from transformers.modeling_outputs import BaseModelOutput

        model: Any = self._encoder[0].model
        assert states.tokens is not None and states.mask is not None
        read = {
            "encoder_outputs": BaseModelOutput(last_hidden_state=states.tokens),
            "attention_mask": states.mask.long(),
        }
        if target is not None:
            logits: Tensor = model(**read, labels=target, use_cache=False).logits
            return logits.float()
        kept = {"max_new_tokens": self._encoder[0].longest, "num_beams": 1, "do_sample": False}
        return _answers(model.generate(**read, **kept)[:, 1:], model.config.eos_token_id)


def _answers(ids: Tensor, end: int) -> Tensor:
    """Ids [B, L] with -100 behind the end piece; the start piece is left out before."""
    ended = (ids == end).long().cumsum(1)
    behind = (ended - (ids == end).long()) > 0
    return ids.masked_fill(behind, MISSING) if ids.shape[1] else torch.full_like(ids, MISSING)
