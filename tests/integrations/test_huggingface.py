"""The Trainer subclass with a real Trainer: any strategy, accumulation, evaluation, logs, resume, search."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from mtlweights import Balancer, strategies
from mtlweights.integrations.huggingface import MultiTaskTrainer
from tests.integrations.tiny import (
    MICRO,
    SEVERAL,
    TASKS,
    TinyBert,
    assert_close,
    examples,
    launch,
    plain_loop,
    weights_of,
)
from tests.toys import assert_same_state

ALL = [name for name in strategies.names() if name not in SEVERAL]


def arguments(folder, **options):
    plain = {
        "per_device_train_batch_size": 16,
        "num_train_epochs": 1,
        "learning_rate": 0.05,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }
    return TrainingArguments(str(folder), **{**plain, **options})


def trainer(folder, name="pcgrad", model=None, balancer=None, data=None, **options):
    """A MultiTaskTrainer on 48 sentences; ``options`` are TrainingArguments."""
    model = TinyBert() if model is None else model
    balancer = Balancer(name, TASKS, model) if balancer is None else balancer
    return MultiTaskTrainer(
        model, arguments(folder, **options), train_dataset=data or examples(), balancer=balancer
    )


class Calling(nn.Module):
    """No subclass: the balancer is called in ``forward``, and its scalar is the model's loss."""

    def __init__(self, name, inner=None, **options):
        super().__init__()
        self.inner = TinyBert() if inner is None else inner
        self.balancer = Balancer(name, TASKS, self, **options)

    def forward(self, input_ids, ner_labels, cls_labels):
        out = self.inner(input_ids, ner_labels, cls_labels)
        counts = {"ner": int((ner_labels != -100).sum()), "cls": len(cls_labels)}
        loss = self.balancer(out.pop("losses"), counts)
        return {"loss": loss, **out}


def trained(folder, how, name, size=16, accumulate=1, **options):
    options = {**options, "accumulation": "window"} if accumulate > 1 else options
    sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulate}
    if how == "subclass":
        model = TinyBert().double()
        balancer = Balancer(name, TASKS, model, **options)
        trainer(folder, model=model, balancer=balancer, **sizes).train()
    else:
        outer = Calling(name, TinyBert().double(), **options)
        model, balancer = outer.inner, outer.balancer
        Trainer(outer, arguments(folder, **sizes), train_dataset=examples()).train()
    balancer.state_dict()
    assert int(balancer.strategy.step) == 3
    return weights_of(model), balancer


@pytest.mark.parametrize("name", ALL)
def test_any_strategy_trains_and_four_by_four_equals_sixteen(name, tmp_path):
    start = weights_of(TinyBert().double())
    expected, big = trained(tmp_path, "subclass", name)
    assert max((expected[key] - start[key]).abs().max() for key in start) > 1e-4
    found, small = trained(tmp_path, "subclass", name, 4, 4)
    assert_close(found, expected)
    for key, value in big.strategy.state_dict().items():
        torch.testing.assert_close(
            small.strategy.state_dict()[key], value, rtol=1e-3, atol=1e-5, equal_nan=True
        )
    if (
        name == "famo"
    ):  # the model alone cannot know the losses after the step: the next batch's stand for them
        expected, _ = trained(tmp_path, "forward", name)
    assert_close(trained(tmp_path, "forward", name, 4, 4)[0], expected)


@pytest.mark.parametrize("name", SEVERAL)
def test_several_batches_equal_a_plain_loop(name, tmp_path):
    model, reference, seen = TinyBert().double(), TinyBert().double(), []
    model.register_forward_pre_hook(lambda module, args, inputs: seen.append(inputs), with_kwargs=True)
    sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": MICRO}
    trainer(tmp_path, name, model, **sizes).train()
    # in the order that the Trainer drew
    parts = [(lambda x=x: reference(**x)["losses"], counted(x)) for x in seen]
    assert_close(weights_of(model), plain_loop(name, reference, TASKS, parts))


