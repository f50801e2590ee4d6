"""What is measured of a model, against the same by hand, and that measuring leaves the run as it was."""

import json
import math

import numpy as np
import pytest
import torch
from test_extras import words
from test_resume import Stop, outcome, stopping
from test_train import CPU, pair, toy

from mtlweights import Balancer
from mtlweights.problems.models.groups import group_of
from mtlweights.train import fit
from mtlweights.train.understanding import TaskTrace, attributions, project
from mtlweights.train.understood import Understanding, states_of, words_of


def test_a_run_is_the_same_with_a_trace():
    problem, found = words(), []
    for traced in (False, True):
        model, balancer = pair(problem, "uw")
        trace = TaskTrace(model, problem, rows=8)
        after = {"after_epoch": trace} if traced else {}
        found.append(outcome(model, balancer, fit(model, balancer, problem, CPU, progress=False, **after)))
    assert found[0] == found[1] and trace.epochs == [1, 2, 3] and len(trace.affinity) == 3


def test_a_run_that_goes_on_goes_on_with_its_trace(tmp_path):
    pytest.importorskip("captum", reason="the extra [understand] is not installed")
    problem = words()

    def run(name, kind=Balancer):
        model, balancer = pair(problem, "uw", kind=kind)
        looking = Understanding(model, problem, tmp_path / name)
        fit(model, balancer, problem, CPU, progress=False, folder=tmp_path / name, after_epoch=looking)
        return json.loads(looking.end(model).read_text())

    whole = run("whole")
    with pytest.raises(Stop):
        run("parts", stopping(3))
    assert run("parts") == whole
    assert whole["epochs"] == [1, 2, 3] and {len(rows) for rows in whole["norms"].values()} == {3}
    assert [each["task"] for each in whole["words"]] == ["pos", "kind"]
    assert all(len(each["values"]) == len(each["sentence"]) for each in whole["words"])
    kinds = [("a", "b")[e["targets"]["kind"]] for e in problem.splits["test"]]
    assert (whole["states"]["title"], whole["states"]["groups"]) == ("kind", kinds)


def test_norms_and_cosines_are_those_of_a_layer():
    problem = toy(dropout=0.5)
    model, _ = pair(problem)
    trace = TaskTrace(model, problem, rows=16)
    trace(type("History", (), {"rows": [1]}))
    model.eval()
    losses = model(trace.batch["inputs"], trace.batch["targets"]).losses
    layer = [*model.encoder.layers[0].parameters()]
    a, b = (
        torch.cat([g.flatten() for g in torch.autograd.grad(losses[t], layer, retain_graph=True)])
        for t in ("colour", "size")
    )
    assert trace.norms["encoder.layers.0"][0] == pytest.approx([float(a.norm()), float(b.norm())])
    expected = float(torch.cosine_similarity(a, b, 0))
    assert trace.cosines["encoder.layers.0"][0][0] == pytest.approx([1, expected], abs=1e-5)
    own = trace.cosines["heads.colour"][0]
    assert own[0][0] == pytest.approx(1) and math.isnan(own[0][1])


def test_affinity_is_what_a_step_of_the_encoder_takes_away():
    problem = toy(dropout=0.0)
    model, _ = pair(problem)
    trace = TaskTrace(model, problem, rows=16, lr=0.1)
    trace(type("History", (), {"rows": [1]}))

    def losses():
        found = model(trace.batch["inputs"], trace.batch["targets"]).losses
        return [found["colour"], found["size"]]

    before, layers = losses(), [*model.encoder.parameters()]
    rows = torch.autograd.grad(before[1], layers, retain_graph=True)
    with torch.no_grad():
        for p, row in zip(layers, rows, strict=True):
            p -= 0.1 * row
    expected = [float(1 - after.detach() / was.detach()) for after, was in zip(losses(), before, strict=True)]
    assert trace.affinity[0][1] == pytest.approx(expected, abs=1e-5) and expected[1] > 0


def test_attributions_sum_to_what_the_words_change():
    pytest.importorskip("captum", reason="the extra [understand] is not installed")
    problem = words()
    model, _ = pair(problem)
    sentence = ["run0", "dog1", "run2"]
    for task, word in (("pos", 1), ("kind", None)):
        label, values = attributions(model, problem, sentence, task, word, steps=200)
        inputs = problem.inputs([sentence])
        model.eval()
        with torch.no_grad():
            k = {"pos": ("N", "V"), "kind": ("a", "b")}[task].index(label)
            full = model(inputs).outputs[task]
            none = model({**inputs, "words": torch.zeros_like(inputs["words"])}).outputs[task]
        change = (full - none)[0, word, k] if word is not None else (full - none)[0, k]
        assert len(values) == 3 and sum(values) == pytest.approx(float(change), abs=2e-3)
        assert max(map(abs, values)) > 1e-6
    first, second = (attributions(model, problem, sentence, "pos", word)[1] for word in (0, 1))
    assert first != pytest.approx(second, rel=1e-3)


def test_projection_keeps_the_most_spread():
    problem = toy()
    model, _ = pair(problem)
    points = project(model, problem, "dev")
    assert points.shape == (40, 2) and np.allclose(points.mean(0), 0, atol=1e-6)
    assert points[:, 0].var() >= points[:, 1].var() > 0


def test_looking_draws_no_dropout_and_leaves_the_mode():
    problem = toy(dropout=0.5)
    model, _ = pair(problem)
    model.train()
    assert np.array_equal(project(model, problem), project(model, problem))
    TaskTrace(model, problem, rows=16)(type("History", (), {"rows": [1]}))
    assert model.training and model.encoder.training


def test_the_sentence_is_the_one_with_most_labels_and_the_word_a_rare_one():
    pytest.importorskip("captum", reason="the extra [understand] is not installed")
    problem = words()
    tagged = [[0, 0, 0, 0], [0, 1, 0], [0]]
    rows = [{"input": ["dog0"] * len(tags), "targets": {"pos": tags, "kind": 0}} for tags in tagged]
    problem.splits["test"][:] = rows
    pos, kind = words_of(pair(problem)[0], problem)
    assert (len(pos["sentence"]), pos["word"]) == (3, 1)
    assert (len(kind["sentence"]), kind["word"]) == (4, None)


def test_states_are_grouped_by_the_mean_of_a_number():
    problem = toy().only("size")
    found = states_of(pair(problem)[0], problem)
    high = [e["targets"]["size"] > problem.tasks[0].mean for e in problem.splits["test"]]
    assert [group.startswith("above") for group in found["groups"]] == high and found["title"] == "size"


def test_layers_by_name():
    names = {
        "model.encoder.layer.3.attention.self.query.weight": "model.encoder.layer.3",
        "model.embeddings.word_embeddings.weight": "model.embeddings",
        "lstm.weight_ih_l1_reverse": "lstm.1",
        "words.weight": "words",
        "x": "x",
    }
    assert {name: group_of(name) for name in names} == names


@pytest.mark.parametrize(
    ("task", "word", "message"),
    [
        ("poss", None, r"a task with labels \(pos, kind\), found 'poss'"),
        ("pos", 3, "from 0 to 1, whose label"),
    ],
)
def test_refused(task, word, message):
    pytest.importorskip("captum", reason="the extra [understand] is not installed")
    model, _ = pair(words())
    with pytest.raises(ValueError, match=message):
        attributions(model, words(), ["run0", "dog1"], task, word)
