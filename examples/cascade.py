"""One task's output feeds the next: jointly trained heads against a chain of them, end to end and in stages.

python examples/cascade.py --data breast_cancer:order=[radius,diagnosis] --strategy equal pcgrad

It ends in the mean of each task's score on test over the seeds, and half its 95 % interval.
"""

import argparse
import json

import matplotlib
import torch

from mtlweights import Balancer
from mtlweights.bench.statistics import fixed_t
from mtlweights.problems import load
from mtlweights.specs import format_spec, parse_spec
from mtlweights.train import Settings, evaluate, fit

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser()
parser.add_argument("--data", default="breast_cancer:order=[radius,diagnosis]")
parser.add_argument("--strategy", nargs="+", default=["equal"])
parser.add_argument("--seeds", type=int, default=5)
parser.add_argument("--epochs", type=int)
parser.add_argument("--limit", type=int, help="examples per split, for a trial run")
parser.add_argument("--figure", default="cascade.png")
args = parser.parse_args()


def train(training, strategy, seed):
    """Test scores of one run: the first metric of each task."""
    name, options = parse_spec(args.data)
    if training == "joint":
        options.pop("order", None)
    problem = load(format_spec(name, {**options, "training": training}))
    for part, rows in problem.splits.items():
        problem.splits[part] = rows[: args.limit]
    torch.manual_seed(seed)
    model = problem.build()
    balancer = Balancer(strategy, [task.name for task in problem.tasks], model, seed=seed)
    epochs = {} if args.epochs is None else {"epochs": args.epochs}
    fit(model, balancer, problem, Settings(**{**problem.settings, **epochs, "seed": seed}), progress=False)
    scores = evaluate(model, problem, "test")
    return {f"{task.name} {task.metrics[0]}": scores[task.name][task.metrics[0]] for task in problem.tasks}


results = {}
for strategy in args.strategy:
    for training in ("joint", "cascaded", "staged"):
        runs = [train(training, strategy, seed) for seed in range(args.seeds)]
        results[f"{strategy}, {training}"] = {
            metric: fixed_t([run[metric] for run in runs]) if args.seeds > 1 else runs[0][metric]
            for metric in runs[0]
        }
metrics = list(next(iter(results.values())))
pairs = {
    arm: {m: (v.mean, v.half) if args.seeds > 1 else (v, 0.0) for m, v in found.items()}
    for arm, found in results.items()
}
figure, axes = plt.subplots(1, len(metrics), figsize=(4 * len(metrics), 3), layout="constrained")
for axis, metric in zip(axes, metrics, strict=True):
    means, halves = zip(*(found[metric] for found in pairs.values()), strict=True)
    axis.errorbar(means, range(len(pairs)), xerr=halves, fmt="o", capsize=3)
    axis.set(xlabel=metric, yticks=range(len(pairs)), yticklabels=pairs, ylim=(len(pairs) - 0.5, -0.5))
figure.savefig(args.figure, dpi=70)
rounded = {arm: {m: [round(x, 4) for x in v] for m, v in found.items()} for arm, found in pairs.items()}
print(json.dumps(rounded))
