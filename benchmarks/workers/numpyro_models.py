"""The compared posteriors as a NumPyro user would write them; the densities equal those of our programs."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints


def eight_schools(sigma, y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(y)):
        t = numpyro.sample("t", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * t)
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def radon(county, log_uppm, floor, counties, y):
    sigma_alpha = numpyro.sample("sigma_alpha", dist.HalfNormal(1.0))
    sigma_y = numpyro.sample("sigma_y", dist.HalfNormal(1.0))
    mu_alpha = numpyro.sample("mu_alpha", dist.Normal(0.0, 10.0))
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
    with numpyro.plate("county", counties):
        r = numpyro.sample("r", dist.Normal(0.0, 1.0))
        alpha = numpyro.deterministic("alpha", mu_alpha + sigma_alpha * r)
    with numpyro.plate("house", len(y)):
        mean = alpha[county] + beta[0] * log_uppm + beta[1] * floor
        numpyro.sample("y", dist.Normal(mean, sigma_y), obs=y)


def garch(first_scale, y):
    mu = numpyro.sample("mu", dist.ImproperUniform(constraints.real, (), ()))
    alpha0 = numpyro.sample("alpha0", dist.ImproperUniform(constraints.positive, (), ()))
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(3)))
    alpha1 = numpyro.deterministic("alpha1", weights[0])
    beta1 = numpyro.deterministic("beta1", weights[1])

    def step(variance, previous):
        variance = alpha0 + alpha1 * (previous - mu) ** 2 + beta1 * variance
        return variance, variance

    first = jnp.asarray(first_scale**2)
    _, rest = jax.lax.scan(step, first, y[:-1])
    with numpyro.plate("time", len(y)):
        scale = jnp.sqrt(jnp.concatenate([first[None], rest]))
        numpyro.sample("y", dist.Normal(mu, scale), obs=y)


def regression_flat(X, y):
    beta = numpyro.sample("beta", dist.ImproperUniform(constraints.real, (), (X.shape[1],)))
    sigma = numpyro.sample("sigma", dist.ImproperUniform(constraints.positive, (), ()))
    with numpyro.plate("observation", len(y)):
        numpyro.sample("y", dist.Normal(X @ beta, sigma), obs=y)


def two_normals(y):
    mu = numpyro.sample("mu", dist.ImproperUniform(constraints.ordered_vector, (), (2,)))
    numpyro.factor("mu_prior", dist.Normal(0.0, 2.0).log_prob(mu).sum())
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0).expand([2]).to_event(1))
    theta = numpyro.sample("theta", dist.Beta(5.0, 5.0))
    mixing = dist.Categorical(probs=jnp.stack([theta, 1.0 - theta]))
    with numpyro.plate("observation", len(y)):
        numpyro.sample("y", dist.MixtureSameFamily(mixing, dist.Normal(mu, sigma)), obs=y)


def regression(X, y, sigma_prior, intercept=None, coefficients=None):
    if coefficients is None:
        beta = numpyro.sample("beta", dist.ImproperUniform(constraints.real, (), (X.shape[1],)))
    else:
        beta = numpyro.sample("beta", coefficients.expand([X.shape[1]]).to_event(1))
    mean = X @ beta + (0.0 if intercept is None else numpyro.sample("alpha", intercept))
    sigma = numpyro.sample("sigma", sigma_prior)
    with numpyro.plate("observation", len(y)):
        numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


def kid_score(X, y):
    regression(X, y, dist.HalfCauchy(2.5))


def sblri(X, y):
    regression(X, y, dist.HalfNormal(10.0), coefficients=dist.Normal(0.0, 10.0))


def autoregression(X, y):
    regression(X, y, dist.HalfCauchy(2.5), dist.Normal(0.0, 10.0), dist.Normal(0.0, 10.0))


def diamonds(X, y):
    b = numpyro.sample("b", dist.Normal(0.0, 1.0).expand([X.shape[1]]).to_event(1))
    intercept = numpyro.sample("Intercept", dist.StudentT(3.0, 8.0, 10.0))
    sigma = numpyro.sample("sigma", dist.ImproperUniform(constraints.positive, (), ()))
    numpyro.factor("half_t", dist.StudentT(3.0, 0.0, 10.0).log_prob(sigma))
    with numpyro.plate("observation", len(y)):
        numpyro.sample("Y", dist.Normal(intercept + X @ b, sigma), obs=y)


def gaussian_process_counts(x, k):
    rho = numpyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = numpyro.sample("alpha", dist.HalfNormal(2.0))
    covariance = alpha**2 * jnp.exp(-0.5 * ((x[:, None] - x) / rho) ** 2) + 1e-10 * jnp.eye(len(x))
    z = numpyro.sample("f_tilde", dist.Normal(0.0, 1.0).expand([len(x)]).to_event(1))
    f = numpyro.deterministic("f", jnp.linalg.cholesky(covariance) @ z)
    with numpyro.plate("point", len(x)):
        numpyro.sample("k", dist.Poisson(jnp.exp(f)), obs=k)


def hidden_markov(y):
    rows = [numpyro.sample(f"theta{i}", dist.Dirichlet(jnp.ones(2))) for i in (1, 2)]
    mu = numpyro.sample("mu", dist.ImproperUniform(constraints.positive_ordered_vector, (), (2,)))
    numpyro.factor("mu_prior", dist.Normal(jnp.array([3.0, 10.0]), 1.0).log_prob(mu).sum())
    emission, transition = dist.Normal(mu, 1.0).log_prob(y[:, None]), jnp.log(jnp.stack(rows))

    def step(alpha, row):
        return row + jax.nn.logsumexp(alpha[:, None] + transition, axis=0), None

    alpha, _ = jax.lax.scan(step, emission[0], emission[1:])
    numpyro.factor("y", jax.nn.logsumexp(alpha))


MODELS: dict[str, Callable] = {
    "eight_schools-eight_schools_noncentered": eight_schools,
    "radon_mn-radon_hierarchical_intercept_noncentered": radon,
    "garch-garch11": garch,
    "mesquite-logmesquite": regression_flat,
    "low_dim_gauss_mix-low_dim_gauss_mix": two_normals,
    "kidiq-kidscore_momhsiq": kid_score,
    "kidiq-kidscore_interaction": kid_score,
    "earnings-logearn_height_male": regression_flat,
    "nes1980-nes": regression_flat,
    "sblri-blr": sblri,
    "diamonds-diamonds": diamonds,
    "arK-arK": autoregression,
    "gp_pois_regr-gp_pois_regr": gaussian_process_counts,
    "hmm_example-hmm_example": hidden_markov,
}
