"""Do the two strategies that learn task relations recover planted ones?

``OMP_NUM_THREADS=1 python benchmarks/relations/run.py`` trains on 20 planted structures with each strategy,
through the Balancer, and writes ``relations.md`` and ``relations.png`` beside this file.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from planted import Network, Structure
from torch import Tensor

import mtlweights
from mtlweights.strategies import Index
from mtlweights.strategies.jacobian.contrastive import Contrastive
from mtlweights.strategies.jacobian.variational import Variational

HERE = Path(__file__).parent
BATCH = 16
METHODS = {"variational": Variational, "contrastive": Contrastive}


class Cosines:
    """Mean and last cosine of every pair of task gradients, over the steps that had both."""

    def __init__(self, n_tasks: int) -> None:
        self.total, self.count = np.zeros((n_tasks, n_tasks)), np.zeros((n_tasks, n_tasks))
        self.last = np.zeros((n_tasks, n_tasks))

    def add(self, jacobian: Tensor, present: Index) -> None:
        rows = torch.nn.functional.normalize(jacobian.double(), dim=1)
        index = np.arange(len(self.total))[present]
        block = np.ix_(index, index)
        self.last[block] = (rows @ rows.T).numpy()
        self.total[block] += self.last[block]
        self.count[block] += 1

    @property
    def mean(self) -> np.ndarray:
        return self.total / self.count


def watched(method: type, n_tasks: int) -> tuple[Any, Cosines]:
    """The strategy, and the cosines of the very gradients it is given."""
    cosines = Cosines(n_tasks)

    class Watched(method):  # type: ignore[misc]
        def direction(self, jacobian: Tensor, losses: Tensor, present: Index) -> Any:
            cosines.add(jacobian, present)
            return super().direction(jacobian, losses, present)

    return Watched(n_tasks), cosines


def train(structure: Structure, method: type, seed: int, plan: argparse.Namespace) -> dict[str, np.ndarray]:
    """Relations [T, T] after training: the strategy's, and the cosines of its steps."""
    torch.manual_seed(seed)
    model = Network(structure, plan.random_heads)
    strategy, cosines = watched(method, structure.n_tasks)
    names = [str(task) for task in range(structure.n_tasks)]
    balancer = mtlweights.Balancer(strategy, tasks=names, model=model)
    optimizer = torch.optim.Adam(model.parameters(), lr=plan.rate)
    for _ in range(plan.steps):
        optimizer.zero_grad()
        balancer.backward(model(torch.randint(len(structure.x), (BATCH,))))
        optimizer.step()
    return {"ours": strategy.relations(), "mean cosine": cosines.mean, "last cosine": cosines.last}


def experiment(plan: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per structure."""
    out = []
    for seed in plan.seeds:
        structure = Structure(seed)
        row: dict[str, Any] = {"seed": seed, "groups": sorted(np.bincount(structure.group))[::-1]}
        for name, method in METHODS.items():
            found = train(structure, method, seed, plan)
            row[name] = {key: structure.auc(value) for key, value in found.items()}
        out.append(row)
        print(seed, {name: {k: round(v, 3) for k, v in row[name].items()} for name in METHODS}, flush=True)
    return out


def column(rows: list[dict[str, Any]], method: str, key: str) -> np.ndarray:
    return np.array([row[method][key] for row in rows])


def table(rows: list[dict[str, Any]], plan: argparse.Namespace, seconds: float) -> str:
    keys = ("ours", "mean cosine", "last cosine")
    head = ["seed", "groups", *(f"{m}: {k}" for m in METHODS for k in keys)]
    body = [
        [str(r["seed"]), " ".join(map(str, r["groups"])), *(f"{r[m][k]:.3f}" for m in METHODS for k in keys)]
        for r in rows
    ]
    for label, summary in (("**mean**", np.mean), ("**least**", np.min)):
        body.append([label, "", *(f"{summary(column(rows, m, k)):.3f}" for m in METHODS for k in keys)])
    lines = [" | ".join(cells) for cells in (head, ["---"] * len(head), *body)]
    verdicts = []
    for m in METHODS:
        ours, raw = column(rows, m, "ours"), column(rows, m, "mean cosine")
        verdicts.append(
            f"- `{m}`: at least 0.9 in {(ours >= 0.9).sum()} of {len(rows)} structures; against the mean "
            f"cosine better in {(ours > raw).sum()}, equal in {(ours == raw).sum()}, "
            f"worse in {(ours < raw).sum()}."
        )
    return "\n".join([
        "# Recovery of planted task relations", "",
        f"Made by `python benchmarks/relations/run.py` on {_processor()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} thread(s), in {seconds:.0f} s of CPU time; "
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}.", "",
        f"ROC AUC over task pairs, related or not, after {plan.steps} steps of Adam at {plan.rate:g}; heads "
        f"start {'at random' if plan.random_heads else 'at zero'}. *groups*: sizes of the groups of related "
        "tasks. *mean cosine*, *last cosine*: raw gradient cosine over all steps, and at the last step of "
        "each pair, in the run whose strategy stands before them.", "",
        *(f"| {line} |" for line in lines), "", *verdicts, "",
    ])  # fmt: skip


def _processor() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text()
        return next(line.split(":")[1].split()[0] for line in info.splitlines() if "model name" in line)
    except (OSError, StopIteration):
        return platform.machine()


def figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Every structure's AUC, ours over the mean cosine's."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, len(METHODS), figsize=(8, 3.8), sharex=True, sharey=True)
    for ax, name in zip(axes, METHODS, strict=True):
        ours, raw = column(rows, name, "ours"), column(rows, name, "mean cosine")
        least = min(column(rows, m, k).min() for m in METHODS for k in ("ours", "mean cosine")) - 0.02
        ax.plot([least, 1.01], [least, 1.01], color="0.7", lw=1, zorder=0)
        ax.axhline(0.9, color="0.7", lw=1, ls=":", zorder=0)
        ax.scatter(raw, ours, s=28, alpha=0.7)
        ax.set(title=name, xlabel="AUC of the mean raw cosine", xlim=(least, 1.01), ylim=(least, 1.01))
        ax.set_aspect("equal")
    axes[0].set_ylabel("AUC of relations()")
    fig.tight_layout()
    fig.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(20)))
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--random-heads", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE)
    plan = parser.parse_args()
    start = time.process_time()
    rows = experiment(plan)
    text = table(rows, plan, time.process_time() - start)
    (plan.out / "relations.md").write_text(text)
    figure(rows, plan.out / "relations.png")
    print(text)


if __name__ == "__main__":
    main()
