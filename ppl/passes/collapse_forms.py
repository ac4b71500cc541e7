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
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

Array = Any

TABLED = 20_000_000
"""Zeros and ones up to which codes are written as a table."""


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
    """``scale * weight * sum over inner axes of (sum of blocks)^2``.

    Attributes:
        scale: A block without data.
        weight: Data, or None for one.
        blocks: What is squared; their axes are those of the form, then the inner ones.
        inner: Lengths of axes over which the square is summed already.
    """

    scale: Block
    weight: Array | None
    blocks: tuple[Block, ...]
    inner: tuple[int, ...] = ()


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

    def cut(block: Block, inner: int = 0) -> Block:
        data = jnp.broadcast_to(one, (1,) * (keep.ndim + inner + 1)) if block.data is None else block.data
        here = keep.reshape(*keep.shape, *(1,) * (inner + 1))
        return replace(block, data=jnp.where(here, data, jnp.zeros_like(data)))

    def cut_square(square: Square) -> Square:
        return replace(square, blocks=tuple(cut(b, len(square.inner)) for b in square.blocks))

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
    old, new = len(form.shape), len(shape)

    def block(b: Block, inner: int = 0) -> Block:
        index = None if b.index is None else replace(b.index, axis=where[b.index.axis])
        there = where | {old + i: new + i for i in range(inner)}
        return Block(_place(b.latent, new + inner, there), _place(b.data, new + inner, there), index)

    def square(s: Square) -> Square:
        weight = None if s.weight is None else first(_place(last(s.weight), new, where))
        return Square(block(s.scale), weight, tuple(block(b, len(s.inner)) for b in s.blocks), s.inner)

    return Form(tuple(shape), tuple(block(b) for b in form.blocks), tuple(square(s) for s in form.squares))


def inwards(square: Square, axes: Sequence[int], shape: Sequence[int]) -> Square | None:
    """The square summed over axes, these made inner ones; None where scale, weight or codes vary along them."""
    heads = [x for x in (square.scale.latent, square.weight) if x is not None]
    indices = [b.index for b in square.blocks if b.index is not None]
    if any(x.shape[a] != 1 for x in heads for a in axes) or any(i.axis in axes for i in indices):
        return None
    left = [a for a in range(len(shape)) if a not in axes]
    where = {a: i for i, a in enumerate(left)}
    deeper = {a: len(left) + len(square.inner) + i for i, a in enumerate(axes)}
    outer = move(Form(tuple(shape), (), (replace(square, blocks=(), inner=()),)), [shape[a] for a in left], where)
    before = {len(shape) + i: len(left) + i for i in range(len(square.inner))}
    everywhere = where | deeper | before
    blocks = tuple(
        Block(
            _place(b.latent, len(everywhere), everywhere),
            _place(b.data, len(everywhere), everywhere),
            None if b.index is None else replace(b.index, axis=where[b.index.axis]),
        )
        for b in square.blocks
    )
    inner = (*square.inner, *(shape[a] for a in axes))
    return replace(outer.squares[0], blocks=blocks, inner=inner)
