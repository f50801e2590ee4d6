"""Few labelled sentences: what augmentation, adversarial embeddings and a task without labels add.

python examples/overfitting.py --rows 20

Parts of speech and entities of a small grammar. Only some training examples keep their labels; masked words
are learnt from all of them. It ends in the mean of each task's score on test over the seeds, and half its
interval.
"""

import argparse
import json
from dataclasses import replace

import matplotlib
import torch

from mtlweights import Balancer
from mtlweights.bench.statistics import fixed_t
from mtlweights.problems import load
from mtlweights.problems.variants import masked
from mtlweights.train import Settings, evaluate, fit

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ARMS = {
    "plain": {},
    "replace": {"augment": "replace"},
    "drop": {"augment": "drop"},
    "swap": {"augment": "swap"},
    "fgm": {"adversarial": "fgm"},
    "freelb": {"adversarial": "freelb:steps=2"},
    "gradual": {"freeze": "gradual"},
    "masked": {},
}
parser = argparse.ArgumentParser()
parser.add_argument("--arms", nargs="+", choices=ARMS, default=[*ARMS])
parser.add_argument("--strategy", default="equal")
parser.add_argument("--rows", type=int, default=20, help="training examples that have labels")
parser.add_argument("--seeds", type=int, default=5)
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--hidden", type=int, default=16)
parser.add_argument("--limit", type=int, help="examples per split, for a trial run")
parser.add_argument("--figure", default="overfitting.png")
args = parser.parse_args()


def problem_of(arm):
    problem = load(f"tagging:hidden={args.hidden}")
    splits = {part: rows[: args.limit] for part, rows in problem.splits.items()}
    bare = [{**row, "targets": {}} for row in splits["train"][args.rows :]]
    splits["train"] = splits["train"][: args.rows] + bare
    problem = replace(problem, splits=splits)
    return masked(problem) if arm == "masked" else problem


def train(problem, arm, seed):
    torch.manual_seed(seed)
    model = problem.build()
    balancer = Balancer(args.strategy, [task.name for task in problem.tasks], model, seed=seed)
    settings = Settings(**{**problem.settings, "epochs": args.epochs, "seed": seed, **ARMS[arm]})
    fit(model, balancer, problem, settings, progress=False)
    scores = evaluate(model, problem, "test")
    return {"ner": scores["ner"]["span_f1"], "pos": scores["pos"]["accuracy"]}


results = {}
for arm in args.arms:
    problem = problem_of(arm)
    runs = [train(problem, arm, seed) for seed in range(args.seeds)]
    found = {task: fixed_t([run[task] for run in runs]) for task in runs[0]}
    results[arm] = {task: [round(mean.mean, 4), round(mean.half, 4)] for task, mean in found.items()}
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for axis, task, metric in zip(axes, ("ner", "pos"), ("span F1", "accuracy"), strict=True):
    means, halves = zip(*(found[task] for found in results.values()), strict=True)
    axis.errorbar(means, range(len(results)), xerr=halves, fmt="o", capsize=3)
    axis.set(xlabel=f"{task}: {metric}", yticks=range(len(results)), yticklabels=results)
    axis.invert_yaxis()
figure.savefig(args.figure, dpi=70)
print(json.dumps(results))
