"""Known answers and declared properties of the Gramian strategies beyond PCGrad and MGDA."""

import math

import numpy as np
import pytest
import torch

from mtlweights import Balancer, strategies

A = ((1, 0), (-0.5, math.sqrt(0.75)))  # unit norms, 120 degrees
B = ((2, 0), (-1, 1))  # unequal norms, 135 degrees
C = ((1, 0), (0, 10))  # orthogonal, 1 to 10
C2 = ((1, 0), (5, 5 * math.sqrt(3)))  # 60 degrees, 1 to 10
D = ((1, 1), (1, 1))  # identical
E = ((1, 0), (-1, 0))  # opposed
E2 = ((1, 0), (-2, 0))
F = ((1, 0), (0, 0))  # one task is done
ROOT3 = math.sqrt(3)


def make(name, n_tasks, **hyperparameters):
    return strategies.get(name)(n_tasks, **hyperparameters)


def weigh(name, jacobian, losses=None, **hyperparameters):
    jacobian = np.asarray(jacobian, dtype=np.float64)
    losses = np.ones(len(jacobian)) if losses is None else np.asarray(losses, dtype=np.float64)
    weights = make(name, len(jacobian), **hyperparameters).weights(
        jacobian @ jacobian.T, losses, np.arange(len(losses))
    )
    return weights[0] if isinstance(weights, tuple) else weights


def direction(name, jacobian, losses=None, **hyperparameters):
    return weigh(name, jacobian, losses, **hyperparameters) @ np.asarray(jacobian, dtype=np.float64)


KNOWN = [
    ("cagrad", {}, A, (0.375, 0.649519)),
    ("cagrad", {}, B, (0.25, 0.75)),
    ("cagrad", {}, C, (3.012469, 5.0)),
    ("cagrad", {"rescale": "1+c^2"}, A, (0.3, 0.519615)),
    ("cagrad", {"rescale": "1+c^2"}, B, (0.2, 0.6)),
    ("cagrad", {"rescale": "1+c"}, A, (0.25, 0.433013)),
    ("cagrad", {"rescale": "1+c"}, B, (1 / 6, 0.5)),
    ("cagrad", {}, E2, (-0.25, 0)),  # keeps moving: the mean is not stationary
    ("cagrad", {"c": 0.0}, B, (0.5, 0.5)),
    ("imtl_g", {}, A, (0.25, 0.433013)),
    ("imtl_g", {}, B, (0.242641, 0.585786)),
    ("imtl_g", {}, C, (10 / 11, 10 / 11)),
    ("imtl_g", {}, C2, (1.363636, 0.787296)),
    ("imtl_g", {}, D, (1, 1)),
    ("imtl_g", {}, E2, (0, 0)),
    ("imtl", {}, B, (0.242641, 0.585786)),  # s = 0
    ("config", {}, A, (0.5, 0.866025)),
    ("config", {}, B, (0.5, 1.207107)),
    ("config", {}, C, (5.5, 5.5)),
    ("config", {}, C2, (8.25, 4.763140)),
    ("config", {}, E2, (0, 0)),
    ("nash_mtl", {}, A, (0.707107, 1.224745)),
    ("nash_mtl", {}, B, (0.541196, 1.306563)),
    ("nash_mtl", {}, C, (1, 1)),
    ("nash_mtl", {}, C2, (1.224745, 0.707107)),
    ("nash_mtl", {}, D, (1, 1)),
    ("fairgrad", {"alpha": 1.0}, B, (0.541196, 1.306563)),
    ("fairgrad", {}, A, (0.793701, 1.374730)),
    ("fairgrad", {}, C, (1, 0.464159)),
    ("aligned_mtl", {}, A, (0.5, 0.866025)),
    ("aligned_mtl", {}, B, (0.552786, 1.105573)),
    ("aligned_mtl", {}, C, (1, 1)),
    ("aligned_mtl", {"preference": [0.5, 0.5]}, A, (0.25, 0.433013)),
    ("aligned_mtl", {"preference": [0.5, 0.5]}, B, (0.276393, 0.552786)),
    ("aligned_mtl", {"preference": [0.5, 0.5], "scale": "rmse"}, A, (0.353553, 0.612372)),
    ("aligned_mtl", {"preference": [0.5, 0.5], "scale": "rmse"}, B, (0.547723, 1.095445)),
    ("aligned_mtl", {"preference": [0.5, 0.5], "scale": "rmse"}, C, (3.553168, 3.553168)),
    ("aligned_mtl", {"preference": [0.5, 0.5]}, E2, (-0.5, 0)),
    ("upgrad", {}, A, (0.375, 0.649519)),
    ("upgrad", {}, B, (0.5, 1)),
    ("upgrad", {}, C, (0.5, 5)),
    ("upgrad", {}, C2, (3, 4.330127)),
    ("upgrad", {}, E2, (0, 0)),
    ("dualproj", {}, A, (0.25, 0.433013)),
    ("dualproj", {}, B, (0.5, 0.5)),
    ("dualproj", {}, C, (0.5, 5)),
    ("dualproj", {}, C2, (3, 4.330127)),
    ("dualproj", {}, E2, (0, 0)),
    ("gradvac", {}, A, (0.75, 1.299038)),  # the first step is PCGrad's
    ("gradvac", {}, B, (1, 2)),
    ("gradvac", {}, C2, (6, 8.660254)),
]


