"""From training to an answer over HTTP from an int8 model: the commands of docs/serving.md, as they stand."""

import http.client
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-c", "import sys; from mtlweights.cli import main; sys.exit(main())"]
QUICK = ["--epochs", "1", "--batch-size", "64", "--device", "cpu"]


def test_the_four_commands_of_the_docs(tmp_path):
    """On the embedded sentences, for one epoch, and on another port."""
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    found = re.search(r"four commands:\n\n```\n(.*?)```\n```console\n(.*?)```", text, re.DOTALL)
    train, compress, serve = (shlex.split(line)[1:] for line in found[1].splitlines())
    curl = shlex.split(found[2])
    train[train.index("tweebank")] = "tagging"
    run = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}}
    for command in ([*train, *QUICK], compress):
        done = subprocess.run([*PROGRAM, *command], capture_output=True, text=True, **run)
        assert done.returncode == 0, done.stderr
    assert "int8" in done.stdout
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen([*PROGRAM, *serve, "--port", str(port), "--drain", "0"], **run)
    try:
        answer = asked(server, port, curl)
    finally:
        server.terminate()
        server.wait(30)
    found = answer["predictions"][0]
    assert found["pos"]["words"] == json.loads(curl[-1])["inputs"][0]["text"].split()
    assert set(found) == {"ner", "pos"} and "spans" in found["ner"]


def asked(server, port, curl):
    """The answer to what curl would send, once the service is up."""
    header, body = curl[curl.index("-H") + 1], curl[curl.index("-d") + 1]
    assert curl[:2] == ["curl", "localhost:8000/predict"]
    while server.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("POST", "/predict", body, dict([header.split(": ")]))
            answer = connection.getresponse()
            assert answer.status == 200
            return json.loads(answer.read())
        except ConnectionRefusedError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise AssertionError("the service ended")
