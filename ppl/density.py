"""A compiled program with data: log densities over the flat unconstrained vector, and what else is asked of them.

log p(z) = sum of the sites' log factors at x = T(z) + log |det dT/dz|. A density is a pytree of its data; the program
is its static part, so compiled functions that take a density as an argument serve all data of equal shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import missing, space
from .errors import ModelError, suggest
from .host import surfacing
from .movable import Movable
from .program import Program
from .sites import in_order

Array = Any


class Labels:
    """Labels beside a density, ignored by JAX when it compares densities."""

    def __init__(self, program: Program) -> None:
        """Keep the program whose coordinates name the entries."""
        self.program = program

    def __eq__(self, other: object) -> bool:
        """Always equal to other labels."""
        return isinstance(other, Labels)

    def __hash__(self) -> int:
        """One value for all labels."""
        return 0


@partial(jax.tree_util.register_dataclass, data_fields=["data", "residuals"], meta_fields=["compiled", "labelling"])
@dataclass(frozen=True, eq=False)
class Density:
    """A log density over the flat unconstrained vector of a program's latent sites; a pytree of its data.

    Calling it gives log p(x, y) + log |det dx/dz| at x = T(z). All methods can be traced, and a density is meant
    to be an *argument* of compiled functions: new data of equal shapes then never compile.

    Attributes:
        compiled: The traced model.
        data: The program's arrays and the fixed sites' values.
        residuals: What the log density needs of them.
    """

    compiled: Any
    data: tuple[Array, ...]
    residuals: tuple[Array, ...]
    labelling: Any = None

    def __call__(self, z: Array) -> Array:
        """Log density at ``z`` of shape (dim,), log-determinants included."""
        self._check(z)
        if _concrete(z, self.residuals):
            with jax.enable_x64(self.compiled.x64):
                return _log_density(self, z)
        return self._log_density(z)

    def _check(self, z: Array) -> None:
        if np.shape(z) != (self.dim,):
            raise ModelError(
                f"a position of this density has shape ({self.dim},), the unconstrained values of "
                f"{', '.join(self.layout) or 'no site'}, not {np.shape(z)}. For many positions: jax.vmap(density)(zs)."
            )
        if isinstance(z, jax.core.Tracer) and bool(jax.config.jax_enable_x64) != self.compiled.x64:
            now, then = ("float64", "float32") if jax.config.jax_enable_x64 else ("float32", "float64")
            raise ModelError(
                f"this density was compiled in {then} and is traced in {now}. Write   with jax.enable_x64("
                f"{self.compiled.x64}):   around the call, or compile it again."
            )

    def _log_density(self, z: Array) -> Array:
        pieces = space.split(z, self.compiled.slots)
        return _total(self.compiled.hoisted.after.run(*self.residuals, *pieces.values()), z.dtype)

    @property
    def dim(self) -> int:
        """Length of the unconstrained vector."""
        return self.compiled.dim

    @property
    def finite(self) -> tuple[int, ...]:
        """Numbers of states of the last entries of the vector, which are codes of finite sites."""
        sites, slots = self.compiled.sites, self.layout.items()
        return tuple(sites[n].states[1] for n, slot in slots if sites[n].discrete for _ in range(slot.start, slot.stop))

    @property
    def continuous(self) -> int:
        """Number of entries of the vector that are real; the others, at its end, are codes of finite sites."""
        return self.dim - len(self.finite)

    @property
    def layout(self) -> dict[str, space.Slot]:
        """Places of the latent sites in the unconstrained vector."""
        return self.compiled.slots

    @property
    def work(self) -> int:
        """Array elements computed by one evaluation; a deterministic measure of cost."""
        return self.compiled.work

    @property
    def external(self) -> tuple[str, ...]:
        """Names of the functions outside of JAX that one evaluation calls (``ppl.external``)."""
        return self.compiled.external

    @property
    def differentiable(self) -> bool:
        """Whether the density has a gradient; not where it calls an external function that has none."""
        return self.compiled.differentiable(self.compiled.terms)

    @property
    def program(self) -> Program:
        """The program, with this density's labels."""
        return self.labelling.program if self.labelling is not None else self.compiled.program

    @property
    def labels(self) -> list[str]:
        """A name for every entry of the unconstrained vector, such as ``theta[3]``."""
        names: list[str] = []
        texts = missing.labels(self.program)
        for name, slot in self.layout.items():
            if slot.shape == ():
                names.append(name)
            elif f"{name}_dim_0" in texts:
                names.extend(f"{name}[{text}]" for text in texts[f"{name}_dim_0"])
            else:
                info, tidy = self.compiled.sites[name], self.program.tidy
                names.extend(f"{name}[{tidy.element(info, place)}]" for place in np.ndindex(*slot.shape))
        return names

    def _channel(self, z: Array, channels: Sequence[str], names: Any = None) -> dict[str, Array]:
        return self._evaluated(z, tuple(self.compiled.find(*channels, sites=names)))

    def _evaluated(self, z: Array, outputs: tuple[int, ...]) -> dict[str, Array]:
        self._check(z)
        if _concrete(z, self.data):
            with jax.enable_x64(self.compiled.x64):
                return in_order(self.compiled.sites, _outputs(self, z, outputs))
        return in_order(self.compiled.sites, self._outputs(z, outputs))

    def _outputs(self, z: Array, outputs: tuple[int, ...]) -> dict[str, Array]:
        return {name: value for (_, name), value in self.compiled.evaluate(outputs, self.data, z).items()}

    def constrain(self, z: Array) -> dict[str, Array]:
        """Values of the latent sites."""
        return self._channel(z, ["value"], set(self.layout))

    def generated(self, z: Array) -> dict[str, Array]:
        """Values of the latent sites and of the records."""
        sites = self.compiled.sites
        wanted = {n for n, info in sites.items() if info.kind == "record"} | set(self.layout)
        return self._channel(z, ["value"], wanted)

    def factors(self, z: Array) -> dict[str, Array]:
        """Log factor of every site, without log-determinants."""
        return self._channel(z, ["factor"])

    def factor(self, name: str, z: Array) -> Array:
        """Log factor of one site."""
        return self._channel(z, ["factor"], {name})[name]

    def pointwise(self, z: Array) -> dict[str, Array]:
        """Log factors of the observed sites, each of the shape of its plates and batch."""
        return self._evaluated(z, tuple(self.compiled.likelihood))

    def log_prior(self, z: Array) -> dict[str, Array]:
        """Log prior of each latent site, summed over its elements, without log-determinant."""
        return {name: jnp.sum(value) for name, value in self._evaluated(z, tuple(self.compiled.prior)).items()}

    def unconstrain(self, values: dict[str, Array]) -> Array:
        """The flat vector at which the latent sites have the given values; inverse of ``constrain``."""
        program, fixed = self._play_inputs()
        absent = [n for n in self.layout if n not in values]
        if absent:
            raise ModelError(f"unconstrain needs a value for every latent site; missing: {', '.join(absent)}")
        given = {**fixed, **{n: self._packed(n, values[n]) for n in self.layout}}
        settings = {"given": given, "known": self.compiled.sites, "keep": ("free",)}
        return self._joined(program.play(self._arguments(), **settings)[1].out.get("free", {}))

    def _joined(self, free: dict[str, Array]) -> Array:
        """A flat vector from free values of the model's text."""
        return space.join(free if self.compiled.hand is None else self.compiled.hand.invert(self.data, free), self.layout)

    def _written(self, pieces: dict[str, Array]) -> dict[str, Array]:
        """Free values of the model's text."""
        return pieces if self.compiled.hand is None else self.compiled.hand.apply(self.data, pieces)

    @property
    def movable(self) -> Any:
        """Hierarchical effects whose coordinates a run may learn (``movable.Movable``), None where there are none."""
        return None if self.compiled.moves is None else Movable(self, self.compiled.moves)

    def _packed(self, name: str, value: Array) -> Array:
        """A value of the program's shape, or in a ragged plate of the tidy table's."""
        value, tidy = jnp.asarray(value), self.program.tidy
        if not tidy.axes or value.shape == self.compiled.sites[name].full_shape:
            return value
        if any(isinstance(x, jax.core.Tracer) for x in self.data):  # another table's order may come as data
            raise ModelError(
                f"site {name!r} lies in a ragged plate; where the density is an argument of a compiled function its "
                f"value has the packed shape {self.compiled.sites[name].full_shape}, not {value.shape}"
            )
        return jnp.asarray(tidy.pack(name, value))

    def prior(self, key: Array) -> Array:
        """A draw of the latent sites from the prior, unconstrained.

        Raises:
            ImproperPrior: A prior cannot be sampled.
        """
        program, fixed = self._play_inputs()
        settings = {"given": fixed, "known": self.compiled.sites, "key": key, "keep": ("free",)}
        return self._joined(program.play(self._arguments(), **settings)[1].out.get("free", {}))

    def diagnose(self, z: Array) -> dict[str, Any]:
        """Values, factors, supports and parameters of all sites, for ``ppl.check``."""
        return _diagnose(self, z)

    def _arguments(self) -> list[Array]:
        return list(self.data[: len(self.data) - len(self.compiled.fixed)])

    def _play_inputs(self) -> tuple[Program, dict[str, Array]]:
        fixed = self.data[len(self.data) - len(self.compiled.fixed) :]
        # this density's own program: an equal one traced earlier may read globals that are gone
        return self.program, dict(zip(self.compiled.fixed, fixed, strict=True))

    def split(self) -> tuple[Part, Part]:
        """Log prior (with log-determinants) and log likelihood, as densities over the same vector."""
        compiled = self.compiled
        prior = compiled.prior + compiled.find("logdet")
        theirs = {*compiled.find("logdet"), *compiled.find("factor", sites={*self.layout, *compiled.observed})}
        rest = [i for i in compiled.terms if i not in theirs]  # factor statements
        return Part(self, tuple(prior)), Part(self, (*compiled.likelihood, *rest))

    def restrict(self, names: str | Sequence[str], z: Array, each: str | None = None) -> Any:
        """Full conditional of some sites, the others held at ``z``: only the factors that read them.

        Args:
            names: One latent site or several.
            z: Full position, shape (dim,).
            each: A plate around them, whose elements have a conditional each.

        Returns:
            A density over the concatenated unconstrained values of ``names``; with ``each`` the ``Elements``.

        Raises:
            ModelError: A name that is not a latent site, or with ``each`` elements that others read.
        """
        chosen = (names,) if isinstance(names, str) else tuple(names)
        unknown = [n for n in chosen if n not in self.layout]
        if unknown:
            raise ModelError(f"restrict: {unknown[0]!r} is not a latent site.{suggest(unknown[0], self.layout)}")
        if each is not None:
            from .elements import elements

            return elements(self, chosen, z, each)
        outputs = tuple(i for i in self.compiled.terms if self.compiled.reads[i] & set(chosen))
        return Restricted(self, z, chosen, outputs)


