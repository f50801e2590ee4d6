"""Agreement with TorchJD 0.18 on the strategies that look at gradients. Differences: test_disagreements.py.

TorchJD runs in float64. Where its absolute constants alone keep it from the answer, they are set to
(almost) nothing here, and test_disagreements.py shows what they do.
"""

import numpy as np
import pytest
import torch
from scipy import stats
from torchjd import aggregation
from torchjd.aggregation import (
    CRMOGMWeighting,
    GradVac,
    GradVacWeighting,
    MGDAWeighting,
    MoDoWeighting,
    PCGrad,
    SDMGradWeighting,
)
from torchjd.linalg import QuadprogProjector

from mtlweights import Balancer
from mtlweights.strategies.gram.pcgrad import random_orders
from tests.oracle import KINDS, SCALES, T, apart, direction, jacobian, jacobians, make, theirs, weights_of

# cvxpy, when TorchJD's Nash-MTL builds its problem
pytestmark = pytest.mark.filterwarnings("ignore:You are solving a parameterized problem that is not DPP")

PROJECTOR = QuadprogProjector(norm_eps=1e-30, reg_eps=1e-10)
REGULAR, WIDE, DEFICIENT, ONE = ("wide", "square"), ("wide",), ("deficient",), (1.0,)

# name, our hyperparameters, their aggregator (both for T tasks), kinds of Jacobian, scales, tolerance
EXACT = [
    ("cagrad", lambda t: {}, lambda t: aggregation.CAGrad(c=0.5, norm_eps=1e-30), KINDS, SCALES, 1e-4),
    ("cagrad", lambda t: {"c": 0.9}, lambda t: aggregation.CAGrad(c=0.9, norm_eps=1e-30), WIDE, ONE, 1e-3),
    ("imtl_g", lambda t: {}, lambda t: aggregation.IMTLG(), WIDE, SCALES, 1e-12),
    ("nash_mtl", lambda t: {}, lambda t: aggregation.NashMTL(t, max_norm=0.0), WIDE, ONE, 1e-6),
    ("fairgrad", lambda t: {}, lambda t: aggregation.FairGrad(alpha=2.0), REGULAR, (1.0, 1e3), 1e-6),
    ("fairgrad", lambda t: {"alpha": 1.0}, lambda t: aggregation.FairGrad(alpha=1.0), WIDE, ONE, 1e-6),
    ("upgrad", lambda t: {}, lambda t: aggregation.UPGrad(projector=PROJECTOR), REGULAR, SCALES, 1e-7),
    ("upgrad", lambda t: {}, lambda t: aggregation.UPGrad(projector=PROJECTOR), DEFICIENT, SCALES, 1e-3),
    ("dualproj", lambda t: {}, lambda t: aggregation.DualProj(projector=PROJECTOR), REGULAR, SCALES, 1e-7),
    ("dualproj", lambda t: {}, lambda t: aggregation.DualProj(projector=PROJECTOR), DEFICIENT, SCALES, 1e-3),
    ("config", lambda t: {}, lambda t: aggregation.ConFIG(), REGULAR, SCALES, 1e-10),
    ("pcd", lambda t: {}, lambda t: aggregation.PCD(eps=0.0), KINDS, SCALES, 1e-10),
    ("pcd", lambda t: {"tau": 0.5}, lambda t: aggregation.PCD(tau=0.5, eps=0.0), REGULAR, SCALES, 1e-10),
    *(
        (
            "aligned_mtl",
            lambda t, s=s: {"preference": [1 / t] * t, "scale": s},
            lambda t, s=s: aggregation.AlignedMTL(scale_mode=s),
            KINDS,
            SCALES,
            1e-9,
        )
        for s in ("min", "rmse")
    ),
]


@pytest.mark.parametrize("n_tasks", T)
@pytest.mark.parametrize(("name", "hyperparameters", "aggregator", "kinds", "scales", "tolerance"), EXACT)
def test_directions(name, hyperparameters, aggregator, kinds, scales, tolerance, n_tasks):
    for rows in jacobians(n_tasks, kinds, scales):
        ours = direction(make(name, n_tasks, **hyperparameters(n_tasks)), rows)
        assert apart(ours, theirs(aggregator(n_tasks), rows), rows) < tolerance


@pytest.mark.parametrize("n_tasks", [3, 5])
def test_aligned_mtl_median(n_tasks):
    """Theirs is the lower of the two middle eigenvalues; for an odd number there is one in the middle."""
    for rows in jacobians(n_tasks, REGULAR):
        ours = direction(
            make("aligned_mtl", n_tasks, scale="median", preference=[1 / n_tasks] * n_tasks), rows
        )
        assert apart(ours, theirs(aggregation.AlignedMTL(scale_mode="median"), rows), rows) < 1e-9


def test_mgda_of_two_tasks():
    for rows in jacobians(2):
        assert apart(direction(make("mgda", 2), rows), theirs(aggregation.MGDA(), rows), rows) < 1e-7


