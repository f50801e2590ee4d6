"""A copy of a balancer and its model goes on exactly as the original does, whatever shared= was."""

import copy
import pickle

import pytest
import torch

from mtlweights import Balancer
from tests.toys import backward, batch, losses_of, names, toy


def of_encoder(name):
    return name.startswith("encoder")


CHOICES = {
    "auto": lambda m: "auto",
    "module": lambda m: m.encoder,
    "modules": lambda m: [m.encoder],
    "parameters": lambda m: list(m.encoder.parameters()),
    "generator": lambda m: m.encoder.parameters(),
    "predicate": lambda m: of_encoder,
}


def steps(model, balancer, optimizer, n):
    for k in range(n):
        optimizer.zero_grad()
        backward(balancer, lambda k=k: losses_of(model, batch(seed=k)))
        optimizer.step()


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@pytest.mark.parametrize("name", ["nash_mtl", "graddrop", "gradnorm"])
@pytest.mark.parametrize("choice", CHOICES)
def test_a_copy_goes_on_like_the_original(choice, name, copier):
    model = toy()
    balancer = Balancer(name, names(2), model, shared=CHOICES[choice](model))
    steps(model, balancer, torch.optim.SGD(model.parameters(), lr=0.05), 2)
    twins = copier((model, balancer))
    for net, weigher in ((model, balancer), twins):
        steps(net, weigher, torch.optim.SGD(net.parameters(), lr=0.05), 2)
    for mine, theirs in zip(model.parameters(), twins[0].parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert int(twins[1].strategy.step) == 4
