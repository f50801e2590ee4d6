"""From examples to a `Problem`: the encoder by option, its inputs fitted on the training split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ...specs import suggest
from ..models import (
    MLP,
    BiLSTM,
    Encoder,
    FrozenInputs,
    FrozenStates,
    Pair,
    PairInputs,
    SubwordInputs,
    TableInputs,
    Transformer,
    WordInputs,
    load_tokenizer,
)
from ..models.features import Feature
from ..models.sharing import Sharing, taken
from ..problem import Example, Problem
from ..task import Task
from .download import cache_folder

Splits = dict[str, list[Example]]
Parts = tuple[Callable[[list[Any]], dict[str, Any]], Callable[[], Encoder]]

#: options of each encoder, with their defaults
OPTIONS: dict[str, dict[str, Any]] = {
    "bilstm": {"hidden": 128, "layers": 1, "dropout": 0.4},
    "frozen": {"model": "minilm", "hidden": 128, "layers": 1, "dropout": 0.4},
    "transformer": {"model": "minilm", "max_length": 128},
}
#: training settings that suit each encoder
SETTINGS: dict[str, dict[str, Any]] = {
    "bilstm": {"epochs": 10, "batch_size": 16, "lr": 5e-3},
    "frozen": {"epochs": 10, "batch_size": 16, "lr": 3e-3},
    "transformer": {"epochs": 4, "batch_size": 16, "lr": 5e-5},
}
TABLE_OPTIONS: dict[str, Any] = {"hidden": 64, "layers": 2, "dropout": 0.0}


def text_problem(
    name: str,
    tasks: Sequence[Task],
    splits: Splits,
    options: Mapping[str, Any],
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    notes: tuple[str, ...] = (),
    **dims: Any,
) -> Problem:
    """A problem on sentences (lists of words), or on pairs of them, read by two copies of one encoder.

    With ``encoder=transformer`` a pair is read at once, one sentence after the other.

    Args:
        options: ``encoder`` (bilstm, frozen or transformer) and that encoder's own, see `OPTIONS`;
            ``sharing`` and that form's own, see `mtlweights.problems.models.sharing.OPTIONS`; ``crf``, true
            or the tasks whose words get one.
        settings: training settings of this problem by encoder, over `SETTINGS`.
        notes: the problem's.
        dims: defaults of this problem for the arguments of `BiLSTM`.

    Raises:
        ValueError: an unknown encoder or option.
    """
    kind = options.get("encoder", "bilstm")
    if not isinstance(kind, str) or kind not in OPTIONS:
        raise ValueError(f"{name}: there is no encoder {kind!r}; {suggest(str(kind), OPTIONS)}")
    defaults = {key: dims.get(key, value) for key, value in OPTIONS[kind].items()}
    sharing, options = taken(options, name, kind == "transformer")
    tasks, options = _with_crf(name, tasks, options)
    given = {key: value for key, value in options.items() if key != "encoder"}
    chosen = take(given, defaults, f"{name} with encoder={kind}")
    if kind == "transformer":
        inputs, encoder = _transformer(splits, **chosen)
    else:
        inputs, encoder = _recurrent(splits, **{**dims, **chosen})
    chosen = {**SETTINGS[kind], **(settings or {}).get(kind, {})}
    own = {**defaults, **given}
    space = {} if kind == "transformer" else _space(own)
    found = Problem(name, tuple(tasks), splits, inputs, encoder, chosen, notes, space, own)
    return _shared(found, sharing, tried=kind != "transformer")


def _with_crf(
    name: str, tasks: Sequence[Task], options: Mapping[str, Any]
) -> tuple[list[Task], dict[str, Any]]:
    """The tasks, those that ``crf`` among the options says with a CRF, and the other options."""
    said: Any = options.get("crf", False)
    words = [task.name for task in tasks if task.kind == "tokens"]
    chosen = words if said is True else [] if said is False else said if isinstance(said, list) else [said]
    if unknown := [task for task in chosen if task not in words] or [said] * (said is True and not words):
        known = (
            f"one of the tasks that label words, {', '.join(words)}" if words else "left out without words"
        )
        raise ValueError(f"{name}: crf should be true, or {known}; found {unknown[0]!r}.")
    rest = {key: value for key, value in options.items() if key != "crf"}
    return [replace(task, crf=task.name in chosen) for task in tasks], rest


def table_problem(
    name: str,
    tasks: Sequence[Task],
    splits: Splits,
    options: Mapping[str, Any],
    settings: Mapping[str, Any],
    notes: tuple[str, ...] = (),
    features: Sequence[Feature] = (),
) -> Problem:
    """A problem on rows of numbers, read by an MLP of ``layers`` hidden layers of width ``hidden``.

    ``features``: the columns that the numbers were made of.
    """
    sharing, options = taken(options, name)
    chosen = take(options, TABLE_OPTIONS, name)
    inputs = TableInputs.fit([example["input"] for example in splits["train"]], features)
    hidden = [chosen["hidden"]] * chosen["layers"]
    encoder = partial(MLP, inputs.n_inputs, hidden=hidden, dropout=chosen["dropout"])
    space = _space(chosen)
    found = Problem(name, tuple(tasks), splits, inputs, encoder, dict(settings), notes, space, chosen)
    return _shared(found, sharing)


def _shared(problem: Problem, sharing: Sharing, tried: bool = True) -> Problem:
    """The problem with this form of sharing, ``tried`` once, so that what does not fit is refused now.

    Raises:
        ValueError: an option of the form does not fit the encoder.
    """
    found = replace(problem, sharing=sharing)
    if tried and sharing.form != "agnostic":
        with torch.random.fork_rng(devices=[]):
            try:
                found.build()
            except ValueError as error:
                raise ValueError(f"{problem.name}: {error}") from error
    return found


def _space(own: Mapping[str, Any]) -> dict[str, Any]:
    """Width, depth and dropout worth trying around an encoder's own, which they hold."""
    hidden, layers, dropout = own["hidden"], own["layers"], own["dropout"]
    return {
        "hidden": [max(1, hidden // 2), hidden, 2 * hidden],
        "layers": (1, max(3, layers)),
        "dropout": (0.0, max(0.6, dropout)),
    }


def take(options: Mapping[str, Any], defaults: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The defaults with the options put in.

    Raises:
        ValueError: an unknown option, or a value that is not like its default.
    """
    for key, value in options.items():
        if key not in defaults:
            raise ValueError(f"{what}: there is no option {key!r}; {suggest(key, defaults)}")
        default = defaults[key]
        if isinstance(default, str):
            fits, expected = isinstance(value, str), "a name"
        elif isinstance(default, int):
            fits, expected = type(value) is int and value >= 1, "an integer of at least 1"
        else:
            fits, expected = type(value) in (int, float) and 0 <= value < 1, "a number from 0 to below 1"
        if not fits:
            raise ValueError(f"{what}: {key} should be {expected}, found {value!r}.")
    return {**defaults, **options}


def _recurrent(splits: Splits, model: str | None = None, **dims: Any) -> Parts:
    """A BiLSTM; with a ``model``, over that one's frozen states too."""
    words = WordInputs.fit(_sentences(splits["train"]))
    inputs: Callable[[list[Any]], dict[str, Any]] = words
    if model is not None:
        everything = [example for examples in splits.values() for example in examples]
        states = FrozenStates(model, list(_sentences(everything)), cache_folder())
        inputs = FrozenInputs(words, states)
        dims["features"] = (states.n_layers, states.dim)
    encoder = partial(BiLSTM, words.n_words, words.n_chars, **dims)
    if isinstance(splits["train"][0]["input"], tuple):
        return PairInputs(inputs), partial(_pair, encoder)
    return inputs, encoder


def _pair(encoder: Callable[[], Encoder]) -> Encoder:
    return Pair(encoder())


def _transformer(splits: Splits, model: str, max_length: int) -> Parts:
    return SubwordInputs(load_tokenizer(model), max_length), partial(Transformer, model)


def _sentences(examples: Sequence[Example]) -> Iterator[list[str]]:
    for example in examples:
        given = example["input"]
        yield from given if isinstance(given, tuple) else [given]
