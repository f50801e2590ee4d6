"""How much of a model tasks should share: one problem, one strategy, every form of sharing.

python examples/sharing.py --problem abalone --form agnostic task_dependent mmoe ple cross_stitch mtan

The problem, its forms and its metrics are the library's; the loop is your own. It ends in each form's mean
normalised score on the test split (1 is a perfect model, 0 a constant prediction) and its parameters.
"""

import argparse
import json
import time

import matplotlib
import torch
from torch.utils.data import DataLoader

from mtlweights import Balancer
from mtlweights.problems import load, mean_normalised
from mtlweights.train import evaluate

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser()
parser.add_argument("--problem", default="abalone")
parser.add_argument("--form", nargs="+", default=["agnostic", "task_dependent", "mmoe", "ple"])
parser.add_argument("--strategy", default="equal")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--seeds", type=int, default=3)
parser.add_argument("--limit", type=int, help="examples per split, for a trial run")
parser.add_argument("--figure", default="sharing.png")
args = parser.parse_args()


def train(form, seed):
    """Score on test, number of parameters, and milliseconds a step."""
    problem = load(f"{args.problem}{',' if ':' in args.problem else ':'}sharing={form}")
    for part, rows in problem.splits.items():
        problem.splits[part] = rows[: args.limit]
    torch.manual_seed(seed)
    model = problem.build()
    optimizer = torch.optim.Adam(model.parameters(), lr=problem.settings["lr"])
    balancer = Balancer(args.strategy, [task.name for task in problem.tasks], model).attach(optimizer)
    size = problem.settings["batch_size"]
    loader = DataLoader(problem.splits["train"], size, shuffle=True, collate_fn=problem.collate)
    start = time.perf_counter()
    for _ in range(args.epochs):
        model.train()
        for batch in loader:
            optimizer.zero_grad()
            balancer(model(batch["inputs"], batch["targets"]).losses, batch["counts"]).backward()
            optimizer.step()
    step = 1000 * (time.perf_counter() - start) / (args.epochs * len(loader))
    score = mean_normalised(problem.tasks, evaluate(model, problem, "test"))
    return score, sum(parameter.numel() for parameter in model.parameters()), step


results = {form: [train(form, seed) for seed in range(args.seeds)] for form in args.form}
figure, axes = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
for form, runs in results.items():
    scores, (_, size, _) = [score for score, _, _ in runs], runs[0]
    (line,) = axes.plot([size] * len(scores), scores, ".", alpha=0.5)
    axes.plot(size, sum(scores) / len(scores), "o", color=line.get_color(), label=form)
axes.set(xscale="log", xlabel="parameters", ylabel="mean normalised score on test")
axes.legend(fontsize=7)
figure.savefig(args.figure, dpi=70)
means = {
    form: [sum(values) / len(runs) for values in zip(*runs, strict=True)] for form, runs in results.items()
}
print(json.dumps({form: {"score": round(s, 4), "parameters": int(n)} for form, (s, n, _) in means.items()}))
