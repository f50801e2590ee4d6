"""What bad requests, a signal under load and a long day do to the service.

``python benchmarks/serve/faults.py MODEL`` starts it three times and writes ``faults.md`` beside this file:

- ``--bad`` requests that are malformed, oversized, slow, or without the token, from 32 clients, of which none
  may be answered with 2xx or 5xx;
- SIGTERM while 64 clients ask: every request that the service read is answered;
- ``--long`` requests from 64 clients, and the resident memory on the way.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clients import HEAD, TOKEN, Service, answer, ask, request, service
from load import examples

from mtlweights.serve import TrainedModel

HERE = Path(__file__).parent
TIMEOUT = 1.0  # seconds of the service under test


def raw(body: bytes, token: str = TOKEN) -> bytes:
    """A request with any body."""
    return HEAD.format(token=token, length=len(body)).encode() + body


def bad(draw: random.Random, good: list[Any]) -> tuple[str, bytes]:
    """A request that must not be answered, and what is wrong with it."""
    one = draw.choice(good)
    whole = request([one])
    kinds = {
        "no token": lambda: request([one], draw.choice(["", "x", TOKEN[:-1], TOKEN + "x"])),
        "no JSON": lambda: raw(draw.randbytes(draw.randint(0, 300))),
        "JSON cut": lambda: raw(whole.partition(b"\r\n\r\n")[2][: -draw.randint(1, 20)]),
        "nested": lambda: raw(b'{"inputs": ' + b"[" * draw.randint(100, 50_000)),
        "wrong types": lambda: request(
            [draw.choice([None, 1, [], [1], {"text": 1}, {"words": "x"}, {"x": 1}])]
        ),
        "no inputs": lambda: raw(draw.choice([b"{}", b"[]", b"null", b'{"inputs": []}', b'{"inputs": {}}'])),
        "too many": lambda: request([one] * draw.randint(65, 500)),
        "too long": lambda: request([{"text": "a " * draw.randint(513, 9000)}]),
        "too large": lambda: raw(b" " * ((1 << 20) + draw.randint(1, 1 << 18))),
        "another path": lambda: whole.replace(
            b"/predict", draw.choice([b"/", b"/..", b"/predict/x", b"/%00"])
        ),
        "another method": lambda: whole.replace(b"POST", draw.choice([b"GET", b"PUT", b"DELETE"])),
        "no HTTP": lambda: draw.randbytes(draw.randint(5, 200)) + b"\r\n\r\n",
        "long headers": lambda: b"POST /predict HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        "slow headers": lambda: whole[: draw.randint(1, 60)],
        "slow body": lambda: whole[: -draw.randint(1, 20)],
    }
    rare = {"too large": 0.3, "slow headers": 0.05, "slow body": 0.05}
    kind = draw.choices([*kinds], [rare.get(name, 1.0) for name in kinds])[0]
    return kind, kinds[kind]()


async def send(port: int, content: bytes) -> str:
    """Status of the answer, on a connection of its own; how it ended where there is none."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return "refused"
    try:
        writer.write(content)
        return str((await asyncio.wait_for(answer(reader), 60))[0])
    except asyncio.TimeoutError:
        return "none in 60 s"
    except (OSError, asyncio.IncompleteReadError):
        return "closed"
    finally:
        writer.close()


def attack(running: Service, good: list[Any], n: int) -> dict[str, Counter[str]]:
    """How ``n`` bad requests were answered, by kind."""
    draw, found = random.Random(0), {}
    rest = iter([bad(draw, good) for _ in range(n)])

    async def one() -> None:
        for kind, content in rest:
            found.setdefault(kind, Counter())[await send(running.port, content)] += 1

    async def every() -> None:
        await asyncio.gather(*(one() for _ in range(32)))

    asyncio.run(every())
    return found


def stopped(running: Service, good: list[Any]) -> tuple[int, int, int]:
    """SIGTERM after two seconds of 64 clients: answers, requests in the log, statuses that are not 200."""
    end, contents = threading.Event(), _repeated(good)
    timer = threading.Timer(2, lambda: running.process.send_signal(signal.SIGTERM))
    timer.start()
    watch = threading.Thread(target=lambda: (running.process.wait(), end.set()))
    watch.start()
    told = ask(running.port, 64, lambda: None if end.is_set() else next(contents))
    watch.join()
    return len(told.statuses), running.answered(), sum(status != 200 for status in told.statuses)


def _repeated(good: list[Any]) -> Iterator[bytes]:
    contents = [request([one]) for one in good]
    while True:
        yield from contents


def grown(running: Service, good: list[Any], n: int) -> list[tuple[int, float]]:
    """Resident MB after each tenth of ``n`` requests."""
    contents, found = _repeated(good), [(0, running.memory())]
    for tenth in range(1, 11):
        left = iter(range(n // 10))
        told = ask(
            running.port, 64, lambda left=left: next(contents) if next(left, None) is not None else None
        )
        assert set(told.statuses) == {200} and not told.broken
        found.append((tenth * (n // 10), running.memory()))
    return found


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--bad", type=int, default=10_000)
    parser.add_argument("--long", type=int, default=100_000)
    args = parser.parse_args()
    model = TrainedModel.from_pretrained(args.model)
    good = examples(model)
    quiet = ("--log-level", "warning")
    with TemporaryDirectory() as place:
        with service(args.model, Path(place, "1"), *quiet, "--timeout", str(TIMEOUT)) as running:
            before, start = running.memory(), time.perf_counter()
            answers = attack(running, good, args.bad)
            seconds, after = time.perf_counter() - start, running.memory()
            still = ask(running.port, 1, iter([request([good[0]]), None]).__next__).statuses
        with service(args.model, Path(place, "2"), "--drain", "2") as running:
            told, logged, others = stopped(running, good)
        with service(args.model, Path(place, "3"), *quiet) as running:
            memory = grown(running, good, args.long)
    text = page(
        args, answers, (before, after, seconds, still), (told, logged, others), memory, model.problem or ""
    )
    (HERE / "faults.md").write_text(text, encoding="utf-8")
    print(text)


def page(
    args: argparse.Namespace,
    answers: dict[str, Counter[str]],
    attacked: tuple[float, float, float, list[int]],
    ended: tuple[int, int, int],
    memory: list[tuple[int, float]],
    problem: str,
) -> str:
    """The tables."""
    before, after, seconds, still = attacked
    lines = [
        "# The service under attack\n",
        f"Made by `python benchmarks/serve/faults.py MODEL/int8 --bad {args.bad} --long {args.long}` on the "
        f"model of `{problem}`.\n\n## Bad requests\n\n| what is wrong | requests | answers |\n|---|---|---|",
    ]
    for kind, counts in sorted(answers.items()):
        said = ", ".join(f"{status}: {n}" for status, n in sorted(counts.items()))
        lines.append(f"| {kind} | {counts.total()} | {said} |")
    total = sum(counts.total() for counts in answers.values())
    lines.append(
        f"\n{total} in {seconds:.0f} s from 32 clients; resident memory {before:.0f} MB before, {after:.0f} "
        f"MB after; a good request then got {still[0]}. *closed*: the connection ended before a "
        "whole answer, as it does where a client still sends."
    )
    lines.append(
        f"\n## SIGTERM under load\n\n64 clients, the signal after 2 s, `--drain 2`: {ended[0]} answers came, "
        f"{ended[1]} requests were read by the service, {ended[2]} of the answers were no 200."
    )
    lines.append("\n## Memory\n\n| requests | resident MB |\n|---|---|")
    lines += [f"| {n} | {megabytes:.1f} |" for n, megabytes in memory]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
