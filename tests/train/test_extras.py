"""Augmented batches, adversarial views, frozen layers: what each does to a batch, and a run under each."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch
from test_resume import Stop, outcome, stopping
from test_train import CPU, pair, toy
from torch import nn

from mtlweights import Balancer, strategies
from mtlweights.problems import Problem, Task, load
from mtlweights.problems.models import BiLSTM, WordInputs
from mtlweights.problems.models.groups import layer_groups
from mtlweights.train import Settings, fit
from mtlweights.train.adversarial import Adversary, Attack
from mtlweights.train.augment import Augment, Augmentation
from mtlweights.train.batches import Again, Parts
from mtlweights.train.extras import Extras
from mtlweights.train.freezing import Freezer, Freezing

TAGS = Task("pos", "tokens", ("accuracy",), ("N", "V"))
KIND = Task("kind", "classification", ("accuracy",), ("a", "b"))


def words(n=20, layers=1, dropout=0.3):
    """Sentences of words that tell their tags, and whether the first is a verb."""
    draw = random.Random(0)

    def rows(n):
        out = []
        for _ in range(n):
            tags = [draw.randrange(2) for _ in range(draw.randrange(2, 6))]
            spelt = [("run", "dog")[not tag] + str(draw.randrange(3)) for tag in tags]
            out.append({"input": spelt, "targets": {"pos": tags, "kind": tags[0]}})
        return out

    splits = {"train": rows(n), "dev": rows(8), "test": rows(8)}
    inputs = WordInputs.fit([row["input"] for row in splits["train"]])

    def encoder():
        sizes = {"word_dim": 4, "char_dim": 3, "char_filters": 4, "hidden": 4, "layers": layers}
        return BiLSTM(inputs.n_words, inputs.n_chars, dropout=dropout, word_dropout=dropout / 2, **sizes)

    return Problem("words", (TAGS, KIND), splits, inputs, encoder, {"device": "cpu"})


def run(problem, settings, strategy="equal", kind=Balancer, window=False, **options):
    extra = {"accumulation": "window"} if window else {}
    model, balancer = pair(problem, strategy, kind=kind, **extra)
    return model, balancer, fit(model, balancer, problem, settings, progress=False, **options)


@pytest.mark.parametrize("way", ["replace:p=0.5", "drop:p=0.5", "swap:p=0.5"])
def test_words_keep_their_labels(way):
    problem = words(200)
    augment = Augment(problem, Augmentation.parse(way))
    before, after = problem.splits["train"], augment.examples(problem.splits["train"])
    changed = sum(a != b for a, b in zip(before, after, strict=True))
    assert 100 < changed < 200
    for old, new in zip(before, after, strict=True):
        assert len(new["input"]) == len(new["targets"]["pos"]) >= 1
        assert new["targets"]["kind"] == old["targets"]["kind"]
        if "replace" in way:
            assert new["targets"] == old["targets"]
        else:
            pairs = Counter(zip(new["input"], new["targets"]["pos"], strict=True))
            assert pairs <= Counter(zip(old["input"], old["targets"]["pos"], strict=True))
            assert "swap" not in way or len(new["input"]) == len(old["input"])


@pytest.mark.parametrize(("way", "low", "high"), [("replace", 0.05, 0.12), ("drop", 0.06, 0.14)])
def test_words_change_as_often_as_was_said(way, low, high):
    problem = words(400)
    augment, rows = Augment(problem, Augmentation.parse(f"{way}:p=0.1")), problem.splits["train"]
    random.seed(0)
    before, after = ([w for row in part for w in row["input"]] for part in (rows, augment.examples(rows)))
    changed = len(before) - len(after) if way == "drop" else sum(map(str.__ne__, before, after))
    assert low < changed / len(before) < high


def test_words_are_replaced_by_words_of_training():
    problem = words()
    problem.splits["test"][:] = [{"input": ["unseen"], "targets": {"pos": [0], "kind": 0}}] * 8
    augment, rows = Augment(problem, Augmentation.parse("replace:p=1")), problem.splits["train"]
    known = {word for row in rows for word in row["input"]}
    assert {word for row in augment.examples(rows) for word in row["input"]} == known


def test_a_word_changes_places_once():
    assert Augment(words(), Augmentation.parse("swap:p=1"))._places(5) == [1, 0, 3, 2, 4]


def test_mixup_mixes_inputs_and_losses_alike():
    problem = toy()
    augment = Augment(problem, Augmentation.parse("mixup:alpha=5"))
    x = torch.arange(12.0).reshape(4, 3)
    mixed, others, m = augment.mixed({"x": x})
    torch.testing.assert_close(mixed["x"], m * x + (1 - m) * x[others])
    assert 0 < m < 1 and sorted(others.tolist()) == [0, 1, 2, 3]
    shares = [augment.mixed({"x": x})[2] for _ in range(400)]
    assert sum(shares) / 400 == pytest.approx(0.5, abs=0.04), "Beta(5, 5) is symmetric"


def test_mixup_mixes_the_losses_of_both_rows():
    problem = toy(dropout=0.0)
    model, _ = pair(problem)
    extras = Extras(model, problem, Settings(augment="mixup:alpha=5"))
    batch = problem.collate(problem.splits["train"][:8])

    def seeded(what):
        random.seed(3)
        torch.manual_seed(3)
        return what()

    inputs, others, m = seeded(lambda: extras.augment.mixed(batch["inputs"]))
    assert abs(m - 0.5) > 0.05
    outputs = model(inputs, batch["targets"]).outputs
    expected = {
        task.name: m * task.loss(outputs[task.name], batch["targets"][task.name])
        + (1 - m) * task.loss(outputs[task.name], batch["targets"][task.name][others])
        for task in problem.tasks
    }
    torch.testing.assert_close(seeded(lambda: extras.losses(batch, model)), expected)


def test_noise_is_of_the_size_that_was_asked_for():
    x = Augment(toy(), Augmentation.parse("noise:scale=0.3")).inputs({"x": torch.zeros(4000, 4)})["x"]
    assert float(x.std()) == pytest.approx(0.3, rel=0.05)


class Linear(nn.Module):
    """Two losses of a bag of embeddings, whose gradients are known."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(5, 3)
        self.out = nn.Linear(3, 2)

    def forward(self, ids):
        a, b = self.out(self.words(ids).mean(1)).unbind(-1)
        return {"a": a.mean(), "b": b.square().mean()}


