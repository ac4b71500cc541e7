"""The algebra of collapse: arrays as short sums of (what reads latents) times (what reads only data).

An array x of a traced program is held as

    x_i = sum_k L_k[c_i] D_k[i]  +  sum_q s_q[c_i] w_q[i] (sum_k L_qk[c_i] D_qk[i])^2

where the L and s read latent variables, the D and w only data, and c are codes by which latents were gathered (None
where there are none). Sums and products of such forms are forms; the sum over i needs of the data no more than the
sums of D_k over i (within a code), and the triangular factor of the D_qk (``collapse_squares``). Both depend on data
alone and move to the time when data are bound.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

Array = Any

GUARDED = 10_000


@dataclass(frozen=True)
class Index:
    """Codes by which an axis of a latent table was gathered to an axis of observations.

    Attributes:
        codes: Codes in [0, size), one for each observation.
        size: Length of the table.
        axis: The axis of observations.
        mark: What tells two indices apart.
        broken: 0, or NaN where a code lay outside of the table and the program asks for NaN then.
    """

    codes: Array
    size: int
    axis: int
    mark: Hashable
    broken: Array | None = None


@dataclass(frozen=True)
class Block:
    """``sum_k latent[..., k] * data[..., k]``; each axis but the last has length 1, or that of the form.

    On the axis of an index ``latent`` has the length of the table.

    Attributes:
        latent: What reads latents; None for one.
        data: What reads only data; None for one.
        index: The codes of ``latent``.
    """

    latent: Array | None
    data: Array | None
    index: Index | None = None

    @property
    def width(self) -> int:
        """Number of products."""
        return max(x.shape[-1] for x in (self.latent, self.data) if x is not None)


@dataclass(frozen=True)
class Square:
    """``scale * weight * (sum of blocks)^2``.

    Attributes:
        scale: A block without data.
        weight: Data, or None for one.
        blocks: What is squared.
    """

    scale: Block
    weight: Array | None
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Form:
    """An array as a sum of blocks and squares.

    Attributes:
        shape: Its shape.
        blocks: The linear part.
        squares: The quadratic part.
    """

    shape: tuple[int, ...]
    blocks: tuple[Block, ...]
    squares: tuple[Square, ...] = ()

    @property
    def pure(self) -> bool:
        """Whether it is one table of latents, perhaps gathered."""
        return not self.squares and len(self.blocks) == 1 and self.blocks[0].data is None

    @property
    def index(self) -> Index | None:
        """The codes of a pure form."""
        return self.blocks[0].index

    @property
    def latent(self) -> Array:
        """The table of a pure form."""
        return first(self.blocks[0].latent)

    @property
    def single(self) -> bool:
        """Whether it is one product of latents and data."""
        return not self.squares and len(self.blocks) == 1 and self.blocks[0].width == 1


def first(x: Array) -> Array:
    """The array without its last axis, which has length one."""
    return jax.lax.squeeze(x, (x.ndim - 1,))


def last(x: Array) -> Array:
    """The array with a last axis of length one."""
    return jax.lax.expand_dims(x, (x.ndim,))


def table(x: Array, shape: Sequence[int] | None = None, index: Index | None = None) -> Form:
    """The pure form of an array."""
    return Form(tuple(x.shape if shape is None else shape), (Block(last(x), None, index),))


def known(x: Array) -> Form:
    """The form of an array of data."""
    if math.prod(x.shape) == 1:
        return table(x)
    return Form(tuple(x.shape), (Block(None, last(x)),))


def rank(form: Form, shape: Sequence[int]) -> Form:
    """The form with the rank of ``shape``, a scalar getting axes of length one."""
    return form if len(form.shape) == len(shape) else move(form, tuple(1 for _ in shape), {})


def _times(a: Array | None, b: Array | None) -> Array | None:
    return b if a is None else a if b is None else a * b


def _plus(a: Array | None, b: Array | None) -> Array | None:
    return b if a is None else a if b is None else a + b


def agree(blocks: Sequence[Block]) -> bool:
    """Whether the latents of blocks are tables by the same codes, or do not vary along the axis of these."""
    index = next((b.index for b in blocks if b.index is not None), None)
    if index is None:
        return True
    return all(
        b.latent is None or b.latent.shape[index.axis] == 1
        if b.index is None
        else (b.index.mark, b.index.axis) == (index.mark, index.axis)
        for b in blocks
    )


def _scaled(block: Block, by: Block) -> Block | None:
    """Product of a block and one of width one, None where their codes differ."""
    if not agree((block, by)):
        return None
    latent = _times(block.latent, by.latent)
    return Block(latent, _times(block.data, by.data), block.index or by.index)


def add(a: Form, b: Form, shape: Sequence[int]) -> Form:
    """The sum of two forms; their pure parts, and their parts without latents, are put together."""
    every = (*rank(a, shape).blocks, *rank(b, shape).blocks)
    merged: list[Block] = []
    for block in sorted((x for x in every if x.data is None), key=lambda x: x.index is None):
        for i, other in enumerate(merged):
            if agree((other, block)):
                merged[i] = Block(_plus(other.latent, block.latent), None, other.index or block.index)
                break
        else:
            merged.append(block)
    rest = [x for x in every if x.data is not None and x.latent is not None]
    fixed = functools.reduce(_plus, (x.data for x in every if x.latent is None), None)
    rest += [] if fixed is None else [Block(None, fixed)]
    squares = (*rank(a, shape).squares, *rank(b, shape).squares)
    return Form(tuple(shape), (*merged, *rest), squares)


def scale(form: Form, by: Form, shape: Sequence[int]) -> Form | None:
    """The product of a form and one that is a single product; None where their codes differ."""
    form, factor = rank(form, shape), rank(by, shape).blocks[0]
    blocks = [_scaled(block, factor) for block in form.blocks]
    squares: list[Square | None] = []
    for square in form.squares:
        head = _scaled(square.scale, replace(factor, data=None))
        weight = _times(square.weight, None if factor.data is None else first(factor.data))
        squares.append(None if head is None else replace(square, scale=head, weight=weight))
    if None in blocks or None in squares:
        return None
    return Form(tuple(shape), tuple(blocks), tuple(squares))  # type: ignore[arg-type]


def multiply(a: Form, b: Form, shape: Sequence[int]) -> Form | None:
    """The product of two forms, where it is one."""
    if b.single:
        return scale(a, b, shape)
    if a.single:
        return scale(b, a, shape)
    return None


def each(form: Form, latent: Any, data: Any) -> Form:
    """A single product with a function applied to what reads latents, and one to what reads data."""
    block = form.blocks[0]
    return Form(
        form.shape,
        (
            Block(
                None if block.latent is None else latent(block.latent),
                None if block.data is None else data(block.data),
                block.index,
            ),
        ),
    )


def negative(form: Form) -> Form:
    """Minus the form."""
    return linear(form, lambda x: -x)


def linear(form: Form, function: Any) -> Form:
    """A linear elementwise function of a form."""
    blocks = tuple(
        replace(b, data=function(b.data)) if b.latent is None else replace(b, latent=function(b.latent))
        for b in form.blocks
    )
    squares = tuple(replace(s, scale=replace(s.scale, latent=function(s.scale.latent))) for s in form.squares)
    return Form(form.shape, blocks, squares)


def squared(form: Form, one: Array) -> Form | None:
    """The square of a form."""
    if form.squares:
        return None
    if form.single:
        return each(form, lambda x: x * x, lambda x: x * x)
    head = Block(jnp.broadcast_to(one, (1,) * (len(form.shape) + 1)), None)
    return Form(form.shape, (), (Square(head, None, form.blocks),))


def masked(form: Form, keep: Array, one: Array) -> Form:
    """The form where ``keep``, an array of data, and zero elsewhere."""

    def cut(block: Block) -> Block:
        data = jnp.broadcast_to(one, (1,) * (keep.ndim + 1)) if block.data is None else block.data
        return replace(block, data=jnp.where(last(keep), data, jnp.zeros_like(data)))

    def cut_square(square: Square) -> Square:
        return replace(square, blocks=tuple(cut(b) for b in square.blocks))

    return Form(form.shape, tuple(cut(b) for b in form.blocks), tuple(cut_square(s) for s in form.squares))


# ---------------------------------------------------------------------------------------------- moving axes


def _place(x: Array | None, rank: int, where: dict[int, int]) -> Array | None:
    if x is None:
        return None
    order = sorted(where, key=lambda a: where[a])
    x = jnp.transpose(x, [*order, *(a for a in range(x.ndim - 1) if a not in where), x.ndim - 1])
    shape = [1] * rank + [x.shape[-1]]
    for position, old in enumerate(order):
        shape[where[old]] = x.shape[position]
    return x.reshape(shape)


def move(form: Form, shape: Sequence[int], where: dict[int, int]) -> Form:
    """The form with its axes ``a`` at ``where[a]``; axes that are not named have length one, new ones are broadcast."""

    def block(b: Block) -> Block:
        index = None if b.index is None else replace(b.index, axis=where[b.index.axis])
        return Block(_place(b.latent, len(shape), where), _place(b.data, len(shape), where), index)

    def square(s: Square) -> Square:
        weight = None if s.weight is None else first(_place(last(s.weight), len(shape), where))
        return Square(block(s.scale), weight, tuple(block(b) for b in s.blocks))

    return Form(tuple(shape), tuple(block(b) for b in form.blocks), tuple(square(s) for s in form.squares))


# ---------------------------------------------------------------------------------------------- sums


def precise(x: Array) -> Any:
    """A context in which statistics of data are computed in double precision."""
    double = x.dtype == jnp.float64 or not jnp.issubdtype(x.dtype, jnp.floating) or jax.default_backend() == "tpu"
    return nullcontext() if double else jax.enable_x64(True)


def _summed(x: Array, axis: int) -> Array:
    """Sum of data over an axis that stays, in double precision."""
    with precise(x) as context:
        wide = x if context is None else jax.lax.convert_element_type(x, jnp.float64)
        return jax.lax.convert_element_type(jnp.sum(wide, axis=axis, keepdims=True), x.dtype)


def segments(x: Array, codes: Array, size: int) -> Array:
    """Sums of the entries of the first axis of ``x`` by code, in the precision of ``x``."""
    at = jax.lax.ScatterDimensionNumbers(tuple(range(1, x.ndim)), (0,), (0,))
    start = jax.lax.full((size, *x.shape[1:]), 0, x.dtype)
    return jax.lax.scatter_add(start, codes[:, None], x, at, mode=jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS)


def _grouped(x: Array, index: Index) -> Array:
    """Sums of data by code, the axis in its place."""
    moved = jnp.moveaxis(x, index.axis, 0)
    moved = jnp.broadcast_to(moved, (index.codes.shape[0], *moved.shape[1:]))
    with precise(x) as context:
        wide = moved if context is None else jax.lax.convert_element_type(moved, jnp.float64)
        total = jax.lax.convert_element_type(segments(wide, index.codes, index.size), x.dtype)
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
            data = _summed(data, axis)
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
