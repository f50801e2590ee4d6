"""A backward proposes, the optimizer step commits, a skipped step leaves the balancer where it was."""

import copy
import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from mtlweights import Balancer, strategies
from mtlweights.balancer.state import reminders
from tests.toys import assert_same_state, backward, batch, clone, gradients_of, losses_of, names, toy

ALL = strategies.names()
HERE = "tests.balancer.state.test_optimizer_steps"
pytestmark = pytest.mark.filterwarnings("ignore:(AdaTask|MConFIG) scales its own updates")


class Counting(strategies.GramStrategy):
    """Counts its calls and remembers the last losses: state that any double counting shows in."""

    def __init__(self, n_tasks):
        super().__init__(n_tasks)
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))
        self.register_buffer("last", torch.zeros(n_tasks, dtype=torch.float64))

    def weights(self, gram, losses, present):
        self.calls += 1
        self.last.copy_(torch.from_numpy(losses))
        return np.ones(len(losses))


def train(balancer, model, optimizer, steps, start=0, micro=1):
    micro *= balancer.strategy.batches
    for step in range(start, start + steps):
        optimizer.zero_grad()
        for k in range(micro):
            loss = balancer(losses_of(model, batch(seed=10 * step + k)))
            (loss / micro).backward()
        optimizer.step()


def make(name, attach, optimizer=torch.optim.SGD, n_tasks=2, **kwargs):
    model = toy(n_tasks)
    balancer = Balancer(name, names(n_tasks), model, **kwargs)
    optimizer = optimizer(model.parameters(), lr=0.05)
    if attach:
        assert balancer.attach(optimizer) is balancer
    return balancer, model, optimizer


@pytest.mark.parametrize("attach", [False, True])
@pytest.mark.parametrize("micro", [1, 4])
def test_one_commit_per_optimizer_step(attach, micro):
    balancer, model, optimizer = make(Counting, attach)
    train(balancer, model, optimizer, 5, micro=micro)
    assert int(balancer.strategy.step) == 5 and balancer.strategy.calls == 5


def test_a_backward_alone_changes_nothing():
    balancer, model, _ = make(Counting, True)
    balancer(losses_of(model, batch())).backward()
    assert int(balancer.strategy.step) == 0 and balancer.strategy.calls == 0


def test_another_models_optimizer_does_not_commit():
    balancer, model, optimizer = make(Counting, False)
    other = toy(seed=5)
    balancer(losses_of(model, batch())).backward()
    sum(other(batch())).backward()
    torch.optim.SGD(other.parameters(), lr=0.1).step()
    assert balancer.strategy.calls == 0
    optimizer.step()
    assert balancer.strategy.calls == 1


@pytest.mark.parametrize("reset", ["none", "zero", "data", "kept"])
@pytest.mark.parametrize("name", [Counting, "uw"])
def test_without_an_optimizer_the_next_call_commits(name, reset):
    balancer, model, _ = make(name, False)
    for _ in range(3):
        for _ in range(2):
            balancer(losses_of(model, batch())).backward()
        with torch.no_grad():
            for p in model.parameters():
                if p.grad is not None and reset == "data":
                    p.data -= 0.01 * p.grad
                elif p.grad is not None:
                    p -= 0.01 * p.grad
                if reset in ("none", "data"):
                    p.grad = None
                elif reset == "zero" and p.grad is not None:
                    p.grad.zero_()
    balancer.state_dict()
    assert int(balancer.strategy.step) == 3


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_poisons_grad_and_moves_nothing(name, value):
    balancer, model, optimizer = make(name, True, n_tasks=3)
    train(balancer, model, optimizer, 2)
    before = copy.deepcopy(balancer.state_dict())
    optimizer.zero_grad()

    def bad():
        losses = losses_of(model, batch())
        return losses | {"t1": losses["t1"] * value}

    backward(balancer, bad)
    for part in (model.encoder[0].weight, model.encoder[2].bias):
        assert not part.grad.isfinite().all()
    optimizer.step()
    assert_same_state(balancer.state_dict(), before)


