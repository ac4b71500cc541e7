"""Rules of collapse for primitives that move axes, contract them or gather along them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .collapse_forms import TABLED, Block, Form, Index, move, table
from .collapse_rows import gather_axis, kept_axes

Array = Any


def table_without(x: Array, form: Form, axes: Sequence[int], shape: Sequence[int]) -> Form:
    """The table ``x`` of a pure form that has lost ``axes``."""
    index = form.index
    if index is not None:
        index = Index(index.codes, index.size, index.axis - sum(a < index.axis for a in axes), index.mark, index.broken)
    return table(x, shape, index)


def _pure(reader: Any, atom: Any) -> Form:
    """The operand as a table: as it is read, or as the program computes it."""
    form = reader.form(atom)
    return form if form.pure else table(reader.value(atom))


def broadcast(reader: Any, eqn: Any) -> Form | None:
    """``broadcast_in_dim``."""
    dims = eqn.params["broadcast_dimensions"]
    return move(reader.form(eqn.invars[0]), eqn.params["shape"], dict(enumerate(map(int, dims))))


def reshape(reader: Any, eqn: Any) -> Form | None:
    """``reshape`` and ``squeeze``, as far as axes of length one come and go."""
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    where = kept_axes(before, after)
    if where is None or (eqn.primitive.name == "reshape" and eqn.params.get("dimensions") is not None):
        return None
    form = reader.form(eqn.invars[0])
    indices = [b.index for b in (*form.blocks, *(x for s in form.squares for x in (s.scale, *s.blocks)))]
    return None if any(i is not None and i.axis not in where for i in indices) else move(form, after, where)


def transpose(reader: Any, eqn: Any) -> Form | None:
    """``transpose``."""
    where = {int(old): new for new, old in enumerate(eqn.params["permutation"])}
    return move(reader.form(eqn.invars[0]), eqn.outvars[0].aval.shape, where)


def dot(reader: Any, eqn: Any) -> Form | None:
    """``dot_general`` of data and a table of latents."""
    data = [reader.is_data(v) for v in eqn.invars]
    if data[0] == data[1]:
        return None
    contract, batch = eqn.params["dimension_numbers"]
    form = _pure(reader, eqn.invars[data.index(False)])
    side = data.index(False)
    if form.index is not None and form.index.axis in contract[side]:
        return None
    shape, count = eqn.outvars[0].aval.shape, len(batch[0])
    free = [
        [a for a in range(v.aval.ndim) if a not in c and a not in b]
        for v, c, b in zip(eqn.invars, contract, batch, strict=True)
    ]
    width = math.prod(eqn.invars[0].aval.shape[a] for a in contract[0])

    def place(x: Array, k: int) -> tuple[Array, dict[int, int]]:
        """An operand as (axes of the output..., contracted), and where its axes went."""
        where = {int(a): i for i, a in enumerate(batch[k])}
        start = count + (len(free[0]) if k else 0)
        where |= {a: start + i for i, a in enumerate(free[k])}
        full = [eqn.invars[k].aval.shape[a] if a in contract[k] else x.shape[a] for a in range(x.ndim)]
        x = jnp.broadcast_to(x, full)
        order = sorted(where, key=lambda a: where[a])
        x = jnp.transpose(x, [*order, *map(int, contract[k])])
        sizes = [1] * len(shape)
        for position, a in enumerate(order):
            sizes[where[a]] = x.shape[position]
        return x.reshape(*sizes, width), where

    latent, where = place(form.latent, side)
    known, _ = place(reader.value(eqn.invars[1 - side]), 1 - side)
    index = form.index
    if index is not None:
        index = Index(index.codes, index.size, where[index.axis], index.mark, index.broken)
    return Form(tuple(shape), (Block(latent, known, index),))


def _codes(eqn: Any, x: Array, size: int) -> tuple[Array, Array | None] | None:
    """Codes within a table, and NaN where one is outside and the program asks for NaN."""
    mode, fill = eqn.params["mode"], eqn.params["fill_value"]
    modes = jax.lax.GatherScatterMode
    codes = jnp.clip(x, 0, size - 1).astype(jnp.int32)
    if mode in (modes.CLIP, modes.PROMISE_IN_BOUNDS):
        return codes, None
    if mode != modes.FILL_OR_DROP or not (fill is None or fill != fill):
        return None
    dtype = eqn.outvars[0].aval.dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        return None
    outside = jnp.any((x < 0) | (x >= size))
    return codes, jnp.where(outside, jnp.asarray(jnp.nan, dtype), jnp.zeros((), dtype))


def gather(reader: Any, eqn: Any) -> Form | None:
    """``gather`` of a table of latents by codes that are data, and of one entry of each row of a table."""
    operand, indices = eqn.invars
    if not reader.is_data(indices) or reader.is_data(operand):
        return None
    numbers, shape = eqn.params["dimension_numbers"], eqn.outvars[0].aval.shape
    if numbers.operand_batching_dims:
        return _picked(reader, eqn)
    found, form = gather_axis(eqn), _pure(reader, operand)
    if found is None or form.index is not None:
        return None
    axis, at = found
    kept = [a for a in range(operand.aval.ndim) if a not in numbers.collapsed_slice_dims]
    where = {a: int(numbers.offset_dims[i]) for i, a in enumerate(kept) if a != axis} | {axis: at}
    column = numbers.start_index_map.index(axis)
    codes = _codes(eqn, reader.value(indices)[..., column].reshape(-1), operand.aval.shape[axis])
    if codes is None:
        return None
    latent = form.latent
    full = [operand.aval.shape[a] if a == axis else latent.shape[a] for a in range(latent.ndim)]
    moved = move(table(jnp.broadcast_to(latent, full)), shape, where)
    mark = (reader.same(indices), column, operand.aval.shape[axis], str(eqn.params["mode"]))
    return table(moved.latent, shape, Index(codes[0], operand.aval.shape[axis], at, mark, codes[1]))


def _picked(reader: Any, eqn: Any) -> Form | None:
    """From each row of a (n, K) table one entry: a product with zeros and a one."""
    operand, indices = eqn.invars
    numbers, shape = eqn.params["dimension_numbers"], eqn.outvars[0].aval.shape
    simple = (
        operand.aval.ndim == 2
        and tuple(numbers.operand_batching_dims) == tuple(numbers.start_indices_batching_dims) == (0,)
        and tuple(numbers.start_index_map) == tuple(numbers.collapsed_slice_dims) == (1,)
        and not numbers.offset_dims
        and indices.aval.shape[1:] == (1,) * (indices.aval.ndim - 1)
    )
    form = _pure(reader, operand)
    if not simple or (form.index is not None and form.index.axis != 0):
        return None
    size = operand.aval.shape[1]
    if operand.aval.shape[0] * size > TABLED:
        return None
    found = _codes(eqn, reader.value(indices).reshape(-1), size)
    if found is None:
        return None
    codes, broken = found
    dtype = eqn.outvars[0].aval.dtype
    hot = (codes[:, None] == jnp.arange(size, dtype=codes.dtype)).astype(dtype)
    hot = hot if broken is None else hot + broken
    latent = jnp.broadcast_to(form.latent, (form.latent.shape[0], size))
    middle = (1,) * (len(shape) - 1)
    block = Block(latent.reshape(latent.shape[0], *middle, size), hot.reshape(hot.shape[0], *middle, size), form.index)
    return Form(tuple(shape), (block,))


RULES: dict[str, Callable] = {
    "broadcast_in_dim": broadcast,
    "reshape": reshape,
    "squeeze": reshape,
    "transpose": transpose,
    "dot_general": dot,
    "gather": gather,
}
