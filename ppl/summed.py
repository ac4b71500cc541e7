"""Densities out of which finite sites are summed: their codes afterwards, and parts of the density.

Given a position z the codes have the exact law p(k | z, y), which is drawn from, or tabulated, by the way back of the
sum (``passes.elimination``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from . import space
from ._later import later
from .host import surfacing
from .sites import in_order

if TYPE_CHECKING:
    from .passes import marginalize as sums
else:
    sums = later("ppl.passes.marginalize")

Array = Any


def key_of(z: Array) -> Array:
    """A random key that is a function of a position, for codes where no key is given."""
    bits = jax.lax.bitcast_convert_type(z, jnp.uint32).ravel()
    places = np.arange(1, bits.size + 1, dtype=np.uint64)
    key = jax.random.key(0)
    for odd in (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03):
        weights = ((places * np.uint64(odd)) >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
        key = jax.random.fold_in(key, jnp.sum(bits * weights, dtype=jnp.uint32))
    return key


def inputs(density: Any, z: Array) -> list[Array]:
    """What the terms read besides codes."""
    return [*density.data, *space.split(z, density.layout).values()]


def codes(density: Any, z: Array, key: Array | None = None) -> Array:
    """A draw of the codes of all summed sites given a position, flat."""
    key = key_of(z) if key is None else key
    return sums.recover(density.compiled.sums, key, inputs(density, z)).astype(z.dtype)


def needed(compiled: Any, outputs: tuple[int, ...]) -> bool:
    """Whether some outputs read sites that are summed out."""
    return bool(compiled.summed) and any(compiled.reads[i] & set(compiled.summed) for i in outputs)


def recover(density: Any, key: Array, z: Array) -> dict[str, Array]:
    """Values of the summed sites, drawn jointly from their exact law given a position."""
    return _called(density, z, _recovered, _recover, key)


def probabilities(density: Any, z: Array) -> dict[str, Array]:
    """Exact conditional probabilities of the states of every summed site, in its last axis."""
    return _called(density, z, _tabulated, _tabulate)


def pointwise(density: Any, z: Array) -> dict[str, Array]:
    """Log predictive densities of observed elements given all others; log factors where no summed site is read."""
    return _called(density, z, _predicted, _predict)


def without(density: Any, places: Any, index: Array, z: Array) -> Array:
    """The log density without the elements of log factors whose place is ``index``, up to a constant.

    Args:
        density: The density.
        places: By site, a whole number for every element of its log factor.
        index: The number whose elements do not count.
        z: Position.
    """
    compiled = density.compiled

    def kept(output: int, value: Array) -> Array:
        channel, name = compiled.names[output]
        if channel != "factor" or name not in places:
            return value
        return jnp.where(places[name] == index, jnp.zeros((), value.dtype), value)

    total = compiled.sums.solve(inputs(density, z), edit=kept)[0].astype(z.dtype)
    direct = tuple(compiled.sums.direct)
    for output, value in zip(direct, compiled.evaluate(direct, density.data, z).values(), strict=True):
        total = total + jnp.sum(kept(output, value)).astype(z.dtype)
    return total


def _called(density: Any, z: Array, function: Any, compiled: Any, *others: Any) -> dict[str, Array]:
    """Run a function, compiled where nothing is traced."""
    density._check(z)
    if any(isinstance(x, jax.core.Tracer) for x in (z, *density.data)):
        return in_order(density.compiled.sites, function(density, z, *others))
    with jax.enable_x64(density.compiled.x64):
        z = jnp.asarray(z, jnp.result_type(float))
        return in_order(density.compiled.sites, compiled(density, z, *others))


def _recovered(density: Any, z: Array, key: Array) -> dict[str, Array]:
    found = space.split(codes(density, z, key), density.compiled.summed)
    return {name: space.decode(code, density.compiled.sites[name]) for name, code in found.items()}


def _tabulated(density: Any, z: Array) -> dict[str, Array]:
    return sums.probabilities(density.compiled.sums, inputs(density, z))


def _predicted(density: Any, z: Array) -> dict[str, Array]:
    compiled = density.compiled
    read = [i for i in compiled.likelihood if needed(compiled, (i,)) and i in compiled.terms]
    found = sums.pointwise(compiled.sums, inputs(density, z), read)
    rest = density._outputs(z, tuple(i for i in compiled.likelihood if i not in read))
    return {**{compiled.names[i][1]: value for i, value in found.items()}, **rest}


_recover, _tabulate, _predict = (surfacing(jax.jit(f)) for f in (_recovered, _tabulated, _predicted))


@partial(jax.tree_util.register_dataclass, data_fields=["density"], meta_fields=["prior"])
@dataclass(frozen=True, eq=False)
class SummedPart:
    """The log prior of a density, its finite sites summed out of it, or the log likelihood: what else there is.

    Attributes:
        density: The density.
        prior: Which of the two.
    """

    density: Any
    prior: bool

    def __call__(self, z: Array) -> Array:
        """Log prior with log-determinants, or log likelihood."""
        compiled = self.density.compiled
        likelihood = set(compiled.likelihood) | set(statements(compiled))
        given = inputs(self.density, z)
        terms = [i for i in compiled.sums.direct if i not in likelihood]
        prior = sums.total(compiled.sums, given, [i for i in compiled.sums.outputs if i not in likelihood])
        for value in compiled.evaluate(terms, self.density.data, z).values():
            prior = prior + jnp.sum(value)
        return prior.astype(z.dtype) if self.prior else self.density(z) - prior.astype(z.dtype)

    @property
    def dim(self) -> int:
        """Length of the unconstrained vector."""
        return self.density.dim

    @property
    def external(self) -> tuple[str, ...]:
        """Names of the functions outside of JAX that one evaluation calls."""
        return self.density.external

    @property
    def differentiable(self) -> bool:
        """Whether it has a gradient."""
        return self.density.differentiable


def statements(compiled: Any) -> list[int]:
    """Terms of ``factor`` statements."""
    return compiled.find("factor", sites={name for name, info in compiled.sites.items() if info.kind == "factor"})
