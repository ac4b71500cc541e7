"""Latent structure: a GARCH volatility, a Gaussian process, a hidden Markov model, a mixture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ppl
from ppl import dist

from .common import columns

Data = Mapping[str, Any]


@ppl.model
def garch(steps, first_scale):
    """GARCH(1, 1): s[t]^2 = alpha0 + alpha1 (y[t-1] - mu)^2 + beta1 s[t-1]^2, y[t] ~ N(mu, s[t]).

    (alpha1, beta1) is uniform on the triangle alpha1 + beta1 <= 1: a Dirichlet(1, 1, 1) with its slack.
    """
    mu = ppl.sample("mu", dist.Flat())
    alpha0 = ppl.sample("alpha0", dist.FlatPositive())
    weights = ppl.sample("weights", dist.Dirichlet(jnp.ones(3)))
    alpha1 = ppl.record("alpha1", weights[0])
    beta1 = ppl.record("beta1", weights[1])

    @ppl.markov("time", init=first_scale**2, xs=steps)
    def variance(variance, _):
        y = ppl.sample("y", dist.Normal(mu, jnp.sqrt(variance)))
        return alpha0 + alpha1 * (y - mu) ** 2 + beta1 * variance


def garch_program(data: Data) -> Any:
    """Two hundred returns."""
    (y,) = columns(data, "y")
    return garch(len(y), float(data["sigma1"])).condition(y=y)


@ppl.model
def gaussian_process_counts(x):
    """Poisson counts with a log rate f ~ GP(0, alpha^2 exp(-(x - x')^2 / (2 rho^2)) + 1e-10)."""
    rho = ppl.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = ppl.sample("alpha", dist.HalfNormal(2.0))
    squares = (x[:, None] - x[None, :]) ** 2
    covariance = alpha**2 * jnp.exp(-0.5 * squares / rho**2) + 1e-10 * jnp.eye(len(x))
    z = ppl.sample("z", dist.Normal(0.0, 1.0).expand([len(x)]))
    f = ppl.record("f", jnp.linalg.cholesky(covariance) @ z)

    @ppl.plate("point", f)
    def point(f):
        ppl.sample("k", dist.Poisson(jnp.exp(f)))


def gaussian_process_program(data: Data) -> Any:
    """Counts at eleven points."""
    (x,) = columns(data, "x")
    return gaussian_process_counts(x).condition(k=np.asarray(data["k"]))


def forward_log_likelihood(log_emission, log_transition):
    """Sum over all state paths by the forward recursion; both states start with weight one.

    Args:
        log_emission: Shape (T, K).
        log_transition: Shape (K, K), rows are the states left.
    """

    def step(alpha, emission):
        return emission + jax.nn.logsumexp(alpha[:, None] + log_transition, axis=0), None

    alpha, _ = jax.lax.scan(step, log_emission[0], log_emission[1:])
    return jax.nn.logsumexp(alpha)


@ppl.model
def hidden_markov(y):
    """Two states with N(mu[k], 1) emissions, 0 < mu[1] < mu[2]; the states are summed out."""
    theta1 = ppl.sample("theta1", dist.Dirichlet(jnp.ones(2)))
    theta2 = ppl.sample("theta2", dist.Dirichlet(jnp.ones(2)))
    mu = ppl.sample("mu", dist.flat(dist.constraints.positive_ordered_vector, (2,)))
    ppl.factor("mu_prior", dist.Normal(jnp.array([3.0, 10.0]), 1.0).log_prob(mu).sum())
    log_emission = dist.Normal(mu, 1.0).log_prob(y[:, None])
    ppl.factor("y", forward_log_likelihood(log_emission, jnp.log(jnp.stack([theta1, theta2]))))


def hidden_markov_program(data: Data) -> Any:
    """One hundred observations of a two-state chain."""
    return hidden_markov(*columns(data, "y"))


@ppl.model
def two_normals(n):
    """A mixture of two normals with ordered means, each N(0, 2); theta weighs the lower component."""
    mu = ppl.sample("mu", dist.flat(dist.constraints.ordered_vector, (2,)))
    ppl.factor("mu_prior", dist.Normal(0.0, 2.0).log_prob(mu).sum())
    sigma = ppl.sample("sigma", dist.HalfNormal(2.0).expand([2]))
    theta = ppl.sample("theta", dist.Beta(5.0, 5.0))
    weights = jnp.stack([theta, 1.0 - theta])

    @ppl.plate("observation", n)
    def observation(_):
        ppl.sample("y", dist.mixture(weights, dist.Normal(mu, sigma)))


def two_normals_program(data: Data) -> Any:
    """A thousand observations of two well separated components."""
    (y,) = columns(data, "y")
    return two_normals(len(y)).condition(y=y)


PROGRAMS = {
    "garch-garch11": garch_program,
    "gp_pois_regr-gp_pois_regr": gaussian_process_program,
    "hmm_example-hmm_example": hidden_markov_program,
    "low_dim_gauss_mix-low_dim_gauss_mix": two_normals_program,
}
