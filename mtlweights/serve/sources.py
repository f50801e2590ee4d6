"""Examples out of a file or standard input, one by one, in constant memory."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..problems.data.delimited import iterate_rows, read_layout
from ..problems.data.readers import column_names, iterate_columns, iterate_lines
from ..specs import suggest
from .readings import Kind

FORMS = ("conll", "csv", "jsonl", "text")
_BY_SUFFIX = {
    **dict.fromkeys((".conll", ".conllu", ".bio", ".iob", ".iob2"), "conll"),
    **dict.fromkeys((".csv", ".tsv"), "csv"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    ".txt": "text",
}


def form_of(path: str) -> str:
    """The format of a file by its name; standard input, ``-``, is text.

    Raises:
        ValueError: the name does not tell.
    """
    suffix = Path(path).suffix.lower()
    if path == "-":
        return "text"
    if suffix not in _BY_SUFFIX:
        raise ValueError(f"{path}: its format is not known by its name; say --format {', '.join(FORMS)}.")
    return _BY_SUFFIX[suffix]


def examples(path: str, form: str, kind: Kind, tokens: str | None = None) -> Iterator[Any]:
    """What `TrainedModel.stream` takes, out of a file; ``-`` is standard input.

    - ``text``: an example a line; of a pair both texts, a tab between them;
    - ``jsonl``: a value a line: a text, a list of words, ``{"text": ...}``, ``{"words": [...]}``; of a pair
      two of these in a list or as ``{"a": ..., "b": ...}``; of a table column -> cell;
    - ``csv``: with a header line; for text a column ``text``, for pairs ``a`` and ``b``;
    - ``conll``: a word a line, in the column ``tokens`` (``form``, else the first).

    Raises:
        ValueError: a line that cannot be read, by its number.
        FileNotFoundError: there is no such file.
    """
    with _on_disk(path, form in ("csv", "conll")) as file:
        if file is not None and form == "csv":
            yield from _csv(file, kind)
        elif file is not None and form == "conll":
            yield from _conll(file, kind, tokens)
        else:
            read: Callable[[str, Kind], Any] = _json if form == "jsonl" else _text
            for number, line in _lines(file):
                try:
                    yield read(line, kind)
                except ValueError as error:
                    raise ValueError(f"{path}, line {number}: {error}") from None


@contextmanager
def _on_disk(path: str, needed: bool) -> Iterator[Path | None]:
    """The file; None is standard input, which is copied to a file where it is read twice."""
    if path != "-":
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: there is no such file.")
        yield Path(path)
    elif not needed:
        yield None
    else:
        with TemporaryDirectory() as folder:
            copy = Path(folder, "standard-input")
            with copy.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
            yield copy


def _lines(file: Path | None) -> Iterator[tuple[int, str]]:
    if file is not None:
        yield from iterate_lines(file)
        return
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise ValueError(f"standard input, line {number}: expected UTF-8 text") from None


def _text(line: str, kind: Kind) -> Any:
    if kind == "table":
        raise ValueError("this model reads a table: give a CSV file, or JSON lines with --format jsonl")
    if kind == "text":
        return line
    sides = line.split("\t")
    if len(sides) != 2:
        raise ValueError(f"expected two texts with a tab between them, found {len(sides)}")
    return tuple(sides)


def _json(line: str, kind: Kind) -> Any:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError(f"expected JSON, found {line[:40]!r}") from None
    return value if kind == "table" else named(value, kind)


def named(value: Any, kind: Kind) -> Any:
    """A text or a pair that may be written with names, without them."""
    if kind == "pair":
        sides = [value.get("a"), value.get("b")] if isinstance(value, dict) else value
        return [named(side, "text") for side in sides] if isinstance(sides, list) else sides
    if isinstance(value, dict) and len(value) == 1 and value.keys() <= {"text", "words"}:
        return next(iter(value.values()))
    return value


def _csv(path: Path, kind: Kind) -> Iterator[Any]:
    layout = read_layout(path)
    wanted = {"table": layout.names, "text": ["text"], "pair": ["a", "b"]}[kind]
    for name in wanted:
        if name not in layout.names:
            raise ValueError(f"{path}: there is no column {name!r}; {suggest(name, layout.names)}")
    width = layout.skipped + len(layout.names)
    for line, row in islice(iterate_rows(path, layout.delimiter), 1, None):
        if not any(row):
            continue
        if len(row) < width or any(row[width:]):
            raise ValueError(
                f"{path}, line {line}: expected {width} cells as in the header, found {len(row)}."
            )
        cells = dict(zip(layout.names, row[layout.skipped :], strict=False))
        yield cells if kind == "table" else cells["text"] if kind == "text" else (cells["a"], cells["b"])


def _conll(path: Path, kind: Kind, tokens: str | None) -> Iterator[list[str]]:
    if kind != "text":
        raise ValueError(f"{path}: a column file holds sentences, and this model reads a {kind}.")
    names = column_names(path)
    index = names.index("form") if "form" in names else 0
    if tokens is not None:
        known = [*names] or None
        if tokens.isdecimal():
            index = int(tokens)
        elif known and tokens.lower() in known:
            index = known.index(tokens.lower())
        else:
            raise ValueError(f"{path}: there is no column {tokens!r}; {suggest(tokens, known or ['0'])}")
    for rows in iterate_columns(path):
        if index >= len(rows[0]):
            raise ValueError(f"{path}: there is no column {index}, a row has {len(rows[0])}.")
        yield [row[index] for row in rows]
