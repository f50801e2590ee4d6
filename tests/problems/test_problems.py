"""Problems: the built-in ones, and those from a user's own files."""

import math
import pickle
import re
from types import SimpleNamespace

import pytest
import torch

from mtlweights import Balancer, problems, train
from mtlweights.problems import Problem, Task
from mtlweights.problems.data import builtin


@pytest.fixture
def toy():
    tags = Task("tags", "tokens", ("accuracy",), ("a", "b"))
    size = Task("size", "regression", ("rmse",), untrained=1.0, target=0.0)
    items = [
        {"input": ["x", "y", "z"], "targets": {"tags": [0, 1, -100], "size": None}},
        {"input": ["x"], "targets": {"tags": None}},
    ]
    return Problem("toy", (tags, size), {"train": items}, lambda sentences: {"n": len(sentences)}, None)


def test_collate_pads_and_leaves_out_tasks_without_a_label(toy):
    batch = toy.collate(toy.splits["train"])
    assert batch["inputs"] == {"n": 2}
    assert batch["counts"] == {"tags": 2}
    assert batch["targets"]["tags"].tolist() == [[0, 1, -100], [-100, -100, -100]]
    assert list(batch["targets"]) == ["tags"]
    toy.splits["train"][1]["targets"]["size"] = 2
    batch = toy.collate(toy.splits["train"])
    assert batch["counts"]["size"] == 1
    assert math.isnan(batch["targets"]["size"][0]) and batch["targets"]["size"][1] == 2.0


def test_only_keeps_the_named_tasks(toy):
    assert [task.name for task in toy.only("size").tasks] == ["size"]
    assert toy.only("tags").collate(toy.splits["train"])["counts"] == {"tags": 2}
    with pytest.raises(ValueError, match=r"no task 'tag'; did you mean 'tags'\? known: tags, size"):
        toy.only("tag")
    with pytest.raises(ValueError, match="at least one task"):
        toy.only()


def check_problem(problem):
    """The model takes a batch, every task has a finite loss, and pickling changes nothing."""
    problem = pickle.loads(pickle.dumps(problem))
    model = problem.build()
    batch = problem.collate(problem.splits["train"][:8])
    losses = model(batch["inputs"], batch["targets"]).losses
    assert set(losses) == {task.name for task in problem.tasks}
    assert all(loss.isfinite() for loss in losses.values())
    train.Settings(**problem.settings)
    return model


@pytest.mark.parametrize("name", ["tagging", "breast_cancer"])
def test_embedded_problems(name):
    assert name in problems.problems()
    problem = problems.load(name)
    assert problem.name == name
    check_problem(problem)


def test_breast_cancer_has_no_target_among_its_inputs():
    problem = problems.load("breast_cancer")
    rows = [example for split in problem.splits.values() for example in split]
    assert len(rows) == 569
    x = torch.tensor([row["input"] for row in rows], dtype=torch.float64)
    y = torch.tensor([row["targets"]["radius"] for row in rows], dtype=torch.float64)
    assert x.shape == (569, 20)
    correlation = torch.corrcoef(torch.cat([x, y[:, None]], 1).T)[-1, :-1]
    assert correlation.abs().max() < 0.98