@pytest.mark.parametrize(
    "name", [n for n in ALL if isinstance(strategies.get(n)(2), strategies.LossStrategy)]
)
def test_a_loss_based_step_never_waits_for_the_device(name):
    """Fake tensors have no values: reading one on the host, or branching on it, raises."""
    with FakeTensorMode():
        shared = torch.nn.Parameter(torch.ones(3))
        balancer, optimizer = Balancer(name, names(3)), torch.optim.SGD([shared], lr=0.1)
        balancer.attach(optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            balancer({f"t{i}": shared[i].exp() for i in range(3)}, {"t0": 4, "t1": 7}).backward()
            optimizer.step()
        assert set(balancer.metrics()) >= {"loss/t0", "weight/t0"}
        with pytest.raises(DataDependentOutputException):
            balancer.weights["t0"].item()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", [Counting, "uw", "random", "gradnorm"])
def test_overflow_in_a_head_only_is_a_skipped_step(name, fused):
    balancer, model, optimizer = make(
        name, True, lambda params, lr: torch.optim.Adam(params, lr=lr, fused=fused), n_tasks=2
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def step(poison):
        optimizer.zero_grad()
        scaler.scale(balancer(losses_of(model, batch()))).backward()
        if poison:
            model.heads[1].weight.grad[0, 0] = float("inf")
        weights = {k: v.item() for k, v in balancer.weights.items()}
        scaler.step(optimizer)
        scaler.update()
        return weights

    step(False)
    before, scale = copy.deepcopy(balancer.state_dict()), scaler.get_scale()
    weights = step(True)
    assert scaler.get_scale() == scale / 2
    assert_same_state(balancer.state_dict(), before)
    if name == "random":
        assert step(False) == weights
    else:
        step(False)
    assert int(balancer.strategy.step) == int(before["strategy"]["step"]) + 1
    if name is Counting:
        assert balancer.strategy.calls == 2


def test_learned_weights_move_once_per_step_by_the_mean_gradient():
    once, model, optimizer = make("uw", True)
    micro, copied, other = make("uw", True)
    for step in range(4):
        for balancer, net, opt, k in (
            (once, model, optimizer, 1),
            (micro, copied, other, (1, 4, 2, 7)[step]),
        ):
            opt.zero_grad()
            for _ in range(k):
                (balancer(losses_of(net, batch(seed=step))) / k).backward()
            opt.step()
    for a, b in zip(once.strategy.parameters(), micro.strategy.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-7) and a.abs().min() > 9e-4


def test_learned_weights_follow_adam():
    balancer, model, optimizer = make("uw", True, weight_lr=0.1)
    (param,) = balancer.strategy.parameters()
    twin = param.detach().clone().requires_grad_()
    adam = torch.optim.Adam([twin], lr=0.1)
    for step in range(5):
        optimizer.zero_grad()
        losses = losses_of(model, batch(seed=step))
        values = torch.stack([x.detach() for x in losses.values()])
        adam.zero_grad()
        (0.5 * (torch.exp(-twin) * values + twin)).sum().backward()
        balancer(losses).backward()
        optimizer.step()
        adam.step()
        torch.testing.assert_close(param.detach(), twin.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_state_of_an_absent_task_does_not_move(name):
    balancer, model, optimizer = make(name, True, n_tasks=3)
    train(balancer, model, optimizer, 2)
    before = copy.deepcopy(balancer.state_dict())
    optimizer.zero_grad()
    backward(balancer, lambda: losses_of(model, batch(), only=(0, 2)))
    optimizer.step()
    after = balancer.state_dict()
    rows = {**before["strategy"], "updates": before["updates"]}
    for key, value in {**after["strategy"], "updates": after["updates"]}.items():
        if value.dim():
            assert torch.equal(value[1].nan_to_num(), rows[key][1].nan_to_num()), key
    assert int(after["strategy"]["step"]) == 3


def halfway(name, ride):
    """Four steps and two epochs, then all that must be saved."""
    balancer, model, optimizer = make(name, True, torch.optim.Adam, n_tasks=3)
    for epoch in range(2):
        train(balancer, model, optimizer, 2, start=2 * epoch)
        balancer.end_epoch({"t0": 0.1 + 0.1 * epoch, "t1": 0.5, "t2": 0.7})
    saved = {"model": model.state_dict(), "optimizer": dict(optimizer.state_dict())}
    if not ride:
        del saved["optimizer"]["mtlweights"]
        saved["balancer"] = balancer.state_dict()
    return (balancer, model, optimizer), saved


def finish(balancer, model, optimizer):
    train(balancer, model, optimizer, 3, start=4)
    balancer.end_epoch({"t0": 0.2, "t1": 0.4, "t2": 0.9})
    train(balancer, model, optimizer, 2, start=7)
    return {"model": dict(model.state_dict()), "balancer": balancer.state_dict()}


def resume_all(source, target):
    """Run in a new process: every strategy from its saved state to the end."""
    out = {}
    for key, saved in torch.load(source, weights_only=True).items():
        balancer, model, optimizer = make(key.split("/")[0], True, torch.optim.Adam, n_tasks=3)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        if "balancer" in saved:
            balancer.load_state_dict(saved["balancer"])
        out[key] = finish(balancer, model, optimizer)
    torch.save(out, target)


@pytest.mark.filterwarnings("ignore:AutoLambda needs balancer.validate")
def test_resume_in_a_new_process_is_bit_exact(tmp_path):
    live, saved = {}, {}
    for name in ALL:
        for how in ("ride", "file"):
            key = f"{name}/{how}"
            live[key], saved[key] = halfway(name, how == "ride")
    torch.save(saved, tmp_path / "in.pt")
    program = f"import sys; from {HERE} import resume_all; resume_all(*sys.argv[1:])"
    subprocess.run([sys.executable, "-c", program, tmp_path / "in.pt", tmp_path / "out.pt"], check=True)
    resumed = torch.load(tmp_path / "out.pt", weights_only=True)
    assert len(resumed) == 2 * len(ALL)
    for key, parts in live.items():
        assert_same_state(resumed[key], finish(*parts))


def test_what_is_shared_is_saved_by_name():
    balancer, model, optimizer = make("mgda", True)
    train(balancer, model, optimizer, 1)
    file = io.BytesIO()
    torch.save(balancer.state_dict(), file)
    file.seek(0)
    fresh = Balancer("mgda", names(2), clone(model))
    fresh.load_state_dict(torch.load(file, weights_only=True))
    fresh(losses_of(fresh.model, batch(), only=(0,))).backward()
    assert "Shared: 4 tensors" in fresh.explain()


def test_load_refuses_other_tasks_and_other_strategies():
    state = make("uw", False)[0].state_dict()
    with pytest.raises(ValueError, match=r"for the tasks \['t0', 't1'\], this one for \['a', 'b'\]"):
        Balancer("uw", ["a", "b"]).load_state_dict(state)
    with pytest.raises(ValueError, match="does not fit GradNorm"):
        Balancer("gradnorm", names(2)).load_state_dict(state)


@pytest.mark.parametrize("name", ["mgda", "uw"])
def test_deepcopy_of_a_model_that_holds_its_balancer(name):
    balancer, model, optimizer = make(name, False)
    model.balancer = balancer
    train(balancer, model, optimizer, 2)
    twin = clone(model)
    assert twin.balancer.model is twin and int(twin.balancer.strategy.step) == 2
    assert not any("balancer" in n for n, _ in model.named_parameters())
    train(twin.balancer, twin, torch.optim.SGD(twin.parameters(), lr=0.05), 3)
    assert int(twin.balancer.strategy.step) == 5 and int(balancer.strategy.step) == 2


def test_epoch_means_are_weighted_by_counts():
    seen = []

    class Record(strategies.LossStrategy):
        def combine(self, losses, present):
            return losses.sum()

        def end_epoch(self, mean_losses, scores):
            seen.append((mean_losses, scores))

    w = torch.nn.Parameter(torch.ones(()))
    balancer = Balancer(Record, ["a", "b", "c"])
    optimizer = torch.optim.SGD([w], lr=0.0)
    for value, count in ((1.0, 30), (5.0, 10)):
        optimizer.zero_grad()
        balancer({"a": w * value, "b": w * 2}, {"a": count}).backward()
        optimizer.step()
    balancer.end_epoch({"a": 0.5, "c": 0.25})
    assert seen[0][0].tolist()[:2] == [2.0, 2.0] and np.isnan(seen[0][0][2])
    assert seen[0][1][0] == 0.5 and np.isnan(seen[0][1][1]) and seen[0][1][2] == 0.25
    balancer.end_epoch()
    assert np.isnan(seen[1][0]).all() and seen[1][1] is None


@pytest.mark.parametrize("name", ["uw", "mgda"])
def test_backward_options(name):
    balancer, model, _ = make(name, False)
    with pytest.raises(RuntimeError, match="create_graph"):
        balancer(losses_of(model, batch())).backward(create_graph=True)
    model.zero_grad()
    loss = balancer(losses_of(model, batch()))
    loss.backward(retain_graph=True)
    once = gradients_of(model)
    loss.backward()
    assert model.encoder[0].weight.grad.allclose(2 * once["encoder.0.weight"])
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.parametrize("fed", [False, True])
def test_a_strategy_that_waits_for_a_call_says_so_once(fed):
    balancer, model, optimizer = make("dwa", False)
    if fed:
        balancer.end_epoch()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(balancer, model, optimizer, 49)
        assert not caught
        train(balancer, model, optimizer, 60)
    messages = [str(w.message) for w in caught]
    want = "DynamicWeightAverage needs balancer.end_epoch(), not called in 50 steps: until then its weights"
    assert messages == ([] if fed else [f"{want} do not change."])


def test_at_the_end_of_an_epoch_what_is_still_missing_is_said():
    balancer, model, optimizer = make("auto_lambda", False)
    train(balancer, model, optimizer, 1)
    with pytest.warns(UserWarning, match=r"AutoLambda needs balancer.validate\(\), not called in 1 steps"):
        balancer.end_epoch()
    balancer, model, optimizer = make("validation", False)
    train(balancer, model, optimizer, 1)
    with pytest.warns(
        UserWarning, match=r"ended without any: call balancer.end_epoch\(\{task: score\}\), or"
    ):
        balancer.end_epoch()
    balancer.end_epoch()
    scored = make("validation", False)[0]
    scored.end_epoch({"t0": 0.5})


@pytest.mark.parametrize("name", ["pcgrad", "graddrop", "uw"])
def test_one_task_per_batch_leaves_a_gradient_method_without_work(name):
    def run(together, **options):
        balancer, model, optimizer = make(name, False, **options)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for k in range(reminders.PATIENCE + 1):
                optimizer.zero_grad()
                for j in range(options.get("accumulation_steps", 1)):
                    only = (0, 1) if together and k == 30 else ((k + j) % 2,)
                    balancer(losses_of(model, batch(), only=only)).backward()
                optimizer.step()
        return [str(w.message) for w in caught]

    said = run(False)
    assert len(said) == (0 if name == "uw" else 1)
    assert all("each step had a single task" in text and "accumulation='window'" in text for text in said)
    assert run(True) == [] == run(False, accumulation="window", accumulation_steps=2)


def test_after_step_reaches_only_a_strategy_that_wants_it():
    class Wants(strategies.LossStrategy):
        def combine(self, losses, present):
            return losses.sum()

        def after_step(self, losses, present):
            self.got = (losses.requires_grad, losses.tolist(), present)

    balancer, model, optimizer = make(Wants, True)
    train(balancer, model, optimizer, 1)
    balancer.after_step(lambda: losses_of(model, batch(), only=(1,)))
    value = losses_of(model, batch())["t1"].item()
    assert balancer.strategy.got[:2] == (False, [pytest.approx(value)]) and list(
        balancer.strategy.got[2]
    ) == [1]
    plain = make("equal", False)[0]
    plain.after_step(lambda: pytest.fail("called without need"))


class Nudge(strategies.LossStrategy):
    """Learns in after_step alone, from the losses as they are."""

    def __init__(self, n_tasks):
        super().__init__(n_tasks)
        self.knob = torch.nn.Parameter(torch.zeros(n_tasks))

    def combine(self, losses, present):
        return losses.sum()

    def after_step(self, losses, present):
        self.knob.grad = torch.zeros(self.n_tasks)
        self.knob.grad[present] = losses


def test_learned_weights_move_in_after_step_and_only_where_there_is_a_gradient():
    balancer, model, optimizer = make(Nudge, True, n_tasks=3, weight_lr=0.1)
    train(balancer, model, optimizer, 2)
    assert balancer.state_dict()["updates"].tolist() == [0, 0, 0]
    balancer.after_step(lambda: {"t0": torch.tensor(-2.0), "t1": torch.tensor(0.0)})
    assert balancer.strategy.knob.tolist() == pytest.approx([0.1, 0, 0], rel=1e-4)
    assert balancer.state_dict()["updates"].tolist() == [1, 0, 0]
    assert balancer.strategy.knob.grad is None
    before = copy.deepcopy(balancer.state_dict())
    balancer.after_step(lambda: {"t0": torch.tensor(float("nan")), "t1": torch.tensor(1.0)})
    assert_same_state(balancer.state_dict(), before)


def test_each_learned_weight_has_an_adam_of_its_own_age():
    """A task that joins late starts with Adam's first step, whatever the others have taken."""
    balancer, model, optimizer = make("imtl_l", True, n_tasks=3, weight_lr=0.1)
    for only in ((0, 2), (0, 2), (0, 2), (0, 1, 2)):
        optimizer.zero_grad()
        balancer(losses_of(model, batch(), only)).backward()
        optimizer.step()
    (param,) = balancer.strategy.parameters()
    assert abs(param[1].item()) == pytest.approx(0.1, rel=1e-4)
    assert balancer.state_dict()["updates"].tolist() == [4, 1, 4]


def test_the_epoch_s_mean_losses_are_over_all_micro_batches_by_count():
    class Recorder(strategies.LossStrategy):
        def combine(self, losses, present):
            return losses.sum()

        def end_epoch(self, mean_losses, scores):
            self.means = mean_losses

    weight = torch.nn.Parameter(torch.ones(()))
    balancer, optimizer = Balancer(Recorder, ["a", "b"]), torch.optim.SGD([weight], lr=0.0)
    balancer.attach(optimizer)
    for values in ((1.0, 3.0), (5.0,)):
        for value in values:
            balancer({"a": value * weight}, {"a": 3 if value == 3.0 else 1}).backward()
        optimizer.step()
        optimizer.zero_grad()
    balancer.end_epoch()
    assert balancer.strategy.means.tolist()[0] == pytest.approx((1 + 3 * 3 + 5) / 5)
    assert np.isnan(balancer.strategy.means[1])
