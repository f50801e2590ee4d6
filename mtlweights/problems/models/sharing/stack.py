"""An encoder taken apart: a bottom that all tasks share, layers to be had in several copies, and a top.

Letters: B examples, W words of the longest, F and H widths. Hidden states are [B, F] or [B, W, F].
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ..encoders import MLP, BiLSTM, Encoder, States, masked_max, masked_mean
from ..transformer import Transformer


class Parallel(nn.ModuleList):
    """Copies of one layer, side by side.

    What is measured at a model's last shared layer is measured over all of them: the balancer reads
    ``side_by_side``.
    """

    side_by_side = True


class Stack(nn.Module, ABC):
    """Base class. The bottom's parameters, if there are any, are on the path to every output.

    Attributes:
        widths: of the bottom's states, and of what each layer gives.
    """

    widths: tuple[int, ...]
    token_dim: int | None
    pooled_dim: int

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.widths) - 1

    @abstractmethod
    def bottom(self, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
        """Hidden states below the first layer, and what `run` and `top` must know of the batch."""

    @abstractmethod
    def layer(self, k: int) -> nn.Module:
        """A new layer of number k, from 0."""

    @abstractmethod
    def run(self, layer: nn.Module, hidden: Tensor, batch: Any) -> Tensor:
        """Hidden states above a layer."""

    @abstractmethod
    def top(self, hidden: Tensor, batch: Any) -> States:
        """What heads are given."""

    def copies(self, numbers: Sequence[int]) -> nn.ModuleList:
        """Every layer in that many copies. To be called once."""
        return nn.ModuleList(
            Parallel(self.layer(k) for _ in range(number)) for k, number in enumerate(numbers)
        )


class TableStack(Stack):
    """Of an `MLP`: the bottom is the table's row itself, a layer linear, ReLU and dropout."""

    def __init__(self, encoder: MLP) -> None:
        super().__init__()
        linear = [layer for layer in encoder.layers if isinstance(layer, nn.Linear)]
        self.dropout = next((layer.p for layer in encoder.layers if isinstance(layer, nn.Dropout)), 0.0)
        self.widths = (linear[0].in_features, *(layer.out_features for layer in linear))
        self.token_dim, self.pooled_dim = None, self.widths[-1]

    def bottom(self, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
        """The row."""
        return inputs["x"], None

    def layer(self, k: int) -> nn.Module:
        """Linear, ReLU, dropout."""
        into, out = self.widths[k : k + 2]
        return nn.Sequential(nn.Linear(into, out), nn.ReLU(), nn.Dropout(self.dropout))

    def run(self, layer: nn.Module, hidden: Tensor, batch: Any) -> Tensor:
        """The layer."""
        out: Tensor = layer(hidden)
        return out

    def top(self, hidden: Tensor, batch: Any) -> States:
        """One state per example."""
        return States(None, None, hidden)


class Recurrent(nn.Module):
    """One bidirectional layer of an LSTM and the dropout behind it, zero where the mask is False."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """States [B, W, 2 H] of ``hidden`` [B, W, F]; an example without words counts as one of padding."""
        lengths = mask.sum(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(hidden, lengths, batch_first=True, enforce_sorted=False)
        states, _ = self.lstm(packed)
        padded, _ = pad_packed_sequence(states, batch_first=True, total_length=mask.shape[1])
        out: Tensor = self.dropout(padded) * mask.unsqueeze(-1)
        return out


class WordStack(Stack):
    """Of a `BiLSTM`: the bottom is the embeddings, a layer one of the LSTM."""

    def __init__(self, encoder: BiLSTM) -> None:
        super().__init__()
        self.encoder = encoder
        self.hidden, n = encoder.lstm.hidden_size, encoder.lstm.num_layers
        self.widths = (encoder.lstm.input_size, *[2 * self.hidden] * n)
        self.token_dim, self.pooled_dim = encoder.token_dim, encoder.pooled_dim
        encoder.lstm = Taken(n, self.hidden)  # type: ignore[assignment]

    def bottom(self, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
        """Embeddings [B, W, F] and the mask [B, W]."""
        mask: Tensor = inputs["mask"]
        return self.encoder.dropout(self.encoder.embed(inputs, mask)), mask

    def layer(self, k: int) -> nn.Module:
        """An LSTM of one layer."""
        return Recurrent(self.widths[k], self.hidden, self.encoder.dropout.p)

    def run(self, layer: nn.Module, hidden: Tensor, batch: Any) -> Tensor:
        """The layer, over the words of the mask."""
        out: Tensor = layer(hidden, batch)
        return out

    def top(self, hidden: Tensor, batch: Any) -> States:
        """The words' states, and their mean and maximum."""
        return States(hidden, batch, torch.cat([masked_mean(hidden, batch), masked_max(hidden, batch)], -1))


class Taken(nn.Module):
    """What is left of layers that a stack has taken out: how many there were, and how wide."""

    def __init__(self, num_layers: int, hidden_size: int) -> None:
        super().__init__()
        self.num_layers, self.hidden_size = num_layers, hidden_size


class BlockStack(Stack):
    """Of a `Transformer` like BERT: the layers are its last ``blocks`` blocks, the bottom all below them.

    Every copy of a block starts from the pretrained one.
    """

    def __init__(self, encoder: Transformer, blocks: int) -> None:
        super().__init__()
        own = _blocks(encoder.model)
        if not 1 <= blocks < len(own):
            raise ValueError(
                f"blocks should be from 1 to {len(own) - 1} of the model's {len(own)}, found {blocks}."
            )
        width = encoder.pooled_dim
        self.encoder, self.widths = encoder, (width,) * (blocks + 1)
        self.token_dim = self.pooled_dim = width
        self._taken: list[nn.Module] = [*own[-blocks:]]
        del own[-blocks:]
        own[-1].register_forward_pre_hook(self._note, with_kwargs=True)
        self._call: Any = None

    def _note(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """How the model calls its blocks: with masks that its own code has made."""
        self._call = args[1:], kwargs

    def bottom(self, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
        """Hidden states of the sub-words [B, S, F]; the inputs, and how a block is called."""
        hidden = self.encoder.hidden(inputs)
        call, self._call = self._call, None
        return hidden, (inputs, call)

    def layer(self, k: int) -> nn.Module:
        """A copy of the pretrained block."""
        return copy.deepcopy(self._taken[k])

    def copies(self, numbers: Sequence[int]) -> nn.ModuleList:
        """Every block in that many copies. To be called once."""
        found = super().copies(numbers)
        del self._taken
        return found

    def run(self, layer: nn.Module, hidden: Tensor, batch: Any) -> Tensor:
        """The block."""
        args, kwargs = batch[1]
        out: Any = layer(hidden, *args, **kwargs)
        found: Tensor = out[0] if isinstance(out, tuple) else out
        return found

    def top(self, hidden: Tensor, batch: Any) -> States:
        """As the transformer's."""
        return self.encoder.states(hidden, batch[0])


def _blocks(model: nn.Module) -> nn.ModuleList:
    for name in ("encoder", "transformer"):
        found = getattr(getattr(model, name, None), "layer", None)
        if isinstance(found, nn.ModuleList):
            return found
    raise ValueError(
        f"this form of sharing takes a transformer like BERT apart, found {type(model).__name__}."
    )


def stack_of(encoder: Encoder, blocks: int = 1) -> Stack:
    """Take an encoder apart, which is of no use by itself from then on.

    Args:
        blocks: of a transformer, how many of its last blocks are the layers.

    Raises:
        ValueError: an encoder that has no layers to be had in copies.
    """
    if isinstance(encoder, MLP):
        return TableStack(encoder)
    if isinstance(encoder, BiLSTM):
        return WordStack(encoder)
    if isinstance(encoder, Transformer):
        return BlockStack(encoder, blocks)
    raise ValueError(f"forms of sharing know an MLP, BiLSTM and Transformer, found {type(encoder).__name__}.")
