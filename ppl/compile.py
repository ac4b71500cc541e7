"""From a program to a log density over a flat unconstrained vector.

The model is traced once with its data and the latent sites' unconstrained values as inputs and everything that may
be asked later as outputs: values, records, one log factor per site, log-determinants. What a question needs is cut
out of that one program; equations that read only data run once, when data are bound. Two programs that trace to
the same equations share one ``Compiled``, so new data of equal shapes, and a model defined again, never compile.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _jax, arguments, space
from .errors import ModelError, at, suggest
from .passes.hoist import Hoisted, hoist
from .program import Program
from .trace import SiteInfo

Array = Any


class Compiled:
    """A traced model: everything about a density but its data. Compared by identity; shared by equal programs.

    Attributes:
        program: The program that it was traced from.
        sites: What the trace learned.
        slots: Places of the latent sites in the flat vector.
        dim: Length of the flat vector.
        fixed: Names of fixed sites, in the order of their data.
    """

    def __init__(self, program: Program, code: _jax.Code, names: list[tuple[str, str]], slots: dict) -> None:
        """Keep a trace; ``names`` are ``(channel, site)`` of its outputs."""
        self.program = program
        self.sites = program.learned()
        self.slots = slots
        self.dim = max((slot.stop for slot in slots.values()), default=0)
        self.fixed = tuple(program.fixed)
        self.observed = tuple(n for n in self.sites if program.role(n) == "observed")
        self.code = code
        self.names = names
        self.inputs = len(program.arguments.data) + len(self.fixed)
        self._parts: dict[Hashable, Any] = {}

    def part(self, outputs: Sequence[int]) -> _jax.Code:
        """The sub-program of some outputs, cached."""
        identity = tuple(outputs)
        if identity not in self._parts:
            self._parts[identity] = _jax.select(self.code, outputs)
        return self._parts[identity]

    def find(self, *channels: str, sites: Any = None) -> list[int]:
        """Indices of the outputs in some channels, of some sites or of all."""
        return [
            i for i, (channel, name) in enumerate(self.names) if channel in channels and (sites is None or name in sites)
        ]

    def evaluate(self, outputs: Sequence[int], data: Sequence[Array], z: Array) -> dict[tuple[str, str], Array]:
        """Selected outputs at a flat position."""
        pieces = space.split(z, self.slots)
        values = self.part(outputs).run(*data, *pieces.values())
        return {self.names[i]: value for i, value in zip(outputs, values, strict=True)}

    @cached_property
    def terms(self) -> list[int]:
        """Outputs whose sum is the log density."""
        return self.find("factor", "logdet")

    @cached_property
    def hoisted(self) -> Hoisted:
        """The log density's program divided into what needs data only and the rest."""
        return hoist(self.part(self.terms), self.inputs)

    @cached_property
    def work(self) -> int:
        """Array elements computed by one evaluation of the log density."""
        return _jax.work(self.hoisted.after)

    @cached_property
    def reads(self) -> list[set[str]]:
        """For each output, the latent sites that it is computed from (through unconstrained values)."""
        found = _jax.dependence(self.code, self.inputs + len(self.slots))
        names = list(self.slots)
        return [{names[i - self.inputs] for i in row if i >= self.inputs} for row in found]

    def bind(self, data: Sequence[Any], program: Program | None = None) -> Density:
        """The density of given data: arguments first, then the fixed sites' values; itself traceable."""
        data = tuple(_on_device(x) for x in data)
        plan = self.hoisted
        head = () if plan.before is None else tuple(plan.before(*data))
        return Density(self, data, (*head, *(data[i] for i in plan.used)), program and _Labels(program))


