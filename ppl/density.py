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

from . import missing, space, summed
from .codes import Codes
from .errors import ModelError, suggest
from .host import surfacing
from .movable import Movable
from .parts import Part, Restricted, total
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
        return total(self.compiled.hoisted.after.run(*self.residuals, *pieces.values()), z.dtype)

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
    def codes(self) -> Codes:
        """Groups of the finite sites' elements that are independent given the rest."""
        return Codes(self.compiled, tuple(n for n in self.layout if self.compiled.sites[n].discrete))

    @property
    def groups(self) -> int:
        """Number of these groups (``inference.mcmc.discrete``)."""
        return self.codes.groups

    def members(self, group: Array) -> Array:
        """Which codes belong to a group."""
        return self.codes.members(group)

    def local(self, z: Array, group: Array) -> Array:
        """For each code of a group the terms of the log density that read it."""
        return self.codes.local(self.data, z, group)

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

    def _channel(self, z: Array, channels: Sequence[str], names: Any = None, key: Any = None) -> dict[str, Array]:
        return self._evaluated(z, tuple(self.compiled.find(*channels, sites=names)), key)

    def _evaluated(self, z: Array, outputs: tuple[int, ...], key: Any = None) -> dict[str, Array]:
        self._check(z)
        if _concrete(z, self.data):
            with jax.enable_x64(self.compiled.x64):
                return in_order(self.compiled.sites, _outputs(self, z, outputs, key))
        return in_order(self.compiled.sites, self._outputs(z, outputs, key))

    def _outputs(self, z: Array, outputs: tuple[int, ...], key: Any = None) -> dict[str, Array]:
        codes = summed.codes(self, z, key) if summed.needed(self.compiled, outputs) else None
        return {name: value for (_, name), value in self.compiled.evaluate(outputs, self.data, z, codes).items()}

    def constrain(self, z: Array) -> dict[str, Array]:
        """Values of the latent sites."""
        return self._channel(z, ["value"], set(self.layout))

    def generated(self, z: Array, key: Array | None = None) -> dict[str, Array]:
        """Values of the latent sites and of the records.

        Args:
            z: Position, shape (dim,).
            key: Random key of the finite sites that are summed out, which are drawn given ``z``; by default a function
                of ``z``.
        """
        records = {name for name, info in self.compiled.sites.items() if info.kind == "record"}
        wanted = records | set(self.layout) | set(self.compiled.summed)
        return self._channel(z, ["value"], wanted, key)

    def recover(self, key: Array, z: Array) -> dict[str, Array]:
        """Values of the finite sites that are summed out, drawn jointly from their exact law given ``z``.

        Example:
            >>> import jax, numpy as np, ppl
            >>> from ppl import dist
            >>> @ppl.model
            ... def f():
            ...     w = ppl.sample("w", dist.Beta(1.0, 1.0))
            ...     k = ppl.sample("k", dist.Bernoulli(w))
            ...     ppl.sample("y", dist.Normal(10.0 * k, 1.0))
            >>> density = ppl.compile(f().condition(y=9.0))
            >>> int(density.recover(jax.random.key(0), np.zeros(1))["k"])
            1
        """
        return summed.recover(self, key, z)

    def probabilities(self, z: Array) -> dict[str, Array]:
        """Exact conditional probabilities of the states of each site that is summed out, in a last axis."""
        return summed.probabilities(self, z)

    def factors(self, z: Array) -> dict[str, Array]:
        """Log factor of every site, without log-determinants."""
        return self._channel(z, ["factor"])

    def factor(self, name: str, z: Array) -> Array:
        """Log factor of one site."""
        return self._channel(z, ["factor"], {name})[name]

    def pointwise(self, z: Array) -> dict[str, Array]:
        """Log factors of the observed sites, each of the shape of its plates and batch.

        Of elements that read a site that is summed out it is log p(element | z, all other data), that site summed out.
        """
        outputs = tuple(self.compiled.likelihood)
        return summed.pointwise(self, z) if summed.needed(self.compiled, outputs) else self._evaluated(z, outputs)

    def log_prior(self, z: Array, key: Array | None = None) -> dict[str, Array]:
        """Log prior of each latent site, summed over elements, without log-determinant; ``key`` as of ``generated``."""
        return {name: jnp.sum(value) for name, value in self._evaluated(z, tuple(self.compiled.prior), key).items()}

    def unconstrain(self, values: dict[str, Array]) -> Array:
        """The flat vector at which the latent sites have the given values; inverse of ``constrain``."""
        program, fixed = self._play_inputs()
        absent = [n for n in self.layout if n not in values]
        if absent:
            raise ModelError(f"unconstrain needs a value for every latent site; missing: {', '.join(absent)}")
        names = [*self.layout, *(n for n in self.compiled.summed if n in values)]
        given = {**fixed, **{n: self._packed(n, values[n]) for n in names}}
        settings = {"given": given, "known": self.compiled.sites, "keep": ("free",)}
        return self._joined(program.play(self._arguments(), **settings)[1].out.get("free", {}))

    def _joined(self, free: dict[str, Array]) -> Array:
        """A flat vector from free values of the model's text."""
        hand = self.compiled.hand
        return space.join(free if hand is None else hand.invert(self.data, free), self.layout)

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

    def split(self) -> tuple[Any, Any]:
        """Log prior (with log-determinants) and log likelihood, as densities over the same vector."""
        compiled = self.compiled
        if compiled.summed:
            return summed.SummedPart(self, True), summed.SummedPart(self, False)
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
        chosen = self._chosen("restrict", names)
        if each is not None:
            from .elements import elements

            return elements(self, chosen, z, each)
        outputs = tuple(i for i in self.compiled.terms if self.compiled.reads[i] & set(chosen))
        return Restricted(self, z, chosen, outputs)

    def conditional(self, names: str | Sequence[str] | None = None, position: Array | None = None) -> Any:
        """The exact full conditional of some sites, or of all, with ``sample(key)`` and ``log_prob(x)``.

        It is finite (enumerated, or for a chain by forward filtering and backward sampling) or conjugate: a normal
        law of sites in which the log density is quadratic, or a gamma, beta or Dirichlet law of one site.

        Args:
            names: One latent site or several; None for all.
            position: Full position, shape (dim,), at which the others are held.

        Raises:
            ModelError: No such law; with the site and what stands in the way.
        """
        from .conditional import conditional

        chosen = self._chosen("conditional", tuple(self.layout) if names is None else names)
        return conditional(self, chosen, jnp.zeros(self.dim) if position is None else position)

    def _chosen(self, what: str, names: str | Sequence[str]) -> tuple[str, ...]:
        """Names of latent sites, those of finite ones last."""
        chosen = (names,) if isinstance(names, str) else tuple(names)
        unknown = [n for n in chosen if n not in self.layout]
        if unknown:
            raise ModelError(f"{what}: {unknown[0]!r} is not a latent site.{suggest(unknown[0], self.layout)}")
        return tuple(sorted(chosen, key=lambda name: self.compiled.sites[name].discrete))


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
def _outputs(density: Density, z: Array, outputs: tuple[int, ...], key: Any) -> dict[str, Array]:
    return density._outputs(_float(z), outputs, key)


@surfacing
@jax.jit
def _diagnose(density: Density, z: Array) -> dict[str, Any]:
    program, fixed = density._play_inputs()
    free = density._written(space.split(z, density.layout))
    if density.compiled.summed:
        free |= space.split(summed.codes(density, z), density.compiled.summed)
    settings = {
        "given": fixed,
        "free": free,
        "known": density.compiled.sites,
        "keep": ("value", "factor", "valid"),
    }
    frame = program.play(density._arguments(), **settings)[1]
    return {channel: frame.out.get(channel, {}) for channel in ("value", "factor", "valid")}