def test_tagging_is_learned_but_not_to_the_end():
    problem = problems.load("tagging")
    torch.manual_seed(0)
    model = problem.build()
    balancer = Balancer("equal", ["ner", "pos"], model)
    train.fit(model, balancer, problem, train.Settings(**problem.settings, device="cpu"), progress=False)
    test = train.evaluate(model, problem, "test")
    assert 0.90 < test["pos"]["accuracy"] < 0.98
    assert 0.5 < test["ner"]["span_f1"] < 0.9


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("taging", "no problem 'taging'; did you mean 'tagging'"),
        ("conl:x", "did you mean 'conll:PATH'"),
        ("tagging:hiden=3", "no option 'hiden'; did you mean 'hidden'"),
        ("tagging:model=minilm", "no option 'model'"),
        ("tagging:hidden=0", "hidden should be an integer of at least 1, found 0"),
        ("tagging:dropout=1", "dropout should be a number from 0 to below 1, found 1"),
        ("tagging:encoder=bert", "no encoder 'bert'; known: bilstm, frozen, transformer"),
        ("breast_cancer:encoder=bilstm", "no option 'encoder'"),
    ],
)
def test_a_wrong_spec_is_refused_in_one_line(spec, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")) as caught:
        problems.load(spec)
    assert "\n" not in str(caught.value)


def test_options_reach_the_encoder():
    problem = problems.load("tagging:hidden=8,dropout=0")
    assert problem.name == "tagging:hidden=8,dropout=0"
    encoder = problem.encoder()
    assert encoder.token_dim == 16
    assert encoder.dropout.p == 0


def test_tweets_match_without_case_and_masked_numbers_and_equal_ones_in_order():
    rows = [
        [["1", word, "_", pos] for word, pos in zip(words.split(), tags.split(), strict=True)]
        for words, tags in [
            ("@USER1 Hi", "X INTJ"),
            ("go 12", "VERB NUM"),
            ("GO 7", "VERB X"),
            ("alone", "ADV"),
        ]
    ]
    entities = [
        [[word, "-", tag] for word, tag in zip(words.split(), tags.split(), strict=True)]
        for words, tags in [("Go 3", "O B-LOC"), ("@user22 hi", "B-PER O"), ("go 4", "O B-ORG")]
    ]
    joined = builtin.join_tweets(rows, entities)
    assert [labels["ner"] for _, labels in joined] == [["B-PER", "O"], ["O", "B-LOC"], ["O", "B-ORG"]]
    assert joined[0] == (["@USER1", "Hi"], {"ner": ["B-PER", "O"], "pos": ["X", "INTJ"]})


def test_tweebank(data_dir):
    problem = problems.load("tweebank")
    assert [len(problem.splits[part]) for part in ("train", "dev", "test")] == [1639, 710, 1201]
    words = [sum(len(example["input"]) for example in split) for split in problem.splits.values()]
    assert words == [24753, 11759, 19095]
    ner, pos = problem.tasks
    assert (ner.metrics, pos.metrics) == (("span_f1",), ("accuracy",))
    assert (len(ner.labels), len(pos.labels)) == (9, 17)
    for split in problem.splits.values():
        for example in split:
            assert len(example["input"]) == len(example["targets"]["ner"]) == len(example["targets"]["pos"])
    check_problem(problem)


def test_sick(data_dir):
    problem = problems.load("sick")
    assert [len(problem.splits[part]) for part in ("train", "dev", "test")] == [4500, 500, 4927]
    entailment, relatedness = problem.tasks
    assert entailment.labels == ("CONTRADICTION", "ENTAILMENT", "NEUTRAL")
    assert relatedness.metrics == ("pearson", "rmse")
    first = problem.splits["test"][0]
    assert first["input"][0][:3] == ["There", "is", "no"]
    assert first["targets"] == {"entailment": 2, "relatedness": 3.3}
    check_problem(problem)


def test_abalone(data_dir):
    problem = problems.load("abalone")
    assert [len(problem.splits[part]) for part in ("train", "dev", "test")] == [2923, 627, 627]
    assert all(len(example["input"]) == 7 for example in problem.splits["train"])
    sex, rings = problem.tasks
    assert sex.labels == ("F", "I", "M")
    assert rings.untrained == pytest.approx(rings.std) == pytest.approx(3.22, abs=0.1)
    check_problem(problem)


CONLLU = (
    "# id = {0}\n1\tBob{0}\tbob\tPROPN\tB-PER\t_\t2\tsubj\t_\t_\n2\truns\trun\tVERB\tO\t_\t0\troot\t_\t_\n\n"
)


@pytest.fixture
def conllu(tmp_path):
    path = tmp_path / "a.conllu"
    path.write_text("".join(CONLLU.format(i) for i in range(40)), "utf-8")
    return path


def test_own_sentences_from_one_file(conllu):
    problem = problems.load(f"conll:{conllu}", tokens="form", tags={"ner": "4", "pos": "upos"})
    assert [len(problem.splits[part]) for part in ("train", "dev", "test")] == [32, 4, 4]
    assert sorted(example["input"] for s in problem.splits.values() for example in s) == sorted(
        [f"Bob{i}", "runs"] for i in range(40)
    )
    ner, pos = problem.tasks
    assert (ner.metrics, pos.metrics) == (("span_f1",), ("accuracy",))
    check_problem(problem)
    again = problems.load(problem.name)  # the name says it all
    assert again.tasks == problem.tasks and again.splits == problem.splits
    assert problems.load(f"conll:{conllu}:ner=4,pos=upos").splits == problem.splits


def test_own_sentences_from_a_folder_and_missing_labels(tmp_path):
    for part, labels in [("train", "N _ V"), ("dev", "N V V"), ("test", "N V ADJ")]:
        rows = [f"w{i}\t{label}\n" for i, label in enumerate(labels.split())]
        (tmp_path / f"my-{part}.tsv").write_text("".join(rows), "utf-8")
    problem = problems.load(f"conll:{tmp_path}:pos=1,hidden=4")
    assert problem.tasks[0].labels == ("ADJ", "N", "V")
    assert problem.splits["train"] == [{"input": ["w0", "w1", "w2"], "targets": {"pos": [1, -100, 2]}}]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "expected a column for each task, found none: give --tags"),
        ({"tags": {" ": "upos"}}, "a task's name is expected in tags.*found ' '"),
        ({"tags": {"hidden": "upos"}}, "no option, found 'hidden'"),
        ({"tags": {"": "upos"}}, "a task's name is expected in tags.*found ''"),
        ({"tags": {"pos": "upso"}}, r"no column 'upso'; did you mean 'upos'\? known: id, form"),
        ({"tags": {"pos": "10"}}, "no column '10'"),
        ({"tags": {"pos": "upos"}, "tokens": "word"}, "no column 'word'"),
        ({"tags": {"pos": "deps"}}, "column deps: task 'pos' expects two labels or more, found none"),
        ({"tags": {"pos": "upos"}, "encoder": "bert"}, "no encoder 'bert'"),
    ],
)
def test_wrong_columns_of_sentences_are_refused(conllu, columns, message):
    with pytest.raises(ValueError, match=message) as caught:
        problems.load(f"conll:{conllu}", **columns)
    assert "\n" not in str(caught.value)


