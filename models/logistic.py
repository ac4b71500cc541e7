"""Logistic regression with Student priors that keep separated data finite.

    alpha ~ StudentT(3, 0, 2.5)      beta[k] ~ StudentT(3, 0, 2.5 / s_k)
    y[n] ~ Bernoulli(1 / (1 + exp(-alpha - (x[n] - mean x) . beta)))

s_k is the standard deviation of column k, so the prior says the same in any unit.

Reference: Gelman, Jakulin, Pittau and Su (2008), A weakly informative default prior distribution for logistic
and other regression models. The data of the example are those of Dalal, Fowlkes and Hoadley (1989).
"""

from __future__ import annotations

import jax.numpy as jnp

import ppl
from ppl import dist


@ppl.model
def logistic_regression(X):
    """Binary responses on columns.

    Args:
        X: Covariates, shape (n, p), any scale.

    Returns:
        Logits, shape (n,).

    Example:
        >>> import numpy as np
        >>> program = logistic_regression(np.array([[-1.0], [1.0]])).condition(y=np.array([0, 1]))
        >>> round(float(program.log_prob({"alpha": 0.0, "beta": np.zeros(1)})), 3)
        -5.221
    """
    alpha = ppl.sample("alpha", dist.StudentT(3.0, 0.0, 2.5))
    beta = ppl.sample("beta", dist.StudentT(3.0, 0.0, 2.5 / jnp.std(X, axis=0)), dims="covariate")

    @ppl.plate("observation", X - jnp.mean(X, axis=0))
    def logits(x):
        logit = alpha + x @ beta
        ppl.sample("y", dist.Bernoulli(logits=logit))
        return logit

    return logits
