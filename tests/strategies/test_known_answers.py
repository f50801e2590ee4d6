"""Every strategy of the registry against a figure that does not come from our code.

A figure is worked out by hand, follows from a closed form, was measured on public code, or is found by an
optimiser or an integral that is written here. Every such figure stands once: what the files of single
strategies have beside it are properties and cases by hand.
"""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, optimize

from mtlweights import strategies
from mtlweights.strategies import registry
from tests.strategies.helpers import C2, E2, LOSSES, NAN, A, B, C, D, E, F, direction, make, weigh, weights_of

ROOT2 = math.sqrt(2)


# what is asked of a strategy: each of these makes a function of a fresh one


def weights(losses=LOSSES):
    """The weights of the losses, by differentiation."""

    def ask(strategy):
        point = torch.tensor(losses, requires_grad=True)
        return weights_of(strategy.combine(point), point)

    return ask


def value(strategy):
    return strategy.combine(torch.tensor(LOSSES)).item()


def after(*batches, then, epochs=False, scores=None):
    """``then`` after training on these batches of losses; each an epoch of its own if ``epochs``."""

    def ask(strategy):
        for losses in batches:
            strategy.combine(torch.tensor(losses))
            if epochs:
                strategy.end_epoch(np.array(losses), None)
        if scores is not None:
            strategy.end_epoch(np.full(len(scores), NAN), np.array(scores))
        return then(strategy)

    return ask


def on(rows, losses=None, steps=1):
    """The direction on a constant Jacobian, at the last of some steps."""

    def ask(strategy):
        for _ in range(steps):
            found = direction(strategy, rows, losses)
            strategy.step += 1
        return found

    return ask


def in_three_batches(rows, steps=1):
    """The weights of the third of three equal batches."""

    def ask(strategy):
        stacked = np.vstack([rows] * 3).astype(float)
        for _ in range(steps):
            trunk, heads = strategy.weights(stacked @ stacked.T, np.ones(len(rows)), np.arange(len(rows)))
        assert heads == pytest.approx([1 / 3] * len(stacked))
        assert not trunk[: 2 * len(rows)].any()
        return trunk[2 * len(rows) :]

    return ask


def gradient(given, name):
    """What is left in the gradient of a learned weight."""

    def ask(strategy):
        given(strategy)
        return getattr(strategy, name).grad.tolist()

    return ask


def second_moment(strategy):
    """Of the first of two weights, over 1,500 steps."""
    squares = []
    for step in range(1500):
        strategy.step.fill_(step)
        gram = isinstance(strategy, strategies.GramStrategy)
        found = (
            strategy.weights(np.eye(2), np.ones(2), np.arange(2)) if gram else weights((1.0, 1.0))(strategy)
        )
        squares.append(found[0] ** 2)
    return np.mean(squares)


def mean_direction(rows):
    """Over 1,500 steps."""

    def ask(strategy):
        return np.mean([on(rows)(strategy) for _ in range(1500)], axis=0)

    return ask


def gradnorm_step(strategy):
    """One step of plain descent at 0.025, after losses that were all 1."""
    strategy.weights(np.eye(2), np.ones(2), np.arange(2))
    strategy.weights(np.diag([4.0, 1.0]), np.array([0.5, 1.0]), np.arange(2))
    with torch.no_grad():
        strategy.w -= 0.025 * strategy.w.grad
    strategy.project(torch.ones(2, dtype=torch.bool))
    return strategy.weights(np.eye(2), np.ones(2), np.arange(2))


def hypergradient(strategy):
    """Two task losses and one validation loss, linear in theta: rows g_1, g_2 and the validation row."""
    rows = np.array([[1.0, 0], [0, 2], [3, 1]])
    strategy.weights(rows @ rows.T, np.array([1.0, 1, 7]), np.arange(2))
    return strategy.w.grad.tolist()


# where a figure is found here


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def sigmoid_moment():
    """E[s(x)^2] for x ~ N(0, 2), s the sigmoid: a softmax of two standard normals."""
    density = lambda x: math.exp(-x * x / 4) / math.sqrt(4 * math.pi) / (1 + math.exp(-x)) ** 2  # noqa: E731
    return integrate.quad(density, -30, 30)[0]


