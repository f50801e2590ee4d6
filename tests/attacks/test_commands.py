"""Arguments, tables and suites that make no sense, on the command line: one line, before any training."""

import pytest

from mtlweights.cli import main

ROWS = [f"0.{i % 7},{i},{'ab'[i % 2]},0.{i * 7 % 10}" for i in range(40)]
HEADER = "x,y,kind,price"
COLUMNS = ":classify=kind,regress=price"


def table(header=HEADER, change=lambda row: row, encoding="utf-8"):
    return "\n".join([header, *map(change, ROWS), ""]).encode(encoding)


STRATEGY = """
from mtlweights.strategies import LossStrategy
class {name}(LossStrategy):
    {body}
    def combine(self, losses, present=None): return {value}
"""


def strategy(name, body="paper = ''", value="losses.sum()"):
    return STRATEGY.format(name=name, body=body, value=value).encode()


FILES = {
    "good.csv": table(),
    "utf16.csv": table(encoding="utf-16"),
    "empty.csv": b"",
    "header.csv": HEADER.encode(),
    "twice.csv": table("x,x,kind,price"),
    "noname.csv": table("x,,kind,price"),
    "infinite.csv": table(change=lambda row: row[: row.rindex(",")] + ",inf"),
    "huge.csv": table(change=lambda row: "1e308" + row[row.index(",") :]),
    "constant.csv": table(change=lambda row: row[: row.rindex(",")] + ",1"),
    "good.conllu": b"1\tThe\tDET\n2\tdog\tNOUN\n\n" * 30,
    "ragged.conllu": b"1\tThe\tDET\n2\tdog\n\n" * 30,
    "blank.conllu": b"\n" * 100,
    "one.conllu": b"1\tThe\tDET\n\n" * 30,
    "long.conllu": b"1\t" + b"x" * 2_000_000 + b"\tDET\n\n" * 30,
    "nothing.arff": b"",
    "header.arff": b"@relation r\n@attribute kind {a,b}\n@attribute price real\n",
    "quote.arff": b"@attribute kind {a,b}\n@attribute price real\n@data\n'a,1\n",
    "sparse.arff": b"@attribute kind {a,b}\n@attribute price real\n@data\n{9 1}\n",
    "binary.arff": b"@attribute kind {a,b}\n\xff\n@data\n",
    "deep.jsonl": b"[" * 100_000,
    "list.jsonl": b"[1]\n",
    "nested.jsonl": b'{"kind": {"a": 1}, "price": 1}\n',
    "huge.jsonl": b'{"kind": "a", "price": 1' + b"0" * 5000 + b"}\n",
    "binary.jsonl": b"\xff\xfe\x00\n",
    "binary.parquet": b"PAR1\x00\x00PAR1",
    "syntax.py": b"class X(:\n",
    "exits.py": b"import sys; sys.exit(3)",
    "odd.py": b"raise BaseException('x\\n\\x1b[31my')",
    "deep.py": b"def f(): f()\nf()",
    "nothing.py": b"x = 1",
    "signature.py": strategy("A", "def __init__(self): pass"),
    "leaves.py": strategy("A", "def __init__(self, n_tasks): raise SystemExit(9)"),
    "number.py": strategy("A", value="3"),
    "vector.py": strategy("A", value="losses"),
    "constant.py": strategy("A", value="losses.detach().sum()"),
    "list.yaml": b"- 1",
    "itself.yaml": b"a: &a [*a]",
    "twice.yaml": b"problems: [tagging]\nproblems: [toy]\nstrategies: [equal]\nseeds: 1",
    "seeds.yaml": b"problems: [tagging]\nstrategies: [equal]\nseeds: 999999999999",
    "date.yaml": b"problems: {tagging: {epochs: 2020-01-01}}\nstrategies: [equal]\nseeds: 1",
    "null.yaml": b"problems:\nstrategies:\nseeds:",
    "binary.yaml": b"\xff\xfe\x00",
    "names.yaml": b"problems: [tagging]\nstrategies: [1, null]\nseeds: 1",
}


