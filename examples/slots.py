"""What a user wants and the words that say it: an intent an utterance, a slot a word, one BiLSTM.

python examples/slots.py --data atis --strategy equal pcgrad

The problem, its model and its metrics are the library's; the loop is your own. It ends in the slots' span
F1 and the intents' accuracy on the test utterances.
"""

import argparse
import json

import matplotlib
import torch
from torch.utils.data import DataLoader

from mtlweights import Balancer
from mtlweights.problems import load
from mtlweights.train import evaluate

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser()
parser.add_argument("--data", choices=["atis", "snips"], default="atis")
parser.add_argument("--strategy", nargs="+", default=["equal", "pcgrad"])
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--hidden", type=int, default=64)
parser.add_argument("--limit", type=int, help="utterances per split, for a trial run")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--figure", default="slots.png")
args = parser.parse_args()

problem = load(f"{args.data}:hidden={args.hidden}")
for part, rows in problem.splits.items():
    problem.splits[part] = rows[: args.limit]


def train(strategy):
    """Scores on test, and how far the two gradients agree in each step."""
    torch.manual_seed(args.seed)
    model = problem.build()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    balancer = Balancer(strategy, [task.name for task in problem.tasks], model).attach(optimizer)
    loader = DataLoader(problem.splits["train"], 32, shuffle=True, collate_fn=problem.collate)
    cosines = []
    for _ in range(args.epochs):
        model.train()
        for batch in loader:
            optimizer.zero_grad()
            balancer(model(batch["inputs"], batch["targets"]).losses, batch["counts"]).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            cosines += [float(value) for name, value in balancer.metrics().items() if name.startswith("cos")]
    scores = evaluate(model, problem, "test")
    found = {"slots": scores["slots"]["span_f1"], "intent": scores["intent"]["accuracy"]}
    return {task: round(value, 4) for task, value in found.items()}, cosines


results = {strategy: train(strategy) for strategy in args.strategy}
figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for k, (strategy, (scores, cosines)) in enumerate(results.items()):
    axes[0].bar([k - 0.2, k + 0.2], [100 * value for value in scores.values()], 0.38, label=strategy)
    if cosines:
        axes[1].plot(cosines, ".", markersize=2, label=strategy)
axes[0].set(ylabel="slots: span F1, intent: accuracy (%)", xticks=range(len(results)), xticklabels=results)
axes[1].set(xlabel="step", ylabel="cosine of the two gradients")
axes[1].axhline(0, color="grey", linewidth=0.5)
figure.savefig(args.figure, dpi=70)
print(json.dumps({args.data: {strategy: scores for strategy, (scores, _) in results.items()}}))
