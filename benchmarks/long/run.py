"""Does every strategy live through a long training? No NaN, no growth, no slow-down.

``OMP_NUM_THREADS=1 python benchmarks/long/run.py`` trains a small network of three tasks for 20,000 steps
with each strategy of the registry, through the Balancer, and writes ``results.md`` beside this file, line by
line. The losses' scales drift, and come back: task a's falls to e^-12 and task b's rises to e^3, four times.
Names given as arguments are run alone; lines of the others that are there stay.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtlweights import Balancer
from mtlweights.strategies import registry

HERE = Path(__file__).parent
TASKS = ("a", "b", "c")
DEPTH = torch.tensor([-12.0, 3.0, 0.0])  #: of the drift, in logs
COUNTS = ("step", "count", "counts", "epoch", "seen")
PERIODS, EPOCH, WINDOW = 4, 500, 2000
COLUMNS = (
    "strategy",
    "finite",
    "largest weight, 2nd and last drift",
    "largest state, 2nd and last drift",
    "resident MB, after 2,000 steps and at the end",
    "ms a step on the CPU, median of the first and the last 2,000",
)


class Network(nn.Module):
    """Regressions of random functions, with noise that no training removes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Parameter(torch.randn(4, 8) / 2)
        self.heads = nn.ParameterList([torch.randn(8) / 3 for _ in TASKS])
        self.x = torch.randn(512, 4)
        self.y = torch.sin(self.x @ torch.randn(4, 3)) + 0.3 * torch.randn(512, 3)

    def forward(self, at: Tensor, step: int, steps: int) -> dict[str, Tensor]:
        """Task -> loss; at the end of each period the scales are 1 again."""
        hidden, y = torch.tanh(self.x[at] @ self.trunk), self.y[at]
        scale = torch.exp(DEPTH * np.sin(np.pi * PERIODS * step / steps) ** 2)
        pairs = zip(TASKS, self.heads, strict=True)
        return {
            task: scale[i] * (hidden @ head - y[:, i]).square().mean() for i, (task, head) in enumerate(pairs)
        }


def train(name: str, steps: int) -> dict[str, Any]:
    """Whether all stayed finite; largest weight and state of every drift, times and memory."""
    net = Network()
    balancer = Balancer(name, TASKS, net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    draws = torch.Generator().manual_seed(1)
    weights, state, times, resident = np.zeros(PERIODS), np.zeros(PERIODS), [], []
    finite, batches = True, balancer.strategy.batches
    for step in range(steps):
        picked = torch.randint(512, (batches + 1, 16), generator=draws)
        period = PERIODS * step // steps
        start = time.process_time()
        balancer.validate(lambda at=picked[-1], step=step: net(at, step, steps))  # type: ignore[misc]
        optimizer.zero_grad()
        for at in picked[:-1]:
            (balancer(net(at, step, steps)) / batches).backward()
        optimizer.step()
        balancer.after_step(lambda at=picked[-2], step=step: net(at, step, steps))  # type: ignore[misc]
        if step % EPOCH == EPOCH - 1:
            balancer.end_epoch({"a": 0.2, "b": 0.5, "c": 0.5 + 0.4 * np.sin(step)})
        times.append(time.process_time() - start)
        if step % 100 == 99:
            found = [float(w) for w in balancer.weights.values()]
            weights[period] = max([weights[period], *np.abs(found)])
            state[period] = max(state[period], _largest(balancer))
            finite = finite and all(bool(torch.isfinite(p).all()) for p in net.parameters())
            finite = finite and bool(np.isfinite(found).all()) and np.isfinite(state[period])
        if step in (min(WINDOW, steps // 2), steps - 1):
            resident.append(_resident())
    first, last = (1000 * float(np.median(part)) for part in (times[:WINDOW], times[-WINDOW:]))
    return {"finite": finite, "weights": weights, "state": state, "ms": (first, last), "resident": resident}


def _largest(balancer: Balancer) -> float:
    """Of the strategy's state, but for what counts steps."""
    kept = balancer.state_dict()
    state = {**kept["strategy"], **{k: v for k, v in kept["rows"].items() if isinstance(v, Tensor)}}
    values = [v.double().abs() for k, v in state.items() if k not in COUNTS and v.numel()]
    return max((float(torch.where(v.isnan(), 0.0, v).max()) for v in values), default=0.0)


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def line(name: str, found: dict[str, Any]) -> str:
    """A row of the table."""
    (first, last), (before, after) = found["ms"], found["resident"]
    pairs = [f"{found[key][1]:.3g}, {found[key][-1]:.3g}" for key in ("weights", "state")]
    return (
        f"| `{name}` | {'yes' if found['finite'] else '**no**'} | {pairs[0]} | {pairs[1]} "
        f"| {before:.0f}, {after:.0f} | {first:.2f}, {last:.2f} |"
    )


def main() -> None:
    """Run, and write after every strategy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="strategies (default: all)")
    parser.add_argument("--steps", type=int, default=20_000)
    plan = parser.parse_args()
    torch.set_num_threads(1)
    page = HERE / "results.md"
    for name in plan.names or registry.STRATEGIES:
        found = line(name, train(name, plan.steps))
        print(found, flush=True)
        text = page.read_text(encoding="utf-8") if page.exists() else ""
        lines = {row.split("`")[1]: row for row in text.splitlines() if row.startswith("| `")} | {name: found}
        rows = [lines[key] for key in registry.STRATEGIES if key in lines]
        page.write_text(_title(plan.steps) + "\n".join(rows) + "\n", encoding="utf-8")


def _title(steps: int) -> str:
    lines = (
        "# A long training",
        "",
        f"Written by `python benchmarks/long/run.py`: {steps:,} steps of three tasks whose losses' scales",
        f"drift by e^-12 to e^3 and back four times; torch {torch.__version__}, {platform.machine()}.",
        "Times are those of the process, on one thread of a machine on which other work ran: only their",
        "ratio means something. Counters are no state here.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---" * len(COLUMNS) + "|",
        "",
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
