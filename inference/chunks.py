"""Evaluate something at every draw, in pieces of bounded memory.

The pieces have one size (the last is padded), so one program is compiled; a density is an argument of that
program, so another fit of the same shapes compiles nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from ppl.host import surfacing

from .compiling import jit_quick

BUDGET = 256 * 2**20
"""Bytes that one piece may take, intermediates included (estimated)."""

LARGEST = 1024
"""Draws of the largest piece: beyond, a larger one is not faster."""


def over_draws(
    density: Any, method: str, positions: np.ndarray, keys: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Apply a method of a density to every draw.

    Args:
        density: A density, a pytree.
        method: Name of a method from a flat position to a dict of arrays.
        positions: Shape (chains, draws, dim).
        keys: Whole numbers (chains, draws, n) of which the method gets a random key, as its second argument.

    Returns:
        Arrays of shape (chains, draws, ...).
    """
    chains, draws, dim = positions.shape
    work = 8 * int(getattr(density, "work", 0) or 0)
    inputs: Any = (positions.reshape(chains * draws, dim),)
    if keys is not None:
        inputs = (*inputs, keys.reshape(chains * draws, -1))
    flat = in_chunks(partial(_evaluate, density, method), inputs, work)
    values = {name: value.reshape(chains, draws, *value.shape[1:]) for name, value in flat.items()}
    tidy = tidy_of(density)
    return values if tidy is None else tidy.unpacked(values, lead=2)


def shapes_of(density: Any, method: str) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of one evaluation, without computing anything."""
    z = jax.ShapeDtypeStruct((density.dim,), jax.numpy.result_type(float))
    tidy, shapes = tidy_of(density), jax.eval_shape(getattr(density, method), z)
    return shapes if tidy is None else {name: tidy.unpacked_shape(name, shape) for name, shape in shapes.items()}


def tidy_of(density: Any) -> Any:
    """What brings the values of a program's sites to the user's shapes, None for other densities."""
    return getattr(getattr(density, "program", None), "tidy", None)


@surfacing
def in_chunks(function: Callable[[Any], Any], inputs: Any, work: int = 0) -> Any:
    """Map a batched function over the leading axis of its inputs, piece by piece.

    Args:
        function: From a pytree of arrays with a leading axis to another; compiled by the caller.
        inputs: The pytree, all leading axes alike.
        work: Bytes of intermediates of one row.

    Returns:
        The pytree of results, as NumPy arrays.

    Example:
        >>> in_chunks(lambda x: {"y": 2 * x}, np.arange(3.0))["y"].tolist()
        [0.0, 2.0, 4.0]
    """
    inputs = jax.tree.map(np.asarray, inputs)
    rows = len(jax.tree.leaves(inputs)[0])
    one = jax.eval_shape(function, jax.tree.map(_first, inputs))
    room(rows, one)
    size = chunk_size(rows, work + nbytes(one))
    results = jax.tree.map(lambda x: np.empty((rows, *x.shape[1:]), x.dtype), one)
    for start in range(0, rows, size):
        index = np.minimum(np.arange(start, start + size), rows - 1)
        piece = function(jax.tree.map(lambda x, index=index: x[index], inputs))
        stop = min(start + size, rows)

        def keep(whole: np.ndarray, part: Any, start: int = start, stop: int = stop) -> None:
            whole[start:stop] = np.asarray(part)[: stop - start]

        jax.tree.map(keep, results, piece)
    return results


def _first(x: np.ndarray) -> jax.ShapeDtypeStruct:
    """Shape of one row, in the precision that the function will be given."""
    return jax.ShapeDtypeStruct((1, *x.shape[1:]), jax.dtypes.canonicalize_dtype(x.dtype))


def chunk_size(rows: int, row_bytes: int) -> int:
    """Rows per piece: a power of two within the budget.

    Example:
        >>> chunk_size(6400, 10), chunk_size(5, 10), chunk_size(6400, 2**26)
        (1024, 8, 4)
    """
    fits = max(1, BUDGET // max(row_bytes, 1))
    return 2 ** int(min(math.log2(LARGEST), math.ceil(math.log2(max(rows, 1))), math.floor(math.log2(fits))))


def nbytes(shapes: Any) -> int:
    """Bytes of a pytree of shapes."""
    return sum(math.prod(x.shape) * np.dtype(x.dtype).itemsize for x in jax.tree.leaves(shapes))


def room(rows: int, one: Any) -> None:
    """Refuse a result that the machine's memory cannot hold.

    Raises:
        MemoryError: With the size, before anything is computed.
    """
    import os

    wanted = rows * nbytes(one)
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return
    if wanted > 0.5 * memory:
        raise MemoryError(
            f"the result would take {wanted / 2**30:.1f} GiB of {memory / 2**30:.1f} GiB of memory; "
            "ask for fewer draws or fewer sites, as with predict(draws=, names=), for a statistic of them, "
            "predict(reduce='mean'), or for a store on a disk, predict(path='draws.zarr')"
        )


@partial(jit_quick, static_argnums=1)
def _evaluate(density: Any, method: str, inputs: Any) -> Any:
    function = getattr(density, method)
    return jax.vmap(lambda z, *numbers: function(z, *map(_key, numbers)))(*inputs)


def _key(numbers: Any) -> Any:
    key = jax.random.key(0)
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return key
