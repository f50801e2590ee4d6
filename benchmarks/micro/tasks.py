"""What a step costs as tasks are added: time and memory of each family, for 8 to 512 heads on one trunk.

``OMP_NUM_THREADS=1 python benchmarks/micro/tasks.py`` writes ``tasks.csv`` and ``tasks.md`` beside it and
``docs/tasks.svg``. Every cell is a process of its own, in which steps of plain training and of the family
take turns; a run that was stopped goes on with the cells that are missing. Remove ``tasks.csv`` to measure
anew.
"""

from __future__ import annotations

import argparse
import csv
import resource
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from solvers import machine
from torch import nn

from mtlweights import Balancer

HERE, FIGURE = Path(__file__).parent, Path(__file__).parents[2] / "docs" / "tasks.svg"
CELLS = HERE / "tasks.csv"
COLUMNS = ("family", "tasks", "plain_ms", "ratio", "low", "high", "mb")
TASKS = (8, 32, 128, 512)
WIDTH, LAYERS, BATCH, SECONDS = 256, 4, 64, 1.5  # SECONDS: of steps that are timed, per cell
#: family -> strategy and the Balancer's arguments
FAMILIES: dict[str, tuple[str, dict[str, object]]] = {
    "losses (uw)": ("uw", {}),
    "last layer (gradnorm)": ("gradnorm", {}),
    "representation (pcgrad)": ("pcgrad", {"gradients": "features"}),
    "Gramian, every=8 (pcgrad)": ("pcgrad", {"every": 8}),
    "Gramian (pcgrad)": ("pcgrad", {}),
    "Gramian by rows (pcgrad)": ("pcgrad", {"gradients": "rows"}),
    "whole gradients (graddrop)": ("graddrop", {}),
}
Step = Callable[[], None]
Cell = dict[str, str]


def steps(family: str, tasks: int) -> tuple[Step, Step]:
    """A step of plain training, and one of the family, on the same trunk and heads."""
    torch.manual_seed(0)
    trunk = nn.Sequential(*[m for _ in range(LAYERS) for m in (nn.Linear(WIDTH, WIDTH), nn.ReLU())])
    heads, names = nn.ModuleList([nn.Linear(WIDTH, 1) for _ in range(tasks)]), [str(i) for i in range(tasks)]
    model = nn.ModuleList([trunk, heads])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    x, y = torch.randn(BATCH, WIDTH), torch.randn(tasks, BATCH, 1)
    strategy, options = FAMILIES[family]
    at = {"features": trunk} if options.get("gradients") == "features" else {}
    balancer = Balancer(strategy, names, model, **options, **at)  # type: ignore[arg-type]

    def step(scalar: Callable[[dict[str, torch.Tensor]], torch.Tensor]) -> None:
        z = trunk(x)
        outputs = zip(names, heads, y, strict=True)
        scalar({name: (head(z) - target).square().mean() for name, head, target in outputs}).backward()
        optimizer.step()
        optimizer.zero_grad()

    return lambda: step(lambda losses: torch.stack(list(losses.values())).sum()), lambda: step(balancer)


def measure(family: str, tasks: int) -> Cell:
    """CPU time of a step over a plain one's, median and quartiles of rounds, and MB of peak memory above."""
    plain, ours = steps(family, tasks)
    block = 8 if "every=8" in family else 1
    for _ in range(3):
        plain()
    before = _peak_mb()
    for _ in range(2):
        ours()
    above = _peak_mb() - before
    times: list[tuple[float, float]] = []
    while len(times) < 3 or (sum(map(sum, times)) * block < SECONDS and len(times) < 100):
        times.append((_seconds(plain, block), _seconds(ours, block)))
    reference, own = np.array(times).T
    low, middle, high = np.quantile(own / reference, (0.25, 0.5, 0.75))
    numbers = (1e3 * float(np.median(reference)), middle, low, high, above)
    return dict(zip(COLUMNS, (family, str(tasks), *(f"{number:.4g}" for number in numbers)), strict=True))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _seconds(step: Step, block: int) -> float:
    start = time.process_time()
    for _ in range(block):
        step()
    return (time.process_time() - start) / block


def cells(as_is: bool) -> list[Cell]:
    """All of them; what ``tasks.csv`` lacks is measured, each in a process of its own, and written there."""
    found = list(csv.DictReader(CELLS.open(encoding="utf-8"))) if CELLS.exists() else []
    if as_is:
        return found
    for tasks in TASKS:
        for family in FAMILIES:
            if any(cell["family"] == family and cell["tasks"] == str(tasks) for cell in found):
                continue
            with get_context("fork").Pool(1) as apart:  # the peak of memory is a process's; torch is loaded
                found.append(apart.apply(measure, (family, tasks)))
            print(*found[-1].values(), file=sys.stderr)
            with CELLS.open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                table.writeheader()
                table.writerows(found)
    return found


def page(found: list[Cell]) -> str:
    """The tables in Markdown."""
    at = {(cell["family"], int(cell["tasks"])): cell for cell in found}
    heads = f"| family |{''.join(f' T = {t} |' for t in TASKS)}\n|---|{'---|' * len(TASKS)}\n"

    def table(show: Callable[[Cell], str]) -> str:
        own = [[at.get((family, t)) for t in TASKS] for family in FAMILIES]
        lines = [
            [f, *("-" if c is None else show(c) for c in row)] for f, row in zip(FAMILIES, own, strict=True)
        ]
        return heads + "\n".join(f"| {' | '.join(line)} |" for line in lines)

    ranges = table(lambda c: f"{float(c['ratio']):.2f} ({float(c['low']):.2f} to {float(c['high']):.2f})")
    memory = table(lambda c: f"{float(c['mb']):.0f}")
    plain = ", ".join(
        f"{np.median([float(c['plain_ms']) for c in found if c['tasks'] == str(t)]):.1f}" for t in TASKS
    )
    return (
        f"# Many tasks\n\nMade by `benchmarks/micro/tasks.py` on {machine()}:\na trunk of "
        f"{LAYERS * (WIDTH * WIDTH + WIDTH):,} parameters, a linear head per task, {BATCH} examples, SGD.\n"
        "Steps of plain training and of the family took turns, and\n"
        f"ratios are taken within a turn. Plain training took {plain} ms.\n\n"
        f"## CPU time of a step, over that of plain training (median, quartiles)\n\n{ranges}\n\n"
        f"## Peak of the process's memory above plain training, MB\n\n{memory}\n"
    )


def draw(found: list[Cell]) -> None:
    """The curves."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "tasks"
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5))
    for family in FAMILIES:
        own = sorted(
            (int(c["tasks"]), float(c["ratio"]), float(c["mb"])) for c in found if c["family"] == family
        )
        if not own:
            continue
        tasks, ratios, memory = zip(*own, strict=True)
        left.plot(tasks, ratios, marker="o", label=family)
        right.plot(tasks, np.maximum(memory, 1), marker="o")
    left.set(ylabel="CPU time of a step, over plain training")
    right.set(ylabel="MB above plain training (at least 1)")
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlabel="tasks")
        axes.set_xticks(TASKS, [str(t) for t in TASKS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.legend(loc="lower center", ncols=4, fontsize=8)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.savefig(FIGURE, metadata={"Date": None, "Creator": None})


def main() -> None:
    """Measure what is missing; write the page and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--as-is", action="store_true", help="measure nothing: the page and figure of tasks.csv"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = cells(args.as_is)
    (HERE / "tasks.md").write_text(page(found), encoding="utf-8")
    draw(found)


if __name__ == "__main__":
    main()
