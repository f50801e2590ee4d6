"""Bad input gets one line: what was expected, what came, what to do."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mtlweights import Balancer, strategies
from tests.toys import assert_same, assert_same_state, backward, batch, gradients_of, losses_of, names, toy

AB = ["a", "b"]


class Raising(strategies.LossStrategy):
    def __init__(self, n_tasks):
        raise RuntimeError("first\nsecond")

    def combine(self, losses, present):
        return losses.sum()


class Signed(strategies.GramStrategy):
    signed_weights = True

    def weights(self, gram, losses, present):
        return losses


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("pcgard", AB), {}, r"No strategy named 'pcgard' \(did you mean 'pcgrad'\?\)"),
        ((3, AB), {}, "strategy should be a name, a Strategy class or an instance, found 3"),
        ((nn.Linear, AB), {}, "strategy should be a name"),
        ((strategies.Strategy, AB), {}, "Strategy is no whole strategy: it should be a LossStrategy, "),
        ((strategies.GramStrategy, AB), {}, "GramStrategy is no whole strategy: .* and lacks weights"),
        ((Raising, AB), {}, r"Raising\(2\) raised RuntimeError: first second"),
        (
            ("uw", {"a", "b"}),
            {},
            r"tasks should be a list of names: the order of \{.*\}, a set, is another in",
        ),
        (("uw", None), {}, r"tasks should be a list of names such as \[.*\], found None"),
        (("uw", 5), {}, "found 5"),
        (("uw", ["a", 1]), {}, r"found \['a', 1\]"),
        (("uw", ["a", " \t"]), {}, r"none blank, found \['a', ' \\t'\]"),
        (("equal", "ner"), {}, r"tasks should be a list of names such as \[\"ner\", \"pos\"\], found 'ner'"),
        (("equal", []), {}, "at least one name"),
        (("equal", ["a", "a"]), {}, r"each once, none blank, found \['a', 'a'\]"),
        (("fixed", ["a", "b", "c"]), {"alpha": [0.5, 0.5]}, "3"),
        (
            ("dwa", AB),
            {"temprature": 1.0},
            r"no hyperparameter 'temprature' \(did you mean 'temperature'\?\)",
        ),
        (("mgda", AB), {"smothing": 0.5}, r"\(did you mean 'smoothing'\?\)"),
        (("fixed", AB), {"weights": [1, 2]}, r"'weights' \(did you mean 'alpha'\?\)\. It takes: alpha"),
        (("mgda", AB), {"loss_weights": [1, 2]}, r"\(did you mean 'preference'\?\)"),
        (("mgda", AB), {"heads": "both"}, "heads should be 'paper', 'plain' or 'weighted', found 'both'"),
        ((Signed, AB), {"heads": "weighted"}, "may be negative"),
        (("mgda", AB), {"every": 0}, "every should be"),
        (("mgda", AB), {"every": True}, "every should be a whole number .*, found True"),
        (("mgda", AB), {"smoothing": "0.5"}, r"smoothing should be in \[0, 1\), found '0.5'"),
        (("mgda", AB), {"smoothing": math.nan}, "found nan"),
        (("uw", AB), {"weight_lr": math.inf}, "weight_lr should be positive and finite, found inf"),
        (("uw", AB), {"weight_lr": "0.1"}, "weight_lr should be positive and finite, found '0.1'"),
        (("random", AB), {"seed": "x"}, "seed should be a whole number of at least 0, found 'x'"),
        (("random", AB), {"seed": True}, "found True"),
        (("random", AB), {"seed": -1}, "found -1"),
        (("mgda", AB), {"shared": "1"}, "shared should be 'auto', parameters, modules, .*, found '1'"),
        (("mgda", AB), {"shared": 5}, "shared should be 'auto', .*, found 5"),
        (("mgda", AB), {"shared": []}, "shared should be 'auto', .*, found no parameter"),
        (("mgda", AB), {"shared": ["trunk.weight"]}, "found 'trunk.weight' among them"),
        (("mgda", AB), {"shared": [torch.ones(3)]}, r"a tensor of shape \(3,\) that is no parameter"),
        (("mgda", AB), {"shared": nn.Linear}, "shared should be 'auto'"),
        (
            ("uw", AB),
            {"accumulation": "window", "accumulation_steps": True},
            "accumulation_steps should be a whole number of at least 1, found True",
        ),
        (("krum", AB), {"n_selected": 9}, "n_selected at most that, found 0 and 9"),
        (("auto_lambda", AB), {"bilevel": "x"}, "bilevel should be True or False, found 'x'"),
        (("pcd", AB), {"primary": True}, "primary should be the index of one of 2 tasks, 0 to 1, found True"),
        (("cagrad", AB), {"c": [0.1]}, r"c should be at least 0 and below 1, found \[0.1\]"),
        (("aligned_mtl", AB), {"scale": ["min"]}, r"scale should be one of .*, found \['min'\]"),
        (("fixed", AB), {"alpha": {0.1, 0.9}}, "alpha should be numbers, found"),
        (("stch", AB), {"ideal": 1e60}, "ideal should hold finite numbers, found"),
        (("stch_mtl", AB), {"warmup": 10**30}, "warmup should be a whole number of at least 0, found 1000"),
        (("uw", AB), {"every": 2}, "for Gramian strategies; UncertaintyWeighting"),
        (("mgda", AB), {"smoothing": 1.0}, r"smoothing should be in \[0, 1\), found 1.0"),
        (("mgda", AB), {"accumulation": "windows"}, "accumulation should be"),
        (("uw", AB), {"weight_lr": 0.0}, "weight_lr should be positive and finite, found 0.0"),
        (("equal", AB, "model"), {}, "model should be a torch.nn.Module, found str"),
        (("equal", AB, nn.DataParallel(nn.Linear(1, 1))), {}, "DistributedDataParallel"),
        ((strategies.get("mgda")(3), AB), {}, "built for 3 tasks, but there are 2"),
        ((strategies.get("dwa")(2), AB), {"temperature": 1.0}, "belong to the constructor"),
    ],
)
def test_constructor(arguments, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        Balancer(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_what_has_an_order_names_tasks():
    layers = nn.ModuleDict({"b": nn.Linear(1, 1), "a": nn.Linear(1, 1)})
    for tasks in (("b", "a"), {"b": 1, "a": 2}, {"b": 1, "a": 2}.keys(), layers.keys(), iter(["b", "a"])):
        assert Balancer("uw", tasks).tasks == ("b", "a")


def test_parameters_of_a_generator_are_kept():
    model = toy()
    balancer = copy.deepcopy(Balancer("mgda", names(2), model, shared=model.encoder.parameters()))
    balancer(losses_of(balancer.model, batch())).backward()
    assert "Gradients measured on: 4 tensors" in balancer.explain()


def test_an_instance_belongs_to_one_balancer():
    strategy = strategies.get("uw")(2)
    first = Balancer(strategy, AB, seed=3)
    with pytest.raises(ValueError, match="This UncertaintyWeighting is in use by another balancer"):
        Balancer(strategy, AB, seed=4)
    assert first.strategy.seed == 3
    del first
    assert Balancer(strategy, AB, seed=4).strategy.seed == 4


GOOD = torch.ones((), requires_grad=True)
FAMILIES = ["equal", "uw", "dwa", "famo", "imtl_l", "mgda", "imtl_g", "imtl", "gradnorm", "pcgrad", "modo"]
FAMILIES += ["auto_lambda", "graddrop", "db_mtl", "adatask"]


@pytest.mark.parametrize(
    ("losses", "counts", "message"),
    [
        ({"nre": torch.ones(())}, None, r"'nre' is not one of the balancer's tasks \(did you mean 'ner'\?\)"),
        (
            {"ner": torch.ones(())},
            {"pso": 3},
            r"'pso' is not one of the balancer's tasks \(did you mean 'pos'\?\)",
        ),
        ({}, None, "No loss to balance: give at least one of ner, pos"),
        ({"ner": torch.ones(())}, {"ner": 0}, "No loss to balance"),
        ({"ner": torch.ones(4)}, None, r"The loss of 'ner' should be a scalar tensor, found shape \(4,\)"),
        ({"ner": 0.5}, None, "'ner' should be a scalar tensor, found 0.5: where a task has none, leave it"),
        ([torch.ones(())], None, "losses should be a dict of task -> scalar tensor, found list"),
        ({"ner": torch.ones(())}, None, "No loss requires a gradient"),
        ({"ner": None}, None, "'ner' should be a scalar tensor, found None: where a task has none, leave it"),
        ({"ner": torch.ones((), dtype=torch.int64)}, None, "found torch.int64: compute it in float32"),
        ({"ner": torch.tensor(1j)}, None, "found torch.complex64: take its real part"),
        ({"ner": torch.ones(2).to_sparse()}, None, "found a nested or sparse tensor: give a dense scalar"),
        ({"ner": torch.ones((), device="meta", requires_grad=True)}, None, "found one on the meta device"),
        ({"ner": torch.ones(()).to(torch.float8_e4m3fn)}, None, "found torch.float8_e4m3fn"),
        ({"ner": GOOD}, 3, "counts should be a dict of task -> number of items, found 3"),
        (
            {"ner": GOOD},
            {"ner": None},
            "The count of 'ner' should be its number of items, at least 0, found None",
        ),
        ({"ner": GOOD}, {"ner": -1}, "found -1"),
        ({"ner": GOOD}, {"ner": math.nan}, "found nan"),
        ({"ner": GOOD}, {"ner": 10**400}, "found 1000"),
        ({"ner": GOOD}, {"ner": True}, "found True"),
        ({"ner": GOOD}, {"ner": torch.ones(2)}, r"found tensor\(\[1., 1.\]\)"),
        ({"ner": GOOD}, {"ner": torch.tensor(-1)}, r"found tensor\(-1\)"),
    ],
)
@pytest.mark.parametrize("name", ["equal", "mgda"])
def test_losses(name, losses, counts, message):
    with pytest.raises(ValueError, match=message):
        Balancer(name, ["ner", "pos"])(losses, counts)


@pytest.mark.filterwarnings("ignore:AutoLambda needs balancer.validate")
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("path", ["call", "backward"])
def test_a_loss_without_a_graph_is_a_task_that_is_missing(name, path):
    """Its gradient is none under the plain sum, and no state of it moves; its value counts in a plain sum."""
    left = []
    for placeholder in ({}, {"t1": torch.tensor(3.0)}):
        model = toy(3)
        balancer = Balancer(name, names(3), model)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        for only in (None, (0, 2), None):
            given = placeholder if only else {}
            seed = 1 if only else 2
            optimizer.zero_grad()
            backward(balancer, lambda: losses_of(model, batch(seed=seed), only) | given, path=path)  # noqa: B023
            found = gradients_of(model)
            assert found["heads.1.weight"] is None or only is None
            optimizer.step()
            if "after_step" in balancer.hooks:
                balancer.after_step(lambda: losses_of(model, batch(seed=seed), only) | given)  # noqa: B023
        balancer.end_epoch()
        left.append((found, balancer.state_dict()))
        assert any(bool(found[key].any()) for key in found if key.startswith("encoder"))
    assert_same(left[1][0], left[0][0], 0.0)
    assert_same_state(left[1][1], left[0][1])


def test_the_plain_sum_has_the_loss_without_a_graph_in_it():
    model = toy()
    losses = losses_of(model, batch()) | {"t2": torch.tensor(3.0)}
    balancer = Balancer("mgda", names(3), model)
    for mode in (True, False):
        model.train(mode)
        assert torch.allclose(balancer(losses), sum(losses.values()))


def test_a_gradient_and_features_are_refused_before_anything_moves():
    model = toy()
    balancer = Balancer("mgda", names(2), model)
    for wrong in (2.0, torch.ones(1), torch.tensor(1), torch.ones((), device="meta"), [1]):
        with pytest.raises(ValueError, match="gradient should be a floating-point scalar"):
            balancer.backward(losses_of(model, batch()), gradient=wrong)
    with pytest.raises(ValueError, match="features= belongs to gradients='features', this balancer has"):
        balancer(losses_of(model, batch()), features=torch.ones(2, requires_grad=True))
    at_features = Balancer("mgda", names(2), model, gradients="features")
    with pytest.raises(ValueError, match=r"features should be the tensor that all heads .* without a graph"):
        at_features(losses_of(model, batch()), features=torch.ones(2))
    assert all(gradient is None for gradient in gradients_of(model).values())


def test_closures():
    balancer = Balancer("famo", AB)
    for method in (balancer.after_step, balancer.validate):
        with pytest.raises(
            ValueError, match="closure should be a function that returns task -> loss, found 3"
        ):
            method(3)
    for wrong, message in (
        (None, "The closure should return .*, found None"),
        ([], r"The closure should return .*, found \[\]"),
        ([3], "found 3 in the list"),
        ([({"a": 1.0}, None)], "The loss of 'a' should be a scalar tensor, found 1.0"),
        ([({"a": GOOD}, {"a": "x"})], "The count of 'a' .*, found 'x'"),
    ):
        with pytest.raises(ValueError, match=message):
            balancer.after_step(lambda: wrong)  # noqa: B023
    learner = Balancer("auto_lambda", AB, bilevel=False)
    for wrong, message in (
        (None, "found NoneType"),
        ({"a": torch.ones(())}, "No validation loss requires a"),
    ):
        with pytest.raises(ValueError, match=message):
            learner.validate(lambda: wrong)  # noqa: B023


def odd(state, *path, to=None, drop=False):
    """A copy of a state with one part changed."""
    state = copy.deepcopy(state)
    part = state
    for key in path[:-1]:
        part = part[key]
    if drop:
        del part[path[-1]]
    else:
        part[path[-1]] = to
    return state


@pytest.mark.parametrize("name", ["uw", "gradnorm", "adatask"])
def test_a_state_that_does_not_fit_is_refused_whole(name):
    model = toy()
    balancer, other = (Balancer(name, names(2), model) for _ in range(2))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for each in (balancer, other, other):
        each.backward(losses_of(model, batch()))
        optimizer.step()
    before, good = balancer.state_dict(), other.state_dict()
    wrong = [
        (None, "should be what state_dict"),
        ([], "should be what state_dict"),
        (odd(good, "tasks", to=["b", "a"]), "is for the tasks"),
        (
            odd(good, "updates", drop=True),
            f"does not fit {type(balancer.strategy).__name__}: updates is missing",
        ),
        (odd(good, "held", to=torch.ones(7)), r"held should have shape \(2, 2\), found \(7,\)"),
        (odd(good, "sums", to="x"), "sums should be a tensor, found 'x'"),
        (odd(good, "strategy", "step", to=torch.tensor(0.5)), r"strategy\.step should be like torch.int64"),
        (odd(good, "strategy", to=3), "strategy should be a dict, found 3"),
        (odd(good, "strategy", "more", to=3), "strategy has an unknown 'more'"),
        (odd(good, "reach", "x", to=[2]), r"reach\.'x' should be indices of 2 tasks, found \[2\]"),
        (odd(good, "rows", to={"means": {}}), "rows"),
        (Balancer("dwa", names(2)).state_dict(), "does not fit"),
    ]
    for state, message in wrong:
        with pytest.raises(ValueError, match=message) as caught:
            balancer.load_state_dict(state)
        assert "\n" not in str(caught.value)
        assert_same_state(balancer.state_dict(), before)
    balancer.load_state_dict(good)
    assert_same_state(balancer.state_dict(), good)


def test_scores_and_optimizers():
    balancer = Balancer("validation", ["ner", "pos"])
    with pytest.raises(ValueError, match="'nr' is not one of the balancer's tasks"):
        balancer.end_epoch({"nr": 0.5})
    for wrong in ("0.5", math.inf, None, True, torch.ones(2)):
        with pytest.raises(
            ValueError, match="The validation score of 'ner' should be a finite number, found"
        ):
            balancer.end_epoch({"ner": wrong})
    with pytest.raises(ValueError, match="validation should be a dict of task -> score, found"):
        balancer.end_epoch(0.5)
    balancer.end_epoch({"ner": math.nan, "pos": np.float32(0.5)})
    assert balancer.strategy.score.isnan().tolist() == [True, False]
    with pytest.raises(ValueError, match="takes a torch optimizer, found Linear"):
        balancer.attach(nn.Linear(1, 1))


def test_no_shared_parameter():
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    balancer = Balancer("mgda", ["ner", "pos"])
    with pytest.raises(
        ValueError, match=r"The tasks ner, pos share no trainable parameter: .*frozen or detached"
    ):
        balancer({"ner": a.sum(), "pos": b.sum()}).backward()
    loss = Balancer("uw", ["ner", "pos"])({"ner": a.sum(), "pos": b.sum()})
    loss.backward()
    assert a.grad is not None and b.grad is not None


def test_shared_that_no_loss_reaches():
    model = toy()
    balancer = Balancer("mgda", names(2), model, shared=model.unused)
    with pytest.raises(ValueError, match="among those named in shared="):
        balancer(losses_of(model, batch())).backward()


def test_fsdp1_is_refused_by_gradient_methods():
    class FullyShardedDataParallel(nn.Module):
        """Of the same name as the wrapper."""

    class Sharded(FullyShardedDataParallel):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

    model = Sharded()
    for name in ("uw", "mgda"):
        out = model.layer(torch.ones(3, 2))
        balancer, losses = Balancer(name, AB, model), {"a": out[:, 0].sum(), "b": out[:, 1].sum()}
        if name == "mgda":
            with pytest.raises(ValueError, match="under FullyShardedDataParallel: shard with FSDP2"):
                balancer(losses)
        else:
            balancer(losses).backward()


def test_reentrant_checkpointing_is_refused():
    layer, head = nn.Linear(4, 4), nn.Linear(4, 1)
    x = torch.randn(3, 4, requires_grad=True)
    for reentrant in (False, True):
        hidden = checkpoint(layer, x, use_reentrant=reentrant)
        losses = {"a": head(hidden).mean(), "b": hidden.pow(2).mean()}
        balancer = Balancer("mgda", AB)
        if reentrant:
            with pytest.raises(ValueError, match="use_reentrant=False"):
                balancer(losses).backward()
        else:
            balancer(losses).backward()
            assert layer.weight.grad is not None


def test_learning_rate_of_learned_weights_is_the_strategy_s_unless_given():
    names = ("uw", "ruw", "imtl_l", "imtl", "ldc", "famo", "gradnorm")
    found = {name: Balancer(name, AB).options.weight_lr for name in names}
    slow = dict.fromkeys(("uw", "ruw", "imtl_l", "imtl"), 3e-4)
    assert found == {**slow, "ldc": 1e-3, "famo": 0.025, "gradnorm": 0.025}
    assert Balancer("auto_lambda", AB).options.weight_lr == 1e-4
    assert Balancer("auto_lambda", AB, weight_lr=0.1).options.weight_lr == 0.1


def test_several_batches_and_validation_rows_do_not_go_together():
    class Both(strategies.GramStrategy):
        batches = 2

        def lookahead(self, present):
            return None

        def weights(self, gram, losses, present):
            return losses

    with pytest.raises(ValueError, match="Both asks for 2 batches and for validation rows"):
        Balancer(Both, AB)


@pytest.mark.parametrize(
    ("strategy", "arguments", "message"),
    [
        (
            "mgda",
            {"gradients": "row"},
            "one of auto, rows, features, gramian, found 'row' .did you mean 'rows'",
        ),
        ("uw", {"gradients": "gramian"}, "UncertaintyWeighting weighs tasks by their losses alone"),
        ("graddrop", {"gradients": "features"}, "GradDrop weighs tasks by whole gradients"),
        (
            "mgda",
            {"features": nn.Linear(1, 1)},
            "features= belongs to gradients='features', found gradients='auto'",
        ),
        (
            "mgda",
            {"gradients": "features", "features": "trunk"},
            "should be a module of the model, found str",
        ),
        ("mgda", {"gradients": "features", "accumulation": "window"}, "needs the graph of the whole step"),
    ],
)
def test_ways_of_measuring_that_do_not_fit(strategy, arguments, message):
    with pytest.raises(ValueError, match=message):
        Balancer(strategy, names(2), **arguments)