def _total(terms: Sequence[Array], dtype: Any) -> Array:
    total = jnp.zeros((), dtype)
    for term in terms:
        total = total + jnp.sum(term).astype(dtype)
    return total


def _concrete(z: Any, arrays: Sequence[Any]) -> bool:
    """Whether nothing is traced, so that a call is better compiled than run one operation at a time."""
    return not any(isinstance(x, jax.core.Tracer) for x in (z, *arrays))


def _float(z: Any) -> Array:
    z = jnp.asarray(z)
    return z if jnp.issubdtype(z.dtype, jnp.inexact) else z.astype(jnp.result_type(float))


@surfacing
@jax.jit
def _log_density(density: Density, z: Array) -> Array:
    return density._log_density(_float(z))


@surfacing
@partial(jax.jit, static_argnums=2)
def _outputs(density: Density, z: Array, outputs: tuple[int, ...]) -> dict[str, Array]:
    return density._outputs(_float(z), outputs)


@surfacing
@jax.jit
def _diagnose(density: Density, z: Array) -> dict[str, Any]:
    program, fixed = density._play_inputs()
    settings = {
        "given": fixed,
        "free": density._written(space.split(z, density.layout)),
        "known": density.compiled.sites,
        "keep": ("value", "factor", "valid"),
    }
    frame = program.play(density._arguments(), **settings)[1]
    return {channel: frame.out.get(channel, {}) for channel in ("value", "factor", "valid")}


