"""The model of `variational`: posterior, bound, and sweeps."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats

from mtlweights.strategies.jacobian import factor_analysis
from tests.strategies.jacobian.helpers import objective

SIGNAL = torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=torch.float64)


NOISE = torch.tensor([0.6, 0.5], dtype=torch.float64)


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


def draws(signal, noise, n, elements, seed=0):
    """u [n, T, elements] of the model, every task's mean square exactly 1."""
    rng = np.random.default_rng(seed)
    s = np.linalg.cholesky(signal) @ rng.normal(size=(len(signal), elements))
    u = s + np.sqrt(noise)[:, None] * rng.normal(size=(n, len(signal), elements))
    return u / np.sqrt((u**2).mean((0, 2)))[:, None]


def moments_of(u):
    mean = u.mean(0)
    return torch.from_numpy(mean @ mean.T / mean.shape[1])


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
