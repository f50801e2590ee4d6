"""The BiLSTM on padded inputs: one graph for every batch size and length, which exporters can follow.

Letters: B examples, W words of the longest, F inputs, H hidden units of a direction.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ..problems.models import BiLSTM, Encoder, Joint, Pair, Shared, States
from ..problems.models.encoders import masked_max, masked_mean
from ..problems.models.sharing.stack import TableStack
from .live import LiveFrozen


@torch.library.custom_op("mtlweights::lstm", mutates_args=())
def lstm(x: Tensor, lengths: Tensor, w: Tensor, r: Tensor, b: Tensor) -> Tensor:
    """One bidirectional layer: states [B, W, 2 H] of x [B, W, F] with ``lengths`` [B], zero behind them.

    An operator of its own: torch.export would unroll the steps of the example it is shown. The weights are
    laid out as ONNX's LSTM wants them: w [2, 4 H, F], r [2, 4 H, H], b [2, 8 H], gates i, o, f, c.
    """
    packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    weights: list[Tensor] = []
    for direction in (0, 1):
        own = [w[direction], r[direction], *b[direction].chunk(2)]
        for value in own:
            i, o, f, c = value.chunk(4)
            weights.append(torch.cat([i, f, c, o]))
    start = x.new_zeros(2, int(packed.batch_sizes[0]), r.shape[2])
    given = (packed.data, packed.batch_sizes, [start, start], weights)
    data = torch._VF.lstm(*given, True, 1, 0.0, False, True)[0]
    states = PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
    return pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])[0]


@lstm.register_fake
def _shape(x: Tensor, lengths: Tensor, w: Tensor, r: Tensor, b: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], 2 * r.shape[2])


def onnx_lstm(x: Any, lengths: Any, w: Any, r: Any, b: Any) -> Any:
    """`lstm` in ONNX, for torch.onnx's table of translations."""
    from onnxscript import opset18

    op: Any = opset18

    first = op.Transpose(x, perm=[1, 0, 2])
    size = r.shape[2]
    steps, _, _ = op.LSTM(
        first, w, r, b, op.Cast(lengths, to=6), hidden_size=int(size), direction="bidirectional"
    )
    states = op.Transpose(steps, perm=[2, 0, 1, 3])
    return op.Reshape(states, op.Constant(value_ints=[0, 0, -1]))


class PaddedBiLSTM(Encoder):
    """A trained `BiLSTM`, computing the same on padding and all."""

    def __init__(self, trained: BiLSTM) -> None:
        super().__init__()
        self.token_dim, self.pooled_dim = trained.token_dim, trained.pooled_dim
        self.words, self.chars, self.mix = trained.words, trained.chars, trained.mix
        self.project = trained.project if trained.mix is not None else nn.Identity()
        self.layers = trained.lstm.num_layers
        for layer in range(self.layers):
            for name, value in zip("wrb", _layout(trained.lstm, layer), strict=True):
                self.register_buffer(f"{name}{layer}", value)

    def forward(self, inputs: dict[str, Any]) -> States:
        """Encode a batch, as the `BiLSTM` does."""
        mask, chars = inputs["mask"], inputs["chars"]
        spelt = self.chars(chars.flatten(0, 1)).unflatten(0, mask.shape)
        parts = [self.words(inputs["words"]), spelt]
        if self.mix is not None:
            mixed = self.mix(inputs["features"].flatten(0, 1))
            parts.append(torch.tanh(self.project(mixed)).unflatten(0, mask.shape))
        tokens = torch.cat(parts, -1)
        lengths = mask.sum(1).clamp(min=1)
        for layer in range(self.layers):
            own = [self.get_buffer(f"{name}{layer}") for name in "wrb"]
            tokens = torch.ops.mtlweights.lstm(tokens, lengths, *own)
        tokens = tokens * mask.unsqueeze(-1)
        return States(tokens, mask, torch.cat([masked_mean(tokens, mask), masked_max(tokens, mask)], -1))


def _layout(trained: nn.LSTM, layer: int) -> list[Tensor]:
    """Weights of a layer as ONNX's operator has them."""

    def own(name: str, reverse: str) -> Tensor:
        i, f, c, o = getattr(trained, f"{name}_l{layer}{reverse}").detach().chunk(4)
        return torch.cat([i, o, f, c])

    both = ("", "_reverse")
    w, r = (torch.stack([own(name, way) for way in both]) for name in ("weight_ih", "weight_hh"))
    b = torch.stack([torch.cat([own("bias_ih", way), own("bias_hh", way)]) for way in both])
    return [w, r, b]


def padded(encoder: nn.Module) -> nn.Module:
    """The encoder with every BiLSTM in it replaced; the trained one stays as it is."""
    if isinstance(encoder, BiLSTM):
        return PaddedBiLSTM(encoder)
    if isinstance(encoder, Pair):
        return Pair(padded(encoder.encoder))  # type: ignore[arg-type]
    if isinstance(encoder, LiveFrozen):
        return LiveFrozen(encoder.frozen, padded(encoder.encoder))  # type: ignore[arg-type]
    if isinstance(encoder, Joint):
        return encoder.around(padded(encoder.encoder))  # type: ignore[arg-type]
    if isinstance(encoder, Shared) and not isinstance(encoder.stack, TableStack):
        raise ValueError(
            f"sharing={encoder.form} is exported over a table alone: serve this folder as it is, in PyTorch."
        )
    return encoder
