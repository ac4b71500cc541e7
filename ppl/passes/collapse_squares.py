"""Sums of squares of affine forms, by orthogonal factors.

With D = Q R and Q'Q = I,  sum_i (sum_k L_k D_ik)^2 = |D L|^2 = |R L|^2, whatever the rank of D: for a Gaussian
likelihood D holds the regressors and the data, and |R L|^2 is |Q'(y - c) - R v|^2 plus the residual sum of squares.
Where some L are gathered by codes, columns under one code are made orthogonal first (modified Gram and Schmidt, which
is as stable as Householder's for this; Bjorck, 1967), which leaves a small triangle for each code and one for the rest:
the group statistics n_j, mean_j and the sum of squares within groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from .collapse_forms import TABLED, Block, Index, Square
from .collapse_sums import precisely, segments

Array = Any

DENSEST = 64
"""Codes up to which a second gathered latent becomes as many columns of zeros and ones."""
SMALL = 8
"""Such columns up to which all gathered latents become columns."""
LARGEST = 4e9
"""Operations of a factorisation up to which it is made when data are bound."""


@dataclass(frozen=True)
class _Layout:
    """Which axes of a square become rows, which stay.

    Attributes:
        shape: Shape of what is squared.
        rows: Axes that are summed in a factorisation.
        rest: The other axes.
        index: Codes along one of the rows, or None.
    """

    shape: tuple[int, ...]
    rows: tuple[int, ...]
    rest: tuple[int, ...]
    index: Index | None

    @property
    def count(self) -> int:
        """Number of rows."""
        return math.prod(self.shape[a] for a in self.rows)

    def columns(self, data: Array | None, one: Array, lead: Sequence[int]) -> Array:
        """Data as (rest..., rows, K), axes of ``rest`` having the lengths ``lead``."""
        data = jnp.broadcast_to(one, (1,) * (len(self.shape) + 1)) if data is None else data
        sizes = list(self.shape)
        for axis, size in zip(self.rest, lead, strict=True):
            sizes[axis] = size
        data = jnp.broadcast_to(data, (*sizes, data.shape[-1]))
        data = jnp.transpose(data, (*self.rest, *self.rows, len(self.shape)))
        return data.reshape(*lead, self.count, data.shape[-1])

    def coefficients(self, latent: Array | None, width: int, one: Array) -> Array:
        """Latents as (rest..., K), or (J, K) where they are coded."""
        latent = jnp.broadcast_to(one, (1,) * (len(self.shape) + 1)) if latent is None else latent
        latent = jnp.broadcast_to(latent, (*latent.shape[:-1], width))
        coded = [] if self.index is None or latent.shape[self.index.axis] == 1 else [self.index.axis]
        kept = (*self.rest, *coded)
        return latent.reshape(*(latent.shape[a] for a in kept), width)

    def codes(self) -> Array:
        """The code of each row."""
        assert self.index is not None
        sizes = [self.shape[a] for a in self.rows]
        place = self.rows.index(self.index.axis)
        around = [self.index.codes.shape[0] if i == place else 1 for i in range(len(sizes))]
        return jnp.broadcast_to(self.index.codes.reshape(around), sizes).reshape(-1)


def _densified(block: Block, rank: int) -> Block:
    """A block of coded latents with a column of zeros and ones for each code."""
    index = block.index
    assert index is not None
    assert block.latent is not None
    like = block.latent if block.data is None else block.data
    hot = (index.codes[:, None] == jnp.arange(index.size, dtype=index.codes.dtype)).astype(like.dtype)
    hot = hot if index.broken is None else hot + index.broken
    shape = [1] * (rank + 1) + [index.size]
    shape[index.axis] = hot.shape[0]
    hot = hot.reshape(shape)  # (..., n, ..., 1, J)
    data = hot if block.data is None else block.data[..., None] * hot
    latent = jnp.expand_dims(jnp.moveaxis(block.latent, index.axis, -1), index.axis)  # (..., 1, ..., K, J)
    width = max(data.shape[-2], latent.shape[-2])
    data = jnp.broadcast_to(data, (*data.shape[:-2], width, index.size))
    latent = jnp.broadcast_to(latent, (*latent.shape[:-2], width, index.size))
    return Block(latent.reshape(*latent.shape[:-2], -1), data.reshape(*data.shape[:-2], -1))


def _indices(square: Square) -> list[Index]:
    found: dict[Any, Index] = {}
    for block in (square.scale, *square.blocks):
        if block.index is not None:
            found.setdefault((block.index.mark, block.index.axis), block.index)
    return sorted(found.values(), key=lambda x: -x.size)


def _few(square: Square, rank: int) -> Square | None:
    """The square with at most one index left: the largest; the others become columns."""
    indices = _indices(square)
    if not indices:
        return square
    columns = sum(b.width * b.index.size for b in square.blocks if b.index is not None)
    keep = None if square.scale.index is None and columns <= SMALL else indices[0]
    blocks = []
    for block in square.blocks:
        if block.index is None or (keep and (block.index.mark, block.index.axis) == (keep.mark, keep.axis)):
            blocks.append(block)
        elif block.index.size > DENSEST or block.index.size * block.index.codes.shape[0] > TABLED:
            return None
        else:
            blocks.append(_densified(block, rank))
    head = square.scale.index
    if head is not None and (keep is None or (head.mark, head.axis) != (keep.mark, keep.axis)):
        return None
    return replace(square, blocks=tuple(blocks))


def _outwards(square: Square, axes: Sequence[int], shape: Sequence[int]) -> tuple[list[int], list[int], Square]:
    """The square with its inner axes as ordinary ones at the end, to be summed over like the others."""
    count = len(square.inner)
    ones = (1,) * count
    latent, weight = square.scale.latent, square.weight
    latent = None if latent is None else latent.reshape(*latent.shape[:-1], *ones, latent.shape[-1])
    weight = None if weight is None else weight.reshape(*weight.shape, *ones)
    whole = Square(replace(square.scale, latent=latent), weight, square.blocks)
    return [*axes, *range(len(shape), len(shape) + count)], [*shape, *square.inner], whole


def reduce_square(square: Square, axes: Sequence[int], shape: Sequence[int], one: Array, said: list[str]) -> Any:
    """The sum of a square over axes.

    Args:
        square: The square.
        axes: Axes to sum over.
        shape: Shape of what is squared.
        one: The number one, of the dtype of the result.
        said: Takes a line on what was done.

    Returns:
        A pure block, with axes of length one where rows were summed, and these axes; or None where nothing is gained.
    """
    outer = len(shape)
    axes, shape, square = _outwards(square, axes, shape)
    found = _few(square, len(shape))
    if found is None:
        return None
    square, index = found, next(iter(_indices(found)), None)
    if index is not None and index.axis not in axes:
        return None
    latents = [(b.latent, b.index) for b in (square.scale, *square.blocks) if b.latent is not None]

    def still(axis: int) -> bool:
        coded = index is not None and axis == index.axis
        return all(x.shape[axis] == 1 or (coded and i is not None) for x, i in latents)

    rows = tuple(a for a in axes if shape[a] > 1 and still(a))
    if not rows or (index is not None and index.axis not in rows):
        return None
    layout = _Layout(tuple(shape), rows, tuple(a for a in range(len(shape)) if a not in rows), index)
    if index is not None and any(shape[a] > 1 for a in layout.rest):
        return None
    width = sum(b.width for b in square.blocks)
    if width > layout.count // 2 or layout.count * width**2 > LARGEST:
        return None
    if index is None:
        value = _dense(square, layout, one, said)
    else:
        value = _by_group(square, layout, one, said)
    sizes = [1 if a in rows else value.shape[layout.rest.index(a)] for a in range(len(shape))]
    inner = tuple(a for a in axes if a >= outer and a not in rows)
    if inner:
        value = jnp.sum(value.reshape(sizes), axis=inner)
        for a in inner:
            value = value if sizes[a] == shape[a] else value * jnp.asarray(shape[a], value.dtype)
    return Block(value.reshape(*sizes[:outer], 1), None), tuple(a for a in rows if a < outer)


def _weighted(square: Square) -> list[tuple[float, tuple[Array | None, ...]]]:
    """Columns of data times the roots of their weights, parts with weights of either sign apart."""
    datas = tuple(b.data for b in square.blocks)
    if square.weight is None:
        return [(1.0, datas)]
    parts = []
    for sign in (1.0, -1.0):
        root = jnp.sqrt(jnp.maximum(sign * square.weight, 0))[..., None]
        parts.append((sign, tuple(root if x is None else x * root for x in datas)))
    return parts


def _triangle(columns: Array) -> Array:
    """The factor R of (..., N, K) columns, in double precision."""
    return precisely(lambda x: jax.lax.linalg.qr(x, full_matrices=False)[1], columns)


def _apply(factor: Array, latent: Array) -> Array:
    """``factor @ latent`` over leading axes of length one or equal."""
    if all(n == 1 for n in latent.shape[:-1]):
        return jnp.matmul(factor, latent.reshape(-1))
    if all(n == 1 for n in factor.shape[:-2]):
        return jnp.matmul(latent, factor.reshape(factor.shape[-2:]).T)
    return jnp.sum(factor * latent[..., None, :], axis=-1)


def _lead(layout: _Layout, arrays: Sequence[Array | None]) -> list[int]:
    """Lengths of the remaining axes, one where no array varies along them."""
    return [max((x.shape[a] for x in arrays if x is not None), default=1) for a in layout.rest]


def _joined(layout: _Layout, latents: Sequence[Array]) -> Array:
    """Coefficients side by side, broadcast against each other."""
    lead = [max(x.shape[i] for x in latents) for i in range(latents[0].ndim - 1)]
    return jnp.concatenate([jnp.broadcast_to(x, (*lead, x.shape[-1])) for x in latents], axis=-1)


def _dense(square: Square, layout: _Layout, one: Array, said: list[str]) -> Array:
    latent = _joined(layout, [layout.coefficients(b.latent, b.width, one) for b in square.blocks])
    total = None
    for sign, datas in _weighted(square):
        lead = _lead(layout, datas)
        columns = [
            jnp.broadcast_to(x, (*x.shape[:-1], b.width))
            for b, x in zip(square.blocks, (layout.columns(d, one, lead) for d in datas), strict=True)
        ]
        factor = _triangle(jnp.concatenate(columns, axis=-1))
        part = jnp.sum(_apply(factor, latent) ** 2, axis=-1)
        total = part if total is None else total + jnp.asarray(sign, part.dtype) * part
    said.append(f"{layout.count} residuals through a triangle of {latent.shape[-1]} (QR)")
    head = square.scale.latent
    return total if head is None else total * layout.coefficients(head, 1, one)[..., 0]


def _eliminated(first: Array, rest: Array, codes: Array, size: int) -> tuple[Array, Array]:
    """For each code the orthogonal factor's rows of ``first`` (N, K1) against all columns; the rest made orthogonal."""
    columns = [first[:, k] for k in range(first.shape[1])]
    rows = []
    for k in range(len(columns)):
        norm = jnp.sqrt(segments(columns[k] ** 2, codes, size))
        safe = jnp.where(norm > 0, norm, jnp.ones_like(norm))
        unit = columns[k] / safe[codes]
        cells = [jnp.zeros_like(norm)] * k + [norm]
        for later in range(k + 1, len(columns)):
            product = segments(unit * columns[later], codes, size)
            columns[later] = columns[later] - unit * product[codes]
            cells.append(product)
        product = segments(unit[:, None] * rest, codes, size)
        rest = rest - unit[:, None] * product[codes]
        rows.append(jnp.concatenate([jnp.stack(cells, axis=-1), product], axis=-1))
    return jnp.stack(rows, axis=1), rest