def test_micro_batches_weighted_apart_are_another_algorithm(tmp_path):
    """The tolerance above tells a window from micro-batches on their own, and counts from means of means."""
    expected, _ = trained(tmp_path, "subclass", "mgda")
    model = TinyBert().double()
    sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    trainer(tmp_path, "mgda", model, **sizes).train()
    assert (model.ner.weight - expected["ner.weight"]).abs().max() > 1e-4


class Output(nn.Module):
    """Says its losses, and its counts, in another way."""

    def __init__(self, how):
        super().__init__()
        self.inner, self.how = TinyBert().double(), how

    def forward(self, input_ids, ner_labels=None, cls_labels=None):
        out = self.inner(input_ids, ner_labels, cls_labels)
        losses = tuple(out["losses"].get(task) for task in TASKS)
        if self.how == "first item":
            return losses, out["ner_logits"], out["cls_logits"]
        if self.how == "attribute":
            return SimpleNamespace(losses=losses)
        return {"losses": losses, "counts": {"ner": 7, "cls": 3}}


@pytest.mark.parametrize("how", ["first item", "attribute", "own counts"])
def test_losses_as_a_tuple_in_the_order_of_the_tasks(how, tmp_path):
    expected, _ = trained(tmp_path, "subclass", "mgda")
    model = Output(how)
    trainer(tmp_path, "mgda", model).train()
    assert_close(weights_of(model.inner), expected)


@pytest.mark.parametrize("blank", [-100, None])
def test_a_task_without_labels_is_left_out(blank, tmp_path):
    """In the loss of the model it may be NaN; the task neither trains nor spoils the others."""
    data = [{**e, "cls_labels": torch.tensor(-100)} for e in examples()]
    if blank is None:
        data = [{k: v for k, v in e.items() if k != "cls_labels"} for e in data]
    for name in ("uw", "mgda"):
        model = TinyBert()
        start = weights_of(model)
        run = trainer(tmp_path, name, model, data=data, logging_strategy="steps", logging_steps=1)
        run.train()
        end = weights_of(model)
        assert torch.equal(end["cls.weight"], start["cls.weight"])
        assert end["ner.weight"].isfinite().all() and not torch.equal(end["ner.weight"], start["ner.weight"])
        assert "loss/cls" not in run.state.log_history[0] and "loss/ner" in run.state.log_history[0]
        assert math.isfinite(run.evaluate(data)["eval_loss"])


@pytest.mark.parametrize("accumulate", [1, 3])
def test_logs_mean_losses_and_weights(accumulate, tmp_path):
    sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": accumulate}
    run = trainer(tmp_path, "pcgrad", learning_rate=0.0, logging_strategy="epoch", **sizes)
    run.train()
    (log,) = [x for x in run.state.log_history if "loss" in x]
    whole = {k: torch.stack([e[k] for e in examples()]) for k in examples()[0]}
    exact = TinyBert()(**whole)["losses"]
    for task in TASKS:
        assert log[f"loss/{task}"] == pytest.approx(exact[task].item(), rel=1e-5)
        assert log[f"weight/{task}"] == pytest.approx(run.balancer.weights[task].item())
    assert {"norm/ner", "norm/cls", "cos/cls_ner", "grad_norm", "epoch"} <= log.keys()


def test_each_log_starts_anew(tmp_path):
    run = trainer(tmp_path, "equal", learning_rate=0.0, logging_strategy="steps", logging_steps=1)
    run.train()
    logs = [x["loss/cls"] for x in run.state.log_history if "loss/cls" in x]
    whole = {k: torch.stack([e[k] for e in examples()]) for k in examples()[0]}
    assert len(logs) == 3
    assert sum(logs) / 3 == pytest.approx(TinyBert()(**whole)["losses"]["cls"].item(), rel=1e-5)


def evaluated(run, data, **options):
    seen = []
    run.compute_metrics = lambda p: seen.append((p.predictions, p.label_ids)) or {"seen": len(seen)}
    return run.evaluate(data, **options), seen


