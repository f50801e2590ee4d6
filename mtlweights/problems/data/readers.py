"""Readers: text files to sentences, pairs and rows. A reader knows no task."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

#: column names of CoNLL-U, by position
CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")

_COLUMNS = re.compile(r"#\s*global\.columns\s*=\s*(.+)")
_NOT_A_WORD = re.compile(r"\d+-\d+|\d+\.\d+")  # CoNLL-U: multi-word range, empty node

Row = list[str]


def column_names(path: Path) -> tuple[str, ...]:
    """Names of a column file's columns.

    From its ``# global.columns = ID FORM ...`` line, lower-cased; else CoNLL-U's where the rows have ten
    columns; else none, and columns go by their number.
    """
    for _, line in iterate_lines(path):
        if header := _COLUMNS.match(line):
            return tuple(header[1].lower().split())
        if line.strip() and not line.startswith(("#", "-DOCSTART-")):
            return CONLLU if len(_cells(line)) == len(CONLLU) else ()
    return ()


def read_columns(path: Path) -> list[list[Row]]:
    """Sentences of a column file (CoNLL-U, CoNLL-2003, GermEval, BIO): a row of cells for each word.

    A blank line ends a sentence; cells are split at tabs, else at blanks. Skipped: ``-DOCSTART-`` lines; of
    the lines before a sentence that start with ``#``, those that are no word, see `_Comments`; in files whose
    first column is ``id`` every line with ``#``, multi-word ranges and empty nodes. Line ends are LF, CRLF or
    CR; a byte-order mark is fine.

    Raises:
        ValueError: no sentence, a row with another number of columns than the first, or no UTF-8.
    """
    sentences = [*iterate_columns(path)]
    if not sentences:
        raise ValueError(f"{path}: no sentence found; expected a word a line, blank lines between sentences.")
    return sentences


def iterate_columns(path: Path) -> Iterator[list[Row]]:
    """The sentences of `read_columns`, one by one; the file is read twice."""
    sentence: list[Row] = []
    conllu = column_names(path)[:1] == ("id",)
    comments = _Comments(path, conllu)
    width = comments.width
    for number, line in iterate_lines(path):
        if not line.strip():
            if sentence:
                yield sentence
            sentence = []
            continue
        cells = _cells(line)
        if line.startswith("-DOCSTART-") or (line.startswith("#") and comments.has(cells, sentence)):
            continue
        if conllu and _NOT_A_WORD.fullmatch(cells[0]):
            continue
        width = width or len(cells)
        if len(cells) != width:
            raise ValueError(f"{path}, line {number}: expected {width} columns as above, found {len(cells)}.")
        sentence.append(cells)
    if sentence:
        yield sentence


class _Comments:
    """Tells lines with ``#`` that are comments from words: tweets hold ``#tag``, and a sentence may open
    with ``#``.

    Where the other lines start with a number, every one is a comment. Else a word has as many cells as the
    other lines, and one that is ``#`` alone a last cell that occurs there too.
    """

    def __init__(self, path: Path, numbered: bool) -> None:
        self.width, self.last, self.numbered = 0, set[str](), True
        for _, line in iterate_lines(path):
            if not line.strip() or line.startswith("-DOCSTART-"):
                continue
            cells = _cells(line)
            if cells[0] != "#":
                self.last.add(cells[-1])
            if not line.startswith("#"):
                self.width = self.width or len(cells)
                self.numbered = self.numbered and cells[0][:1].isdecimal()
        self.numbered = numbered or (self.numbered and self.width > 2)

    def has(self, cells: Row, before: list[Row]) -> bool:
        """Whether a line is a comment; ``before``: the words of its sentence so far."""
        if self.numbered or before:
            return self.numbered
        other = self.width and len(cells) != self.width
        return bool(other) or (cells[0] == "#" and cells[-1] not in self.last)


def read_table(
    path: Path, delimiter: str = ",", header: tuple[str, ...] | None = None
) -> list[dict[str, str]]:
    """Rows of a delimited file as column -> cell; the names are its first line's, or ``header``.

    Raises:
        ValueError: no row, a column name given twice or empty, a row of another length, or no UTF-8.
    """
    lines = (line for _, line in iterate_lines(path))
    if delimiter == "\t":  # no quoting: a quote in a sentence is a quote
        rows = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        rows = csv.reader(lines, delimiter=delimiter)
    names = list(header) if header else [name.strip() for name in next(rows, [])]
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"{path}: expected a header of different names, found {', '.join(names)!r}.")
    table = []
    for row in rows:
        if not row:
            continue
        if len(row) != len(names):
            where = f"{path}, line {rows.line_num}"
            raise ValueError(f"{where}: expected {len(names)} cells as in the header, found {len(row)}.")
        table.append(dict(zip(names, map(str.strip, row), strict=True)))
    if not table:
        raise ValueError(f"{path}: no rows found; expected a header line and a row for each example.")
    return table


def iterate_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without their ends. Only LF and CRLF end a line, or CR in a file without LF: tweets hold
    stranger ones."""
    with path.open("rb") as raw:
        start = raw.read(1 << 16)
    end = "\r" if b"\r" in start and b"\n" not in start else "\n"
    try:
        with path.open(encoding="utf-8-sig", newline=end) as file:
            for number, line in enumerate(file, 1):
                yield number, line.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from None


def not_utf8(path: Path, error: UnicodeDecodeError) -> ValueError:
    """The error for a file that is no UTF-8 text, with the command that makes it one."""
    with path.open("rb") as raw:
        mark = raw.read(2)
    code = "utf-16" if mark in (b"\xff\xfe", b"\xfe\xff") else "cp1252"
    byte = f"byte 0x{error.object[error.start]:02x}"
    return ValueError(
        f"{path}: expected UTF-8 text, found {byte}, as in {code}: save it as UTF-8, "
        f"for example with iconv -f {code} -t utf-8 OLD > NEW."
    )


def _cells(line: str) -> Row:
    if "\t" in line:
        return [cell.strip(" ") for cell in line.split("\t")]
    return [cell for cell in line.strip(" ").split(" ") if cell]  # not at a no-break space