FIVE = np.random.default_rng(5).normal(size=(5, 8))


def least(objective, n=5):
    """The minimiser over the simplex, by SLSQP from its middle."""
    simplex = {"type": "eq", "fun": lambda w: w.sum() - 1}
    found = optimize.minimize(
        objective, np.full(n, 1 / n), bounds=[(0, 1)] * n, constraints=[simplex], options={"ftol": 1e-15}
    )
    return found.x


def shortest():
    return least(lambda w: w @ FIVE @ FIVE.T @ w) @ FIVE


def averse():
    mean = FIVE.mean(axis=0)
    radius = 0.5 * np.linalg.norm(mean)
    along = least(lambda w: (w @ FIVE) @ mean + radius * np.linalg.norm(w @ FIVE)) @ FIVE
    return mean + radius * along / np.linalg.norm(along)


def fair(alpha):
    """The root of ``(G w)_i = w_i^(-1/alpha)`` in log w."""
    gram = FIVE @ FIVE.T
    root = optimize.root(lambda x: gram @ np.exp(x) - np.exp(-x / alpha), np.zeros(5), tol=1e-13)
    assert root.success
    return np.exp(root.x) @ FIVE


def projected(vector):
    """On ``{x: FIVE x >= 0}``, by non-negative least squares on the multipliers."""
    return vector + optimize.nnls(FIVE.T, -vector)[0] @ FIVE


def proportion():
    """EPO's programme off balance for losses (3, 1, 1, 1, 1), by linprog."""
    gram, losses = FIVE @ FIVE.T, np.array([3.0, 1, 1, 1, 1])
    share = losses / losses.sum()
    pull = gram @ (np.log(5 * share) - share @ np.log(5 * share))
    bound = np.where(pull > 0, -np.inf, pull)
    bound[0] = 0
    held = np.isfinite(bound)
    found = optimize.linprog(-pull, -gram[held], -bound[held], np.ones((1, 5)), [1], method="highs")
    return 5 * found.x @ FIVE


def conditioned(losses, limits=None):
    """FERERO's programme in d and the maximum, by SLSQP: on the ray of equal losses, or under limits."""
    m, n = FIVE.shape
    losses = np.array(losses)
    rules = [{"type": "ineq", "fun": lambda x: x[-1] - FIVE @ x[:n]}]
    if limits is None:
        equal = np.eye(m - 1, m) - np.eye(m)[-1]
        rules.append({"type": "eq", "fun": lambda x: equal @ (FIVE @ x[:n] + 0.5 * losses)})
    else:
        held = [k for k, limit in enumerate(limits) if limit is not None]
        above = losses[held] - np.array([limits[k] for k in held])
        rules.append({"type": "ineq", "fun": lambda x: -0.5 * above - FIVE[held] @ x[:n]})
    found = optimize.minimize(
        lambda x: x[-1] + x[:n] @ x[:n] / 2, np.zeros(n + 1), constraints=rules, options={"ftol": 1e-15}
    ).x[:n]
    return -found / np.abs(np.linalg.lstsq(FIVE.T, found, rcond=None)[0]).sum()


def sign_counts(rows):
    return np.sign(rows).sum(axis=0)


SIGMOID1 = 1 / (1 + math.exp(-1))
P2 = 1 / (1 + math.exp(-2))
LIMITS = [1.0, None, 1.9, 2.0, None]

