"""Laplace's approximation against exact answers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import ppl
from ppl import dist
from ppl.inference import laplace
from ppl.inference.mode import Laplace

X = np.array([[1.0, -1.0], [1.0, 0.0], [1.0, 2.0], [1.0, 3.0]])
Y = np.array([0.3, 1.0, 2.2, 4.1])


@ppl.model
def regression(x):
    beta = ppl.sample("beta", dist.Normal(0.0, 2.0).expand([2]), dims="column")
    ppl.record("slope", beta[1])
    ppl.sample("y", dist.Normal(x @ beta, 0.5))


@pytest.fixture(scope="module")
def exact():
    precision = X.T @ X / 0.25 + np.eye(2) / 4
    covariance = np.linalg.inv(precision)
    mean = covariance @ X.T @ Y / 0.25
    evidence = stats.multivariate_normal(np.zeros(4), 4 * X @ X.T + 0.25 * np.eye(4)).logpdf(Y)
    return mean, covariance, evidence


def test_it_is_exact_for_a_gaussian_posterior(exact):
    mean, covariance, evidence = exact
    fit = laplace(regression(X).condition(y=Y))
    np.testing.assert_allclose(fit.mode["beta"], mean, rtol=1e-9)
    np.testing.assert_allclose(fit.mode["slope"], mean[1], rtol=1e-9)
    np.testing.assert_allclose(fit.covariance, covariance, rtol=1e-9)
    assert float(fit.log_evidence) == pytest.approx(evidence, abs=1e-9)
    assert fit.labels == ("beta[0]", "beta[1]")
    assert "beta[0] " in repr(fit)


def test_it_is_a_proposal(exact):
    mean, covariance, _ = exact
    fit = laplace(regression(X).condition(y=Y))
    z = np.array([0.1, 1.7])
    assert float(fit.log_prob(z)) == pytest.approx(stats.multivariate_normal(mean, covariance).logpdf(z), abs=1e-9)
    # 4000 draws, whitened: mean and second moments within 4.5 standard errors (false alarm below 1 in 20,000)
    keys = jax.random.split(jax.random.key(0), 4000)
    draws = jax.jit(jax.vmap(Laplace.sample, (None, 0)))(fit, keys)
    white = np.linalg.solve(np.linalg.cholesky(covariance), (np.asarray(draws) - mean).T).T
    assert np.abs(white.mean(0)).max() * np.sqrt(4000) < 4.5
    assert np.abs(white.T @ white / 4000 - np.eye(2)).max() * np.sqrt(4000 / 2) < 4.5


def test_the_mode_is_that_of_the_unconstrained_density():
    # log x of x ~ Gamma(a, b) has its mode at log(a / b) and curvature a
    @ppl.model
    def gamma():
        ppl.sample("x", dist.Gamma(3.0, 2.0))

    fit = laplace(gamma())
    assert fit.mode["x"] == pytest.approx(1.5, rel=1e-9)
    assert float(fit.position[0]) == pytest.approx(np.log(1.5), rel=1e-9)
    assert fit.covariance[0, 0] == pytest.approx(1 / 3, rel=1e-9)


def test_a_hard_valley_is_climbed():
    # Rosenbrock: the maximum at (1, 1) with the inverse Hessian known in closed form
    fit = laplace(lambda z: -((1 - z[0]) ** 2) - 100 * (z[1] - z[0] ** 2) ** 2, init=np.array([-1.2, 1.0]))
    np.testing.assert_allclose(fit.position, [1.0, 1.0], rtol=1e-8)
    np.testing.assert_allclose(np.linalg.inv(fit.covariance), [[802.0, -400.0], [-400.0, 200.0]], rtol=1e-6)


def test_the_highest_of_several_modes_wins():
    def two(z):
        return jnp.logaddexp(-0.5 * (z[0] + 4) ** 2, 1.0 - 0.5 * (z[0] - 4) ** 2)

    fit = laplace(two, init=np.array([[-4.0], [4.0]]))
    assert float(fit.position[0]) == pytest.approx(4.0, abs=1e-6)
    assert float(laplace(two, init=np.array([[-4.0]])).position[0]) == pytest.approx(-4.0, abs=1e-6)


def test_a_scale_without_a_mode_is_named():
    @ppl.model
    def centred():
        tau = ppl.sample("tau", dist.HalfNormal(5.0))

        @ppl.plate("school", 8)
        def theta():
            return ppl.sample("theta", dist.Normal(0.0, tau))

        ppl.sample("y", dist.Normal(theta, 10.0))

    with pytest.raises(ppl.ModelError, match="no proper maximum.*'tau'"):
        laplace(centred().condition(y=np.zeros(8)))


def test_a_density_that_is_nowhere_finite_is_an_error():
    with pytest.raises(ppl.ModelError, match="not finite at any starting point"):
        laplace(lambda z: jnp.log(-1 - z[0] ** 2), init=np.zeros(1))


def test_double_precision_whatever_the_setting():
    jax.config.update("jax_enable_x64", False)
    fit = laplace(regression(X).condition(y=Y))
    assert fit.position.dtype == np.float64
    assert float(fit.log_evidence) == pytest.approx(float(laplace(regression(X).condition(y=Y)).log_evidence))
