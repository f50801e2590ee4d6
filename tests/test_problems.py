"""Problems: the built-in ones, and those from a user's own files."""

import math
import pickle
from types import SimpleNamespace

import pytest
import torch

from mtlweights import Balancer, data, train
from mtlweights.data import Problem, builtin
from mtlweights.tasks import Task


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
    assert name in data.problems()
    problem = data.load(name)
    assert problem.name == name
    check_problem(problem)


def test_breast_cancer_has_no_target_among_its_inputs():
    problem = data.load("breast_cancer")
    rows = [example for split in problem.splits.values() for example in split]
    assert len(rows) == 569
    x = torch.tensor([row["input"] for row in rows], dtype=torch.float64)
    y = torch.tensor([row["targets"]["radius"] for row in rows], dtype=torch.float64)
    assert x.shape == (569, 20)
    correlation = torch.corrcoef(torch.cat([x, y[:, None]], 1).T)[-1, :-1]
    assert correlation.abs().max() < 0.98


def test_tagging_is_learned_but_not_to_the_end():
    problem = data.load("tagging")
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
        data.load(spec)
    assert "\n" not in str(caught.value)


def test_options_reach_the_encoder():
    problem = data.load("tagging:hidden=8,dropout=0")
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
    problem = data.load("tweebank")
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
    problem = data.load("sick")
    assert [len(problem.splits[part]) for part in ("train", "dev", "test")] == [4500, 500, 4927]
    entailment, relatedness = problem.tasks
    assert entailment.labels == ("CONTRADICTION", "ENTAILMENT", "NEUTRAL")
    assert relatedness.metrics == ("pearson", "rmse")
    first = problem.splits["test"][0]
    assert first["input"][0][:3] == ["There", "is", "no"]
    assert first["targets"] == {"entailment": 2, "relatedness": 3.3}
    check_problem(problem)


def test_abalone(data_dir):
    problem = data.load("abalone")
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
    problem = data.load(f"conll:{conllu}", tokens="form", tags={"ner": "4", "pos": "upos"})
    assert [len(problem.splits[part]) for part in ("train", "dev", "test")] == [32, 4, 4]
    assert sorted(example["input"] for s in problem.splits.values() for example in s) == sorted(
        [f"Bob{i}", "runs"] for i in range(40)
    )
    ner, pos = problem.tasks
    assert (ner.metrics, pos.metrics) == (("span_f1",), ("accuracy",))
    check_problem(problem)
    again = data.load(problem.name)  # the name says it all
    assert again.tasks == problem.tasks and again.splits == problem.splits
    assert data.load(f"conll:{conllu}:ner=4,pos=upos").splits == problem.splits


def test_own_sentences_from_a_folder_and_missing_labels(tmp_path):
    for part, labels in [("train", "N _ V"), ("dev", "N V V"), ("test", "N V ADJ")]:
        rows = [f"w{i}\t{label}\n" for i, label in enumerate(labels.split())]
        (tmp_path / f"my-{part}.tsv").write_text("".join(rows), "utf-8")
    problem = data.load(f"conll:{tmp_path}:pos=1,hidden=4")
    assert problem.tasks[0].labels == ("ADJ", "N", "V")
    assert problem.splits["train"] == [{"input": ["w0", "w1", "w2"], "targets": {"pos": [1, -100, 2]}}]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "expected tags, a column for each task"),
        ({"tags": {"pos": "upso"}}, r"no column 'upso'; did you mean 'upos'\? known: id, form"),
        ({"tags": {"pos": "10"}}, "no column '10'"),
        ({"tags": {"pos": "upos"}, "tokens": "word"}, "no column 'word'"),
        ({"tags": {"pos": "deps"}}, "column deps: task 'pos' expects two labels or more, found none"),
        ({"tags": {"pos": "upos"}, "encoder": "bert"}, "no encoder 'bert'"),
    ],
)
def test_wrong_columns_of_sentences_are_refused(conllu, columns, message):
    with pytest.raises(ValueError, match=message) as caught:
        data.load(f"conll:{conllu}", **columns)
    assert str(conllu) in str(caught.value) and "\n" not in str(caught.value)