def test_own_sentences_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        problems.load(f"conll:{tmp_path / 'nowhere'}:pos=1")
    with pytest.raises(ValueError, match="one file with 'train' in its name, found none"):
        problems.load(f"conll:{tmp_path}:pos=1")
    (tmp_path / "few.txt").write_text("a X\nb Y\n\n", "utf-8")
    with pytest.raises(ValueError, match="at least 20 sentences to split, found 1"):
        problems.load(f"conll:{tmp_path / 'few.txt'}:pos=1")


def write_csv(path, change=lambda row: row):
    rows = [
        SimpleNamespace(
            id=f"k{i}",
            size=f"{i % 7}.5",
            colour="red" if i % 3 else "blue",
            same="1",
            kind="ab"[i % 2],
            price=f"{i}",
        )
        for i in range(40)
    ]
    for row in rows:
        change(row)
    lines = [",".join(vars(rows[0])), *(",".join(vars(row).values()) for row in rows)]
    path.write_text("\n".join(lines), "utf-8")
    return f"csv:{path}"


def test_own_table(tmp_path):
    spec = write_csv(tmp_path / "a.csv")
    problem = problems.load(spec, classify=["kind"], regress=["price"], ignore="id")
    assert [len(problem.splits[part]) for part in ("train", "dev", "test")] == [28, 6, 6]
    kind, price = problem.tasks
    assert (kind.kind, kind.labels, kind.metrics) == ("classification", ("a", "b"), ("accuracy", "macro_f1"))
    assert (price.kind, price.metrics) == ("regression", ("rmse", "pearson"))
    targets = [example["targets"]["price"] for example in problem.splits["train"]]
    assert price.mean == pytest.approx(sum(targets) / len(targets))
    for example in problem.splits["test"]:
        i = int(example["targets"]["price"])
        assert example["input"] == [i % 7 + 0.5, float(i % 3 == 0), float(i % 3 != 0)]
        assert example["targets"]["kind"] == i % 2
    check_problem(problem)
    assert problems.load(problem.name).splits == problem.splits
    assert problems.load(f"{spec}:classify=kind,regress=price,ignore=id").splits == problem.splits


