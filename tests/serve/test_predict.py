"""Predictions as a user gets them: of a list, of files of every format, of standard input."""

import io
import json
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mtlweights.cli import main
from mtlweights.problems.task import Task
from mtlweights.serve import TrainedModel
from mtlweights.serve.answers import answers
from mtlweights.serve.readings import read
from mtlweights.serve.sources import examples

FORMAT1 = Path(__file__).parent / "format1"
TAGGER, TABLE = FORMAT1 / "tagger", FORMAT1 / "table"


def predicted(capsys, *argv):
    """The answers a command prints."""
    assert main(["predict", *map(str, argv)]) == 0
    return [*map(json.loads, capsys.readouterr().out.splitlines())]


def fed(monkeypatch, text):
    """Standard input holds this text."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_spans_are_spans():
    task = Task("ner", "tokens", ("span_f1",), ("O", "B-PER", "I-PER", "I-LOC"))
    given = read("text", "Ada Lovelace  met in London")
    logits = np.full((1, 5, 4), -5.0)
    for word, label in enumerate([1, 2, 0, 0, 3]):
        logits[0, word, label] = 4.0 if word == 1 else 5.0
    found = answers([task], {"ner": logits}, [given], None)[0]["ner"]
    assert found["labels"] == ["B-PER", "I-PER", "O", "O", "I-LOC"]
    least, share = (1 / (1 + 3 * np.exp(-margin)) for margin in (9, 10))
    person = {"type": "PER", "start": 0, "end": 2, "text": "Ada Lovelace", "characters": [0, 12]}
    place = {"type": "LOC", "start": 4, "end": 5, "text": "London", "characters": [21, 27]}
    expected = {"PER": pytest.approx(least, abs=1e-6), "LOC": pytest.approx(share, abs=1e-6)}
    assert found["spans"] == [{**span, "probability": expected[span["type"]]} for span in (person, place)]
    assert least < share - 1e-5


def test_a_word_that_was_cut_off_has_no_label():
    task = Task("pos", "tokens", ("accuracy",), ("X", "Y"))
    mask = np.array([[True, False]])
    found = answers([task], {"pos": np.zeros((1, 2, 2))}, [read("text", ["a", "b"])], mask)[0]["pos"]
    assert found == {"words": ["a", "b"], "labels": ["X", None], "probabilities": [0.5, None]}


def test_numbers_are_in_the_unit_of_the_data(tmp_path):
    """A head of zeros says the mean of the training targets."""
    model = TrainedModel.from_pretrained(TABLE)
    for parameter in model.module.heads["price"].parameters():
        parameter.data.zero_()
    price = next(task for task in model.tasks if task.name == "price")
    found = model.predict([{"size": 1, "age": 2, "kind": "flat"}])[0]["price"]["value"]
    assert found == pytest.approx(price.mean, rel=1e-5) and price.mean > 100


def test_probabilities_sum_to_one_and_the_label_is_the_likeliest():
    found = TrainedModel.from_pretrained(TABLE).predict([{"size": 100, "age": 2, "kind": "flat"}])[0]["dear"]
    assert sum(found["probabilities"].values()) == pytest.approx(1)
    assert (
        found["probability"] == found["probabilities"][found["label"]] == max(found["probabilities"].values())
    )


def test_every_format_gives_the_same_answers(tmp_path, capsys, monkeypatch):
    sentences = [["Ada", "met", "London"], ["in", "London"]]
    files = {
        "a.conll": "".join("".join(f"{word}\tx\n" for word in words) + "\n" for words in sentences),
        "a.jsonl": "".join(json.dumps({"words": words}) + "\n" for words in sentences),
        "a.csv": "id,text\n1,Ada met London\n2,in London\n",
        "a.txt": "Ada met London\r\nin London\n",
    }
    expected = TrainedModel.from_pretrained(TAGGER).predict(sentences)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content.encode())
        found = predicted(capsys, TAGGER, tmp_path / name)
        fed(monkeypatch, content)
        form = {"txt": "text"}.get(name[2:], name[2:])
        assert found == predicted(capsys, TAGGER, "-", "--format", form), name
        for one, other in zip(found, expected, strict=True):
            assert one["pos"] == other["pos"], name


def test_a_table_by_its_columns(tmp_path, capsys):
    (tmp_path / "a.csv").write_text(";kind;other;size;age\n0;flat;z;120;3,5\n1;;z;;40\n", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('{"kind":"flat","size":120,"age":3.5}\n{"size":null,"age":"40"}\n')
    assert predicted(capsys, TABLE, tmp_path / "a.csv") == predicted(capsys, TABLE, tmp_path / "a.jsonl")


def test_out_is_written_whole_or_not_at_all(tmp_path, capsys):
    out = tmp_path / "answers.jsonl"
    (tmp_path / "a.jsonl").write_text('"Ada"\n' * 100 + "{\n")
    assert main(["predict", str(TAGGER), str(tmp_path / "a.jsonl"), "--out", str(out)]) == 2
    assert not out.exists() and "line 101: expected JSON" in capsys.readouterr().err
    (tmp_path / "a.jsonl").write_text('"Ada"\n' * 3)
    assert main(["predict", str(TAGGER), str(tmp_path / "a.jsonl"), "--out", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 3


FAULTS = {
    "a.xyz": ("", "its format is not known by its name"),
    "a.csv": ("size,kind\n1,flat\n2,house\n", "there is no column 'age'"),
    "b.csv": ("size,age,kind\n12,x1,flat\n", "column 'age': expected a number, found 'x1'"),
    "c.csv": ("size,age,kind\n12,1\n13,1,flat\n", "line 2: expected 3 cells"),
    "a.jsonl": ('{"size": [], "age": 1}\n', "column 'size': expected a number or a text"),
    "b.jsonl": ('{"size": 1e31, "age": 1}\n', "expected a number up to 1e+30"),
    "a.txt": ("hello\n", "reads a table"),
    "a.conll": ("a\tb\n", "reads a table"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_one_line(name, tmp_path, capsys):
    (tmp_path / name).write_text(FAULTS[name][0], encoding="utf-8")
    assert main(["predict", str(TABLE), str(tmp_path / name)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and FAULTS[name][1] in lines[0]


def test_one_example_is_no_list():
    with pytest.raises(ValueError, match="a list of examples, found one str"):
        TrainedModel.from_pretrained(TAGGER).predict("Ada met London")


def test_a_long_file_takes_the_memory_of_a_batch(tmp_path):
    """Ten times the lines, the same peak."""
    model, peaks = TrainedModel.from_pretrained(TABLE), []
    for n in (2_000, 20_000):
        path = tmp_path / f"{n}.csv"
        path.write_text("size,age,kind\n" + "120,3,flat\n" * n, encoding="utf-8")
        tracemalloc.start()
        assert sum(1 for _ in model.stream(examples(str(path), "csv", "table"), 64)) == n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
