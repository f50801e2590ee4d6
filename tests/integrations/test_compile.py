"""torch.compile and activation checkpointing."""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from mtlweights import Balancer, strategies
from tests.tiny import ROOT
from tests.toys import Toy, assert_same, backward, batch, gradients_of, losses_of, names, toy

ALL = strategies.names()

# A process of its own, without any cache of compiled code.
PROGRAM = """
import traceback
import torch
from mtlweights import Balancer
from tests.integrations.test_compile import ALL
from tests.toys import assert_same, backward, batch, gradients_of, losses_of, names, toy

model = toy(3)
compiled = torch.compile(model)

def same(name):
    expected = toy(3)
    balancer, reference = Balancer(name, names(3), compiled), Balancer(name, names(3), expected)
    for step in range(2):
        model.zero_grad(), expected.zero_grad()
        data = batch(seed=step)
        backward(balancer, lambda: losses_of(compiled, data), path="call")
        backward(reference, lambda: losses_of(expected, data), path="call")
        found, right = gradients_of(model), gradients_of(expected)
        # a compiled graph gives zeros where an eager one gives None
        assert all(g is None or not g.any() for k, g in found.items() if right[k] is None), name
        assert_same({k: g for k, g in found.items() if right[k] is not None},
                    {k: g for k, g in right.items() if g is not None}, 1e-5)

for name in ALL:
    try:
        same(name)
        print(name)
    except Exception:
        traceback.print_exc()
"""


@pytest.fixture(scope="module")
def compiled():
    """What the program said: a name after each strategy that gave the same."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    return subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=env)


@pytest.mark.parametrize("name", ALL)
def test_compiled_equals_eager(name, compiled):
    assert name in compiled.stdout.split(), compiled.stderr


# What compiled code a process finds on the disk: first that of a plain sum, which gives its buffers away.
FIRST = """
import torch
from tests.tiny import TinyBert, collate, examples

sum(torch.compile(TinyBert())(**collate(examples(8)))["losses"].values()).backward()
"""
SECOND = """
import sys
import torch
from mtlweights import Balancer
from tests.integrations.test_huggingface import Calling
from tests.tiny import TASKS, TinyBert, assert_close, collate, examples
from tests.toys import gradients_of

def steps(model, forward, balancer=None):
    for seed in range(2):
        model.zero_grad()
        out = forward(**collate(examples(8, seed=seed)))
        (out["loss"] if balancer is None else balancer(out["losses"])).backward()
    return {k: g for k, g in gradients_of(model).items() if g is not None}

for name in sys.argv[1:]:
    torch.compiler.reset()
    model, plain = TinyBert(), TinyBert()
    found = steps(model, torch.compile(model), Balancer(name, TASKS, model))
    assert_close(found, steps(plain, plain, Balancer(name, TASKS, plain)), 1e-5, 1e-3)
    model, plain = Calling(name), Calling(name)
    assert_close(steps(model, torch.compile(model)), steps(plain, plain), 1e-5, 1e-3)
    state, other = (m.balancer.state_dict()["strategy"] for m in (model, plain))
    for key, value in other.items():
        torch.testing.assert_close(state[key], value, rtol=1e-3, atol=1e-5, equal_nan=True)
    print(name)
"""


def test_compiled_code_on_the_disk_and_a_balancer_in_the_compiled_forward(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    few = ["pcgrad", "gradnorm"]
    for program in (FIRST, SECOND):
        done = subprocess.run([sys.executable, "-c", program, *few], capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == few


class Checkpointed(Toy):
    """Recomputes its encoder in every backward pass."""

    reentrant = False

    def forward(self, data):
        x, y, z = data
        x = x.clone().requires_grad_()  # reentrant checkpointing trains nothing without such an input

        hidden = self.frozen(checkpoint(self.encoder, x, use_reentrant=self.reentrant))
        losses = []
        for i, head in enumerate(self.heads):
            out = head(hidden)
            losses.append(
                10.0 ** (i // 2) * (out[:, 0] - (-1) ** (i // 2) * y).pow(2).mean()
                if i % 2 == 0
                else 10.0 ** (i // 2) * torch.nn.functional.cross_entropy(out, (z + i // 2) % 3)
            )
        return losses


def checkpointed():
    model = Checkpointed(3)
    model.load_state_dict(toy(3).state_dict())
    return model


@pytest.mark.parametrize("path", ["call", "backward"])
@pytest.mark.parametrize("name", ALL)
def test_recomputed_activations_give_the_same(name, path):
    model, plain = checkpointed(), toy(3)
    balancers = [Balancer(name, names(3), m) for m in (model, plain)]
    for step in range(2):
        for balancer in balancers:
            balancer.model.zero_grad()
            backward(balancer, partial(losses_of, balancer.model, batch(seed=step)), path=path)
        assert_same(gradients_of(model), gradients_of(plain))


@pytest.mark.parametrize("name", ["pcgrad", "mgda", "gradnorm", "graddrop"])
def test_reentrant_is_refused_before_any_gradient(name, monkeypatch):
    monkeypatch.setattr(Checkpointed, "reentrant", True)
    model = checkpointed()
    with pytest.raises(ValueError, match=r"Reentrant activation checkpointing .* use_reentrant=False"):
        Balancer(name, names(3), model)(losses_of(model, batch())).backward()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", ["equal", "uw"])
def test_one_ordinary_pass_needs_no_refusal(name, monkeypatch):
    monkeypatch.setattr(Checkpointed, "reentrant", True)
    model, plain = checkpointed(), toy(3)
    for m in (model, plain):
        Balancer(name, names(3), m)(losses_of(m, batch())).backward()
    assert_same(gradients_of(model), gradients_of(plain))


@pytest.mark.parametrize("name", ["pcgrad", "gradnorm", "graddrop"])
def test_a_plain_first_backward_of_a_compiled_model(name):
    """Built before the first backward, the balancer may come in after a warm-up without it."""
    torch.compiler.reset()
    model, expected = toy(3), toy(3)
    compiled = torch.compile(model, backend="aot_eager")
    balancer = Balancer(name, names(3), compiled)
    sum(losses_of(compiled, batch()).values()).backward()
    model.zero_grad()
    balancer(losses_of(compiled, batch())).backward()
    Balancer(name, names(3), expected)(losses_of(expected, batch())).backward()
    found, right = gradients_of(model), gradients_of(expected)
    assert_same(
        {k: found[k] for k, g in right.items() if g is not None},
        {k: g for k, g in right.items() if g is not None},
        1e-5,
    )


def test_each_pass_recomputes_once(monkeypatch):
    model, runs = checkpointed(), []
    model.encoder.register_forward_pre_hook(lambda *a: runs.append(1))
    Balancer("mgda", names(3), model)(losses_of(model, batch())).backward()
    assert len(runs) == 1 + 3
