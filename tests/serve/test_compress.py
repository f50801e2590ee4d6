"""Smaller models: what goes is what does least, what stays computes the same; and what it costs."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from mtlweights.cli import main
from mtlweights.problems import Task, load
from mtlweights.problems.models import MLP, BiLSTM, CascadedModel, MultiTaskModel, Pair, Transformer
from mtlweights.serve import TrainedModel
from mtlweights.serve.architecture import describe_encoder
from mtlweights.serve.compress.halve import halve
from mtlweights.serve.compress.prune import blocks, prune
from mtlweights.serve.compress.quality import qualities, scores
from tests.serve import small

TAG, CLASS = (Task(kind, kind, ("accuracy",), ("a", "b")) for kind in ("tokens", "classification"))
WORDS = {
    "words": torch.tensor([[2, 3, 4], [5, 0, 0]]),
    "mask": torch.tensor([[True] * 3, [True, False, False]]),
}
WORDS["chars"] = torch.tensor([[[1, 2], [3, 0], [4, 4]], [[2, 0], [0, 0], [0, 0]]])


def bilstm(layers=2):
    return BiLSTM(9, 6, word_dim=3, char_dim=3, char_filters=3, hidden=6, layers=layers, features=(2, 4))


def lstm_without(lstm, units):
    """No weight into these units, nor out of them within the LSTM; of the other direction the other units."""
    others = [unit for unit in range(6) if unit not in units]
    for name, value in lstm.named_parameters():
        own = others if name.endswith("_reverse") else units
        value.view(4, 6, -1)[:, own] = 0
        if "weight_hh" in name:
            value[:, own] = 0


def bert(tmp_path):
    return Transformer(str(small.bert(tmp_path / "bert")))


@pytest.mark.parametrize("kind", ["bilstm", "cascade", "pair", "mlp", "transformer"])
def test_pruning_units_that_do_nothing_changes_nothing(kind, tmp_path):
    inputs, encoder = {**WORDS, "features": torch.randn(2, 3, 2, 4)}, bilstm()
    dead = [1, 4, 5]
    with torch.no_grad():
        if kind in ("bilstm", "cascade", "pair"):
            lstm_without(encoder.lstm, dead)
        if kind == "pair":
            encoder, inputs = Pair(encoder), {"a": inputs, "b": inputs}
        elif kind == "mlp":
            encoder, inputs = MLP(3, (6, 6)), {"x": torch.randn(4, 3)}
            for layer in encoder.layers[::3]:
                layer.weight[dead] = layer.bias[dead] = 0
        elif kind == "transformer":
            encoder = bert(tmp_path)
            ids = torch.randint(5, 30, (2, 6))
            inputs = {
                "input_ids": ids,
                "attention_mask": torch.ones_like(ids),
                **WORDS,
                "first": WORDS["words"],
            }
            for block in blocks(encoder.model):
                block.output.dense.weight[:, 8:] = 0
                block.intermediate.dense.weight[8:] = 0
    tasks = [TAG, CLASS] if encoder.token_dim else [CLASS]
    model = MultiTaskModel(encoder, tasks).eval()
    if kind == "cascade":
        model = CascadedModel(encoder, tasks, [task.name for task in tasks]).eval()
    pruned = prune(model, 0.5).eval()
    before, after = model(inputs).outputs, pruned(inputs).outputs
    for task in tasks:
        torch.testing.assert_close(after[task.name], before[task.name])
    sizes = [sum(p.numel() for p in m.parameters()) for m in (model, pruned)]
    assert sizes[1] < sizes[0]
    if kind == "bilstm":
        assert describe_encoder(pruned.encoder)["hidden"] == 3


def test_halving_keeps_every_other_block_or_the_lower_layers(tmp_path):
    encoder = bert(tmp_path)
    first = blocks(encoder.model)[0].intermediate.dense.weight
    half = halve(MultiTaskModel(encoder, [TAG])).encoder
    assert len(blocks(half.model)) == half.model.config.num_hidden_layers == 1
    torch.testing.assert_close(blocks(half.model)[0].intermediate.dense.weight, first)
    assert len(blocks(encoder.model)) == 2
    half = halve(MultiTaskModel(bilstm(4), [TAG])).encoder
    assert half.lstm.num_layers == 2
    assert halve(MultiTaskModel(bilstm(1), [TAG])) is None
    x, mlp = torch.randn(4, 3), MLP(3, (6, 6, 6))
    half = halve(MultiTaskModel(mlp, [CLASS])).encoder
    torch.testing.assert_close(half.layers(x), mlp.layers[:6](x))
    with pytest.raises(ValueError, match="layers of one width"):
        halve(MultiTaskModel(MLP(3, (4, 6)), [CLASS]))
    with pytest.raises(ValueError, match="between 0 and 1"):
        prune(MultiTaskModel(mlp, [CLASS]), 1.0)


def test_the_interval_of_a_difference_is_that_of_its_mean():
    """Accuracies are means: a jackknife over groups of one size gives the t interval of the groups' means."""
    draw = np.random.default_rng(0)
    labels = torch.from_numpy(draw.integers(0, 2, 400))
    right, better = (torch.from_numpy(draw.random(400) < share) for share in (0.6, 0.8))

    def outputs(hits):
        found = torch.where(hits, labels, 1 - labels)
        rows = nn.functional.one_hot(found, 2).float()
        return {"classification": [(rows[i : i + 1], labels[i : i + 1]) for i in range(400)]}

    own, other = scores([CLASS], outputs(better)), scores([CLASS], outputs(right))
    found = qualities(own, other)["classification"]
    difference = (better.double() - right.double()).numpy()
    means = np.array([difference[i::10].mean() for i in range(10)])
    assert found.score == pytest.approx(better.double().mean())
    assert found.difference == pytest.approx(difference.mean())
    assert found.half == pytest.approx(2.262 * means.std(ddof=1) / np.sqrt(10), rel=1e-3)
    same = qualities(own, own)["classification"]
    assert same.difference == same.half == 0


