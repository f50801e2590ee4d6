"""A trained model with all it takes to use it: inputs, labels, units, and what is known of its quality."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..files.escapes import message_of
from ..problems import Problem, Task
from ..problems.models import (
    FrozenInputs,
    Joint,
    MultiTaskModel,
    Pair,
    PairInputs,
    TableInputs,
)
from ..problems.models.features import Feature
from ..problems.models.heads import ClassificationHead, RegressionHead, TokenHead
from ..problems.models.lora import without_lora
from ..problems.models.transformer import model_folder
from . import folder as folders
from .answers import answers
from .architecture import (
    describe_encoder,
    describe_inputs,
)
from .live import live
from .readings import Kind, Reading, read
from .runtimes import Onnx, Runtime, Torch
from .saving import load, push, save

_HEADS = (ClassificationHead, RegressionHead, TokenHead)


@dataclass
class TrainedModel:
    """A model as it leaves: `from_problem` or `from_pretrained` make one.

    Attributes:
        tasks: with their labels and units.
        inputs: turns a list of readings' inputs into the encoder's tensors.
        kind: what an example is: "text", "pair" or "table".
        runtime: computes the outputs, in PyTorch or ONNX Runtime.
        encoder: description of the encoder.
        problem: spec of what it was trained on, where it has one.
        about: data, strategy, settings and scores, for the model card; plain values.
    """

    tasks: tuple[Task, ...]
    inputs: Any
    kind: Kind
    runtime: Runtime
    encoder: dict[str, Any]
    problem: str | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_problem(
        cls, problem: Problem, model: nn.Module, about: dict[str, Any] | None = None
    ) -> TrainedModel:
        """A model that was trained on a problem, as `mtlweights.train.fit` leaves it.

        Frozen features, which training reads from a cache, are computed by the model itself from here on, and
        low-rank changes (``lora=``) are added to the weights they stand beside.

        Raises:
            ValueError: the model, its encoder, a head or the inputs are none of this package's.
        """
        if not isinstance(model, MultiTaskModel):
            raise ValueError(f"expected a MultiTaskModel, found {type(model).__name__}.")
        for task, head in zip(model.tasks, model.heads.values(), strict=True):
            if not isinstance(head, _HEADS):
                raise ValueError(
                    f"a folder holds the heads of make_head, found {type(head).__name__} for {task.name!r}: "
                    "save its state_dict yourself."
                )
        example = next(example for split in problem.splits.values() for example in split)
        encoder, inputs = _live(without_lora(model.encoder), problem.inputs)
        kind: Kind = "table" if isinstance(inputs, TableInputs) else "text"
        kind = "pair" if isinstance(example["input"], tuple) else kind
        said = describe_encoder(encoder)
        describe_inputs(inputs)
        module = model if encoder is model.encoder else model.around(encoder)
        return cls(model.tasks, inputs, kind, Torch(module), said, problem.name, about or {})

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], *, threads: int = 1) -> TrainedModel:
        """Read a folder, or a repository of the Hugging Face hub, that `save_pretrained` wrote.

        No code in it is run, and nothing in it is pickled.

        Args:
            threads: of ONNX Runtime, for an exported model; PyTorch's are `torch.set_num_threads`.

        Raises:
            FileNotFoundError: there is none. ImportError: a package that it needs is missing.
            ValueError: it is damaged, is none of ours, or was written by a newer version.
        """
        path = model_folder(os.fspath(name))
        config = folders.read(path)
        with folders.whole(path):
            return cls(**load(path, config, threads))

    @property
    def features(self) -> tuple[Feature, ...]:
        """The columns of a table that the model reads; () for text, or where they have no names."""
        return self.inputs.features if isinstance(self.inputs, TableInputs) else ()

    @property
    def module(self) -> MultiTaskModel:
        """The PyTorch model.

        Raises:
            ValueError: it was exported: there is none.
        """
        if not isinstance(self.runtime, Torch):
            raise ValueError(
                "expected a model in PyTorch, found an exported one: give the folder it came from."
            )
        return self.runtime.module

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write everything that using the model takes: safetensors (or an ONNX graph), JSON, a model card.

        Raises:
            OSError: the folder cannot be written.
        """
        return save(self, Path(folder))

    def push_to_hub(self, repository: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the folder to the Hugging Face hub, in a repository made if need be; its address.

        Raises:
            ImportError: huggingface_hub is not installed. OSError: the hub cannot be reached or refuses.
        """
        return push(self, repository, private, token)

    def predict(self, examples: Iterable[Any], batch_size: int = 64) -> list[dict[str, Any]]:
        """An answer per example, see `mtlweights.serve.answers.answers`.

        Args:
            examples: texts or lists of words; pairs of these; or for a table mappings column -> cell.

        Raises:
            ValueError: an example that cannot be read, by its number from 1.
        """
        if isinstance(examples, (str, dict)):
            raise ValueError(
                f"predict takes a list of examples, found one {type(examples).__name__}: put it in []."
            )
        return [*self.stream(examples, batch_size)]

    def stream(self, examples: Iterable[Any], batch_size: int = 64) -> Iterator[dict[str, Any]]:
        """As `predict`, one batch in memory at a time."""
        rest, number = iter(examples), 0
        while batch := [*islice(rest, batch_size)]:
            readings = []
            for given in batch:
                number += 1
                try:
                    readings.append(read(self.kind, given, self.features))
                except ValueError as error:
                    raise ValueError(f"example {number}: {message_of(error)}.") from None
            yield from self.answer(readings)

    def answer(self, readings: list[Reading]) -> list[dict[str, Any]]:
        """The answers of one batch of examples that were read."""
        inputs = self.inputs([reading.input for reading in readings])
        seen = inputs.get("mask")
        mask = None if seen is None else np.asarray(seen)
        return answers(self.tasks, self.runtime(inputs), readings, mask)

    def exported(self, graph: Path, threads: int = 1) -> TrainedModel:
        """The same model with an ONNX graph in the place of its PyTorch module."""
        return replace(self, runtime=Onnx(graph, threads))


def _live(encoder: Any, inputs: Any) -> tuple[Any, Any]:
    """The encoder and inputs, with cached features replaced by what computes them."""
    if isinstance(encoder, Joint) and isinstance(inputs, PairInputs):
        inner, own = _live(encoder.encoder, inputs)
        return encoder.around(inner), own
    if isinstance(inputs, PairInputs) and isinstance(inputs.inputs, FrozenInputs):
        inner, own = live(encoder.encoder, inputs.inputs)
        return Pair(inner), PairInputs(own)
    return live(encoder, inputs) if isinstance(inputs, FrozenInputs) else (encoder, inputs)
