"""The compared posteriors as a NumPyro user would write them; the densities equal those of our programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

Data = Mapping[str, Any]


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


def _columns(data: Data, *names: str) -> list[np.ndarray]:
    return [np.asarray(data[name], dtype=float) for name in names]


def _mesquite(data: Data) -> tuple:
    names = ("diam1", "diam2", "canopy_height", "total_height", "density")
    weight, group = _columns(data, "weight", "group")
    logs = [np.log(column) for column in _columns(data, *names)]
    return np.stack([np.ones_like(weight), *logs, group], axis=1), np.log(weight)


def _radon(data: Data) -> tuple:
    y, log_uppm, floor = _columns(data, "log_radon", "log_uppm", "floor_measure")
    return np.asarray(data["county_idx"]) - 1, log_uppm, floor, int(data["J"]), y


MODELS: dict[str, tuple[Callable, Callable[[Data], tuple]]] = {
    "eight_schools-eight_schools_noncentered": (eight_schools, lambda d: tuple(_columns(d, "sigma", "y"))),
    "radon_mn-radon_hierarchical_intercept_noncentered": (radon, _radon),
    "garch-garch11": (garch, lambda d: (float(d["sigma1"]), *_columns(d, "y"))),
    "mesquite-logmesquite": (regression_flat, _mesquite),
    "low_dim_gauss_mix-low_dim_gauss_mix": (two_normals, lambda d: tuple(_columns(d, "y"))),
}
