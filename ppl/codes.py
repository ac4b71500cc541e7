"""Groups of finite sites' elements that are independent given the rest, and what each of them is scored by.

Two elements of a site can be drawn at once if no element of a term reads both. The traced program says which elements
a term's element reads along each axis of the site (``passes.alignment``): the one beside it in a plate, the steps t and
t - 1 in a chain, the one that an index in the data names, or all. An axis along which w + 1 neighbours are read
together is coloured by t mod (w + 1), one colour a group; an axis of which some term reads everything is taken element
by element. An element's score is the sum of the term elements that read it.

Reference: Besag, "Spatial interaction and the statistical analysis of lattice systems" (1974), for coding sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _jax, space
from ._later import later

if TYPE_CHECKING:
    from .passes import alignment
else:
    alignment = later("ppl.passes.alignment")

Array = Any


@dataclass(frozen=True)
class Reading:
    """How a term reads the elements of a site.

    Attributes:
        label: ``(channel, site)`` of the term.
        places: For each axis of the site its place on the term, or None where every element may be read.
        index: For each axis the output that holds the indices by which it is read, or None.
    """

    label: tuple[str, str]
    places: tuple[alignment.Place | None, ...]
    index: tuple[tuple[int, int] | None, ...]

    @property
    def widths(self) -> tuple[int | None, ...]:
        """For each axis how many steps apart elements are that one element of the term reads; None for any."""
        return tuple(None if p is None else max(p.offsets) - min(p.offsets) for p in self.places)

    def scores(self, value: Array, outputs: Sequence[Array], shape: tuple[int, ...], latest: int | None) -> Array:
        """For each element of the site the sum of the term's elements that read it; along ``latest`` read it last."""
        kept = [p.axis for p in self.places if p is not None]
        value = jnp.sum(value, axis=tuple(a for a in range(value.ndim) if a not in kept))
        order = sorted(kept)
        value = jnp.transpose(value, [order.index(a) for a in kept])
        for axis, (size, place, index) in enumerate(zip(shape, self.places, self.index, strict=True)):
            if place is None:
                value = jnp.expand_dims(value, axis)
            elif index is not None:
                segments = jnp.moveaxis(value, axis, 0)
                rows = outputs[index[0]].reshape(segments.shape[0], -1)[:, index[1]]
                summed = jnp.zeros((size, *segments.shape[1:]), value.dtype).at[rows].add(segments)
                value = jnp.moveaxis(summed, 0, axis)
            else:
                offsets = sorted(place.offsets)[-1 if axis == latest else 0 :]
                value = sum((_moved(value, axis, o, size) for o in offsets), jnp.zeros((), value.dtype))
        return jnp.broadcast_to(value, shape)


def _moved(value: Array, axis: int, offset: int, size: int) -> Array:
    """``value[t - offset]`` for t < size along an axis, zero where there is none."""
    widths = [(0, 0, 0)] * value.ndim
    widths[axis] = (offset, size - value.shape[axis] - offset, 0)
    return jax.lax.pad(value, jnp.zeros((), value.dtype), widths)


@dataclass(frozen=True)
class Pattern:
    """How the terms of a log density read one site.

    Attributes:
        name: The site.
        shape: Its unconstrained shape, over all plates.
        code: The program of the terms that read it, and of indices in the data.
        readings: One for each term; the outputs beyond them are the indices.
    """

    name: str
    shape: tuple[int, ...]
    code: Any
    readings: tuple[Reading, ...]

    @property
    def colours(self) -> tuple[int | None, ...]:
        """For each axis the number of its colours; None where a term reads everything along it."""
        found: list[int | None] = []
        for axis in range(len(self.shape)):
            widths = [reading.widths[axis] for reading in self.readings]
            found.append(None if None in widths else 1 + max((w for w in widths if w is not None), default=0))
        return tuple(found)

    @property
    def sizes(self) -> tuple[int, ...]:
        """For each axis the number of groups into which it is divided."""
        pairs = zip(self.colours, self.shape, strict=True)
        return tuple(size if colours is None else min(colours, max(size, 1)) for colours, size in pairs)

    @property
    def groups(self) -> int:
        """Number of groups."""
        return int(np.prod(self.sizes, dtype=int))

    def members(self, group: Array) -> Array:
        """Which elements belong to a group, of the site's shape."""
        inside = jnp.ones(self.shape, bool)
        rest = jnp.asarray(group, jnp.int32)
        for axis in reversed(range(len(self.shape))):
            count = self.sizes[axis]
            steps = jax.lax.broadcasted_iota(jnp.int32, self.shape, axis)
            inside = inside & (steps % count == rest % count)
            rest = rest // count
        return inside

    def scores(self, inputs: Sequence[Array], skip: Any = (), latest: int | None = None) -> Array:
        """For each element the sum of the terms' elements that read it, of the site's shape.

        Args:
            inputs: What the program reads.
            skip: Labels of terms to leave out.
            latest: An axis along which each element of a term counts for the last element only that it reads.
        """
        outputs = self.code.run(*inputs)
        total = jnp.zeros(self.shape, jnp.result_type(float))
        for reading, value in zip(self.readings, outputs[: len(self.readings)], strict=True):
            if reading.label not in skip:
                total = total + reading.scores(value, outputs, self.shape, latest).astype(total.dtype)
        return total


