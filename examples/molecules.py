"""Twelve assays of toxicity for a molecule, a sixth of them not measured: tasks that not every example has.

python examples/molecules.py --strategy equal uw

A missing outcome is NaN. Each loss is the mean over the molecules that have the outcome, and `counts` says
how many those are, so that four micro-batches weigh as one batch and an assay that a batch lacks is left
out of that step. Molecules are fixed vectors here: how often each piece of up to three tokens of the SMILES
occurs, hashed. It ends in the mean AUROC on the test molecules.
"""

import argparse
import json
import zlib

import matplotlib
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mtlweights import Balancer
from mtlweights.problems import load
from mtlweights.problems.metrics import auroc

matplotlib.use("Agg")
import matplotlib.pyplot as plt

WIDTH = 1024

parser = argparse.ArgumentParser()
parser.add_argument("--strategy", nargs="+", default=["equal", "uw"])
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--limit", type=int, help="molecules per split, for a trial run")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--figure", default="molecules.png")
args = parser.parse_args()

problem = load("tox21")
TASKS = [task.name for task in problem.tasks]


def vector(tokens):
    found = np.zeros(WIDTH, dtype=np.float32)
    for n in (1, 2, 3):
        for start in range(len(tokens) - n + 1):
            found[zlib.crc32(" ".join(tokens[start : start + n]).encode()) % WIDTH] += 1
    return np.log1p(found)


def tensors(part):
    examples = problem.splits[part][: args.limit]
    x = torch.from_numpy(np.stack([vector(example["input"]) for example in examples]))
    rows = [[example["targets"][task] for task in TASKS] for example in examples]
    return x, torch.tensor(np.array(rows, dtype=np.float32))  # None becomes NaN


def losses_of(outputs, outcomes):
    """Mean loss and number of known outcomes of each assay that has any."""
    losses, counts = {}, {}
    for i, task in enumerate(TASKS):
        known = ~outcomes[:, i].isnan()
        if known.any():
            counts[task] = int(known.sum())
            losses[task] = functional.binary_cross_entropy_with_logits(outputs[known, i], outcomes[known, i])
    return losses, counts


def train(strategy):
    torch.manual_seed(args.seed)
    model = nn.Sequential(nn.Linear(WIDTH, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, len(TASKS)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    how = {"accumulation": "window", "accumulation_steps": 4}
    balancer = Balancer(strategy, TASKS, model, **how).attach(optimizer)
    for _ in range(args.epochs):
        for window in torch.randperm(len(train_x)).split(128):
            for rows in window.chunk(4):
                losses, counts = losses_of(model(train_x[rows]), train_y[rows])
                balancer(losses, counts=counts).backward()
            optimizer.step()
            optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        outputs = model(test_x).double().numpy()
    known = ~np.isnan(test_y.numpy())
    return [auroc(outputs[known[:, i], i], test_y[known[:, i], i].numpy() == 1) for i in range(len(TASKS))]


(train_x, train_y), (test_x, test_y) = tensors("train"), tensors("test")
missing = float(train_y.isnan().float().mean())
scores = {strategy: train(strategy) for strategy in args.strategy}
places = np.arange(len(TASKS))
figure, axis = plt.subplots(layout="constrained")
for k, (strategy, values) in enumerate(scores.items()):
    at, width = places + 0.8 * k / len(scores), 0.8 / len(scores)
    axis.barh(at, values, width, label=f"{strategy}: {np.mean(values):.3f}")
axis.set(yticks=places, yticklabels=TASKS, xlim=(0.5, 1), xlabel="AUROC")
axis.legend()
figure.savefig(args.figure, dpi=70)
means = {strategy: round(float(np.mean(values)), 4) for strategy, values in scores.items()}
print(json.dumps({"missing labels": round(missing, 3), "mean AUROC": means}))
