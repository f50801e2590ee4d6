"""fit and evaluate on a toy problem, with the real Accelerate, models and Balancer."""

import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch.optim.optimizer import register_optimizer_step_pre_hook

import mtlweights.train.loop
from mtlweights import Balancer
from mtlweights.problems import Problem, Task
from mtlweights.problems.models import MLP, TableInputs
from mtlweights.train import Settings, evaluate, fit, resolve_device
from mtlweights.train.history import History, Mean

COLOUR = Task("colour", "classification", ("accuracy",), labels=("red", "green", "blue"), untrained=0.4)
SIZE = Task("size", "regression", ("rmse", "pearson"), untrained=1.5, target=0.0)
CPU = Settings(epochs=3, batch_size=8, lr=0.02, device="cpu")


def toy(n=60, dropout=0.1):
    """A Problem of random rows: which column is largest (colour), and their weighted sum (size)."""
    draw = np.random.default_rng(0)

    def examples(n):
        rows = draw.normal(size=(n, 4))
        return [
            {
                "input": row.tolist(),
                "targets": {"colour": int(row[:3].argmax()), "size": float(row @ [1, -1, 0.5, 1])},
            }
            for row in rows
        ]

    splits = {"train": examples(n), "dev": examples(40), "test": examples(30)}
    inputs = TableInputs.fit([e["input"] for e in splits["train"]])
    encoder = partial(MLP, inputs.n_inputs, (16,), dropout)
    return Problem("toy", (COLOUR, SIZE), splits, inputs, encoder, {"epochs": 2, "device": "cpu"})


def pair(problem, strategy="equal", kind=Balancer, **options):
    torch.manual_seed(1)
    model = problem.build()
    return model, kind(strategy, [task.name for task in problem.tasks], model, **options)


