r"""A set of walkers moved in two halves: what all ensemble moves share.

The state is a set X = (x_1, ..., x_W) with the joint density ``prod_w pi(x_w)``. The walkers are put into a circle, cut
into two halves at a random place, and each half moves in turn while the other is held: every walker x of the moving
half proposes y from a law that may depend on the other half, and takes it with probability
``min(1, pi(y) / pi(x) * r)``, r the ratio of the reverse and forward densities of the proposal. Given the other half
this is a product of Metropolis steps, so the joint density is invariant, and all walkers of a half are evaluated at
once. As the two orders of the halves are equally likely, the whole transition is reversible.

References: Goodman and Weare, "Ensemble samplers with affine invariance" (2010); Foreman-Mackey et al., "emcee: the
MCMC hammer" (2013), for the halves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from .euclidean import uniform, words

Array = Any

Move = Callable[[Array, Array, Array], tuple[Array, Array]]
"""From a key, moving walkers (h, d) and the held ones (W - h, d) to proposals (h, d) and log r (h,)."""


@dataclass(frozen=True)
class EnsembleState:
    """Walkers, shape (W, d), and their log densities, shape (W,)."""

    position: Array
    log_density: Array


@dataclass(frozen=True)
class EnsembleInfo:
    """Share of the walkers that moved, expected (``acceptance_rate``), over the two halves."""

    acceptance_rate: Array


jax.tree_util.register_dataclass(EnsembleState, ["position", "log_density"], [])
jax.tree_util.register_dataclass(EnsembleInfo, ["acceptance_rate"], [])


def evaluate(position: Array, density: Any) -> EnsembleState:
    """Make the state of walkers, shape (W, d).

    Raises:
        ValueError: If there is no set of an even number of walkers, at least four.

    Example:
        >>> evaluate(jnp.ones((4, 2)), lambda z: -0.5 * jnp.sum(z**2)).log_density.tolist()
        [-1.0, -1.0, -1.0, -1.0]
    """
    shape = jnp.shape(position)
    if len(shape) != 2 or shape[0] < 4 or shape[0] % 2:
        raise ValueError(
            f"an ensemble move needs a set of walkers, shape (walkers, dim) with an even number of walkers, at least "
            f"4, not {shape}; infer(program, kernel) and mcmc.Ensemble(kernel) make one"
        )
    return EnsembleState(position, jax.vmap(density)(position))


def move_halves(key: Array, state: EnsembleState, density: Any, move: Move) -> tuple[EnsembleState, EnsembleInfo]:
    """Move both halves of the walkers in turn."""
    count = state.position.shape[0]
    shift = jax.lax.rem(words(key, 0)[0], jnp.uint32(count)).astype(jnp.int32)

    def body(i: Array, loop: Any) -> Any:
        x, log_density, rate = loop
        half = count // 2
        new = _move(jax.random.fold_in(key, i + 1), x[:half], log_density[:half], x[half:], density, move)
        x, log_density = jnp.concatenate([x[half:], new[0]]), jnp.concatenate([log_density[half:], new[1]])
        return x, log_density, rate + jnp.sum(new[2]) / count

    start = jnp.roll(state.position, -shift, axis=0), jnp.roll(state.log_density, -shift)
    x, log_density, rate = jax.lax.fori_loop(0, 2, body, (*start, jnp.zeros((), start[0].dtype)))
    return EnsembleState(jnp.roll(x, shift, axis=0), jnp.roll(log_density, shift)), EnsembleInfo(rate)


def _move(
    key: Array, x: Array, log_density: Array, others: Array, density: Any, move: Move
) -> tuple[Array, Array, Array]:
    """Move the walkers x given the others: new walkers, their log densities and acceptance probabilities."""
    propose, accept = jax.random.split(key)
    proposed, log_factor = move(propose, x, others)
    new = jax.vmap(density)(proposed)
    log_ratio = new - log_density + log_factor
    log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
    taken = jnp.log(uniforms(accept, 1, x)[0]) < log_ratio
    return (
        jnp.where(taken[:, None], proposed, x),
        jnp.where(taken, new, log_density),
        jnp.exp(jnp.minimum(log_ratio, 0.0)),
    )


def integers(key: Array, ranges: tuple[int, ...], x: Array) -> list[Array]:
    """For each range n one index below n per walker of x."""
    bits = jax.random.bits(key, (len(ranges), x.shape[0]), jnp.uint32)
    return [jax.lax.rem(row, jnp.full_like(row, n)).astype(jnp.int32) for row, n in zip(bits, ranges, strict=True)]


def uniforms(key: Array, count: int, x: Array) -> Array:
    """Uniform numbers in (0, 1], shape (count, walkers of x)."""
    return uniform(jax.random.bits(key, (count, x.shape[0]), jnp.uint32), x.dtype)
