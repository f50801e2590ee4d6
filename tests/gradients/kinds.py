"""Models of every kind of layer, and what a plain computation makes of them."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mtlweights.strategies import GramStrategy
from tests.toys import naive_gram, naive_rows, names

T = 3


class Probe(GramStrategy):
    """Weights that move smoothly with every entry of the Gramian."""

    def weights(self, gram, losses, present):
        self.seen = gram.copy()
        self.precision = torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")
        return 1 + gram.sum(1) / (1e-30 + np.trace(gram))


class Model(nn.Module):
    """A trunk, and T linear heads on its output; ``encode`` is what the kinds below fill in."""

    def __init__(self, width=6):
        super().__init__()
        self.build()
        self.heads = nn.ModuleList([nn.Linear(width, 2) for _ in range(T)])

    def forward(self, x):
        h = self.encode(x)
        return [F.cross_entropy((i + 1) * head(h), x["y"][:, i]) for i, head in enumerate(self.heads)]


class Plain(Model):
    def build(self):
        self.trunk = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6, bias=False), nn.Tanh())

    def encode(self, x):
        return self.trunk(x["x"])


class Partly(Plain):
    """A layer that two of the three tasks use."""

    def build(self):
        super().build()
        self.extra = nn.Linear(6, 6)

    def forward(self, x):
        h = self.encode(x)
        inputs = [self.extra(h), self.extra(h), h]
        pairs = zip(self.heads, inputs, strict=True)
        return [F.cross_entropy(head(z), x["y"][:, i]) for i, (head, z) in enumerate(pairs)]


class Tied(Model):
    """One weight as an embedding and as a linear layer, one linear layer three times, one by hand."""

    def build(self):
        self.embed, self.again = nn.Embedding(9, 6), nn.Linear(6, 6)
        self.matrix = nn.Parameter(torch.randn(6, 6))

    def encode(self, x):
        h = self.embed(x["ids"]).mean(1)
        h = torch.tanh(self.again(torch.tanh(self.again(self.again(h)))))
        return torch.tanh(F.linear(h, self.embed.weight)) @ self.embed.weight + h @ self.matrix


class Frozen(Plain):
    def build(self):
        super().build()
        self.still, self.unused = nn.Linear(6, 6).requires_grad_(False), nn.Linear(2, 2)

    def encode(self, x):
        return self.still(super().encode(x))


class Checkpointed(Plain):
    def encode(self, x):
        return checkpoint(self.trunk, x["x"].requires_grad_(), use_reentrant=False)


class Dropout(Plain):
    def encode(self, x):
        return F.dropout(super().encode(x), 0.5, self.training)


class BatchNorm(Model):
    def build(self):
        self.trunk = nn.Sequential(
            nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6), nn.LayerNorm(6)
        )

    def encode(self, x):
        return self.trunk(x["x"])


class LSTM(Model):
    def build(self):
        self.lstm = nn.LSTM(5, 3, bidirectional=True, batch_first=True)

    def encode(self, x):
        return self.lstm(x["sequence"])[0].mean(1)


class Cell(Model):
    """A recurrent cell by hand: its weights are used once per time step."""

    def build(self):
        self.cell = nn.LSTMCell(5, 6)

    def encode(self, x):
        state = None
        for step in x["sequence"].unbind(1):
            state = self.cell(step, state)
        return state[0]


class Attention(Model):
    def build(self):
        self.up, self.norm = nn.Linear(5, 6), nn.LayerNorm(6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def encode(self, x):
        h = self.up(x["sequence"])
        return self.norm(h + self.attention(h, h, h, need_weights=False)[0]).mean(1)


class Convolution(Model):
    def build(self):
        self.conv, self.strided = nn.Conv1d(5, 6, 3, padding=1), nn.Conv1d(6, 6, 2, stride=2, groups=2)

    def encode(self, x):
        return self.strided(torch.relu(self.conv(x["sequence"].transpose(1, 2)))).mean(2)


class Embedding(Model):
    def build(self):
        self.embed, self.padded = nn.Embedding(9, 6), nn.Embedding(9, 6, padding_idx=0)
        self.bag, self.scaled = nn.EmbeddingBag(9, 6), nn.Embedding(9, 6, scale_grad_by_freq=True)

    def encode(self, x):
        tables = (self.embed, self.padded, self.scaled)
        return sum(table(x["ids"]) for table in tables).mean(1) + self.bag(x["ids"])


class Penalised(Plain):
    """A weight that also enters the losses directly, and one behind a long chain of views."""

    def build(self):
        self.trunk = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))

    def forward(self, x):
        chain = self.trunk[2].weight.t().reshape(-1).view(4, 9).t().reshape(-1).view(36).exp().mean()
        return [
            loss + i * self.trunk[0].weight.square().mean() + chain
            for i, loss in enumerate(super().forward(x))
        ]


class Turned(Model):
    """Weights that a product takes from the left, or times a constant."""

    def build(self):
        self.up = nn.Linear(5, 6)
        self.left, self.scaled = (nn.Parameter(torch.randn(6, 6)) for _ in range(2))

    def encode(self, x):
        h = torch.tanh(self.up(x["x"]))
        return (self.left @ h.T).T + torch.addmm(h, h, self.scaled, alpha=2.0)


KINDS = [Plain, Partly, Tied, Frozen, Checkpointed, Dropout, BatchNorm, LSTM]
KINDS += [Cell, Attention, Convolution, Embedding, Penalised, Turned]


def build(kind):
    torch.manual_seed(0)
    return kind()


def inputs(n=7, seed=1):
    g = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(n, 5, generator=g),
        "y": torch.randint(0, 2, (n, T), generator=g),
        "ids": torch.randint(0, 9, (n, 4), generator=g),
        "sequence": torch.randn(n, 4, 5, generator=g),
    }


def losses_of(model, seed=1):
    torch.manual_seed(seed)
    return dict(zip(names(T), model(inputs(seed=seed)), strict=True))


def plainly(model, seed=1):
    """Gramian and gradients by one backward per task, everything in full."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    losses = losses_of(model, seed)
    rows = naive_rows(losses.values(), [p for _, p in named])
    shared = [c for c in range(len(named)) if sum(row[c] is not None for row in rows) >= 2]
    gram = naive_gram(rows, shared)
    weights = Probe(T).weights(gram, None, np.arange(T))
    out = dict.fromkeys(n for n, _ in model.named_parameters())
    for c, (name, _) in enumerate(named):
        each = weights if c in shared else np.ones(T)
        terms = [w * row[c] for w, row in zip(each, rows, strict=True) if row[c] is not None]
        out[name] = sum(terms) if terms else None
    return gram, out


def assert_gram(found, expected):
    norms = np.sqrt(np.diag(expected))
    assert (np.abs(found - expected) <= 1e-5 * np.outer(norms, norms)).all()
