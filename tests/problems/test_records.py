"""Tables that are no delimited text: ARFF, JSON lines, Parquet."""

import numpy as np
import pytest
from scipy.io import arff as scipy_arff

from mtlweights import problems
from mtlweights.problems.data.arff import read_arff
from mtlweights.problems.data.records import read_jsonl, read_records

ARFF = """% a comment
@RELATION 'test set'

@attribute "'a b'" NUMERIC
@attribute kind {red, 'dark blue'}
@ATTRIBUTE size real
@data
1.5, red, ?
% another
-2,'dark blue',3e2

{1 'dark blue'}
"""


def rows(records):
    return [row for _, row in records.rows()]


def test_arff(tmp_path):
    path = tmp_path / "a.arff"
    path.write_text(ARFF, "utf-8", newline="\r\n")
    records = read_arff(path)
    assert records.names == ["a b", "kind", "size"]
    assert rows(records) == [["1.5", "red", "?"], ["-2", "dark blue", "3e2"], ["0", "dark blue", "0"]]
    columns, n = read_records(path, records, ["kind"])
    assert n == 3 and list(columns) == ["a b", "size"]
    assert columns["size"].values[1] == 300 and np.isnan(columns["size"].values[0])
    assert columns["size"].first["missing"] == (8, "?")


def test_arff_equals_scipys_reading(data_dir):
    path = data_dir / "mtr" / "jura.arff"
    found, _ = read_records(path, read_arff(path))
    expected, meta = scipy_arff.loadarff(path)
    assert list(found) == meta.names()
    for name in meta.names():
        np.testing.assert_array_equal(np.array(found[name].values), expected[name])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "line 1: expected @attribute or @data, found 'a,b'"),
        ("@attribute a numeric\n", "found no @data"),
        ("@data\n1\n", "expected an @attribute line"),
        (
            "@attribute a date\n@data\n",
            "line 1: expected an attribute that is numeric, .* found '@attribute a",
        ),
        ("@attribute a numeric\n@attribute a real\n@data\n1,2\n", "found 'a' twice"),
        ("@attribute a numeric\n@data\n1,2\n", "line 3: expected 1 cells, found 2"),
        (
            "@attribute a numeric\n@data\n{4 1}\n",
            "line 3: expected an index below 1 and a value, found '4 1'",
        ),
        ("@attribute a numeric\n@data\n", "no rows found"),
    ],
)
def test_an_arff_file_that_cannot_be_read_is_named(tmp_path, content, message):
    path = tmp_path / "bad.arff"
    path.write_text(content, "utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        read_records(path, read_arff(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_json_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": 1, "y": "a b"}\n\n{"y": null, "z": true, "x": 2.5}\n', "utf-8")
    records = read_jsonl(path)
    assert records.names == ["x", "y", "z"]
    assert rows(records) == [["1", "a b", ""], ["2.5", "", "true"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x\n", "line 1: expected JSON, found 'x'"),
        ("[" * 100_000, "line 1: expected JSON"),
        ("[1]\n", r"line 1: expected an object a line, found '\[1\]'"),
        ('{"x": [1]}\n', "line 1, column 'x': expected a number, a text or a truth value, found list"),
        ("", "no rows found"),
    ],
)
def test_json_lines_that_cannot_be_read_are_named(tmp_path, content, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(content, "utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        read_records(path, read_jsonl(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def table(n=40):
    return [
        {"size": i % 7 + 0.5, "kind": "ab"[i % 2], "price": float(i), "rare": i % 3 == 0} for i in range(n)
    ]


def test_a_problem_is_the_same_whatever_the_format(tmp_path):
    import json

    columns = {"classify": ["kind", "rare"], "regress": ["price"], "metrics": ["auroc", "r2"]}
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in table()), "utf-8")
    cells = [[str(value).lower() for value in row.values()] for row in table()]
    lines = [list(table()[0]), *cells]
    (tmp_path / "a.tsv").write_text("".join("\t".join(row) + "\n" for row in lines), "utf-8")
    head = "".join(
        f"@attribute {key} {'string' if key in ('kind', 'rare') else 'real'}\n" for key in lines[0]
    )
    (tmp_path / "a.arff").write_text(
        f"{head}@data\n" + "".join(",".join(row) + "\n" for row in cells), "utf-8"
    )
    found = [
        problems.load(f"{kind}:{tmp_path / file}", **columns)
        for kind, file in [("csv", "a.tsv"), ("jsonl", "a.jsonl"), ("arff", "a.arff")]
    ]
    assert found[0].splits == found[1].splits == found[2].splits
    assert found[0].tasks == found[1].tasks == found[2].tasks
    assert [task.metrics for task in found[0].tasks] == [("auroc",), ("auroc",), ("r2",)]
    assert found[1].notes[0] == "table: 40 rows; 1 input column"
    assert "kind: AUROC, 2 classes" in found[1].notes


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="the extra [parquet] is not installed")
    from pyarrow import parquet

    path, columns = tmp_path / "a.parquet", {"classify": "kind", "regress": "price"}
    parquet.write_table(pyarrow.Table.from_pylist(table()), path)
    problem = problems.load(f"parquet:{path}", **columns)
    assert [len(rows) for rows in problem.splits.values()] == [28, 6, 6]
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="expected a Parquet file") as caught:
        problems.load(f"parquet:{tmp_path / 'b.parquet'}", **columns)
    assert "\n" not in str(caught.value)


def test_without_pyarrow_parquet_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(ImportError, match=r"pip install 'mtlweights\[parquet\]'"):
        problems.load(f"parquet:{tmp_path / 'a.parquet'}", classify="kind")


def test_an_unknown_metric_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n", "utf-8")
    with pytest.raises(ValueError, match=r"no metric 'auc'; did you mean 'auroc'"):
        problems.load(f"csv:{tmp_path / 'a.csv'}", regress="b", metrics="auc")
