"""A trained model as one graph with all heads, for any batch size and length: ONNX, and torch.export."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..problems.models import MultiTaskModel
from ..problems.models.encoders import encode
from . import folder as folders
from .architecture import transformer_of
from .readings import read
from .recurrent import onnx_lstm, padded
from .runtimes import flat, nested
from .samples import sample
from .trained import TrainedModel

PROGRAM = "model.pt2"  #: torch.export's file
CHECKED = 200  #: examples on which the graph is compared with PyTorch
TOLERANCE = 1e-4  #: of an output, absolute, and relative above 1

#: the dimensions of each input after the batch; what has the same name in one example has the same length
_DIMS = {"words": "W", "mask": "W", "first": "W", "seen": "W", "chars": "WC"}
_DIMS |= dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), "S")


class Graph(nn.Module):
    """A model from tensors by position to the heads' outputs, in the order of its tasks."""

    def __init__(self, model: MultiTaskModel, names: list[str]) -> None:
        super().__init__()
        self.names, self.model = names, model.around(padded(model.encoder))
        if any(task.crf for task in model.tasks):
            raise ValueError("a CRF is not exported: serve the folder as it is, in PyTorch.")

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Every head's output."""
        tasks = self.model.tasks
        states = encode(self.model.encoder, nested(self.names, values), [task.name for task in tasks])
        return tuple(self.model.read(states, tasks, None).values())


def export(
    model: TrainedModel,
    folder: str | Path,
    threads: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> float:
    """Write a folder like `TrainedModel.save_pretrained`'s with ``model.onnx`` and ``model.pt2`` in it.

    `TrainedModel.from_pretrained` reads it and predicts in ONNX Runtime. ``model.pt2`` is for
    ``torch.export.load``; that of a BiLSTM has an operator that ``import mtlweights.serve.recurrent`` brings.
    ``say`` is told what is done next, of three steps.

    Returns:
        The largest difference from PyTorch, absolute and relative above 1, over `CHECKED` random examples.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime is not installed.
        ValueError: the model was exported before, or the graph computes something else.
        OSError: the folder cannot be written.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise ImportError(f"export needs the package {package}: pip install 'mtlweights[export]'")
    with TemporaryDirectory() as place, _quiet():
        say("step 1 of 3: the graph ...")
        names, program = _program(model)
        tasks = [task.name for task in model.tasks]
        say("step 2 of 3: its operators in ONNX ...")
        graph = torch.onnx.export(
            program,
            input_names=names,
            output_names=tasks,
            dynamo=True,
            verbose=False,
            custom_translation_table={torch.ops.mtlweights.lstm.default: onnx_lstm},
        )
        path = Path(place, folders.GRAPH)
        graph.save(path)  # type: ignore[union-attr]
        exported = model.exported(path, threads)
        say(f"step 3 of 3: compared with PyTorch on {CHECKED} examples ...")
        furthest = difference(model, exported)
        if not furthest < TOLERANCE:
            raise ValueError(f"the exported graph is off by {furthest:.2g}, more than {TOLERANCE:g}.")
        left = exported.save_pretrained(folder)
        torch.export.save(program, left / PROGRAM)
    return furthest


def _program(model: TrainedModel) -> tuple[list[str], Any]:
    """Names of the inputs, and the exported program."""
    module = model.module.eval().cpu()
    given = [read(model.kind, example, model.features).input for example in sample(model, 3, seed=1)]
    inputs = dict(flat(model.inputs(given)))
    dims: dict[str, Any] = {}
    if "input_ids" in inputs:  # as many as the transformer has positions; two special ones are always there
        subwords = getattr(model.inputs, "subwords", getattr(model.inputs, "inputs", model.inputs))
        positions = getattr(transformer_of(module.encoder).config, "max_position_embeddings", 1 << 20)
        dims["S"] = torch.export.Dim("S", min=2, max=min(subwords.max_length, positions))
    shapes = tuple(_shape(name, value, dims) for name, value in inputs.items())
    with torch.no_grad():
        program = torch.export.export(
            Graph(module, [*inputs]).eval(), tuple(inputs.values()), dynamic_shapes=(shapes,), strict=False
        )
    return [*inputs], program


def _shape(name: str, value: Tensor, dims: dict[str, Any]) -> dict[int, Any]:
    """The dynamic dimensions of an input."""
    side, _, own = name.rpartition(".")
    keys = ["B", *(side + letter for letter in _DIMS.get(own, ""))]
    for key in keys:
        dims.setdefault(key, torch.export.Dim(key, min=1, max=1 << 20))
    return {i: dims[key] for i, key in enumerate(keys)}


def difference(model: TrainedModel, other: TrainedModel, n: int = CHECKED) -> float:
    """Largest difference of two models' outputs, absolute and relative above 1, over random examples."""
    furthest = 0.0
    examples = [read(model.kind, example, model.features).input for example in sample(model, n)]
    for start in range(0, n, 16):
        inputs = model.inputs(examples[start : start + 16])
        own, others = model.runtime(inputs), other.runtime(inputs)
        for name, value in own.items():
            off = np.abs(others[name] - value) / np.maximum(1, np.abs(value))
            furthest = max(furthest, float(off.max()))
    return furthest


@contextmanager
def _quiet() -> Iterator[None]:
    """No notes of the exporters on packages that nobody asked for."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
