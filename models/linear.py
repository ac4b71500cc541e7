"""Linear regression with weakly informative priors on standardised scales.

    alpha ~ N(m, 5 s)      beta[k] ~ N(0, 2.5 s / s_k)      sigma ~ Exponential(1 / s)
    y[n] ~ N(alpha + (x[n] - mean x) . beta, sigma)

where m and s are a location and a scale for the response that the user states, and s_k the standard deviation
of column k. Centring the columns makes alpha the mean response at average covariates.

References: Gelman, Hill and Vehtari (2020), Regression and Other Stories, chapters 9 to 12; the data of the
example are Brownlee (1965).
"""

from __future__ import annotations

import jax.numpy as jnp

import ppl
from ppl import dist


@ppl.model
def linear_regression(X, location, scale):
    """Gaussian regression of one response on columns.

    Args:
        X: Covariates, shape (n, p), any scale.
        location: Where responses lie, roughly.
        scale: How far they spread, roughly.

    Returns:
        Mean responses, shape (n,).

    Example:
        >>> import numpy as np
        >>> X = np.array([[-1.0], [1.0]])
        >>> program = linear_regression(X, 0.0, 1.0).condition(y=np.array([0.0, 0.0]))
        >>> round(float(program.log_prob({"alpha": 0.0, "beta": np.zeros(1), "sigma": 1.0})), 3)
        -7.201
    """
    alpha = ppl.sample("alpha", dist.Normal(location, 5.0 * scale))
    beta = ppl.sample("beta", dist.Normal(0.0, 2.5 * scale / jnp.std(X, axis=0)), dims="covariate")
    sigma = ppl.sample("sigma", dist.Exponential(1.0 / scale))

    @ppl.plate("observation", X - jnp.mean(X, axis=0))
    def mean(x):
        mean = alpha + x @ beta
        ppl.sample("y", dist.Normal(mean, sigma))
        return mean

    return mean