def test_a_category_that_training_does_not_have_sets_no_column(tmp_path):
    spec = write_csv(tmp_path / "a.csv")
    (example, *_) = problems.load(spec, regress="price", ignore=["id", "size", "kind"]).splits["test"]
    odd = f"{example['targets']['price']:.0f}"

    def change(row):
        row.colour = "green" if row.price == odd else row.colour

    spec = write_csv(tmp_path / "a.csv", change)
    (example, *_) = problems.load(spec, regress="price", ignore=["id", "size", "kind"]).splits["test"]
    assert example == {"input": [0.0, 0.0], "targets": {"price": float(odd)}}


def test_missing_cells_of_a_table(tmp_path):
    def change(row):
        if int(row.price) % 5 == 0:
            row.size, row.colour, row.kind = "NA", "", "?"

    spec = write_csv(tmp_path / "a.csv", change)
    problem = problems.load(f"{spec}:classify=kind,ignore=[id,price]")
    rows = [example for split in problem.splits.values() for example in split]
    bare = [row for row in rows if row["targets"]["kind"] is None]
    known = [row["input"][0] for row in problem.splits["train"] if row["targets"]["kind"] is not None]
    assert len(bare) == 8
    for row in bare:
        assert row["input"] == pytest.approx([sum(known) / len(known), 1, 0, 0])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "a column in classify or regress, found none: give --classify COLUMN or --regress COLUMN"),
        ({"classify": "kind", "regress": "kind"}, "different columns.*'kind' more than once"),
        ({"classify": "kind", "ignore": "kind"}, "different columns.*'kind' more than once"),
        ({"classify": "knd", "regress": "prize"}, "no column 'knd', 'prize'"),
        ({"regress": "price", "units": "grams"}, "units should be standard or raw, found 'grams'"),
        ({"classify": "knd"}, r"no column 'knd'; did you mean 'kind'\? known: id, size"),
        (
            {"regress": "colour"},
            r"column 'colour': 'blue' in line 2 \(and 39 more\) is no number.*text is for classify",
        ),
        ({"regress": "same"}, "'same' expects different numbers in the training split, found only 1"),
        ({"classify": "same"}, "'same' expects two labels or more, found 1"),
        ({"classify": "kind", "ignore": ["id", "size", "colour", "price"]}, "no input column is left"),
        ({"classify": "kind", "hiden": 3}, "no option 'hiden'; did you mean 'hidden'"),
    ],
)
def test_wrong_columns_of_a_table_are_refused(tmp_path, columns, message):
    spec = write_csv(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=message) as caught:
        problems.load(spec, **columns)
    assert "a.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_tables_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        problems.load(f"csv:{tmp_path / 'nowhere.csv'}:classify=kind")
    (tmp_path / "few.csv").write_text("kind,x\na,1\nb,2\n", "utf-8")
    with pytest.raises(ValueError, match="at least 20 rows to split, found 2"):
        problems.load(f"csv:{tmp_path / 'few.csv'}:classify=kind")
    rows = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(200))
    (tmp_path / "text.csv").write_text("words,kind\n" + rows, "utf-8")
    with pytest.raises(ValueError, match=r"column 'words' has 140 different values.*ignore=words"):
        problems.load(f"csv:{tmp_path / 'text.csv'}:classify=kind")


SCHEMES = {
    "IOB1": "I-PER I-PER O I-LOC|I-PER B-PER I-LOC O",
    "IOB2": "B-PER I-PER O B-LOC|B-PER B-PER B-LOC O",
    "BIOES": "B-PER E-PER O S-LOC|S-PER S-PER S-LOC O",
    "BMES": "B-PER E-PER O S-LOC|S-PER S-PER S-LOC O",
    "BILOU": "B-PER L-PER O U-LOC|U-PER U-PER U-LOC O",
    "IOE": "I-PER E-PER O E-LOC|E-PER E-PER E-LOC O",
}
SCHEMES["BMES"] = SCHEMES["BMES"].replace("B-PER E-PER", "B-PER M-PER E-PER", 1)


