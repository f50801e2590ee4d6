"""``fit`` with ``stop="all"``: each task has the patience of the run for itself."""

from dataclasses import replace

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from mtlweights.train import Settings, evaluate, fit
from mtlweights.train.history import History
from tests.tiny import on_ranks
from tests.train.test_train import pair, toy, with_train

ALL = Settings(epochs=40, batch_size=8, lr=0.05, device="cpu", patience=2, stop="all", schedule="constant")


def stops(history, problem, settings=ALL):
    """Epoch after which each task was done, from the rows by hand."""
    out = {}
    for task in problem.tasks:
        scores = [task.normalised(row["dev"][task.name][task.metrics[0]]) for row in history.rows]
        for k in range(len(scores)):
            if k >= settings.patience and max(scores[: k + 1 - settings.patience]) >= max(
                scores[k + 1 - settings.patience : k + 1]
            ):
                out[task.name] = k + 1
                break
    return out


def test_a_task_leaves_and_its_head_stays_as_it_was(tmp_path):
    problem = toy()
    model, balancer = pair(problem, "pcgrad")
    heads = []

    def note(history):
        heads.append({n: p.detach().clone() for n, p in model.named_parameters()})

    history = fit(model, balancer, problem, ALL, progress=False, after_epoch=note, folder=tmp_path)
    when = stops(history, problem)
    first, last = sorted(when, key=when.get)
    assert when[first] < when[last] == len(history.rows) < 40
    assert balancer.finished == (first,)
    left = when[first]  # rows are counted from 0: the first one after it left
    assert history.rows[left - 1]["seen"][first] == 60 and history.rows[left]["seen"][first] == 0
    assert history.rows[left]["seen"][last] == 60 and first not in history.rows[left]["weight"]
    for name, value in heads[-1].items():
        assert torch.equal(value, heads[left - 1][name]) == (f"{first}." in name or "equal" in name), name
    assert all(p.requires_grad for p in model.parameters())  # the caller's again


def test_it_resumes_bit_for_bit(tmp_path):
    problem, runs = toy(), []
    for folder in ("whole", "parts"):
        model, balancer = pair(problem, "nash_mtl")
        if folder == "parts":

            def interrupt(history, balancer=balancer):
                if balancer.finished and len(history.rows) < len(runs[0][0].rows):
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                fit(
                    model,
                    balancer,
                    problem,
                    ALL,
                    progress=False,
                    folder=tmp_path / folder,
                    after_epoch=interrupt,
                )
            model, balancer = pair(problem, "nash_mtl")
        history = fit(model, balancer, problem, ALL, progress=False, folder=tmp_path / folder)
        runs.append((history, evaluate(model, problem, "dev"), balancer.finished, dict(model.state_dict())))
    (a, dev, done, weights), (b, dev2, done2, weights2) = runs
    assert len(a.rows) == len(b.rows) and dev == dev2 and done == done2 and len(done) == 1
    assert all(torch.equal(value, weights2[name]) for name, value in weights.items())


def test_batches_of_finished_tasks_alone_are_passed_over():
    problem = toy(16)
    examples = [
        {**e, "targets": {name: e["targets"][name]}}
        for k, e in enumerate(problem.splits["train"])
        for name in (("colour", "size")[k % 2],)
    ]
    problem = with_train(problem, examples)
    model, balancer = pair(problem, "uw")
    moved = []
    handle = register_optimizer_step_post_hook(lambda *call: moved.append(call))
    history = fit(model, balancer, problem, replace(ALL, batch_size=1, lr=0.01, epochs=20), progress=False)
    handle.remove()
    assert len(balancer.finished) == 1 and history.rows[-1]["seen"][balancer.finished[0]] == 0
    assert history.steps == 16 * len(history.rows)
    assert int(balancer.strategy.step) == len(moved) < history.steps
    model, balancer = pair(problem, "modo")
    with pytest.raises(ValueError, match="a batch of finished tasks alone would leave it open"):
        fit(model, balancer, problem, ALL, progress=False)


def test_settings_and_a_task_that_stopped_stays_so():
    with pytest.raises(ValueError, match="stop='all' gives every task the patience of the run: set patience"):
        Settings(stop="all")
    with pytest.raises(ValueError, match="stop must be one of 'mean', 'all', got 'al'; did you mean 'all'"):
        Settings(stop="al", patience=1)
    assert "stop" not in Settings().said() and ALL.said()["stop"] == "all"
    tasks = toy().tasks
    scores = [(0.5, 1.4), (0.6, 1.4), (0.6, 1.3), (0.6, 1.2), (0.9, 1.2), (0.9, 1.2)]
    history = History([{"dev": {"colour": {"accuracy": a}, "size": {"rmse": b}}} for a, b in scores])
    assert history.stopped(ALL, tasks) == ["colour", "size"] and history.ended(ALL, tasks)
    del history.rows[-1]
    assert history.stopped(ALL, tasks) == ["colour"] and not history.ended(ALL, tasks)
    assert history.stopped(replace(ALL, stop="mean"), tasks) == []


def outcomes():
    """What runs leave in which a task leaves: epochs, who left, who was trained on, the weights."""
    out = {}
    for name in ("uw", "pcgrad"):
        problem = toy(dropout=0.0)
        model, balancer = pair(problem, name)
        history = fit(model, balancer, problem, ALL, progress=False)
        out[name] = [row["seen"] for row in history.rows], balancer.finished, dict(model.state_dict())
    return out


def rank_main(rank, folder):
    torch.save(outcomes(), f"{folder}/{rank}.pt")


def test_two_processes_equal_one(tmp_path):
    ranks, alone = on_ranks(rank_main, tmp_path), outcomes()
    for name, (seen, finished, weights) in alone.items():
        assert len(finished) == 1 and seen[-1][finished[0]] == 0
        for theirs in ranks:
            assert theirs[name][:2] == (seen, finished)
            for key, value in theirs[name][2].items():
                torch.testing.assert_close(value, weights[key], rtol=1e-3, atol=1e-3)