def test_several_label_sets_survive_evaluate(tmp_path):
    run, data = trainer(tmp_path, per_device_eval_batch_size=5), examples(12, seed=3)
    part = [{k: v for k, v in e.items() if k != "cls_labels"} for e in data]
    metrics, seen = evaluated(run, {"both": data, "ner": part})
    assert metrics["eval_both_seen"] == 1 and metrics["eval_ner_seen"] == 2
    for (predictions, labels), names in zip(seen, (["ner", "cls"], ["ner"]), strict=True):
        assert {k: v.shape for k, v in predictions.items()} == {
            "ner_logits": (12, 6, 3),
            "cls_logits": (12, 2),
        }
        assert list(labels) == [f"{task}_labels" for task in names]
        for key, value in labels.items():
            assert torch.equal(torch.from_numpy(value), torch.stack([e[key] for e in data]))
    bare = run.predict([{"input_ids": e["input_ids"]} for e in data])
    assert bare.label_ids is None and bare.predictions["cls_logits"].shape == (12, 2)
    assert run.balancer.metrics() == {}


def test_eval_loss_is_the_plain_sum(tmp_path):
    data = examples(12, seed=3)
    run = trainer(tmp_path, "uw", per_device_eval_batch_size=12)
    whole = {k: torch.stack([e[k] for e in data]) for k in data[0]}
    expected = sum(TinyBert()(**whole)["losses"].values()).item()
    assert run.evaluate(data)["eval_loss"] == pytest.approx(expected, rel=1e-5)
    named = MultiTaskTrainer(
        Output("first item"), arguments(tmp_path, per_device_eval_batch_size=12), balancer=lambda m, t: None
    )
    metrics, seen = evaluated(named, data)
    assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-5)
    assert [p.shape for p in seen[0][0]] == [(12, 6, 3), (12, 2)]


LONG = {
    "per_device_train_batch_size": 4,
    "num_train_epochs": 2,
    "optim": "adamw_torch",
    "learning_rate": 0.01,
    "lr_scheduler_type": "linear",
    "max_grad_norm": 1.0,
    "save_strategy": "steps",
    "save_steps": 1,
}


def run_of(name, folder, accumulate, **options):
    """A fresh model with dropout, its trainer, nothing shared with any other run."""
    model = TinyBert(hidden_dropout_prob=0.2)
    window = {"accumulation": "window"} if accumulate > 1 else {}
    balancer = Balancer(name, TASKS, model, **window)
    options = {**LONG, "gradient_accumulation_steps": accumulate, **options}
    return trainer(folder, model=model, balancer=balancer, data=examples(12), **options)


def outcome(run):
    return {"model": weights_of(run.model), "balancer": run.balancer.state_dict()}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", ["uw", "gradnorm", "pcgrad", "random", "dwa", "famo", "nash_mtl"])
def test_resumes_bit_for_bit(name, accumulate, tmp_path):
    whole = run_of(name, tmp_path / "whole", accumulate)
    whole.train()
    per_epoch = 3 if accumulate == 1 else 2  # the second window of an epoch is short
    for step in (per_epoch, per_epoch + 1):  # at the end of an epoch, and within one
        again = run_of(name, tmp_path / "again", accumulate, save_strategy="no")
        again.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert_same_state(outcome(again), outcome(whole))


def test_a_run_that_forgets_the_balancer_ends_elsewhere(tmp_path):
    """The test above would see it."""
    whole = run_of("uw", tmp_path, 1)
    whole.train()
    path = tmp_path / "checkpoint-3" / "optimizer.pt"
    state = torch.load(path)
    assert set(state["mtlweights"]) >= {"tasks", "strategy"}
    del state["mtlweights"]
    torch.save(state, path)
    again = run_of("uw", tmp_path, 1, save_strategy="no")
    again.train(resume_from_checkpoint=str(path.parent))
    assert not torch.equal(outcome(again)["model"]["cls.weight"], outcome(whole)["model"]["cls.weight"])


def test_epochs_end_and_validation_scores_arrive(tmp_path):
    seen = []

    class Record(strategies.LossStrategy):
        def combine(self, losses, present):
            return losses.sum()

        def end_epoch(self, mean_losses, scores):
            seen.append(scores)

    trainer(tmp_path, Record, num_train_epochs=3).train()
    assert seen == [None, None]  # the last epoch has no next one
    seen.clear()
    model = TinyBert()
    run = MultiTaskTrainer(
        model,
        arguments(tmp_path, num_train_epochs=2, eval_strategy="epoch"),
        train_dataset=examples(),
        eval_dataset={"a": examples(4), "b": examples(4)},
        balancer=Balancer(Record, TASKS, model),
        scores=lambda metrics: {"ner": metrics["eval_a_loss"], "cls": 0.5},
    )
    run.train()
    run.evaluate(examples(4))
    assert len(seen) == 2 and all(math.isfinite(s[0]) and s[1] == 0.5 for s in seen)


