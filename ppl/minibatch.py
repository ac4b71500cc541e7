"""Minibatches: which elements of a subsampled plate a run computes, and by what their log factors are multiplied.

Of the N elements of a plate m are drawn without replacement, every set of m with the same probability, and their log
factors are multiplied by N / m. The expectation of their sum is the sum over all N.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .errors import ModelError, at
from .values import fold_name

Array = Any

_SORTED = 8
"""Up to this many times as many elements as are drawn all are permuted, which is one sort."""


@dataclass(frozen=True)
class Minibatch:
    """The randomness of one estimate.

    Attributes:
        key: Random key; folded with the index in every plate, so that elements have minibatches of their own.
        chosen: Indices by plate, instead of drawn ones; with leading axes for the plates around it.
    """

    key: Array
    chosen: Mapping[str, Array] = field(default_factory=dict)

    def at(self, index: Array) -> Minibatch:
        """The minibatch inside of one element of a plate."""
        chosen = {name: value[index] if value.ndim > 1 else value for name, value in self.chosen.items()}
        return Minibatch(jax.random.fold_in(self.key, index), chosen)

    def draw(self, name: str, size: int, count: int, exists: Array | None) -> tuple[Array, Array | float]:
        """Indices of the elements of a plate that are computed, and the factor of their log factors."""
        found = self.chosen.get(name)
        if exists is None:
            chosen = subset(fold_name(self.key, name), size, count) if found is None else found
            return chosen, size / chosen.shape[0]
        if found is None:
            noise = jax.random.uniform(fold_name(self.key, name), (size,))
            found = jnp.argsort(jnp.where(exists, noise, 2.0))[:count]
        total = jnp.sum(exists)
        drawn = jnp.maximum(jnp.minimum(total, found.shape[0]), 1)
        return found, total.astype(jnp.result_type(float)) / drawn.astype(jnp.result_type(float))


jax.tree_util.register_dataclass(Minibatch, data_fields=["key", "chosen"], meta_fields=[])


def subset(key: Array, size: int, count: int) -> Array:
    """A set of ``count`` of ``size`` indices, every one with the same probability, in no particular order.

    A permutation where that is cheap; else the algorithm of Floyd (Bentley and Floyd, 1987), whose time does not grow
    with ``size``.

    Example:
        >>> import jax
        >>> sorted(set(subset(jax.random.key(0), 5, 5).tolist()))
        [0, 1, 2, 3, 4]
        >>> len(set(subset(jax.random.key(0), 10**6, 50).tolist()))
        50
    """
    if size <= _SORTED * count:
        return jax.random.permutation(key, size)[:count].astype(jnp.int32)
    last = jnp.arange(size - count, size, dtype=jnp.int32)
    guess = jax.random.randint(key, (count,), 0, last + 1, dtype=jnp.int32)

    def add(i: Array, chosen: Array) -> Array:
        taken = jnp.any(chosen == guess[i])
        return chosen.at[i].set(jnp.where(taken, last[i], guess[i]))

    return jax.lax.fori_loop(0, count, add, jnp.full((count,), -1, jnp.int32))


def declare(frame: Any, name: str, size: int, subsample: Any, source: str) -> int | None:
    """The number of elements to draw of a plate, None where all are computed; the run notes it.

    Raises:
        ModelError: A number that is none, or two numbers for one plate.
    """
    if subsample is None:
        return None
    if isinstance(subsample, bool) or not isinstance(subsample, int | np.integer) or subsample < 1:
        raise ModelError(
            f"plate {name!r}: subsample is the number of elements to draw, a positive int, not {subsample!r}:"
            f"\n{at(source)}"
        )
    count, first = frame.subsampled.setdefault(name, (int(subsample), source))
    if count != subsample:
        raise ModelError(
            f"plate {name!r} is subsampled to {count} elements and to {subsample}:\n{at(first)}\n{at(source)}\n"
            "  All statements of one plate share one minibatch; give both the same number."
        )
    return count if count < size else None
