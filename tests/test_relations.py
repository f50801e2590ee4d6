"""The strategies that learn task relations: their mathematics by value, and that they recover relations."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats
from toys import batch, losses_of, names, toy

from mtlweights import Balancer
from mtlweights.strategies.jacobian import factor_analysis
from mtlweights.strategies.jacobian.contrastive import Contrastive, variances
from mtlweights.strategies.jacobian.critic import info_nce
from mtlweights.strategies.jacobian.variational import Variational

both = pytest.mark.parametrize("cls", [Variational, Contrastive])


class Drive:
    """Steps a strategy as the engine does: keys of the tasks present lent, what it left kept."""

    def __init__(self, strategy, n_elements):
        self.strategy, self.key = strategy, torch.zeros(strategy.n_tasks, n_elements)
        self.weights = None

    def step(self, jacobian, present=slice(None)):
        jacobian = torch.as_tensor(np.asarray(jacobian), dtype=torch.float32)
        self.strategy.rows, self.strategy.sizes = {"key": self.key[present]}, [jacobian.shape[1]]
        direction, weights = self.strategy.direction(jacobian, torch.ones(len(jacobian)), present)
        self.key = self.key.clone()
        self.key[present] = self.strategy.rows["key"]
        self.weights = weights.double().numpy()
        return direction.double().numpy()


def auc(score, related):
    """Share of (related, unrelated) pairs in the right order."""
    difference = score[related][:, None] - score[~related]
    return (difference > 0).mean() + (difference == 0).mean() / 2


def draws(signal, noise, n, elements, seed=0):
    """u [n, T, elements] of the model, every task's mean square exactly 1."""
    rng = np.random.default_rng(seed)
    s = np.linalg.cholesky(signal) @ rng.normal(size=(len(signal), elements))
    u = s + np.sqrt(noise)[:, None] * rng.normal(size=(n, len(signal), elements))
    return u / np.sqrt((u**2).mean((0, 2)))[:, None]


def moments_of(u):
    mean = u.mean(0)
    return torch.from_numpy(mean @ mean.T / mean.shape[1])


SIGNAL = torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=torch.float64)
NOISE = torch.tensor([0.6, 0.5], dtype=torch.float64)


# the model of `variational`


def test_posterior_is_the_product_of_prior_and_likelihood():
    gain, cov = factor_analysis.posterior(SIGNAL, NOISE)
    expected = np.linalg.inv(np.linalg.inv(SIGNAL.numpy()) + np.diag(1 / NOISE.numpy()))
    assert cov.numpy() == pytest.approx(expected, rel=1e-12)
    assert gain.numpy() == pytest.approx(expected / NOISE.numpy(), rel=1e-12)


def test_posterior_of_a_signal_that_is_not_positive():
    """Eigenvalues 2 along (1, 1) and -1 along (1, -1), noise 1: 2/3 of the first, none of the second."""
    signal = torch.tensor([[0.5, 1.5], [1.5, 0.5]], dtype=torch.float64)
    gain, cov = factor_analysis.posterior(signal, torch.ones(2, dtype=torch.float64))
    assert gain.numpy() == pytest.approx(np.full((2, 2), 1 / 3))
    assert cov.numpy() == pytest.approx(np.full((2, 2), 1 / 3))


def test_bound_at_the_posterior_is_the_evidence():
    """Of the n draws at once: Gaussian with covariance K (x) 11' + diag(noise) (x) I, by scipy."""
    n, u = 3, draws(SIGNAL.numpy(), NOISE.numpy(), 3, 40)
    gain, cov = factor_analysis.posterior(SIGNAL, NOISE / n)
    found = factor_analysis.bound(moments_of(u), gain, cov, SIGNAL, NOISE, n, 0.0)
    signal, noise = SIGNAL.numpy(), np.diag(NOISE.numpy())
    covariance = np.kron(np.ones((n, n)), signal) + np.kron(np.eye(n), noise)
    evidence = stats.multivariate_normal(np.zeros(2 * n), covariance).logpdf(u.reshape(2 * n, -1).T)
    assert float(found) == pytest.approx(evidence.mean(), rel=1e-12)


