"""What computes a model's outputs: PyTorch, or ONNX Runtime on an exported graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..problems.models import MultiTaskModel
from ..train.scoring import modes_kept, to_device

PIP = "ONNX models need the package onnxruntime: pip install 'mtlweights[serve]'"


class Runtime(Protocol):
    """Something that computes outputs."""

    def __call__(self, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        """Task -> output, of a batch made by the model's inputs."""


class Torch:
    """A PyTorch model where it is, in evaluation mode and without gradient."""

    def __init__(self, module: MultiTaskModel) -> None:
        self.module = module

    def __call__(self, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        """Outputs as NumPy arrays, float32."""
        place = next(self.module.parameters()).device
        with modes_kept(self.module), torch.inference_mode():
            self.module.eval()
            outputs = self.module(to_device(inputs, place)).outputs
        return {name: output.float().cpu().numpy() for name, output in outputs.items()}


class Onnx:
    """A graph in ONNX Runtime, on ``threads`` threads.

    Raises:
        ImportError: ONNX Runtime is not installed.
        ValueError: the file is no graph that it runs.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(PIP) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        self.path = path
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.names = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()]

    def __call__(self, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        """Outputs as NumPy arrays."""
        given = {name: value.numpy() for name, value in flat(inputs)}
        found = self.session.run(self.outputs, {name: given[name] for name in self.names})
        return dict(zip(self.outputs, found, strict=True))


def flat(inputs: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Tensor]]:
    """Tensors of nested inputs by dotted names: ``words``, or ``a.words`` of a pair."""
    for name, value in inputs.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def nested(names: list[str], values: tuple[Tensor, ...]) -> dict[str, Any]:
    """The inputs that `flat` took apart."""
    found: dict[str, Any] = {}
    for name, value in zip(names, values, strict=True):
        *outer, last = name.split(".")
        inner = found
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return found
