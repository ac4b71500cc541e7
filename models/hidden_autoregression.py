"""A hidden autoregression seen through noise.

    x[0] ~ N(mu, tau / sqrt(1 - phi^2))      x[t] = mu + phi (x[t-1] - mu) + tau e[t],   e[t] ~ N(0, 1)
    y[t] ~ N(x[t], sigma)                                                               t = 1..T
    mu ~ N(m, 2 s)      phi ~ Beta(5, 1)      tau, sigma ~ HalfN(s)

The innovations e are sampled, so the state is a record. With phi near one this is close to a random walk.

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
        >>> start = {"mu": 9.0, "phi": 0.5, "tau": 1.0, "sigma": 1.0, "e0": 0.0, "e": np.zeros(2)}
        >>> round(float(program.log_prob(start)), 3)
        -9.322
    """
    mu = ppl.sample("mu", dist.Normal(location, 2.0 * scale))
    phi = ppl.sample("phi", dist.Beta(5.0, 1.0))
    tau = ppl.sample("tau", dist.HalfNormal(scale))
    sigma = ppl.sample("sigma", dist.HalfNormal(scale))

    def start():
        e = ppl.sample("e0", dist.Normal(0.0, 1.0))
        return mu + tau * e / jnp.sqrt(1.0 - phi**2)

    @ppl.markov("time", init=start, xs=steps)
    def state(x, _):
        e = ppl.sample("e", dist.Normal(0.0, 1.0))
        x = ppl.record("x", mu + phi * (x - mu) + tau * e)
        ppl.sample("y", dist.Normal(x, sigma))
        return x

    return state
