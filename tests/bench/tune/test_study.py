"""Workers on one study: how many trials there are, and what becomes of those that end badly."""

from __future__ import annotations

import time

import optuna
import pytest

from mtlweights.bench.tune import heartbeat
from mtlweights.bench.tune import study as study_module
from mtlweights.bench.tune.heartbeat import Watch, beating, hand_on
from mtlweights.bench.tune.objective import Aim
from mtlweights.bench.tune.sampling import ARM, Seeded, make_pruner
from mtlweights.bench.tune.space import make_space
from mtlweights.bench.tune.study import (
    SURPLUS,
    Search,
    _is_surplus,
    enqueue_first,
    identity_of,
    join,
    slots_of,
    work,
)

COMPLETE, FAIL = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL


@pytest.fixture
def study():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize", sampler=Seeded("random", 0))


def draw(trial):
    return trial.suggest_float("x", 0.0, 1.0)


def test_a_study_ends_with_as_many_trials_as_asked_for(study):
    said = []
    work(study, draw, 4, say=said.append)
    work(study, draw, 4, say=said.append)
    assert [t.state for t in study.trials] == [COMPLETE] * 4 and len(said) == 4
    work(study, draw, 6, say=said.append)
    assert len(study.trials) == 6


@pytest.mark.parametrize(("ago", "told"), [(60, ", about 60 s left"), (240, ", about 4 min left"), (1, "")])
def test_a_line_says_how_long_is_left(study, ago, told):
    said = []
    work(study, draw, 2, say=said.append)
    study_module._say_with_time(said.append, study, 4, 0, time.monotonic() - ago, "a line")
    study_module._say_with_time(said.append, study, 4, 2, time.monotonic() - ago, "none ended since")
    assert said[2:] == [f"a line{told}", "none ended since"]


def test_a_trial_that_raises_is_counted_and_the_study_goes_on(study):
    def objective(trial):
        if trial.number == 1:
            raise ZeroDivisionError("of no use")
        return draw(trial)

    said = []
    work(study, objective, 3, say=said.append)
    assert [t.state for t in study.trials] == [COMPLETE, FAIL, COMPLETE]
    assert study.trials[1].user_attrs["error"] == "ZeroDivisionError: of no use"
    assert said[1] == "trial 1:  failed: ZeroDivisionError: of no use"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_worker_that_is_stopped_hands_its_trial_on(study, stop):
    def objective(trial):
        x = draw(trial)
        if trial.number == 1:
            raise stop
        return x

    with pytest.raises((KeyboardInterrupt, OSError)):
        work(study, objective, 3, say=str)
    work(study, objective, 3, say=str)
    assert [t.state for t in study.trials] == [COMPLETE, FAIL, COMPLETE, COMPLETE]
    assert study.trials[2].params == study.trials[1].params
    slots = slots_of(study.trials)
    assert [t.number for t in slots] == [0, 2, 3] and {t.state for t in slots} == {COMPLETE}


def test_a_silent_trial_is_another_workers_and_its_own_worker_hears_of_it(study, monkeypatch):
    monkeypatch.setattr(heartbeat, "SILENT", 2)
    dead = study.ask()
    x = draw(dead)
    dead.set_user_attr(heartbeat.BEAT, 7)
    said = []
    work(study, draw, 3, interval=0.05, say=said.append)
    assert "trial 0: its worker is gone; it is queued again" in said
    assert [t.state for t in slots_of(study.trials)] == [COMPLETE] * 3
    assert [t.value for t in study.trials if t.user_attrs.get("retry_of") == 0] == [x]
    assert not hand_on(study, dead)


def test_a_trial_that_beats_is_left_to_its_worker(study):
    watch, trial = Watch(0.05), study.ask()
    with beating(trial, 0.05):
        for _ in range(20):
            assert watch.recover(study, study.trials) == []
            time.sleep(0.03)


