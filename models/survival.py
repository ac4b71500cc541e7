"""Survival times under right censoring: accelerated failure times with a Weibull baseline.

    beta[k] ~ N(0, 2)      alpha ~ N(0, 5)      k ~ LogN(0, 1/2)
    T[n] ~ Weibull(scale exp(alpha + x[n] . beta), shape k),    S(t) = exp(-(t / scale)^k)

A death at t contributes the density, a censoring at t the survival probability S(t). A coefficient of log 2
doubles every quantile of the survival time.

References: Kalbfleisch and Prentice (2002), The Statistical Analysis of Failure Time Data, chapter 3; the
data of the example are those of Loprinzi et al. (1994).
"""

from __future__ import annotations

import jax.numpy as jnp

import ppl
from ppl import dist


@ppl.model
def weibull_survival(X, event):
    """Weibull regression with right censoring.

    Args:
        X: Covariates, shape (n, p).
        event: Whether the time is that of a death (else it is only known to be exceeded), shape (n,).

    Returns:
        Log scales, shape (n,).

    Example:
        >>> import numpy as np
        >>> program = weibull_survival(np.zeros((2, 1)), np.array([1, 0])).condition(time=np.array([1.0, 2.0]))
        >>> round(float(program.log_prob({"alpha": 0.0, "beta": np.zeros(1), "shape": 1.0})), 3)
        -7.366
    """
    alpha = ppl.sample("alpha", dist.Normal(0.0, 5.0))
    beta = ppl.sample("beta", dist.Normal(0.0, 2.0).expand([X.shape[1]]), dims="covariate")
    shape = ppl.sample("shape", dist.LogNormal(0.0, 0.5))

    @ppl.plate("patient", X, event)
    def log_scale(x, event):
        log_scale = alpha + x @ beta
        ppl.sample("time", dist.right_censored(dist.Weibull(jnp.exp(log_scale), shape), event))
        return log_scale

    return log_scale
