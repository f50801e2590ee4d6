"""Burgers' equation by a physics-informed network, as in the notebook of ConFIG's authors: plain sum against
ConFIG.

python examples/burgers.py --strategy equal config

Their setting (https://github.com/tum-pbs/ConFIG, docs/examples/pinn_burgers.ipynb): tanh layers of width
50, Adam at 1e-4 for 5,000 steps, 2,000 + 50 + 50 new points a step, and the lowest mean squared error
against their simulation seen on the way. They print 0.0310 for the plain sum and 0.0064 for ConFIG. Two
minutes a strategy on one core.
"""

import argparse
import json
import math
from itertools import pairwise

import matplotlib
import numpy as np
import torch
from scipy.stats.qmc import LatinHypercube
from torch import nn

from mtlweights import Balancer
from mtlweights.problems.data.download import data_file
from mtlweights.problems.data.equations import Burgers

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser()
parser.add_argument("--strategy", nargs="+", default=["equal", "config"])
parser.add_argument("--limit", type=int, default=5000, help="steps")
parser.add_argument("--seed", type=int, default=19018)
parser.add_argument("--figure", default="burgers.png")
args = parser.parse_args()

equation = Burgers()
reference = torch.from_numpy(np.load(data_file("pinn/config_burgers_simulation_data.npy")))  # [100 t, 256 x]
grid_t, grid_x = torch.meshgrid(
    torch.linspace(0, 1, 100), torch.linspace(-255 / 256, 255 / 256, 256), indexing="ij"
)
grid = torch.stack([grid_x, grid_t], -1)


def build():
    widths = [2, *[50] * 5]
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.Tanh())]
    network = nn.Sequential(*layers, nn.Linear(50, 1))
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            nn.init.constant_(layer.bias, 0.001)
    return network


class Points:
    """New points of every step; the conditions share a sampler, as theirs do."""

    def __init__(self, seed):
        self.border, self.inside = LatinHypercube(1, seed=seed), LatinHypercube(2, seed=seed)

    def __call__(self):
        start = torch.tensor(self.border.random(50), dtype=torch.float32) * 2 - 1
        border = torch.tensor(self.border.random(50), dtype=torch.float32)
        inside = torch.tensor(self.inside.random(2000), dtype=torch.float32)
        sides = torch.ones(50, 1)
        sides[:25] = -1
        return {
            "initial": torch.cat([start, torch.zeros(50, 1)], 1),
            "boundary": torch.cat([sides, border], 1),
            "equation": torch.stack([inside[:, 0] * 2 - 1, inside[:, 1]], 1),
        }


def train(strategy):
    """Error on the grid after every step."""
    torch.manual_seed(args.seed)
    network, points = build(), Points(args.seed)
    field = lambda at: network(at).squeeze(-1)  # noqa: E731
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    balancer = Balancer(strategy, list(equation.terms), network).attach(optimizer)
    errors = []
    for _ in range(args.limit):
        losses = {term: equation.residual(term, field, at).square().mean() for term, at in points().items()}
        optimizer.zero_grad()
        balancer(losses).backward()
        optimizer.step()
        with torch.no_grad():
            errors.append((field(grid) - reference).square().mean().item())
    return errors


errors = {strategy: train(strategy) for strategy in args.strategy}
figure, axis = plt.subplots(layout="constrained")
for strategy, curve in errors.items():
    axis.semilogy(curve, label=f"{strategy}: {min(curve):.4f}")
axis.set(xlabel="step", ylabel="mean squared error")
axis.legend()
figure.savefig(args.figure, dpi=70)
print(json.dumps({"best MSE": {strategy: round(min(curve), 4) for strategy, curve in errors.items()}}))
assert all(math.isfinite(min(curve)) for curve in errors.values())
