"""The Helmholtz equation by a physics-informed network, trained with L-BFGS under several strategies.

python examples/pinn_lbfgs.py --strategy equal norm_balance config

L-BFGS calls its closure many times a step and follows one objective by its values. The balancer gives the
weights of a step's first call to all of them, so the closure is the usual one. The equation's loss starts
50,000 times above those of the sides. It ends in the relative L2 error against the known solution.
"""

import argparse
import json

import matplotlib
import numpy as np
import torch

from mtlweights import Balancer
from mtlweights.problems import load

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser()
parser.add_argument("--strategy", nargs="+", default=["equal", "norm_balance", "config"])
parser.add_argument("--limit", type=int, default=100, help="steps, each of up to 20 iterations")
parser.add_argument("--points", type=int, default=2000)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--figure", default="pinn_lbfgs.png")
args = parser.parse_args()

problem = load(f"helmholtz:points={args.points}")
batch = problem.collate(problem.splits["train"])
test = problem.collate(problem.splits["test"])
reference = test["targets"]["equation"]


def train(strategy):
    """Relative error after every step."""
    torch.manual_seed(args.seed)
    model = problem.build()
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=20, history_size=50, line_search_fn="strong_wolfe"
    )
    balancer = Balancer(strategy, [task.name for task in problem.tasks], model).attach(optimizer)

    def closure():
        optimizer.zero_grad()
        loss = balancer(model(batch["inputs"], batch["targets"]).losses)
        loss.backward()
        return loss

    errors = []
    for _ in range(args.limit):
        optimizer.step(closure)
        with torch.no_grad():
            found = model(test["inputs"]).outputs["equation"]
        errors.append(((found - reference).norm() / reference.norm()).item())
    return errors, found


curves, fields = {}, {}
for strategy in args.strategy:
    curves[strategy], fields[strategy] = train(strategy)
figure, axes = plt.subplots(1, 1 + len(fields), figsize=(4 * (1 + len(fields)), 3.2), layout="constrained")
for strategy, curve in curves.items():
    axes[0].semilogy(curve, label=f"{strategy}: {curve[-1]:.4f}")
axes[0].set(xlabel="step of L-BFGS", ylabel="relative L2 error")
axes[0].legend()
for axis, (strategy, field) in zip(axes[1:], fields.items(), strict=True):
    error = (field - reference).reshape(256, 100).numpy()
    picture = axis.imshow(np.abs(error).T, origin="lower", extent=(-1, 1, -1, 1))
    axis.set_title(f"error of {strategy}")
    figure.colorbar(picture, ax=axis)
figure.savefig(args.figure, dpi=70)
print(
    json.dumps({"relative L2 error": {strategy: round(curve[-1], 5) for strategy, curve in curves.items()}})
)
