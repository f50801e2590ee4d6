"""Which three strategies to try on a problem, or that equal weights are enough, and why.

  mtlweights advise tagging
  mtlweights advise csv:FILE:classify=kind,regress=price --steps 100

Trains with equal weights for so many steps and measures: the tasks' gradient norms, their cosines, how much
of a gradient is noise, the losses, and what a step of each family takes on this model. In a loop of your own:
balancer.advise(losses). The rule and how often it was right: the page "Which strategy?" of the documentation.
"""

from __future__ import annotations

import argparse
import json
from itertools import chain, islice, repeat
from typing import Any

from ..files.escapes import visible
from .settings import add_settings, given_settings
from .timeleft import shown

NAME = "advise"
HELP = "which strategies to try on a problem, or that equal weights are enough"
RESUME = "nothing was lost"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("problem", metavar="PROBLEM", help="name[:key=value,...], conll:PATH, csv:PATH ...")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="of training that are seen [50]")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    add_settings(parser, without=("epochs", "accumulate", "precision", "patience", "warmup", "schedule"))


def run(args: argparse.Namespace) -> int:
    """Train so long, and print the advice."""
    if args.steps < 1:
        raise ValueError(f"--steps takes a number of at least 1, found {args.steps}.")
    from .. import problems
    from ..train import Settings

    problem = problems.load(args.problem)
    settings = Settings(**{**problem.settings, **given_settings(args)})
    found = look(problem, settings, args.steps)
    print(json.dumps(found.plain(), indent=2) if args.json else visible(str(found)))
    return 0


def look(problem: Any, settings: Any, steps: int) -> Any:
    """The advice after so many steps with equal weights, by AdamW at the settings' learning rate."""
    import torch

    from ..balancer.balancer import Balancer
    from ..train import batches
    from ..train.scoring import to_device
    from ..train.settings import resolve_device

    torch.manual_seed(settings.seed)
    device = resolve_device(settings.device)
    model = problem.build().to(device).train()
    balancer = Balancer("equal", [task.name for task in problem.tasks], model)
    rates = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    optimizer = torch.optim.AdamW(model.parameters(), **rates)
    shuffle = torch.Generator().manual_seed(settings.seed)
    loader = batches.training(problem, settings.batch_size, 1, shuffle)
    epochs = chain.from_iterable(repeat(loader))  # shuffled anew in each
    for batch in shown(islice(epochs, steps), steps, "step"):
        losses = model(to_device(batch["inputs"], device), to_device(batch["targets"], device)).losses
        balancer.advise(losses, batch["counts"])
        optimizer.zero_grad()
        balancer(losses, batch["counts"]).backward()
        if settings.clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
    return balancer.advise()