def _by_group(square: Square, layout: _Layout, one: Array, said: list[str]) -> Array:
    """Blocks with codes in one small triangle for each code, the others in one triangle of all."""
    index = layout.index
    assert index is not None
    all_coded = square.scale.index is not None
    lead = [1] * len(layout.rest)
    groups: dict[bool, list[int]] = {True: [], False: []}
    for i, block in enumerate(square.blocks):
        groups[all_coded or block.index is not None].append(i)
    total = None
    latents = {i: _table(b, index, layout, one) for i, b in enumerate(square.blocks)}
    inner = jnp.concatenate([latents[i] for i in groups[True]], axis=-1)
    outer = jnp.concatenate([latents[i][0] for i in groups[False]], axis=-1) if groups[False] else None
    for sign, datas in _weighted(square):

        def side(which: bool, datas: tuple = datas) -> Array:
            parts = [
                jnp.broadcast_to(layout.columns(datas[i], one, lead), (*lead, layout.count, square.blocks[i].width))
                for i in groups[which]
            ]
            joined = jnp.concatenate([x.reshape(layout.count, -1) for x in parts], axis=-1) if parts else None
            return jnp.zeros((layout.count, 0), one.dtype) if joined is None else joined

        rows, within = _statistics(side(True), side(False), layout.codes(), index.size)
        value = jnp.sum(rows[..., : inner.shape[-1]] * inner[:, None, :], axis=-1)
        if outer is not None:
            value = value + jnp.matmul(rows[..., inner.shape[-1] :], outer)
        part = jnp.sum(value**2, axis=-1)
        if all_coded:
            part = jnp.sum(part * _table(square.scale, index, layout, one)[:, 0])
        else:
            part = jnp.sum(part)
            if outer is not None:
                part = part + jnp.sum(jnp.matmul(within, outer) ** 2)
        total = part if total is None else total + jnp.asarray(sign, part.dtype) * part
    if not all_coded and square.scale.latent is not None:
        total = total * square.scale.latent.reshape(())
    if index.broken is not None:
        total = total + index.broken
    said.append(f"{layout.count} residuals through the statistics of {index.size} groups")
    return jnp.reshape(total, lead)


def _statistics(first: Array, rest: Array, codes: Array, size: int) -> tuple[Array, Array]:
    """The rows of all codes, and the triangle of what is left, in double precision."""

    def both(first: Array, rest: Array) -> tuple[Array, Array]:
        rows, left = _eliminated(first, rest, codes, size)
        return rows, jax.lax.linalg.qr(left, full_matrices=False)[1] if rest.shape[1] else left[:0]

    return precisely(both, first, rest)


def _table(block: Block, index: Index, layout: _Layout, one: Array) -> Array:
    """Latents as (J, K), those without codes repeated."""
    flat = layout.coefficients(block.latent, block.width, one).reshape(-1, block.width)
    return jnp.broadcast_to(flat, (index.size, block.width))
