"""A transformer of 100 million parameters, of torch's own layers, and a model in bf16 autocast."""

from __future__ import annotations

from typing import Any

import torch
from models import Problem, token_problem
from torch import Tensor, nn


class Encoder(nn.Module):
    """Token ids [B, L] -> states [B, L, width]: embedding, positions, layers with dropout 0.1."""

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, length: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.1, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.layers(self.tokens(ids) + self.places)


def transformer(
    n_tasks: int,
    *,
    width: int = 768,
    layers: int = 12,
    heads: int = 12,
    vocabulary: int = 30_522,
    shape: tuple[int, int] = (16, 256),
) -> Problem:
    """A label per token and task, as the small one's; 109 million parameters by default."""
    trunk = Encoder(vocabulary, width, layers, heads, shape[1])
    return token_problem(trunk, width, n_tasks, shape, vocabulary)


class Autocast(nn.Module):
    """A module whose forward runs in bf16 autocast, its output in float32 where ``wide``."""

    def __init__(self, inner: nn.Module, wide: bool) -> None:
        super().__init__()
        self.inner, self.wide = inner, wide

    def forward(self, x: Tensor) -> Any:
        with torch.autocast(x.device.type, torch.bfloat16):
            out = self.inner(x)
        return out.float() if self.wide else out


def in_bf16(problem: Problem) -> Problem:
    """The same model, batch and losses, its layers in bf16 autocast."""
    heads = nn.ModuleDict({task: Autocast(head, True) for task, head in problem.heads.items()})
    return Problem(Autocast(problem.trunk, False), heads, problem.inputs, problem.targets, problem.criterion)
