"""Task and spec strings."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from mtlweights.problems import Task, mean_normalised
from mtlweights.specs import format_spec, parse_spec

NER = Task("ner", "tokens", ("span_f1", "accuracy"), ("O", "B-PER", "I-PER"))
KIND = Task("kind", "classification", ("accuracy", "macro_f1"), ("a", "b"), untrained=0.5)
AGE = Task("age", "regression", ("rmse", "pearson"), untrained=4.0, target=0.0, mean=10.0, std=4.0)


def test_token_loss_is_the_mean_over_labelled_words():
    logits = torch.randn(2, 3, 3, generator=torch.manual_seed(0))
    target = torch.tensor([[0, 2, -100], [1, -100, -100]])
    picked = logits.log_softmax(-1)[[0, 0, 1], [0, 1, 0], [0, 2, 1]]
    torch.testing.assert_close(NER.loss(logits, target), -picked.mean())
    assert NER.count(target) == 3


def test_regression_loss_is_squared_error_over_the_unit():
    output, target = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([3.0, math.nan, 5.0])
    assert replace(AGE, unit=4.0).loss(output, target).item() == 2.0 / 16
    huge = replace(AGE, unit=1e25).loss(output * 1e25, target * 1e25)
    assert huge.item() == pytest.approx(2.0)  # the square alone would be infinite


def test_regression_loss_is_in_raw_units_and_missing_targets_give_no_gradient():
    output = torch.tensor([1.0, 2.0, 5.0], requires_grad=True)
    target = torch.tensor([3.0, math.nan, 5.0])
    loss = AGE.loss(output, target)
    loss.backward()
    assert loss.item() == 2.0
    assert output.grad.tolist() == [-2.0, 0.0, 0.0]
    assert AGE.count(target) == 2


@pytest.mark.parametrize(
    ("task", "shape", "target"),
    [
        (NER, (2, 3, 3), torch.full((2, 3), -100)),
        (KIND, (2, 2), torch.full((2,), -100)),
        (AGE, (2,), torch.full((2,), math.nan)),
    ],
)
def test_without_labels_the_loss_is_a_zero_in_the_graph(task, shape, target):
    output = torch.randn(shape, requires_grad=True)
    loss = task.loss(output, target)
    loss.backward()
    assert loss.item() == 0.0
    assert output.grad.eq(0).all()
    assert all(math.isnan(value) for value in task.score([output], [target]).values())


def test_scores_join_batches_of_different_widths_and_leave_out_missing_words():
    targets = [torch.tensor([[0, 1, 2]]), torch.tensor([[1, -100], [-100, -100]])]
    outputs = [torch.eye(3)[target.clamp(min=0)] for target in targets]
    outputs[1][0, 0] = torch.tensor([1.0, 0.0, 0.0])  # O instead of B-PER
    scores = NER.score(outputs, targets)
    assert list(scores) == ["span_f1", "accuracy"]
    assert scores["accuracy"] == 0.75
    assert scores["span_f1"] == pytest.approx(2 / 3)  # one span found of two, none too many


def test_rankings_go_by_the_odds_of_the_second_label_and_leave_out_missing_ones():
    task = Task("active", "classification", ("auroc", "average_precision"), ("0", "1"), untrained=0.5)
    logits = torch.tensor([[0.0, 2.0], [0.0, 1.0], [1.0, 1.5], [0.0, 9.0]])
    scores = task.score([logits[:2], logits[2:]], [torch.tensor([1, 0]), torch.tensor([1, -100])])
    assert scores == {"auroc": 0.5, "average_precision": pytest.approx((1 + 2 / 3) / 2)}
    with pytest.raises(ValueError, match="auroc takes two labels, found 3"):
        replace(task, labels=("0", "1", "2"))


def test_rrmse_is_against_the_training_mean():
    task = Task("age", "regression", ("rrmse", "mae", "r2"), (), 1.0, 0.0, mean=10.0, std=4.0)
    scores = task.score([torch.tensor([10.0, 10.0])], [torch.tensor([8.0, 14.0])])
    assert scores == {"rrmse": 1.0, "mae": 3.0, "r2": pytest.approx(1 - 10 / 9)}
    assert not task.higher_is_better and task.normalised(0.25) == 0.75


def test_classification_and_regression_scores():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [1.0, 0.0], [9.0, 0.0]])
    scores = KIND.score([logits], [torch.tensor([0, 1, 1, -100])])
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["macro_f1"] == pytest.approx(2 / 3)
    scores = AGE.score(
        [torch.tensor([1.0, 2.0]), torch.tensor([4.0])], [torch.tensor([1.0, 2.0]), torch.tensor([1.0])]
    )
    assert scores["rmse"] == pytest.approx(math.sqrt(3))
    assert isinstance(scores["pearson"], float)


def test_normalised_scores_point_up_whatever_the_metric():
    assert not AGE.higher_is_better and KIND.higher_is_better
    assert (AGE.normalised(4.0), AGE.normalised(1.0), AGE.normalised(0.0)) == (0.0, 0.75, 1.0)
    assert (KIND.normalised(0.5), KIND.normalised(1.0), KIND.normalised(0.25)) == (
        0.0,
        1.0,
        pytest.approx(-1 / 3),
    )
    scores = {"kind": {"accuracy": 0.75, "macro_f1": 0.0}, "age": {"rmse": 1.0, "pearson": 0.0}}
    assert mean_normalised([KIND, AGE], scores) == 0.625


def test_no_task_outweighs_the_others_in_a_mean_of_normalised_scores():
    """A class of 1 in 240: an item more that is wrong, of 36, costs no more than in another task."""
    rare = Task("rare", "classification", ("accuracy",), ("a", "b"), untrained=239 / 240)
    assert rare.normalised(1.0) == 1.0
    assert rare.normalised(1.0) - rare.normalised(35 / 36) == pytest.approx(10 / 36)
    values = [rare.normalised(share) for share in (0.9, 0.5, 0.1, 0.0)]
    assert values == sorted(values, reverse=True) and values[0] == pytest.approx(0) and values[-1] > -1
    far = [AGE.normalised(rmse) for rmse in (4.0, 8.0, 400.0, math.inf)]
    assert far == pytest.approx([0.0, -0.5, -99 / 100, -1.0])
    assert math.isnan(AGE.normalised(math.nan))
    lively = Task("o", "objective", ("value",), untrained=0.0, target=-0.01)
    assert lively.normalised(-0.005) == pytest.approx(0.5)  # a number's unit is its own


def test_outputs():
    assert (NER.n_outputs, KIND.n_outputs, AGE.n_outputs) == (3, 2, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "token"}, "one of tokens, classification, regression"),
        ({"metrics": ("f1",)}, "metrics of tokens are"),
        ({"metrics": ()}, "metrics of tokens are"),
        ({"metrics": ("rmse",)}, "metrics of tokens are"),
        ({"labels": ()}, "two or more labels, found 0"),
        ({"labels": ("O",)}, "two or more labels, found 1"),
        ({"labels": ("O", "PER")}, "needs labels O, B-TYPE and I-TYPE"),
        ({"untrained": 1.0}, "nothing to normalise by"),
        ({"std": 0.0}, "std should be above 0"),
        ({"unit": 0.0}, "unit should be above 0"),
        ({"unit": math.inf}, "unit should be above 0 and finite"),
        ({"name": " "}, "a name is expected, a text that is not blank"),
        ({"name": 3}, "a name is expected"),
    ],
)
def test_a_task_that_cannot_work_is_refused(changes, message):
    given = {"name": "x", "kind": "tokens", "metrics": ("span_f1",), "labels": ("O", "B-PER")}
    with pytest.raises(ValueError, match=message):
        Task(**{**given, **changes})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pcgrad", ("pcgrad", {})),
        ("fixed:alpha=0.3", ("fixed", {"alpha": 0.3})),
        (
            "x:a=1,b=-2.5e-3,c=true,d=none,e=[1,b, 'c,d'],f=\"3\"",
            ("x", {"a": 1, "b": -2.5e-3, "c": True, "d": None, "e": [1, "b", "c,d"], "f": "3"}),
        ),
        ("pkg.mod:Class", ("pkg.mod:Class", {})),
        ("pkg.mod:Class:alpha=0.3", ("pkg.mod:Class", {"alpha": 0.3})),
        ("conll:/x/y.conllu", ("conll:/x/y.conllu", {})),
        ("csv:C:\\x\\y.csv:regress=[a,b]", ("csv:C:\\x\\y.csv", {"regress": ["a", "b"]})),
        ("csv:/x/k=v/y.csv:regress=a", ("csv:/x/k=v/y.csv", {"regress": "a"})),
    ],
)
def test_specs(text, expected):
    assert parse_spec(text) == expected


@pytest.mark.parametrize("text", ["", ":a=1", "x:", "x:a=", "x:a=1,b", "x:a=1,a=2", "x:a=[1", "x:a='b"])
def test_a_spec_that_cannot_be_read_is_refused(text):
    with pytest.raises(ValueError, match=r"expected|twice|not closed"):
        parse_spec(text)


values = st.sampled_from(
    [None, True, False, 0, 1, -7, 10**20, 0.0, 1.0, -2.5e-7, math.inf, "", "a b", "3", "none"]
)
texts = st.text("ab ,[]=:\"'", max_size=5)


@example(['it\'s "so"', "''", ["\"'", "a,'\""]])
@given(st.lists(values | texts | st.lists(values | texts, max_size=2), max_size=3))
def test_a_spec_reads_back_as_it_was_written(given_values):
    options = dict(zip("abc", given_values, strict=False))
    assert parse_spec(format_spec("name:PATH", options)) == ("name:PATH", options)
