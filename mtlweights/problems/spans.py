"""Labels that mark spans: which scheme they are in, and the same spans in IOB2.

Read are IOB1 (CoNLL-2003), IOB2, IOE, BIOES, BMES and BILOU, as ``B-PER``, ``B_PER``, ``PER-B`` or
``PER_B``, in either case, and without a type (``B``, ``I``, ``O``). Where a span starts follows conlleval,
the script of the CoNLL shared tasks, which leaves no labelled word out; L ends a span as E does, U is S and M
is I.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

_STYLES = (
    re.compile(r"(?P<prefix>[BIESLUMW])[-_](?P<type>.+)", re.IGNORECASE),
    re.compile(r"(?P<type>.+)[-_](?P<prefix>[BIESLUMW])", re.IGNORECASE),
)
_SAME = {"U": "S", "W": "S", "M": "I"}  # an L ends a span as an E does, by not being open

Mark = tuple[str, str]  #: a prefix in upper case and a type; ("O", "") is no span


class Spans(NamedTuple):
    """A column of labels read as spans."""

    scheme: str  #: its name, as a user knows it
    types: list[str]
    total: int  #: number of spans
    labels: list[list[str | None]]  #: the same spans in IOB2, None where a word has no label


def marks(labels: Iterable[str]) -> tuple[dict[str, Mark], list[str]]:
    """What each label marks, and those that mark nothing, in the style that fits most of them."""
    names = set(labels)
    inner = {label for label in names if label.upper() != "O"}
    outer: dict[str, Mark] = {label: ("O", "") for label in names - inner}
    if _are_bare({label.upper() for label in names}):
        return {**outer, **{label: (label.upper(), "SPAN") for label in inner}}, []
    styles = [{label: found for label in inner if (found := style.fullmatch(label))} for style in _STYLES]
    best = max(styles, key=len)
    known: dict[str, Mark] = {
        label: (match["prefix"].upper(), match["type"]) for label, match in best.items()
    }
    return {**outer, **known}, sorted(inner - known.keys())


def _are_bare(names: set[str]) -> bool:
    """Whether labels are prefixes alone: a span can be told from its end or from what is outside."""
    return names <= set("BIESLUMWO") and (names == {"I", "O"} or ("B" in names and bool(names & set("IEML"))))


def read_spans(sentences: Sequence[Sequence[str | None]], known: Mapping[str, Mark]) -> Spans:
    """The spans of sentences whose labels are all in ``known``; words without a label are passed over."""
    prefixes = {prefix for prefix, _ in known.values()}
    opened: Counter[str] = Counter()
    labels: list[list[str | None]] = []
    for sentence in sentences:
        found = iter(_starts([known[label] for label in sentence if label is not None]))
        labels.append([None if label is None else _iob2(opened, *next(found)) for label in sentence])
    types = sorted({kind for prefix, kind in known.values() if prefix != "O"})
    total = sum(opened[key] for key in ("B", "B again", "I"))
    return Spans(_scheme(prefixes, opened), types, total, labels)


def opens_with_inside(sentences: Iterable[Sequence[str]]) -> bool:
    """Whether an ``I-`` opens a span in these labels (O, B-TYPE, I-TYPE), as it does in IOB1."""
    return any(
        start and prefix == "I"
        for labels in sentences
        for prefix, _, start, _ in _starts([(label[:1], label[2:]) for label in labels])
    )


def to_iob2(labels: Sequence[str]) -> list[str]:
    """Labels O, B-TYPE and I-TYPE of a sentence, with an ``I-`` that opens a span as ``B-``."""
    opened: Counter[str] = Counter()
    return [_iob2(opened, *found) for found in _starts([(label[:1], label[2:]) for label in labels])]


def _starts(sentence: Sequence[Mark]) -> Iterator[tuple[str, str, bool, bool]]:
    """Prefix and type of each word, whether it starts a span, and whether a span of its type was open."""
    before, type_before = "O", ""
    for given, kind in sentence:
        prefix = _SAME.get(given, given)
        goes_on = before in "BI" and kind == type_before
        yield prefix, kind, prefix != "O" and (prefix in "BS" or not goes_on), goes_on
        before, type_before = prefix, kind


def _iob2(opened: Counter[str], prefix: str, kind: str, start: bool, goes_on: bool) -> str:
    if prefix == "O":
        return "O"
    if start:
        opened["B again" if prefix == "B" and goes_on else "I" if prefix in "IE" else "B"] += 1
    return f"{'B' if start else 'I'}-{kind}"


def _scheme(prefixes: set[str], opened: Mapping[str, int]) -> str:
    for name, own in (("BILOU", "LU"), ("BMES", "MW"), ("BIOES", "S")):
        if prefixes & set(own):
            return name
    if "E" in prefixes:
        return "BIOES" if "B" in prefixes else "IOE"
    if not opened["I"] or not opened["B"]:
        return "IOB1" if opened["I"] else "IOB2"
    return f"IOB1 and IOB2 mixed ({opened['I']} spans open with I-, {opened['B']} with B-)"
