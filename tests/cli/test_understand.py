"""What a trained model has learnt, from the command to the figures of its page."""

import json

import pytest

from mtlweights.cli import main
from mtlweights.train.understood import FILE
from tests.serve import small

pytest.importorskip("captum", reason="the extra [understand] is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run that was looked at, and beside it the same run without."""
    path = tmp_path_factory.mktemp("runs")
    problem = f"conll:{small.column_file(path)}:ner=1,pos=2,hidden=4"
    for name, more in (("seen", ["--understand"]), ("bare", [])):
        out = ["--epochs", "2", "--device", "cpu", "--out", str(path / name), *more]
        assert main(["train", problem, "-s", "equal", *out]) == 0
    return path


def test_looking_leaves_the_run_as_it_was(folder):
    (seen, bare) = (
        [
            [row["dev"], row["weight"], row["score"]]
            for path in (folder / name / "runs").glob("*.json")
            for row in json.loads(path.read_text())["history"]
        ]
        for name in ("seen", "bare")
    )
    assert len(seen) == 2 and seen == bare and not (folder / "bare" / FILE).exists()


def test_each_of_the_four_is_a_figure_of_the_page(folder, capsys):
    assert main(["report", str(folder / "seen")]) == 0
    page = (folder / "seen" / "page.html").read_text()
    assert "What the model has learnt" in page and "<image" not in page, "the page loads no image"
    names = "\n".join(path.name for path in (folder / "seen" / "figures").iterdir())
    for part in ("Cosine of the gradients of ner and pos", "Which task helps which", "States of the encoder"):
        assert part in page and part.replace(" ", "-").lower() in names.lower(), names
    assert "mathdefault" not in page, "a formula that the page does not show"
    assert page.count('name">What each word adds to') == 2
    assert "Length of the gradients in encoder.words" in page
    assert main(["report", str(folder / "bare")]) == 0
    assert "What the model has learnt" not in (folder / "bare" / "page.html").read_text()


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.pop("norms"),
        lambda found: found["epochs"].append(3),
        lambda found: found["states"]["points"].pop(),
        lambda found: found["words"][0]["values"].pop(),
        lambda found: found["words"][0].update(word=99),
    ],
)
def test_a_file_that_holds_something_else_is_one_line(folder, change, tmp_path, capsys):
    found = json.loads((folder / "seen" / FILE).read_text())
    change(found)
    (tmp_path / FILE).write_text(json.dumps(found))
    from mtlweights.bench.report.understood import understood

    with pytest.raises(ValueError, match="is no record of what a model has learnt") as caught:
        understood(tmp_path)
    assert "\n" not in str(caught.value)