class _Labels:
    """Labels beside a density, ignored by JAX when it compares densities."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Labels)

    def __hash__(self) -> int:
        return 0


def _on_device(x: Any) -> Any:
    if isinstance(x, (jax.Array, jax.core.Tracer)):
        return x
    x = np.asarray(x)
    return jax.device_put(x.astype(jax.dtypes.canonicalize_dtype(x.dtype)))


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

    compiled: Compiled
    data: tuple[Array, ...]
    residuals: tuple[Array, ...]
    labelling: Any = None

    def __call__(self, z: Array) -> Array:
        """Log density at ``z`` of shape (dim,), log-determinants included."""
        if _concrete(z, self.residuals):
            return _log_density(self, z)
        return self._log_density(z)

    def _log_density(self, z: Array) -> Array:
        pieces = space.split(z, self.compiled.slots)
        return _total(self.compiled.hoisted.after.run(*self.residuals, *pieces.values()), z.dtype)

    @property
    def dim(self) -> int:
        """Length of the unconstrained vector."""
        return self.compiled.dim

    @property
    def layout(self) -> dict[str, space.Slot]:
        """Places of the latent sites in the unconstrained vector."""
        return self.compiled.slots

    @property
    def work(self) -> int:
        """Array elements computed by one evaluation; a deterministic measure of cost."""
        return self.compiled.work

    @property
    def program(self) -> Program:
        """The program, with this density's labels."""
        return self.labelling.program if self.labelling is not None else self.compiled.program

    @property
    def labels(self) -> list[str]:
        """A name for every entry of the unconstrained vector, such as ``theta[3]``."""
        names: list[str] = []
        for name, slot in self.layout.items():
            if slot.shape == ():
                names.append(name)
            else:
                names.extend(f"{name}[{', '.join(map(str, place))}]" for place in np.ndindex(*slot.shape))
        return names

    def _channel(self, z: Array, channels: Sequence[str], names: Any = None) -> dict[str, Array]:
        outputs = tuple(self.compiled.find(*channels, sites=names))
        if _concrete(z, self.data):
            return _outputs(self, z, outputs)
        return self._outputs(z, outputs)

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

    def pointwise(self, z: Array) -> dict[str, Array]:
        """Log factors of the observed sites, each of the shape of its plates and batch."""
        return self._channel(z, ["factor"], set(self.compiled.observed))

    def log_prior(self, z: Array) -> dict[str, Array]:
        """Log prior of each latent site, summed over its elements, without log-determinant."""
        return {name: jnp.sum(value) for name, value in self._channel(z, ["factor"], set(self.layout)).items()}

    def unconstrain(self, values: dict[str, Array]) -> Array:
        """The flat vector at which the latent sites have the given values; inverse of ``constrain``."""
        program, fixed = self._play_inputs()
        missing = [n for n in self.layout if n not in values]
        if missing:
            raise ModelError(f"unconstrain needs a value for every latent site; missing: {', '.join(missing)}")
        given = {**fixed, **{n: jnp.asarray(values[n]) for n in self.layout}}
        settings = {"given": given, "known": self.compiled.sites, "keep": ("free",)}
        return space.join(program.play(self._arguments(), **settings)[1].out.get("free", {}), self.layout)

    def prior(self, key: Array) -> Array:
        """A draw of the latent sites from the prior, unconstrained.

        Raises:
            ImproperPrior: A prior cannot be sampled.
        """
        program, fixed = self._play_inputs()
        settings = {"given": fixed, "known": self.compiled.sites, "key": key, "keep": ("free",)}
        return space.join(program.play(self._arguments(), **settings)[1].out.get("free", {}), self.layout)

    def diagnose(self, z: Array) -> dict[str, Any]:
        """Values, factors, supports and parameters of all sites, for ``ppl.check``."""
        return _diagnose(self, z)

    def _arguments(self) -> list[Array]:
        return list(self.data[: len(self.data) - len(self.compiled.fixed)])

    def _play_inputs(self) -> tuple[Program, dict[str, Array]]:
        fixed = self.data[len(self.data) - len(self.compiled.fixed) :]
        return self.compiled.program, dict(zip(self.compiled.fixed, fixed, strict=True))

    def split(self) -> tuple[Part, Part]:
        """Log prior (with log-determinants) and log likelihood, as densities over the same vector."""
        prior = self.compiled.find("factor", sites=set(self.layout)) + self.compiled.find("logdet")
        rest = [i for i in self.compiled.terms if i not in set(prior)]
        return Part(self, tuple(prior)), Part(self, tuple(rest))

    def restrict(self, names: str | Sequence[str], z: Array) -> Restricted:
        """Full conditional of some sites, the others held at ``z``: only the factors that read them.

        Args:
            names: One latent site or several.
            z: Full position, shape (dim,).

        Returns:
            A density over the concatenated unconstrained values of ``names``.
        """
        chosen = (names,) if isinstance(names, str) else tuple(names)
        unknown = [n for n in chosen if n not in self.layout]
        if unknown:
            raise ModelError(f"restrict: {unknown[0]!r} is not a latent site.{suggest(unknown[0], self.layout)}")
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
    return jnp.asarray(z, jnp.result_type(float)) if not hasattr(z, "dtype") else jnp.asarray(z)


@jax.jit
def _log_density(density: Density, z: Array) -> Array:
    return density._log_density(_float(z))


