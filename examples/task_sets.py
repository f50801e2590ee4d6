"""A data set per task, one of them small: what each way of sampling makes of it, in a loop of one's own.

python examples/task_sets.py --sampling proportional temperature:t=5 round_robin

The training tumours are dealt out: most have a diagnosis alone, a few the radius of the largest nuclei alone.
It ends in the mean of each task's score on test over the seeds, and half its 95 % interval.
"""

import argparse
import json
import random

import matplotlib
import torch

from mtlweights import Balancer
from mtlweights.bench.statistics import fixed_t
from mtlweights.problems import load
from mtlweights.train import TaskLoader, evaluate

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser()
parser.add_argument(
    "--sampling", nargs="+", default=["proportional", "temperature:t=5", "annealed", "round_robin"]
)
parser.add_argument("--strategy", default="equal")
parser.add_argument("--few", type=float, default=0.1, help="share of the rows that have a radius")
parser.add_argument("--seeds", type=int, default=5)
parser.add_argument("--epochs", type=int, default=15)
parser.add_argument("--limit", type=int, help="training rows, for a trial run")
parser.add_argument("--figure", default="task_sets.png")
args = parser.parse_args()

problem = load("breast_cancer")
rows = problem.splits["train"][: args.limit]
random.Random(0).shuffle(rows)
few = round(args.few * len(rows))
for k, row in enumerate(rows):
    del row["targets"]["diagnosis" if k < few else "radius"]
problem.splits["train"] = rows


def train(sampling, seed):
    torch.manual_seed(seed)
    model = problem.build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    balancer = Balancer(args.strategy, ["diagnosis", "radius"], model, seed=seed).attach(optimizer)
    loader = TaskLoader(problem, 32, sampling, seed=seed, epochs=args.epochs)
    for _ in range(args.epochs):
        model.train()
        for batch in loader:
            optimizer.zero_grad()
            balancer(model(batch["inputs"], batch["targets"]).losses, batch["counts"]).backward()
            optimizer.step()
    scores = evaluate(model, problem, "test")
    return {"diagnosis": scores["diagnosis"]["accuracy"], "radius": scores["radius"]["rmse"]}


results = {}
for sampling in args.sampling:
    runs = [train(sampling, seed) for seed in range(args.seeds)]
    found = {task: fixed_t([run[task] for run in runs]) for task in runs[0]}
    results[sampling] = {task: [round(mean.mean, 4), round(mean.half, 4)] for task, mean in found.items()}
figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for axis, task, unit in zip(axes, ("diagnosis", "radius"), ("accuracy", "RMSE, micrometres"), strict=True):
    means, halves = zip(*(found[task] for found in results.values()), strict=True)
    axis.errorbar(means, range(len(results)), xerr=halves, fmt="o", capsize=3)
    axis.set(xlabel=f"{task}: {unit}", yticks=range(len(results)), yticklabels=results)
    axis.invert_yaxis()
figure.savefig(args.figure, dpi=70)
print(json.dumps(results))
