"""The models of the step benchmark: a trunk that T tasks share, and a head per task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Criterion = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Problem:
    """A model and one batch. ``trunk(inputs)`` is the representation that every head takes."""

    trunk: nn.Module
    heads: nn.ModuleDict
    inputs: Tensor
    targets: dict[str, Tensor]
    criterion: Criterion

    def __post_init__(self) -> None:
        self.model = nn.ModuleDict({"trunk": self.trunk, "heads": self.heads})
        self.params = list(self.model.parameters())
        self.tasks = list(self.heads)

    @property
    def shared_elements(self) -> int:
        """P: elements of the parameters that all tasks share."""
        return sum(p.numel() for p in self.trunk.parameters())

    def losses_at(self, features: Tensor) -> dict[str, Tensor]:
        """Task -> loss [], from the representation."""
        return {t: self.criterion(head(features), self.targets[t]) for t, head in self.heads.items()}

    def losses(self) -> dict[str, Tensor]:
        """Task -> loss [] of a forward pass."""
        return self.losses_at(self.trunk(self.inputs))

    def zero_grad(self) -> None:
        """As ``optimizer.zero_grad(set_to_none=True)``."""
        for param in self.params:
            param.grad = None


class Tagger(nn.Module):
    """Token ids [B, L] -> states [B, L, 2 width] of a bidirectional LSTM."""

    def __init__(self, vocabulary: int, width: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width // 2)
        self.lstm = nn.LSTM(width // 2, width, layers, batch_first=True, bidirectional=True)

    def forward(self, ids: Tensor) -> Tensor:
        return self.lstm(self.embedding(ids))[0]


class Transformer(nn.Module):
    """Token ids [B, L] -> states [B, L, width] of a BERT without pretrained weights."""

    def __init__(self, vocabulary: int, width: int, layers: int) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=4 * width,
        )
        self.bert = BertModel(config, add_pooling_layer=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.bert(ids).last_hidden_state


class Recommender(nn.Module):
    """Item ids [B, L] of a user -> representation [B, width]: mean embedding, two layers."""

    def __init__(self, items: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(items, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width), nn.ReLU()
        )

    def forward(self, ids: Tensor) -> Tensor:
        return self.mlp(self.embedding(ids).mean(1))


def _token_loss(scores: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(scores.flatten(0, 1), labels.flatten())


def _one_output(loss: Criterion) -> Criterion:
    return lambda scores, target: loss(scores.squeeze(-1), target)


def token_problem(
    trunk: nn.Module, features: int, n_tasks: int, shape: tuple[int, int], vocabulary: int
) -> Problem:
    names, labels = [f"t{i}" for i in range(n_tasks)], 10
    return Problem(
        trunk,
        nn.ModuleDict({n: nn.Linear(features, labels) for n in names}),
        torch.randint(vocabulary, shape),
        {n: torch.randint(labels, shape) for n in names},
        _token_loss,
    )


def mlp(n_tasks: int, *, width: int = 1024, batch: int = 64) -> Problem:
    """Four layers with ReLU, a regression per task."""
    trunk = nn.Sequential(*[m for _ in range(4) for m in (nn.Linear(width, width), nn.ReLU())])
    names = [f"t{i}" for i in range(n_tasks)]
    heads = nn.ModuleDict({n: nn.Linear(width, 1) for n in names})
    targets = {n: torch.randn(batch) for n in names}
    return Problem(trunk, heads, torch.randn(batch, width), targets, _one_output(F.mse_loss))


def bilstm(n_tasks: int, *, width: int = 256, shape: tuple[int, int] = (32, 30)) -> Problem:
    """Two bidirectional layers of ``width`` units a direction, a label per word and task."""
    return token_problem(Tagger(10_000, width, 2), 2 * width, n_tasks, shape, 10_000)


def transformer(
    n_tasks: int,
    *,
    width: int = 256,
    layers: int = 4,
    vocabulary: int = 30_522,
    shape: tuple[int, int] = (16, 64),
) -> Problem:
    """BERT with dropout 0.1, a label per token and task."""
    return token_problem(Transformer(vocabulary, width, layers), width, n_tasks, shape, vocabulary)


def recommender(
    n_tasks: int, *, items: int = 100_000, width: int = 64, shape: tuple[int, int] = (256, 20)
) -> Problem:
    """A binary target per user and task."""
    names = [f"t{i}" for i in range(n_tasks)]
    heads = nn.ModuleDict({n: nn.Linear(width, 1) for n in names})
    targets = {n: torch.randint(2, shape[:1]).float() for n in names}
    loss = _one_output(F.binary_cross_entropy_with_logits)
    return Problem(Recommender(items, width), heads, torch.randint(items, shape), targets, loss)


MODELS: dict[str, Callable[..., Problem]] = {
    "MLP": mlp,
    "BiLSTM": bilstm,
    "transformer": transformer,
    "recommender": recommender,
}
QUICK: dict[str, dict[str, object]] = {
    "MLP": {"width": 16, "batch": 4},
    "BiLSTM": {"width": 8, "shape": (2, 3)},
    "transformer": {"width": 8, "layers": 1, "vocabulary": 50, "shape": (2, 3)},
    "recommender": {"items": 500, "width": 4, "shape": (4, 3)},
}


def build(name: str, n_tasks: int, device: torch.device, sizes: Mapping[str, object]) -> Problem:
    """The same model and batch every time; ``sizes`` other than those of the table."""
    torch.manual_seed(0)
    return on(MODELS[name](n_tasks, **sizes), device)


def on(problem: Problem, device: torch.device) -> Problem:
    """The same on a device."""
    return Problem(
        problem.trunk.to(device),
        problem.heads.to(device),
        problem.inputs.to(device),
        {task: target.to(device) for task, target in problem.targets.items()},
        problem.criterion,
    )