def write_spans(path, labels, copies=10):
    sentences = [f"w{i} {label}" for _ in range(copies) for i, label in enumerate(labels.split("|"))]
    blocks = ["\n".join(f"w{i} {label}" for i, label in enumerate(s.split()[1:])) for s in sentences]
    path.write_text("\n\n".join(blocks), "utf-8")
    return f"conll:{path}:ner=1"


def spelt(problem):
    names = problem.tasks[0].labels
    rows = [e["targets"]["ner"] for split in problem.splits.values() for e in split]
    return {tuple(names[i] if i >= 0 else None for i in row) for row in rows}


@pytest.mark.parametrize("change", [str, str.lower, lambda text: text.replace("-", "_")])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_of_spans_is_read_as_iob2(tmp_path, scheme, change):
    problem = problems.load(write_spans(tmp_path / "a.txt", change(SCHEMES[scheme])))
    first = (
        ("B-PER", "I-PER", "O", "B-LOC") if scheme != "BMES" else ("B-PER", "I-PER", "I-PER", "O", "B-LOC")
    )
    expected = {first, ("B-PER", "B-PER", "B-LOC", "O")}
    assert {tuple(label[:2] + label[2:].upper() for label in row) for row in spelt(problem)} == {
        tuple(label[:2] + label[2:] for label in row) for row in expected
    }
    assert problem.notes == (f"ner: span F1, {scheme}, 2 types, 50 spans",)
    (task,) = problem.tasks
    batch = problem.collate(problem.splits["dev"])["targets"]["ner"]
    perfect = torch.eye(len(task.labels))[batch.clamp(min=0)]
    assert task.score([perfect], [batch])["span_f1"] == 1.0


def test_what_a_file_was_taken_for_is_said_where_there_is_a_bar(tmp_path, capsys):
    problem = problems.load(write_spans(tmp_path / "a.txt", SCHEMES["IOB1"]))
    settings = train.Settings(epochs=1, device="cpu")
    for progress in (True, False):
        model = problem.build()
        train.fit(model, Balancer("equal", ["ner"], model), problem, settings, progress=progress)
        said = "mtlweights: ner: span F1, IOB1, 2 types, 50 spans" in capsys.readouterr().err.splitlines()
        assert said == progress


def test_prefixes_may_stand_last_or_alone_and_a_missing_label_is_passed_over(tmp_path):
    problem = problems.load(write_spans(tmp_path / "a.txt", "PER-B PER-I O LOC-B|O PER_B _ PER_I"))
    assert spelt(problem) == {("B-PER", "I-PER", "O", "B-LOC"), ("O", "B-PER", None, "I-PER")}
    problem = problems.load(write_spans(tmp_path / "a.txt", "I I O|O I B O"))
    assert spelt(problem) == {("B-SPAN", "I-SPAN", "O"), ("O", "B-SPAN", "B-SPAN", "O")}


def test_the_scheme_is_that_of_all_splits(tmp_path):
    for part, labels in [("train", "B-X I-X O"), ("dev", "B-X E-X O"), ("test", "S-X O")]:
        write_spans(tmp_path / f"{part}.txt", labels, 1)
    problem = problems.load(f"conll:{tmp_path}:ner=1")
    assert problem.notes == ("ner: span F1, BIOES, 1 type, 3 spans",)
    assert problem.tasks[0].labels == ("O", "B-X", "I-X")


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        ("N V|N ADJ", "ner: accuracy, 3 labels"),
        (
            "O O O PER|O O LOC O",
            "ner: accuracy, 3 labels, 75% of them O: no span F1, as 'LOC' (10 x), 'PER' (10 x) ",
        ),
        (
            "B-PER I-PER O NE|O B-PER O O",
            "ner: accuracy, 4 labels, 50% of them O: no span F1, as 'NE' (10 x) cannot",
        ),
        (
            "B-PER O I-PER O|O O B-PER I-LOC",
            "ner: span F1, IOB1 and IOB2 mixed (20 spans open with I-, 20 with B-)",
        ),
    ],
)
def test_what_is_scored_by_accuracy_says_so_and_why(tmp_path, labels, note):
    problem = problems.load(write_spans(tmp_path / "a.txt", labels))
    assert problem.notes[0].startswith(note)


