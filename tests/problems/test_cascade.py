"""A cascade: what is read of an earlier head, and which parameters serve which loss."""

from dataclasses import replace

import pytest
import torch

from mtlweights import Balancer, strategies
from mtlweights.problems import Problem, load
from mtlweights.problems.models import MLP, BiLSTM, CascadedModel, WordInputs
from mtlweights.problems.variants import varied
from tests.problems.test_models import ALL, KIND, SENTENCES, SIZE, SPANS, TAGS

ORDER = ("pos", "kind", "size", "ner")
INPUTS = WordInputs.fit(SENTENCES)
TARGETS = {
    "pos": torch.tensor([[0, 1, 2, -100, -100, -100, -100], [0, 1, *[-100] * 5], [2, 1, 0, 0, 1, 2, 0]]),
    "ner": torch.tensor([[0, 1, 2, -100, -100, -100, -100], [0, 1, *[-100] * 5], [0, 1, 0, 0, 1, 2, 0]]),
    "kind": torch.tensor([0, 1, 1]),
    "size": torch.tensor([3.0, 6.0, 8.0]),
}


def cascade(tasks=ALL, order=ORDER, **options):
    torch.manual_seed(0)
    encoder = BiLSTM(
        INPUTS.n_words,
        INPUTS.n_chars,
        word_dim=4,
        char_dim=3,
        char_filters=4,
        hidden=4,
        dropout=0,
        word_dropout=0,
    )
    return CascadedModel(encoder, tasks, order, **options)


def losses(model, *names):
    return model(INPUTS(SENTENCES[:3]), {name: TARGETS[name] for name in names}).losses


def reach(model, task):
    """What of the model beside its encoder a task's loss alone gives a gradient."""
    model.zero_grad()
    losses(model, task)[task].backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and "encoder" not in name}


def test_a_head_reads_all_heads_before_it_and_none_behind():
    model = cascade()
    heads = [{f"heads.{name}.output.{w}" for w in ("weight", "bias")} for name in ORDER]
    labels = [f"labels.{k}.weight" for k in range(3)]
    for place, name in enumerate(ORDER):
        assert reach(model, name) == set().union(*heads[: place + 1], labels[:place])


def test_detached_a_head_learns_from_its_own_loss_alone():
    model = cascade(detach=True)
    for place, name in enumerate(ORDER):
        own = {f"heads.{name}.output.{w}" for w in ("weight", "bias")}
        assert reach(model, name) == own | {f"labels.{k}.weight" for k in range(place)}


def test_what_a_head_gets_is_the_expected_embedding_of_the_label():
    model = cascade([TAGS, SPANS], ("pos", "ner")).eval()
    inputs = INPUTS(SENTENCES[:3])
    states = model.encoder(inputs)
    pos = model.heads["pos"](states).softmax(-1)
    expected = torch.einsum("bwc,dc->bwd", pos, model.labels[0].weight) * inputs["mask"].unsqueeze(-1)
    weight, bias = model.heads["ner"].output.weight, model.heads["ner"].output.bias
    found = model(inputs).outputs["ner"]
    torch.testing.assert_close(found, torch.cat([states.tokens, expected], -1) @ weight.T + bias)


def test_what_a_head_gets_of_a_number_is_standardised():
    model = cascade([KIND, SIZE], ("size", "kind")).eval()
    inputs = INPUTS(SENTENCES[:3])
    pooled, found = model.encoder(inputs).pooled, model(inputs).outputs
    z = (found["size"] - SIZE.mean) / SIZE.std
    read = torch.cat([pooled, z.unsqueeze(-1) @ model.labels[0].weight.T], -1)
    weight, bias = model.heads["kind"].output.weight, model.heads["kind"].output.bias
    torch.testing.assert_close(found["kind"], read @ weight.T + bias)


def test_padding_changes_nothing():
    model = cascade().eval()
    alone, together = model(INPUTS(SENTENCES[1:2])).outputs, model(INPUTS(SENTENCES)).outputs
    for name in ORDER:
        found = together[name][1:2]
        found = found[:, :2] if found.dim() == 3 else found
        torch.testing.assert_close(found, alone[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in strategies.names() if strategies.get(n).batches == 1])
def test_every_strategy_sees_that_an_earlier_head_serves_both(name):
    """What both losses reach gets the weighted gradients of both, the first head too."""
    model = cascade([TAGS, KIND], ("pos", "kind"))
    balancer = Balancer(name, ["pos", "kind"], model)
    params = dict(model.named_parameters())
    found = losses(model, "pos", "kind")
    rows = {
        task: torch.autograd.grad(loss, list(params.values()), retain_graph=True, allow_unused=True)
        for task, loss in found.items()
    }
    balancer(found).backward()
    shared = [k for k, both in enumerate(zip(*rows.values(), strict=True)) if None not in both]
    names = [[*params][k] for k in shared]
    assert "heads.pos.output.weight" in names and "labels.0.weight" not in names
    weights = balancer.weights
    for k, p in enumerate(params.values()):
        assert p.grad is not None and p.grad.isfinite().all(), [*params][k]
    if set(weights) == {"pos", "kind"} and strategies.get(name).__bases__[0].__name__ != "JacobianStrategy":
        for k in shared:
            expected = sum(weights[task] * rows[task][k] for task in rows)
            grad = params[[*params][k]].grad
            torch.testing.assert_close(grad, expected.to(grad), rtol=1e-4, atol=1e-7)


def test_a_table_in_a_chain_learns():
    torch.manual_seed(0)
    model = CascadedModel(MLP(3, (8,)), [KIND, SIZE], ("size", "kind"))
    x = torch.randn(40, 3)
    targets = {"size": 5 + 2 * x[:, 0], "kind": (x[:, 0] > 0).long()}
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    before = model({"x": x}, targets).losses
    for _ in range(60):
        optimizer.zero_grad()
        sum(model({"x": x}, targets).losses.values()).backward()
        optimizer.step()
    after = model({"x": x}, targets).losses
    assert all(after[task] < 0.3 * before[task] for task in targets)


def test_by_name():
    problem = load("breast_cancer:training=cascaded,order=[radius,diagnosis],hidden=8")
    assert problem.build().order == ("radius", "diagnosis") and not problem.build().detach
    assert load(problem.name).cascade == problem.cascade
    assert problem.only("radius").build().__class__.__name__ == "MultiTaskModel"
    staged = load("breast_cancer:training=staged")
    assert staged.build().detach and not staged.only("radius").staged
    assert load("tagging:training=cascaded").cascade == ("pos", "ner")


def test_without_an_order_an_intent_comes_before_its_slots():
    tasks = replace(SPANS, name="slots"), replace(SIZE, name="length"), replace(KIND, name="intent")
    problem = Problem("said", tasks, {}, INPUTS, lambda: None)
    assert varied(problem, {"training": "cascaded"}).cascade == ("intent", "slots", "length")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("breast_cancer:training=chain", "no training 'chain'; known: joint, cascaded, staged"),
        ("breast_cancer:order=[radius,diagnosis]", "belongs to training=cascaded"),
        ("breast_cancer:training=cascaded,order=[radius]", r"takes every task once, \[diagnosis,radius\]"),
        ("breast_cancer:training=cascaded,order=[radios,diagnosis]", "did you mean 'radius'"),
        ("toy:training=cascaded", "with heads of labels or numbers"),
    ],
)
def test_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        load(spec)