def recorded(run):
    """Trains; the batches of the backward passes, and of the other forward passes in training."""
    seen = {True: [], False: []}

    def look(model, args, kwargs):
        if model.training:
            seen[torch.is_grad_enabled()].append({k: v.clone() for k, v in kwargs.items()})

    hook = run.model.register_forward_pre_hook(look, with_kwargs=True)
    run.train()
    hook.remove()
    return seen[True], seen[False]


def replayed(name, batches, before=lambda *a: None, after=lambda *a: None):
    """A plain loop over ``batches``; what comes before and after each step gets (balancer, model, batch)."""
    model = TinyBert()
    balancer = Balancer(name, TASKS, model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for data in batches:
        optimizer.zero_grad()
        before(balancer, model, data)
        balancer(model(**data)["losses"], counted(data)).backward()
        optimizer.step()
        after(balancer, model, data)
    return weights_of(model), balancer.state_dict()["strategy"]


def counted(data):
    return {"ner": int((data["ner_labels"] != -100).sum()), "cls": len(data["cls_labels"])}


def test_famo_gets_the_losses_of_the_same_batch_after_the_step(tmp_path):
    run = trainer(tmp_path, "famo", num_train_epochs=2)
    steps, follows = recorded(run)
    assert len(steps) == len(follows) == 6
    assert_same_state(follows, steps)

    def follow(balancer, model, data):
        balancer.after_step(lambda: model(**data)["losses"], counted(data))

    weights, state = replayed("famo", steps, after=follow)
    assert_close(weights_of(run.model), weights)
    found = run.balancer.state_dict()["strategy"]
    torch.testing.assert_close(found["logits"], state["logits"])
    assert (found["logits"] - replayed("famo", steps)[1]["logits"]).abs().max() > 1e-3


def test_other_strategies_cost_no_pass_after_the_step(tmp_path):
    assert recorded(trainer(tmp_path, "uw"))[1] == []


def test_auto_lambda_gets_a_held_out_batch_before_every_step(tmp_path):
    """In order, by the number of the step: a run resumed in between sees what the whole one saw."""
    held_out = examples(40, seed=9)

    def run(folder, **options):
        model = TinyBert()
        sizes = {**LONG, "per_device_train_batch_size": 16, "optim": "sgd", "learning_rate": 0.05, **options}
        return MultiTaskTrainer(
            model,
            arguments(folder, **{**sizes, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}),
            train_dataset=examples(),
            balancer=Balancer("auto_lambda", TASKS, model),
            held_out=held_out,
        )

    whole = run(tmp_path)
    passes, _ = recorded(whole)
    steps, seen = passes[::2], passes[1::2]  # the virtual step's pass comes in the backward
    ids = torch.stack([e["input_ids"] for e in held_out])
    for k, data in enumerate(seen):
        assert torch.equal(data["input_ids"], ids[torch.arange(16 * k, 16 * k + 16) % 40])

    parts = iter(seen)

    def before(balancer, model, data):
        part = next(parts)
        balancer.validate(lambda: model(**part)["losses"])

    weights, state = replayed("auto_lambda", steps, before)
    assert_close(weights_of(whole.model), weights)
    torch.testing.assert_close(whole.balancer.state_dict()["strategy"], state)
    assert (state["w"] - 0.1).abs().min() > 1e-4
    again = run(tmp_path / "again", save_strategy="no")
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert_same_state(outcome(again), outcome(whole))


KNOBS = {"cagrad": "c", "fixed": "alpha"}


def test_hyperparameter_search_reaches_the_strategy_and_its_knobs(tmp_path):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made = []

    def space(trial):
        name = trial.suggest_categorical("strategy", list(KNOBS))
        trial.suggest_float(KNOBS[name], 0.1, 0.9)
        return {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-1)}

    def build(model, trial):
        if trial is None:
            return Balancer("equal", TASKS, model)
        knobs = {k: v for k, v in trial.params.items() if k in KNOBS.values()}
        made.append((Balancer(trial.params["strategy"], TASKS, model, **knobs), trial.params))
        return made[-1][0]

    run = MultiTaskTrainer(
        model_init=lambda: TinyBert(),
        args=arguments(tmp_path, eval_strategy="epoch"),
        train_dataset=examples(16),
        eval_dataset=examples(8),
        balancer=build,
    )
    sampler = optuna.samplers.RandomSampler(seed=3)
    best = run.hyperparameter_search(space, n_trials=4, backend="optuna", sampler=sampler)
    assert len(made) == 4 and len({params["strategy"] for _, params in made}) == 2
    for balancer, params in made:
        assert type(balancer.strategy) is strategies.get(params["strategy"])
        if params["strategy"] == "cagrad":
            assert balancer.strategy.c == params["c"]
        balancer.state_dict()
        assert int(balancer.strategy.step) == 1
    assert best.hyperparameters in [params for _, params in made] and math.isfinite(best.objective)