@partial(jax.tree_util.register_dataclass, data_fields=["density"], meta_fields=["outputs"])
@dataclass(frozen=True, eq=False)
class Part:
    """A sum of some of a density's terms, over the same vector."""

    density: Density
    outputs: tuple[int, ...]

    def __call__(self, z: Array) -> Array:
        """Sum of the chosen terms."""
        compiled = self.density.compiled
        return _total(list(compiled.evaluate(self.outputs, self.density.data, z).values()), z.dtype)

    @property
    def dim(self) -> int:
        """Length of the unconstrained vector."""
        return self.density.dim

    @property
    def external(self) -> tuple[str, ...]:
        """Names of the functions outside of JAX that one evaluation calls."""
        return self.density.compiled.calls(self.outputs)

    @property
    def differentiable(self) -> bool:
        """Whether it has a gradient."""
        return self.density.compiled.differentiable(self.outputs)


@partial(jax.tree_util.register_dataclass, data_fields=["density", "position"], meta_fields=["names", "outputs"])
@dataclass(frozen=True, eq=False)
class Restricted:
    """A full conditional over the unconstrained values of some sites."""

    density: Density
    position: Array
    names: tuple[str, ...]
    outputs: tuple[int, ...]

    @property
    def external(self) -> tuple[str, ...]:
        """Names of the functions outside of JAX that one evaluation calls."""
        return self.density.compiled.calls(self.outputs)

    @property
    def differentiable(self) -> bool:
        """Whether it has a gradient."""
        return self.density.compiled.differentiable(self.outputs)

    @property
    def slots(self) -> dict[str, space.Slot]:
        """Places of the sites in the vector of this conditional."""
        found, start = {}, 0
        for name in self.names:
            slot = self.density.layout[name]
            stop = start + slot.stop - slot.start
            found[name] = space.Slot(start, stop, slot.shape)
            start = stop
        return found

    @property
    def dim(self) -> int:
        """Length of the vector of this conditional."""
        return sum(self.density.layout[n].stop - self.density.layout[n].start for n in self.names)

    def start(self) -> Array:
        """The part of the full position that belongs to these sites."""
        slots = [self.density.layout[name] for name in self.names]
        return jnp.concatenate([self.position[slot.start : slot.stop] for slot in slots])

    def merge(self, x: Array) -> Array:
        """The full position with these sites at ``x``."""
        z = self.position
        for name, slot in self.slots.items():
            z = jax.lax.dynamic_update_slice(z, x[slot.start : slot.stop], (self.density.layout[name].start,))
        return z

    def __call__(self, x: Array) -> Array:
        """Log density of the sites at ``x`` given the others, up to a constant."""
        compiled = self.density.compiled
        return _total(list(compiled.evaluate(self.outputs, self.density.data, self.merge(x)).values()), x.dtype)
