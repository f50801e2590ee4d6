"""A problem by its spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ..specs import format_spec, parse_spec, suggest
from . import scales, variants
from .data import builtin, mulan
from .data.census import census
from .data.molecules import tox21
from .data.physics import burgers, helmholtz
from .data.sentences import TEXT_OPTIONS, conll
from .data.table import FORMATS, table
from .data.toy import toy
from .data.utterances import atis, snips
from .problem import Problem

PROBLEMS: dict[str, Callable[[str, Mapping[str, Any]], Problem]] = {
    "tagging": builtin.tagging,
    "breast_cancer": builtin.breast_cancer,
    "toy": toy,
    "tweebank": builtin.tweebank,
    "sick": builtin.sick,
    "abalone": builtin.abalone,
    "burgers": burgers,
    "helmholtz": helmholtz,
    "snips": snips,
    "atis": atis,
    "tox21": tox21,
    **{f"mulan:{name}": mulan.loader(name) for name in mulan.TABLES},
    "census": census,
}
OWN: dict[str, Callable[[str, str, Mapping[str, Any]], Problem]] = {
    "conll": conll,
    "csv": table,
    **{kind: partial(table, kind=kind) for kind in FORMATS},
}
_NO_TASKS = TEXT_OPTIONS | {*variants.OPTIONS}


def problems() -> list[str]:
    """Names of the built-in problems, those that need no download first."""
    return list(PROBLEMS)


def load(spec: str, **columns: Any) -> Problem:
    """Make a problem from its spec.

    ``"tagging"``, ``"tweebank:encoder=frozen"``, or your own data: ``load("conll:PATH", tokens="form",
    tags={"ner": 3, "pos": "upos"})`` and ``load("csv:PATH", classify=["kind"], regress=["price"])``; what
    stands in ``columns`` may be in the spec as well (``"csv:PATH:classify=kind"``); ``arff:``, ``jsonl:`` and
    ``parquet:`` take the same. What your own file was taken for is the problem's ``notes``;
    `mtlweights.train.fit` says it where it shows a bar. ``"tagging@pos*100"`` is the problem with one task's
    loss multiplied. ``"snips:training=cascaded"`` trains any problem as `variants.varied` says.

    Raises:
        ValueError: an unknown problem, option or column, or data that cannot be used; every fault of a table
            is in the one message.
        OSError: a file that is not there and cannot be downloaded.
        ImportError: a package of the extra ``bench`` is missing.
    """
    base, factors = scales.split(spec)
    if factors:
        return scales.scaled(load(base, **columns), factors)
    name, options = parse_spec(spec)
    options = {**options, **_tags(columns.pop("tags", {}), options), **columns}
    how = {key: options.pop(key) for key in variants.OPTIONS if key in options}
    problem = _load(name, format_spec(name, options), options)
    if not how:
        return problem
    return variants.varied(replace(problem, name=format_spec(name, {**options, **how})), how)


def _load(name: str, spec: str, options: Mapping[str, Any]) -> Problem:
    kind, colon, path = name.partition(":")
    if colon and kind in OWN:
        return OWN[kind](spec, path, options)
    if name not in PROBLEMS:
        known = [*PROBLEMS, *(f"{kind}:PATH" for kind in OWN)]
        raise ValueError(f"there is no problem {name!r}; {suggest(name, known)}")
    return PROBLEMS[name](spec, options)


def _tags(tags: Mapping[str, Any], options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Tasks of a column file, checked for names that a spec cannot hold or that mean something else."""
    for name in tags:
        if not isinstance(name, str) or not name.isidentifier() or name in _NO_TASKS:
            raise ValueError(
                f"a task's name is expected in tags, letters, digits and _ and no option, found {name!r}."
            )
        if name in options:
            raise ValueError(f"task {name!r} is given twice, in the spec and in tags.")
    return tags
