"""``Balancer(groups=)``: each group of parameters is balanced as if it were all that the tasks share."""

import copy

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from mtlweights import Balancer
from mtlweights.balancer.step.groups import APART
from tests.gradients.test_fsdp import shard
from tests.tiny import on_ranks
from tests.toys import assert_same, batch, gradients_of, losses_of, named, names, toy

GROUPS = ("encoder.0", "encoder.2")
SIZES = (5, 11)


ALL = ["pcgrad", "mgda", "config", "cagrad", "gradvac", "nash_mtl", "encodec", "pivrg", "modo"]
STATEFUL = ["gradvac", "nash_mtl", "encodec"]


def trained(balancer, model, steps=3, holes=(None, (0, 2), None), first=0):
    """The gradients of every step of a small training; the parameters move by SGD."""
    optimizer, found = torch.optim.SGD(model.parameters(), lr=0.05), []
    for step in range(first, first + steps):
        optimizer.zero_grad()
        parts = balancer.strategy.batches
        for _ in range(parts):
            data = batch(seed=step, dtype=torch.float64)
            (balancer(losses_of(model, data, holes[step % len(holes)])) / parts).backward()
        found.append(gradients_of(model))
        yield found[-1]
        optimizer.step()


@pytest.mark.parametrize("name", ALL)
def test_each_group_is_what_a_balancer_of_its_own_makes_of_it(name):
    model = toy(3, dtype=torch.float64)
    balancer = Balancer(name, names(3), model, groups="layer", heads="plain")
    alone = []
    for k, group in enumerate(GROUPS):
        twin = copy.deepcopy(model)
        part = twin.get_submodule(group)
        own = Balancer(name, names(3), twin, shared=[part], heads="plain", seed=k * APART)
        alone.append((own, twin, torch.optim.SGD(twin.parameters(), lr=0.05)))
    for step, gradients in enumerate(trained(balancer, model)):
        for group, (own, twin, optimizer) in zip(GROUPS, alone, strict=True):
            values = copy.deepcopy(model.state_dict())
            twin.load_state_dict(values)
            optimizer.zero_grad()
            for _ in range(own.strategy.batches):
                data = batch(seed=step, dtype=torch.float64)
                (own(losses_of(twin, data, (None, (0, 2), None)[step])) / own.strategy.batches).backward()
            mine = {n: g for n, g in gradients.items() if n.startswith((group, "heads"))}
            theirs = {n: g for n, g in gradients_of(twin).items() if n in mine}
            assert_same(mine, theirs, 1e-7)
            optimizer.step()
    parts = balancer._state.strategy.each()
    assert all(int(part.step) == 3 for part in parts[:2])
    for (own, _, _), part in zip(alone, parts, strict=False):
        for key, value in own.strategy.state_dict().items():
            torch.testing.assert_close(part.state_dict()[key], value, rtol=1e-6, atol=1e-9, equal_nan=True)


def test_a_group_knows_the_tasks_that_reach_it_alone():
    model = toy(3, dtype=torch.float64)
    data = batch(dtype=torch.float64)

    def losses(model):
        found = losses_of(model, data)
        found["t2"] = model.encoder[0](data[0]).square().mean()  # does not reach encoder.2
        return found

    balancer = Balancer("mgda", names(3), model, groups="layer")
    balancer(losses(model)).backward()
    said = balancer.metrics()
    assert {key for key in said if key.startswith("weight/t2")} == {"weight/t2", "weight/t2/encoder.0"}
    two = toy(3, dtype=torch.float64)
    Balancer("mgda", names(2), two, shared=[two.encoder[2]])(losses_of(two, data, (0, 1))).backward()
    torch.testing.assert_close(model.encoder[2].weight.grad, two.encoder[2].weight.grad)
    shares = [float(said[f"weight/t0/{group}"]) for group in GROUPS]
    assert shares[0] != shares[1] and float(said["weight/t0"]) == pytest.approx(sum(shares) / 2)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        (
            "layer",
            ("encoder.0", "encoder.2", "frozen", "unused", *(f"heads.{k}" for k in range(3)), "others"),
        ),
        (lambda name: name.startswith("encoder.0"), ("selected", "others")),
        (
            lambda name: name.split(".")[0] if "heads" not in name else None,
            ("encoder", "frozen", "unused", "others"),
        ),
        (lambda name: int(name == "encoder.0.bias") or None, ("1", "others")),
    ],
)
def test_the_names_of_groups(groups, expected):
    balancer = Balancer("pcgrad", names(3), toy(3), groups=groups)
    assert balancer.options.groups == expected


def test_modules_and_parameters_and_one_group_is_no_group():
    model = toy(3)
    by_parts = Balancer("pcgrad", names(3), model, groups=[model.encoder[2], model.encoder[0].bias])
    assert by_parts.options.groups == ("encoder.2", "encoder.0.bias", "others")
    by_parts(losses_of(model, batch())).backward()
    said = by_parts.explain()
    assert "Group encoder.2: 2 tensors, 72" in said and "Group others: 1 tensors, 40" in said
    model, plain = toy(3, dtype=torch.float64), toy(3, dtype=torch.float64)
    one = Balancer("nash_mtl", names(3), model, groups=model.encoder, smoothing=0.7)
    both = trained(one, model), trained(Balancer("nash_mtl", names(3), plain, smoothing=0.7), plain)
    for mine, theirs in zip(*both, strict=True):
        assert_same(mine, theirs, 1e-9)  # weighted heads too


