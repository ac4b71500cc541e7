r"""What the kernels with an accept or reject step share, gradients or not.

From x a proposal y with density q(x, y) is accepted with probability ``min(1, pi(y) q(y, x) / (pi(x) q(x, y)))``.
Whatever is not finite, the ratio or anything in the proposed state, is a rejection: a chain never leaves the support.

References: Metropolis et al., "Equation of state calculations by fast computing machines" (1953); Hastings, "Monte
Carlo sampling methods using Markov chains and their applications" (1970).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from . import euclidean

Array = Any


@dataclass(frozen=True)
class Point:
    """A position with its log density: the state of kernels that follow no gradient."""

    position: Array
    log_density: Array


@dataclass(frozen=True)
class MoveInfo:
    """The probability with which the proposal was accepted."""

    acceptance_rate: Array


jax.tree_util.register_dataclass(Point, ["position", "log_density"], [])
jax.tree_util.register_dataclass(MoveInfo, ["acceptance_rate"], [])


def point(position: Array, density: Any) -> Point:
    """Make the state at a position.

    Example:
        >>> float(point(jnp.ones(2), lambda z: -z @ z).log_density)
        -2.0
    """
    return Point(position, density(position))


def usable(log_ratio: Array, proposed: Any) -> Array:
    """The log ratio, or -inf where it is NaN or any number of the proposed state is not finite.

    Example:
        >>> float(usable(jnp.array(1.0), Point(jnp.ones(2), jnp.array(jnp.inf))))
        -inf
    """
    good = ~jnp.isnan(log_ratio)
    for leaf in jax.tree.leaves(proposed):
        if jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            good = good & jnp.all(jnp.isfinite(leaf))
    return jnp.where(good, log_ratio, -jnp.inf)


def keep(log_uniform: Array, log_ratio: Array) -> Array:
    """Metropolis test."""
    return log_uniform < log_ratio


def decide(uniform: Array, log_ratio: Array, proposed: Any, state: Any) -> tuple[Any, MoveInfo]:
    """Accept or reject a proposed state.

    Args:
        uniform: A uniform number in (0, 1].
        log_ratio: Logarithm of the ratio of Hastings.
        proposed: The proposed state.
        state: The present state.

    Returns:
        The next state, and the probability of acceptance.
    """
    log_ratio = usable(log_ratio, proposed)
    accept = keep(jnp.log(uniform), log_ratio)
    new = jax.tree.map(lambda a, b: jnp.where(accept, a, b), proposed, state)
    return new, MoveInfo(jnp.exp(jnp.minimum(log_ratio, 0.0)))


def one_uniform(key: Array, dtype: Any, counter: Array = 0) -> Array:
    """One uniform number in (0, 1] that belongs to (key, counter), with counters below 2^24."""
    return euclidean.uniform(euclidean.words(key, counter)[0], dtype)


_UNIFORM = 1 << 25
"""Counters from here on belong to ``uniforms``."""


def uniforms(key: Array, like: Array) -> Array:
    """Independent uniform numbers in (0, 1], of the shape (d,) and dtype of ``like``.

    On a CPU the cipher runs in a rolled loop, as in ``euclidean.draw_momentum``.

    Example:
        >>> bool(jnp.all(uniforms(jax.random.key(0), jnp.zeros(5)) <= 1.0))
        True
    """

    def rolled(key: Array, like: Array) -> Array:
        half = (like.shape[0] + 1) // 2
        counters = jnp.arange(_UNIFORM, _UNIFORM + half, dtype=jnp.uint32)
        pairs = jax.lax.map(lambda i: euclidean.words(key, i), counters)
        return euclidean.uniform(pairs.reshape(-1)[: like.shape[0]], like.dtype)

    def vector(key: Array, like: Array) -> Array:
        words = jax.random.bits(jax.random.fold_in(key, _UNIFORM), like.shape, jnp.uint32)
        return euclidean.uniform(words, like.dtype)

    return jax.lax.platform_dependent(key, like, cpu=rolled, default=vector)
