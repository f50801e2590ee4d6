"""A funnel, as click and purchase: the second label exists only where the first event happened.

python examples/recommender.py --strategy equal mgda gradcraft

No public click log is small enough to ship or to download, so the funnel is one of a survey's, the one that
MMoE and PLE were compared on (Census-Income, see `mtlweights.problems.data.census`): works at all (the
click), and earns above 50,000 dollars among those who work (the purchase). Categories are embedded, three
towers share them, and the loss of the second task is the mean over the rows of a batch that have its label.
It ends in the AUROC of the click, of the purchase where there was a click, and of both together over all
rows (the product of the two, as ESMM has it).
"""

import argparse
import json

import matplotlib
import torch
from torch import nn
from torch.nn import functional

from mtlweights import Balancer
from mtlweights.problems.data import census
from mtlweights.problems.metrics import auroc

matplotlib.use("Agg")
import matplotlib.pyplot as plt

WEEKS, YEAR = 39, 40  #: columns: weeks worked in the year; which year
#: what says that somebody works, not what kind of person it is
LEAKS = {1, 2, 3, 5, 8, 9, 13, 14, 15, 30, WEEKS, 24, 41}
OPTIONS = {"mgda": {"gradients": "features"}}  # at the shared representation: MultiBalance

parser = argparse.ArgumentParser()
parser.add_argument("--strategy", nargs="+", default=["equal", "mgda", "gradcraft"])
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--limit", type=int, default=30_000, help="rows to train on, a third of that to test")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--figure", default="recommender.png")
args = parser.parse_args()

train_rows, test_rows = census.sample("train", args.limit), census.sample("test", args.limit // 3)
columns = [i for i in range(census.WIDTH) if i not in LEAKS]
known = [{cell: k + 1 for k, cell in enumerate(sorted({row[i] for row in train_rows}))} for i in columns]


def tensors(rows):
    """Category ids [N, columns] (0: not seen in training), click [N], purchase [N]."""
    ids = torch.tensor([[known[k].get(row[i], 0) for k, i in enumerate(columns)] for row in rows])
    click = torch.tensor([float(int(row[WEEKS]) > 0) for row in rows])
    return ids, click, torch.tensor([float(census.labels(row)[0]) for row in rows]) * click


class Model(nn.Module):
    """Embeddings and a shared layer, a tower for each of the two events."""

    def __init__(self):
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(len(ids) + 1, 4) for ids in known)
        self.shared = nn.Sequential(nn.Linear(4 * len(known), 64), nn.ReLU())
        self.towers = nn.ModuleDict(
            {
                task: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))
                for task in ("click", "purchase")
            }
        )

    def forward(self, ids):
        """The shared representation, and a logit [N] a task."""
        states = self.shared(torch.cat([table(ids[:, k]) for k, table in enumerate(self.tables)], 1))
        return states, {task: tower(states).squeeze(-1) for task, tower in self.towers.items()}


def train(strategy):
    torch.manual_seed(args.seed)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    balancer = Balancer(strategy, ["click", "purchase"], model, **OPTIONS.get(strategy, {})).attach(optimizer)
    ids, click, purchase = tensors(train_rows)
    for _ in range(args.epochs):
        for rows in torch.randperm(len(ids)).split(256):
            states, logits = model(ids[rows])
            clicked = click[rows] == 1
            losses = {"click": functional.binary_cross_entropy_with_logits(logits["click"], click[rows])}
            counts = {"click": len(rows), "purchase": int(clicked.sum())}
            if counts["purchase"]:
                losses["purchase"] = functional.binary_cross_entropy_with_logits(
                    logits["purchase"][clicked], purchase[rows][clicked]
                )
            counts = {task: counts[task] for task in losses}
            optimizer.zero_grad()
            features = states if strategy in OPTIONS else None
            balancer(losses, counts, features=features).backward()
            optimizer.step()
    with torch.no_grad():
        odds = {task: logits.double() for task, logits in model(test[0])[1].items()}
    _, click, purchase = (tensor.numpy() for tensor in test)
    both = (odds["click"].sigmoid() * odds["purchase"].sigmoid()).numpy()
    bought = odds["purchase"].numpy()[click == 1]
    return {
        "click": round(auroc(odds["click"].numpy(), click == 1), 4),
        "purchase": round(auroc(bought, purchase[click == 1] == 1), 4),
        "both": round(auroc(both, purchase == 1), 4),
    }


test = tensors(test_rows)
results = {strategy: train(strategy) for strategy in args.strategy}
figure, axis = plt.subplots(layout="constrained")
for k, (strategy, scores) in enumerate(results.items()):
    places = [i + 0.8 * k / len(results) for i in range(len(scores))]
    axis.bar(places, scores.values(), 0.8 / len(results), label=strategy)
axis.set(xticks=range(3), xticklabels=["click", "purchase, given a click", "both"])
axis.set(ylim=(0.5, 1), ylabel="AUROC on test")
axis.legend()
figure.savefig(args.figure, dpi=70)
print(json.dumps(results))
