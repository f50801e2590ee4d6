"""A study on a real MariaDB server: two workers at once, and what is said of a password that is wrong."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import optuna
import pytest

import mtlweights
from mtlweights.bench.tune.storage import open_storage

TRIALS = 8


@pytest.mark.parametrize("shared_storage", ["mysql"], indirect=True)
def test_two_workers_share_a_study_on_a_mysql_server(shared_storage):
    together, said = Barrier(2, timeout=60), []

    def worker(number):
        together.wait()  # both make the tables
        storage = open_storage(shared_storage, Path())
        how = {"study_name": "shared", "direction": "maximize", "load_if_exists": True}
        sampler = optuna.samplers.RandomSampler(seed=number)
        study = optuna.create_study(storage=storage, sampler=sampler, **how)
        together.wait()
        own = []

        def objective(trial, strategy, hyperparameters):
            own.append(trial.number)
            if len(own) == 1:
                together.wait()  # each has a trial of its own at the same moment
            return trial.suggest_float("lr", 0.0, 1.0)

        mtlweights.tune(objective, ["cagrad", "uw"], study=study, trials=TRIALS, say=said.append)
        found = study.get_trials()
        storage.engine.dispose()
        return own, found

    with ThreadPoolExecutor(2) as pool:
        (first, found), (second, _) = pool.map(worker, range(2))
    assert first and second and not set(first) & set(second)
    ended = [trial for trial in found if trial.state.name == "COMPLETE"]
    assert {t.number for t in ended} == {*first, *second} and len(ended) == len(said) == TRIALS
    assert {t.user_attrs["run"]["strategy"].split(":")[0] for t in ended} == {"cagrad", "uw", "equal"}

    with pytest.raises(OSError, match=r"cannot be used: .*Access denied") as error:
        open_storage(shared_storage.replace("p%40ss", "guessed"), Path())
    assert "guessed" not in str(error.value) and "\n" not in str(error.value)