def test_fgm_moves_along_the_gradient_by_its_share_of_the_norm():
    torch.manual_seed(0)
    model, ids = Linear(), torch.tensor([[0, 1, 2], [3, 3, 4]])
    adversary = Adversary(model, Attack.parse("fgm:epsilon=0.2"))
    clean = adversary.losses(0, 0, lambda: model(ids))
    moved = adversary.losses(0, 1, lambda: model(ids))
    e = model.words(ids).detach().requires_grad_()
    a, b = model.out(e.mean(1)).unbind(-1)
    (g,) = torch.autograd.grad(a.mean() + b.square().mean(), e)
    a, b = model.out((e + 0.2 * e.norm() * g / g.norm()).mean(1)).unbind(-1)
    torch.testing.assert_close(clean, model(ids))
    torch.testing.assert_close(moved, {"a": a.mean(), "b": b.square().mean()})
    assert sum(moved.values()) > sum(clean.values())


def test_freelb_is_the_algorithm():
    """Ascent from a random start, with steps and a ball that are shares of the unmoved embeddings' norm."""
    torch.manual_seed(0)
    model, ids = Linear(), torch.tensor([[0, 1, 2], [3, 3, 4]])
    adversary = Adversary(model, Attack.parse("freelb:steps=4,epsilon=0.6,lr=0.25"))
    torch.manual_seed(5)
    found = [adversary.losses(0, view, lambda: model(ids)) for view in range(4)]
    torch.manual_seed(5)
    e = model.words(ids).detach()
    move = (torch.rand_like(e) * 2 - 1) / e.numel() ** 0.5 * 0.6 * e.norm()
    for losses in found:
        at = (e + move).requires_grad_()
        a, b = model.out(at.mean(1)).unbind(-1)
        torch.testing.assert_close(losses, {"a": a.mean(), "b": b.square().mean()})
        (g,) = torch.autograd.grad(a.mean() + b.square().mean(), at)
        move = move + 0.25 * e.norm() * g / g.norm()
        move = move * (0.6 * e.norm() / move.norm()).clamp(max=1)


def test_embeddings_of_no_word_are_not_moved_and_no_hook_stays():
    from mtlweights.problems.models import Transformer
    from tests.tiny import bert_config

    assert len(Adversary(Transformer(bert_config()), Attack.parse("fgm")).embeddings) == 1
    model = Linear()
    adversary = Adversary(model, Attack.parse("fgm"))
    adversary.losses(0, 0, lambda: model(torch.tensor([[0, 1]])))
    assert not model.words._forward_hooks


