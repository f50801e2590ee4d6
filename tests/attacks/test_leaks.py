"""Long runs of steps: nothing stays behind."""

import gc
import os
import sys
import warnings
from pathlib import Path

import torch
from test_calls import TASKS, Model
from torch.optim.optimizer import _global_optimizer_post_hooks

from mtlweights import Balancer
from mtlweights.strategies.registry import STRATEGIES


def standing():
    """What there is: objects, tensors, global hooks of torch's optimizers, open files."""
    gc.collect()
    objects = gc.get_objects()
    tensors = sum(issubclass(type(item), torch.Tensor) for item in objects)
    files = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    return len(objects), tensors, len(_global_optimizer_post_hooks), files


def train(balancer, model, optimizer, x, steps):
    """Steps with whatever a strategy asks for; every tenth is measured on other data, and ends an epoch."""
    for index in range(steps):
        if index % 10 == 0:
            balancer.validate(lambda: model.losses(x))
        for _ in range(balancer.strategy.batches):
            balancer(model.losses(x), dict.fromkeys(TASKS, 5)).backward()
        optimizer.step()
        optimizer.zero_grad()
        if index % 10 == 9:
            balancer.end_epoch(dict.fromkeys(TASKS, 0.5))


def test_steps_without_end(attack):
    """Steps of every strategy, attached or not: no object, tensor, hook or open file stays behind."""
    x, steps = torch.randn(5, 3), max(250, round(42 * attack.times))
    for index, draw in enumerate(attack.draws(4)):
        name = list(STRATEGIES)[index % len(STRATEGIES)]
        model = Model()
        optimizer = torch.optim.SGD(model.parameters(), 1e-4)
        balancer = Balancer(name, TASKS, model)
        if draw.random() < 0.5:
            balancer.attach(optimizer)
        with attack.trial(name), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train(balancer, model, optimizer, x, 100)
            before, blocks = standing(), sys.getallocatedblocks()
            train(balancer, model, optimizer, x, steps)
            after, more = standing(), sys.getallocatedblocks() - blocks
            assert after[1:] == before[1:] and after[0] - before[0] < 10, f"{before} became {after}"
            assert more < max(500, steps - 50), (
                f"{more} blocks more"
            )  # some hundred are the interpreter's own
            attack.trials += steps + 99
