"""Clients of a service: asyncio sockets that ask and wait, and the process that serves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PROGRAM = [sys.executable, "-c", "import sys; from mtlweights.cli import main; sys.exit(main())"]
TOKEN = "benchmark"
HEAD = (
    "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    "Authorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n"
)


@dataclass
class Service:
    """A service in a process of its own."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def memory(self) -> float:
        """Resident MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def processor(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def answered(self) -> int:
        """Requests to /predict in its log."""
        return self.log.read_text(encoding="utf-8").count('"path": "/predict"')


@contextmanager
def service(model: str, log: Path, *options: str) -> Iterator[Service]:
    """The command, ready."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [*PROGRAM, "serve", model, "--port", str(port), *options]
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, "MTLWEIGHTS_TOKEN": TOKEN}
        )
        try:
            while not _listens(port):
                if process.poll() is not None:
                    raise SystemExit(log.read_text(encoding="utf-8"))
                time.sleep(0.2)
            yield Service(process, port, log)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def request(inputs: list[object], token: str = TOKEN) -> bytes:
    """The bytes of one request."""
    body = json.dumps({"inputs": inputs}).encode()
    return HEAD.format(token=token, length=len(body)).encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Status of an answer that is read whole, and whether the connection stays open."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    if length:
        await reader.readexactly(int(length[1]))
    return int(head.split(b" ", 2)[1]), b"connection: close" not in head.lower()


@dataclass
class Told:
    """What clients saw."""

    seconds: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    broken: int = 0  #: connections that ended before an answer


async def client(port: int, requests: Callable[[], bytes | None], told: Told) -> None:
    """Ask until there is no request left, on one connection as long as it stays open."""
    streams = None
    while (content := requests()) is not None:
        try:
            if streams is None:
                streams = await asyncio.open_connection("127.0.0.1", port)
            start = time.perf_counter()
            streams[1].write(content)
            status, stays = await answer(streams[0])
            told.seconds.append(time.perf_counter() - start)
            told.statuses.append(status)
        except (OSError, asyncio.IncompleteReadError):
            told.broken, stays = told.broken + 1, False
        if not stays and streams is not None:
            streams[1].close()
            streams = None
    if streams is not None:
        streams[1].close()


def ask(port: int, n_clients: int, requests: Callable[[], bytes | None]) -> Told:
    """What that many clients saw."""
    told = Told()

    async def every() -> None:
        await asyncio.gather(*(client(port, requests, told) for _ in range(n_clients)))

    asyncio.run(every())
    return told
