"""Full conditionals of the elements of a plate: many independent densities, evaluated at the cost of one.

Given everything outside of a plate its elements are independent, pi(x | rest) = prod_i pi_i(x_i | rest). The factors of
element i are what one run of the plate's body for that element alone computes, so that all of them, mapped over i, cost
what one evaluation of the plate costs. In that run the plate's result is a mark which reaches every value computed
from it: a factor that the mark reaches reads other elements, or its own by a way that the run does not see. So does a
factor outside of the plate that reads the sites.

Such factors are looked at in the traced program (``passes.alignment``): if each of their elements reads one element of
the plate, the one beside it or the one that an index in the data names, all elements are evaluated together
(``lockstep``). Otherwise they are not independent, and moving them apart is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _jax, arguments, codes, lockstep, space
from .errors import ModelError, at, suggest

Array = Any


@partial(
    jax.tree_util.register_dataclass, data_fields=["density", "position"], meta_fields=["names", "plate", "together"]
)
@dataclass(frozen=True, eq=False)
class Elements:
    """Full conditionals of sites in the elements of a plate, one for each.

    Attributes:
        density: The density.
        position: Full position, shape (dim,).
        names: The sites, in the order of the density's layout.
        plate: Name of the plate.
        together: Whether all elements are evaluated at once, because factors outside of the plate read them.

    Example:
        >>> import ppl
        >>> from ppl import dist
        >>> @ppl.model
        ... def f():
        ...     mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        ...     ppl.plate("i", lambda: ppl.sample("x", dist.Normal(mu, 1.0)), 3)
        >>> elements = ppl.compile(f()).restrict("x", np.array([2.0, 0.0, 1.0, 5.0]), each="i")
        >>> [round(float(elements.element(i)(x)), 4) for i, x in enumerate(elements.start())]
        [-2.9189, -1.4189, -5.4189]
    """

    density: Any
    position: Array
    names: tuple[str, ...]
    plate: str
    together: bool = False

    @property
    def _depth(self) -> int:
        return len(_path(self.density.compiled.sites[self.names[0]], self.plate))

    @property
    def count(self) -> int:
        """Number of elements, over the plates around the plate too."""
        return int(np.prod(self.density.layout[self.names[0]].shape[: self._depth]))

    @property
    def dim(self) -> int:
        """Length of the vector of one element."""
        slots = [self.density.layout[name] for name in self.names]
        return sum(slot.stop - slot.start for slot in slots) // self.count

    @property
    def finite(self) -> tuple[int, ...]:
        """Numbers of states of the last entries of an element's vector, which are codes of finite sites."""
        sites = self.density.compiled.sites
        return tuple(
            sites[name].states[1]
            for name in self.names
            if sites[name].discrete
            for _ in range((self.density.layout[name].stop - self.density.layout[name].start) // self.count)
        )

    @property
    def continuous(self) -> int:
        """Number of entries of an element's vector that are real."""
        return self.dim - len(self.finite)

    @property
    def differentiable(self) -> bool:
        """Whether an element's conditional has a gradient."""
        from .host import host_names

        programs = [code for code, _ in _readings(self) or []] if self.together else [_element(self)[0]]
        return not any(host_names(code, graded=False) for code in programs)

    def start(self) -> Array:
        """The elements' part of the full position, shape (count, dim)."""
        slots = [self.density.layout[name] for name in self.names]
        pieces = [self.position[slot.start : slot.stop].reshape(self.count, -1) for slot in slots]
        return jnp.concatenate(pieces, axis=1)

    def merge(self, x: Array) -> Array:
        """The full position with these sites at ``x`` of shape (count, dim)."""
        z = self.position
        for name, columns in self._columns(x).items():
            z = jax.lax.dynamic_update_slice(z, columns.ravel(), (self.density.layout[name].start,))
        return z

    def element(self, index: Array) -> Element:
        """The conditional of one element; the index may be traced."""
        return Element(self, index)

    def scores(self, x: Array) -> Array:
        """Log densities (count,) of all elements at ``x`` of shape (count, dim), of those evaluated together."""
        compiled = self.density.compiled
        arrays = codes.inputs(compiled, self.density.data, self.merge(x))
        sizes = self.density.layout[self.names[0]].shape[: self._depth]
        total = jnp.zeros(sizes, x.dtype)
        for code, readings in _readings(self) or []:
            outputs = code.run(*arrays)
            for reading, value in zip(readings, outputs, strict=False):
                if reading is not None:
                    total = total + reading.scores(value, outputs, sizes, None).astype(x.dtype)
        return total.ravel()

    def _columns(self, x: Array) -> dict[str, Array]:
        """Cut the last axis into the sites' parts."""
        found, used = {}, 0
        for name in self.names:
            slot = self.density.layout[name]
            size = (slot.stop - slot.start) // self.count
            found[name] = x[..., used : used + size]
            used += size
        return found


@partial(jax.tree_util.register_dataclass, data_fields=["all", "index"], meta_fields=["part"])
@dataclass(frozen=True, eq=False)
class Element:
    """The full conditional of one element, or a part of it.

    Attributes:
        all: The conditionals of all elements.
        index: Number of the element.
        part: ``"all"``; ``"prior"`` for the terms of its own sites, ``"likelihood"`` for those of what reads them.
    """

    all: Elements
    index: Array
    part: str = "all"

    @property
    def dim(self) -> int:
        """Length of its vector."""
        return self.all.dim

    @property
    def finite(self) -> tuple[int, ...]:
        """Numbers of states of its last entries, which are codes."""
        return self.all.finite

    @property
    def continuous(self) -> int:
        """Number of its entries that are real."""
        return self.all.continuous

    @property
    def differentiable(self) -> bool:
        """Whether it has a gradient."""
        return self.all.differentiable

    def split(self) -> tuple[Element, Element]:
        """Log prior given the rest (with log-determinants), and the factors of what depends on the element."""
        if self.all.together:
            raise ModelError(f"split: the elements of plate {self.all.plate!r} are evaluated together")
        return replace(self, part="prior"), replace(self, part="likelihood")

    def __call__(self, x: Array) -> Array:
        """Log density of the element at ``x`` of shape (dim,) given the rest, up to a constant."""
        whole = self.all
        if whole.together:
            return lockstep.value(whole, jnp.asarray(self.index, jnp.int32), x)
        code, labels = _element(whole)
        if self.part != "all":
            own = self.part == "prior"
            code = _jax.select(code, [i for i, (_, name) in enumerate(labels) if (name in whole.names) == own])
        depth, layout = whole._depth, whole.density.layout
        pieces = space.split(whole.position, layout)
        for name, values in whole._columns(x).items():
            pieces[name] = values.reshape((1,) * depth + layout[name].shape[depth:])
        sizes = layout[whole.names[0]].shape[:depth]
        places, rest = [], jnp.asarray(self.index, jnp.int32)
        for size in reversed(sizes[1:]):
            places.append(jax.lax.rem(rest, jnp.int32(size)))
            rest = jax.lax.div(rest, jnp.int32(size))
        places.append(rest)
        mark = jnp.zeros((), x.dtype)
        terms = code.run(*whole.density.data, *pieces.values(), *places[::-1], mark)
        total = jnp.zeros((), x.dtype)
        for term in terms:
            total = total + jnp.sum(term).astype(x.dtype)
        return total


def elements(density: Any, names: Sequence[str], z: Array, plate: str) -> Elements:
    """The full conditionals of some sites in each element of a plate.

    Raises:
        ModelError: A site that does not stand in the plate, or elements that others read.
    """
    sites = density.compiled.sites
    for name in names:
        if not _path(sites[name], plate):
            around = [label for label, _, _ in sites[name].plates]
            where = f"in {', '.join(around)}" if around else "in no plate"
            raise ModelError(
                f"each={plate!r}: site {name!r} does not stand in a plate of this name, but {where}:"
                f"\n{at(sites[name].source)}{suggest(plate, around) if around else ''}"
            )
        if _path(sites[name], plate)[-1][2] != "plate":
            raise ModelError(
                f"each={plate!r}: the steps of a chain depend on each other, so that site {name!r} cannot move in each "
                f"of them apart:\n{at(sites[name].source)}\n  Leave each= out."
            )
        if _path(sites[name], plate) != _path(sites[names[0]], plate):
            raise ModelError(
                f"each={plate!r}: sites {names[0]!r} and {name!r} do not stand in the same plates:"
                f"\n{at(sites[names[0]].source)}\n{at(sites[name].source)}"
            )
    found = Elements(density, z, tuple(sorted(names, key=lambda name: density.layout[name].start)), plate)
    try:
        if getattr(density.compiled, "hand", None) is not None:
            raise ModelError(f"each={plate!r} needs the model's own coordinates; compile without reparameterize=")
        _element(found)
    except ModelError:
        if _readings(found) is None:
            raise
        return replace(found, together=True)
    return found


def _readings(whole: Elements) -> list[tuple[Any, list[Any]]] | None:
    """Programs of the terms that read the sites, and how each of their outputs reads elements of the plate.

    None if an element of a term may read two of them. A term that reads several of the sites counts once.
    """
    compiled = whole.density.compiled
    identity = ("readings", whole.names, whole.plate)
    if identity not in compiled._parts:
        compiled._parts[identity] = _read(whole)
    return compiled._parts[identity]


def _read(whole: Elements) -> list[tuple[Any, list[Any]]] | None:
    depth, found = whole._depth, []
    seen: dict[tuple[str, str], tuple[str, Any]] = {}
    for name in whole.names:
        pattern = codes.pattern(whole.density.compiled, name)
        labels = [reading.label for reading in pattern.readings]
        kept: list[Any] = []
        for reading in pattern.readings:
            places = reading.places[:depth]
            if any(place is None or place.offsets != {0} for place in places) or labels.count(reading.label) > 1:
                return None
            if seen.setdefault(reading.label, (name, places))[1] != places:
                return None
            own = seen[reading.label][0] == name
            kept.append(replace(reading, places=places, index=reading.index[:depth]) if own else None)
        found.append((pattern.code, kept))
    return found


def _path(info: Any, plate: str) -> tuple[tuple[str, int, str], ...]:
    """The plates around a site, down to the one that is meant; none if it does not stand in it."""
    labels = [label for label, _, _ in info.plates]
    return info.plates[: labels.index(plate) + 1] if plate in labels else ()


def _element(whole: Elements) -> tuple[Any, list[tuple[str, str]]]:
    """The program of one element's factors, traced once, and their labels."""
    compiled = whole.density.compiled
    identity = ("element", whole.names, whole.plate)
    if identity not in compiled._parts:
        compiled._parts[identity] = _traced(whole)
    return compiled._parts[identity]


def _traced(whole: Elements) -> tuple[Any, list[tuple[str, str]]]:
    compiled, chosen = whole.density.compiled, set(whole.names)
    path = _path(compiled.sites[whole.names[0]], whole.plate)
    if compiled.hand is not None:
        moved = ", ".join(repr(e.name) for e in compiled.hand.moves.effects)
        raise ModelError(
            f"each={whole.plate!r}: the elements of a plate are updated in the coordinates of the model, but those of "
            f"{moved} were chosen by hand; leave reparameterize= or each= out"
        )
    wanted = _factors(whole, chosen, path)
    program = whole.density.program
    labels: list[tuple[str, str]] = []

    def terms(data: list[Array], values: list[Array], free: list[Array], places: list[Array], mark: Array) -> Any:
        settings = {
            "given": dict(zip(compiled.fixed, values, strict=True)),
            "free": dict(zip(compiled.slots, free, strict=True)),
            "known": compiled.sites,
            "keep": ("factor", "logdet"),
            "windows": {label: (place, 1) for (label, _, _), place in zip(path, places, strict=True)},
            "unread": mark,
        }
        out = program.play(data, **settings)[1].out
        pairs = [((c, n), v) for c, kept in out.items() for n, v in kept.items()]
        labels[:] = [label for label, _ in pairs]
        return [value for _, value in pairs]

    with jax.enable_x64(compiled.x64):
        dtype = jnp.result_type(float)
        count = len(program.arguments.data)
        arrays = [arguments.abstract(x) for x in (*program.arguments.data, *program.fixed.values())]
        shapes = {name: slot.shape for name, slot in compiled.slots.items()}
        shapes |= {name: (1,) * len(path) + shapes[name][len(path) :] for name in chosen}
        free = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes.values()]
        places = [jax.ShapeDtypeStruct((), jnp.int32) for _ in path]
        mark = jax.ShapeDtypeStruct((), dtype)
        code, _ = _jax.trace(terms, arrays[:count], arrays[count:], free, places, mark)
    inputs = compiled.inputs + len(shapes) + len(path) + 1
    outputs = tuple(i for i, label in enumerate(labels) if label in wanted)
    reads = _jax.dependence(code, inputs)
    for i in outputs:
        if inputs - 1 in reads[i]:
            _refuse(whole, labels[i][1], "reads other elements of the plate, through the plate's result")
    return _jax.select(code, outputs), [labels[i] for i in outputs]


