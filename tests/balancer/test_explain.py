"""What explain() says of gradients, factors and memory."""

import re
import weakref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mtlweights import Balancer
from tests.toys import names


def test_explain_says_what_is_kept_and_what_it_takes():
    model = nn.ModuleDict({"trunk": nn.Linear(512, 1024), "a": nn.Linear(1024, 1), "b": nn.Linear(1024, 1)})
    said = {}
    for mode in ("rows", "gramian", "features"):
        features = model["trunk"] if mode == "features" else None
        balancer = Balancer("mgda", ["a", "b"], model, gradients=mode, features=features)
        h = model["trunk"](torch.randn(64, 512))
        balancer.backward({task: model[task](h).square().mean() for task in ("a", "b")})
        said[mode] = balancer.explain()
    # rows: two of 512 x 1024 + 1024 floats and the heads; factors: two of 64 x 1024
    assert "Memory above plain training: 4.0 MiB" in said["rows"]
    assert "Memory above plain training: 0.5 MiB" in said["gramian"]
    assert (
        "kept as factors: 3 tensors, 526,336 parameters (trunk.weight, a.weight, b.weight)" in said["gramian"]
    )
    assert "one gradient of the representation per task" in said["features"]
    assert "one backward pass per task through its head, and one weighted pass" in said["features"]
    windowed = Balancer(
        "mgda", ["a", "b"], model, gradients="gramian", accumulation="window", accumulation_steps=1
    )
    h = model["trunk"](torch.randn(64, 512))
    windowed.backward({task: model[task](h).square().mean() for task in ("a", "b")})
    assert "No gradient is kept as factors" in windowed.explain()


class Live(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, and the most there were."""

    def __init__(self):
        super().__init__()
        self.known, self.now, self.peak = set(), 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
                self.peak = max(self.peak, self.now)
        return out

    def _gone(self, key, size):
        self.known.discard(key)
        self.now -= size


@pytest.mark.parametrize("name", ["pcgrad", "graddrop", "db_mtl", "adatask"])
def test_explain_says_the_memory_that_a_step_takes(name):
    tasks = names(4)
    model = nn.ModuleDict({"trunk": nn.Linear(1024, 1024), **{task: nn.Linear(1024, 1) for task in tasks}})
    balancer = Balancer(name, tasks, model, gradients="rows")
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)

    def losses():
        h = model["trunk"](torch.ones(4, 1024)).tanh()
        return {task: model[task](h).square().mean() for task in tasks}

    sum(losses().values()).backward()  # from here on there is a .grad, as in a loop that keeps it
    with Live() as plain:
        sum(losses().values()).backward()
    with Live() as balanced:
        for _ in range(3):
            balanced.peak = balanced.now
            optimizer.zero_grad(set_to_none=False)
            balancer(losses()).backward()
            found = (balanced.peak - plain.peak) / 2**20
            optimizer.step()
    said = float(re.search(r"plain training: ([\d.]+) MiB", balancer.explain())[1])
    assert 0.75 * found < said < 1.25 * found