def vector(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def with_train(problem, examples):
    return replace(problem, splits={**problem.splits, "train": examples})


@pytest.fixture
def steps():
    """(learning rate, gradient norm) of every optimizer step, as the optimizer sees them."""
    seen = []

    def hook(optimizer, args, kwargs):
        [group] = optimizer.param_groups
        norm = torch.stack([p.grad.norm() for p in group["params"] if p.grad is not None]).norm()
        seen.append((group["lr"], float(norm)))

    handle = register_optimizer_step_pre_hook(hook)
    yield seen
    handle.remove()


# a run


def test_learns_and_ends_with_the_best_weights():
    problem = toy()
    model, balancer = pair(problem, "uw")
    history = fit(model, balancer, problem, replace(CPU, epochs=6, lr=0.2), progress=False)
    scores = [row["score"] for row in history.rows]
    assert [row["epoch"] for row in history.rows] == [1, 2, 3, 4, 5, 6]
    assert history.best_score == max(scores) > 0.4 and scores[0] < 0.9 * max(scores)
    assert history.best_epoch == 1 + scores.index(max(scores))
    best = history.rows[history.best_epoch - 1]
    assert evaluate(model, problem, "dev", batch_size=8) == best["dev"]
    by_hand = [task.normalised(best["dev"][task.name][task.metrics[0]]) for task in problem.tasks]
    assert best["score"] == pytest.approx(np.mean(by_hand))
    assert history.steps == 6 * 8
    assert history.seconds == pytest.approx(sum(row["seconds"] for row in history.rows))
    assert set(history.rows[0]["weight"]) == set(history.rows[0]["train"]) == {"colour", "size"}


def test_best_weights_are_not_the_last_ones():
    problem = toy()
    model, balancer = pair(problem)
    # the last epochs, at a constant and far too high rate, are not the best
    history = fit(
        model, balancer, problem, replace(CPU, epochs=8, lr=3.0, schedule="constant"), progress=False
    )
    assert history.best_epoch < 8 and history.rows[-1]["score"] < history.best_score
    assert evaluate(model, problem, "dev", batch_size=8) == history.rows[history.best_epoch - 1]["dev"]


def test_settings_default_to_the_problems():
    problem = toy()
    assert len(fit(*pair(problem), problem, progress=False).rows) == 2


def test_a_function_of_the_seed_alone():
    def run(seed, noise):
        problem = toy()
        model, balancer = pair(problem)
        torch.manual_seed(noise)
        fit(model, balancer, problem, replace(CPU, seed=seed), progress=False)
        return vector(model)

    assert torch.equal(run(0, 5), run(0, 6))
    assert not torch.equal(run(0, 5), run(1, 5))


def test_each_epoch_is_shuffled_anew():
    class Seen(Problem):
        def collate(self, examples):
            order.extend(id(e) for e in examples)
            return super().collate(examples)

    order, base = [], toy()
    problem = Seen(**vars(base))
    fit(*pair(problem), problem, replace(CPU, epochs=2), progress=False)
    train = {id(e) for e in base.splits["train"]}
    order = [i for i in order if i in train]
    first, second = order[:60], order[60:]
    assert set(first) == set(second) == train and len(order) == 120
    assert first != second and first != [id(e) for e in base.splits["train"]]


def test_modes_are_put_back_and_training_runs_in_training_mode():
    class Watching(Balancer):
        def __call__(self, losses, counts=None):
            modes.add((model.training, model.heads["size"].training))
            return super().__call__(losses, counts)

    modes, problem = set(), toy()
    model, balancer = pair(problem, kind=Watching)
    model.heads["size"].eval()
    fit(model, balancer, problem, CPU, progress=False)
    assert modes == {(True, True)}
    assert model.training and not model.heads["size"].training


def test_rows_hold_the_mean_over_items():
    problem = toy(n=50, dropout=0.0)  # batches of 8 and a last one of 2
    examples = [dict(e, targets=dict(e["targets"])) for e in problem.splits["train"]]
    for example in examples[:30]:
        del example["targets"]["size"]
    problem = with_train(problem, examples)
    model, balancer = pair(problem, "fixed", alpha=0.25)
    with torch.no_grad():
        batch = problem.collate(examples)
        expected = {
            name: float(loss) for name, loss in model(batch["inputs"], batch["targets"]).losses.items()
        }
    history = fit(
        model, balancer, problem, replace(CPU, lr=1e-30, weight_decay=0.0, epochs=1), progress=False
    )
    assert history.rows[0]["train"] == pytest.approx(expected, rel=1e-5)
    assert history.rows[0]["weight"] == pytest.approx({"colour": 0.25, "size": 0.75})


def test_examples_without_any_label_are_left_out():
    problem = toy(n=24)
    bare = [
        {"input": [0.0] * 4, "targets": {"colour": -100, "size": math.nan}},
        {"input": [0.0] * 4, "targets": {}},
    ]
    examples = [e for label in problem.splits["train"] for e in (label, *bare)]
    history = fit(*pair(problem), with_train(problem, examples), replace(CPU, batch_size=1), progress=False)
    assert history.steps == 3 * 24


def test_scores_reach_the_balancer():
    class Told(Balancer):
        def end_epoch(self, validation=None):
            told.append(validation)
            super().end_epoch(validation)

    told, problem = [], toy()
    model, balancer = pair(problem, "validation", kind=Told)
    history = fit(model, balancer, problem, CPU, progress=False)
    dev = [row["dev"] for row in history.rows]
    assert told == [
        {"colour": (d["colour"]["accuracy"] - 0.4) / 0.6, "size": (d["size"]["rmse"] - 1.5) / -1.5}
        for d in dev
    ]


def test_losses_after_the_step_are_of_the_same_batch():
    class Told(Balancer):
        def __call__(self, losses, counts=None, **options):
            self.seen = {task: loss.item() for task, loss in losses.items()}, counts
            return super().__call__(losses, counts, **options)

        def after_step(self, closure, counts=None):
            with torch.no_grad():
                ((losses, numbers),) = closure()
            told.append((sum(self.seen[0].values()), sum(x.item() for x in losses.values())))
            assert numbers == self.seen[1]
            super().after_step(closure, counts)

    told, problem = [], toy(dropout=0.0)
    model, balancer = pair(problem, "famo", kind=Told)
    fit(model, balancer, problem, CPU, progress=False)
    assert len(told) == 3 * 8
    assert all(after < before for before, after in told)  # on another batch it would be so half the time
    assert balancer.strategy.before.isnan().all() and balancer.strategy.logits.abs().min() > 1e-3


@pytest.mark.parametrize("name", ["famo", "mgda"])
def test_a_window_s_losses_after_the_step_are_those_of_one_big_batch(name):
    ends = []
    for accumulate, options in ((1, {}), (4, {"accumulation": "window"})):
        model, balancer = pair(toy(n=64, dropout=0.0), name, **options)
        settings = replace(CPU, batch_size=32 // accumulate, accumulate=accumulate)
        fit(model, balancer, toy(n=64, dropout=0.0), settings, progress=False)
        ends.append((vector(model), balancer.state_dict()["strategy"]))
    torch.testing.assert_close(ends[0][0], ends[1][0], rtol=1e-4, atol=1e-5)
    for key, value in ends[0][1].items():
        torch.testing.assert_close(ends[1][1][key], value, rtol=1e-3, atol=1e-4, equal_nan=True)


def test_stops_after_patience():
    problem = toy()
    settings = replace(CPU, epochs=9, lr=1e-30, weight_decay=0.0, patience=2)
    history = fit(*pair(problem), problem, settings, progress=False)
    assert (len(history.rows), history.best_epoch) == (3, 1)


def test_a_nan_score_is_never_best():
    history = History()
    row = {"seconds": 1.0}
    got = [
        history.add({**row, "epoch": i, "score": s})
        for i, s in enumerate([math.nan, math.nan, -2.0, math.nan, -2.0], 1)
    ]
    assert got == [True, False, True, False, False]
    assert (history.best_epoch, history.best_score) == (3, -2.0)


# steps


def rate(step, total, warmup, schedule):
    if step < warmup:
        return (step + 1) / (warmup + 1)
    left = (total - step) / (total - warmup)
    return {"constant": 1, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}[schedule]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize(
    ("accumulate", "updates"), [(1, 8), (3, 3)]
)  # 8 batches an epoch: windows of 3, 3 and 2
def test_schedule_counts_optimizer_steps(steps, schedule, accumulate, updates):
    problem = toy()
    settings = replace(CPU, schedule=schedule, accumulate=accumulate, warmup=0.3)
    history = fit(*pair(problem), problem, settings, progress=False)
    total = 3 * updates
    assert history.steps == total
    expected = [0.02 * rate(i, total, round(0.3 * total), schedule) for i in range(total)]
    assert [lr for lr, _ in steps] == pytest.approx(expected)
    assert [row["lr"] for row in history.rows] == pytest.approx(expected[updates - 1 :: updates])


def test_accumulated_batches_are_one_big_batch():
    def run(**settings):
        problem = toy(n=40, dropout=0.0)  # 32 + 8: the last window holds one small batch of four
        model, balancer = pair(problem)
        fit(model, balancer, problem, replace(CPU, clip=0.5, **settings), progress=False)
        return vector(model)

    one = run(batch_size=32)
    torch.testing.assert_close(run(batch_size=8, accumulate=4), one, rtol=1e-4, atol=1e-5)


def test_clips_the_gradient(steps):
    problem = toy()
    fit(*pair(problem), problem, replace(CPU, clip=None), progress=False)
    assert max(norm for _, norm in steps) > 1
    steps.clear()
    fit(*pair(problem), problem, replace(CPU, clip=0.1), progress=False)
    assert max(norm for _, norm in steps) == pytest.approx(0.1, rel=1e-3)


def test_precision_changes_between_runs_and_leaves_no_trace():
    mine = Accelerator(cpu=True, mixed_precision="no", gradient_accumulation_steps=7)
    problem, seen = toy(), set()
    model, balancer = pair(problem)
    model.encoder.layers[0].register_forward_hook(lambda module, args, output: seen.add(output.dtype))
    fit(model, balancer, problem, replace(CPU, precision="bf16"), progress=False)
    assert seen == {torch.bfloat16}
    seen.clear()
    history = fit(model, Balancer("equal", ["colour", "size"], model), problem, CPU, progress=False)
    assert seen == {torch.float32} and "forward" not in vars(model) and "_original_forward" not in vars(model)
    assert history.best_score > 0.3
    assert mine.state.mixed_precision == "no" and mine.gradient_state.num_steps == 7


def test_forward_is_put_back_after_an_error():
    problem = toy()
    model, balancer = pair(problem)
    with pytest.raises(FloatingPointError):
        fit(model, balancer, problem, replace(CPU, precision="bf16", lr=1e30, clip=None), progress=False)
    assert "forward" not in vars(model) and model.training


# losses that are not finite


def test_names_the_task_epoch_and_step_of_a_bad_loss():
    problem = toy()
    examples = list(problem.splits["train"])
    examples[7] = {"input": examples[7]["input"], "targets": {"colour": 1, "size": math.inf}}

    class Bad(Problem):
        def collate(self, examples):
            batch = super().collate(examples)
            sizes.append(bool(torch.isinf(batch["targets"]["size"]).any()))
            return batch

    sizes = []
    problem = Bad(**vars(with_train(problem, examples)))
    with pytest.raises(FloatingPointError) as error:
        fit(*pair(problem), problem, CPU, progress=False)
    step = sizes.index(True) + 1
    message = str(error.value)
    assert f"loss of task 'size' is NaN or infinite from step {step} on (epoch 1: steps 1 to 8)" in message
    assert "lr below 0.02" in message and "clip below 1.0" in message and "labels" in message


def test_a_diverging_run_stops_at_the_next_check(monkeypatch, steps):
    monkeypatch.setattr(mtlweights.train.loop, "LOG_EVERY", 3)
    problem = toy()
    with pytest.raises(FloatingPointError, match=r"'colour' and 'size' is .* from step 2 on"):
        fit(*pair(problem), problem, replace(CPU, lr=1e30, warmup=0.0, epochs=50, clip=None), progress=False)
    assert len(steps) == 3


def test_mean_leaves_out_what_is_not_finite():
    mean = Mean()
    assert math.isnan(float(mean)) and mean.first == math.inf
    for step, (value, weight) in enumerate([(1.0, 3), (math.nan, 5), (math.inf, 1), (5.0, 1)], 1):
        mean.add(torch.tensor(value, requires_grad=True), weight, step)
    assert float(mean) == 2.0 and float(mean.first) == 2 and not mean.total.requires_grad


# evaluate


def test_evaluate_is_task_score_over_the_split_in_order():
    problem = toy()
    model, _ = pair(problem)
    model.heads["size"].eval()
    batch = problem.collate(problem.splits["test"])
    grads = []
    model.register_forward_hook(lambda *_: grads.append(torch.is_grad_enabled()))
    got = evaluate(model, problem, "test", batch_size=7, device="cpu")
    assert grads == [False] * 5
    assert model.training and not model.heads["size"].training
    model.eval()
    outputs = model(batch["inputs"]).outputs
    for task in problem.tasks:
        assert got[task.name] == pytest.approx(
            task.score([outputs[task.name]], [batch["targets"][task.name]])
        )


def test_evaluate_takes_no_random_numbers():
    problem = toy()
    model, _ = pair(problem)
    before = torch.get_rng_state()
    evaluate(model, problem)
    assert torch.equal(before, torch.get_rng_state())


# what is refused


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("schedule", "cosin", "did you mean 'cosine'"),
        ("precision", "bf61", "did you mean 'bf16'"),
        ("device", "gpu", "'auto', 'cpu', 'cuda', 'mps', got 'gpu'"),
        ("device", ["cpu"], "device must be one of"),
        ("epochs", 0, "epochs must be a whole number from 1 to 2^32 - 1, got 0"),
        ("epochs", 2.0, "got 2.0"),
        ("batch_size", True, "got True"),
        ("accumulate", None, "accumulate must be"),
        ("patience", 0, "patience must be"),
        ("seed", -1, "seed must be a whole number from 0 to 2^32 - 1"),
        ("seed", 2**32, "seed must be"),
        ("lr", "1e-3", "lr must be a number above 0, got '1e-3'"),
        ("lr", 0.0, "lr must be"),
        ("lr", math.nan, "lr must be"),
        ("weight_decay", -0.1, "weight_decay must be a number from 0"),
        ("clip", 0, "clip must be"),
        ("warmup", 1.0, "warmup is a share of the steps, below 1, got 1.0"),
    ],
)
def test_bad_settings(field, value, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Settings(**{field: value})


def refused(error, message, change=lambda problem: problem, tasks=("colour", "size"), **options):
    """fit raises before it has touched the model or the generators."""
    problem = change(toy())
    model, _ = pair(toy())
    before, state = vector(model), torch.get_rng_state()
    settings = options.pop("settings", CPU)
    with pytest.raises(error, match=message) as raised:
        fit(model, Balancer("equal", tasks), problem, settings, progress=False, **options)
    assert "\n" not in str(raised.value)
    assert torch.equal(before, vector(model)) and torch.equal(state, torch.get_rng_state())


def without(problem, split, name):
    examples = [
        {**e, "targets": {k: v for k, v in e["targets"].items() if k != name}} for e in problem.splits[split]
    ]
    return replace(problem, splits={**problem.splits, split: examples})


def test_refuses_what_does_not_fit(tmp_path, monkeypatch):
    refused(
        ValueError,
        r"balancer is for the tasks \['colour', 'sise'\].*\['colour', 'size'\]",
        tasks=("colour", "sise"),
    )
    refused(ValueError, "train split of problem 'toy' is empty", lambda p: with_train(p, []))
    refused(ValueError, "dev split .* no label for size", lambda p: without(p, "dev", "size"))
    refused(ValueError, "train split .* no label for colour", lambda p: without(p, "train", "colour"))
    refused(ValueError, "tracker must be .* did you mean 'tensorboard'", trackers=("tensorbord",))
    refused(ValueError, "tensorboard tracker writes to the folder", trackers=("tensorboard",))
    (tmp_path / "file").write_text("")
    refused(
        OSError,
        r"cannot write to .*file/run: Not a directory; choose another folder",
        folder=tmp_path / "file" / "run",
    )
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        refused(ValueError, "variable RANK expected, but not set")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    refused(ImportError, r'accelerate here: pip install "mtlweights\[bench\]"')


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_said_first():
    refused(
        ValueError,
        "device='cuda': torch sees no such device",
        lambda p: with_train(p, []),
        settings=Settings(device="cuda"),
    )
    refused(ValueError, "precision='fp16' needs a GPU", settings=Settings(device="cpu", precision="fp16"))
    assert resolve_device("auto") == torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    with pytest.raises(ValueError, match=r"split must be one of .* did you mean 'test'"):
        evaluate(pair(toy())[0], toy(), "tests")


# what is shown and logged


def test_progress_bar(capsys, monkeypatch):
    problem = toy()
    fit(*pair(problem), problem, CPU, progress=False)
    assert capsys.readouterr() == ("", "")
    fit(*pair(problem), problem, CPU)
    assert capsys.readouterr() == ("", "")  # nobody is at a terminal
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda _: True)
    history = fit(*pair(problem), problem, CPU)
    shown = capsys.readouterr().err
    assert "epoch 3/3" in shown and "24/24" in shown and f"score={history.rows[-1]['score']:.4f}" in shown