@partial(jax.jit, static_argnums=2)
def _outputs(density: Density, z: Array, outputs: tuple[int, ...]) -> dict[str, Array]:
    return density._outputs(_float(z), outputs)


@jax.jit
def _diagnose(density: Density, z: Array) -> dict[str, Any]:
    program, fixed = density._play_inputs()
    settings = {
        "given": fixed,
        "free": space.split(z, density.layout),
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


@partial(jax.tree_util.register_dataclass, data_fields=["density", "position"], meta_fields=["names", "outputs"])
@dataclass(frozen=True, eq=False)
class Restricted:
    """A full conditional over the unconstrained values of some sites."""

    density: Density
    position: Array
    names: tuple[str, ...]
    outputs: tuple[int, ...]

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
        return jnp.concatenate([self.position[self.density.layout[n].start : self.density.layout[n].stop] for n in self.names])

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


# ---------------------------------------------------------------------------------------------- the cache

_by_key: dict[Hashable, Compiled] = {}
_by_code: weakref.WeakValueDictionary[Hashable, Compiled] = weakref.WeakValueDictionary()
_CACHE_SIZE = 128


def trace_program(program: Program) -> Compiled:
    """Trace a program with everything that may be asked of it as outputs."""
    learned = program.learned()
    latent = program.latent()
    discrete = [n for n in latent if learned[n].discrete]
    if discrete:
        name = discrete[0]
        raise ModelError(
            f"site {name!r} ({learned[name].family}) is a discrete latent variable; gradient-based samplers such as "
            f"NUTS and HMC, and this density, need continuous ones:\n{at(learned[name].source)}\n"
            "  Sum it out by writing its mixture, dist.mixture(weights, components), or condition on it."
        )
    slots = space.layout(learned, latent)
    names: list[tuple[str, str]] = []
    fixed = tuple(program.fixed)

    def everything(data: list[Array], values: list[Array], free: list[Array]) -> list[Array]:
        settings = {
            "given": dict(zip(fixed, values, strict=True)),
            "free": dict(zip(slots, free, strict=True)),
            "known": learned,
            "keep": ("value", "factor", "logdet"),
        }
        frame = program.play(data, **settings)[1]
        pairs = [((c, n), v) for c, kept in frame.out.items() for n, v in kept.items()]
        names[:] = [label for label, _ in pairs]
        return [value for _, value in pairs]

    dtype = jnp.result_type(float)
    free = [jax.ShapeDtypeStruct(slot.shape, dtype) for slot in slots.values()]
    arrays = [_abstract(x) for x in (*program.arguments.data, *program.fixed.values())]
    count = len(program.arguments.data)
    code, _ = _jax.trace(everything, arrays[:count], arrays[count:], free)
    return Compiled(program, code, list(names), slots)


def _abstract(x: Any) -> Any:
    return jax.ShapeDtypeStruct(np.shape(x), jax.dtypes.canonicalize_dtype(np.result_type(x)))


def lookup(program: Program) -> Compiled:
    """The compiled form of a program, from the cache where an equal one was traced before."""
    fixed = tuple(program.fixed.items())
    identity = (
        program.key(),
        tuple((name, program.roles[name]) for name, _ in fixed),
        arguments.shape_key(tuple(value for _, value in fixed)),
    )
    found = _by_key.get(identity)
    if found is None:
        traced = trace_program(program)
        signature = tuple(
            (n, i.kind, i.full_shape, i.plates, i.dims, i.discrete, program.role(n)) for n, i in traced.sites.items()
        )
        code = (_jax.key(traced.code), tuple(traced.names), signature)
        found = _by_code.setdefault(code, traced)
        if len(_by_key) >= _CACHE_SIZE:
            _by_key.pop(next(iter(_by_key)))
        _by_key[identity] = found
    return found


def compile(program: Program) -> Density:
    """Compile a program to the log density of its latent sites.

    Args:
        program: A model called on data, with the observed sites conditioned.

    Returns:
        The density, at a flat unconstrained vector.

    Raises:
        ModelError: A discrete latent site, a support without a bijection, or an error in the model's text.

    Example:
        >>> import numpy as np, ppl
        >>> from ppl import dist
        >>> @ppl.model
        ... def f():
        ...     s = ppl.sample("s", dist.HalfNormal(1.0))
        ...     ppl.sample("y", dist.Normal(0.0, s))
        >>> density = ppl.compile(f().condition(y=0.0))
        >>> round(float(density(np.zeros(1))), 4)
        -1.6447
    """
    compiled = lookup(program)
    return compiled.bind((*program.arguments.data, *program.fixed.values()), program)
