"""Exact full conditionals: laws of some sites given all others, that can be sampled and scored.

Finite sites: elements that are independent given the rest are tabulated state by state; a chain, in which each step is
read together with the one before only, is drawn by forward filtering and backward sampling from its pairwise tables;
anything else is enumerated jointly while it is small. Real sites: ``conjugate``.

References: Carter and Kohn (1994) and Fruehwirth-Schnatter (1994) for chains.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import codes
from .errors import ModelError, at
from .exact import hmm

Array = Any
MOST = 4096
"""Most joint states that are enumerated."""


def conditional(density: Any, names: Sequence[str], position: Array) -> Any:
    """The exact conditional of some sites of a density; see ``Density.conditional``."""
    sites = density.compiled.sites
    finite = [name for name in names if sites[name].discrete]
    if not finite:
        from .conjugate import conjugate

        return conjugate(density, names, position)
    if len(finite) < len(names):
        real = next(name for name in names if name not in finite)
        raise ModelError(
            f"no exact conditional of the finite site {finite[0]!r} together with the real site {real!r}:"
            f"\n{at(sites[finite[0]].source)}\n{at(sites[real].source)}\n"
            f"  Give each a block of its own, Block({finite[0]!r}, Exact()) and another one for {real!r}."
        )
    found = [codes.pattern(density.compiled, name) for name in names]
    if all(set(p.colours) <= {1} for p in found) and (len(found) == 1 or _beside(found)):
        return _independent(density, found, position)
    if len(found) == 1 and _chained(found[0]) is not None:
        return _chain(density, found[0], position)
    return _joint(density, names, position)


def _count(density: Any, name: str) -> int:
    return int(density.compiled.sites[name].states[1])


def _place(density: Any, z: Array, name: str, value: Array) -> Array:
    slot = density.layout[name]
    return jax.lax.dynamic_update_slice(z, value.ravel().astype(z.dtype), (slot.start,))


def _clean(logs: Array) -> Array:
    return jnp.where(jnp.isnan(logs), -jnp.inf, logs)


# ---------------------------------------------------------------------------------------------- independent elements


@dataclass(frozen=True)
class Tabulated:
    """Independent elements, each with a table over the joint states of one or several sites.

    Attributes:
        logs: Log weights, shape (states, elements).
        states: Codes of every joint state, shape (states, sites).
    """

    logs: Array
    states: Any

    def sample(self, key: Array) -> Array:
        """Codes of all sites, one site after the other."""
        chosen = jax.random.categorical(key, self.logs, axis=0)
        return jnp.asarray(self.states, self.logs.dtype)[chosen].T.ravel()

    def log_prob(self, x: Array) -> Array:
        """Log probability of codes."""
        own = x.reshape(self.states.shape[1], -1).astype(jnp.int32)
        same = jnp.all(jnp.asarray(self.states, jnp.int32)[:, :, None] == own, axis=1)
        logs = self.logs - hmm.logsumexp(self.logs, 0)
        return jnp.sum(jnp.where(same, logs, 0.0)) + jnp.where(jnp.all(jnp.any(same, 0)), 0.0, -jnp.inf)


def _beside(found: Sequence[codes.Pattern]) -> bool:
    """Whether elements of several sites at the same place are read together, and no others."""
    places: dict[tuple[str, str], Any] = {}
    for p in found:
        if p.shape != found[0].shape:
            return False
        for reading in p.readings:
            own = (reading.places, reading.index)
            if any(i is not None for i in reading.index) or places.setdefault(reading.label, own) != own:
                return False
    return True


def _independent(density: Any, found: Sequence[codes.Pattern], position: Array) -> Tabulated:
    counts = [_count(density, p.name) for p in found]
    states = np.array(list(itertools.product(*map(range, counts))), np.int32)

    def one(state: Array) -> Array:
        z = position
        for i, p in enumerate(found):
            z = _place(density, z, p.name, jnp.broadcast_to(state[i], p.shape))
        arrays = codes.inputs(density.compiled, density.data, z)
        total = jnp.zeros(found[0].shape, position.dtype)
        done: set[tuple[str, str]] = set()
        for p in found:
            total = total + p.scores(arrays, skip=done).astype(position.dtype)
            done |= {reading.label for reading in p.readings}
        return total.ravel()

    return Tabulated(_clean(jax.vmap(one)(jnp.asarray(states))), states)


# ---------------------------------------------------------------------------------------------- chains


@dataclass(frozen=True)
class Chained:
    """Independent Markov chains of finite states.

    Attributes:
        first: Log weights of the first states, shape (K, chains).
        pairs: Log weights of each later state given the one before, shape (T - 1, K, K, chains).
        axis: Axis of the site along which the chains run.
        shape: The site's shape.
    """

    first: Array
    pairs: Array
    axis: int
    shape: tuple[int, ...]

    def sample(self, key: Array) -> Array:
        """Codes of all steps of all chains."""
        drawn = hmm.backward_sample(key, hmm.forward(self.first, self.pairs)[0], self.pairs)
        rest = tuple(size for axis, size in enumerate(self.shape) if axis != self.axis)
        return jnp.moveaxis(drawn.reshape(self.shape[self.axis], *rest), 0, self.axis).ravel().astype(self.first.dtype)

    def log_prob(self, x: Array) -> Array:
        """Log probability of codes."""
        steps = jnp.moveaxis(x.reshape(self.shape), self.axis, 0).reshape(self.shape[self.axis], -1).astype(jnp.int32)
        own = jax.nn.one_hot(steps, self.first.shape[0], axis=1, dtype=bool)
        both = own[:-1, :, None] & own[1:, None, :]
        total = jnp.sum(jnp.where(own[0], self.first, 0.0)) + jnp.sum(jnp.where(both, self.pairs, 0.0))
        return total - jnp.sum(hmm.forward(self.first, self.pairs)[1])


def _chained(p: codes.Pattern) -> int | None:
    """The axis of a site along which it is a chain, if it is one: every other axis of independent elements."""
    axes = [axis for axis, colours in enumerate(p.colours) if colours != 1]
    if len(axes) != 1 or p.colours[axes[0]] != 2:
        return None
    (axis,) = axes
    for reading in p.readings:
        place = reading.places[axis]
        if place is None or (reading.index[axis] is None and max(place.offsets) > 0):
            return None
    return axis


def _chain(density: Any, p: codes.Pattern, position: Array) -> Chained:
    """Pairwise tables: steps at even places all in one state and those at odd places in another."""
    axis, count = _chained(p), _count(density, p.name)
    assert axis is not None  # noqa: S101 - the caller has asked
    even = jax.lax.broadcasted_iota(jnp.int32, p.shape, axis) % 2 == 0

    def one(pair: Array) -> Array:
        z = _place(density, position, p.name, jnp.where(even, pair[0], pair[1]))
        return p.scores(codes.inputs(density.compiled, density.data, z), latest=axis)

    states = np.array(list(itertools.product(range(count), range(count))), np.int32)
    tables = _clean(jax.vmap(one)(jnp.asarray(states))).reshape(count, count, *p.shape)
    tables = jnp.where(even, jnp.swapaxes(tables, 0, 1), tables)  # [before, now]
    steps = jnp.moveaxis(tables, axis + 2, 0).reshape(p.shape[axis], count, count, -1).astype(position.dtype)
    return Chained(steps[0, 0], steps[1:], axis, p.shape)


# ---------------------------------------------------------------------------------------------- anything small


def _joint(density: Any, names: Sequence[str], position: Array) -> Tabulated:
    sites, layout = density.compiled.sites, density.layout
    counts = [_count(density, n) for n in names for _ in range(layout[n].stop - layout[n].start)]
    size = float(np.prod(np.asarray(counts, float)))
    if size > MOST:
        first = names[0]
        blame = _between(density, names)
        raise ModelError(
            f"no exact conditional of {', '.join(map(repr, names))}: {len(counts)} elements have {size:.3g} joint "
            f"states, more than {MOST}, and are not independent of each other{blame}:\n{at(sites[first].source)}\n"
            f"  Use Gibbs() in the block, which draws one after the other."
        )
    states = np.array(list(itertools.product(*map(range, counts))), np.int32)
    target = density.restrict(tuple(names), position)
    logs = jax.vmap(lambda x: target(x.astype(position.dtype)))(jnp.asarray(states))
    return Tabulated(_clean(logs)[:, None], states)


def _between(density: Any, names: Sequence[str]) -> str:
    """Which term reads several elements at once, in words."""
    sites = density.compiled.sites
    for name in names:
        p = codes.pattern(density.compiled, name)
        for reading in p.readings:
            if any(width != 0 for width in reading.widths):
                source = sites[reading.label[1]].source if reading.label[1] in sites else ""
                return f", because {reading.label[1]!r} reads several of them ({source})"
    return ""
