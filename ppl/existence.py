"""Elements that do not exist: the padding of a ragged plate.

A frame's ``on`` says whether the current element exists. One that does not contributes nothing: its factors are zero,
its latent sites are standard normal on the unconstrained scale, and nothing else depends on them, so that the density
is that of the existing elements times a proper one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from .trace import Frame

Array = Any


def both(a: Array | None, b: Array | None) -> Array | None:
    """Whether an element exists in both senses; None stands for yes."""
    if a is None or b is None:
        return b if a is None else a
    return jnp.logical_and(a, b)


def counted(frame: Frame, factor: Array) -> Array:
    """A log factor, zero where the element does not exist, for all elements that it stands for in a minibatch."""
    if frame.scale is not None:
        factor = factor * jnp.asarray(frame.scale, factor.dtype)
    return factor if frame.on is None else jnp.where(frame.on, factor, jnp.zeros_like(factor))


def apart(frame: Frame, free: Array) -> Array:
    """An unconstrained value, a constant where the element does not exist."""
    return free if frame.on is None else jnp.where(frame.on, free, jnp.zeros_like(free))


def proper(frame: Frame, free: Array, logdet: Array) -> Array:
    """A log-determinant, the log density of standard normals where the element does not exist."""
    if frame.on is None:
        return logdet
    normal = -0.5 * jnp.sum(free**2) - 0.5 * free.size * math.log(2 * math.pi)
    return jnp.where(frame.on, logdet, normal.astype(logdet.dtype))


def drawn(frame: Frame, key: Array | None, free: Array) -> Array:
    """An unconstrained value that was found from a draw; standard normal where the element does not exist."""
    if frame.on is None:
        return free
    other = jnp.zeros_like(free) if key is None else jax.random.normal(key, free.shape, free.dtype)
    return jnp.where(frame.on, free, other)


def blank(on: Array | None, tree: Any) -> Any:
    """What an element of a plate returns, zeros where it does not exist."""
    if on is None:
        return tree
    return jax.tree_util.tree_map(lambda leaf: jnp.where(on, leaf, jnp.zeros_like(leaf)), tree)