def test_bound_of_any_other_posterior_by_integration():
    """One task, q of the wrong mean and variance, each expectation by quadrature."""
    n, signal, noise, gain, cov = 4, 0.3, 0.8, 0.7, 0.2
    u = draws(np.array([[signal]]), np.array([noise]), n, 5)

    def of_element(values):
        q = stats.norm(gain * values.mean(), math.sqrt(cov))

        def inside(s):
            likelihood = stats.norm(s, math.sqrt(noise)).logpdf(values).sum()
            return q.pdf(s) * (likelihood + stats.norm(0, math.sqrt(signal)).logpdf(s) - q.logpdf(s))

        return integrate.quad(inside, q.mean() - 6, q.mean() + 6)[0]

    one = [torch.tensor([[x]], dtype=torch.float64) for x in (gain, cov, signal)]
    psi = torch.tensor([noise], dtype=torch.float64)
    found = float(factor_analysis.bound(moments_of(u), *one, psi, n, 0.0))
    assert found == pytest.approx(np.mean([of_element(u[:, 0, p]) for p in range(5)]), rel=1e-7)
    best = factor_analysis.posterior(one[2], psi / n)
    assert found < float(factor_analysis.bound(moments_of(u), *best, one[2], psi, n, 0.0))


def objective(moments, signal, noise, n, pull):
    return float(
        factor_analysis.bound(moments, *factor_analysis.posterior(signal, noise / n), signal, noise, n, pull),
    )


