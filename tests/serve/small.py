"""Small trained models of every kind, made in a moment, and the folders of tests/serve/format1.

`python -m tests.serve.small FOLDER` writes the folders and their answers as this version does. Those of a
format that was released are never written again.
"""

import json
import random
import sys
from pathlib import Path

import torch

from mtlweights.problems import load
from mtlweights.problems.models import BiLSTM, MultiTaskModel
from mtlweights.serve import TrainedModel

HERE = Path(__file__).parent
EXAMPLES = {
    "tagger": ["Ada Lovelace met Mr Babbage in London.", ["Zürich", "is", "unknown", "here"], "", "."],
    "table": [
        {"size": 120, "age": "3,5", "kind": "flat"},
        {"size": None, "age": 40.0, "kind": None},
        {"size": "80", "age": 1, "kind": "castle"},
    ],
    "pair": [("Two dogs run.", "Dogs are running."), (["A", "cat"], [])],
}


def column_file(folder, n=60):
    """Sentences with entities and parts of speech."""
    draw, rows = random.Random(0), []
    names = {"Ada": "B-PER", "Lovelace": "I-PER", "London": "B-LOC", "met": "O", "in": "O", ".": "O"}
    for _ in range(n):
        words = draw.sample([*names], 5)
        rows += [f"{w}\t{names[w]}\t{'X' if names[w] == 'O' else 'N'}" for w in words] + [""]
    (folder / "small.conll").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "small.conll"


def table_file(folder, n=80):
    """A number, a number with decimal comma and missing cells, a text; a class and a number to predict."""
    draw, rows = random.Random(0), ["size;age;kind;dear;price"]
    for i in range(n):
        size, age = draw.randint(40, 200), draw.randint(0, 90)
        kind = draw.choice(["flat", "house", ""])
        price = 3 * size - age + draw.gauss(0, 5)
        known = f"{age},5" if i % 7 else ""
        rows.append(f"{size};{known};{kind};{'yes' if price > 300 else 'no'};{price:.2f}".replace(".", ","))
    (folder / "small.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "small.csv"


def bert(folder):
    """A transformer of two layers, over characters."""
    from transformers import BertConfig, BertTokenizerFast

    from mtlweights.problems.models.transformer import load_model

    letters = "abcdefghijklmnopqrstuvwxyz.,'"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    narrow = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    load_model(BertConfig(vocab_size=len(words), **narrow)).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def problem(kind, folder):
    """The problem of a small model; its file goes into ``folder``."""
    if kind == "tagger":
        return load(f"conll:{column_file(folder)}:ner=1,pos=2,hidden=4")
    if kind == "table":
        return load(f"csv:{table_file(folder)}:classify=dear,regress=price,hidden=4")
    return load("sick:hidden=4")


def model(kind, folder):
    """An untrained small model, the same at every call; large weights, so that answers differ."""
    torch.manual_seed(1)
    made = problem(kind, folder)
    module = made.build()
    if kind == "tagger":  # smaller than a problem's options allow
        words = made.inputs
        narrow = {"word_dim": 6, "char_dim": 4, "char_filters": 5, "hidden": 4}
        module = MultiTaskModel(BiLSTM(words.n_words, words.n_chars, **narrow), made.tasks)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(3)
    return TrainedModel.from_problem(made, module, {"strategy": "uw", "examples": {"train": 1}})


def write(folder):
    """The folders, and beside them what the models answer."""
    for kind in ("tagger", "table"):
        found = model(kind, folder)
        found.problem = kind
        found.save_pretrained(folder / kind)
        answers = json.dumps(found.predict(EXAMPLES[kind]), indent=1, ensure_ascii=False)
        (folder / f"{kind}.json").write_text(answers + "\n", encoding="utf-8")
    for name in ("small.conll", "small.csv"):
        (folder / name).unlink()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