def test_tensorboard(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(mtlweights.train.loop, "LOG_EVERY", 4)
    problem = toy()
    history = fit(
        *pair(problem, "pcgrad"), problem, CPU, folder=tmp_path, trackers=("tensorboard",), progress=False
    )
    events = EventAccumulator(str(tmp_path / "mtlweights"))
    events.Reload()
    logged = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    for row, at in zip(history.rows, (8, 16, 24), strict=True):
        for tag, value in {
            "score": row["score"],
            "lr": row["lr"],
            "loss/size": row["train"]["size"],
            "weight/colour": row["weight"]["colour"],
            "dev/size/pearson": row["dev"]["size"]["pearson"],
        }.items():
            assert (at, pytest.approx(value)) in logged[tag] and len(logged[tag]) == 3
    assert [step for step, _ in logged["batch/loss/size"]] == [4, 8, 12, 16, 20, 24]
    assert "batch/weight/colour" in logged


def test_wandb_offline(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    problem = toy()
    fit(*pair(problem), problem, replace(CPU, epochs=1), folder=tmp_path, trackers=("wandb",), progress=False)
    wandb.teardown()  # ends wandb's own process, which writes the file
    [run] = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    written = run.read_bytes()
    assert all(name in written for name in (b"loss/size", b"dev/colour/accuracy", b"score", b"batch_size"))


def test_importing_train_loads_nothing_heavy():
    heavy = {"accelerate", "tensorboard", "wandb"}
    code = f"import sys, mtlweights.train as t; print(t.fit.__name__, *{heavy} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True
    )
    assert found.stdout.split() == ["fit"]