def test_every_sweep_raises_the_bound_up_to_the_optimum_of_scipy():
    n, pull = 5, 0.2
    moments = moments_of(draws(SIGNAL.numpy(), NOISE.numpy(), n, 500))
    signal, noise = torch.eye(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    values = [objective(moments, signal, noise, n, pull)]
    for _ in range(200):
        signal, noise, _ = factor_analysis.sweep(moments, signal, noise, n, pull)
        values.append(objective(moments, signal, noise, n, pull))
    assert (np.diff(values) > -1e-12).all()
    assert values[-1] > values[0] + 0.1

    def negative(x):  # log evidence of the mean and of the spread around it, log prior of K; by hand
        root = np.array([[math.exp(x[0]), 0], [x[1], math.exp(x[2])]])
        k, psi, a = root @ root.T, np.exp(x[3:]), moments.numpy()
        total = k + np.diag(psi / n)
        fit = np.log(np.linalg.det(total)) + np.trace(np.linalg.solve(total, a))
        within = ((n - 1) * np.log(psi) + n * (1 - np.diag(a)) / psi).sum()
        level = np.trace(a) / 2 * np.trace(np.linalg.inv(k)) + np.log(np.linalg.det(k))
        return fit + within + pull / (1 - pull) * level

    best = optimize.minimize(negative, np.zeros(5), method="BFGS", options={"gtol": 1e-8}).x
    root = np.array([[math.exp(best[0]), 0], [best[1], math.exp(best[2])]])
    assert signal.numpy() == pytest.approx(root @ root.T, rel=1e-4)
    assert noise.numpy() == pytest.approx(np.exp(best[3:]), rel=1e-4)


def test_variational_weights_are_the_known_shares():
    """First step, decay 0: n = 1, K = I and noise 1 give V = I / 2 and equal weights; then K is new."""
    run = Drive(Variational(2, decay=0.0, pull=0.5), 2)
    assert run.step([[3, 0], [0, 1]]) == pytest.approx([2, 2])
    assert run.weights == pytest.approx([2 / 3, 2])
    # A = I: K = (1/2 + 1/4) / 2 + 1/2, psi = 1 - 2/2 + 3/4
    assert run.strategy.signal.numpy() == pytest.approx(np.diag([0.875, 0.875]))
    assert run.strategy.noise.numpy() == pytest.approx([0.75, 0.75])


def test_variational_gives_a_zero_gradient_no_share():
    """All of m = 2 goes to the other task, at the mean length 3 / 2."""
    run = Drive(Variational(2, decay=0.0), 2)
    assert run.step([[3, 0], [0, 0]]) == pytest.approx([3, 0])
    assert run.weights == pytest.approx([1, 0])


def test_variational_gives_a_noisy_task_less():
    rng, run = np.random.default_rng(0), Drive(Variational(3, pull=0.02), 400)
    signal = rng.normal(size=400)
    for _ in range(60):
        run.step(signal + np.array([[0.5], [0.5], [8.0]]) * rng.normal(size=(3, 400)))
    lengths = np.array([0.5, 0.5, 8.0]) ** 2 + 1
    shares = run.weights * np.sqrt(lengths)
    assert shares[2] < 0.7 * shares[0]
    assert shares[0] == pytest.approx(shares[1], rel=0.05)


def test_variational_bound_is_that_of_its_state():
    strategy = Variational(2)
    run = Drive(strategy, 50)
    rng = np.random.default_rng(0)
    for _ in range(5):
        run.step(rng.normal(size=(2, 50)))
    state = [b.double() for b in (strategy.moments, strategy.signal, strategy.noise)]
    assert strategy.draws == pytest.approx(19)
    assert strategy.bound() == pytest.approx(objective(*state, strategy.draws, 0.1), rel=1e-9)


# the critic of `contrastive`


def test_info_nce_of_two_tasks_by_hand():
    """Rows (1, 0) and (1/2, 1), b = 1: guesses e / (1 + e) and 1 / (1 + exp(-1/2)) of the own key."""
    similarity = torch.tensor([[1.0, 0.0], [0.5, 1.0]], dtype=torch.float64)
    slope, curvature = info_nce(similarity, torch.tensor(1.0, dtype=torch.float64))
    first, second = math.e / (1 + math.e), 1 / (1 + math.exp(-0.5))
    assert float(slope) == pytest.approx(-(1 - first + 0.5 * (1 - second)) / 2)
    assert float(curvature) == pytest.approx((first * (1 - first) + 0.25 * second * (1 - second)) / 2)
    assert float(slope) == pytest.approx(-0.228856, abs=1e-6)


def test_info_nce_derivatives_against_differences():
    x = np.random.default_rng(0).normal(size=(4, 4))

    def loss(b):
        return (np.log(np.exp(b * x).sum(1)) - b * np.diag(x)).mean()

    slope, curvature = info_nce(torch.from_numpy(x), torch.tensor(0.7, dtype=torch.float64))
    assert float(slope) == pytest.approx((loss(0.7 + 1e-4) - loss(0.7 - 1e-4)) / 2e-4, rel=1e-6)
    assert float(curvature) == pytest.approx(
        (loss(0.7 + 1e-3) - 2 * loss(0.7) + loss(0.7 - 1e-3)) / 1e-6, rel=1e-4
    )


def test_sharpness_reaches_the_minimum():
    rng = np.random.default_rng(1)
    x = np.eye(5) + 0.6 * rng.normal(size=(5, 5))
    strategy = Contrastive(5)
    for _ in range(2000):
        strategy._learn(torch.from_numpy(x))

    def loss(b):
        return (np.log(np.exp(b * x).sum(1)) - b * np.diag(x)).mean()

    best = optimize.minimize_scalar(loss, bounds=(0, 20), method="bounded").x
    assert best > 1.2
    assert float(strategy.sharpness) == pytest.approx(best, rel=0.02)


def test_two_steps_of_contrastive_by_hand():
    """Keys after step 1: (0.1, 0) and (0, 0.1). Step 2: products ((0.1, 0), (0.06, 0.08))."""
    run = Drive(Contrastive(2), 2)
    assert run.step([[2, 0], [0, 4]]) == pytest.approx([3, 3])
    run.step([[5, 0], [6, 8]])
    scale = [math.sqrt((0.05 + 0.045) / 2), math.sqrt((0.04 + 0.045) / 2)]
    related = 0.015 / (scale[0] * scale[1])
    assert run.strategy.relations() == pytest.approx(np.array([[1, related], [related, 1]]), rel=1e-6)
    x = np.array([[0.1, 0], [0.06, 0.08]]) / np.outer(scale, scale)
    guess = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    slope = ((guess * x).sum(1) - np.diag(x)).mean()
    curvature = ((guess * x**2).sum(1) - (guess * x).sum(1) ** 2).mean()
    sharpness = 1 - slope / (1 + curvature)
    assert float(run.strategy.sharpness) == pytest.approx(sharpness, rel=1e-6)
    assert run.weights == pytest.approx([7.5 / 5, 7.5 / 10], rel=1e-6)  # two tasks: R symmetric, shares 1
    assert Drive(Contrastive(2), 2).strategy.relations() == pytest.approx(np.eye(2))


def test_contrastive_weights_favour_what_others_could_be():
    """Three tasks in a row, the middle one between: R 12 = R 23 > R 13, so it gets the most."""
    strategy = Contrastive(3)
    strategy.products.copy_(torch.tensor([[1.0, 0.8, 0.2], [0.8, 1.0, 0.8], [0.2, 0.8, 1.0]]))
    strategy.count.fill_(1e9)
    strategy.sharpness.fill_(2)
    run = Drive(strategy, 4)
    run.step(np.eye(3, 4))
    e = [math.exp(2 * r) for r in (1, 0.8, 0.2)]
    ends, middle = sum(e), e[0] + 2 * e[1]
    expected = [(e[0] + e[2]) / ends + e[1] / middle, 2 * e[1] / ends + e[0] / middle]
    assert run.weights == pytest.approx([expected[0], expected[1], expected[0]], rel=1e-5)
    assert run.weights.sum() == pytest.approx(3)


def test_variance_of_a_signal_is_half_its_own_and_at_least_half_the_mean():
    products = torch.diag(torch.tensor([0.4, 0.0, -0.1]))
    assert variances(products).numpy() == pytest.approx([0.4 / 2 + 0.2 / 3, 0.2 / 3, 0.2 / 3])


# both


@both
def test_relations_are_free_of_the_noise_that_raw_cosines_have(cls):
    """Signals correlate by 0.8; each gradient is three quarters noise, so raw cosines are near 0.2."""
    strategy = Variational(2, pull=0.01) if cls is Variational else Contrastive(2)
    rng, run, raw = np.random.default_rng(0), Drive(strategy, 2000), []
    common, own = rng.normal(size=2000), rng.normal(size=(2, 2000))
    signal = math.sqrt(0.8) * common + math.sqrt(0.2) * own
    for _ in range(150):
        jacobian = signal + math.sqrt(3) * rng.normal(size=(2, 2000))
        raw.append(jacobian[0] @ jacobian[1] / math.prod(np.linalg.norm(jacobian, axis=1)))
        run.step(jacobian)
    assert np.mean(raw) == pytest.approx(0.2, abs=0.03)
    assert strategy.relations()[0, 1] == pytest.approx(0.8, abs=0.05)


def simulated(seed, steps=150, elements=300):
    """A planted structure [steps][T, P] of rows, with noise of very different size, and the truth."""
    rng = np.random.default_rng(seed)
    n_tasks = int(rng.integers(7, 11))
    group = rng.permutation(np.concatenate([[0, 0, 1, 1], rng.integers(0, 3, n_tasks - 4)]))
    base = rng.normal(size=(1, elements))
    common, own = rng.normal(size=(3, elements)), rng.normal(size=(n_tasks, elements))
    signal = 0.4 * base + common[group] + own
    noise, scale = 10 ** rng.uniform(0, 1.2, (n_tasks, 1)), 10 ** rng.uniform(-3, 3, (n_tasks, 1))
    rows = [scale * (signal + noise * rng.normal(size=signal.shape)) for _ in range(steps)]
    i, j = np.triu_indices(n_tasks, 1)
    return rows, (i, j), group[i] == group[j]


@both
def test_planted_relations_are_recovered(cls):
    found, raw = [], []
    for seed in range(4):
        rows, pairs, related = simulated(seed)
        run = Drive(cls(len(rows[0])), rows[0].shape[1])
        for jacobian in rows:
            run.step(jacobian)
        units = [r / np.linalg.norm(r, axis=1, keepdims=True) for r in rows]
        found.append(auc(run.strategy.relations()[pairs], related))
        raw.append(auc(np.mean([u @ u.T for u in units], 0)[pairs], related))
    assert min(found) >= 0.9
    assert (np.array(found) > raw).sum() >= 2
    assert np.mean(found) > np.mean(raw) + 0.02


@both
@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1e6])
def test_scale_of_the_losses(cls, scale):
    runs = [Drive(cls(3), 6) for _ in range(2)]
    for seed in range(6):
        jacobian = np.random.default_rng(seed).normal(size=(3, 6))
        plain, scaled = runs[0].step(jacobian), runs[1].step(scale * jacobian)
        assert scaled == pytest.approx(scale * plain, rel=1e-4, abs=1e-5 * scale)
    relations = [run.strategy.relations() for run in runs]
    assert relations[0] == pytest.approx(relations[1], abs=1e-5)


