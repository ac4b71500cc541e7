"""A hidden autoregression seen through noise.

    x[0] ~ N(m, 2 s)      x[t] ~ N(mu + phi (x[t-1] - mu), tau)      y[t] ~ N(x[t], sigma)      t = 1..T
    mu ~ N(m, 2 s)      phi ~ Beta(10, 2)      tau, sigma ~ LogN(log(s / 2), 1/2)

With one state per observation the data cannot rule out that either scale is zero; the priors do. With phi near
one this is close to a random walk.

References: Durbin and Koopman (2012), Time Series Analysis by State Space Methods, chapter 2; the data of the
example are those of Cobb (1978).
"""

from __future__ import annotations

import jax.numpy as jnp

import ppl
from ppl import dist


@ppl.model
def hidden_autoregression(steps, location, scale):
    """AR(1) state with Gaussian observations.

    Args:
        steps: Number of observations T.
        location: Where observations lie, roughly.
        scale: How far they spread, roughly.

    Returns:
        States x[1..T], shape (T,).

    Example:
        >>> import numpy as np
        >>> program = hidden_autoregression(2, 9.0, 1.0).condition(y=np.array([9.0, 10.0]))
        >>> start = {"mu": 9.0, "phi": 0.5, "tau": 1.0, "sigma": 1.0, "x0": 9.0, "x": np.full(2, 9.0)}
        >>> round(float(program.log_prob(start)), 3)
        -12.004
    """
    mu = ppl.sample("mu", dist.Normal(location, 2.0 * scale))
    phi = ppl.sample("phi", dist.Beta(10.0, 2.0))
    tau = ppl.sample("tau", dist.LogNormal(jnp.log(0.5 * scale), 0.5))
    sigma = ppl.sample("sigma", dist.LogNormal(jnp.log(0.5 * scale), 0.5))

    def start():
        return ppl.sample("x0", dist.Normal(location, 2.0 * scale))

    @ppl.markov("time", init=start, xs=steps)
    def state(x, _):
        x = ppl.sample("x", dist.Normal(mu + phi * (x - mu), tau))
        ppl.sample("y", dist.Normal(x, sigma))
        return x

    return state
