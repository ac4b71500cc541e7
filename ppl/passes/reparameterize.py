r"""Reparameterize: hierarchical effects between centred and non-centred, by parameters that can be learned.

An effect theta = m + s e with e standard, whose scale s depends on other latent sites, is sampled through

    e = x / sqrt(q) + (k s / q) (t - m),    q = 1 + k s^2,    d e / d x = 1 / sqrt(q),

one x, k and t per element. For k = 0, x is e, the non-centred form; for k -> infinity it is theta up to an affine
map, the centred one. Where data add information k about theta, with estimate t, and all is Gaussian, x is standard
normal whatever m and s are. Whether the model samples theta (then log|d theta / d x| = log s - log(q) / 2) or e
(-log(q) / 2) makes no difference to x. The maps of several sites are made in such an order that m and s read only
sites that are there already, so their Jacobian is triangular; any m, s, k and t give the same posterior.

References: Papaspiliopoulos, Roberts and Skold (2007), A general framework for the parametrization of hierarchical
models; Gorinova, Moore and Hoffman (2020), Automatic reparameterisation of probabilistic programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import _jax
from ..location import INFORMATION
from .standard import Reader

Array = Any
Pieces = dict[str, Array]
CHANNELS = ("location", "scale", "standard", "padded")
"""What of a run ``find`` reads."""


@dataclass(frozen=True)
class Effect:
    """A site with a location and a scale.

    Attributes:
        name: The site.
        standard: Whether the site itself is e; else it is theta.
        location: Output of ``Moves.code`` that is m, None for zero.
        scale: Output of ``Moves.code`` that is s.
        reads: Latent sites that m and s are computed from.
        level: Effects whose m and s read effects of lower levels only have this one.
        information: Fisher information of the law of e.
        normal: Whether log factor and log-determinant of the site are those of a normal law, without padding.
        centred: Whether x is theta (k and t are not used).
    """

    name: str
    standard: bool
    location: int | None
    scale: int
    reads: frozenset[str]
    level: int = 0
    information: float = 1.0
    normal: bool = False
    centred: bool = False


@dataclass(frozen=True, eq=False)
class Moves:
    """The effects of a traced program and the maps between their coordinates.

    Attributes:
        effects: The effects, by level.
        code: Program of (data, fixed values, free values) for locations and scales.
        shapes: Shape of the free value of each effect.
        summed: Shapes of the codes of sites that are summed out, which no location or scale reads.
    """

    effects: tuple[Effect, ...]
    code: Any
    shapes: tuple[tuple[int, ...], ...]
    summed: dict[str, tuple[int, ...]]

    @property
    def size(self) -> int:
        """Number of elements of all effects."""
        return sum(int(np.prod(shape, dtype=int)) for shape in self.shapes)

    def cut(self, flat: Array) -> list[Array]:
        """Cut an array over all elements, shape (..., size), into the effects'."""
        bounds = np.cumsum([0, *(int(np.prod(shape, dtype=int)) for shape in self.shapes)])
        lead = flat.shape[:-1]
        pairs = zip(bounds[:-1], bounds[1:], self.shapes, strict=True)
        return [flat[..., low:high].reshape(lead + shape) for low, high, shape in pairs]

    def located(self, level: int | None, data: Sequence[Array], pieces: Pieces) -> dict[str, tuple[Array, Array]]:
        """Location and scale of the effects of one level or of all, not broadcast."""
        chosen = [e for e in self.effects if level is None or e.level == level]
        outputs = sorted({i for e in chosen for i in (e.location, e.scale) if i is not None})
        unread = [jnp.zeros(shape) for name, shape in self.summed.items() if name not in pieces]
        values = _jax.select(self.code, outputs).run(*data, *pieces.values(), *unread)
        found = dict(zip(outputs, values, strict=True))

        def fitted(i: int | None) -> Array:
            value = jnp.zeros((), values[0].dtype) if i is None else found[i]
            return value.reshape(()) if value.size == 1 else value

        return {e.name: (fitted(e.location), fitted(e.scale)) for e in chosen}

    def apply(
        self, data: Sequence[Array], pieces: Pieces, k: Array, t: Array
    ) -> tuple[Pieces, dict[str, Array], dict[str, tuple[Array, Array]]]:
        """From the effects' own coordinates to the model's.

        Returns:
            Free values; log-determinants, elementwise; and (e, log(q) / 2) of each effect.
        """
        pieces, logdets, raws = dict(pieces), {}, {}
        given = {e.name: kt for e, kt in zip(self.effects, zip(self.cut(k), self.cut(t), strict=True), strict=True)}
        for level in sorted({e.level for e in self.effects}):
            for name, (m, s) in self.located(level, data, pieces).items():
                effect = next(e for e in self.effects if e.name == name)
                raw, half = _standard(effect, pieces[name], m, s, *given[name])
                raws[name] = raw, half
                pieces[name] = raw if effect.standard else m + s * raw
                logdets[name] = -half if effect.standard else jnp.log(s) - half
        return pieces, logdets, raws

    def invert(self, data: Sequence[Array], pieces: Pieces, k: Array, t: Array) -> Pieces:
        """From the model's coordinates to the effects' own."""
        out, located = dict(pieces), self.located(None, data, pieces)
        for effect, k_, t_ in zip(self.effects, self.cut(k), self.cut(t), strict=True):
            m, s = located[effect.name]
            raw = pieces[effect.name] if effect.standard else (pieces[effect.name] - m) / s
            q = 1.0 + k_ * s * s
            moved = m + s * raw if effect.centred else jnp.sqrt(q) * (raw - k_ * s / q * (t_ - m))
            out[effect.name] = jnp.broadcast_to(moved, raw.shape)
        return out

    def only(self, names: Any) -> Moves | None:
        """The moves of some effects."""
        pairs = [(e, s) for e, s in zip(self.effects, self.shapes, strict=True) if e.name in names]
        if not pairs:
            return None
        effects, shapes = zip(*pairs, strict=True)
        return replace(self, effects=tuple(effects), shapes=tuple(shapes))


