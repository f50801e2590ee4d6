"""Servers that lie: a download is the file that was meant, or one line and nothing is kept."""

import contextlib
import gc
import hashlib
import socket
import threading
import time

import pytest

from mtlweights.problems.data import download
from mtlweights.problems.data.sources import Source

# the standard library leaves the socket of a broken answer to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

NAME, CONTENT = "toy/a.txt", b"x\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A file to be downloaded into an empty cache, from where the returned function says."""
    monkeypatch.setitem(download.FILES, NAME, Source("repo/a.txt", SHA256))
    monkeypatch.setenv("MTLWEIGHTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MTLWEIGHTS_DATA", raising=False)
    before = set(threading.enumerate())
    yield lambda host: monkeypatch.setattr(download, "HOST", host)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    gc.collect()


def lying(answer, pause=0.0):
    """A server that sends these bytes, one by one if it pauses; its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError), listener, listener.accept()[0] as peer:
            peer.recv(1 << 16)
            for part in [answer] if not pause else [bytes([byte]) for byte in answer]:
                peer.sendall(part)
                time.sleep(pause)

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def refusal():
    """What is said where the file cannot be had."""
    with pytest.raises((OSError, ValueError)) as caught:
        download.data_file(NAME)
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in (NAME, SHA256, "MTLWEIGHTS_DATA"))
    return message


HEAD = b"HTTP/1.1 200 OK\r\n"
LIES = {
    "less than it says": (HEAD + b"Content-Length: 99\r\n\r\nx", "expected"),
    "no HTTP": (b"hello\r\n\r\n", "hello"),
    "nothing": (b"", "closed connection"),
    "a header without end": (HEAD + b"X: " + b"x" * 100_000, "header line"),
    "headers without end": (HEAD + b"X: y\r\n" * 1000 + b"\r\n", "more than 100 headers"),
    "a chunk that is no number": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nx", "IncompleteRead"),
    "a length that is text": (HEAD + b"Content-Length: x\r\n\r\nx", "not the expected file"),
    "a length below none": (HEAD + b"Content-Length: -5\r\n\r\nx", "not the expected file"),
    "a redirect to a file": (b"HTTP/1.1 302 X\r\nLocation: file:///etc/passwd\r\n\r\n", "not allowed"),
    "a redirect to nowhere": (b"HTTP/1.1 302 X\r\nLocation: http://[\r\n\r\n", "Invalid IPv6"),
    "more than any file": (HEAD + b"\r\n" + b"x" * 5000, "more than 0 MiB"),
    "an escape": (b"HTTP/1.1 500 \x1b[31m\r\n\r\n", r"\x1b[31m"),
    "another file": (HEAD + b"\r\nx", "not the expected file"),
}


@pytest.mark.parametrize(("answer", "message"), LIES.values(), ids=LIES)
def test_a_lying_server_is_one_line_and_nothing_is_kept(source, tmp_path, monkeypatch, answer, message):
    source(lying(answer))
    monkeypatch.setattr(download, "LARGEST", 4000)
    assert message in refusal()
    assert not (tmp_path / "cache").exists()


def test_answers_that_are_damaged(attack, source, refusal, tmp_path):
    """A server whose answer is cut, flipped or doubled: the right file, or one line and nothing kept."""
    good = HEAD + b"Content-Length: 2\r\nContent-Type: text/plain\r\n\r\n" + CONTENT
    lies = [answer for answer, _ in LIES.values()]
    for draw in attack.draws(20):
        answer = bytearray(draw.choice([good, good, *lies]))
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(len(answer) + 1)
            answer[place : place + draw.choice([0, 1, 9])] = draw.choice(
                [b"", b"\r\n", b"\0", answer[:place], b"9"]
            )
        with attack.trial(repr(bytes(answer))[:200]):
            source(lying(bytes(answer)))
            if refusal(download.data_file, NAME) is None:
                assert download.data_file(NAME).read_bytes() == CONTENT
                (tmp_path / "cache" / NAME).unlink()
            assert not list((tmp_path / "cache").rglob("*.*"))


@pytest.mark.parametrize("answer", [HEAD + b"\r\n" + b"x" * 60, HEAD[:-2] + b"x" * 60])
def test_a_server_that_never_ends_is_left(source, monkeypatch, answer):
    source(lying(answer, pause=0.01))
    monkeypatch.setattr(download, "LONGEST", 0.3)
    assert "not done after 0.3 seconds" in refusal()


def test_a_file_that_was_downloaded_can_be_read_by_others(source, tmp_path):
    source(lying(HEAD + b"\r\n" + CONTENT))
    path = download.data_file(NAME)
    (tmp_path / "plain").write_text("")
    assert path.read_bytes() == CONTENT and path.stat().st_mode == (tmp_path / "plain").stat().st_mode