def train(problem, *more, strategy="equal"):
    return ["train", problem, "-s", strategy, "--epochs", "1", "--device", "cpu", *more]


GOOD = "csv:good.csv" + COLUMNS
COMMANDS = [
    *(train(f"csv:{name}{COLUMNS}") for name in FILES if name.endswith(".csv") and name != "good.csv"),
    *(train(f"csv:{name}{COLUMNS}") for name in ("", "\0", "a" * 5000, "/dev/zero", ".", "https://x/y.csv")),
    *(train(f"csv:good.csv:{odd}") for odd in ("classify=[kind,kind]", "regress=1", "classify=[[kind]]")),
    *(train(f"{GOOD},{odd}") for odd in ("hidden=0", "hidden=99999999999", "dropout=nan", "dev=2")),
    *(
        train(f"{name.rpartition('.')[2]}:{name}{COLUMNS}")
        for name in FILES
        if name.endswith((".arff", ".jsonl", ".parquet"))
    ),
    *(train(f"{GOOD},{odd}") for odd in ("metrics=auc", "metrics=[[auroc]]", "metrics=3")),
    *(train(odd) for odd in ("mulan:scpf:fold=11", "burgers:points=0", "tox21:fold=1", "census:rows=1")),
    *(train(f"conll:{name}:pos=2") for name in FILES if name.endswith(".conllu") and name != "good.conllu"),
    *(train(f"conll:good.conllu:{odd}") for odd in ("pos=99", "pos=-1", "pos=[2]", "pos=2,encoder=/etc")),
    *(train("conll:good.conllu", "--tags", odd) for odd in ("=2", "pos=", "pos=2,ner=2,", "a\x1b[31m=2")),
    *(train(GOOD, strategy=f"{name}:A") for name in FILES if name.endswith(".py")),
    *(train(GOOD, strategy=odd) for odd in ("", "nothing.py", "uw:", "uw:a=1", "a\0b", "os:path", "..:X")),
    *(
        train(GOOD, strategy=odd)
        for odd in ("cagrad:c='0.4'", "cagrad:c=[1]", "fixed:alpha=[1,2,3]", "equal,uw")
    ),
    *(train(GOOD, "--lr", odd) for odd in ("nan", "-1", "1e400", "1e-320", "x")),
    *(train(GOOD, "--seed", odd) for odd in ("-1", "9" * 30, "1.5")),
    *(train(GOOD, "--batch-size", odd) for odd in ("0", "9" * 30)),
    *(train(GOOD, "--out", odd) for odd in ("/dev/full", "/proc/x", "a" * 300, "a\0b")),
    *(["bench", name, "--seeds", "1"] for name in FILES if name.endswith(".yaml")),
    *(["bench", "-p", GOOD, "--jobs", "1", *odd] for odd in (["--seeds", "0"], ["--limit-minutes", "nan"])),
    *(["bench", "-p", odd, "--seeds", "1"] for odd in ("", "nosuch", "csv:good.csv:regress=kind")),
    *(["report", odd] for odd in ("nosuch", "good.csv", "\0", "/proc/self", "")),
    *(["test", odd] for odd in ("", "\0", "nothing.py", "odd.py")),
]


def test_commands_that_make_no_sense(attack, tmp_path, monkeypatch, capsys):
    """Commands with arguments, tables, suites and strategies that make no sense: one line, exit status 2."""
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    for argv in COMMANDS:
        with attack.trial(" ".join(argv)[:200]):
            try:
                status = main(argv)
            except SystemExit as left:
                status = left.code
            whole = capsys.readouterr().err
            said = whole.strip().rpartition("\n")[2]  # after a bar, where it is the first step that finds it
            assert status == 2 and "Traceback" not in whole, f"{status}, {whole}"
            assert said.startswith("mtlweights: error: ") and said.isprintable(), said


@pytest.fixture(autouse=True)
def no_runs_are_kept(tmp_path):
    """A refused command leaves no result."""
    yield
    assert not list(tmp_path.rglob("runs/*.json"))
