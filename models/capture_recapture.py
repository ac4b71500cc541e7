"""Closed populations and survival from captures of marked animals, the unknown states summed out.

    Closed population (M0):   psi, p ~ U(0, 1)      z[i] ~ Bernoulli(psi)      y[i] ~ Binomial(T, p z[i])
    Open population (Cormack, Jolly, Seber):   after its first capture animal i is alive at t with
    a[t] ~ Bernoulli(phi a[t-1]) and is captured with y[i, t] ~ Bernoulli(p a[t])

In the first, M rows stand for animals that may belong to the population: the n that were captured and M - n more
(data augmentation); the size of the population is N = sum_i z[i].

References: Otis, Burnham, White and Anderson (1978), Statistical inference from capture data on closed animal
populations; Royle, Dorazio and Link (2007) for data augmentation; Lebreton, Burnham, Clobert and Anderson (1992) for
survival.
"""

from __future__ import annotations

import jax.numpy as jnp

import ppl
from ppl import dist


@ppl.model
def closed_population(rows, occasions):
    """Number of captures of each animal in a closed population, with rows of zeros for those that were never seen.

    Args:
        rows: Number of rows M, more than the population can have animals.
        occasions: Number of trapping occasions T.

    Example:
        >>> import numpy as np
        >>> density = ppl.compile(closed_population(3, 4).condition(y=np.array([2, 1, 0])))
        >>> np.asarray(density.probabilities(np.zeros(2))["exists"], float).round(4).tolist()
        [[0.0, 1.0], [0.0, 1.0], [0.9412, 0.0588]]
    """
    psi = ppl.sample("psi", dist.Uniform(0.0, 1.0))
    p = ppl.sample("p", dist.Uniform(0.0, 1.0))

    @ppl.plate("animal", rows)
    def exists(_):
        z = ppl.sample("exists", dist.Bernoulli(psi))
        ppl.sample("y", dist.Binomial(occasions, jnp.where(z == 1, p, 0.0)))
        return z

    ppl.record("N", jnp.sum(exists))


@ppl.model
def cormack_jolly_seber(first, occasions):
    """Survival between occasions and capture at each, given the first capture of each animal.

    Args:
        first: Occasion of first capture of each animal, counted from zero.
        occasions: Number of occasions T; the data y have shape (animals, T), zero up to the first capture.

    Example:
        >>> import numpy as np
        >>> program = cormack_jolly_seber(np.array([0, 1]), 3).condition(y=np.array([[0, 1, 0], [0, 0, 0]]))
        >>> density = ppl.compile(program)
        >>> np.asarray(density.probabilities(np.zeros(2))["alive"][..., 1], float).round(4).tolist()
        [[1.0, 1.0, 0.3333], [1.0, 1.0, 0.3333]]
    """
    phi = ppl.sample("phi", dist.Uniform(0.0, 1.0))
    p = ppl.sample("p", dist.Uniform(0.0, 1.0))

    @ppl.plate("animal", jnp.asarray(first, jnp.int32))
    def animal(start):
        def step(alive, t):
            seen = t > start  # before and at its first capture an animal is alive by definition
            alive = ppl.sample("alive", dist.Bernoulli(jnp.where(seen, jnp.where(alive == 1, phi, 0.0), 1.0)))
            ppl.sample("y", dist.Bernoulli(jnp.where(seen & (alive == 1), p, 0.0)))
            return alive

        ppl.markov("occasion", step, init=1, xs=occasions)
