"""A data set per task: how often each is drawn from, and a state that goes on in the middle."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from test_resume import Stop, outcome, stopping
from test_train import CPU, pair, toy, with_train

from mtlweights import Balancer
from mtlweights.train import Settings, TaskLoader, fit
from mtlweights.train.sampling import Sampling

WAYS = ("proportional", "temperature:t=3", "annealed", "round_robin")


def two_sets(colours=60, sizes=20, both=10):
    """Rows labelled for one task each, and a few for both."""
    problem = toy(colours + sizes + both)
    rows = problem.splits["train"]
    for k, row in enumerate(rows[: colours + sizes]):
        del row["targets"]["size" if k < colours else "colour"]
    return with_train(problem, rows)


def drawn(loader, passes=1):
    """Labelled items a task, over some passes."""
    seen = Counter()
    for _ in range(passes):
        for batch in loader:
            seen.update(batch["counts"])
    return seen


@pytest.mark.parametrize(
    ("way", "epoch", "expected"),
    [
        ("proportional", 1, [0.7, 0.3]),
        ("temperature:t=2", 1, [0.7**0.5 / (0.7**0.5 + 0.3**0.5), 0.3**0.5 / (0.7**0.5 + 0.3**0.5)]),
        ("annealed", 1, [0.7, 0.3]),
        ("annealed", 5, [0.7**0.2 / (0.7**0.2 + 0.3**0.2), 0.3**0.2 / (0.7**0.2 + 0.3**0.2)]),
        ("annealed:fall=1", 5, [0.5, 0.5]),
        ("round_robin", 1, [0.5, 0.5]),
    ],
)
def test_shares(way, epoch, expected):
    assert Sampling.parse(way).shares([70, 30], epoch, 5) == pytest.approx(expected)


@pytest.mark.parametrize("way", WAYS)
def test_tasks_are_drawn_as_often_as_their_shares_say(way):
    problem = two_sets(both=0)
    loader = TaskLoader(problem, 8, way, epochs=1)
    share = Sampling.parse(way).shares([60, 20], 1, 1)
    seen = drawn(loader, 40)
    assert seen["colour"] + seen["size"] == 40 * 80
    assert seen["colour"] / (40 * 80) == pytest.approx(share[0], abs=0.03)


def test_a_row_with_both_labels_gives_both_or_one():
    problem = two_sets(0, 0, 60)
    assert drawn(TaskLoader(problem, 8, "round_robin")) == {"colour": 60, "size": 60}
    loader = TaskLoader(problem, 8, "round_robin:batches=task")
    assert [sorted(batch["counts"].items()) for batch in loader] == [
        [(name, n)] for name, n in [("colour", 8), ("size", 8)] * 3 + [("colour", 8), ("size", 4)]
    ]


def test_every_example_of_a_task_comes_before_one_comes_again():
    loader = TaskLoader(two_sets(30, 30, 0), 60, "round_robin")
    batch = next(iter(loader))
    assert len({tuple(row) for row in batch["inputs"]["x"].tolist()}) == 60


@pytest.mark.parametrize(
    ("way", "workers"),
    [*((way, 0) for way in (None, *WAYS, "temperature:batches=task")), ("annealed", 1)],
)
def test_a_loader_goes_on_in_the_middle_of_an_epoch(way, workers):
    def loader():
        return TaskLoader(two_sets(), 8, way, seed=3, epochs=3, num_workers=workers)

    def text(batch):
        return json.dumps(
            {part: {k: repr(v) for k, v in batch[part].items()} for part in ("inputs", "targets")}
        )

    whole = loader()
    every = [text(batch) for _ in range(3) for batch in whole]
    assert len(set(every)) == len(every)
    first, halves = loader(), []
    for _ in range(2):
        for batch in first:
            halves.append(text(batch))
            if len(halves) == len(whole) + 4:
                break
    second = loader()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    halves += [text(batch) for _ in range(2) for batch in second]
    assert halves == every


def test_the_order_is_the_seeds():
    def first(seed):
        return next(iter(TaskLoader(two_sets(), 8, seed=seed)))["inputs"]["x"].tolist()

    assert first(3) == first(3) != first(4)


@pytest.mark.parametrize("by", ["loader", "fit"])
def test_annealing_ends_at_equal_shares(by):
    """From three in four to one in two, over the epochs of a loader, or of a run."""
    problem, way, epochs = two_sets(300, 100, 0), "annealed:fall=1", 4
    if by == "loader":
        loader = TaskLoader(problem, 8, way, epochs=epochs)
        seen = [drawn(loader) for _ in range(epochs)]
    else:
        model, balancer = pair(problem, "equal")
        settings = replace(CPU, epochs=epochs, sampling=way)
        seen = [row["seen"] for row in fit(model, balancer, problem, settings, progress=False).rows]
    share = [epoch["colour"] / 400 for epoch in seen]
    assert share[0] == pytest.approx(0.75, abs=0.07) and share[-1] == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize("strategy", ["uw", "pcgrad"])
@pytest.mark.parametrize("way", ["annealed", "round_robin:batches=task"])
def test_an_interrupted_run_ends_as_if_it_never_was(tmp_path, way, strategy):
    problem, settings = two_sets(), replace(CPU, sampling=way, accumulate=2)
    window = {"accumulation": "window"} if strategy == "pcgrad" else {}

    def run(kind=Balancer, **options):
        model, balancer = pair(problem, strategy, kind=kind, **window)
        return outcome(model, balancer, fit(model, balancer, problem, settings, progress=False, **options))

    whole = run()
    with pytest.raises(Stop):
        run(stopping(2), folder=tmp_path)
    assert run(folder=tmp_path) == whole
    seen = [row["seen"] for row in json.loads(whole["rows"])]
    assert all(sum(epoch.values()) >= 90 for epoch in seen) and len({*map(str, seen)}) > 1 - ("robin" in way)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sometimes", "one of proportional, temperature, annealed, round_robin, found 'sometimes'"),
        ("temperature:t=0.5", "t of sampling=temperature should be a number from 1, found 0.5"),
        ("annealed:fall=2", "fall of sampling=annealed should be a number from 0 to 1, found 2"),
        ("round_robin:t=2", "has no option 't'; known: batches"),
        ("proportional:batches=one", "should be mixed or task, found 'one'"),
    ],
)
def test_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        Settings(sampling=spec)


def test_a_state_of_another_loader_is_refused():
    with pytest.raises(ValueError, match=r"a position to 12, found \{'epoch': 1, 'position': 13\}"):
        TaskLoader(two_sets(), 8).load_state_dict({"epoch": 1, "position": 13})


def test_a_setting_that_is_off_leaves_a_run_its_name():
    assert (
        "sampling" not in Settings().said() and Settings(sampling="annealed").said()["sampling"] == "annealed"
    )