def frame(header, rows):
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)])


def loaded(path, text, **columns):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return problems.load(f"csv:{path}", **{"classify": "kind", "regress": "price", **columns})


ROWS = [("ab"[i % 2], i, i / 4) for i in range(40)]
PLAIN = frame("kind,price,area", ROWS)


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", "|"),
        PLAIN.replace(",", ";").replace(".", ","),
        PLAIN.replace("\n", "\r"),
        PLAIN.replace("\n", "\r\n") + "\r\n  \r\n",
        PLAIN.replace("\n", ",\n") + ",",
        PLAIN + "\n,,",
        "\ufeff" + PLAIN,
        "\n".join(
            ["," + PLAIN.split("\n")[0], *(f"{i},{row}" for i, row in enumerate(PLAIN.split("\n")[1:]))]
        ),
        frame("Unnamed: 0,kind,price,area", [(i, *row) for i, row in enumerate(ROWS)]),
        frame("kind,price,area", [(f'"{k}\n"', p, a) for k, p, a in ROWS]),
        frame("kind, price, area", [(f' "{k}"', p, a) for k, p, a in ROWS]),
        frame("note,kind,price,area", [("x" * 140_000, *row) for row in ROWS]),
    ],
)
def test_one_table_in_many_spellings(tmp_path, text):
    ignore = ["note"] if text.startswith("note") else []
    problem = loaded(tmp_path / "a.csv", text, ignore=ignore)
    expected = loaded(tmp_path / "b.csv", PLAIN)
    assert problem.splits == expected.splits
    assert problem.tasks == expected.tasks


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            frame("b,0,0", ROWS),
            r"first line looks like a row, not like names \('b', '0', '0'\): add a header",
        ),
        (PLAIN.replace("area", "price"), "columns 2 and 3 are both named 'price'"),
        (frame("kind,,price", ROWS), "column 2 has no name"),
        (
            PLAIN.encode().replace(b"kind", b"k\xefnd"),
            "found byte 0xef, as in cp1252: save it as UTF-8.*iconv",
        ),
        (PLAIN.encode("utf-16"), "as in utf-16"),
        (PLAIN.replace("b,1,", "b,1,3,"), "line 3: expected 3 cells as in the header, found 4"),
        (PLAIN.replace("b,1,0.25", 'b,1,"0.25'), "line 3: a row that cannot be read.*close each quote"),
        (PLAIN + "\n" + PLAIN, "line 42: the header once more, remove it"),
        (
            PLAIN.replace("1.25", "unknown"),
            "column 'area': 'unknown' in line 7 is no number, the other 39 are",
        ),
        (PLAIN.replace("1.25", "inf"), "column 'area': 'inf' in line 7"),
        (PLAIN.replace("1.25", '"1,25"'), "column 'area': '1,25' in line 7 mixes decimal commas and points"),
        (PLAIN.replace("1.25", '"1\n25"'), "column 'area': '1 25' in line 7 is no number"),
        (PLAIN.replace(",5,", ",5_0,"), "column 'price': '5_0' in line 7 is no number"),
        (
            frame("kind,price,area", [(k, p, f'"{p + 1},000"') for k, p, _ in ROWS]),
            r"column 'area': '1,000' in line 2 \(and 39 more\) may be decimal or in thousands",
        ),
        (
            frame(
                "kind,price,area,day,id",
                [(k, p, f"{a}?" if p == 3 else a, f"d{p}", f"k{p}") for k, p, a in ROWS * 5],
            ),
            "column 'area': '0.75[?]' in line 5",
        ),
        (
            frame("kind,price,day,id", [(k, i, f"d{i}", f"k{i}") for i, (k, _, _) in enumerate(ROWS * 5)]),
            r"'day' has 140 .*'d0' in line 2.*'id' has 140 .*--ignore day id \(in a spec ignore=\[day,id\]\)",
        ),
        (
            PLAIN.replace("9.75", "-1e40"),
            r"column 'area': '-1e40' in line 41 is beyond 1e\+30: change the unit",
        ),
        (
            frame("kind,price,area", [(k, 1.7e9 + i, a) for i, (k, _, a) in enumerate(ROWS)]),
            "'price' has numbers about 17000000.* that differ by .*, which float32 cannot tell apart",
        ),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_in_one_line_with_the_cell_and_the_cure(
    tmp_path, text, message
):
    with pytest.raises(ValueError, match=message) as caught:
        loaded(tmp_path / "a.csv", text)
    assert "a.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_codes_that_are_nearly_all_numbers_are_categories(tmp_path):
    rows = [("ab"[i % 2], i, "1A" if i == 7 else i % 3) for i in range(40)]
    problem = loaded(tmp_path / "a.csv", frame("kind,price,zone", rows))
    assert {sum(e["input"]) for split in problem.splits.values() for e in split} <= {0.0, 1.0}
    assert problem.notes[0] == "table: 40 rows; 1 input column, 1 of them text"


