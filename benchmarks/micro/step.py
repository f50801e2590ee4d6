"""Times a training step, and its peak memory, against plain training and the bare T backward passes.

``OMP_NUM_THREADS=1 python benchmarks/micro/step.py > benchmarks/micro/step.md``; with TorchJD or LibMTL
installed (neither is a dependency), their lines stand beside ours, from the same interleaved run.
*plain* is forward + one backward of the summed losses; *floor* is forward + T calls of
``torch.autograd.grad`` over all parameters, results dropped. Every step ends with
``zero_grad(set_to_none=True)``; none has an optimizer step.
"""

from __future__ import annotations

import argparse
import platform
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import memory
import numpy as np
import torch
from arms import EVERY, LOSS_BASED, all_arms, of_family, references, versions
from models import QUICK, Problem, build
from timing import Settings, extra_ms, measure, ratio

from mtlweights.strategies import GramStrategy, LossStrategy

Table = dict[str, list[str]]  # label of a line -> a cell per column

CASES = {"MLP": (2, 10), "BiLSTM": (2, 10), "transformer": (2, 10), "recommender": (8,)}  # numbers of tasks

#: a line's label, its arm, what the arm is divided by, the target
LINES: list[tuple[str, str, str, str]] = [
    *((f"{name} / plain", name, "plain", "1.02 where plain takes 20 ms") for name in LOSS_BASED),
    ("famo with after_step (exact) / plain", "famo, after_step", "plain", ""),
    ("pcgrad / floor", "pcgrad", "floor", "1.03; 0.6 for MLP 10 and recommender"),
    ("cagrad / floor", "cagrad", "floor", "1.03"),
    ("pcgrad, gradients='rows' / floor", "pcgrad, rows", "floor", "1.03"),
    ("pcgrad, gradients='gramian' / floor", "pcgrad, gramian", "floor", ""),
    ("pcgrad by balancer(losses).backward() / floor", "pcgrad, call", "floor", "1.10 at T = 2"),
    ("pcgrad, gradients='features' / plain", "pcgrad, features", "plain", "1.1 and 1.3"),
    ("TorchJD's pcgrad / ours", "torchjd pcgrad", "pcgrad", "at least 1.2 and 1.35"),
    ("TorchJD's pcgrad, its fastest settings / ours", "torchjd pcgrad, fastest", "pcgrad", ""),
    ("TorchJD's cagrad / ours", "torchjd cagrad", "cagrad", "at least 1.2 and 1.35"),
    ("TorchJD's cagrad, its fastest settings / ours", "torchjd cagrad, fastest", "cagrad", ""),
    ("LibMTL's pcgrad / ours", "libmtl pcgrad", "pcgrad", "at least 1.6 and 2"),
]  # fmt: skip
# tables ---------------------------------------------------------------------------------------------------


def _build(name: str, n_tasks: int, settings: Settings) -> Problem:
    return build(name, n_tasks, settings.device, QUICK[name] if settings.quick else {})


def time_table(name: str, settings: Settings) -> Table:
    """Label -> target, and a cell per number of tasks, for one model."""
    table: Table = {}
    for n_tasks in CASES[name]:
        print(f"{name}, T = {n_tasks} ...", file=sys.stderr)
        problem = _build(name, n_tasks, settings)
        for label, target, cell in time_column(problem, settings):
            table.setdefault(label, [target]).append(cell)
    return table