# name, tasks, hyperparameters, what is asked, the answer, where it comes from, and its tolerance if not 2e-6
KNOWN = [
    ("equal", 3, {}, weights(), (1, 1, 1), "definition"),
    ("equal", 3, {}, value, 10.5, "definition"),
    ("fixed", 2, {"alpha": 0.3}, weights((1.0, 1.0)), (0.3, 0.7), "definition"),
    ("random", 2, {}, second_moment, sigmoid_moment, "integral of the softmax of two normals", 0.02),
    ("uw", 3, {}, weights(), (0.5, 0.5, 0.5), "paper, equation 7 at sigma = 1"),
    (
        "uw", 3, {"forms": "classification", "init": math.log(2)}, weights(), (0.5, 0.5, 0.5),
        "paper, equation 10",
    ),
    ("uw", 3, {"init": -0.5}, weights(), (0.824361,) * 3, "LibMTL 1.1.5, run"),
    ("uw", 3, {"init": -0.5}, value, 7.905787, "LibMTL's formula, measured"),
    (
        "dwa", 3, {}, after((1.0,) * 3, (0.9, 1.0, 1.1), then=weights((1.0,) * 3), epochs=True),
        (0.950437, 0.999167, 1.050396), "public code of MTAN, measured",
    ),
    ("scale_invariant", 3, {}, weights(), (2, 0.5, 0.125), "1 / l"),
    ("scale_invariant", 3, {}, value, math.log(8), "definition"),
    ("geometric", 3, {}, weights(), (4 / 3, 1 / 3, 1 / 12), "by hand: the mean is 2"),
    ("lbtw", 3, {}, after((1.0,) * 3, then=weights((0.5, 2.0, 2.0))), (0.6, 1.2, 1.2), "by hand"),
    (
        "cov", 2, {}, after((4.0, 1.0), (2.0, 1.0), then=weights((1.0, 1.5))), (1, 0),
        "authors' code, measured",
    ),
    (
        "slaw", 2, {}, after((1.0, 10.0), (1.2, 8.0), then=weights((0.8, 14.0))), (1.877114, 0.122886),
        "authors' code, measured",
    ),
    ("uw_so", 3, {}, weights(), (0.726488, 0.162101, 0.111411), "softmax(2, 1/2, 1/8)"),
    ("ruw", 3, {}, value, 7.329442, "by hand: 10.5 / 2 + 3 log 2"),
    ("imtl_l", 3, {}, value, 10.5, "by hand: the sum at s = 0"),
    ("imtl_l", 3, {}, weights(), (1, 1, 1), "by hand: e^0"),
    ("stch", 3, {}, weights(), (0.022475, 0.037055, 0.273803), "paper's formula, measured on public code"),
    (
        "stch_mtl", 3, {"warmup": 0}, after((1.0, 1.0, 4.0), then=weights(), epochs=True),
        (2 / 3, 2 / 3, 1 / 6),
        "authors' multi-task code, measured",
    ),
    ("go4align", 3, {"groups": 3}, weights(), (7.0021, 1.7503, 0.4373), "authors' code, measured", 1e-4),
    (
        "igb", 3, {"base": 0}, after((4.0, 4.0, 4.0), then=weights((2.0, 8.0, 8.0)), epochs=True),
        3 * softmax(np.array([0.5, 2, 2])) / (2, 8, 8), "authors' formula by hand",
    ),
    ("famo", 3, {}, weights(), (0.761905, 0.190476, 0.047619), "authors' code, measured"),
    (
        "ldc", 3, {"penalty": 0.1}, weights(), 1 / 3 + 0.1 * SIGMOID1 * np.array([-1, 0, 1]),
        "by hand at phi = 1",
    ),
    ("cosmos", 3, {}, value, 2.766200, "paper's formula, measured on TorchJD"),
    ("pbi", 3, {}, value, 34.124608, "paper's formula, measured on TorchJD"),
    (
        "softadapt", 2, {}, after((4.0, 1.0), then=weights((2.0, 1.0))), softmax(np.array([-0.2, 0])),
        "by hand: changes -2 and 0",
    ),
    (
        "relobralo", 2, {"alpha": 0.0}, after((4.0, 1.0), then=weights((2.0, 1.0))),
        2 * softmax(np.array([0.5, 1])), "by hand: ratios 1/2 and 1",
    ),
    ("group_dro", 2, {"eta": 1.0}, weights((1.0, 2.0)), softmax(np.array([1.0, 2])), "by hand, from equal q"),
    ("gradnorm", 2, {}, gradnorm_step, (0.962025, 1.037975), "paper by hand: (.95, 1.025), rescaled"),
    ("norm_balance", 2, {"decay": 0.0}, on(C), (11, 11), "by hand: both at the length 1 + 10"),
    ("ntk", 2, {}, on(C, (1.0, 4.0)), (26, 10.4), "by hand: rates 1/4 and 25/4"),
    ("ntkmtl", 2, {}, on(C), (math.sqrt(101), math.sqrt(101)), "by hand: unit gradients at sqrt(1 + 100)"),
    ("encodec", 2, {"preference": (1, 3)}, on(C), (0.25, 0.75), "paper, equation 5: shares of 1"),
    ("vqgan", 2, {}, on(C), (1, 1), "paper, equation 7: the second at the length of the first"),
    ("pcgrad", 2, {}, on(A), (0.75, 1.299038), "authors' rule, closed form for T = 2"),
    ("pcgrad", 2, {}, on(B), (1, 2), "authors' rule, closed form for T = 2"),
    ("mgda", 2, {}, on(B), (0.2, 0.6), "closed form for T = 2"),
    ("mgda", 5, {}, on(FIVE), shortest, "SLSQP"),
    (
        "gradvac", 2, {"beta": 0.5}, on(A, steps=2), 1.276393 * np.sum(A, axis=0),
        "LibMTL 1.1.5, run for two steps",
    ),
    ("cagrad", 2, {}, on(B), (0.25, 0.75), "public code, measured"),
    ("cagrad", 5, {}, on(FIVE), averse, "SLSQP on the dual"),
    ("imtl_g", 2, {}, on(B), (0.242641, 0.585786), "closed form for T = 2"),
    ("imtl", 2, {}, on(B), (0.242641, 0.585786), "closed form for T = 2 at s = 0"),
    ("imtl", 3, {}, gradient(on(np.eye(3), LOSSES), "s"), (-0.5, 1, 7), "by hand: e^s l - 1 at s = 0"),
    ("nash_mtl", 2, {}, on(B), (0.541196, 1.306563), "closed form for T = 2"),
    ("nash_mtl", 5, {}, on(FIVE), lambda: fair(1.0), "scipy.optimize.root"),
    ("fairgrad", 2, {}, on(A), (2 ** (2 / 3) / 2, 2 ** (2 / 3) * math.sqrt(0.75)), "by hand: w = 2^(2/3)"),
    ("fairgrad", 5, {"alpha": 3.0}, on(FIVE), lambda: fair(3.0), "scipy.optimize.root"),
    ("aligned_mtl", 2, {}, on(B), (0.552786, 1.105573), "authors' rule, measured"),
    ("upgrad", 2, {}, on(B), (0.5, 1), "closed form for T = 2"),
    (
        "upgrad", 5, {}, on(FIVE), lambda: np.mean([projected(g) for g in FIVE], axis=0),
        "five NNLS projections",
    ),
    ("dualproj", 5, {}, on(FIVE), lambda: projected(FIVE.mean(axis=0)), "NNLS projection"),
    ("dualproj", 2, {}, on(((2, 0), (-6, 1))), (0, 0.5), "by hand: the mean less its part against g_1"),
    ("config", 2, {}, on(B), (0.5, 0.5 + 0.5 * ROOT2), "closed form for T = 2"),
    ("epo", 5, {}, on(FIVE, (3.0, 1, 1, 1, 1)), proportion, "scipy.optimize.linprog"),
    (
        "ferero", 5, {}, on(FIVE, (3.0, 1, 2, 1, 0.5)), lambda: conditioned((3.0, 1, 2, 1, 0.5)),
        "the programme in d, by SLSQP", 1e-5,
    ),
    (
        "ferero", 5, {"at_most": LIMITS}, on(FIVE, (3.0, 1, 2, 1, 0.5)),
        lambda: conditioned((3.0, 1, 2, 1, 0.5), LIMITS), "the programme in d, by SLSQP", 1e-5,
    ),
    (
        "pcd", 2, {"tau": 0.5}, on(C), (2 / math.sqrt(5), 1 / math.sqrt(5)),
        "by hand: u_1 + u_2 / 2 at length 1",
    ),
    ("gcs", 2, {}, on(A), (1, 0), "paper: at 120 degrees the auxiliary gradient is dropped"),
    (
        "gradcraft", 2, {"margin": 0.0}, on(B), (0.5, (1 + ROOT2) / 2),
        "by hand: (2, 0) and (-1, 1) sqrt(2), each without its part against the other",
    ),
    ("krum", 4, {}, on([[1, 0], [1.2, 0], [0.8, 0.1], [9, 9]]), (1, 0), "by hand: .04 + .05, next .04 + .17"),
    ("random_grad", 2, {}, second_moment, sigmoid_moment, "integral of the softmax of two normals", 0.02),
    (
        "validation", 2, {}, after(scores=(0.21, 0.84), then=weights((1.0, 1.0))), (32 / 17, 2 / 17),
        "by hand: shortfalls 0.8 and 0.2, squared",
    ),
    (
        "dtp", 2, {"gamma": 0.5}, after(scores=(0.5, 0.9), then=weights((3.0, 3.0))), (0.490129, 0.033318),
        "focal form by hand",
    ),
    (
        "achievement", 2, {}, after(scores=(0.0, 0.84), then=weights((1.0, 1.0))),
        softmax(np.array([1, 0.04])),
        "by hand: shortfalls 1 and 0.2, squared",
    ),
    (
        "pivrg", 2, {}, after(scores=(0.0, 1.0), then=on(((1, 0), (0, 4)))),
        ((4 / 3) ** (1 / 3), 4 * (2 / 3 / 256) ** (1 / 3)), "by hand: w_i |g_i|^2 = (p_i / w_i)^(1/2)",
    ),
    ("auto_lambda", 2, {"eta": 0.1}, hypergradient, (-0.3, -0.2), "by hand: -eta g_i . g_val"),
    ("db_mtl", 2, {}, on(B), (2 - ROOT2, ROOT2), "by hand; LibMTL's is 1 - beta times as long at first"),
    ("lra", 2, {"alpha": 1.0}, on(((4, -1), (1, 0))), (12, -1), "by hand: max 4 over mean 1/2"),
    ("metabalance", 2, {}, on(B), (2 - 1.289949, 1.289949), "authors' code, measured"),
    ("adatask", 5, {"betas": (0.0, 0.0)}, on(FIVE), lambda: sign_counts(FIVE), "Adam without memory: signs"),
    ("m_config", 2, {}, on(B), (1, 1), "algorithm 1, first step: signs of ConFIG"),
    ("running_pcgrad", 2, {}, on(B), (1, 2), "by hand: nothing is remembered yet, so PCGrad"),
    ("moco", 2, {"gamma": 0.3, "decay": 0.0}, on(B, steps=300), (0.2, 0.6), "on a constant Jacobian: MGDA"),
    ("modo", 2, {}, in_three_batches(B), (0.45, 0.55), "by hand: (.395, .495), projected"),
    (
        "sdmgrad", 2, {"regularisation": 0.0}, in_three_batches(B, steps=40), (0.4, 0.6),
        "MGDA, on one Jacobian",
    ),
    ("sdmgrad", 2, {"regularisation": 1e9}, in_three_batches(B), (0.5, 0.5), "the mean for a large lambda"),
    (
        "excess_mtl", 2, {"eta": 0.01}, lambda s: (on(C)(s), on(np.eye(2))(s))[1],
        (1.003486 / 2, 0.996514 / 2), "authors' code, measured (there they sum to T)",
    ),
    ("graddrop", 5, {"leak": 1.0}, on(FIVE), lambda: FIVE.sum(axis=0), "definition: nothing is dropped"),
    (
        "graddrop", 3, {}, mean_direction(((3, 1), (-1, 1), (1, -4))), (3, -2),
        "algebra: the mean is the sum", 0.25,
    ),
    (
        "variational", 2, {}, on(C), (5.5, 5.5),
        "by hand: all of the first signals is known alike, so the sum of unit gradients at the mean length",
    ),
    (
        "contrastive", 2, {},
        lambda s: (on(np.eye(2), steps=2)(s), s.sharpness)[1], 1 + (2 - 2 * P2) / (1 + 4 * P2 * (1 - P2)),
        "by hand: similarities 2 and 0 in the second step, then one of Newton's",
    ),
    ("trimmed_mean", 4, {"trim": 1}, on([[1, -9], [2, 4], [6, 0], [90, 5]]), (4, 2), "by hand"),
]  # fmt: skip


