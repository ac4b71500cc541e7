"""Many independent densities that are evaluated together.

Elements i of a plate have log densities f_i(x_i) that one evaluation of the whole model gives all at once, and, as they
do not read each other, one gradient of their sum gives all gradients. A kernel is written for one of them and mapped
over i; where the map is, the evaluations of all elements at one stage of the kernel become one of the model. So the
elements cost one evaluation of the model together, also where a part of the model that they do not stand in reads
them, each at its own place.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Array = Any


@jax.custom_vjp
def value(whole: Any, index: Array, x: Array) -> Array:
    """Log density f_i(x) of element i; mapped over all i, in order, one evaluation gives all.

    Args:
        whole: A pytree with ``start()``, present values (n, d), ``scores(x)``, all log densities (n,), and ``count``.
        index: The element i.
        x: Shape (..., d).

    Returns:
        Shape (...).
    """
    return _value(whole, index, x)


def _forward(whole: Any, index: Array, x: Array) -> tuple[Array, Array]:
    return _both(whole, index, x)


def _backward(gradient: Array, cotangent: Array) -> tuple[None, None, Array]:
    return None, None, cotangent[..., None] * gradient


value.defvjp(_forward, _backward)


def _alone(whole: Any, index: Array, x: Array) -> Array:
    """By itself, an element costs an evaluation of them all."""
    start = whole.start().astype(x.dtype)
    here = jnp.arange(start.shape[0], dtype=jnp.int32)[:, None] == index

    def one(row: Array) -> Array:
        return whole.scores(jnp.where(here, row, start))[index]

    return jax.vmap(one)(x.reshape(-1, x.shape[-1])).reshape(x.shape[:-1])


def _alone_with_gradient(whole: Any, index: Array, x: Array) -> tuple[Array, Array]:
    total, pull = jax.vjp(lambda x: _alone(whole, index, x), x)
    return total, pull(jnp.ones_like(total))[0]


def _all(whole: Any, x: Array) -> Array:
    """All elements at ``x`` of shape (n, ..., d): shape (n, ...)."""
    count, *middle, dim = x.shape
    rows = jnp.moveaxis(x.reshape(count, -1, dim), 1, 0)
    return jnp.moveaxis(jax.vmap(whole.scores)(rows), 0, 1).reshape(count, *middle)


def _all_with_gradient(whole: Any, x: Array) -> tuple[Array, Array]:
    total, pull = jax.vjp(lambda x: _all(whole, x), x)
    return total, pull(jnp.ones_like(total))[0]


def _mapped(alone: Any, every: Any) -> Any:
    """A function of one element, with the rule by which it is mapped."""
    function = jax.custom_batching.custom_vmap(alone)

    @function.def_vmap
    def rule(size: int, batched: Any, whole: Any, index: Array, x: Array) -> Any:
        by_whole, by_index, by_x = batched
        several = jax.tree.map(
            lambda _: True, jax.eval_shape(alone, _first(whole, by_whole), *_ends(index, x, batched))
        )
        if not any(jax.tree.leaves(by_whole)) and not by_index:
            return function(whole, index, x), several
        if not any(jax.tree.leaves(by_whole)) and size == whole.count:
            return every(whole, x if by_x else jnp.broadcast_to(x, (size, *x.shape))), several
        axes = jax.tree.map(lambda on: 0 if on else None, batched)
        return jax.vmap(alone, in_axes=axes)(whole, index, x), several

    return function


def _first(whole: Any, batched: Any) -> Any:
    return jax.tree.map(lambda leaf, on: leaf[0] if on else leaf, whole, batched)


def _ends(index: Array, x: Array, batched: Any) -> tuple[Array, Array]:
    return index[0] if batched[1] else index, x[0] if batched[2] else x


_value = _mapped(_alone, _all)
_both = _mapped(_alone_with_gradient, _all_with_gradient)
