"""A mixture of two Gaussians with its labels summed out.

    low ~ N(m, 2 s)      gap ~ HalfN(2 s)      mu = (low, low + gap)
    sigma[k] ~ HalfN(s)      w ~ Beta(2, 2)
    y[n] ~ w N(mu[1], sigma[1]) + (1 - w) N(mu[2], sigma[2])

The positive gap orders the components, so that labels cannot switch; w is the weight of the lower one.

References: Everitt and Hand (1981), Finite Mixture Distributions; Stephens (2000), Dealing with label
switching in mixture models. The data of the example are those of Gorman, Williams and Fraser (2014).
"""

from __future__ import annotations

import jax.numpy as jnp

import ppl
from ppl import dist


@ppl.model
def gaussian_mixture(n, location, scale):
    """Two ordered Gaussian components.

    Args:
        n: Number of observations.
        location: Where observations lie, roughly.
        scale: How far they spread, roughly.

    Returns:
        Means of the components, shape (2,).

    Example:
        >>> import numpy as np
        >>> program = gaussian_mixture(2, 0.0, 1.0).condition(y=np.array([0.0, 2.0]))
        >>> values = {"low": 0.0, "gap": 2.0, "sigma": np.ones(2), "w": 0.5}
        >>> round(float(program.log_prob(values)), 3)
        -7.047
    """
    low = ppl.sample("low", dist.Normal(location, 2.0 * scale))
    gap = ppl.sample("gap", dist.HalfNormal(2.0 * scale))
    mu = ppl.record("mu", jnp.stack([low, low + gap]), dims="component")
    sigma = ppl.sample("sigma", dist.HalfNormal(scale).expand([2]), dims="component")
    w = ppl.sample("w", dist.Beta(2.0, 2.0))

    @ppl.plate("observation", n)
    def observation(_):
        weights = jnp.stack([w, 1.0 - w])
        ppl.sample("y", dist.mixture(weights, dist.Normal(mu, sigma)))

    return mu
