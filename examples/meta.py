"""Targets that were never trained on, learnt from a few rows: Reptile, first-order MAML, joint, from scratch.

python examples/meta.py --rows 10

Mulan's table of occupations has 16 targets; most are for meta learning, the last ones are new. It ends in the
mean RRMSE of the new targets on test rows over the seeds (1 is the mean of the rows given), and half its
interval.
"""

import argparse
import json

import matplotlib
import numpy as np
import torch
from torch import nn

from mtlweights.bench.statistics import fixed_t
from mtlweights.problems import load
from mtlweights.train.meta import adapt, meta_step

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser()
parser.add_argument("--data", default="mulan:oes97")
parser.add_argument("--new", type=int, default=4, help="targets that are held out")
parser.add_argument("--rows", type=int, nargs="+", default=[5, 10, 20])
parser.add_argument("--seeds", type=int, default=5)
parser.add_argument("--lr", type=float, default=0.002, help="of the descent on a few rows")
parser.add_argument("--rounds", type=int, default=150)
parser.add_argument("--limit", type=int, help="rounds, for a trial run")
parser.add_argument("--figure", default="meta.png")
args = parser.parse_args()

problem = load(args.data)
names = [task.name for task in problem.tasks]


def table(part):
    rows = problem.splits[part]
    y = np.array([[row["targets"][name] for name in names] for row in rows], dtype=np.float32)
    return problem.inputs([row["input"] for row in rows])["x"], torch.from_numpy(y)


(x, y), (x_test, y_test) = table("train"), table("test")
mean, std = y.mean(0), y.std(0)
y, y_test = (y - mean) / std, (y_test - mean) / std


def loss(run, batch):
    return (run(batch[0]).squeeze(-1) - batch[1]).square().mean()


def trained(method, seed):
    """A model that has seen the old targets alone."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    if method == "scratch":
        return model
    kind, steps = ("reptile", 1) if method == "joint" else (method, 5)
    for _ in range(args.limit or args.rounds):
        episodes = []
        for task in torch.randperm(len(names) - args.new)[:6].tolist():
            rows = torch.randperm(len(x))[:40]
            episodes.append(tuple((x[part], y[part, task]) for part in (rows[:20], rows[20:])))
        meta_step(model, loss, episodes, optimizer, method=kind, steps=steps, lr=args.lr)
    return model


def error(model, k, seed):
    """Mean RRMSE of the new targets, each from k rows."""
    rows = torch.from_numpy(np.random.default_rng(seed).permutation(len(x))[:k])
    found = []
    for task in range(len(names) - args.new, len(names)):
        own = adapt(model, loss, (x[rows], y[rows, task]), steps=20, lr=args.lr)
        with torch.no_grad():
            wrong = (own(x_test).squeeze(-1) - y_test[:, task]).square().sum()
        found.append(float((wrong / (y[rows, task].mean() - y_test[:, task]).square().sum()).sqrt()))
    return float(np.mean(found))


METHODS = ("scratch", "joint", "reptile", "fomaml")
models = {(method, seed): trained(method, seed) for method in METHODS for seed in range(args.seeds)}
results = {method: {} for method in METHODS}
for method in METHODS:
    for k in args.rows:
        found = fixed_t([error(models[method, seed], k, seed) for seed in range(args.seeds)])
        results[method][k] = [round(found.mean, 4), round(found.half, 4)]
figure, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
for method, found in results.items():
    means, halves = zip(*found.values(), strict=True)
    axis.errorbar([*found], means, yerr=halves, fmt="o-", capsize=3, label=method)
axis.axhline(1, color="grey", linewidth=0.5)
axis.set(xlabel="rows of a new target", ylabel="RRMSE on test rows")
axis.legend()
figure.savefig(args.figure, dpi=70)
print(json.dumps(results))