@both
def test_scale_of_one_loss_only_changes_the_length(cls):
    runs = [Drive(cls(3), 6) for _ in range(2)]
    for seed in range(6):
        jacobian = np.random.default_rng(seed).normal(size=(3, 6))
        plain, scaled = runs[0].step(jacobian), runs[1].step(np.array([[1], [1e4], [1]]) * jacobian)
        unit = [d / np.linalg.norm(d) for d in (plain, scaled)]
        assert unit[0] == pytest.approx(unit[1], abs=1e-4)


@both
def test_absent_task_is_left_alone(cls):
    run, rng = Drive(cls(3), 5), np.random.default_rng(0)
    for _ in range(4):
        run.step(rng.normal(size=(3, 5)))
    before = {k: v.clone() for k, v in run.strategy.state_dict().items()} | {"key": run.key.clone()}
    run.step(rng.normal(size=(2, 5)), np.array([0, 2]))
    after = run.strategy.state_dict() | {"key": run.key}
    for name in before:
        if before[name].dim():
            assert torch.equal(before[name][1], after[name][1])
            assert not torch.equal(before[name], after[name])
    assert run.weights.shape == (2,)


@both
@pytest.mark.parametrize("n_tasks", [1, 2, 5])
def test_relations_of_degenerate_gradients(cls, n_tasks):
    rank_one = np.outer(np.arange(1.0, n_tasks + 1), [1.0, -2.0, 0.5])
    opposed = rank_one * np.where(np.arange(n_tasks) % 2, -1, 1)[:, None]
    last_is_zero = (
        np.random.default_rng(0).normal(size=(n_tasks, 3)) * (np.arange(n_tasks) < n_tasks - 1)[:, None]
    )
    run = Drive(cls(n_tasks), 3)
    for jacobian in (np.zeros((n_tasks, 3)), last_is_zero, rank_one, opposed, np.zeros((n_tasks, 3))):
        assert np.isfinite(run.step(jacobian)).all()
        assert np.isfinite(run.weights).all() and (run.weights >= 0).all()
        relations = run.strategy.relations()
        assert relations.shape == (n_tasks, n_tasks)
        assert (relations == relations.T).all() and (np.diag(relations) == 1).all()
        assert np.abs(relations).max() <= 1
    assert run.weights.sum() == 0