def test_what_a_table_was_taken_for_is_said(tmp_path):
    text = frame(";kind;price;area;same", [(i, *row, 1) for i, row in enumerate(ROWS)]).replace(",", ";")
    problem = loaded(tmp_path / "a.csv", text.replace(".", ","))
    about, kind, price = problem.notes
    assert about == (
        "table: 40 rows split at ';'; 1 input column; decimal comma in 'area'; "
        "left out: the first column (no name, an index), 'same' (one value)"
    )
    assert kind == "kind: accuracy, 2 classes"
    assert re.fullmatch(r"price: RMSE in its own unit, loss in squared deviations of 1\d\.\d\d", price)


@pytest.mark.parametrize(
    ("kinds", "doubt"),
    [
        (["yes", "no", "Yes"], "3 classes, 'Yes' and 'yes' being two: write a class in one way"),
        ([f"{i}.5" for i in range(25)], "25 classes, all of them numbers: was --regress kind meant?"),
        (range(3), "3 classes"),
    ],
)
def test_classes_that_can_hardly_be_meant_are_said(tmp_path, kinds, doubt):
    rows = [(kinds[i % len(kinds)], i, i % 7) for i in range(200)]
    assert loaded(tmp_path / "a.csv", frame("kind,price,area", rows)).notes[1] == f"kind: accuracy, {doubt}"


def test_a_column_of_dates_is_refused_with_the_cure(tmp_path):
    rows = [("ab"[i % 2], i, f"{1800 + i}-05-03") for i in range(200)]
    with pytest.raises(ValueError, match=r"'1800-05-03' in line 2\): for a date give numbers"):
        loaded(tmp_path / "a.csv", frame("kind,price,day", rows))


@pytest.mark.parametrize("units", ["standard", "raw"])
def test_the_unit_of_a_regressed_column_is_no_part_of_the_loss_unless_it_is_asked_for(tmp_path, units):
    """A million times the numbers: the same loss, the score in the new unit."""
    losses, scores = [], []
    for i, scale in enumerate((1, 10**6)):
        text = frame("kind,price,area", [(k, p * scale, a) for k, p, a in ROWS])
        problem = loaded(tmp_path / f"{i}.csv", text, units=units)
        torch.manual_seed(0)
        model = problem.build()
        batch = problem.collate(problem.splits["train"])
        losses.append(model(batch["inputs"], batch["targets"]).losses["price"].item())
        scores.append(train.evaluate(model, problem, "test")["price"]["rmse"])
    assert scores[1] == pytest.approx(1e6 * scores[0], rel=1e-5)
    assert losses[1] == pytest.approx(losses[0] * (1 if units == "standard" else 1e12), rel=1e-5)
    if units == "standard":
        assert 0.5 < losses[0] < 2
