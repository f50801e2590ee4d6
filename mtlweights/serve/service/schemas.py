"""The types of requests and answers, made of a model's tasks and columns: what its OpenAPI page shows."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from ...problems.task import NUMBERS, Task, is_iob2
from ..trained import TrainedModel
from .limits import Limits


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Text(_Strict):
    """A text, which is split into words and marks."""

    text: str


class Number(BaseModel):
    """A number, in the unit of the training data."""

    value: float | None


class Label(BaseModel):
    """The likeliest label, and the probability of each."""

    label: str
    probability: float
    probabilities: dict[str, float]


class Words(BaseModel):
    """A label per word; None where the model has not read it."""

    words: list[str]
    labels: list[str | None]
    probabilities: list[float | None]


class Span(BaseModel):
    """Words ``start`` to before ``end``; of a text also its characters."""

    type: str
    start: int
    end: int
    probability: float
    text: str | None = None
    characters: tuple[int, int] | None = None


class Spans(Words):
    """A label per word, and the spans they make."""

    spans: list[Span]


def request_type(model: TrainedModel, limits: Limits) -> type[BaseModel]:
    """``{"inputs": [...]}`` of this model's kind of example."""
    item: Any = _row(model)
    if model.kind != "table":
        word = Annotated[str, Field(max_length=limits.words)]
        words = Annotated[list[word], Field(max_length=limits.words)]
        listed = create_model(
            "WordList", __base__=_Strict, __doc__="A text as its words.", words=(words, ...)
        )
        item = Text | listed
        if model.kind == "pair":
            item = create_model(
                "TextPair", __base__=_Strict, __doc__="Two texts.", a=(item, ...), b=(item, ...)
            )
    inputs = Annotated[list[item], Field(min_length=1, max_length=limits.items)]
    return create_model("Request", __base__=_Strict, __doc__="Examples to answer.", inputs=(inputs, ...))


def _row(model: TrainedModel) -> Any:
    if not model.features:
        return list[float]
    fields: dict[str, Any] = {}
    for i, feature in enumerate(model.features):
        kind = str | None if feature.categories else float | str | None
        default = None if None in feature.categories else ...
        fields[f"column{i}"] = (kind, Field(default, alias=feature.name))
    config = ConfigDict(extra="ignore")
    return create_model("Row", __config__=config, __doc__="Cells by column; None is missing.", **fields)


def answer_type(tasks: tuple[Task, ...]) -> type[BaseModel]:
    """``{"predictions": [...]}``, each with an answer per task."""
    fields: dict[str, Any] = {
        f"task{i}": (_head(task), Field(alias=task.name)) for i, task in enumerate(tasks)
    }
    one = create_model("Prediction", __doc__="An answer per task.", **fields)
    return create_model("Answer", __doc__="A prediction per example, in order.", predictions=(list[one], ...))  # type: ignore[valid-type]


def _head(task: Task) -> type[BaseModel]:
    if task.kind in NUMBERS:
        return Number
    if task.kind == "classification":
        return Label
    return Spans if all(map(is_iob2, task.labels)) else Words
