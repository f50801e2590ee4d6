"""What goes wrong around a study ends in one line, and nothing that has finished is lost."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time

import optuna
import pytest

from mtlweights.bench.tune import objective, storage, tune
from mtlweights.bench.tune.storage import open_storage, without_password
from mtlweights.bench.tune.study import slots_of

QUICK = {"epochs": 2, "layers": 1}


def refusal(where, folder):
    """What is said of a storage, in one line."""
    with pytest.raises((OSError, ValueError, ImportError)) as error:
        open_storage(where, folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_text_that_is_no_storage_is_refused(tmp_path):
    assert "found 'nonsense'" in refusal("nonsense", tmp_path)
    assert "cannot be used: Can't load plugin" in refusal("oracle+nothing://x/y", tmp_path)


def test_a_database_that_does_not_answer(tmp_path):
    pytest.importorskip("psycopg")
    said = refusal("postgresql://me:secret@127.0.0.1:1/db", tmp_path)
    assert "postgresql://me:***@127.0.0.1:1/db cannot be used" in said and "secret" not in said


def test_a_driver_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(storage.importlib.util, "find_spec", lambda name: None)
    assert "pip install pymysql" in refusal("mysql://me@127.0.0.1/db", tmp_path)
    assert "pip install grpcio" in refusal("grpc://127.0.0.1:1", tmp_path)


def test_a_proxy_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "ANSWERS", 0.2)
    assert "no gRPC proxy answers there" in refusal("grpc://127.0.0.1:1", tmp_path)


def test_a_file_that_is_no_database_or_journal(tmp_path):
    (tmp_path / "study.db").write_bytes(b"not a database, but long enough to be read as one" * 40)
    assert "file is not a database" in refusal(None, tmp_path)
    (tmp_path / "study.log").write_text('{"op": 1}\n[3]\n{}\n')
    assert "no journal of this Optuna" in refusal(str(tmp_path / "study.log"), tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be used" in refusal(str(tmp_path / "file" / "study.log"), tmp_path)
    with pytest.raises(OSError, match="cannot write to"):
        tune("breast_cancer", ["uw"], folder=tmp_path / "file", trials=1, fresh=0)


def test_a_database_of_another_optuna(tmp_path):
    open_storage(None, tmp_path).remove_session()
    with sqlite3.connect(tmp_path / "study.db") as database:
        database.execute("update alembic_version set version_num = 'v1.0'")
    database.close()
    said = refusal(None, tmp_path)
    assert "no longer compatible" in said or "version" in said


def test_a_password_is_never_shown():
    assert without_password("mysql://me:a:b@host/db") == "mysql://me:***@host/db"


@pytest.mark.parametrize("what", ["write_result", "checkpoint"])
def test_a_full_disk_ends_the_worker_and_its_trial_goes_on_later(tmp_path, monkeypatch, what):
    how = {"folder": tmp_path, "trials": 3, "narrowed": QUICK, "fresh": 0, "say": str}
    full = OSError(28, "No space left on device")

    def fail(*args, **options):
        raise full

    with monkeypatch.context() as patch:
        real = objective.execute

        def train(spec, problem, **options):
            if spec.only is None and len(list((tmp_path / "runs").glob("*-s0-*.json"))) == 3:
                if what == "checkpoint":
                    fail()
                patch.setattr(objective, "write_result", fail)
            return real(spec, problem, **options)

        patch.setattr(objective, "execute", train)
        with pytest.raises(OSError, match="No space left"):
            tune("breast_cancer", ["uw"], **how)
    before = {path.name: path.read_bytes() for path in (tmp_path / "runs").glob("*.json")}
    assert len(before) == 3
    found = tune("breast_cancer", ["uw"], **how)
    assert [t.state.name for t in slots_of(found.study.trials)] == ["COMPLETE"] * 3
    for name, content in before.items():
        assert (tmp_path / "runs" / name).read_bytes() == content


def test_control_c_ends_the_trial_and_says_how_to_go_on(tmp_path):
    command = [sys.executable, "-c", "import sys; from mtlweights.cli import main; sys.exit(main())"]
    command += ["tune", "breast_cancer", "-s", "uw", "--trials", "3", "--fresh", "0", "--pruner", "none"]
    command += ["--out", str(tmp_path), "--fix", "epochs=30", "--fix", "layers=1"]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not list(tmp_path.glob("checkpoints/*-uw-*/checkpoint.pt")) and time.monotonic() < end:
        time.sleep(0.02)
    os.kill(worker.pid, signal.SIGINT)
    _, said = worker.communicate(timeout=60)
    assert worker.returncode == 130, said
    assert "queued again" in said and "run the same command again" in said and "Traceback" not in said
    study = optuna.load_study(study_name=None, storage=open_storage(None, tmp_path))
    states = [trial.state.name for trial in study.trials]
    assert "FAIL" in states and "WAITING" in states and "RUNNING" not in states
    again = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    slots = slots_of(study.get_trials())
    assert [trial.state.name for trial in slots] == ["COMPLETE"] * 3
