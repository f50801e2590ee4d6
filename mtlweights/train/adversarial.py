"""Adversarial training on embeddings: several backwards of one batch before one step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..specs import parse_way

_DEFAULTS: dict[str, dict[str, Any]] = {
    "fgm": {"epsilon": 0.3},
    "freelb": {"epsilon": 0.3, "lr": 0.2, "steps": 3},
}
_FIXED = ("position", "token_type")  #: embeddings of no word


@dataclass(frozen=True)
class Attack:
    """How embeddings are perturbed.

    ``fgm``: the batch as it is, and once more with each embedding tensor e moved by
    ``epsilon`` ||e|| g / ||g|| along the gradient g of the summed losses (Miyato, Dai and Goodfellow,
    "Adversarial Training Methods for Semi-Supervised Text Classification", ICLR 2017, eq. 5-6). ``freelb``:
    ``steps`` passes, each moved further from a random start by ``lr`` ||e|| g / ||g||, and back into the ball
    of ``epsilon`` ||e||; all of them train the weights (Zhu et al., "FreeLB", ICLR 2020, algorithm 1). We
    depart from both in that lengths are shares of the embeddings' own norm, over the whole batch, and so do
    not depend on how large the embeddings of a model are.
    """

    way: str
    epsilon: float
    lr: float = 0.0
    steps: int = 2

    @classmethod
    def parse(cls, spec: str) -> Attack:
        """``"freelb:steps=3,epsilon=0.3"``.

        Raises:
            ValueError: another way or option, or a value out of range.
        """
        way, options = parse_way("adversarial", spec, _DEFAULTS)
        for key, value in options.items():
            if key == "steps" and not (type(value) is int and 2 <= value <= 100):
                raise ValueError(
                    f"steps of adversarial=freelb should be a number from 2 to 100, found {value!r}."
                )
            if key != "steps" and not (type(value) in (int, float) and 0 < value <= 100):
                raise ValueError(f"{key} of adversarial={way} should be a number above 0, found {value!r}.")
        return cls(way, **{**_DEFAULTS[way], **options})


class Adversary:
    """Runs a model's losses under the perturbations of an `Attack`; one batch's passes are its views.

    Every view draws the same dropout. The balancer gets a view's losses as those of a micro-batch, so that
    with ``accumulation="window"`` they are weighed as one batch.

    Raises:
        ValueError: the model has no embedding that is trained.
    """

    def __init__(self, model: nn.Module, attack: Attack) -> None:
        self.attack, self.views = attack, attack.steps
        self.embeddings = [
            module
            for name, module in model.named_modules()
            if isinstance(module, nn.Embedding)
            and module.weight.requires_grad
            and not any(word in name for word in _FIXED)
        ]
        if not self.embeddings:
            raise ValueError(
                f"adversarial={attack.way} moves word embeddings, and this model trains none: leave it out, "
                "or use augment= on a table"
            )
        self.moved: list[Tensor] = []
        self.kept: dict[int, tuple[list[Tensor], list[Tensor]]] = {}  # of each part: moves, generators

    def losses(self, part: int, view: int, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The losses that ``compute`` gives in this view of part number ``part`` of a batch."""
        if view == 0:
            self.kept[part] = ([], _generators())
        else:
            _set_generators(self.kept[part][1])
        moves, self.moved = self.kept[part][0], []
        handles = [
            m.register_forward_hook(lambda _m, _i, out: self._move(out, moves)) for m in self.embeddings
        ]
        try:
            found = compute()
        finally:
            for handle in handles:
                handle.remove()
        if view + 1 < self.views:
            self._ascend(part, found)
        self.moved = []
        return found

    def _move(self, output: Tensor, moves: list[Tensor]) -> Tensor:
        number = len(self.moved)
        if number == len(moves) and self.attack.way == "freelb":
            start = torch.rand_like(output).mul_(2).sub_(1) / output.numel() ** 0.5
            moves.append(start.detach() * self.attack.epsilon * output.detach().norm())
        if number < len(moves):
            output = output + moves[number]
        self.moved.append(output)
        return output

    def _ascend(self, part: int, losses: dict[str, Tensor]) -> None:
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        slopes = torch.autograd.grad(total, self.moved, retain_graph=True, allow_unused=True)
        before, generators = self.kept[part]
        moves = []
        for k, (output, slope) in enumerate(zip(self.moved, slopes, strict=True)):
            move = before[k] if before else torch.zeros_like(output)
            length = (output.detach() - move).norm()
            if slope is not None:
                step = self.attack.lr if self.attack.way == "freelb" else self.attack.epsilon
                move = move + step * length * slope / slope.norm().clamp(min=torch.finfo(slope.dtype).tiny)
                ball = self.attack.epsilon * length
                move = move * (ball / move.norm().clamp(min=torch.finfo(move.dtype).tiny)).clamp(max=1)
            moves.append(move.detach())
        self.kept[part] = (moves, generators)


def _generators() -> list[Tensor]:
    cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
    return [torch.get_rng_state(), *cuda]


def _set_generators(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if states[1:]:
        torch.cuda.set_rng_state(states[1])
