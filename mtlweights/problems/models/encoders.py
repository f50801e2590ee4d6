"""Encoders: what all tasks share. Each turns a batch of inputs into `States`.

Letters: B examples, W words of the longest example, C characters, L layers of a frozen model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ..task import Task

UNKNOWN = 1  #: index of a word or character not seen in training; 0 is padding


class States(NamedTuple):
    """What an encoder hands to the heads. Padding never changes the states of real words."""

    tokens: Tensor | None  #: [B, W, token_dim], one per word, zero where mask is False
    mask: Tensor | None  #: [B, W] bool, False for padding and for words cut off
    pooled: Tensor  #: [B, pooled_dim], one per example


class Encoder(nn.Module, ABC):
    """Base class. All parameters are on the path to every output, so every task reaches them."""

    token_dim: int | None  #: width of ``States.tokens``; None: the encoder has no words
    pooled_dim: int  #: width of ``States.pooled``
    per_task = False  #: `forward` takes the tasks' names too, and gives states for each

    @abstractmethod
    def forward(self, inputs: dict[str, Any], /) -> Any:
        """Encode a batch made by one of `mtlweights.problems.models.inputs` to `States`."""

    def output(self, task: Task, width: int) -> nn.Module:
        """A head's last layer, from states of this width."""
        return nn.Linear(width, task.n_outputs)


