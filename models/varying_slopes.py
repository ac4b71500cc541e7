"""Linear regression in which every group has its own intercept and slope.

    beta ~ N(m, 2 s)      tau ~ HalfN(s)      L L' ~ LKJ(2)      sigma ~ HalfN(s_1)
    b[j] = beta + diag(tau) L z[j],   z[j] ~ N(0, I)             groups j
    y[n] ~ N(b[g[n]] . (1, x[n]), sigma)                         observations n

b[j] is N(beta, diag(tau) L L' diag(tau)), written non-centred. s = (s_1, s_2) are scales of intercept
and slope.

References: Lewandowski, Kurowicka and Joe (2009), Generating random correlation matrices; Gelman and Hill
(2007), Data Analysis Using Regression and Multilevel/Hierarchical Models, chapter 13. The data of the example
are those of Belenky et al. (2003).
"""

from __future__ import annotations

import ppl
from ppl import dist


@ppl.model
def varying_slopes(group, x, labels, location, scale):
    """Intercepts and slopes that vary by group, correlated.

    Args:
        group: Group of each observation, integers into ``labels``, shape (n,).
        x: Covariate, shape (n,).
        labels: Names of the groups, a tuple of strings.
        location: Prior mean of the average intercept and slope, shape (2,).
        scale: Prior scale of intercept and slope, shape (2,).

    Returns:
        Coefficients by group, shape (groups, 2).

    Example:
        >>> import numpy as np
        >>> program = varying_slopes(np.array([0, 1]), np.zeros(2), ("a", "b"), np.zeros(2), np.ones(2))
        >>> values = {"beta": np.zeros(2), "tau": np.ones(2), "L": np.eye(2), "sigma": 1.0, "z": np.zeros((2, 2))}
        >>> round(float(program.condition(y=np.zeros(2)).log_prob(values)), 3)
        -11.203
    """
    beta = ppl.sample("beta", dist.Normal(location, 2.0 * scale), dims="coefficient")
    tau = ppl.sample("tau", dist.HalfNormal(scale), dims="coefficient")
    L = ppl.sample("L", dist.LKJCholesky(2, 2.0), dims=("coefficient", "factor"))
    sigma = ppl.sample("sigma", dist.HalfNormal(scale[0]))
    ppl.record("correlation", L[1, 0])

    @ppl.plate("group", coords=labels)
    def coefficients(_):
        z = ppl.sample("z", dist.Normal(0.0, 1.0).expand([2]), dims="coefficient")
        return ppl.record("b", beta + tau * (L @ z), dims="coefficient")

    @ppl.plate("observation", group, x)
    def observation(g, x):
        ppl.sample("y", dist.Normal(coefficients[g, 0] + coefficients[g, 1] * x, sigma))

    return coefficients
