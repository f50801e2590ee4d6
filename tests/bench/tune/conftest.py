"""Storages to share a study on: a journal file, Optuna's gRPC proxy, real PostgreSQL and MariaDB servers."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from debian import program

SERVE = """
import sys, warnings
from optuna.storages import get_storage, run_grpc_proxy_server
warnings.simplefilter("ignore")
run_grpc_proxy_server(get_storage(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]))
"""
USERS = """CREATE DATABASE study;
CREATE USER tuner@'127.0.0.1' IDENTIFIED BY 'p@ss';
GRANT ALL ON study.* TO tuner@'127.0.0.1';
"""


@pytest.fixture
def shared_storage(request, tmp_path):
    """The URL of a storage of the kind ``request.param``."""
    kinds = {"journal": _journal, "grpc": _grpc, "postgresql": _postgresql, "mysql": _mariadb}
    yield from kinds[request.param](tmp_path)


def _journal(folder):
    yield str(folder / "study.log")


def _grpc(folder):
    port = _free_port()
    command = [sys.executable, "-c", SERVE, f"sqlite:///{folder}/proxied.db", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def _postgresql(_):
    binaries, user = _binaries(), "postgres" if os.getuid() == 0 else None
    folder, port = Path(tempfile.mkdtemp(prefix="mtlweights-pg-", dir="/tmp")), _free_port()
    if user:  # no server runs as root
        shutil.chown(folder, user)
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"

    def call(*command):
        log = (folder.parent / f"{folder.name}.log").open("ab")
        with log:  # a server keeps its parent's pipes open
            subprocess.run(command, check=True, user=user, cwd=folder, stdout=log, stderr=log, timeout=120)

    try:
        call(f"{binaries}/initdb", "-D", "data", "-A", "trust", "-U", "tuner", "--no-sync")
        call(f"{binaries}/pg_ctl", "-D", "data", "-o", options, "-l", "server", "-w", "start")
        yield f"postgresql://tuner@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run(
            [f"{binaries}/pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "stop"],
            user=user,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        shutil.rmtree(folder)
        (folder.parent / f"{folder.name}.log").unlink(missing_ok=True)


def _mariadb(_):
    _driver("pymysql")
    server = program("/usr/sbin/mariadbd", "mariadb-server-core")
    user = "nobody" if os.getuid() == 0 else None  # no server runs as root
    folder, port = Path(tempfile.mkdtemp(prefix="mtlweights-maria-", dir="/tmp")), _free_port()
    (folder / "data").mkdir()
    tables = Path("/usr/share/mysql/mysql_system_tables.sql").read_text()
    (folder / "tables.sql").write_text(f"CREATE DATABASE mysql;\nUSE mysql;\n{tables}")
    (folder / "users.sql").write_text(USERS)
    if user:
        for path in (folder, folder / "data"):
            shutil.chown(path, user)
    command = [server, "--no-defaults", f"--datadir={folder}/data", "--innodb-log-file-size=4M"]
    listens = [f"--socket={folder}/s", f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve"]
    how = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "user": user, "cwd": folder}
    running = None
    try:
        with (folder / "tables.sql").open() as sql:
            subprocess.run([*command, "--bootstrap"], stdin=sql, check=True, timeout=120, **how)
        running = subprocess.Popen([*command, *listens, f"--init-file={folder}/users.sql"], **how)
        _wait_for(port)
        yield f"mysql://tuner:p%40ss@127.0.0.1:{port}/study"
    finally:
        if running:
            running.kill()
            running.wait()
        shutil.rmtree(folder)


def _driver(name):
    """Skip without the driver of a database, but never in CI."""
    if importlib.util.find_spec(name) is None:
        if os.environ.get("CI"):
            pytest.fail(f"CI has to have {name}")
        pytest.skip(f"the storage needs the driver {name}")


def _binaries():
    """The folder of a PostgreSQL server's programs, installed if need be; a skip where that cannot be."""
    _driver("psycopg")
    return str(Path(program("/usr/lib/postgresql/*/bin/initdb", "postgresql")).parent)


def _free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _wait_for(port):
    for _ in range(300):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens at {port}")
