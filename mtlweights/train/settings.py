"""How to train: the settings of a run, checked, and the device they stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..specs import did_you_mean
from ..strategies.hyperparameters import is_number
from .adversarial import Attack
from .augment import Augmentation
from .freezing import Freezing
from .sampling import Sampling

CHOICES = {
    "schedule": ("constant", "linear", "cosine"),
    "precision": ("no", "bf16", "fp16"),
    "stop": ("mean", "all"),
    "device": ("auto", "cpu", "cuda", "mps"),
}


#: fields that are specs, each with what checks one
SPECS: dict[str, Callable[[str], Any]] = {
    "sampling": Sampling.parse,
    "augment": Augmentation.parse,
    "adversarial": Attack.parse,
    "freeze": Freezing.parse,
}


@dataclass(frozen=True)
class Settings:
    """How to train. Checked on construction: a wrong value raises ValueError.

    Attributes:
        epochs: passes over the training split.
        batch_size: examples per forward pass, of all processes together.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW, on every parameter.
        schedule: after the warm-up: "constant", or "linear" or "cosine" down to zero at the end.
        warmup: share of the steps, in [0, 1), over which the learning rate climbs to `lr`.
        clip: largest norm of the whole gradient; None leaves it.
        accumulate: batches per optimizer step.
        precision: "no" (float32), "bf16" or "fp16" (GPU only) autocast.
        patience: stop after this many epochs without a better score; None never stops.
        device: "auto" (CUDA, then MPS, then CPU), "cpu", "cuda" or "mps".
        seed: of shuffling and dropout. The model's initial weights are the caller's to seed.
        stop: what patience is about: the "mean" score, or of "all" tasks each its own. Then a task whose own
            first metric has not become better leaves (`Balancer.finish`), the others go on, and the last ends
            the run.
        sampling: of a data set per task: proportional, temperature, annealed or round_robin. Options as in
            "temperature:t=5,batches=task"; see `mtlweights.train.sampling`. None takes each example once.
        augment: of words replace, drop or swap, of tables noise or mixup. As in "drop:p=0.1"; see
            `mtlweights.train.augment`.
        adversarial: on embeddings, fgm or freelb. As in "fgm:epsilon=0.3"; see
            `mtlweights.train.adversarial`.
        freeze: layers of the encoder, lowest or gradual. As in "gradual:every=1"; see
            `mtlweights.train.freezing`.
    """

    epochs: int = 10
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.01
    schedule: str = "linear"
    warmup: float = 0.1
    clip: float | None = 1.0
    accumulate: int = 1
    precision: str = "no"
    patience: int | None = None
    device: str = "auto"
    seed: int = 0
    stop: str = "mean"
    sampling: str | None = None
    augment: str | None = None
    adversarial: str | None = None
    freeze: str | None = None

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            one_of(name, getattr(self, name), choices)
        for name, low in {"epochs": 1, "batch_size": 1, "accumulate": 1, "patience": 1, "seed": 0}.items():
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and low <= value < 2**32
            if not whole and not (value is None and name == "patience"):
                raise ValueError(f"{name} must be a whole number from {low} to 2^32 - 1, got {value!r}")
        for name in ("lr", "weight_decay", "warmup", "clip"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and is_number(value) and value >= 0
            zero = name in ("weight_decay", "warmup")
            if not (number and (zero or value > 0)) and not (value is None and name == "clip"):
                raise ValueError(f"{name} must be a number {'from' if zero else 'above'} 0, got {value!r}")
        if self.warmup >= 1:
            raise ValueError(f"warmup is a share of the steps, below 1, got {self.warmup!r}")
        if self.stop == "all" and self.patience is None:
            raise ValueError("stop='all' gives every task the patience of the run: set patience")
        for name, parse in SPECS.items():
            if (spec := getattr(self, name)) is not None:
                if not isinstance(spec, str):
                    raise ValueError(f"{name} must be a text, name:key=value, or None, got {spec!r}")
                parse(spec)

    def said(self) -> dict[str, Any]:
        """The fields, without those of `SPECS` that are off and a ``stop`` that says nothing.

        They came after results were kept: a run without them goes by the name it always had.
        """
        off = dict.fromkeys(SPECS) | {"stop": "mean"}
        return {k: v for k, v in asdict(self).items() if not (k in off and v == off[k])}


def space(own: Settings) -> dict[str, Any]:
    """What of the loop is worth trying around a problem's own settings, in the form of `strategies.space`.

    Epochs are not in it: an arm that trains longer would win by that. Of a weight decay of 0 there is no
    logarithm, so it stays.
    """
    batch, decay = own.batch_size, own.weight_decay
    found: dict[str, Any] = {
        "lr": (own.lr / 10, own.lr * 10, "log"),
        "schedule": list(CHOICES["schedule"]),
        "warmup": (0.0, max(0.3, own.warmup)),
        "batch_size": [max(1, batch // 2), batch, 2 * batch],
        "clip": [own.clip, *(clip for clip in (None, 0.3, 1.0, 3.0) if clip != own.clip)],
    }
    return found | ({"weight_decay": (min(1e-4, decay), max(0.3, decay), "log")} if decay else {})


def one_of(what: str, value: Any, choices: Sequence[str]) -> None:
    """Raise ValueError, with a "did you mean", unless `value` is one of `choices`."""
    if value not in choices:
        hint = did_you_mean(value, choices, "; {}")
        raise ValueError(f"{what} must be one of {', '.join(map(repr, choices))}, got {value!r}{hint}")


def resolve_device(name: str = "auto", precision: str = "no") -> torch.device:
    """The device that `name` stands for on this machine.

    Raises:
        ValueError: there is no such device, or it cannot do `precision`.
    """
    one_of("device", name, CHOICES["device"])
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind in here if here[kind])
    if not here[name]:
        raise ValueError(f"device={name!r}: torch sees no such device here; use device='cpu' or 'auto'")
    if precision == "fp16" and name == "cpu":
        raise ValueError("precision='fp16' needs a GPU, and this run is on the CPU; use 'bf16' or 'no'")
    return torch.device(name)
