"""Parameter-efficient fine-tuning: low-rank changes of a transformer's frozen weights, through PEFT."""

from __future__ import annotations

import copy

from torch import nn

from .encoders import Encoder
from .transformer import Transformer


def with_lora(encoder: Encoder, rank: int) -> Encoder:
    """The transformer with its weights frozen and a change of ``rank`` beside every linear layer.

    LoRA (Hu et al., ICLR 2022), with alpha = 2 rank and no dropout, by the package peft.

    Raises:
        ValueError: the encoder is no transformer. ImportError: peft is not installed.
    """
    if not isinstance(encoder, Transformer):
        raise ValueError(f"lora= is for encoder=transformer, found a {type(encoder).__name__}.")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError("lora= needs the package peft: pip install 'mtlweights[peft]'") from error
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    inject_adapter_in_model(config, encoder.model)
    return encoder


def without_lora(module: nn.Module) -> nn.Module:
    """A copy in which each low-rank change is part of the weight it stood beside, W + alpha / rank B A.

    It computes the same, but for rounding, needs no peft, and is trained as a whole. The module itself if it
    has no such change.
    """
    if not any(hasattr(part, "peft_config") for part in module.modules()):
        return module
    from peft.tuners.tuners_utils import BaseTunerLayer

    merged = copy.deepcopy(module)
    for name, layer in [*merged.named_modules()]:
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            owner, _, own = name.rpartition(".")
            setattr(merged.get_submodule(owner), own, layer.get_base_layer())
    for part in merged.modules():
        if hasattr(part, "peft_config"):
            del part.peft_config
    return merged.requires_grad_(True)