def test_a_trial_whose_workers_die_is_given_up(study):
    for _ in range(heartbeat.MOST_TRIES + 1):
        waiting = [t for t in study.trials if t.state == optuna.trial.TrialState.WAITING]
        if study.trials and not waiting:
            break
        trial = study.ask()
        draw(trial)
        hand_on(study, trial)
    assert [t.state for t in study.trials] == [FAIL] * heartbeat.MOST_TRIES
    assert len(slots_of(study.trials)) == 1


def test_of_two_workers_that_begin_the_last_trial_one_gives_way(study):
    first, second = study.ask(), study.ask()
    assert not _is_surplus(study, first, 1) and _is_surplus(study, second, 1)
    second.set_user_attr(SURPLUS, True)
    study.tell(second, state=FAIL)
    assert [t.number for t in slots_of(study.trials)] == [0]


def test_the_first_trials_are_all_defaults_and_equal_weights(study):
    space = make_space("breast_cancer", ["cagrad", "fixed"])
    enqueue_first(study, space, 40)
    enqueue_first(study, space, 40)
    runs = []

    def objective(trial):
        runs.append(space.suggest(trial, trial.user_attrs.get(ARM)))
        return 0.0

    work(study, objective, 3, say=str)
    assert len(study.trials) == 3
    assert [run.strategy for run in runs] == ["cagrad", "fixed", "equal"]
    assert {run.problem for run in runs} == {"breast_cancer"}
    assert {run.settings for run in runs} == {space.settings}


def test_draws_follow_from_the_seed_and_the_number_of_the_trial():
    def values(sampler, seed, stops):
        study = optuna.create_study(sampler=Seeded(sampler, seed), direction="maximize")
        for n in range(12):
            if n in stops:  # another worker, or another day
                study.sampler = Seeded(sampler, seed)
            trial = study.ask()
            study.tell(trial, draw(trial) + (trial.suggest_categorical("c", ["a", "b"]) == "a"))
        return [trial.params for trial in study.trials]

    for sampler in ("random", "tpe", "gp", "nsga"):
        assert values(sampler, 1, ()) == values(sampler, 1, (3, 11))
        assert values(sampler, 1, ()) != values(sampler, 2, ())


def test_trials_that_are_no_draws_do_not_narrow_the_samplers_space():
    study = optuna.create_study(sampler=Seeded("gp", 0), direction="maximize")
    study.enqueue_trial({"x": 0.5}, {ARM: "equal"})
    for n in range(14):
        trial = study.ask()
        x = draw(trial)
        c = 0.0 if ARM in trial.user_attrs else trial.suggest_float("c", 0.0, 1.0)
        study.tell(trial, x - (c - 0.3) ** 2)
        assert n == 0 or "c" in (trial.relative_search_space or {"c"})
    assert "c" in study.ask().relative_params


def test_another_search_under_the_same_name_is_refused():
    storage = optuna.storages.InMemoryStorage()
    space = make_space("breast_cancer", ["cagrad"])
    made = join(storage, "a", Search(), 1, identity_of(space, Aim()))
    assert join(storage, "a", Search(), 1, identity_of(space, Aim())).study_name == made.study_name
    others = {
        r"settings.lr: 0.001 there, 0.5 here": identity_of(
            make_space("breast_cancer", ["cagrad"], narrowed={"lr": 0.5}), Aim()
        ),
        r"space\.\w+: ": identity_of(make_space("breast_cancer", ["uw"]), Aim()),
        r"aim.pareto: false there, true here": identity_of(space, Aim(pareto=True)),
    }
    for said, identity in others.items():
        with pytest.raises(ValueError, match=said):
            join(storage, "a", Search(), 1, identity)
    optuna.create_study(storage=storage, study_name="b")
    with pytest.raises(ValueError, match="not made by mtlweights tune"):
        join(storage, "b", Search(), 1, identity_of(space, Aim()))


def test_an_unknown_sampler_or_pruner_is_refused():
    with pytest.raises(ValueError, match="did you mean 'tpe'"):
        Seeded("tpee", 0)
    with pytest.raises(ValueError, match="did you mean 'median'"):
        make_pruner("medain")