@pytest.mark.parametrize("n_tasks", [3, 5, 10])
def test_mgda_is_at_least_as_short_and_as_far_away_as_their_excess_allows(n_tasks):
    """With d the shortest vector of the hull, every other v of it has ``|v - d|^2 <= |v|^2 - |d|^2``."""
    for rows in jacobians(n_tasks):
        ours, found = direction(make("mgda", n_tasks), rows), theirs(aggregation.MGDA(), rows)
        excess = found @ found - ours @ ours
        size = (rows**2).sum(axis=1).max()
        assert excess >= -1e-14 * size
        assert (found - ours) @ (found - ours) <= excess + 1e-12 * size


def test_mgda_is_where_their_iteration_leads():
    rows = jacobian(5)
    ours = direction(make("mgda", 5), rows)
    gaps = [apart(ours, theirs(aggregation.MGDA(epsilon=1e-9, max_iters=n), rows), rows) for n in (20, 2000)]
    assert gaps[0] > 1e-3
    assert gaps[1] < 1e-7


@pytest.fixture
def same_orders(monkeypatch):
    """Makes ``torch.randperm`` return what is queued; both libraries then visit the tasks in one order."""
    queue = []
    monkeypatch.setattr(torch, "randperm", lambda n: torch.as_tensor(queue.pop(0)))
    return queue


@pytest.mark.parametrize("n_tasks", T)
def test_pcgrad_in_the_same_orders(same_orders, n_tasks):
    for step, rows in enumerate(jacobians(n_tasks)):
        strategy = make("pcgrad", n_tasks)
        strategy.step.fill_(step)
        same_orders.extend([*order, i] for i, order in enumerate(random_orders(n_tasks, 0, step).tolist()))
        assert apart(direction(strategy, rows), theirs(PCGrad(), rows), rows) < 1e-12


@pytest.mark.parametrize("n_tasks", T)
@pytest.mark.parametrize("scale", SCALES)
def test_gradvac_in_the_same_orders(same_orders, n_tasks, scale):
    """Six steps, so that the targets matter; drawn towards each other, so that some are above 0."""
    strategy, aggregator = make("gradvac", n_tasks, beta=0.3), GradVac(beta=0.3, eps=0.0)
    for step in range(6):
        rows = jacobian(n_tasks, scale=scale, seed=step)
        rows = rows + (step % 3) * rows.mean(axis=0)
        strategy.step.fill_(step)
        for i, order in enumerate(random_orders(n_tasks, 0, step).tolist()):
            same_orders.append([j - (j > i) for j in order])  # places in the list of the others
        assert apart(direction(strategy, rows), theirs(aggregator, rows), rows) < 1e-9


@pytest.mark.parametrize("n_tasks", [5, 10])
def test_krum_where_squaring_the_distances_changes_nothing(n_tasks):
    """One neighbour: the order of distances is that of their squares."""
    for rows in jacobians(n_tasks):
        ours = direction(make("krum", n_tasks, n_byzantine=n_tasks - 3), rows)
        found = theirs(aggregation.Krum(n_byzantine=n_tasks - 3), rows)
        nearest = np.linalg.norm(rows[:, None] - rows, axis=2) + 1e300 * np.eye(n_tasks)
        tied = rows[np.isclose(nearest.min(axis=1), nearest.min())]  # the nearest two, always tied
        assert apart(ours, tied.mean(axis=0), rows) < 1e-12  # we share,
        assert np.linalg.norm(tied - found, axis=1).min() < 1e-12 * np.abs(rows).max()  # they take one


@pytest.mark.parametrize("n_tasks", T)
def test_trimmed_mean(n_tasks):
    for trim in range((n_tasks - 1) // 2 + 1):
        for rows in jacobians(n_tasks):
            ours = direction(make("trimmed_mean", n_tasks, trim=trim), rows)
            assert apart(ours, theirs(aggregation.TrimmedMean(trim), rows), rows) < 1e-12


@pytest.mark.parametrize("leak", [0.0, 0.25])
@pytest.mark.parametrize("n_tasks", T)
def test_graddrop_with_the_same_draws(monkeypatch, n_tasks, leak):
    for seed, rows in enumerate(jacobians(n_tasks)):
        draws = torch.from_numpy(np.random.default_rng(seed).random(rows.shape[1]))
        monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, generator, u=draws: self.copy_(u))
        monkeypatch.setattr(torch, "rand", lambda *args, u=draws, **kwargs: u)
        ours = direction(make("graddrop", n_tasks, leak=leak), rows)
        found = theirs(aggregation.GradDrop(leak=torch.full([n_tasks], leak, dtype=torch.float64)), rows)
        assert apart(ours, found, rows) < 1e-12


@pytest.mark.parametrize("n_tasks", T)
def test_excess_mtl_with_a_first_step_of_warm_up(n_tasks):
    """Their baseline is then the mean excess of the warm-up, as ours; gradients are not tiny."""
    for warmup in (1, 3):
        strategy = make("excess_mtl", n_tasks, eta=0.7, warmup=warmup)
        aggregator = aggregation.ExcessMTL(robust_step_size=0.7, n_warmup_steps=warmup)
        for step in range(8):
            rows = jacobian(n_tasks, scale=10.0, seed=step)
            assert apart(direction(strategy, rows), theirs(aggregator, rows), rows) < 1e-5


