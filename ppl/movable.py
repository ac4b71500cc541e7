"""A density in coordinates of its hierarchical effects that a run may learn (``passes.reparameterize``).

``Moved`` is log p(z(x)) + log |dz / dx| with the parameters k and t of the map as data, so that learning them compiles
nothing. ``Movable`` gives it to an engine, with what is needed to go from x to z and back; results are in z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _jax, space
from .host import surfacing

Array = Any


class Movable:
    """The effects of a density whose coordinates a run may choose, one pair (k, t) for each of m elements.

    Attributes:
        density: The density, in the model's own coordinates z.
        columns: Entries of z that are moved, shape (m,).
        standard: Whether such an entry of z is the standard effect e itself (else location + scale e), shape (m,).
        levels: Location and scale of an entry read only those of lower levels, shape (m,).
        information: Fisher information of the law of e, shape (m,).
        groups: Number of the site of each such entry, shape (m,).
        names: Sites that are moved.
    """

    def __init__(self, density: Any, moves: Any) -> None:
        """Describe the effects of a density."""
        self.density = density
        slots = density.layout
        sizes = [slots[e.name].stop - slots[e.name].start for e in moves.effects]
        self.columns = np.concatenate([np.arange(slots[e.name].start, slots[e.name].stop) for e in moves.effects])
        self.standard = np.repeat([e.standard for e in moves.effects], sizes)
        self.levels = np.repeat([e.level for e in moves.effects], sizes)
        self.information = np.repeat([e.information for e in moves.effects], sizes)
        self.groups = np.repeat(np.arange(len(sizes)), sizes)
        self.names = tuple(e.name for e in moves.effects)

    def at(self, k: Array, t: Array) -> Moved:
        """The density of x for given parameters, shape (m,) each."""
        return Moved(self.density, jnp.asarray(k), jnp.asarray(t))

    def described(self, k: np.ndarray, t: np.ndarray) -> dict[str, dict[str, Any]]:
        """Parameters by site, as ``ppl.compile(..., reparameterize={site: (k, t)})`` takes them."""
        moves = self.density.compiled.moves
        pairs = zip(moves.effects, moves.cut(np.asarray(k)), moves.cut(np.asarray(t)), strict=True)
        return {e.name: {"k": k.tolist(), "t": t.tolist()} for e, k, t in pairs}

    def places(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Locations and scales, shape (n, m), at positions z of shape (n, dim); compiled once for each n."""
        with jax.enable_x64(self.density.compiled.x64):
            return tuple(np.asarray(x) for x in _places(self.density, positions))  # type: ignore[return-value]


@surfacing
@jax.jit
def _places(density: Any, positions: Array) -> tuple[Array, Array]:
    moves = density.compiled.moves

    def one(z: Array) -> tuple[Array, Array]:
        located = moves.located(None, density.data, space.split(z, density.layout))
        pairs = [located[e.name] for e in moves.effects]
        shaped = [[jnp.broadcast_to(x, s).ravel() for x in p] for p, s in zip(pairs, moves.shapes, strict=True)]
        m, s = (jnp.concatenate(column) for column in zip(*shaped, strict=True))
        return m, s

    return jax.vmap(one)(positions)


@partial(jax.tree_util.register_dataclass, data_fields=["density", "k", "t"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Moved:
    """A density in other coordinates of its effects, a pytree of its data and of the map's parameters.

    Attributes:
        density: The density in z.
        k: Information of the data about each effect.
        t: The data's estimate of each effect.
    """

    density: Any
    k: Array
    t: Array

    def __call__(self, x: Array) -> Array:
        """Log density at ``x`` of shape (dim,), log-determinants included."""
        self.density._check(x)
        compiled = self.density.compiled
        kept, normal = compiled.moved_terms
        pieces = space.split(x, compiled.slots)
        pieces, logdets, raws = compiled.moves.apply(self.density.data, pieces, self.k, self.t)
        terms = list(kept.run(*self.density.residuals, *pieces.values()))
        for name, logdet in logdets.items():
            if name in normal:  # log N(theta; m, s) + log |d theta / d x| without the cancellation in theta - m
                raw, half = raws[name]
                terms.append(-0.5 * raw * raw - half - 0.5 * math.log(2.0 * math.pi))
            else:
                terms.append(logdet)
        total = jnp.zeros((), x.dtype)
        for term in terms:
            total = total + jnp.sum(term).astype(x.dtype)
        return total

    @property
    def dim(self) -> int:
        """Length of the vector."""
        return self.density.dim

    @property
    def layout(self) -> dict[str, space.Slot]:
        """Places of the latent sites in the vector."""
        return self.density.layout

    @property
    def labels(self) -> list[str]:
        """Names of the entries."""
        return self.density.labels

    @property
    def work(self) -> int:
        """Array elements computed by one evaluation, those of the map estimated."""
        return self.density.work + 12 * int(np.shape(self.k)[0])

    def base(self, x: Array) -> Array:
        """The position z of the model at x."""
        layout = self.density.layout
        pieces = self.density.compiled.moves.apply(self.density.data, space.split(x, layout), self.k, self.t)[0]
        return space.join(pieces, layout)

    def inverse(self, z: Array) -> Array:
        """The x of a position z."""
        layout = self.density.layout
        pieces = self.density.compiled.moves.invert(self.density.data, space.split(z, layout), self.k, self.t)
        return space.join(pieces, layout)

    def prior(self, key: Array) -> Array:
        """A draw from the prior."""
        return self.inverse(self.density.prior(key))


def moved_terms(compiled: Any) -> tuple[Any, frozenset[str]]:
    """The log density's program without what the map makes cheaper, and the sites of which that is."""
    names: Sequence[tuple[str, str]] = compiled.rewritten.names
    normal = frozenset(e.name for e in compiled.moves.effects if e.normal and ("factor", e.name) in names)
    kept = [i for i, (channel, name) in enumerate(names) if name not in normal or channel not in ("factor", "logdet")]
    return _jax.select(compiled.hoisted.after, kept), normal
