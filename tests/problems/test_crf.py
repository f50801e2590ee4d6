"""The conditional random field: against all labellings written out, against pytorch-crf, and in training."""

from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch

from mtlweights import Balancer
from mtlweights.problems import MISSING, Task, load
from mtlweights.problems.models import States
from mtlweights.problems.models.crf import CRFHead
from mtlweights.train import Settings, evaluate, fit

TASK = Task("pos", "tokens", ("accuracy",), ("A", "B", "C"), crf=True)
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 1, 0]]).bool()


@pytest.fixture
def head():
    torch.manual_seed(0)
    head = CRFHead(torch.nn.Linear(2, 3), 3).double()
    with torch.no_grad():
        for parameter in (head.start, head.end, head.transitions):
            parameter.normal_()
    return head


@pytest.fixture
def scores():
    return torch.randn(5, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def states(mask=MASK):
    return States(None, mask, torch.zeros(len(mask), 0))


def labellings(head, scores, mask):
    """(labels of the words that are there, score) of every labelling of one sentence."""
    words = scores[mask]
    for labels in product(range(3), repeat=len(words)):
        steps = sum(head.transitions[pair] for pair in pairwise(labels))
        total = sum(words[i, label] for i, label in enumerate(labels)) + steps
        yield labels, total + head.start[labels[0]] + head.end[labels[-1]] if labels else torch.zeros(())


def test_the_likelihood_is_that_of_all_labellings_written_out(head, scores):
    """Words without a label are summed over; words without a state are not there."""
    target = torch.tensor(
        [[0, 1, 2, 0], [2, MISSING, 1, 1], [1, 0, MISSING, 2], [0, 0, 0, 0], [0, MISSING, 2, 0]]
    )
    total, known = 0.0, 0
    for row in range(5):
        said = target[row][MASK[row]].tolist()
        known += sum(label != MISSING for label in said)
        every = list(labellings(head, scores[row], MASK[row]))
        right = [
            s
            for labels, s in every
            if all(k in (y, MISSING) or y == MISSING for k, y in zip(labels, said, strict=True))
        ]
        total += torch.stack([s for _, s in every]).logsumexp(0) - torch.stack(right).logsumexp(0)
    assert known == 8
    loss = head.loss(TASK, scores, target, states())
    torch.testing.assert_close(loss, total / known)
    torch.testing.assert_close(head.loss(replace(TASK, scale=3.0), scores, target, states()), 3 * loss)
    (found,) = torch.autograd.grad(loss, head.transitions, retain_graph=True)
    (expected,) = torch.autograd.grad(total / known, head.transitions)
    torch.testing.assert_close(found, expected)


def test_decoding_gives_the_best_labelling_and_the_best_one_with_each_label(head, scores):
    decoded = head.decode(scores, states())
    for row in range(5):
        every = list(labellings(head, scores[row], MASK[row]))
        best = max(every, key=lambda pair: float(pair[1].detach()))[0]
        assert decoded[row][MASK[row]].argmax(-1).tolist() == list(best)
        for place, word in enumerate(decoded[row][MASK[row]]):
            for label in range(3):
                with_it = max(float(s.detach()) for labels, s in every if labels[place] == label)
                assert float(word[label].detach()) == pytest.approx(with_it)
    assert not decoded[~MASK].any()


def test_pytorch_crf_agrees(head, scores):
    from torchcrf import CRF

    theirs = CRF(3, batch_first=True).double()
    with torch.no_grad():
        theirs.start_transitions.copy_(head.start)
        theirs.end_transitions.copy_(head.end)
        theirs.transitions.copy_(head.transitions)
    mask, target = MASK[:2], torch.tensor([[0, 1, 2, 0], [2, 1, 0, 0]])
    found = head.loss(TASK, scores[:2], target, states(mask))
    torch.testing.assert_close(found, -theirs(scores[:2], target, mask=mask, reduction="token_mean"))
    decoded = head.decode(scores[:2], states(mask)).argmax(-1)
    assert [row[m].tolist() for row, m in zip(decoded, mask, strict=True)] == theirs.decode(scores[:2], mask)


def test_no_label_at_all_is_a_loss_of_zero_with_a_graph(head, scores):
    loss = head.loss(TASK, scores, torch.full((5, 4), MISSING), states())
    assert loss == 0 and torch.isfinite(torch.autograd.grad(loss, head.transitions)[0]).all()


def test_it_trains_by_its_name_in_a_spec():
    problem = load("tagging:crf=pos,hidden=8")
    assert [task.crf for task in problem.tasks] == [False, True]
    problem.splits["train"], problem.splits["dev"] = problem.splits["train"][:40], problem.splits["dev"][:20]
    torch.manual_seed(0)
    model = problem.build()
    balancer = Balancer("pcgrad", ["ner", "pos"], model)
    before = evaluate(model, problem, "train")["pos"]["accuracy"]
    start = model.heads["pos"].transitions.detach().clone()
    fit(model, balancer, problem, Settings(epochs=4, batch_size=8, lr=0.02), progress=False)
    assert evaluate(model, problem, "train")["pos"]["accuracy"] > before + 0.1
    assert (model.heads["pos"].transitions - start).abs().max() > 0.02


def test_outputs_are_decoded_where_no_loss_is_asked_for():
    problem = load("tagging:crf=true,hidden=4")
    torch.manual_seed(0)
    model, batch = problem.build().eval(), problem.collate(problem.splits["dev"][:3])
    with torch.no_grad():
        model.heads["pos"].transitions.normal_().mul_(5)
    plain, decoded = (
        model(batch["inputs"], batch["targets"]).outputs["pos"],
        model(batch["inputs"]).outputs["pos"],
    )
    states = model.encoder(batch["inputs"])
    torch.testing.assert_close(decoded, model.heads["pos"].decode(plain, states))
    assert (decoded.argmax(-1) != plain.argmax(-1))[batch["inputs"]["mask"]].any()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("breast_cancer:crf=true", "there is no option 'crf'"),
        ("tagging:crf=intent", "true, or one of the tasks that label words, ner, pos; found 'intent'"),
        ("tagging:crf=[ner,3]", "ner, pos; found 3"),
    ],
)
def test_what_has_no_words_has_no_crf(spec, said):
    with pytest.raises(ValueError, match=said):
        load(spec)
    with pytest.raises(ValueError, match="a CRF is for labels of words, found regression"):
        Task("x", "regression", ("rmse",), crf=True)
