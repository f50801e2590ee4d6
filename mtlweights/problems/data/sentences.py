"""Problems from a user's own sentences: ``conll:PATH``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...specs import suggest
from ..models.sharing import NAMES
from ..problem import Problem
from ..spans import marks, read_spans
from ..task import Task
from .from_examples import OPTIONS, text_problem
from .labels import examples, label_task, split_file
from .readers import column_names, read_columns

SPLITS = ("train", "dev", "test")
TEXT_OPTIONS = frozenset({"encoder", "tokens", "crf"}.union(NAMES, *OPTIONS.values()))  #: no names of tasks

Sentence = tuple[list[str], dict[str, list[str | None]]]  # words, and labels by task


def conll(name: str, path: str, options: Mapping[str, Any]) -> Problem:
    """Sentences of a column file, a task for each ``task=column`` in the options.

    ``path`` is a file, split 80/10/10 by a fixed seed, or a folder with a file for each of train, dev and
    test (each with the word in its name). A column goes by its name (of CoNLL-U, or of the file's
    ``# global.columns`` line) or by its number from 0; ``tokens`` is ``form``, else 0. Labels that all mark
    spans, in any scheme of `mtlweights.problems.spans`, are read as IOB2 and scored by span F1, others by
    accuracy; a label ``_`` or an empty cell is a missing one. The scheme is that of all splits together.

    Raises:
        ValueError: no task, an unknown column or option, a file that cannot be read or has too few labels.
        FileNotFoundError: nothing at ``path``.
    """
    tags = {key: value for key, value in options.items() if key not in TEXT_OPTIONS}
    if not tags:
        raise ValueError(
            f"{name}: expected a column for each task, found none: give --tags ner=3 pos=upos, "
            "or in the spec ner=3,pos=upos."
        )
    columns = {"tokens": options.get("tokens"), **tags}
    files = _files(Path(path).expanduser())
    read = {part: _tagged(file, columns) for part, file in files.items()}
    if len(read) == 1:
        read = split_file(read[""], path, "sentences", 0.1)
    tasks, notes = [], []
    for tag in tags:
        try:
            task, note = _task(tag, read)
        except ValueError as error:
            raise ValueError(f"{path}, column {tags[tag]}: {error}") from error
        tasks.append(task)
        notes.append(note)
    encoder = {key: value for key, value in options.items() if key in TEXT_OPTIONS - {"tokens"}}
    return text_problem(name, tasks, examples(tasks, read), encoder, notes=tuple(notes))


def _task(tag: str, read: Mapping[str, Sequence[Sentence]]) -> tuple[Task, str]:
    """The task of a column, and what its labels were taken for; those of spans become IOB2 in place."""
    columns = [labels[tag] for sentences in read.values() for _, labels in sentences]
    counts = Counter(label for column in columns for label in column if label is not None)
    known, odd = marks(counts)
    n_marks = sum(prefix != "O" for prefix, _ in known.values())
    found = None
    if n_marks and not odd:
        found = read_spans(columns, known)
        for column, labels in zip(columns, found.labels, strict=True):
            column[:] = labels
    task = label_task(
        tag, "tokens", {part: [y[tag] for _, y in s] for part, s in read.items()}, ("span_f1",) * bool(found)
    )
    if found:
        types = f"{len(found.types)} type{'s' * (len(found.types) > 1)}"
        return task, f"{tag}: span F1, {found.scheme}, {types}, {found.total:,} spans"
    return task, f"{tag}: accuracy, {len(task.labels)} labels{_why(counts, odd, n_marks)}"


def _why(counts: Counter[str], odd: list[str], n_marks: int) -> str:
    """Why labels are scored one by one: silent only where nothing looks like spans."""
    outside = sum(count for label, count in counts.items() if label.upper() == "O") / counts.total()
    if not n_marks and not outside:
        return ""
    named = ", ".join(f"{label!r} ({counts[label]:,} x)" for label in odd[:3])
    more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
    share = f", {outside:.0%} of them O" if outside else ""
    return f"{share}: no span F1, as {named}{more} cannot be read as B-TYPE or I-TYPE"


def _files(path: Path) -> dict[str, Path]:
    """The file itself under "", or the files of a folder by split."""
    if path.is_file():
        return {"": path}
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: there is no such file or folder.")
    found: dict[str, Path] = {}
    for part in SPLITS:
        matches = sorted(file for file in path.iterdir() if file.is_file() and part in file.name.lower())
        if len(matches) != 1:
            names = ", ".join(file.name for file in matches) or "none"
            raise ValueError(f"{path}: expected one file with {part!r} in its name, found {names}.")
        found[part] = matches[0]
    return found


def _tagged(path: Path, columns: Mapping[str, Any]) -> list[Sentence]:
    """Words and labels by task of each sentence."""
    names, sentences = column_names(path), read_columns(path)
    width = len(sentences[0][0])
    index = {key: _column(path, column, names, width) for key, column in columns.items()}
    words = index.pop("tokens")
    return [
        (
            [row[words] for row in rows],
            {tag: [None if row[i] in ("_", "") else row[i] for row in rows] for tag, i in index.items()},
        )
        for rows in sentences
    ]


def _column(path: Path, column: Any, names: Sequence[str], width: int) -> int:
    """Number of a column given by name or number; None: the words' own."""
    if column is None:
        return names.index("form") if "form" in names else 0
    text = str(column)
    if text.isdecimal() and int(text) < width:
        return int(text)
    if text.lower() in names:
        return names.index(text.lower())
    known = [*names, *([] if names else map(str, range(width)))]
    raise ValueError(f"{path}: there is no column {text!r}; {suggest(text.lower(), known)}")
