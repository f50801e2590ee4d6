"""What the strategies on the Jacobian have in common, over several steps."""

import numpy as np
import pytest
import torch

from mtlweights import Balancer, strategies
from tests.strategies.jacobian.helpers import Run, first, near, random_jacobians
from tests.toys import batch, losses_of, names, toy

NAMES = ["db_mtl", "metabalance", "adatask", "moco", "excess_mtl", "graddrop", "trimmed_mean"]


every = pytest.mark.parametrize("name", NAMES)


DEGENERATE = {
    "zero": np.zeros((3, 4)),
    "rank one": np.outer([1, -2, 0.5], [1, 2, 3, 4]),
    "opposed": np.array([[1, 2, 0, 1], [-1, -2, 0, -1], [0, 0, 0, 0]], dtype=float),
    "one zero row": np.array([[1, 2, 3, 4], [0, 0, 0, 0], [4, 3, 2, 1]], dtype=float),
}


@every
@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("losses", [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
def test_degenerate_input_stays_finite(name, case, losses):
    run = Run(name, 3, sizes=[1, 3])
    for _ in range(4):
        d = run.step(DEGENERATE[case], losses)
        assert np.isfinite(d).all()
        assert run.weights is None or np.isfinite(run.weights).all()
        assert all(bool(x.isfinite().all()) for x in [*run.kept.values(), *run.strategy.buffers()])
        if case == "zero":
            assert not d.any()


@every
def test_one_task(name):
    d = first(name, [(3, -4)])
    assert d == near((1, -1) if name == "adatask" else (3, -4), rel=1e-4)


@every
@pytest.mark.parametrize("n_tasks", [2, 3, 10, 40])
def test_any_number_of_tasks_and_no_column(name, n_tasks):
    run = Run(name, n_tasks)
    for g in random_jacobians(3, m=n_tasks, p=5):
        assert np.isfinite(run.step(g)).all()
    assert Run(name, n_tasks, sizes=[]).step(np.zeros((n_tasks, 0))).shape == (0,)


@every
@pytest.mark.parametrize("c", [1e-6, 1e-3, 1e3, 1e6])
def test_declared_scale_degree(name, c):
    degree = strategies.get(name).scale_degree
    if degree is None:
        assert name == "moco"
        return
    one, other = Run(name, 3, sizes=[3, 4]), Run(name, 3, sizes=[3, 4])
    losses = np.array([0.3, 2.0, 1.0])
    for g in random_jacobians(6) * np.array([[1.0], [1e-4], [1e2]]):
        expected = one.step(g, losses)
        found = other.step(c * g, c * losses)
        assert found / c**degree == near(expected, rel=2e-5, abs=2e-5 * np.abs(expected).max())


@every
def test_declared_invariance_to_the_scale_of_one_task(name):
    claimed = "loss_scale_invariant" in strategies.get(name).properties
    one, other = Run(name, 3), Run(name, 3)
    factors, losses, same = np.array([1e-3, 1.0, 20.0]), np.array([0.3, 2.0, 1.0]), True
    for g in random_jacobians(5):
        expected, found = one.step(g, losses), other.step(factors[:, None] * g, factors * losses)
        same &= np.allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert same == claimed


@every
def test_declared_equivariance(name):
    claimed = "permutation_equivariant" in strategies.get(name).properties
    one, other, same = Run(name, 3, sizes=[3, 4]), Run(name, 3, sizes=[3, 4]), True
    order, losses = [2, 0, 1], np.array([0.3, 2.0, 1.0])
    for g in random_jacobians(5):
        same &= np.allclose(one.step(g, losses), other.step(g[order], losses[order]), rtol=1e-4, atol=1e-5)
    assert same == claimed


@every
def test_absent_tasks_keep_their_state(name):
    run = Run(name, 3, sizes=[3, 4])
    g = random_jacobians(4)
    run.step(g[0]), run.step(g[1])
    before = {k: x.clone() for k, x in {**run.kept, **dict(run.strategy.named_buffers())}.items()}
    run.step(g[2][[0, 2]], present=[0, 2])
    after = {**run.kept, **dict(run.strategy.named_buffers())}
    for key, old in before.items():
        if key != "step":
            assert torch.equal(old[1], after[key][1]), key
    moved = {k for k, old in before.items() if k not in ("step", "leak") and not torch.equal(old, after[k])}
    assert moved == set(before) - {"step", "leak", "baseline", "seen"}


@pytest.mark.parametrize("name", ["db_mtl", "adatask", "moco"])
def test_a_tensor_shared_only_later_is_not_biased(name):
    """Its columns start as if the run began there."""
    late, g = Run(name, 2, sizes=[3]), random_jacobians(5, m=2, p=5)
    for x in g[:3]:
        late.step(x[:, :3])
    late.sizes = [3, 2]
    late.kept = {
        k: torch.cat([x, x.new_zeros(2, 1 if k == "counts" else 2)], 1) for k, x in late.kept.items()
    }
    late.step(g[3])
    if name == "adatask":
        assert late.step(g[3])[3:] == near(np.sign(g[3][:, 3:]).sum(0), rel=1e-4)
    else:
        assert late.kept["averages" if name == "db_mtl" else "y"][:, 3:].numpy() == near(g[3][:, 3:])


@every
def test_losses_fall_in_a_training_loop_with_tasks_missing(name):
    model = toy(3)
    balancer = Balancer(name, names(3), model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002 if name == "adatask" else 0.02)
    balancer.attach(optimizer)
    data, before = batch(64), None
    steps = 300 if name == "moco" else 150  # its averages follow slowly
    for step in range(steps):
        optimizer.zero_grad()
        losses = losses_of(model, data, only=[(0, 1, 2), (0, 2), (1, 2)][step % 3])
        before = [x.item() for x in losses.values()] if before is None else before
        balancer(losses).backward()
        optimizer.step()
    after = [x.item() for x in model(data)]
    assert sum(np.log(after)) < sum(np.log(before)) - 0.2
    assert int(balancer.strategy.step) == steps


@pytest.mark.parametrize("name", NAMES)
def test_what_heads_get(name):
    """The gradient of log l from DB-MTL, the weighted one from ExcessMTL, the plain one from the others."""
    model = toy(2)
    balancer = Balancer(name, names(2), model)
    losses = losses_of(model, batch())
    factors = {"db_mtl": [1 / x.item() for x in losses.values()], "excess_mtl": [0.5, 0.5]}.get(name, [1, 1])
    own = [
        torch.autograd.grad(x, h.weight, retain_graph=True)[0]
        for x, h in zip(losses.values(), model.heads, strict=True)
    ]
    balancer(losses).backward()
    for head, gradient, factor in zip(model.heads, own, factors, strict=True):
        torch.testing.assert_close(head.weight.grad, factor * gradient)
    if name in ("db_mtl", "excess_mtl"):
        assert [w.item() for w in balancer.weights.values()] == near(factors)