def test_random_weights_have_one_distribution():
    """The largest of three weights, 600 draws of each, by a two-sample Kolmogorov-Smirnov test."""
    torch.manual_seed(0)
    draws = {"theirs": [theirs(aggregation.Random(), np.eye(3)).max() for _ in range(600)]}
    losses = torch.eye(3)[0].requires_grad_()
    for name in ("random", "random_grad"):
        strategy, draws[name] = make(name, 3), []
        for step in range(600):
            strategy.step.fill_(step)
            if name == "random":
                draws[name].append(weights_of(strategy.combine(losses), losses).max())
            else:
                draws[name].append(direction(strategy, np.eye(3)).max())
        assert stats.ks_2samp(draws[name], draws["theirs"]).pvalue > 0.05


@pytest.mark.parametrize("n_tasks", T)
def test_sum_and_constant(n_tasks):
    wanted = np.random.default_rng(n_tasks).uniform(0, 3, n_tasks)
    losses = torch.rand(n_tasks, dtype=torch.float64, requires_grad=True)
    pairs = [
        (make("equal", n_tasks), aggregation.Sum()),
        (make("fixed", n_tasks, alpha=[1 / n_tasks] * n_tasks), aggregation.Mean()),
        (make("fixed", n_tasks, alpha=wanted.tolist()), aggregation.Constant(torch.from_numpy(wanted))),
    ]
    for strategy, aggregator in pairs:
        ours = weights_of(strategy.combine(losses), losses)
        assert ours == pytest.approx(theirs(aggregator, np.eye(n_tasks)), rel=1e-6)


def test_smoothing_is_cr_mogm():
    """The Balancer's ``smoothing=0.8`` around MGDA, on losses that are linear in one vector."""
    point = torch.nn.Parameter(torch.zeros(50))
    optimizer = torch.optim.SGD([point], lr=0.1)
    balancer = Balancer("mgda", ["a", "b"], shared=[point], smoothing=0.8).attach(optimizer)
    smoothed = CRMOGMWeighting(MGDAWeighting(), alpha=0.8)
    for step in range(8):
        rows = torch.tensor(jacobian(2, seed=step) * [[1.0], [0.3 + step % 3]], dtype=torch.float32)
        optimizer.zero_grad()
        balancer.backward({"a": rows[0] @ point, "b": rows[1] @ point})
        expected = smoothed(rows @ rows.T) @ rows
        assert point.grad.numpy() == pytest.approx(expected.numpy(), abs=1e-5)
        optimizer.step()


def test_gradvac_has_the_same_targets_after_the_same_steps(same_orders):
    strategy, weighting = make("gradvac", 2, beta=0.5), GradVacWeighting(beta=0.5, eps=0.0)
    for step in range(4):
        rows = jacobian(2, seed=step)
        same_orders.extend([[0], [0]])
        direction(strategy, rows)
        weighting(torch.from_numpy(rows @ rows.T))
        assert strategy.target.numpy() == pytest.approx(weighting._phi_t.numpy(), abs=1e-12)


def three_batches(n_tasks, seed=0):
    """Gradients of three batches [T, 50] that share a signal, as noisy ones of one model do."""
    rng = np.random.default_rng([n_tasks, seed])
    signal = rng.normal(size=(n_tasks, 50))
    return [signal + 0.5 * rng.normal(size=(n_tasks, 50)) for _ in range(3)]


@pytest.mark.parametrize("n_tasks", T)
def test_modo_over_ten_steps(n_tasks):
    strategy, weighting = make("modo", n_tasks, gamma=3e-3, rho=0.2), MoDoWeighting(gamma=3e-3, rho=0.2)
    for step in range(10):
        one, two, three = three_batches(n_tasks, step)
        stacked = np.vstack([one, two, three])
        trunk, _ = strategy.weights(stacked @ stacked.T, np.ones(n_tasks), np.arange(n_tasks))
        expected = weighting(torch.from_numpy(one @ two.T)).numpy()
        assert trunk == pytest.approx([0] * 2 * n_tasks + expected.tolist(), abs=1e-9)
    assert expected.std() > 1e-3


@pytest.mark.parametrize("n_tasks", T)
def test_sdmgrad_on_its_own_scale(n_tasks):
    """We divide by the squared mean norm, they by the squared mean root of the diagonal: lr evens it out."""
    for step in range(6):
        one, two, three = three_batches(n_tasks, step)
        norms = np.linalg.norm(np.vstack([one, two]), axis=1)
        roots = np.sqrt(np.clip((one * two).sum(axis=1), 0, None))
        lr = 0.3 * norms.mean() ** 2 / roots.mean() ** 2
        stacked = np.vstack([one, two, three])
        trunk, _ = make("sdmgrad", n_tasks, lr=lr).weights(
            stacked @ stacked.T, np.ones(n_tasks), np.arange(n_tasks)
        )
        expected = SDMGradWeighting(lr=0.3)(torch.from_numpy(one @ two.T)).numpy()
        assert trunk == pytest.approx([0] * 2 * n_tasks + expected.tolist(), abs=1e-6)
        assert expected.std() > 1e-3