@pytest.mark.parametrize(("name", "hyperparameters", "jacobian", "expected"), KNOWN)
def test_known_directions(name, hyperparameters, jacobian, expected):
    assert direction(name, jacobian, **hyperparameters) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    ("name", "hyperparameters", "jacobian", "expected"),
    [
        ("nash_mtl", {}, A, (math.sqrt(2), math.sqrt(2))),
        ("nash_mtl", {}, B, (0.923880, 1.306563)),
        ("nash_mtl", {}, C, (1, 0.1)),
        ("nash_mtl", {}, D, (0.5, 0.5)),
        ("fairgrad", {}, C, (1, 0.0464159)),
    ],
)
def test_known_weights(name, hyperparameters, jacobian, expected):
    assert weigh(name, jacobian, **hyperparameters) == pytest.approx(expected, abs=1e-6)


def test_fairgrad_of_case_b_to_four_digits():
    assert direction("fairgrad", B) == pytest.approx((0.5151, 1.3696), abs=5e-5)


def pairs(n=200, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        yield rng.normal(size=(2, 4)) * 10.0 ** rng.uniform(-2, 2, size=(2, 1))


def test_bisector_family_in_closed_form():
    """IMTL-G, ConFIG and Nash-MTL follow u_1 + u_2 for T = 2, at harmonic, arithmetic and constant length."""
    for g in pairs():
        n = np.linalg.norm(g, axis=1)
        both = g[0] / n[0] + g[1] / n[1]
        cosine = g[0] @ g[1] / n.prod()
        assert direction("imtl_g", g) == pytest.approx(n.prod() / n.sum() * both, rel=1e-9)
        assert direction("config", g) == pytest.approx(n.sum() / 2 * both, rel=1e-9)
        assert direction("nash_mtl", g) == pytest.approx(both / math.sqrt(1 + cosine), rel=1e-9)


def test_cagrad_of_two_meets_a_fine_grid():
    x = np.linspace(0, 1, 20001)
    for g in pairs(60):
        mean = g.mean(axis=0)
        for c in (0.2, 0.5, 0.9):
            d = direction("cagrad", g, c=c)
            combined = np.outer(x, g[0]) + np.outer(1 - x, g[1])
            best = (combined @ mean + c * np.linalg.norm(mean) * np.linalg.norm(combined, axis=1)).min()
            assert np.linalg.norm(d - mean) == pytest.approx(c * np.linalg.norm(mean), rel=1e-9)
            size = np.abs(g @ mean).max()
            assert -1e-9 * size <= best - (g @ d).min() <= 1e-6 * size


def test_aligned_mtl_of_two_equal_norms():
    for g in pairs():
        g = g / np.linalg.norm(g, axis=1, keepdims=True)
        cosine, mean = g[0] @ g[1], g.mean(axis=0)
        length = 1 if cosine < 0 else math.sqrt((1 - cosine) / (1 + cosine))
        assert direction("aligned_mtl", g, preference=[0.5, 0.5]) == pytest.approx(length * mean, rel=1e-7)


def test_cones_of_two_in_closed_form():
    for g in pairs():
        half = direction("pcgrad", g) / 2
        assert direction("upgrad", g) == pytest.approx(half, rel=1e-9)
        mean = g.mean(axis=0)
        worst = int((g @ mean).argmin())
        shortfall = min(g[worst] @ mean, 0) / (g[worst] @ g[worst])
        assert direction("dualproj", g) == pytest.approx(mean - shortfall * g[worst], rel=1e-9)


def test_fairgrad_of_orthogonal_gradients():
    norms = np.array([1e-3, 0.1, 1.0, 40.0])
    for alpha in (0.2, 0.5, 1.0, 2.0, 10.0):
        expected = norms ** (-2 * alpha / (alpha + 1))
        assert weigh("fairgrad", np.diag(norms), alpha=alpha) == pytest.approx(expected, rel=1e-9)
        assert weigh("fairgrad", np.diag(norms[:2]), alpha=alpha) == pytest.approx(expected[:2], rel=1e-9)


def test_imtl_g_never_ascends_where_the_published_formula_does():
    """Sum-to-one weights (-1.733, 10.723, -7.990) have all projections at -0.1049."""
    jacobian = np.array([[-3.0, -3, 2], [-2, 1, 1], [-2, 2, 1]])
    assert weigh("imtl_g", jacobian) == pytest.approx([1.733, -10.723, 7.990], abs=1e-3)
    projections = jacobian @ direction("imtl_g", jacobian) / np.linalg.norm(jacobian, axis=1)
    assert projections == pytest.approx([0.1049] * 3, abs=1e-4)


@pytest.mark.parametrize("n_tasks", [3, 5, 8])
def test_imtl_g_and_config_treat_all_gradients_alike(n_tasks):
    rng = np.random.default_rng(n_tasks)
    for _ in range(40):
        g = rng.normal(size=(n_tasks, n_tasks + 3)) * 10.0 ** rng.uniform(-1, 1, size=(n_tasks, 1))
        unit = g / np.linalg.norm(g, axis=1, keepdims=True)
        for name in ("imtl_g", "config"):
            d = direction(name, g)
            assert unit @ d == pytest.approx([(unit @ d).mean()] * n_tasks, rel=1e-6)
            assert (unit @ d).min() > 0
        assert abs(weigh("imtl_g", g).sum()) == pytest.approx(1)
        d = direction("config", g)
        assert np.linalg.norm(d) == pytest.approx((g @ d).sum() / np.linalg.norm(d))


def test_imtl_learns_loss_scales_and_combines_scaled_gradients():
    strategy = make("imtl", 3)
    gram, losses = np.diag([1.0, 4.0, 9.0]), np.array([0.5, 2.0, 8.0])
    strategy.weights(gram, losses, np.arange(len(losses)))
    assert strategy.s.grad.tolist() == [-0.5, 1, 7]
    strategy.s.data = torch.tensor([0.0, math.log(0.5), math.log(0.125)], dtype=torch.float64)
    trunk, heads = strategy.weights(gram[1:, 1:], losses[1:], np.array([1, 2]))
    assert heads == pytest.approx([0.5, 0.125])
    assert strategy.s.grad.tolist() == pytest.approx([0, 0, 0])
    # Scaled norms 1 and 3/8, so a = (3/11, 8/11).
    assert trunk == pytest.approx([0.5 * 3 / 11, 0.125 * 8 / 11])


def test_gradvac_second_step():
    """Case A: the averages are -0.25 after the first step, and become the cosines of the second."""
    strategy = make("gradvac", 2, beta=0.5)
    jacobian = np.array(A)
    gram = jacobian @ jacobian.T
    strategy.weights(gram, np.ones(2), np.arange(2))
    assert strategy.target.tolist() == pytest.approx(np.array([[0, -0.25], [-0.25, 0]]))
    weights = strategy.weights(gram, np.ones(2), np.arange(2))
    assert weights == pytest.approx([1.276393, 1.276393], abs=1e-6)
    corrected = jacobian[0] + 0.276393 * jacobian[1]
    assert corrected == pytest.approx([0.861803, 0.239364], abs=1e-6)
    assert corrected @ jacobian[1] / np.linalg.norm(corrected) == pytest.approx(-0.25, abs=1e-6)
    assert strategy.target[0, 1].item() == pytest.approx(-0.375)


def vaccinated(jacobian, target, orders, beta):
    """GradVac on the gradients themselves, as the paper writes it."""
    total, target = np.zeros(jacobian.shape[1]), target.copy()
    for i, order in enumerate(orders):
        p = jacobian[i].copy()
        for j in order:
            cosine = p @ jacobian[j] / np.linalg.norm(p) / np.linalg.norm(jacobian[j])
            t = target[i, j]
            if cosine < t:
                gain = t * math.sqrt(1 - cosine**2) - cosine * math.sqrt(1 - t**2)
                size = np.linalg.norm(p) / np.linalg.norm(jacobian[j]) / math.sqrt(1 - t**2)
                p += size * gain * jacobian[j]
            target[i, j] = (1 - beta) * t + beta * cosine
        total += p
    return total, target


@pytest.mark.parametrize("n_tasks", [2, 3, 8])
def test_gradvac_equals_vaccination_of_the_gradients(n_tasks):
    from mtlweights.strategies.gram.pcgrad import random_orders

    rng = np.random.default_rng(n_tasks)
    strategy, target = make("gradvac", n_tasks, beta=0.3), np.zeros((n_tasks, n_tasks))
    common = rng.normal(size=12)
    for step in range(6):
        strategy.step.fill_(step)
        jacobian = rng.normal(size=(n_tasks, 12)) + common * (step % 3)
        weights = strategy.weights(jacobian @ jacobian.T, np.ones(n_tasks), np.arange(n_tasks))
        expected, target = vaccinated(jacobian, target, random_orders(n_tasks, 0, step), 0.3)
        assert weights @ jacobian == pytest.approx(expected, rel=1e-9)
        assert strategy.target.numpy() == pytest.approx(target, abs=1e-12)


def test_krum():
    jacobian = [[1, 0], [1.2, 0], [0.8, 0.1], [1, 0.3], [-50, 30]]
    assert weigh("krum", jacobian, n_byzantine=1).tolist() == [1, 0, 0, 0, 0]  # .04 + .05, next .05 + .08
    selected = weigh("krum", jacobian, n_byzantine=1, n_selected=4)
    assert selected == pytest.approx([0.25, 0.25, 0.25, 0.25, 0])
    assert weigh("krum", np.ones((4, 2))) == pytest.approx([0.25] * 4)
    # To their two nearest: .01 + 25 for the first, 9 + 9 for the third; unsquared, 5.1 and 6.
    spread = [[0, 0], [0, 0.1], [5, 0], [8, 0], [5, 3]]
    assert weigh("krum", spread, n_byzantine=1).tolist() == [0, 0, 1, 0, 0]


def test_random_gradient_weighting_draws_once_per_step():
    strategy = make("random_grad", 3)
    draws = []
    for step in range(500):
        strategy.step.fill_(step)
        draws.append(strategy.weights(np.eye(3), np.ones(3), np.arange(3)))
        assert (draws[-1] == strategy.weights(np.eye(3), np.ones(3), np.arange(3))).all()
    logs = np.log(draws)
    contrast = logs[:, 0] - logs[:, 1]  # a difference of two standard normals
    assert abs(contrast.mean()) < 0.2
    assert contrast.std() == pytest.approx(math.sqrt(2), rel=0.1)
    part = strategy.weights(np.eye(2), np.ones(2), np.array([0, 2]))
    assert part[0] / part[1] == pytest.approx(draws[-1][0] / draws[-1][2])


def test_pcd_of_two_in_closed_form():
    for g in pairs():
        unit = g / np.linalg.norm(g, axis=1, keepdims=True)  # the averages of a first step
        short = max(0.3 - unit[0] @ unit[1], 0)
        d = unit[0] + short * unit[1]
        d *= np.linalg.norm(g[0]) / np.linalg.norm(d)
        assert direction("pcd", g, tau=0.3) == pytest.approx(d, rel=1e-9)


def test_pcd_normalises_by_a_corrected_moving_average():
    strategy = make("pcd", 2, primary=1, tau=0.5, beta=0.5)
    strategy.weights(np.diag([4.0, 1.0]), np.ones(2), np.arange(2))
    weights = strategy.weights(np.diag([1.0, 9.0]), np.ones(2), np.arange(2))
    v = np.array([(0.25 * 4 + 0.5 * 1) / 0.75, (0.25 * 1 + 0.5 * 9) / 0.75])
    d = np.array([0.5 * math.sqrt(1 / v[0]), 3 / math.sqrt(v[1])])  # orthogonal: n_2 + tau n_1
    d *= 3 / np.linalg.norm(d)
    assert weights * np.array([1, 3]) == pytest.approx(d)


def test_pcd_special_cases():
    opposed = [[1, 1], [0, 1], [0, -1]]
    assert weigh("pcd", opposed).tolist() == [1, 0, 0]  # the conditions exclude each other
    assert weigh("pcd", [[0, 0], [1, 0]]).tolist() == [0, 0]
    assert direction("pcd", E, tau=0.0) == pytest.approx([0, 0], abs=1e-12)
    strategy = make("pcd", 3)
    assert strategy.weights(np.eye(2), np.ones(2), np.array([1, 2])).tolist() == [1, 1]  # no primary


@pytest.mark.parametrize("n_tasks", [3, 6, 12])
def test_pcd_keeps_its_promise_with_the_least_change(n_tasks):
    rng = np.random.default_rng(n_tasks)
    for _ in range(30):
        g = rng.normal(size=(n_tasks, 30)) * 10.0 ** rng.uniform(-1, 1, size=(n_tasks, 1))
        weights = weigh("pcd", g, tau=0.4)
        unit = g / np.linalg.norm(g, axis=1, keepdims=True)
        multipliers = weights * np.linalg.norm(g, axis=1)
        multipliers = multipliers / multipliers[0]
        progress = (unit @ (multipliers @ unit))[1:]
        assert (progress >= 0.4 - 1e-9).all()
        assert np.abs(progress - 0.4)[multipliers[1:] > 0] == pytest.approx(0, abs=1e-9)
        assert np.linalg.norm(weights @ g) == pytest.approx(np.linalg.norm(g[0]))


def epo_programme(g, losses, r):
    """EPO's two linear programmes for two tasks, by a fine grid on the simplex."""
    gram, t = g @ g.T, len(r)
    share = r * losses / (r * losses).sum()
    mu = (share * np.log(t * share)).sum()
    pull = gram @ (r * (np.log(t * share) - mu))
    x = np.linspace(0, 1, 200001)
    b = np.stack([x, 1 - x])
    progress = gram @ b
    if mu <= 1e-4:
        feasible = (progress >= 0).all(0) & (
            pull @ b >= min(pull.max(), 0) - 1e-12
        )  # pull may be all rounding
        gain = progress.sum(0)
    else:
        worst = r * losses == (r * losses).max()
        bound = np.where(worst, 0, np.where(pull > 0, -np.inf, pull)) if (pull > 0).any() else np.zeros(2)
        feasible, gain = (progress >= bound[:, None]).all(0), pull @ b
    return x[feasible][gain[feasible].argmax()] if feasible.any() else None


def test_epo_of_two_meets_a_fine_grid():
    rng = np.random.default_rng(0)
    solved = 0
    for g in pairs(150):
        g = g / np.linalg.norm(g, axis=1, keepdims=True) * rng.uniform(0.5, 2, size=(2, 1))
        r = rng.uniform(0.2, 2, 2)
        losses = 1 / r if rng.random() < 0.3 else rng.uniform(0.2, 2, 2)
        share = epo_programme(g, losses, r)
        expected = [r[0] / r.sum(), r[1] / r.sum()] if share is None else [share, 1 - share]
        solved += share is not None
        assert weigh("epo", g, losses, preference=r.tolist()) == pytest.approx(
            2 * np.array(expected), abs=3e-5
        )
    assert solved > 100


def test_epo_of_more_tasks_extends_that_of_two():
    """A third task with a gradient of its own, a middling loss: HiGHS must find what the grid finds."""
    g = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    weights = weigh("epo", g, [3.0, 1.0, 1.0])
    assert weights == pytest.approx([3, 0, 0], abs=1e-6)  # all on the task that is behind
    assert weigh("epo", g, [1.0, 1.0, 1.0]).sum() == pytest.approx(3)


def test_epo_reaches_the_wanted_proportion():
    """Two quadratic losses in the plane: at the end r_1 l_1 = r_2 l_2, on the Pareto front."""
    goals = np.array([[1.0, 0.0], [-1.0, 0.0]])
    for r in ([1.0, 1.0], [1.0, 4.0], [9.0, 1.0]):
        strategy, x = make("epo", 2, preference=r), np.array([0.3, 0.9])
        for _ in range(4000):
            g = x - goals
            losses = (g * g).sum(axis=1) / 2
            x = x - 0.01 * strategy.weights(g @ g.T, losses, np.arange(len(losses))) @ g
        assert r[0] * losses[0] == pytest.approx(r[1] * losses[1], rel=0.05)
        assert x[1] == pytest.approx(0, abs=0.02)


def test_epo_takes_rounding_below_zero_for_zero():
    assert weigh("epo", np.eye(2), [1.0, -1e-9]) == pytest.approx(weigh("epo", np.eye(2), [1.0, 0.0]))


# declared properties, over Gramians of every rank and scale

DESCENDS = ["mgda", "upgrad", "dualproj", "nash_mtl", "fairgrad"]
STATIONARY = ["mgda", "upgrad", "dualproj", "nash_mtl", "fairgrad"]
DETERMINISTIC = ["cagrad", "imtl_g", "config", "aligned_mtl", "krum", *DESCENDS]
FAMILY = [n for n in strategies.names() if issubclass(strategies.get(n), strategies.GramStrategy)]
FAMILY = [n for n in FAMILY if strategies.get(n).batches == 1]


def jacobians(n_tasks, seed, scales=(1e-6, 1.0, 1e6)):
    rng = np.random.default_rng(seed)
    for rank in {1, 2, max(1, n_tasks // 2), n_tasks, n_tasks + 5}:
        for scale in scales:
            yield scale * rng.normal(size=(n_tasks, rank))
            yield scale * rng.normal(size=(n_tasks, rank)) * 10.0 ** rng.uniform(-1, 1, size=(n_tasks, 1))


@pytest.mark.parametrize("n_tasks", [1, 2, 3, 8, 40])
@pytest.mark.parametrize("name", FAMILY)
def test_always_finite(name, n_tasks):
    for jacobian in jacobians(n_tasks, 0):
        with np.errstate(over="raise", divide="raise", invalid="raise"):
            weights = weigh(name, jacobian)
        assert np.isfinite(weights).all()


@pytest.mark.parametrize("n_tasks", [2, 3, 8, 40])
@pytest.mark.parametrize("name", DESCENDS)
def test_no_loss_rises(name, n_tasks):
    for jacobian in jacobians(n_tasks, 1):
        weights = weigh(name, jacobian)
        norms = np.linalg.norm(jacobian, axis=1)
        rounding = 1e-10 * norms * (np.abs(weights) @ norms)
        assert (jacobian @ (weights @ jacobian) >= -rounding).all()


@pytest.mark.parametrize("name", STATIONARY)
@pytest.mark.parametrize("n_tasks", [2, 3, 8])
def test_zero_at_pareto_stationary_points(name, n_tasks):
    """Where a positive combination of the gradients is zero."""
    rng = np.random.default_rng(n_tasks)
    for scale in (1e-6, 1.0, 1e6):
        jacobian = rng.normal(size=(n_tasks, 6))
        jacobian[-1] = -rng.uniform(0.2, 2, n_tasks - 1) @ jacobian[:-1]
        weights = weigh(name, scale * jacobian)
        size = np.abs(weights) @ np.linalg.norm(jacobian, axis=1)
        assert np.linalg.norm(weights @ jacobian) <= 2e-6 * size


@pytest.mark.parametrize("n_tasks", [3, 8])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_order_of_tasks_does_not_matter(name, n_tasks):
    rng = np.random.default_rng(2)
    for jacobian in jacobians(n_tasks, 2, scales=(1.0,)):
        if jacobian.shape[1] < n_tasks:
            continue  # weights are not unique there
        order = rng.permutation(n_tasks)
        assert weigh(name, jacobian[order]) == pytest.approx(weigh(name, jacobian)[order], rel=1e-5, abs=1e-9)


def test_upgrad_is_linear_in_the_scales():
    rng = np.random.default_rng(3)
    jacobian, one, two = rng.normal(size=(5, 9)), rng.uniform(0.1, 10, 5), rng.uniform(0.1, 10, 5)
    first, second = (direction("upgrad", s[:, None] * jacobian) for s in (one, two))
    both = direction("upgrad", (2 * one + 3 * two)[:, None] * jacobian)
    assert both == pytest.approx(2 * first + 3 * second, rel=1e-9)


@pytest.mark.parametrize("name", ["nash_mtl", "imtl_g", "config"])
def test_direction_ignores_the_scale_of_each_task(name):
    rng = np.random.default_rng(4)
    jacobian, scales = rng.normal(size=(4, 7)), 10.0 ** rng.uniform(-3, 3, 4)
    one, two = direction(name, jacobian), direction(name, scales[:, None] * jacobian)
    if name == "nash_mtl":
        assert two == pytest.approx(one, rel=1e-6)
    assert two / np.linalg.norm(two) == pytest.approx(one / np.linalg.norm(one), abs=1e-6)


@pytest.mark.parametrize("n_tasks", [2, 3, 8, 40])
def test_nash_mtl_has_length_root_t_and_bargains(n_tasks):
    for jacobian in jacobians(n_tasks, 5):
        if jacobian.shape[1] > n_tasks:
            weights = weigh("nash_mtl", jacobian)
            assert weights * (jacobian @ (weights @ jacobian)) == pytest.approx(np.ones(n_tasks), rel=1e-6)
            assert np.linalg.norm(weights @ jacobian) == pytest.approx(math.sqrt(n_tasks), rel=1e-6)


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
def test_aligned_gradients_have_one_singular_value(scale):
    rng = np.random.default_rng(6)
    jacobian = rng.normal(size=(4, 9)) * 10.0 ** rng.uniform(-1, 1, size=(4, 1))
    aligned = np.array([direction("aligned_mtl", jacobian, scale=scale, preference=row) for row in np.eye(4)])
    values = np.linalg.svd(jacobian, compute_uv=False) ** 2
    wanted = {"min": values.min(), "median": np.median(values), "rmse": values.mean()}[scale]
    assert np.linalg.svd(aligned, compute_uv=False) ** 2 == pytest.approx([wanted] * 4)


def test_aligned_mtl_weighs_the_preferences_of_those_present():
    strategy = make("aligned_mtl", 3, preference=[1.0, 2.0, 5.0])
    assert strategy.weights(np.eye(2), np.ones(2), np.array([2, 0])).tolist() == pytest.approx([5, 1])


def test_fairgrad_leaves_heads_their_plain_gradient():
    """As its authors' code. With trunk gradients next to opposed the weights are far above 1."""
    trunk = torch.tensor([1.0, 0.0], requires_grad=True)
    one, two = (torch.tensor(s, requires_grad=True) for s in (1.0, -1.0))
    balancer = Balancer("fairgrad", ["a", "b"])
    balancer({"a": one * (trunk[0] + 0.01 * trunk[1]), "b": two * trunk[0]}).backward()
    assert min(w.item() for w in balancer.weights.values()) > 10
    assert (one.grad.item(), two.grad.item()) == (1, 1)
