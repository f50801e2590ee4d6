"""A model's folder: what was saved is what is read, by this version and the next; damage is one line."""

import io
import json
import pickletools
import random
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from mtlweights.problems import load
from mtlweights.problems.models import FrozenInputs
from mtlweights.serve import TrainedModel
from mtlweights.serve import folder as folders
from tests.serve import small

FORMAT1 = Path(__file__).parent / "format1"


@pytest.fixture(params=["tagger", "table", "pair", "transformer", "pair transformer", "frozen"])
def trained(request, tmp_path, monkeypatch, data_dir):
    """A model of each encoder and its problem."""
    kind = request.param
    monkeypatch.setenv("MTLWEIGHTS_CACHE", str(tmp_path / "cache"))
    if kind in ("tagger", "table", "pair"):
        return small.model(kind, tmp_path), small.problem(kind, tmp_path)
    encoder = "frozen,hidden=4" if kind == "frozen" else "transformer"
    name = "sick" if kind.startswith("pair") else f"conll:{small.column_file(tmp_path)}"
    columns = "" if kind.startswith("pair") else ",ner=1,pos=2"
    problem = load(f"{name}:encoder={encoder},model={small.bert(tmp_path / 'bert')}{columns}")
    return TrainedModel.from_problem(problem, problem.build()), problem


def test_a_folder_holds_the_whole_model(trained, tmp_path):
    model, problem = trained
    again = TrainedModel.from_pretrained(model.save_pretrained(tmp_path / "left"))
    examples = [example["input"] for example in problem.splits["test"][:20]]
    examples = small.EXAMPLES["table"] if model.kind == "table" else examples
    assert again.predict(examples, batch_size=7) == model.predict(examples, batch_size=7)
    assert (again.tasks, again.kind, again.problem) == (model.tasks, model.kind, model.problem)
    again.save_pretrained(tmp_path / "twice")
    for file in (tmp_path / "left").glob("*.*"):
        if file.name != "config.json":  # holds the digest of what a tokenizer writes of its last call
            assert file.read_bytes() == (tmp_path / "twice" / file.name).read_bytes(), file.name


def test_frozen_features_are_those_of_training(tmp_path, monkeypatch):
    monkeypatch.setenv("MTLWEIGHTS_CACHE", str(tmp_path / "cache"))
    spec = f"conll:{small.column_file(tmp_path)}:ner=1,encoder=frozen,model={small.bert(tmp_path / 'bert')}"
    problem = load(spec)
    assert isinstance(problem.inputs, FrozenInputs)
    module = problem.build().eval()
    model = TrainedModel.from_problem(problem, module)
    words = [example["input"] for example in problem.splits["dev"]]
    expected = module(problem.inputs(words)).outputs["ner"]
    torch.testing.assert_close(torch.tensor(model.runtime(model.inputs(words))["ner"]), expected)


SHARED = [("tagger", "task_dependent"), ("tagger", "ple"), ("tagger", "joint"), ("table", "mmoe")]
SHARED += [("table", "cross_stitch"), ("table", "mtan"), ("transformer", "mmoe"), ("pair", "mmoe")]


FROZEN = [("frozen", "joint"), ("frozen", "ple"), ("frozen", "agnostic,training=cascaded")]
CHAINS = [("tagger", "agnostic,training=cascaded"), ("table", "agnostic,training=staged")]