class Silent(nn.Module):
    def forward(self, input_ids, ner_labels=None, cls_labels=None):
        return {"loss": input_ids.float().sum()}


@pytest.mark.parametrize("name", ["uw", "pcgrad"])
def test_a_batch_without_any_label_adds_nothing(name, tmp_path):
    ner = torch.full_like(examples()[0]["ner_labels"], -100)
    blank = {"ner_labels": ner, "cls_labels": torch.tensor(-100)}
    none = [{**e, **blank} for e in examples(16)]
    run = trainer(tmp_path, name, data=none)
    start = weights_of(run.model)
    run.train()
    assert_same_state(weights_of(run.model), start)
    assert int(run.balancer.strategy.step) == 0
    size = {"per_device_eval_batch_size": 16}
    for data, want in ((examples(32), None), (none, float("nan"))):
        run = trainer(tmp_path, name, **size)
        found = run.evaluate([*data, *none])["eval_loss"]
        want = run.evaluate(data)["eval_loss"] if want is None else want
        assert found == pytest.approx(want, rel=1e-5, nan_ok=True)


def test_refusals(tmp_path):
    model = TinyBert()
    with pytest.raises(ValueError, match="found 'cagrad': pass Balancer"):
        trainer(tmp_path, balancer="cagrad")
    balancer = Balancer("equal", TASKS, model)
    with pytest.raises(ValueError, match="give balancer= a function of"):
        MultiTaskTrainer(model_init=lambda: TinyBert(), args=arguments(tmp_path), balancer=balancer)
    with pytest.raises(ValueError, match="ddp_static_graph=True cannot be balanced"):
        trainer(tmp_path, ddp_static_graph=True)
    two = arguments(tmp_path)
    two._n_gpu = 2
    with pytest.raises(ValueError, match="2 GPUs in one process: start one process per GPU"):
        MultiTaskTrainer(model, two, balancer=balancer)
    with pytest.raises(ValueError, match="should be a dataset with items by index, found generator"):
        MultiTaskTrainer(model, arguments(tmp_path), balancer=balancer, held_out=(e for e in examples(2)))
    with pytest.raises(ValueError, match="returned 2 losses without names, expected one for each of a, b, c"):
        trainer(tmp_path, model=Output("attribute"), balancer=Balancer("uw", ["a", "b", "c"])).train()
    with pytest.raises(ValueError, match="returned no losses: its output needs `losses`"):
        trainer(tmp_path, model=Silent()).evaluate(examples(2))


def test_two_processes_equal_one(tmp_path):
    """torchrun x2, batches of 8 (or twice 4) a rank: as one process with 16, and the ranks bit-identical."""
    launch(Path(__file__).with_name("rank_trainer.py"), tmp_path, processes=2)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert len(first) == 12
    for key, found in first.items():
        assert_same_state(found, second[key])
        name, how, _ = key.split("/")
        assert_close(found["model"], trained(tmp_path, how, name)[0])
