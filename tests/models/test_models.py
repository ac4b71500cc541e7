"""Every family: its log density against one written with SciPy from the formulas, at random parameters."""

import jax
import numpy as np
import pytest
from scipy import special, stats

import ppl
from ppl.models import (
    eight_schools,
    hidden_autoregression,
    linear,
    logistic,
    mixture,
    survival,
    varying_slopes,
)

pytestmark = pytest.mark.standard_promotion
norm = stats.norm.logpdf


@pytest.fixture
def rng():
    return np.random.default_rng(20)


def close(program, values, expected):
    np.testing.assert_allclose(float(program.log_prob(values)), expected, rtol=1e-10)


def test_eight_schools(rng):
    sigma, y, theta = rng.uniform(5, 15, 8), rng.normal(5, 10, 8), rng.normal(3, 5, 8)
    mu, tau = 2.0, 3.0
    shared = norm(mu, 0, 5) + stats.halfcauchy.logpdf(tau, 0, 5) + norm(y, theta, sigma).sum()
    centred = eight_schools.eight_schools(sigma).condition(y=y)
    close(centred, {"mu": mu, "tau": tau, "theta": theta}, shared + norm(theta, mu, tau).sum())
    t = (theta - mu) / tau
    other = eight_schools.eight_schools_noncentred(sigma).condition(y=y)
    close(other, {"mu": mu, "tau": tau, "t": t}, shared + norm(t).sum())


def test_linear(rng):
    X, y, beta = rng.normal(3, 2, (20, 3)), rng.normal(10, 2, 20), rng.normal(size=3)
    alpha, sigma, scale = 9.0, 1.5, 4.0
    expected = norm(alpha, 8.0, 5 * scale) + norm(beta, 0, 2.5 * scale / X.std(axis=0)).sum()
    expected += stats.expon.logpdf(sigma, scale=scale)
    expected += norm(y, alpha + (X - X.mean(axis=0)) @ beta, sigma).sum()
    program = linear.linear_regression(X, 8.0, scale).condition(y=y)
    close(program, {"alpha": alpha, "beta": beta, "sigma": sigma}, expected)


def test_logistic(rng):
    X, beta = rng.normal(3, 2, (30, 2)), rng.normal(size=2)
    y = rng.integers(0, 2, 30)
    logits = 0.3 + (X - X.mean(axis=0)) @ beta
    expected = stats.t.logpdf(0.3, 3, 0, 2.5) + stats.t.logpdf(beta, 3, 0, 2.5 / X.std(axis=0)).sum()
    expected += stats.bernoulli.logpmf(y, special.expit(logits)).sum()
    close(logistic.logistic_regression(X).condition(y=y), {"alpha": 0.3, "beta": beta}, expected)


def test_varying_slopes(rng):
    group, x = rng.integers(0, 3, 25), rng.uniform(0, 9, 25)
    y, z, beta, tau, r = rng.normal(10, 3, 25), rng.normal(size=(3, 2)), np.array([9.0, 0.5]), np.array([2.0, 0.7]), 0.4
    L = np.array([[1.0, 0.0], [r, np.sqrt(1 - r**2)]])
    location, scale = np.array([10.0, 0.0]), np.array([5.0, 1.0])
    b = beta + z @ (tau[:, None] * L).T
    expected = norm(beta, location, 2 * scale).sum() + stats.halfnorm.logpdf(tau, 0, scale).sum()
    expected += np.log(0.75 * (1 - r**2))  # LKJ(2) in two dimensions: the correlation has density 3/4 (1 - r^2)
    expected += stats.halfnorm.logpdf(1.5, 0, 5.0) + norm(z).sum()
    expected += norm(y, b[group, 0] + b[group, 1] * x, 1.5).sum()
    program = varying_slopes.varying_slopes(group, x, ("a", "b", "c"), location, scale).condition(y=y)
    close(program, {"beta": beta, "tau": tau, "L": L, "sigma": 1.5, "z": z}, expected)
    drawn = jax.tree.map(np.asarray, program.simulate(jax.random.key(0), {"beta": beta, "tau": tau, "L": L, "z": z}))
    np.testing.assert_allclose(drawn["b"], b, rtol=1e-12)


def test_survival(rng):
    X, beta = rng.normal(size=(40, 2)), np.array([0.4, -0.2])
    time, event, shape, alpha = rng.weibull(1.3, 40), rng.integers(0, 2, 40), 1.4, 0.1
    law = stats.weibull_min(shape, scale=np.exp(alpha + X @ beta))
    expected = norm(alpha, 0, 5) + norm(beta, 0, 2).sum() + stats.lognorm.logpdf(shape, 0.5)
    expected += np.where(event == 1, law.logpdf(time), law.logsf(time)).sum()
    program = survival.weibull_survival(X, event).condition(time=time)
    close(program, {"alpha": alpha, "beta": beta, "shape": shape}, expected)


def test_survival_far_in_the_tail_has_a_gradient():
    # the survival probability underflows here, its logarithm is -1e4
    program = survival.weibull_survival(np.zeros((1, 1)), np.zeros(1)).condition(time=np.array([100.0]))
    density = ppl.compile(program)
    z = density.unconstrain({"alpha": 0.0, "beta": np.zeros(1), "shape": 2.0})
    gradient = np.asarray(jax.grad(lambda z: density(z))(z))
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient[density.layout["alpha"].start], 2.0e4, rtol=1e-6)


def test_hidden_autoregression(rng):
    mu, phi, tau, sigma, x0, x, y = 9.0, 0.8, 0.6, 1.2, 8.0, rng.normal(9, 1, 12), rng.normal(9, 1, 12)
    expected = norm(mu, 8.0, 4.0) + stats.beta.logpdf(phi, 10, 2) + norm(x0, 8.0, 4.0)
    expected += stats.lognorm.logpdf([tau, sigma], 0.5, scale=1.0).sum()
    before = np.concatenate([[x0], x[:-1]])
    expected += norm(x, mu + phi * (before - mu), tau).sum() + norm(y, x, sigma).sum()
    program = hidden_autoregression.hidden_autoregression(12, 8.0, 2.0).condition(y=y)
    close(program, {"mu": mu, "phi": phi, "tau": tau, "sigma": sigma, "x0": x0, "x": x}, expected)


def test_mixture(rng):
    y, sigma, w = rng.normal(size=30), np.array([0.5, 2.0]), 0.3
    low, gap = -1.0, 2.5
    expected = norm(low, 1.0, 4.0) + stats.halfnorm.logpdf(gap, 0, 4.0) + stats.beta.logpdf(w, 2, 2)
    expected += stats.halfnorm.logpdf(sigma, 0, 2.0).sum()
    pdf = stats.norm.pdf
    expected += np.log(w * pdf(y, low, sigma[0]) + (1 - w) * pdf(y, low + gap, sigma[1])).sum()
    program = mixture.gaussian_mixture(30, 1.0, 2.0).condition(y=y)
    close(program, {"low": low, "gap": gap, "sigma": sigma, "w": w}, expected)
