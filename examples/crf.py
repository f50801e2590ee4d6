"""Entities and parts of speech with a linear-chain CRF for the entities, and without.

python examples/crf.py --problem tagging --strategy equal

The CRF is an option of the problem (`crf=ner`): its likelihood is the task's loss, Viterbi's labelling what
is scored. It ends in the span F1 of the entities and the accuracy of the parts of speech on test.
"""

import argparse
import json

import matplotlib
import torch

from mtlweights import Balancer
from mtlweights.problems import load
from mtlweights.train import Settings, evaluate, fit

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser()
parser.add_argument("--problem", choices=["tagging", "tweebank"], default="tagging")
parser.add_argument("--strategy", default="equal")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--hidden", type=int, default=64)
parser.add_argument("--limit", type=int, help="sentences per split, for a trial run")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--figure", default="crf.png")
args = parser.parse_args()


def train(options):
    """Scores on test, the span F1 on dev after each epoch, and the model."""
    problem = load(f"{args.problem}:hidden={args.hidden}{options}")
    for part, rows in problem.splits.items():
        problem.splits[part] = rows[: args.limit]
    torch.manual_seed(args.seed)
    model = problem.build()
    balancer = Balancer(args.strategy, [task.name for task in problem.tasks], model)
    settings = Settings(**{**problem.settings, "epochs": args.epochs, "seed": args.seed})
    history = fit(model, balancer, problem, settings, progress=False)
    scores = evaluate(model, problem, "test")
    curve = [row["dev"]["ner"]["span_f1"] for row in history.rows]
    return (
        {"ner": round(scores["ner"]["span_f1"], 4), "pos": round(scores["pos"]["accuracy"], 4)},
        curve,
        model,
    )


results = {"softmax": train(""), "crf": train(",crf=ner")}
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for name, (_, curve, _) in results.items():
    axes[0].plot(range(1, len(curve) + 1), curve, label=name)
axes[0].set(xlabel="epoch", ylabel="span F1 of the entities on dev")
axes[0].legend()
head, labels = results["crf"][2].heads["ner"], results["crf"][2].tasks[0].labels
image = axes[1].imshow(head.transitions.detach().numpy(), cmap="RdBu")
axes[1].set(
    xticks=range(len(labels)), yticks=range(len(labels)), yticklabels=labels, ylabel="from", xlabel="to"
)
axes[1].set_xticklabels(labels, rotation=90)
figure.colorbar(image, ax=axes[1], label="learned score of neighbours")
figure.savefig(args.figure, dpi=70)
print(json.dumps({name: scores for name, (scores, _, _) in results.items()}))
