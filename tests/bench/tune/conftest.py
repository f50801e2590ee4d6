"""Storages to share a study on: a journal file, Optuna's gRPC proxy, a real PostgreSQL server."""

from __future__ import annotations

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


@pytest.fixture
def shared_storage(request, tmp_path):
    """The URL of a storage of the kind ``request.param``."""
    yield from {"journal": _journal, "grpc": _grpc, "postgresql": _postgresql}[request.param](tmp_path)


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


def _binaries():
    """The folder of a PostgreSQL server's programs, installed if need be; a skip where that cannot be."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        if os.environ.get("CI"):
            raise
        pytest.skip("a PostgreSQL storage needs the driver psycopg")
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