def test_freelb_stays_in_its_ball_and_climbs():
    torch.manual_seed(0)
    model, ids = Linear(), torch.tensor([[0, 1, 2], [3, 3, 4]])
    adversary = Adversary(model, Attack.parse("freelb:steps=6,epsilon=0.3,lr=0.2"))
    total = [sum(adversary.losses(0, view, lambda: model(ids)).values()).detach() for view in range(6)]
    seen = [float(value) for value in total]
    (move,) = adversary.kept[0][0]
    assert float(move.norm()) <= 0.3 * float(model.words(ids).detach().norm()) * 1.0001
    assert seen[-1] > seen[0] and seen[-1] > float(sum(model(ids).values()).detach())


def test_every_view_draws_the_same_dropout():
    torch.manual_seed(0)
    model, drop, ids = Linear(), nn.Dropout(0.5), torch.tensor([[0, 1, 2]])
    adversary = Adversary(model, Attack.parse("fgm"))
    masks = []

    def compute():
        masks.append(drop(torch.ones(50)))
        return model(ids)

    for _ in range(2):
        for view in range(2):
            adversary.losses(0, view, compute)
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[1], masks[2])


def test_views_of_the_parts_of_a_batch_come_in_turn():
    from torch.utils.data import BatchSampler, SequentialSampler

    sampler = Again(Parts(BatchSampler(SequentialSampler(range(7)), 3, False), 2), 2)
    found = [*sampler]
    assert found == [[0, 2], [1], [0, 2], [1], [3, 5], [4], [3, 5], [4], [6], [6]] and len(sampler) == 10
    places = [sampler.place(k) for k in range(10)]
    assert places == [(0, 0), (1, 0), (0, 1), (1, 1)] * 2 + [(0, 0), (0, 1)]


def test_every_view_is_of_the_batch_as_it_was_augmented_first():
    from torch.utils.data import BatchSampler, SequentialSampler

    problem = words()
    extras = Extras(pair(problem)[0], problem, Settings(adversarial="fgm", augment="drop"))
    sampler = Again(Parts(BatchSampler(SequentialSampler(range(4)), 2, False), 1), 2)
    found = [extras.same(sampler, k, k) for k in range(4)]
    assert found == [(0, True), (0, False), (2, True), (2, False)]


@pytest.mark.filterwarnings("ignore:(AdaTask|MConFIG) scales its own updates:UserWarning")
@pytest.mark.parametrize("name", strategies.names())
def test_views_are_one_step_under_every_strategy(name):
    """A step an epoch: the strategy's step number moves once, and every weight ends finite and moved."""
    problem, settings = (
        words(6),
        Settings(epochs=2, batch_size=6, lr=0.01, device="cpu", adversarial="freelb:steps=2"),
    )
    window = strategies.get(name).batches == 1 and "validate" not in strategies.get(name).hooks()
    model, balancer, history = run(problem, settings, name, window=window)
    assert history.steps == 2 == int(balancer.strategy.step)
    assert [row["seen"]["kind"] for row in history.rows] == [6, 6]
    assert all(p.isfinite().all() for p in model.parameters())


def test_in_a_window_views_are_one_batch():
    """PCGrad's weights are those of the gradients averaged over both views."""
    problem = words(6, dropout=0.0)
    model, balancer = pair(problem, "pcgrad", accumulation="window", accumulation_steps=2)
    batch = problem.collate(problem.splits["train"])
    adversary = Adversary(model, Attack.parse("fgm:epsilon=2"))
    params, rows = [*model.parameters()], {"pos": [], "kind": []}
    for view in range(2):
        found = adversary.losses(0, view, lambda: model(batch["inputs"], batch["targets"]).losses)
        for task, loss in found.items():
            own = torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True)
            rows[task].append(
                [torch.zeros_like(p) if g is None else g for g, p in zip(own, params, strict=True)]
            )
        (balancer(found, batch["counts"]) / 2).backward()
    shared = [*model.encoder.parameters()]
    weights = balancer.weights
    for k, p in enumerate(params[: len(shared)]):
        mean = {task: (a[k] + b[k]) / 2 for task, (a, b) in rows.items()}
        expected = sum(float(weights[task]) * mean[task] for task in mean)
        torch.testing.assert_close(p.grad, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "extra",
    [{"augment": "drop"}, {"adversarial": "freelb", "accumulate": 2}, {"freeze": "gradual"}],
    ids=lambda extra: next(iter(extra)),
)
def test_resumes_bit_for_bit(tmp_path, extra):
    problem, settings = words(), replace(CPU, **extra)
    whole = outcome(*run(problem, settings, "uw"))
    assert whole["weights"] != outcome(*run(problem, CPU, "uw"))["weights"]
    with pytest.raises(Stop):
        run(problem, settings, "uw", stopping(2), folder=tmp_path)
    assert outcome(*run(problem, settings, "uw", folder=tmp_path)) == whole


