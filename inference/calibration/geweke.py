r"""Joint-distribution test of a kernel on a model.

The joint law ``p(theta) p(y | theta)`` is left invariant by: move theta with a kernel that leaves
``p(theta | y)`` invariant, then draw y afresh given theta. Replications start at independent exact draws of the
joint law, alternate some times, and end at (theta, y); the rank of any g(theta, y) among as many fresh exact draws is
uniform if and only if prior, simulator, log density, log-determinants and kernel agree. Independent
replications make the p-values exact without an estimate of autocorrelation.

References: Geweke, "Getting it right" (2004); Gandy and Scott, "Unit testing for MCMC ..." (2020).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ..core import host_rng
from .rank import RankResult, break_ties, compare, uniformity

Array = Any


def geweke(
    kernel: Any,
    prior: Callable[[Array], Array],
    simulate: Callable[[Array, Array], Any],
    posterior: Callable[[Any], Any],
    test_functions: Callable[[Array, Any], Array],
    replications: int = 4096,
    steps: int = 7,
    seed: int = 0,
) -> RankResult:
    """Run the joint-distribution test.

    Args:
        kernel: The kernel, tuned.
        prior: Maps a key to an unconstrained position (d,).
        simulate: Maps a key and a position to data.
        posterior: Maps data to the log density of positions given them, up to a constant.
        test_functions: Maps a position and data to a vector of numbers.
        replications: Independent repetitions.
        steps: Alternations in each.
        seed: Seed.

    Returns:
        Ranks and p-values; ``passed(alpha)`` fails for a correct model and kernel with probability alpha.

    Example:
        >>> import jax.numpy as jnp
        >>> from ppl.inference.mcmc import HMC
        >>> result = geweke(
        ...     HMC(0.5),
        ...     lambda key: jax.random.normal(key, (1,)),
        ...     lambda key, z: z + jax.random.normal(key, (1,)),
        ...     lambda y: lambda z: -0.5 * jnp.sum(z**2 + (y - z) ** 2),
        ...     lambda z, y: jnp.concatenate([z, z * y]),
        ...     replications=512,
        ... )
        >>> result.passed()
        True
    """

    def joint(key: Array) -> tuple[Array, Any]:
        first, second = jax.random.split(key)
        position = prior(first)
        return position, simulate(second, position)

    def alternate(pair: tuple[Array, Any], key: Array) -> tuple[tuple[Array, Any], None]:
        first, second = jax.random.split(key)
        density = posterior(pair[1])
        state, _ = kernel.step(first, kernel.init(pair[0], density), density)
        return (state.position, simulate(second, state.position)), None

    @jax.jit
    @jax.vmap
    def count(key: Array) -> tuple[Array, Array]:
        draw, moves, fresh = jax.random.split(key, 3)
        pair, _ = jax.lax.scan(alternate, joint(draw), jax.random.split(moves, steps))
        others = jax.vmap(joint)(jax.random.split(fresh, steps))
        return compare(lambda pair: test_functions(*pair), pair, others)

    rng = host_rng(seed, 2)
    keys = jax.random.wrap_key_data(rng.integers(2**32, size=(replications, 2), dtype=np.uint32), impl="threefry2x32")
    ranks = break_ties(rng, *count(keys))
    return RankResult(ranks, steps + 1, uniformity(ranks, steps + 1))