@pytest.mark.parametrize("name", STATEFUL)
def test_it_goes_on_from_a_checkpoint_and_in_windows(name):
    model = toy(3, dtype=torch.float64)
    balancer = Balancer(name, names(3), model, groups="layer", smoothing=0.5)
    list(trained(balancer, model))
    twin = copy.deepcopy(model)
    again = Balancer(name, names(3), twin, groups="layer", smoothing=0.5)
    again.load_state_dict(balancer.state_dict())
    windows = copy.deepcopy(model)
    window = Balancer(
        name, names(3), windows, groups="layer", smoothing=0.5, accumulation="window", accumulation_steps=2
    )
    window.load_state_dict(balancer.state_dict())
    mine, theirs = trained(balancer, model, first=3), trained(again, twin, first=3)
    optimizer = torch.optim.SGD(windows.parameters(), lr=0.05)
    for step, (a, b) in enumerate(zip(mine, theirs, strict=True), 3):
        for key, gradient in a.items():
            assert gradient is None or torch.equal(gradient, b[key])
        optimizer.zero_grad()
        for piece in zip(*[x.split(SIZES) for x in batch(seed=step, dtype=torch.float64)], strict=True):
            losses = losses_of(windows, piece, (None, (0, 2), None)[step % 3])
            (window(losses, dict.fromkeys(losses, len(piece[0]))) / 2).backward()
        assert_same(gradients_of(windows), a, 1e-6)
        optimizer.step()
    with pytest.raises(ValueError, match=r"groups .*, this one \['selected', 'others'\]"):
        Balancer(name, names(3), model, groups=lambda n: "0" in n).load_state_dict(balancer.state_dict())
    with pytest.raises(ValueError, match="this one None"):
        Balancer(name, names(3), model, smoothing=0.5).load_state_dict(balancer.state_dict())


def test_units_of_their_own_and_a_step_that_is_not_finite():
    model, plain = toy(3), toy(3)
    Balancer("mgda", names(3), model, groups=model.encoder, normalise="l2")(
        losses_of(model, batch())
    ).backward()
    Balancer("mgda", names(3), plain, normalise="l2")(losses_of(plain, batch())).backward()
    assert_same(gradients_of(model), gradients_of(plain), 1e-6)
    balancer = Balancer("nash_mtl", names(3), model, groups="layer")
    losses = losses_of(model, batch())
    balancer(losses | {"t0": losses["t0"] * torch.inf}).backward()
    assert not any(p.grad.isfinite().all() for p in model.encoder.parameters())
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert int(balancer.strategy.step) == 0


def rank_main(rank, folder):
    out = {}
    for name in STATEFUL[:2]:
        for kind in ("ddp", "fsdp"):
            model = named(unused=kind == "ddp")
            wrapped = (
                DistributedDataParallel(model, find_unused_parameters=True) if kind == "ddp" else shard(model)
            )
            balancer = Balancer(name, names(3), wrapped, groups="layer")
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
            for step in range(3):
                optimizer.zero_grad()
                only = (0, 2) if kind == "ddp" and rank else None
                losses = wrapped([x.split(SIZES)[rank] for x in batch(seed=step)], only)
                balancer(losses, dict.fromkeys(losses, SIZES[rank])).backward()
                optimizer.step()
            out[name, kind] = {
                k: getattr(v, "full_tensor", lambda v=v: v)() for k, v in model.state_dict().items()
            }
    torch.save(out, f"{folder}/{rank}.pt")


def test_two_processes_equal_one(tmp_path):
    first, second = on_ranks(rank_main, tmp_path)
    for (name, kind), found in first.items():
        for key, value in second[name, kind].items():
            assert torch.equal(value, found[key])
        model = named(unused=kind == "ddp")
        balancer = Balancer(name, names(3), model, groups="layer")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for step in range(3):
            optimizer.zero_grad()
            data = batch(seed=step)
            losses = model(data)
            if kind == "ddp":  # the second rank has no items of t1
                losses["t1"] = model([x.split(SIZES)[0] for x in data], (1,))["t1"]
            counts = {"t0": 16, "t1": SIZES[0] if kind == "ddp" else 16, "t2": 16}
            balancer(losses, counts).backward()
            optimizer.step()
        assert_same(found, dict(model.state_dict()), 1e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("uw", {}, "UncertaintyWeighting looks at losses alone"),
        ("graddrop", {}, "GradDrop gives one direction for all"),
        ("auto_lambda", {}, "AutoLambda takes validation gradients"),
        ("gradnorm", {}, "GradNorm learns one weight per task"),
        ("mgda", {"gradients": "features"}, "use one of them"),
        ("mgda", {"every": 2}, "every= saves nothing with groups="),
        ("mgda", {"shared": lambda name: True}, "leave shared= out"),
        ("mgda", {"groups": "layers"}, "groups should be 'layer', modules or parameters, .*found 'layers'"),
        ("mgda", {"groups": 3}, "groups should be .*found 3"),
        ("mgda", {"groups": [3]}, "found 3 among them"),
        ("mgda", {"groups": lambda name: 2.5}, r"found 2.5 for 'encoder.0.weight'"),
        ("mgda", {"groups": lambda name: False}, "selects no parameter"),
        ("mgda", {"groups": []}, "selects no parameter"),
        ("mgda", {"groups": torch.nn.Linear(2, 2)}, "a part without a parameter of the model, number 1"),
        ("mgda", {"model": None}, "pass the model"),
    ],
)
def test_what_cannot_be_grouped_is_refused(name, options, message):
    options = {"groups": "layer", "model": toy(2)} | options
    with pytest.raises(ValueError, match=message):
        Balancer(name, names(2), **options)


def test_a_line_search_has_no_objective_to_follow():
    model, data = toy(2), batch()
    balancer = Balancer("pcgrad", names(2), model, groups="layer")
    optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe")

    def closure():
        loss = balancer(losses_of(model, data))
        loss.backward()
        return loss

    with pytest.raises(ValueError, match="gives weights of its own to each of groups="):
        optimizer.step(closure)
