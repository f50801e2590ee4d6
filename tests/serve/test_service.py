"""The service over HTTP, on a socket: answers, limits, a token, metrics, logs, an end that loses nothing."""

import http.client
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import uvicorn

from mtlweights.cli import main
from mtlweights.serve import TrainedModel
from mtlweights.serve.service import Limits, application
from mtlweights.serve.service.limits import Rates
from mtlweights.serve.service.server import Server, _protocol
from tests.serve import small

PROGRAM = "import sys; from mtlweights.cli import main; sys.exit(main())"
FORMAT1 = Path(__file__).parent / "format1"


@contextmanager
def serving(model, limits=None, token=None):
    """The port of a service in a thread, and what it logged."""
    limits = limits or Limits(drain=0)
    guard = application(model, limits, token)
    config = uvicorn.Config(
        guard, port=0, http=_protocol(limits.seconds), ws="none", log_config=None, access_log=False
    )
    server = Server(config, guard)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def tagger():
    with serving(
        TrainedModel.from_pretrained(FORMAT1 / "tagger"), Limits(body=20_000, items=4, words=40, seconds=0.5)
    ) as port:
        yield port


def ask(port, body, path="/predict", method="POST", **headers):
    """Status, headers and parsed answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    content = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    with closing(connection):
        connection.request(method, path, content, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        found = answer.read()
    kind = answer.getheader("Content-Type") or ""
    return answer.status, answer.headers, json.loads(found) if "json" in kind else found.decode()


def raw(port, content, wait=0.0):
    """What a socket gets for these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        peer.sendall(content)
        time.sleep(wait)
        return peer.recv(1 << 16)


def metric(port, name):
    """Value of a line of the metrics."""
    lines = ask(port, None, "/metrics", "GET")[2].splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.mark.parametrize("kind", ["tagger", "table", "pair"])
def test_answers_are_the_models(kind, tmp_path, request):
    if kind == "pair":
        request.getfixturevalue("data_dir")
    model = small.model(kind, tmp_path)
    with serving(model) as port:
        given = [named(example) for example in small.EXAMPLES[kind]]
        status, headers, found = ask(port, {"inputs": given})
        schema = ask(port, None, "/openapi.json", "GET")[2]
        assert ask(port, None, "/docs", "GET")[0] == 200
    assert status == 200 and len(headers["x-request-id"]) == 16
    assert found == json.loads(json.dumps({"predictions": model.predict(small.EXAMPLES[kind])}))
    prediction = schema["components"]["schemas"]["Prediction"]
    assert set(prediction["properties"]) == {task.name for task in model.tasks}


def named(example):
    """An example as the service takes it."""
    if isinstance(example, tuple):
        return {"a": named(example[0]), "b": named(example[1])}
    return (
        {"text": example}
        if isinstance(example, str)
        else {"words": example}
        if isinstance(example, list)
        else example
    )