def test_own_sentences_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        data.load(f"conll:{tmp_path / 'nowhere'}:pos=1")
    with pytest.raises(ValueError, match="one file with 'train' in its name, found none"):
        data.load(f"conll:{tmp_path}:pos=1")
    (tmp_path / "few.txt").write_text("a X\nb Y\n\n", "utf-8")
    with pytest.raises(ValueError, match="at least 20 sentences to split, found 1"):
        data.load(f"conll:{tmp_path / 'few.txt'}:pos=1")


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
    problem = data.load(spec, classify=["kind"], regress=["price"], ignore="id")
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
    assert data.load(problem.name).splits == problem.splits
    assert data.load(f"{spec}:classify=kind,regress=price,ignore=id").splits == problem.splits


def test_a_category_that_training_does_not_have_sets_no_column(tmp_path):
    spec = write_csv(tmp_path / "a.csv")
    (example, *_) = data.load(spec, regress="price", ignore=["id", "size", "kind"]).splits["test"]
    odd = f"{example['targets']['price']:.0f}"

    def change(row):
        row.colour = "green" if row.price == odd else row.colour

    spec = write_csv(tmp_path / "a.csv", change)
    (example, *_) = data.load(spec, regress="price", ignore=["id", "size", "kind"]).splits["test"]
    assert example == {"input": [0.0, 0.0], "targets": {"price": float(odd)}}


def test_missing_cells_of_a_table(tmp_path):
    def change(row):
        if int(row.price) % 5 == 0:
            row.size, row.colour, row.kind = "NA", "", "?"

    spec = write_csv(tmp_path / "a.csv", change)
    problem = data.load(f"{spec}:classify=kind,ignore=[id,price]")
    rows = [example for split in problem.splits.values() for example in split]
    bare = [row for row in rows if row["targets"]["kind"] is None]
    known = [row["input"][0] for row in problem.splits["train"] if row["targets"]["kind"] is not None]
    assert len(bare) == 8
    for row in bare:
        assert row["input"] == pytest.approx([sum(known) / len(known), 1, 0, 0])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "different columns in classify and regress, found none"),
        ({"classify": "kind", "regress": "kind"}, "different columns in classify and regress"),
        ({"classify": "knd"}, r"no column 'knd'; did you mean 'kind'\? known: id, size"),
        ({"regress": "colour"}, "column 'colour' should hold numbers to be regressed, found '(red|blue)'"),
        ({"regress": "same"}, "'same' expects different numbers in the training split, found only 1"),
        ({"classify": "same"}, "'same' expects two labels or more, found 1"),
        ({"classify": "kind", "ignore": ["id", "size", "colour", "price"]}, "no input column is left"),
        ({"classify": "kind", "hiden": 3}, "no option 'hiden'; did you mean 'hidden'"),
    ],
)
def test_wrong_columns_of_a_table_are_refused(tmp_path, columns, message):
    spec = write_csv(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=message) as caught:
        data.load(spec, **columns)
    assert "a.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_tables_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        data.load(f"csv:{tmp_path / 'nowhere.csv'}:classify=kind")
    (tmp_path / "few.csv").write_text("kind,x\na,1\nb,2\n", "utf-8")
    with pytest.raises(ValueError, match="at least 20 rows to split, found 2"):
        data.load(f"csv:{tmp_path / 'few.csv'}:classify=kind")
    rows = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(200))
    (tmp_path / "text.csv").write_text("words,kind\n" + rows, "utf-8")
    with pytest.raises(ValueError, match=r"column 'words' has 140 different values.*ignore=words"):
        data.load(f"csv:{tmp_path / 'text.csv'}:classify=kind")