def pattern(compiled: Any, name: str) -> Pattern:
    """How the terms of a compiled log density read a site, found once."""
    identity = ("pattern", name)
    if identity not in compiled._parts:
        compiled._parts[identity] = _found(compiled, name)
    return compiled._parts[identity]


def _found(compiled: Any, name: str) -> Pattern:
    code, labels = source(compiled)
    place = list(compiled.slots).index(name)
    shape = compiled.slots[name].shape
    reads = [row.get(0) for row in alignment.align(code, compiled.inputs, compiled.inputs + place, [shape])]
    chosen = [i for i, row in enumerate(reads) if row is not None]
    part, readings, extra = _jax.select(code, chosen), [], []
    for i in chosen:
        places = tuple(reads[i] or ())
        axes = [p.axis for p in places if p is not None]
        if len(set(axes)) < len(axes):
            places = (None,) * len(places)
        index: list[tuple[int, int] | None] = []
        for p in places:
            if p is None or p.by is None:
                index.append(None)
                continue
            if p.by[0] not in extra:
                extra.append(p.by[0])
            index.append((len(chosen) + extra.index(p.by[0]), p.by[1]))
        readings.append(Reading(labels[i], places, tuple(index)))
    if extra:
        whole = code.jaxpr
        outvars = [*(whole.outvars[i] for i in chosen), *extra]
        wide = _jax.Code(_jax.rebuild(whole, whole.invars, outvars, whole.eqns), code.consts)
        part = _jax.select(wide, range(len(outvars)))
    return Pattern(name, shape, part, tuple(readings))


def source(compiled: Any) -> tuple[Any, Sequence[tuple[str, str]]]:
    """The program of the terms of a log density over the flat vector, and what they are."""
    if compiled.summed:
        return compiled.whole.code, compiled.whole.names
    return compiled.part(compiled.terms), [compiled.names[i] for i in compiled.terms]


def inputs(compiled: Any, data: Sequence[Array], z: Array) -> list[Array]:
    """What that program reads at a flat position."""
    return [*data, *space.split(z, compiled.slots).values()]


@dataclass(frozen=True)
class Codes:
    """The finite sites of a density, or some of them, as the codes of a vector; see ``inference.mcmc.discrete``.

    Attributes:
        compiled: The traced model.
        names: The sites, in the order of the vector.
    """

    compiled: Any
    names: tuple[str, ...]

    @property
    def _patterns(self) -> list[Pattern]:
        return [pattern(self.compiled, name) for name in self.names]

    @property
    def groups(self) -> int:
        """Number of groups."""
        return sum(p.groups for p in self._patterns)

    def members(self, group: Array) -> Array:
        """Which codes belong to a group."""
        pieces, start = [], 0
        for p in self._patterns:
            own = (group >= start) & (group < start + p.groups)
            pieces.append((p.members(jnp.asarray(group) - start) & own).ravel())
            start += p.groups
        return jnp.concatenate(pieces)

    def local(self, data: Sequence[Array], z: Array, group: Array) -> Array:
        """For each code of a group the terms that read it; anything for the others."""
        patterns = self._patterns
        arrays = inputs(self.compiled, data, z)

        def one(number: int) -> Array:
            pieces = [jnp.zeros(int(np.prod(p.shape, dtype=int)), z.dtype) for p in patterns]
            pieces[number] = patterns[number].scores(arrays).ravel().astype(z.dtype)
            return jnp.concatenate(pieces)

        if len(patterns) == 1:
            return one(0)
        stops = np.cumsum([p.groups for p in patterns])[:-1].astype(np.int32)
        which = jnp.sum(jnp.asarray(group, jnp.int32) >= stops, dtype=jnp.int32)
        return jax.lax.switch(which, [lambda _, i=i: one(i) for i in range(len(patterns))], ())

    def settled(self, data: Sequence[Array], z: Array, key: Array) -> Array:
        """A full position with these codes drawn one group after the other, each from its conditional."""
        sites, slots = self.compiled.sites, self.compiled.slots
        counts = np.repeat([sites[n].states[1] for n in self.names], [_size(slots[n]) for n in self.names])
        start = slots[self.names[0]].start  # codes lie side by side, at the end of the vector

        def body(group: Array, z: Array) -> Array:
            own = jax.lax.dynamic_slice_in_dim(z, start, len(counts))
            inside = self.members(group)

            def one(k: Array) -> Array:
                moved = jax.lax.dynamic_update_slice_in_dim(z, jnp.where(inside, k.astype(z.dtype), own), start, 0)
                value = self.local(data, moved, group)
                return jnp.where(jnp.isnan(value) | (k >= counts), -jnp.inf, value)

            logs = jax.vmap(one)(jnp.arange(int(counts.max()), dtype=jnp.int32))
            drawn = jax.random.categorical(jax.random.fold_in(key, group), logs, axis=0).astype(z.dtype)
            return jax.lax.dynamic_update_slice_in_dim(z, jnp.where(inside, drawn, own), start, 0)

        return jax.lax.fori_loop(np.int32(0), np.int32(self.groups), body, z)


def _size(slot: space.Slot) -> int:
    return slot.stop - slot.start