BAD = {
    "no JSON": (b"{", 422),
    "nothing": (b"", 422),
    "no inputs": ({}, 422),
    "none": ({"inputs": []}, 422),
    "no list": ({"inputs": "a"}, 422),
    "number": ({"inputs": [{"text": 3}]}, 422),
    "other key": ({"inputs": [{"text": "a", "x": 1}]}, 422),
    "both": ({"inputs": [{"text": "a", "words": ["a"]}]}, 422),
    "too many": ({"inputs": [{"text": "a"}] * 5}, 422),
    "too long": ({"inputs": [{"text": "a " * 41}]}, 422),
    "long words": ({"inputs": [{"words": ["a" * 41]}]}, 422),
    "too large": ({"inputs": [{"text": "a" * 20_000}]}, 413),
    "half a pair": (b'{"inputs": [{"text": "\\ud800"}]}', 422),
    "no UTF-8": (b'{"inputs": [{"text": "\xff"}]}', 4),
    "deep": (b"[" * 15_000, 4),
    "digits": (b'{"inputs": [' + b"1" * 15_000 + b"]}", 4),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_answered_is_refused_without_being_repeated(name, tagger):
    body, expected = BAD[name]
    status, _, found = ask(tagger, body)
    assert status == expected or status // 100 == expected
    assert "input" not in json.dumps(found).replace("inputs", "") and len(json.dumps(found)) < 2000


def test_other_requests(tagger):
    assert ask(tagger, None, "/predict", "GET")[0] == 405
    assert ask(tagger, None, "/../etc/passwd", "GET")[0] == 404
    assert raw(tagger, b"HELLO\r\n\r\n").startswith(b"HTTP/1.1 400")
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
    assert raw(tagger, head + b"Content-Length: 99999\r\n\r\n").startswith(b"HTTP/1.1 413")
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    assert raw(tagger, head + b"Transfer-Encoding: chunked\r\n\r\n" + 3 * chunk).startswith(b"HTTP/1.1 413")


def test_slow_requests_are_ended(tagger):
    """Half of the headers, and headers with half of the body."""
    for part in (b"POST /predict HT", b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"):
        start = time.monotonic()
        assert raw(tagger, part).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - start < 10
    assert ask(tagger, {"inputs": [{"text": "Ada"}]})[0] == 200


def test_a_token_is_asked_of_all_but_probes(caplog):
    with serving(TrainedModel.from_pretrained(FORMAT1 / "table"), token="s3cret") as port:
        row = {"inputs": [{"size": 1, "age": 2, "kind": "flat"}]}
        for header in ("", "Bearer other", "Basic s3cret", "Bearer ", "s3cret"):
            status, headers, _ = ask(port, row, Authorization=header)
            assert status == 401 and headers["www-authenticate"] == "Bearer"
        assert ask(port, row, Authorization="Bearer s3cret")[0] == 200
        assert ask(port, None, "/openapi.json", "GET")[0] == 401
        assert [ask(port, None, path, "GET")[0] for path in ("/health", "/ready", "/metrics")] == [200] * 3


def test_a_client_that_asks_too_often_waits():
    with serving(TrainedModel.from_pretrained(FORMAT1 / "table"), Limits(rate=2, drain=0)) as port:
        found = [ask(port, {}) for _ in range(4)]
        assert [status for status, *_ in found] == [422, 422, 429, 429]
        assert found[-1][1]["retry-after"] == "1"


def test_rates_fill_with_time_and_forget():
    now = [0.0]
    rates = Rates(0.5, lambda: now[0])
    assert [rates.take("a"), rates.take("a"), rates.take("b")] == [0.0, 2.0, 0.0]
    now[0] = 2.0
    assert rates.take("a") == 0.0
    for i in range(10_100):
        rates.take(str(i))
    assert len(rates._left) == 10_000


def test_requests_that_wait_share_a_batch():
    """And one that the model fails on fails alone; the queue has an end."""
    model = TrainedModel.from_pretrained(FORMAT1 / "table")
    sizes, own, hold = [], model.answer, threading.Event()

    def answer(readings):
        sizes.append(len(readings))
        if len(sizes) == 1:
            hold.wait(20)
        if any(reading.input[0] == 666 for reading in readings):
            raise RuntimeError("secret")
        return own(readings)

    rows = [{"inputs": [{"size": size, "age": 1, "kind": "flat"}]} for size in (1, 2, 666, 4, 5)]
    with serving(model, Limits(queue=4, drain=0)) as port, ThreadPoolExecutor(6) as pool:
        model.answer = answer
        first = pool.submit(ask, port, rows[0])
        while not sizes:
            time.sleep(0.01)
        others = [pool.submit(ask, port, row) for row in rows[1:]]
        while metric(port, "mtlweights_queue_items") < 4:
            time.sleep(0.01)
        assert ask(port, rows[0])[0] == 503
        hold.set()
        assert [first.result()[0], *(other.result()[0] for other in others)] == [200, 200, 500, 200, 200]
        assert sizes[:2] == [1, 4]
        assert metric(port, "mtlweights_batch_items_sum") == 4


def test_metrics_count_what_the_heads_say():
    with serving(TrainedModel.from_pretrained(FORMAT1 / "table")) as port:
        ask(port, {"inputs": small.EXAMPLES["table"]})
        ask(port, None, "/nothing", "GET")
        assert metric(port, 'mtlweights_score_count{task="dear"}') == 3
        assert metric(port, 'mtlweights_value_deviations_count{task="price"}') == 3
        assert metric(port, 'mtlweights_labels_total{label="no",task="dear"}') == 3
        assert metric(port, 'mtlweights_requests_total{path="other",status="404"}') == 1
        assert metric(port, 'mtlweights_request_seconds_count{path="/predict"}') == 1


def test_logs_hold_nothing_of_the_inputs(caplog):
    caplog.set_level(logging.DEBUG)
    model = TrainedModel.from_pretrained(FORMAT1 / "tagger")
    with serving(model) as port:
        ask(port, {"inputs": [{"text": "Hush Ada"}]}, "/predict?key=hush", Authorization="Bearer hush")
        ask(port, {"inputs": [{"text": "hush", "x": 1}]})

        def failing(readings):
            raise ValueError(f"hush {readings}")

        model.answer = failing
        assert ask(port, {"inputs": [{"text": "hush"}]})[0] == 500
    from mtlweights.serve.service.logs import Lines

    lines = [Lines().format(record) for record in caplog.records]
    assert sum('"/predict"' in line for line in lines) == 3
    assert any('"ValueError"' in line for line in lines)
    assert not any("hush" in line.lower() for line in lines)


def test_limits_are_checked():
    for wrong in ({"body": 0}, {"items": 1.5}, {"rate": -1}, {"seconds": 0}):
        with pytest.raises(ValueError):
            Limits(**wrong)
    with pytest.raises(ValueError, match="the token is empty"):
        application(TrainedModel.from_pretrained(FORMAT1 / "table"), token=" ")


def test_sigterm_loses_no_request_that_was_taken(tmp_path):
    """The command itself, under load from eight clients; every answer that was begun is whole."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", PROGRAM, "serve", str(FORMAT1 / "table"), "--port", str(port)]
    environment = {**os.environ, "MTLWEIGHTS_TOKEN": "s3cret"}
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen([*command, "--drain", "3"], stdout=log, stderr=log, env=environment)
    row, stop, lost, done = {"inputs": [{"size": 1, "age": 2, "kind": "flat"}]}, threading.Event(), [], []

    def client():
        while not stop.is_set():
            try:
                done.append(ask(port, row, Authorization="Bearer s3cret")[0])
            except ConnectionError:  # refused, or taken by the system alone: the log tells what was read
                stop.wait(0.01)
            except OSError as error:
                lost.append(error)

    try:
        while not ready(port):
            time.sleep(0.1)
            assert server.poll() is None
        clients = [threading.Thread(target=client) for _ in range(8)]
        for one in clients:
            one.start()
        time.sleep(0.5)
        server.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert ask(port, None, "/ready", "GET")[0] == 503  # and it still answers
        server.wait(30)
    finally:
        stop.set()
        server.kill()
        server.wait()
        log.close()
    for one in clients:
        one.join()
    assert len(done) > 50 and set(done) == {200} and not lost
    lines = [*map(json.loads, (tmp_path / "log").read_text().splitlines())]
    assert sum(line.get("path") == "/predict" for line in lines) == len(done)


def ready(port):
    """Whether the service says that it is."""
    try:
        return ask(port, None, "/ready", "GET")[0] == 200
    except OSError:
        return False


def test_a_package_that_is_missing_is_named(monkeypatch, capsys):
    from mtlweights.cli import serve

    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else True)
    assert main(["serve", str(FORMAT1 / "table")]) == 2
    assert "uvicorn: pip install 'mtlweights[serve]'" in capsys.readouterr().err