@pytest.mark.parametrize("strategy", ["equal", "pcgrad", "graddrop", "gradnorm"])
def test_layers_are_freed_from_the_top_down(strategy):
    problem = words(layers=2)
    model, balancer = pair(problem, strategy)
    groups = layer_groups(model.encoder)
    assert [*groups] == ["words", "chars.embedding", "chars.convolution", "lstm.0", "lstm.1"]
    was, moved = {k: [p.detach().clone() for p in own] for k, own in groups.items()}, []

    def after_epoch(history):
        same = {k: all(map(torch.equal, own, was[k])) for k, own in groups.items()}
        moved.append({k for k, still in same.items() if not still})

    settings = replace(CPU, epochs=3, freeze="gradual")
    fit(model, balancer, problem, settings, progress=False, after_epoch=after_epoch)
    assert moved == [{"lstm.1"}, {"lstm.0", "lstm.1"}, {"lstm.0", "lstm.1", "chars.convolution"}]
    assert all(p.requires_grad for p in model.parameters())


def test_the_lowest_layers_stay():
    freezer = Freezer(words().encoder(), Freezing.parse("lowest:layers=2"))
    assert freezer.frozen(1) == freezer.frozen(9) == ["words", "chars.embedding"]
    with pytest.raises(ValueError, match="fewer than the 4 layers of this encoder, found 4"):
        Freezer(words().encoder(), Freezing.parse("lowest:layers=4"))


def test_layers_are_freed_every_so_many_epochs():
    freezer = Freezer(words().encoder(), Freezing.parse("gradual:every=2"))
    assert [len(freezer.frozen(epoch)) for epoch in range(1, 10)] == [3, 3, 2, 2, 1, 1, 0, 0, 0]


def test_what_was_frozen_before_stays_frozen():
    encoder = words().encoder()
    encoder.words.weight.requires_grad_(False)
    freezer = Freezer(encoder, Freezing.parse("gradual"))
    for epoch in range(1, 6):
        freezer.start(epoch)
    assert [name for name, p in encoder.named_parameters() if not p.requires_grad] == ["words.weight"]


def test_masked_words_are_a_task_of_their_own():
    problem = load("tagging:auxiliary=masked,hidden=4")
    plain = load("tagging:hidden=4")
    task = problem.tasks[-1]
    assert task.name == "masked" and task.auxiliary and len(task.labels) <= 300
    for part, rows in problem.splits.items():
        n = len(plain.splits[part])
        assert rows[:n] == plain.splits[part] and n < len(rows) <= 2 * n
        for row in rows[n:]:
            marks = row["targets"]["masked"]
            assert [word == "[MASK]" for word in row["input"]] == [mark >= 0 for mark in marks]
    assert problem.only("ner", "pos").tasks == plain.tasks
    with pytest.raises(ValueError, match="takes sentences"):
        load("breast_cancer:auxiliary=masked")


def test_lora_trains_little_of_a_transformer():
    pytest.importorskip("peft")
    from mtlweights.problems.models import Transformer
    from mtlweights.problems.models.lora import with_lora
    from tests.tiny import bert_config

    encoder = with_lora(Transformer(bert_config()), 2)
    names = [name for name, p in encoder.named_parameters() if p.requires_grad]
    assert len(names) == 2 * 2 * 6 and all("lora_" in name for name in names)
    with pytest.raises(ValueError, match="encoder=transformer, found a MLP"):
        with_lora(toy().encoder(), 2)


@pytest.mark.parametrize(
    ("field", "spec", "message"),
    [
        ("augment", "noisy", "one of replace, drop, swap, noise, mixup, found 'noisy'"),
        ("augment", "drop:p=2", "p of augment=drop should be above 0 and at most 1, found 2"),
        ("augment", "drop:q=0.1", "has no option 'q'; known: p"),
        ("adversarial", "pgd", "fgm or freelb, found 'pgd'"),
        ("adversarial", "freelb:steps=1", "from 2 to 100, found 1"),
        ("adversarial", "fgm:epsilon=0", "above 0, found 0"),
        ("freeze", "highest", "lowest or gradual, found 'highest'"),
        ("freeze", "gradual:every=0", "whole number from 1, found 0"),
    ],
)
def test_refused(field, spec, message):
    with pytest.raises(ValueError, match=message):
        Settings(**{field: spec})


def test_what_does_not_suit_a_problem_is_refused():
    with pytest.raises(ValueError, match="use one of replace, drop, swap"):
        Augment(words(), Augmentation.parse("mixup"))
    with pytest.raises(ValueError, match="use one of noise, mixup"):
        Augment(toy(), Augmentation.parse("drop"))
    with pytest.raises(ValueError, match="moves word embeddings, and this model trains none"):
        run(toy(), replace(CPU, adversarial="fgm"))