def time_column(problem: Problem, settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Label, target and cell of every line."""
    two = len(problem.tasks) == 2
    times = measure(all_arms(problem), settings, EVERY if two else 1)
    for name in ("plain", "floor", "pcgrad"):
        yield f"{name}, ms", "", f"{1e3 * np.median(times[name]):.1f}"
    yield "rounds", "", str(len(times["plain"]))
    yield "uw - plain", "+0.3 ms where plain takes less than 20", extra_ms(times, "uw", "plain")
    for label, arm, reference, target in LINES:
        yield label, target, ratio(times, arm, reference)
    every = ratio(times, f"every {EVERY}", "plain", EVERY) if two else "-"
    yield f"pcgrad, every={EVERY}: mean / plain", "1.12 at T = 2", every


def strategy_tables(settings: Settings) -> list[tuple[str, Table]]:
    """All loss-based and all Gramian strategies on the MLP."""
    loss_based: Table = {}
    gramian: Table = {}
    for n_tasks in (2, 10):
        problem = _build("MLP", n_tasks, settings)
        for family, base, table in ((LossStrategy, "plain", loss_based), (GramStrategy, "floor", gramian)):
            arms = {base: references(problem)[base]} | of_family(problem, family)
            times = measure(arms, settings)
            for name in arms:
                if name != base:
                    table.setdefault(name, []).extend([ratio(times, name, base), extra_ms(times, name, base)])
    return [
        ("Loss-based strategies on the MLP, step / plain", loss_based),
        ("Gramian strategies on the MLP, step / floor", gramian),
    ]


def machine(settings: Settings) -> str:
    """Device, threads, versions."""
    if settings.device.type == "cuda":
        name = torch.cuda.get_device_name(settings.device)
    else:
        info = Path("/proc/cpuinfo")
        lines = info.read_text().splitlines() if info.exists() else []
        models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
        name = f"{models[0] if models else platform.processor()}, {max(1, len(models))} cores"
    threads = torch.get_num_threads()
    clock = "CPU time" if settings.by_cpu_time else "wall-clock time"
    return (
        f"{name}, {threads} thread{'s' if threads > 1 else ''}, {clock}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, {versions()}"
    )


def show(title: str, heads: Sequence[str], table: Table) -> None:
    """One Markdown table."""
    print(f"\n## {title}\n\n| what | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
    for label, cells in table.items():
        print(f"| {label} | {' | '.join(cells)} |")
    sys.stdout.flush()


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="on the CPU (default: 1)")
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--seconds", type=float, default=50.0, help="per column, for 5 to 40 rounds")
    parser.add_argument("--note", default="", help="a sentence about the machine for the page")
    parser.add_argument("--quick", action="store_true", help="tiny models: does it run?")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    settings = Settings(torch.device(args.device), args.quick, args.seconds)
    print("# A training step: time and memory\n")
    print("Made by `OMP_NUM_THREADS=1 python benchmarks/micro/step.py` on")
    print(f"{machine(settings)}.{' ' + args.note if args.note else ''}\n")
    print(TEXT)
    for name in args.models:
        show(f"Time, {name}", ["target", *(f"T = {n}" for n in CASES[name])], time_table(name, settings))
    if "MLP" in args.models:
        for title, table in strategy_tables(settings):
            show(title, ["T = 2", "difference", "T = 10", "difference"], table)
    columns = [memory.column(_build(name, 8, settings), settings.device) for name in args.models]
    table = {label: [column[label] for column in columns] for label in columns[0]}
    show("Peak memory above plain training at T = 8, in units of T P floats; exactness", args.models, table)


TEXT = """\
Cells are medians of ratios within a round, with quartiles. A round runs every line's step once, in a random
order; each column is one such run, of 5 to 40 rounds. *plain*: forward, one backward of the summed losses.
*floor*: forward, T calls of `torch.autograd.grad` over all parameters. All steps end with
`zero_grad(set_to_none=True)`, none has an optimizer step. Ours is `gradients="auto"` unless the line says
otherwise.

MLP: 4 x 1024, batch 64. BiLSTM: 2 layers of 256 units a direction, 10,000 words, batch 32 x 30, a label per
word. Transformer: BERT, 4 layers of width 256, 30,522 words, dropout 0.1, batch 16 x 64, a label per token.
Recommender: embedding 100,000 x 64, two layers, batch 256 x 20 ids.

TorchJD by `mtl_backward` and `jac_to_grad`: as it comes, and with the fastest of its settings
(`parallel_chunk_size` None or 1, `optimize_gramian_computation`). LibMTL by its `HPS` model on the same
trunk and heads, its `zero_grad_share_params` told to leave zeros, without which 1.1.5 stops on this torch;
its CAGrad is written for 3 tasks."""


if __name__ == "__main__":
    main()
