"""How many answers a second, how late the last one in a hundred is, beside the model alone.

``python benchmarks/serve/load.py INT8_MODEL PYTORCH_MODEL`` starts the service on the first and writes
``load.md`` beside this file. A request is one sentence or row, as a user sends it. The arms take turns for
``--seconds`` each, ``--rounds`` times: bare calls of ONNX Runtime on inputs that are tensors already (the
floor), the plain loop `model.predict([one])` in PyTorch and on the int8 graph, and the service with 1, 8 and
64 clients, which are on the same machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from clients import ask, request, service

from mtlweights.problems import load
from mtlweights.serve import TrainedModel
from mtlweights.serve.readings import read
from mtlweights.serve.samples import sample

HERE = Path(__file__).parent
CLIENTS = (1, 8, 64)
Arm = tuple[
    int, list[float], float
]  # answers, seconds of each, processor seconds of the process that computes


def examples(model: TrainedModel) -> list[Any]:
    """Those of the test split as JSON has them; of a table drawn ones."""
    if model.kind == "table":
        return sample(model, 500)
    given = [example["input"] for example in load(model.problem).splits["test"]][:500]
    if model.kind == "pair":
        return [{"a": {"words": a}, "b": {"words": b}} for a, b in given]
    return [{"words": words} for words in given]


def looped(call: Callable[[Any], object], given: list[Any], seconds: float) -> Arm:
    """One call after the other."""
    times, turn, start, processor = [], cycle(given), time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        one, began = next(turn), time.perf_counter()
        call(one)
        times.append(time.perf_counter() - began)
    return len(times), times, time.process_time() - processor


def served(running: Any, clients: int, given: list[Any], seconds: float) -> Arm:
    """That many clients for that long."""
    contents, end = cycle([request([one]) for one in given]), time.perf_counter() + seconds
    processor = running.processor()
    told = ask(running.port, clients, lambda: next(contents) if time.perf_counter() < end else None)
    if set(told.statuses) != {200} or told.broken:
        raise SystemExit(f"expected answers, found {set(told.statuses)} and {told.broken} broken connections")
    return len(told.seconds), told.seconds, running.processor() - processor


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("whole")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    small, whole = (TrainedModel.from_pretrained(name) for name in (args.model, args.whole))
    given = examples(small)
    plain = [row if small.kind == "table" else _plain(row) for row in given]
    inputs = [small.inputs([read(small.kind, one, small.features).input]) for one in plain]
    arms: dict[str, list[Arm]] = {}
    with (
        TemporaryDirectory() as place,
        service(args.model, Path(place, "log"), "--log-level", "warning") as running,
    ):
        turns: dict[str, Callable[[], Arm]] = {
            "ONNX Runtime alone, int8": lambda: looped(small.runtime, inputs, args.seconds),
            "PyTorch loop": lambda: looped(lambda one: whole.predict([one]), plain, args.seconds),
            "predict loop, int8": lambda: looped(lambda one: small.predict([one]), plain, args.seconds),
        }
        for n in CLIENTS:
            turns[f"service, {n} client{'s' * (n > 1)}"] = lambda n=n: served(running, n, given, args.seconds)
        for _ in range(args.rounds):
            for name, turn in turns.items():
                arms.setdefault(name, []).append(turn())
        memory = running.memory()
    text = page(arms, args, memory, small.problem or "")
    (HERE / "load.md").write_text(text, encoding="utf-8")
    print(text)


def _plain(row: Any) -> Any:
    return (row["a"]["words"], row["b"]["words"]) if "a" in row else row["words"]


def page(arms: dict[str, list[Arm]], args: argparse.Namespace, memory: float, problem: str) -> str:
    """The table."""
    lines = [
        "# The service under load\n",
        f"Made by `python benchmarks/serve/load.py MODEL/int8 MODEL --seconds {args.seconds:g} --rounds "
        f"{args.rounds}` on the model of `{problem}`; {os.cpu_count()} cores, load average "
        f"{os.getloadavg()[0]:.0f}. Medians over the rounds; the service had {memory:.0f} MB at the end.\n",
        "| arm | answers a second | p50, ms | p99, ms | processor ms an answer | of the floor |",
        "|---|---|---|---|---|---|",
    ]
    floor = None
    for name, rounds in arms.items():
        rate = statistics.median(n / args.seconds for n, _, _ in rounds)
        shares = [np.percentile(times, (50, 99)) * 1e3 for _, times, _ in rounds]
        p50, p99 = np.median(shares, 0)
        processor = statistics.median(1e3 * spent / n for n, _, spent in rounds)
        floor = floor or processor
        cells = (
            name,
            f"{rate:.0f}",
            f"{p50:.2f}",
            f"{p99:.2f}",
            f"{processor:.2f}",
            f"{processor / floor:.1f} x",
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines.append(
        "\nProcessor time, of the process that computes, does not depend on what else the machine does; the "
        "rates and percentiles do, and the clients share the machine. The last column is processor time over "
        "that of the bare calls."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
