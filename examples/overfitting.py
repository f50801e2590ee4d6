"""Few labelled examples: what dropout, weight decay, augmentation, adversarial embeddings add, and cost.

python examples/overfitting.py --data snips:hidden=32 --rows 200 --limit 1000

Only some training examples keep their labels; masked words are learnt from all. Each arm is `plain` with one
thing more. It ends in the mean of each task's score on test over the seeds, its difference from plain's at
the same seed, and the CPU time of training over plain's; the second number of a pair is half its 95 %
interval.
"""

import argparse
import json
import sys
import time
from dataclasses import fields, replace

import matplotlib
import torch

from mtlweights import Balancer
from mtlweights.bench.statistics import fixed_t
from mtlweights.bench.tune.space import with_options
from mtlweights.problems import load
from mtlweights.problems.variants import masked
from mtlweights.train import Settings, evaluate, fit

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PLAIN = {"dropout": 0.0, "weight_decay": 0.0}
ARMS = {
    "plain": {},
    "dropout": {"dropout": 0.4},
    "weight decay": {"weight_decay": 1.0},
    "replace": {"augment": "replace"},
    "drop": {"augment": "drop"},
    "swap": {"augment": "swap"},
    "noise": {"augment": "noise"},
    "mixup": {"augment": "mixup"},
    "fgm": {"adversarial": "fgm"},
    "freelb": {"adversarial": "freelb:steps=2"},
    "gradual": {"freeze": "gradual"},
    "masked": {"auxiliary": "masked"},
}
TABLE = {"noise", "mixup"}
WORDS = {"replace", "drop", "swap", "fgm", "freelb"}
SETTINGS = {field.name for field in fields(Settings)}  # the other keys of an arm are options of the problem
parser = argparse.ArgumentParser()
parser.add_argument("--data", default="snips:hidden=32")
parser.add_argument("--arms", nargs="+", choices=ARMS, help="by default all that suit the data")
parser.add_argument("--strategy", default="equal")
parser.add_argument("--rows", type=int, default=200, help="training examples that have labels, and dev's")
parser.add_argument("--seeds", type=int, default=5)
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--batch-size", type=int, default=8)
parser.add_argument("--limit", type=int, default=1000, help="examples per split")
parser.add_argument("--figure", default="overfitting.png")
args = parser.parse_args()


def problem_of(arm):
    """The problem with an arm's options, and few labels."""
    chosen = {key: value for key, value in {**PLAIN, **ARMS[arm]}.items() if key not in SETTINGS}
    auxiliary = chosen.pop("auxiliary", None)
    problem = load(with_options(args.data, chosen))
    splits = {part: rows[: args.limit] for part, rows in problem.splits.items()}
    bare = [{**row, "targets": {}} for row in splits["train"][args.rows :]]
    splits |= {"train": splits["train"][: args.rows] + bare, "dev": splits["dev"][: args.rows]}
    return masked(replace(problem, splits=splits)) if auxiliary else replace(problem, splits=splits)


def suits(arm, given):
    """Whether an arm is for such examples: words, a pair of sentences, or a row of a table."""
    words, pair = isinstance(given[0], str), isinstance(given, tuple)
    return arm not in TABLE | {"masked"} if pair else arm not in (TABLE if words else WORDS | {"masked"})


def train(problem, arm, seed, epochs=args.epochs):
    """Test scores by each task's first metric, and seconds of the processor."""
    torch.manual_seed(seed)
    model = problem.build()
    balancer = Balancer(args.strategy, [task.name for task in problem.tasks], model, seed=seed)
    own = {key: value for key, value in {**PLAIN, **ARMS[arm]}.items() if key in SETTINGS}
    own |= {"epochs": epochs, "batch_size": args.batch_size, "seed": seed}
    start = time.process_time()
    fit(model, balancer, problem, Settings(**{**problem.settings, **own}), progress=False)
    seconds, scores = time.process_time() - start, evaluate(model, problem, "test")
    first = {task.name: task.metrics[0] for task in problem.tasks if not task.auxiliary}
    return {f"{task} {metric}": scores[task][metric] for task, metric in first.items()} | {"cost": seconds}


def mean(values):
    """Mean and half the interval; of one seed there is none."""
    found = fixed_t(values) if len(values) > 1 else None
    return [round(values[0], 4), 0.0] if found is None else [round(found.mean, 4), round(found.half, 4)]


def summary(runs, plain):
    """Of an arm's runs and plain's, seed by seed."""
    both, scores = list(zip(runs, plain, strict=True)), [key for key in runs[0] if key != "cost"]
    found = {key: mean([run[key] for run in runs]) for key in scores}
    found |= {f"{key} minus plain's": mean([run[key] - base[key] for run, base in both]) for key in scores}
    return found | {"cost": mean([run["cost"] / base["cost"] for run, base in both])}


first = load(args.data).splits["train"][0]["input"]
chosen = ["plain", *(arm for arm in args.arms or ARMS if arm != "plain" and (args.arms or suits(arm, first)))]
problems, runs = {arm: problem_of(arm) for arm in chosen}, {arm: [] for arm in chosen}
train(problems["plain"], "plain", 0, epochs=1)  # what is slow once is over
for seed in range(args.seeds):
    for arm, problem in problems.items():
        runs[arm].append(train(problem, arm, seed))
    print(seed, json.dumps({arm: found[-1] for arm, found in runs.items()}), file=sys.stderr, flush=True)
results = {arm: summary(found, runs["plain"]) for arm, found in runs.items()}
shown = [key for key in results["plain"] if not key.endswith("plain's")]
figure, axes = plt.subplots(1, len(shown), figsize=(3.4 * len(shown), 3.4), layout="constrained", sharey=True)
for axis, key in zip(axes, shown, strict=True):
    means, halves = zip(*(found[key] for found in results.values()), strict=True)
    axis.errorbar(means, range(len(results)), xerr=halves, fmt="o", capsize=3)
    axis.axvline(means[0], color="0.7", zorder=0)
    label = "CPU time over plain's" if key == "cost" else key
    axis.set(xlabel=label, yticks=range(len(results)), yticklabels=results, ylim=(len(results) - 0.5, -0.5))
figure.savefig(args.figure, dpi=70)
print(json.dumps(results))