def _factors(whole: Elements, chosen: set[str], path: tuple) -> set[tuple[str, str]]:
    """Terms of the log density that read the sites, all of which stand in the plate."""
    compiled = whole.density.compiled
    found = set()
    for i in compiled.terms:
        if compiled.reads[i] & chosen:
            channel, name = compiled.names[i]
            summed = sorted(compiled.reads[i] & set(compiled.summed))
            if summed:
                raise ModelError(
                    f"each={whole.plate!r}: site {summed[0]!r} is summed out, and what is left is no sum over the "
                    f"elements of site {min(chosen)!r}:\n{at(compiled.sites[summed[0]].source)}\n"
                    "  Leave each= out, or compile with marginalize=False and give the finite sites a block of Gibbs()."
                )
            if compiled.sites[name].plates[: len(path)] != path:
                _refuse(whole, name, f"stands outside of plate {whole.plate!r} and reads its elements")
            found.add((channel, name))
    return found


def _refuse(whole: Elements, name: str, why: str) -> None:
    sites = whole.density.compiled.sites
    first = whole.names[0]
    others = ", give each of the sites a Block of its own" if len(whole.names) > 1 else ""
    raise ModelError(
        f"each={whole.plate!r}: the elements of site {first!r} do not move independently of each other, because site "
        f"{name!r} {why}:\n{at(sites[first].source)}\n{at(sites[name].source)}\n"
        f"  Leave each= out, Block({first!r}, kernel){others}, or write {name!r} inside of the plate, for one element."
    )