def encode(encoder: Encoder, inputs: dict[str, Any], tasks: Sequence[str]) -> dict[str, States]:
    """The states each of these tasks is given: the same ones where the encoder makes no difference."""
    if encoder.per_task:
        found: dict[str, States] = encoder(inputs, tasks)
        return found
    return dict.fromkeys(tasks, encoder(inputs))


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` [B, W, H] over the True of ``mask`` [B, W]; zero where there is none."""
    total = (values * mask.unsqueeze(-1)).sum(1)
    return total / mask.sum(1, keepdim=True).clamp(min=1)


def masked_max(values: Tensor, mask: Tensor) -> Tensor:
    """Maximum of ``values`` [B, W, H] over the True of ``mask`` [B, W]; zero where there is none."""
    lowest = torch.finfo(values.dtype).min
    highest = values.masked_fill(~mask.unsqueeze(-1), lowest).amax(1)
    return highest * mask.any(1, keepdim=True)


def _embedding(n: int, dim: int) -> nn.Embedding:
    """Row 0 is padding and zero. Small: rows of rare words would stay near their random start."""
    embedding = nn.Embedding(n, dim, padding_idx=0)
    with torch.no_grad():
        embedding.weight.mul_(0.1)
    return embedding


class CharCNN(nn.Module):
    """Word vectors from characters: one convolution, maximum over positions (Ma and Hovy 2016)."""

    def __init__(self, n_chars: int, dim: int, filters: int, width: int = 3) -> None:
        super().__init__()
        self.embedding = _embedding(n_chars, dim)
        self.convolution = nn.Conv1d(dim, filters, width, padding=width // 2)

    def forward(self, chars: Tensor) -> Tensor:
        """Vectors [N, filters] of words spelt ``chars`` [N, C], 0 = padding."""
        mask = chars > 0
        hidden = self.convolution(self.embedding(chars).transpose(1, 2)).transpose(1, 2)
        return torch.relu(masked_max(hidden, mask))


class ScalarMix(nn.Module):
    """Learned mix of layers: ``gain * sum_l softmax(weights)_l h_l`` (Peters et al. 2018, eq. 1)."""

    def __init__(self, n_layers: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(n_layers))
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, layers: Tensor) -> Tensor:
        """Mix ``layers`` [N, L, F], of any floating type, to [N, F] float32."""
        weights = self.gain * torch.softmax(self.weights, 0)
        return torch.einsum("l,nlf->nf", weights, layers.float())


class BiLSTM(Encoder):
    """Bidirectional LSTM over word and character embeddings, and optionally frozen features.

    Inputs: ``words`` [B, W] and ``chars`` [B, W, C] indices, ``mask`` [B, W] bool, and with
    ``features`` = (L, F) also ``features`` [B, W, L, F], whose layers are mixed by a `ScalarMix`,
    projected to ``feature_dim`` and put beside the embeddings.

    In training a word becomes unknown with probability ``word_dropout``. ``pooled`` is the masked
    mean and maximum of the words' states.
    """

    def __init__(
        self,
        n_words: int,
        n_chars: int,
        *,
        word_dim: int = 100,
        char_dim: int = 32,
        char_filters: int = 64,
        hidden: int = 128,
        layers: int = 1,
        dropout: float = 0.4,
        word_dropout: float = 0.2,
        features: tuple[int, int] | None = None,
        feature_dim: int = 256,
    ) -> None:
        super().__init__()
        self.token_dim, self.pooled_dim = 2 * hidden, 4 * hidden
        self.word_dropout = word_dropout
        self.words = _embedding(n_words, word_dim)
        self.chars = CharCNN(n_chars, char_dim, char_filters)
        width = word_dim + char_filters
        self.mix: ScalarMix | None = None
        if features is not None:
            self.mix = ScalarMix(features[0])
            self.project = nn.Linear(features[1], feature_dim)
            width += feature_dim
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(
            width,
            hidden,
            layers,
            batch_first=True,
            bidirectional=True,
            dropout=dropout if layers > 1 else 0.0,
        )

    def forward(self, inputs: dict[str, Any]) -> States:
        """Encode a batch; an example without words has zero states."""
        mask: Tensor = inputs["mask"]
        tokens = self.dropout(self._recur(self.dropout(self.embed(inputs, mask)), mask))
        pooled = torch.cat([masked_mean(tokens, mask), masked_max(tokens, mask)], -1)
        return States(tokens, mask, pooled)

    def embed(self, inputs: dict[str, Any], mask: Tensor) -> Tensor:
        """What the first layer is given [B, W, F], before the dropout."""
        # Padding is left out: with tweets in a batch it would double the work.
        words: Tensor = inputs["words"][mask]
        if self.training and self.word_dropout > 0:
            drop = torch.rand(words.shape, device=words.device) < self.word_dropout
            words = words.masked_fill(drop, UNKNOWN)
        parts = [self.words(words), self.chars(inputs["chars"][mask])]
        if self.mix is not None:
            if "features" not in inputs:
                raise ValueError("This BiLSTM expects frozen features, found none: use FrozenInputs.")
            parts.append(torch.tanh(self.project(self.mix(inputs["features"][mask]))))
        real = torch.cat(parts, -1).float()
        embedded = real.new_zeros(*mask.shape, real.shape[-1])
        embedded[mask] = real
        return embedded

    def _recur(self, embedded: Tensor, mask: Tensor) -> Tensor:
        # An empty example counts as one word of padding, so that the graph stays connected.
        lengths = mask.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        states, _ = self.lstm(packed)
        padded, _ = pad_packed_sequence(states, batch_first=True, total_length=mask.shape[1])
        return padded * mask.unsqueeze(-1)


class MLP(Encoder):
    """Hidden layers of ReLU over the columns of a table. Input: ``x`` [B, n_inputs] float."""

    token_dim = None

    def __init__(self, n_inputs: int, hidden: Sequence[int] = (64, 64), dropout: float = 0.0) -> None:
        super().__init__()
        widths = [n_inputs, *hidden]
        layers: list[nn.Module] = []
        for width, following in pairwise(widths):
            layers += [nn.Linear(width, following), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)
        self.pooled_dim = widths[-1]

    def forward(self, inputs: dict[str, Any]) -> States:
        """Encode a batch of rows."""
        return States(None, None, self.layers(inputs["x"]))


class Pair(Encoder):
    """Two inputs through one encoder: pooled ``[u; v; |u - v|; u * v]`` (Conneau et al. 2017).

    Inputs: ``a`` and ``b``, each the inputs of ``encoder``.
    """

    token_dim = None

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.per_task = encoder, encoder.per_task
        self.pooled_dim = 4 * encoder.pooled_dim

    def forward(self, inputs: dict[str, Any], tasks: Sequence[str] | None = None) -> Any:
        """Encode a batch of pairs; for each of the tasks where the encoder does."""
        if not self.per_task:
            return _joined(self.encoder(inputs["a"]), self.encoder(inputs["b"]))
        u, v = self.encoder(inputs["a"], tasks), self.encoder(inputs["b"], tasks)
        return {task: _joined(u[task], v[task]) for task in u}


def _joined(a: States, b: States) -> States:
    u, v = a.pooled, b.pooled
    return States(None, None, torch.cat([u, v, (u - v).abs(), u * v], -1))
