"""Random numbers on the losses' device that are a function of (seed, committed step), not of a stream."""

from __future__ import annotations

import torch
from torch import Tensor

_BITS = 64


def uniform(seed: int, step: Tensor, n: int, device: torch.device) -> Tensor:
    """n draws in (0, 1), a pure function of (seed, step, index): float32 [n] on ``device``.

    The stream is SplitMix64 (Steele, Lea, Flood 2014, https://doi.org/10.1145/2660193.2660195), read
    at step * n + index, in int64 arithmetic that wraps.
    """
    x = (step * n + torch.arange(n, device=device)) * _signed(0x9E3779B97F4A7C15)
    x = x + _signed((seed + 1) * 0xD1342543DE82EF95)  # where the stream of this seed starts
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    # 23 bits, so that the midpoints of the cells are exact in float32 and never reach 0 or 1.
    cells = _shift(x ^ _shift(x, 31), _BITS - 23)
    return (cells.to(torch.float32) + 0.5) / 2**23


def _shift(x: Tensor, bits: int) -> Tensor:
    # torch's int64 shift copies the sign bit; the hash needs zeros there.
    return (x >> bits) & ((1 << (_BITS - bits)) - 1)


def _signed(x: int) -> int:
    x %= 1 << _BITS
    return x - (1 << _BITS) if x >> (_BITS - 1) else x
