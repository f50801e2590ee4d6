"""int8: weights of the graph in ONNX Runtime, or of the linear layers with torchao."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from .. import folder as folders
from ..runtimes import Onnx, Torch
from ..trained import TrainedModel


def int8(exported: TrainedModel, folder: str | Path) -> TrainedModel:
    """An exported model with int8 weights and activations quantised as they come; written to ``folder``.

    LSTMs, linear layers and embeddings are quantised, a tensor at a time.

    Raises:
        ImportError: onnx or onnxruntime is not installed. ValueError: the model is not an exported one.
    """
    if not isinstance(exported.runtime, Onnx):
        raise ValueError("int8 takes an exported model, found one in PyTorch: export it first.")
    if find_spec("onnx") is None:
        raise ImportError("int8 needs the package onnx: pip install 'mtlweights[export]'")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with TemporaryDirectory() as place:
        path = Path(place, folders.GRAPH)
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)  # it advises on images
        try:
            quantize_dynamic(exported.runtime.path, path, weight_type=QuantType.QInt8)
        finally:
            logging.disable(before)
        small = exported.exported(path)
        small.about = {**exported.about, "changes": [*exported.about.get("changes", ()), "int8, dynamic"]}
        return TrainedModel.from_pretrained(small.save_pretrained(folder))


def int8_torchao(model: TrainedModel) -> TrainedModel | None:
    """The PyTorch model with int8 linear layers, to be measured; None where torchao is not installed."""
    if find_spec("torchao") is None:
        return None
    torchao = import_module("torchao.quantization")
    module = copy.deepcopy(model.module).eval()
    torchao.quantize_(module, torchao.Int8DynamicActivationInt8WeightConfig(), filter_fn=_is_linear)
    return replace(model, runtime=Torch(module))


def _is_linear(module: nn.Module, name: str) -> bool:
    return isinstance(module, nn.Linear) and min(module.weight.shape) >= 8