@pytest.mark.parametrize("case", KNOWN, ids=[f"{case[0]}: {case[5]}" for case in KNOWN])
def test_known_answer(case):
    name, n_tasks, hyperparameters, ask, expected, _, *tolerance = case
    expected = np.asarray(expected() if callable(expected) else expected, dtype=np.float64)
    found = ask(make(name, n_tasks, **hyperparameters))
    assert found == pytest.approx(expected, rel=2e-6, abs=(tolerance or [2e-6])[0])


ONES = {"preference": [0.5, 0.5]}
BY_CASE = {"A": A, "B": B, "C": C, "C2": C2, "D": D, "E": E, "E2": E2, "F": F}
# closed forms for two tasks, and public code where there is none; beyond the cases above
DIRECTIONS = [
    ("pcgrad", {}, {"C": (1, 10), "C2": (6, 8.660254), "D": (2, 2), "E": (0, 0), "E2": (0, 0), "F": (1, 0)}),
    ("mgda", {}, {"A": (0.25, 0.433013), "C": (100 / 101, 10 / 101), "C2": (1, 0), "D": (1, 1), "E": (0, 0)}),
    ("mgda", {}, {"E2": (0, 0), "F": (0, 0)}),
    ("cagrad", {}, {"A": (0.375, 0.649519), "C": (3.012469, 5.0), "E2": (-0.25, 0)}),  # E2 is not stationary
    ("cagrad", {"rescale": "1+c^2"}, {"A": (0.3, 0.519615), "B": (0.2, 0.6)}),
    ("cagrad", {"rescale": "1+c"}, {"A": (0.25, 0.433013), "B": (1 / 6, 0.5)}),
    ("cagrad", {"c": 0.0}, {"B": (0.5, 0.5)}),
    ("imtl_g", {}, {"A": (0.25, 0.433013), "C": (10 / 11, 10 / 11), "C2": (1.363636, 0.787296), "D": (1, 1)}),
    ("imtl_g", {}, {"E2": (0, 0)}),
    ("config", {}, {"A": (0.5, 0.866025), "C": (5.5, 5.5), "C2": (8.25, 4.763140), "E2": (0, 0)}),
    ("nash_mtl", {}, {"A": (0.707107, 1.224745), "C": (1, 1), "C2": (1.224745, 0.707107), "D": (1, 1)}),
    ("fairgrad", {"alpha": 1.0}, {"B": (0.541196, 1.306563)}),
    ("fairgrad", {}, {"C": (1, 0.464159)}),
    ("aligned_mtl", {}, {"A": (0.5, 0.866025), "C": (1, 1)}),
    ("aligned_mtl", ONES, {"A": (0.25, 0.433013), "B": (0.276393, 0.552786), "E2": (-0.5, 0)}),
    ("aligned_mtl", {**ONES, "scale": "rmse"}, {"A": (0.353553, 0.612372), "B": (0.547723, 1.095445)}),
    ("aligned_mtl", {**ONES, "scale": "rmse"}, {"C": (3.553168, 3.553168)}),
    ("upgrad", {}, {"A": (0.375, 0.649519), "C": (0.5, 5), "C2": (3, 4.330127), "E2": (0, 0)}),
    (
        "dualproj",
        {},
        {"A": (0.25, 0.433013), "B": (0.5, 0.5), "C": (0.5, 5), "C2": (3, 4.330127), "E2": (0, 0)},
    ),
    ("gradvac", {}, {"A": (0.75, 1.299038), "B": (1, 2), "C2": (6, 8.660254)}),  # the first step is PCGrad's
]


@pytest.mark.parametrize(("name", "hyperparameters", "by_case"), DIRECTIONS)
def test_known_directions(name, hyperparameters, by_case):
    for case, expected in by_case.items():
        found = direction(name, BY_CASE[case], **hyperparameters)
        assert found == pytest.approx(expected, abs=2e-6), case


@pytest.mark.parametrize(
    ("case", "expected"), [(A, (2**0.5, 2**0.5)), (B, (0.923880, 1.306563)), (C, (1, 0.1)), (D, (0.5, 0.5))]
)
def test_known_weights_of_nash_mtl(case, expected):
    """Where the rows are dependent (D) the direction does not tell them."""
    assert weigh("nash_mtl", case) == pytest.approx(expected, abs=1e-6)


def test_every_strategy_has_a_known_answer_and_says_where_it_is_from():
    assert {case[0] for case in KNOWN} == set(registry.STRATEGIES)
    assert all(len(case[5]) > 4 for case in KNOWN)
