"""Bad input gets one line: what was expected, what came, what to do."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mtlweights import Balancer, strategies
from tests.toys import batch, losses_of, names, toy


class Signed(strategies.GramStrategy):
    signed_weights = True

    def weights(self, gram, losses, present=None):
        return losses


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("pcgard", ["a", "b"]), {}, r"No strategy named 'pcgard' \(did you mean 'pcgrad'\?\)"),
        ((3, ["a", "b"]), {}, "strategy should be a name, a Strategy class or an instance, found 3"),
        ((nn.Linear, ["a", "b"]), {}, "strategy should be a name"),
        (("equal", "ner"), {}, r"tasks should be a list of names such as \[\"ner\", \"pos\"\], found 'ner'"),
        (("equal", []), {}, "at least one name"),
        (("equal", ["a", "a"]), {}, r"each once, none blank, found \['a', 'a'\]"),
        (("fixed", ["a", "b", "c"]), {"alpha": [0.5, 0.5]}, "3"),
        (
            ("dwa", ["a", "b"]),
            {"temprature": 1.0},
            r"no hyperparameter 'temprature' \(did you mean 'temperature'\?\)",
        ),
        (("mgda", ["a", "b"]), {"smothing": 0.5}, r"\(did you mean 'smoothing'\?\)"),
        (
            ("mgda", ["a", "b"]),
            {"heads": "both"},
            "heads should be 'paper', 'plain' or 'weighted', found 'both'",
        ),
        ((Signed, ["a", "b"]), {"heads": "weighted"}, "may be negative"),
        (("mgda", ["a", "b"]), {"every": 0}, "every should be"),
        (("uw", ["a", "b"]), {"every": 2}, "for Gramian strategies; UncertaintyWeighting"),
        (("mgda", ["a", "b"]), {"smoothing": 1.0}, r"smoothing should be in \[0, 1\), found 1.0"),
        (("mgda", ["a", "b"]), {"accumulation": "windows"}, "accumulation should be"),
        (("uw", ["a", "b"]), {"weight_lr": 0.0}, "weight_lr should be positive and finite, found 0.0"),
        (("equal", ["a", "b"], "model"), {}, "model should be a torch.nn.Module, found str"),
        (("equal", ["a", "b"], nn.DataParallel(nn.Linear(1, 1))), {}, "DistributedDataParallel"),
        ((strategies.get("mgda")(3), ["a", "b"]), {}, "built for 3 tasks, but there are 2"),
        ((strategies.get("dwa")(2), ["a", "b"]), {"temperature": 1.0}, "belong to the constructor"),
    ],
)
def test_constructor(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        Balancer(*arguments, **options)


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
    ],
)
@pytest.mark.parametrize("name", ["equal", "mgda"])
def test_losses(name, losses, counts, message):
    with pytest.raises(ValueError, match=message):
        Balancer(name, ["ner", "pos"])(losses, counts)


def test_scores_and_optimizers():
    balancer = Balancer("validation", ["ner", "pos"])
    with pytest.raises(ValueError, match="'nr' is not one of the balancer's tasks"):
        balancer.end_epoch({"nr": 0.5})
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
        loss = Balancer(name, ["a", "b"], model)({"a": out[:, 0].sum(), "b": out[:, 1].sum()})
        if name == "mgda":
            with pytest.raises(ValueError, match="under FullyShardedDataParallel: shard with FSDP2"):
                loss.backward()
        else:
            loss.backward()


def test_reentrant_checkpointing_is_refused():
    layer, head = nn.Linear(4, 4), nn.Linear(4, 1)
    x = torch.randn(3, 4, requires_grad=True)
    for reentrant in (False, True):
        hidden = checkpoint(layer, x, use_reentrant=reentrant)
        losses = {"a": head(hidden).mean(), "b": hidden.pow(2).mean()}
        balancer = Balancer("mgda", ["a", "b"])
        if reentrant:
            with pytest.raises(ValueError, match="use_reentrant=False"):
                balancer(losses).backward()
        else:
            balancer(losses).backward()
            assert layer.weight.grad is not None


def test_learning_rate_of_learned_weights_is_the_strategy_s_unless_given():
    assert Balancer("uw", ["a", "b"]).weight_lr == 0.025
    assert Balancer("auto_lambda", ["a", "b"]).weight_lr == 1e-4
    assert Balancer("auto_lambda", ["a", "b"], weight_lr=0.1).weight_lr == 0.1


def test_several_batches_and_validation_rows_do_not_go_together():
    class Both(strategies.GramStrategy):
        batches, validation_rows = 2, True

        def weights(self, gram, losses, present=None):
            return losses

    with pytest.raises(ValueError, match="Both asks for 2 batches and for validation rows"):
        Balancer(Both, ["a", "b"])
