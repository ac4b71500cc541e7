"""A hidden Markov model with Gaussian emissions, its states summed out.

    P[k] ~ Dirichlet(1 + s [k = l])_l      low ~ N(m, 2 d)      gap[k] ~ HalfN(2 d)      mu = low + cumsum(0, gap)
    sigma ~ HalfN(d)      z[1] ~ Uniform      z[t] ~ Categorical(P[z[t-1]])      y[t] ~ N(mu[z[t]], sigma)

Positive gaps order the states, so that labels cannot switch; s favours staying. The states z are finite, so that
inference sums them out by the forward recursion and draws them back afterwards.

References: Rabiner (1989), A tutorial on hidden Markov models; Fruehwirth-Schnatter (2006), Finite Mixture and Markov
Switching Models, chapters 10 and 11.
"""

from __future__ import annotations

import jax.numpy as jnp

import ppl
from ppl import dist


@ppl.model
def hidden_markov(steps, states, location, scale, stay=5.0):
    """Gaussian observations of a chain with few states.

    Args:
        steps: Number of observations T, or their labels.
        states: Number of states K.
        location: Where observations lie, roughly.
        scale: How far they spread, roughly.
        stay: Prior observations in favour of staying in a state.

    Returns:
        States z[1..T], shape (T,).

    Example:
        >>> import numpy as np
        >>> program = hidden_markov(3, 2, 0.0, 1.0).condition(y=np.array([0.0, 2.0, 2.0]))
        >>> density = ppl.compile(program)
        >>> list(density.layout), list(density.compiled.summed)
        (['P', 'low', 'gap', 'sigma'], ['z'])
        >>> P = np.array([[0.8, 0.2], [0.2, 0.8]])
        >>> z = density.unconstrain({"P": P, "low": 0.0, "gap": np.array([2.0]), "sigma": 1.0})
        >>> np.asarray(density.probabilities(z)["z"], float).round(3).tolist()
        [[0.687, 0.313], [0.119, 0.881], [0.071, 0.929]]
    """
    P = ppl.sample("P", dist.Dirichlet(1.0 + stay * jnp.eye(states)), dims=("from", "state"))
    low = ppl.sample("low", dist.Normal(location, 2.0 * scale))
    gap = ppl.sample("gap", dist.HalfNormal(2.0 * scale).expand([states - 1]), dims="upper")
    mu = ppl.record("mu", low + jnp.concatenate([jnp.zeros(1), jnp.cumsum(gap)]), dims="state")
    sigma = ppl.sample("sigma", dist.HalfNormal(scale))
    rows = jnp.concatenate([P, jnp.full((1, states), 1.0 / states)])  # the last row is for the first step

    def step(z, _):
        z = ppl.sample("z", dist.Categorical(rows[z]))
        ppl.sample("y", dist.Normal(mu[z], sigma))
        return z

    labels = None if isinstance(steps, int) else steps
    count = steps if labels is None else len(labels)
    return ppl.markov("time", step, init=states, xs=count, coords=labels)
