"""Heads: what each task has of its own. Outputs are float32, whatever the encoder's precision."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from ..task import Task
from .encoders import States


class Widths(Protocol):
    """What a head must know of the encoder, or of whatever stands before it."""

    token_dim: int | None  #: width of ``States.tokens``
    pooled_dim: int  #: width of ``States.pooled``

    def output(self, task: Task, width: int) -> nn.Module:
        """A head's last layer, from states of this width."""


class TokenHead(nn.Module):
    """One linear layer per word: logits [B, W, n]."""

    def __init__(self, output: nn.Module) -> None:
        super().__init__()
        self.output = output

    def forward(self, states: States) -> Tensor:
        """Logits [B, W, n]."""
        logits: Tensor = self.output(states.tokens)
        return logits.float()


class ClassificationHead(nn.Module):
    """One linear layer per example: logits [B, n]."""

    def __init__(self, output: nn.Module) -> None:
        super().__init__()
        self.output = output

    def forward(self, states: States) -> Tensor:
        """Logits [B, n]."""
        logits: Tensor = self.output(states.pooled)
        return logits.float()


class RegressionHead(nn.Module):
    """One number per example, ``mean + std * z`` with z from a linear layer: [B], in raw units.

    With the training targets' mean and standard deviation an untrained head predicts about the
    mean, and the layer learns a target of size one.
    """

    def __init__(self, output: nn.Module, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__()
        self.output = output
        self.mean, self.std = mean, std

    def forward(self, states: States) -> Tensor:
        """Predictions [B]."""
        z: Tensor = self.output(states.pooled)
        return self.mean + self.std * z.squeeze(-1).float()


def make_head(task: Task, encoder: Widths) -> nn.Module:
    """The head for a task. Raises ValueError for a task per word on an encoder without words."""
    if task.kind == "sequence":
        from .sequences import EncoderDecoder, SequenceHead

        if not isinstance(encoder, EncoderDecoder):
            raise ValueError(
                f"Task {task.name!r} writes sequences, but {type(encoder).__name__} has no decoder: use an "
                "EncoderDecoder."
            )
        return SequenceHead(encoder)
    if task.kind == "tokens":
        if encoder.token_dim is None:
            raise ValueError(
                f"Task {task.name!r} labels words, but {type(encoder).__name__} gives none: "
                "use a BiLSTM or a Transformer."
            )
        output = encoder.output(task, encoder.token_dim)
        if not task.crf:
            return TokenHead(output)
        from .crf import CRFHead  # itself a TokenHead

        return CRFHead(output, task.n_outputs)
    output = encoder.output(task, encoder.pooled_dim)
    if task.kind == "classification":
        return ClassificationHead(output)
    return RegressionHead(output, task.mean, task.std)
