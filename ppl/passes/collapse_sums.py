"""Sums of blocks over axes: the sums of their data, within codes where their latents were gathered by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .collapse_forms import Block, Index

Array = Any

GUARDED = 10_000
"""Entries up to which a latent that is multiplied by a zero of data may be infinite."""


def precisely(function: Callable, *arrays: Array) -> Any:
    """A function of data in double precision, its results in theirs; JAX need not be in double precision for it."""
    dtype = arrays[0].dtype
    if dtype != jnp.float32 or jax.default_backend() == "tpu":
        return function(*arrays)
    with jax.enable_x64(True):
        wide = [jax.lax.convert_element_type(x, jnp.float64) if x.dtype == dtype else x for x in arrays]
        return jax.tree.map(lambda x: jax.lax.convert_element_type(x, dtype), function(*wide))


def segments(x: Array, codes: Array, size: int) -> Array:
    """Sums of the entries of the first axis of ``x`` by code, in the precision of ``x``."""
    at = jax.lax.ScatterDimensionNumbers(tuple(range(1, x.ndim)), (0,), (0,))
    start = jax.lax.full((size, *x.shape[1:]), 0, x.dtype)
    return jax.lax.scatter_add(start, codes[:, None], x, at, mode=jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS)


def _grouped(x: Array, index: Index) -> Array:
    """Sums of data by code, the axis in its place."""
    moved = jnp.moveaxis(x, index.axis, 0)
    moved = jnp.broadcast_to(moved, (index.codes.shape[0], *moved.shape[1:]))
    total = precisely(partial(segments, size=index.size), moved, index.codes)
    return jnp.moveaxis(total, 0, index.axis)


def both(block: Block, rank: int) -> tuple[Array, Array]:
    """Latents and data of a block, ones where it has none."""
    like = block.data if block.latent is None else block.latent
    assert like is not None
    one = jax.lax.full((1,) * (rank + 1), 1, like.dtype)
    return one if block.latent is None else block.latent, one if block.data is None else block.data


def reduce_block(block: Block, axes: Sequence[int], shape: Sequence[int]) -> Block:
    """The sum of a block over axes."""
    latent, data = both(block, len(shape))
    index, sizes, broken = block.index, list(shape), None
    if index is not None and index.axis in axes:
        data, sizes[index.axis], broken = _grouped(data, index), index.size, index.broken
        index = None
    for axis in axes:
        if latent.shape[axis] == 1 and data.shape[axis] == 1:
            data = data * jnp.asarray(sizes[axis], data.dtype)
        elif latent.shape[axis] == 1:
            data = precisely(partial(jnp.sum, axis=axis, keepdims=True), data)
        elif data.shape[axis] == 1:
            latent = jnp.sum(latent, axis=axis, keepdims=True)
        else:
            width = max(latent.shape[-1], data.shape[-1])
            latent, data = (_into_last(x, axis, width) for x in (latent, data))
    gone = sorted(axes)
    latent, data = jnp.squeeze(latent, gone), jnp.squeeze(data, gone)
    if index is not None:
        index = replace(index, axis=index.axis - sum(a < index.axis for a in gone))
    if data.shape == latent.shape and data.size <= GUARDED:  # 0 times infinity is 0: nothing was observed there
        latent = jnp.where(data == 0, jnp.zeros_like(latent), latent)
    if all(n == 1 for n in data.shape[:-1]):
        total = contract(latent, data)
        return Block((total if broken is None else total + broken)[..., None], None, index)
    if broken is not None:
        data = data + broken
    return Block(latent if block.latent is not None else None, data, index)


def _into_last(x: Array, axis: int, width: int) -> Array:
    """The axis moved into the last one, of length ``width``."""
    x = jnp.broadcast_to(x, (*x.shape[:-1], width))
    return jnp.expand_dims(jnp.moveaxis(x, axis, -1).reshape(*_without(x.shape, axis)[:-1], -1), axis)


def _without(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    return tuple(n for a, n in enumerate(shape) if a != axis)


def contract(latent: Array, data: Array) -> Array:
    """``sum_k latent[..., k] data[..., k]``."""
    if data.shape[-1] == 1 or latent.shape[-1] == 1:
        return jnp.sum(latent * data, axis=-1)
    if all(n == 1 for n in latent.shape[:-1]):
        return jnp.matmul(data, latent.reshape(-1))
    if all(n == 1 for n in data.shape[:-1]):
        return jnp.matmul(latent, data.reshape(-1))
    return jnp.sum(latent * data, axis=-1)