@both
def test_opposed_tasks_are_opposed(cls):
    """Signals g and -g, with noise, and a third task of its own."""
    rng, run = np.random.default_rng(0), Drive(cls(3), 300)
    signal = rng.normal(size=(2, 300))[[0, 0, 1]] * np.array([[1], [-1], [1]])
    for _ in range(60):
        run.step(signal + rng.normal(size=(3, 300)))
    relations = run.strategy.relations()
    assert relations[0, 1] < -0.8
    assert np.abs(relations[:2, 2]).max() < 0.2


@both
def test_through_the_balancer_and_resumed(cls, tmp_path):
    """Twice the same seed, once stopped, saved, and loaded elsewhere: the same bits."""

    def train(balancer, model, optimizer, seeds):
        for seed in seeds:
            optimizer.zero_grad()
            only = None if seed % 3 else (0, 1, 3)
            balancer(losses_of(model, batch(seed=seed), only)).backward()
            optimizer.step()

    def fresh():
        model = toy(4)
        return Balancer(cls, tasks=names(4), model=model), model, torch.optim.SGD(model.parameters(), lr=0.01)

    whole, part, resumed = fresh(), fresh(), fresh()
    train(*whole, range(10))
    train(*part, range(6))
    torch.save([part[0].state_dict(), part[1].state_dict()], tmp_path / "state.pt")
    state, weights = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed[0].load_state_dict(state)
    resumed[1].load_state_dict(weights)
    train(*resumed, range(6, 10))
    relations = whole[0].strategy.relations()
    assert (resumed[0].strategy.relations() == relations).all()
    assert np.abs(relations - np.eye(4)).max() > 0.02
    pairs = zip(whole[1].parameters(), resumed[1].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert (whole[0].strategy.count[2] == torch.tensor([6, 6, 6, 6])).all()


@pytest.mark.parametrize(
    ("cls", "hyperparameters", "message"),
    [
        (Variational, {"decay": 1.0}, "decay should be at least 0 and below 1, found 1.0"),
        (Variational, {"pull": 0}, "pull should be above 0 and at most 1, found 0"),
        (Variational, {"pull": 1.0}, "pull should be at least 0 and below 1, found 1.0"),
        (Contrastive, {"decay": -0.1}, "decay should be at least 0 and below 1, found -0.1"),
    ],
)
def test_bad_hyperparameters_are_refused(cls, hyperparameters, message):
    with pytest.raises(ValueError, match=message):
        cls(2, **hyperparameters)