def test_every_way_is_a_folder_that_answers_and_a_line_of_the_table(tmp_path, capsys):
    path = small.table_file(tmp_path)
    spec = ["--classify", "dear", "--regress", "price", "--epochs", "8", "--device", "cpu", "--out", "run"]
    run = tmp_path / "run"
    assert main(["train", f"csv:{path}", "-s", "uw", *spec[:-1], str(run)]) == 0
    assert main(["compress", str(run / "model"), "--epochs", "1"]) == 0
    shown = capsys.readouterr().out
    out = run / "model-small"
    rows = {row["name"]: row for row in json.loads((out / "table.json").read_text())}
    assert set(rows) - {"torchao"} == {"pytorch", "onnx", "int8", "pruned", "half"}
    assert rows["onnx"]["quality"]["dear"]["difference"] == 0
    given = small.EXAMPLES["table"]
    whole = TrainedModel.from_pretrained(run / "model").predict(given)
    ways = re.findall(r"(?m)^(\w+) \.\.\.$", shown)
    assert ways == ["onnx", "int8", "torchao", "pruned", "half"]
    for way in ways:  # a row, or why not
        assert (way in rows) != (f"{way} is left out: " in shown)
    for name in ("onnx", "int8", "pruned", "half"):
        model = TrainedModel.from_pretrained(out / name)
        assert len(model.predict(given)) == 3 and f"| {name} |" in (out / "README.md").read_text()
        assert name in shown
    close = TrainedModel.from_pretrained(out / "int8").predict(given)
    assert [one["dear"]["label"] for one in close] == [one["dear"]["label"] for one in whole]
    assert "fine-tuned for 1 epochs under uw" in (out / "half" / "README.md").read_text()


def test_other_data_are_refused(tmp_path, capsys):
    model = small.model("table", tmp_path)
    model.about["data"] = "0" * 32
    folder = model.save_pretrained(tmp_path / "left")
    assert main(["compress", str(folder)]) == 2
    assert "its data or labels changed" in capsys.readouterr().err
    assert main(["compress", str(folder), "--ways", "int4"]) == 2
    assert "there is no way 'int4'" in capsys.readouterr().err


def test_frozen_features_are_pruned_without_their_transformer(tmp_path, monkeypatch):
    from mtlweights.serve.compress.ways import _trainable

    monkeypatch.setenv("MTLWEIGHTS_CACHE", str(tmp_path / "cache"))
    spec = f"conll:{small.column_file(tmp_path)}:ner=1,encoder=frozen,model={small.bert(tmp_path / 'bert')}"
    problem = load(spec)
    model = TrainedModel.from_problem(problem, problem.build())
    inner = prune(_trainable(model), 0.5)
    assert isinstance(inner.encoder, BiLSTM)
    again = TrainedModel.from_problem(problem, inner)
    assert again.encoder["encoder"]["hidden"] == model.encoder["encoder"]["hidden"] // 2
    assert len(again.predict([["Ada"], []])) == 2
