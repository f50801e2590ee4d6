"""Exported graphs compute what PyTorch does, whatever the batch size and the length, for every encoder."""

import numpy as np
import pytest
import torch

from mtlweights.cli import main
from mtlweights.problems import load
from mtlweights.problems.models import BiLSTM
from mtlweights.serve import TrainedModel, export
from mtlweights.serve.readings import read
from mtlweights.serve.recurrent import PaddedBiLSTM
from mtlweights.serve.runtimes import flat
from mtlweights.serve.samples import sample
from tests.serve import small

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(params=["table", "pair", "transformer", "frozen"])
def trained(request, tmp_path, monkeypatch, data_dir):
    """A model of each encoder; the BiLSTM is in two of them."""
    if request.param in ("table", "pair"):
        return small.model(request.param, tmp_path)
    monkeypatch.setenv("MTLWEIGHTS_CACHE", str(tmp_path / "cache"))
    own = "frozen,hidden=4" if request.param == "frozen" else "transformer,max_length=16"
    bert = small.bert(tmp_path / "bert")
    problem = load(f"conll:{small.column_file(tmp_path)}:ner=1,pos=2,encoder={own},model={bert}")
    return TrainedModel.from_problem(problem, problem.build())


def test_onnx_and_torch_export_are_pytorch(trained, tmp_path):
    assert export.export(trained, tmp_path / "out") < export.TOLERANCE
    exported = TrainedModel.from_pretrained(tmp_path / "out")
    assert export.difference(trained, exported, 200) < export.TOLERANCE
    with pytest.raises(ValueError, match="found an exported one"):
        _ = exported.module
    program = torch.export.load(tmp_path / "out" / export.PROGRAM).module()
    for n in (1, 5):
        given = [read(trained.kind, one, trained.features).input for one in sample(trained, n, seed=n)]
        inputs = trained.inputs(given)
        expected = trained.runtime(inputs)
        with torch.no_grad():
            outputs = program(*dict(flat(inputs)).values())
        for task, output in zip(trained.tasks, outputs, strict=True):
            np.testing.assert_allclose(output.numpy(), expected[task.name], atol=1e-4, rtol=1e-4)


def test_the_padded_bilstm_is_the_bilstm():
    """On its own operator, with empty sentences, for layers and features."""
    trained = BiLSTM(9, 7, hidden=3, layers=2, features=(2, 5), word_dim=4, char_dim=3, char_filters=4).eval()
    mask = torch.arange(6) < torch.tensor([[6], [1], [0], [3]])
    inputs = {"words": torch.randint(0, 9, (4, 6)) * mask, "mask": mask}
    inputs["chars"] = torch.randint(0, 7, (4, 6, 5)) * mask[..., None]
    inputs["features"] = torch.randn(4, 6, 2, 5) * mask[..., None, None]
    for one, other in zip(trained(inputs), PaddedBiLSTM(trained).eval()(inputs), strict=True):
        torch.testing.assert_close(one, other)


def test_a_graph_that_is_off_is_not_written(tmp_path, monkeypatch, capsys):
    folder = small.model("table", tmp_path).save_pretrained(tmp_path / "left")
    monkeypatch.setattr(export, "difference", lambda *args: 0.5)
    assert main(["export", str(folder)]) == 2
    assert "off by 0.5" in capsys.readouterr().err and not (tmp_path / "left-onnx").exists()
    assert main(["export", str(folder), "--out", str(folder)]) == 2


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch, capsys):
    folder = small.model("table", tmp_path).save_pretrained(tmp_path / "left")
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else True)
    assert main(["export", str(folder)]) == 2
    assert "pip install 'mtlweights[export]'" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["table sharing=ple,levels=2", "table training=staged", "training=cascaded"])
def test_a_form_of_sharing_over_a_table_and_a_cascade_are_exported(form, tmp_path):
    kind, _, option = form.rpartition(" ")
    spec = f"conll:{small.column_file(tmp_path)}:ner=1,pos=2"
    if kind == "table":
        spec = f"csv:{small.table_file(tmp_path)}:classify=dear,regress=price"
    problem = load(f"{spec},hidden=4,{option}")
    module = problem.build()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(3)  # so that what a head reads of another shows
    model = TrainedModel.from_problem(problem, module)
    assert export.export(model, tmp_path / "out") < export.TOLERANCE
    assert export.difference(model, TrainedModel.from_pretrained(tmp_path / "out"), 20) < export.TOLERANCE


@pytest.mark.parametrize(
    ("option", "said"),
    [("sharing=mmoe", "sharing=mmoe is exported over a table alone"), ("crf=true", "a CRF is")],
)
def test_what_is_not_exported_says_so(option, said, tmp_path):
    problem = load(f"conll:{small.column_file(tmp_path)}:ner=1,pos=2,hidden=4,{option}")
    model = TrainedModel.from_problem(problem, problem.build())
    with pytest.raises(ValueError, match=said):
        export.export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