def _standard(effect: Effect, x: Array, m: Array, s: Array, k: Array, t: Array) -> tuple[Array, Array]:
    """The standard effect e, and minus the logarithm of d e / d x."""
    if effect.centred:
        return (x - m) / s, jnp.broadcast_to(jnp.log(s), x.shape)
    ks = k * s
    q = 1.0 + ks * s
    return x / jnp.sqrt(q) + ks / q * (t - m), 0.5 * jnp.log(q)


def find(compiled: Any, names: Any = None) -> Moves | None:
    """The effects of a traced program; None where there are none.

    Args:
        compiled: A ``Compiled``.
        names: Sites among which to look; by default all, and then only effects whose scale reads latent sites count.
    """
    code = compiled.code
    if not isinstance(code, _jax.Code):
        return None
    outvars: list[Any] = []
    found: list[Effect] = []
    reader = Reader(code.jaxpr)

    def output(var: Any) -> int:
        outvars.append(reader.narrow(var))
        return len(outvars) - 1

    slots = {n: slot for n, slot in compiled.slots.items() if names is None or n in names}
    for name in slots:
        places = [compiled.find(channel, sites={name}) for channel in ("location", "scale")]
        if all(places):
            m, s = (code.jaxpr.outvars[place[0]] for place in places)
            family = compiled.sites[name].family
            plain = family in ("Normal", "LogNormal") and not compiled.find("padded", sites={name})
            effect = Effect(name, False, output(m), output(s), frozenset(), 0, INFORMATION[family], plain)
            found.append(effect)
    for name, slot in slots.items():
        normal = compiled.sites[name].family == "Normal" and slot.stop > slot.start
        pair = _written(compiled, name) if normal and compiled.find("standard", sites={name}) else None
        if pair is not None:
            b, a = pair
            found.append(Effect(name, True, None if a is None else output(a), output(b), frozenset()))
    if not found:
        return None
    program = _jax.Code(_jax.rebuild(code.jaxpr, code.jaxpr.invars, outvars, code.jaxpr.eqns), code.consts)
    effects = _ordered(compiled, program, found, names is not None)
    shapes = tuple(compiled.slots[e.name].shape for e in effects)
    summed = {name: slot.shape for name, slot in compiled.summed.items()}
    return Moves(effects, program, shapes, summed) if effects else None


def _written(compiled: Any, name: str) -> tuple[Any, Any] | None:
    """Scale and location of a standard site in the text of a program."""
    terms = [i for i in compiled.terms if compiled.names[i] not in (("factor", name), ("logdet", name))]
    code = compiled.part(tuple(terms))
    index = len(code.consts) + compiled.inputs + list(compiled.slots).index(name)
    return Reader(code.jaxpr).scale(code.jaxpr.invars[index])


def _ordered(compiled: Any, program: Any, found: Sequence[Effect], constant: bool) -> tuple[Effect, ...]:
    """Effects whose scale reads latent sites (or nothing) but neither itself nor what depends on it, by level."""
    names = [*compiled.slots, *compiled.summed]
    rows = _jax.dependence(program, compiled.inputs + len(names))
    reads = [{names[i - compiled.inputs] for i in row if i >= compiled.inputs} for row in rows]
    left: dict[str, Effect] = {}
    for effect in found:
        both = reads[effect.scale] | (set() if effect.location is None else reads[effect.location])
        if (constant or reads[effect.scale]) and effect.name not in both and not both & set(compiled.summed):
            left.setdefault(effect.name, replace(effect, reads=frozenset(both)))
    done: list[Effect] = []
    level = 0
    while left:
        ready = [e for e in left.values() if not e.reads & set(left)]
        if not ready:  # effects that read each other: the first of them stays as it is
            left.pop(next(iter(left)))
            continue
        done += [replace(e, level=level) for e in ready]
        for e in ready:
            del left[e.name]
        level += 1
    return tuple(done)


def learned(compiled: Any) -> Moves | None:
    """The effects whose coordinates a run may learn: all, but those that were chosen by hand."""
    choice = compiled.passes.reparameterize
    forms = {} if isinstance(choice, bool) else dict(choice)
    if choice is False or "*" in forms:
        return None
    moves = find(compiled)
    return moves and moves.only([e.name for e in moves.effects if forms.get(e.name, "learned") == "learned"])