@pytest.mark.parametrize(("kind", "form"), [*SHARED, *FROZEN, *CHAINS, ("tagger", "agnostic,crf=true")])
def test_a_folder_holds_the_form_of_sharing(kind, form, tmp_path, monkeypatch, request):
    monkeypatch.setenv("MTLWEIGHTS_CACHE", str(tmp_path / "cache"))
    if kind == "pair":
        request.getfixturevalue("data_dir")
    own = {"frozen": f"encoder=frozen,hidden=4,model={small.bert(tmp_path / 'bert')}"}
    own["transformer"] = f"encoder=transformer,model={tmp_path / 'bert'}"
    spec = {"table": f"csv:{small.table_file(tmp_path)}:classify=dear,regress=price", "pair": "sick:hidden=4"}
    text = f"conll:{small.column_file(tmp_path)}:ner=1,pos=2,{own.get(kind, 'hidden=4')}"
    problem = load(f"{spec.get(kind, text)},sharing={form}")
    model = TrainedModel.from_problem(problem, problem.build())
    again = TrainedModel.from_pretrained(model.save_pretrained(tmp_path / "left"))
    examples = [example["input"] for example in problem.splits["test"][:6]]
    examples = small.EXAMPLES["table"] if kind == "table" else examples
    assert again.predict(examples) == model.predict(examples)
    assert [*again.module.state_dict()] == [*model.module.state_dict()]
    assert getattr(again.module, "order", ()) == problem.cascade
    assert getattr(again.module, "detach", False) == problem.staged
    config = json.loads((tmp_path / "left" / "config.json").read_text())
    assert config["format"] == 1 + bool(problem.cascade), "versions before cascades read the others"


@pytest.mark.parametrize("kind", ["text", "mmoe", "pair"])
def test_low_rank_changes_leave_as_part_of_the_weights(kind, tmp_path, request):
    pytest.importorskip("peft")
    if kind == "pair":
        request.getfixturevalue("data_dir")
    name = "sick:" if kind == "pair" else f"conll:{small.column_file(tmp_path)}:ner=1,pos=2,"
    form = ",sharing=mmoe,experts=2" if kind == "mmoe" else ""
    problem = load(f"{name}encoder=transformer,model={small.bert(tmp_path / 'bert')},lora=2{form}")
    module = problem.build().eval()
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            if "lora_" in key:  # B is zero at the start
                parameter.normal_(std=0.3)
    model = TrainedModel.from_problem(problem, module)
    inputs = problem.collate(problem.splits["test"][:6])["inputs"]
    expected = module(inputs).outputs
    for task, found in model.runtime(inputs).items():
        torch.testing.assert_close(torch.tensor(found), expected[task].detach(), rtol=1e-4, atol=1e-5)
    assert not any("lora_" in key for key in model.module.state_dict())
    assert any("lora_" in key for key in module.state_dict()), "what was trained stays as it was"
    again = TrainedModel.from_pretrained(model.save_pretrained(tmp_path / "left"))
    examples = [example["input"] for example in problem.splits["test"][:6]]
    assert again.predict(examples) == model.predict(examples)


@pytest.mark.parametrize("kind", ["tagger", "table"])
def test_folders_of_format_1_are_read(kind):
    model = TrainedModel.from_pretrained(FORMAT1 / kind)
    expected = json.loads((FORMAT1 / f"{kind}.json").read_text(encoding="utf-8"))
    assert_alike(model.predict(small.EXAMPLES[kind]), expected)


