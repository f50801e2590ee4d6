"""The shared representation, where the features mode measures gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn


class Representation:
    """The output of a module in the last forward pass, or a tensor given with the losses.

    Args:
        module: Its output is the representation: a tensor, or the first one of a tuple, list or dict.
    """

    def __init__(self, module: nn.Module | None) -> None:
        self.tensor: Tensor | None = None
        if module is not None:
            module.register_forward_hook(self)

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """The forward hook; a pass without gradient, as in evaluation, is not one of a step."""
        found = _first(output)
        if found is not None and found.requires_grad:
            self.tensor = found

    def take(self) -> Tensor:
        """The representation of this step.

        Raises:
            ValueError: there is none with a gradient.
        """
        tensor, self.tensor = self.tensor, None
        if tensor is None or not tensor.requires_grad:
            raise ValueError(
                "gradients='features' needs the shared representation of this step: name its module, "
                "Balancer(features=...), or pass the tensor with its graph, balancer(losses, features=z)."
            )
        return tensor

    def __getstate__(self) -> dict[str, Any]:
        """A copy has no step in flight."""
        return {"tensor": None}


def _first(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    parts = output.values() if isinstance(output, Mapping) else output
    if not isinstance(parts, Iterable):
        return None
    return next((tensor for part in parts if (tensor := _first(part)) is not None), None)
