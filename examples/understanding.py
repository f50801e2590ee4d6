"""What a trained model does: gradients by layer over time, which task helps which, words, states; one figure.

python examples/understanding.py --strategy equal

Entities and parts of speech of a small grammar. It ends in the mean affinities (row: a step on, column:
helps) and the mean cosine of the two gradients in each layer.
"""

import argparse
import json

import matplotlib
import numpy as np
import torch

from mtlweights import Balancer
from mtlweights.bench.report import understanding as draw
from mtlweights.problems import load
from mtlweights.train import Settings, fit
from mtlweights.train.understanding import TaskTrace, attributions, project

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser()
parser.add_argument("--data", default="tagging:hidden=32")
parser.add_argument("--strategy", default="equal")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--limit", type=int, help="examples per split, for a trial run")
parser.add_argument("--figure", default="understanding.png")
args = parser.parse_args()

problem = load(args.data)
for part, rows in problem.splits.items():
    problem.splits[part] = rows[: args.limit]
torch.manual_seed(0)
model = problem.build()
balancer = Balancer(args.strategy, [task.name for task in problem.tasks], model)
trace = TaskTrace(model, problem)
settings = Settings(**{**problem.settings, "epochs": args.epochs})
fit(model, balancer, problem, settings, progress=False, after_epoch=trace)

task = next(task for task in problem.tasks if task.kind == "tokens")
example = max(problem.splits["test"][:50], key=lambda e: len(set(e["targets"][task.name])))
word = next((k for k, label in enumerate(example["targets"][task.name]) if label > 0), 0)
label, values = attributions(model, problem, example["input"], task.name, word)
sentences = problem.splits["test"][:300]
points = project(model, problem, "test", len(sentences))

figure, axes = plt.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
draw.draw_cosines(axes[0, 0], trace)
draw.draw_affinity(axes[0, 1], trace)
draw.draw_words(axes[1, 0], example["input"], values, f"{label} for {example['input'][word]!r}")
draw.draw_states(
    axes[1, 1], points, ["a question" if "?" in e["input"] else "a statement" for e in sentences]
)
figure.savefig(args.figure, dpi=70)
cosines = {layer: np.array(rows)[:, 0, 1] for layer, rows in trace.cosines.items()}
print(
    json.dumps(
        {
            "affinity": np.array(trace.affinity).mean(0).round(4).tolist(),
            "cosine": {k: round(float(v.mean()), 4) for k, v in cosines.items() if not np.isnan(v).any()},
        }
    )
)