def assert_alike(found, expected):
    """The same but for rounding."""
    assert type(found) is type(expected)
    if isinstance(found, dict):
        assert found.keys() == expected.keys()
        for key in found:
            assert_alike(found[key], expected[key])
    elif isinstance(found, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_alike(one, other)
    else:
        assert found == (
            pytest.approx(expected, rel=1e-4, abs=1e-5) if isinstance(found, float) else expected
        )


def test_no_file_is_a_pickle_or_an_archive():
    for path in FORMAT1.rglob("*"):
        if path.is_file():
            assert not zipfile.is_zipfile(path)
            with pytest.raises(ValueError):
                pickletools.dis(path.read_bytes(), out=io.StringIO())


def test_the_card_says_what_is_known(tmp_path):
    model = small.model("table", tmp_path)
    scores = {"dev": 0.5, "test": 0.4, "mean": 0.45, "half": 0.1, "seeds": 3}
    model.about = {"strategy": "uw:weight_lr=0.1", "examples": {"train": 56}, "notes": ["a <b> | c"]}
    model.about["scores"] = {"dear": {"accuracy": scores}}
    text = (model.save_pretrained(tmp_path / "left") / "README.md").read_text(encoding="utf-8")
    for part in ("uw:weight", "56 train", "a &lt;b&gt; \\| c", "0.4500 ± 0.1000 (95 %, 3 seeds)", "house"):
        assert part in text, part
    assert text.startswith("---\nlibrary_name: mtlweights\n")


@pytest.mark.parametrize("kind", ["tagger", "table"])
def test_damage_is_one_line(kind, tmp_path):
    """Every file cut, flipped, emptied or gone; and a configuration of any other content."""
    draw = random.Random(0)
    files = {path.name: path.read_bytes() for path in (FORMAT1 / kind).iterdir() if path.name != "README.md"}
    for i in range(60):
        shutil.copytree(FORMAT1 / kind, tmp_path / str(i))
        name = draw.choice(sorted(files))
        content = bytearray(files[name])
        at, how = draw.randrange(len(content)), draw.choice(["cut", "flip", "empty", "gone"])
        if how == "flip":
            content[at] ^= 1 << draw.randrange(8)
        path = tmp_path / str(i) / name
        path.write_bytes(content[:at] if how == "cut" else b"" if how == "empty" else content)
        if how == "gone":
            path.unlink()
        try:
            TrainedModel.from_pretrained(tmp_path / str(i))
        except (ValueError, FileNotFoundError) as error:
            assert "\n" not in str(error) and len(str(error)) < 500
            assert "damaged" in str(error) or "no " in str(error) or "format" in str(error)
        else:
            assert how == "flip" and name == "config.json"  # a number or a name may be another one


def edited(folder, change):
    """The folder with a changed configuration."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    change(config)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


CHANGES = {
    "newer": (
        lambda c: c.update(format=3, mtlweights="9.0"),
        r"of format 3, written by mtlweights 9\.0; .* -U mtlweights",
    ),
    "other": (lambda c: c.pop("mtlweights"), "no model folder of mtlweights"),
    "outside": (lambda c: c["files"].update({"../x": "0"}), "outside the folder"),
    "encoder": (lambda c: c["encoder"].update(type="gpt"), "there is no encoder 'gpt'"),
    "shape": (lambda c: c["encoder"].update(hidden=9), "size mismatch"),
    "task": (lambda c: c["tasks"][0].update(labels=["O"]), "two or more labels"),
    "lacks": (lambda c: c.pop("tasks"), "lacks tasks"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_folder_that_does_not_fit_is_refused(name, tmp_path):
    folder = Path(shutil.copytree(FORMAT1 / "tagger", tmp_path / "model"))
    change, message = CHANGES[name]
    edited(folder, change)
    with pytest.raises(ValueError, match=message) as caught:
        TrainedModel.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_what_a_folder_cannot_hold_is_refused():
    problem = load("toy")
    with pytest.raises(ValueError, match="found Loss for 'l1'"):
        TrainedModel.from_problem(problem, problem.build())
    with pytest.raises(ValueError, match="expected a MultiTaskModel, found Linear"):
        TrainedModel.from_problem(problem, torch.nn.Linear(1, 1))


def test_a_killed_writer_leaves_a_folder_that_is_refused(tmp_path, monkeypatch):
    """Another model's weights under the old configuration do not pass for a model."""
    folder = small.model("table", tmp_path).save_pretrained(tmp_path / "left")
    other = small.model("table", tmp_path)
    with torch.no_grad():
        next(other.module.parameters()).add_(1)
    monkeypatch.setattr(folders.json, "dumps", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        other.save_pretrained(folder)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="safetensors is not as it was written"):
        TrainedModel.from_pretrained(folder)


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match=r"safetensors: pip install 'mtlweights\[serve\]'"):
        TrainedModel.from_pretrained(FORMAT1 / "table")
