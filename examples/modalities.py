"""Text and table at once: a molecule's SMILES, read by a BiLSTM, and its measures, read by an MLP, fused.

python examples/modalities.py --strategy equal uw

ESOL (Delaney 2004): 1,128 molecules. Tasks are the measured solubility (log mol/l) and the polar surface area
(square angstrom), from the SMILES and five columns of the table. It ends in the RMSE of both on test, by what
the model is given.
"""

import argparse
import csv
import json
import re

import matplotlib
import torch
from torch import nn

from mtlweights import Balancer
from mtlweights.problems import Problem
from mtlweights.problems.data.download import data_file
from mtlweights.problems.data.labels import examples, number_task, split
from mtlweights.problems.models import MLP, BiLSTM, Encoder, States, TableInputs, WordInputs
from mtlweights.train import Settings, evaluate, fit

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser()
parser.add_argument("--strategy", nargs="+", default=["equal"])
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--hidden", type=int, default=32)
parser.add_argument("--limit", type=int, help="molecules, for a trial run")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--figure", default="modalities.png")
args = parser.parse_args()

COLUMNS = ["Minimum Degree", "Molecular Weight", "Number of H-Bond Donors", "Number of Rings"]
COLUMNS += ["Number of Rotatable Bonds"]
TASKS = {"solubility": "measured log solubility in mols per litre", "polar_area": "Polar Surface Area"}
TOKEN = re.compile(r"\[[^\]]*\]|Br|Cl|%\d\d|.")


class Both(Encoder):
    """Two encoders side by side: what the heads are given is both their states, one after the other."""

    token_dim = None

    def __init__(self, text, table):
        super().__init__()
        self.parts = nn.ModuleDict({"text": text, "table": table})
        self.pooled_dim = text.pooled_dim + table.pooled_dim

    def forward(self, inputs):
        return States(
            None, None, torch.cat([part(inputs[name]).pooled for name, part in self.parts.items()], 1)
        )


with data_file("molecules/delaney-processed.csv").open(encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))[: args.limit]
items = [
    (
        (TOKEN.findall(row["smiles"].strip()), [float(row[column]) for column in COLUMNS]),
        {task: float(row[column]) for task, column in TASKS.items()},
    )
    for row in rows
]
splits = split(items, dev=0.1, test=0.1)
tasks = [number_task(t, [y[t] for _, y in splits["train"]], ("rmse", "r2"), standardise=True) for t in TASKS]
words = WordInputs.fit([smiles for (smiles, _), _ in splits["train"]])
table = TableInputs.fit([cells for (_, cells), _ in splits["train"]])
small = {"hidden": args.hidden, "word_dim": 32, "char_dim": 8, "char_filters": 16, "dropout": 0.1}
made = {
    "text": lambda: BiLSTM(words.n_words, words.n_chars, word_dropout=0.05, **small),
    "table": lambda: MLP(table.n_inputs, (args.hidden, args.hidden)),
}
made["both"] = lambda: Both(made["text"](), made["table"]())


def inputs(kind):
    """From the molecules of a batch to what this kind of encoder takes."""

    def read(batch):
        found = {
            "text": words([smiles for smiles, _ in batch]),
            "table": table([cells for _, cells in batch]),
        }
        return found if kind == "both" else found[kind]

    return read


def train(kind, strategy):
    """RMSE of both tasks on test."""
    problem = Problem(f"esol {kind}", tuple(tasks), examples(tasks, splits), inputs(kind), made[kind])
    torch.manual_seed(args.seed)
    model = problem.build()
    balancer = Balancer(strategy, [task.name for task in tasks], model)
    fit(model, balancer, problem, Settings(epochs=args.epochs, lr=5e-3, seed=args.seed), progress=False)
    return {task: round(scores["rmse"], 4) for task, scores in evaluate(model, problem, "test").items()}


results = {strategy: {kind: train(kind, strategy) for kind in made} for strategy in args.strategy}
figure, axes = plt.subplots(1, 2, figsize=(7, 2.8), layout="constrained")
for axis, task in zip(axes, tasks, strict=True):
    for k, (strategy, found) in enumerate(results.items()):
        places = [place + 0.8 * k / len(results) for place in range(len(found))]
        axis.bar(places, [scores[task.name] for scores in found.values()], 0.7 / len(results), label=strategy)
    axis.axhline(task.std, color="grey", linewidth=0.8)
    axis.set(title=f"{task.name}: RMSE, line: a constant", xticks=range(len(made)), xticklabels=made)
axes[0].legend()
figure.savefig(args.figure, dpi=70)
print(json.dumps(results))
