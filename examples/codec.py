"""A codec with a discriminator: three losses of a decoder's output, balanced there, and two optimizers.

python examples/codec.py --strategy equal encodec vqgan

Handwritten digits (scikit-learn's, 8 x 8) go through 4 codes of 4 bits each. The decoder's losses are the
squared error, the error of a small classifier's features, and the discriminator's verdict, whose gradients
differ in length by orders of magnitude and change as the discriminator learns. `encodec` gives each a fixed
share of the gradient at the output; `vqgan` scales the discriminator's to the length of the first one's at
the last layer. It ends in the squared error and in how often a classifier still tells the decoded test
digits.
"""

import argparse
import json
from itertools import pairwise

import matplotlib
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from mtlweights import Balancer

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TASKS = ["error", "features", "adversarial"]
OPTIONS = {"encodec": {"gradients": "features"}}
CODES, LEVELS, WIDTH = 4, 16, 8

parser = argparse.ArgumentParser()
parser.add_argument("--strategy", nargs="+", default=["equal", "encodec", "vqgan"])
parser.add_argument("--limit", type=int, default=2000, help="steps")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--figure", default="codec.png")
args = parser.parse_args()

digits, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(digits / 8 - 1, dtype=torch.float32), torch.tensor(labels)
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
train_x, test_x = images[order[:1400]], images[order[1400:]]
train_y, test_y = labels[order[:1400]], labels[order[1400:]]


def layers(*widths):
    parts = [part for pair in pairwise(widths) for part in (nn.Linear(*pair), nn.LeakyReLU(0.2))]
    return nn.Sequential(*parts[:-1])


class Codec(nn.Module):
    """64 pixels to CODES vectors of a codebook of LEVELS, and back."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = layers(64, 128, CODES * WIDTH), layers(CODES * WIDTH, 128, 64)
        self.book = nn.Parameter(0.5 * torch.randn(LEVELS, WIDTH))

    def forward(self, pixels):
        """The decoded pixels, and the loss that ties encoder and codebook."""
        state = self.encoder(pixels).reshape(-1, CODES, WIDTH)
        code = self.book[torch.cdist(state, self.book.expand(len(state), -1, -1)).argmin(-1)]
        tie = functional.mse_loss(code, state.detach()) + 0.25 * functional.mse_loss(state, code.detach())
        straight = state + (code - state).detach()  # the gradient of the output goes through
        return torch.tanh(self.decoder(straight.flatten(1))), tie


def classifier():
    """A judge that no codec is trained against but by its hidden features."""
    torch.manual_seed(1)
    model = layers(64, 64, 10)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        functional.cross_entropy(model(train_x), train_y).backward()
        optimizer.step()
    return model.requires_grad_(False)


judge = classifier()


def train(strategy):
    torch.manual_seed(args.seed)
    codec, discriminator = Codec(), layers(64, 128, 1)
    optimizer = torch.optim.Adam(codec.parameters(), 1e-3)
    other = torch.optim.Adam(discriminator.parameters(), 1e-3)
    balancer = Balancer(strategy, TASKS, codec, **OPTIONS.get(strategy, {})).attach(optimizer)
    for _ in range(args.limit):
        pixels = train_x[torch.randint(len(train_x), (64,))]
        decoded, tie = codec(pixels)
        losses = {
            "error": functional.mse_loss(decoded, pixels),
            "features": functional.l1_loss(judge[:2](decoded), judge[:2](pixels)),
            "adversarial": -discriminator(decoded).mean(),
        }
        optimizer.zero_grad()
        tie.backward(retain_graph=True)  # no task of the decoder's output: it comes first, as the graph goes
        balancer(losses, features=decoded if strategy == "encodec" else None).backward()
        optimizer.step()
        other.zero_grad()  # what the codec's losses left in the discriminator is not its own
        real, fake = discriminator(pixels), discriminator(decoded.detach())
        (functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()).backward()
        other.step()
    with torch.no_grad():
        decoded, _ = codec(test_x)
        error = functional.mse_loss(decoded, test_x).item()
        accuracy = (judge(decoded).argmax(-1) == test_y).float().mean().item()
    return {"error": round(error, 4), "accuracy": round(accuracy, 4)}, decoded


results, pictures = {}, {"original": test_x}
for strategy in args.strategy:
    results[strategy], pictures[strategy] = train(strategy)
figure, axes = plt.subplots(len(pictures), 12, figsize=(9, 0.85 * len(pictures)), layout="constrained")
for row, (name, pixels) in zip(axes, pictures.items(), strict=True):
    for axis, digit in zip(row, pixels, strict=False):
        axis.imshow(digit.reshape(8, 8).numpy(), cmap="gray_r", vmin=-1, vmax=1)
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name, rotation=0, ha="right", va="center")
figure.savefig(args.figure, dpi=70)
print(json.dumps(results))
