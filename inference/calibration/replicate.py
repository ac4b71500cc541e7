r"""One replication of simulation-based calibration, as a compiled program over many.

For each replication r: theta* and y from the joint program with the key of (seed, r); the density of y; a chain
from a draw of the prior, warmed up and thinned; then for every scalar quantity f the comparison of f(theta_l, y)
with f(theta*, y) for the draws l = 1, ..., L. Only these comparisons leave the program.
Neither other data of equal shape nor another thinning compiles again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .chain import chain, mapped, mapped_whole, start

Array = Any
Truth = tuple[Array, Array]  # quantities as simulated, and the unconstrained position

EQUAL, BELOW, INVALID = 1, 2, 3
"""Codes of one draw's quantity against the truth: a tie, below it, or one of the two is NaN; above it is 0."""

LOG_LIKELIHOOD = "log_likelihood"
_TRIES = 4  # starting points: draws of the prior, and at the very last the truth, where the density is finite


@dataclass(frozen=True)
class Design:
    """What is static in a compiled replication.

    Attributes:
        compiled: The traced program, conditioned on the sites to simulate.
        observed: Their names.
        names: Sites and other quantities to compare, in order.
        functions: The user's own quantities, by name.
        warmup: Warm-up iterations.
        draws: Draws to compare.
    """

    compiled: Any
    observed: tuple[str, ...]
    names: tuple[str, ...]
    functions: tuple[tuple[str, Callable], ...] = ()
    warmup: int = 0
    draws: int = 99


# ---------------------------------------------------------------------------------------------- quantities


def quantities(design: Design, values: dict[str, Array], log_likelihood: Array) -> dict[str, Array]:
    """All quantities of one draw, by name."""
    found = {**values, LOG_LIKELIHOOD: log_likelihood}
    for name, function in design.functions:
        found[name] = jnp.asarray(function(values))
    return {name: found[name] for name in design.names}


def flat(found: dict[str, Array]) -> Array:
    """Quantities as one vector of floats."""
    return jnp.concatenate([jnp.ravel(value).astype(jnp.result_type(float)) for value in found.values()])


def simulate(design: Design, density: Any, key: Array) -> tuple[dict[str, Array], Array, Array]:
    """Draw parameters and data from the joint program.

    Returns:
        The observed sites' values, the quantities at the truth, and its unconstrained position.
    """
    compiled = design.compiled
    kept = dict(zip(compiled.fixed, density.data[len(density.data) - len(compiled.fixed) :], strict=True))
    given = {name: value for name, value in kept.items() if name not in design.observed}
    data = list(density.data[: len(density.data) - len(compiled.fixed)])
    settings = {"given": given, "known": compiled.sites, "key": key, "keep": ("value", "factor", "likelihood", "free")}
    out = density.program.play(data, **settings)[1].out
    known = {**out["factor"], **out.get("likelihood", {})}
    log_likelihood = total([known[name] for name in compiled.observed])
    position = jnp.concatenate([jnp.ravel(out["free"][name]) for name in compiled.slots])
    observed = {name: out["value"][name] for name in design.observed}
    return observed, flat(quantities(design, out["value"], log_likelihood)), position


def total(factors: list[Array]) -> Array:
    """Sum of log factors."""
    return sum((jnp.sum(factor) for factor in factors), jnp.zeros((), jnp.result_type(float)))


def bind(design: Design, density: Any, observed: dict[str, Array]) -> Any:
    """The density of simulated data."""
    compiled, count = design.compiled, len(density.data) - len(design.compiled.fixed)
    fixed = [observed.get(name, value) for name, value in zip(compiled.fixed, density.data[count:], strict=True)]
    return compiled.bind((*density.data[:count], *fixed))


def compare(design: Design, density: Any, observed: dict[str, Array], truth: Truth, positions: Array) -> Array:
    """Codes of draws (L, d) against the truth, shape (L, quantities).

    The truth is evaluated at its position by the same code as the draws: what depends on the data only is then
    equal to the last bit, and so a tie. Where the position is beyond floating point, the simulated values count.
    """

    def one(z: Array) -> Array:
        values = {**density.generated(z), **observed}
        return flat(quantities(design, values, total(list(density.pointwise(z).values()))))

    simulated, position = truth
    found = jax.vmap(one)(jnp.concatenate([position[None], positions.astype(position.dtype)]))
    mine, true = found[1:], jnp.where(jnp.isfinite(found[0]), found[0], simulated)
    code = jnp.where(mine < true, BELOW, jnp.where(mine == true, EQUAL, 0))
    return jnp.where(jnp.isnan(mine) | jnp.isnan(true), INVALID, code).astype(jnp.int8)


# ---------------------------------------------------------------------------------------------- many


def simulations(design: Design, density: Any, seed: Array, rows: Array, count: int = 1) -> Any:
    """Simulate ``count`` times for each replication, the first of which is its truth.

    Returns:
        As ``simulate``, of shape (rows, count, ...), and key data for whatever else is random in a replication.
    """

    def one(place: tuple[Array, Array]) -> Any:
        key = jax.random.fold_in(jax.random.wrap_key_data(seed, impl="threefry2x32"), place[0])
        key = jax.random.fold_in(key, place[1])
        return *simulate(design, density, key), jax.random.key_data(jax.random.fold_in(key, 0))

    place = (jnp.repeat(rows, count), jnp.tile(jnp.arange(count, dtype=jnp.uint32), len(rows)))
    out = mapped(one, place)
    return jax.tree.map(lambda x: x.reshape(len(rows), count, *x.shape[1:]), out)


@partial(jax.jit, static_argnums=0)
def replicate(design: Design, density: Any, kernel: Any, seed: Array, rows: Array, thin: Array, length: Array) -> Any:
    """Codes (replications, draws, quantities), divergences (replications,) and a witness of a chunk.

    Args:
        design: Static part.
        density: Density of any data of the right shapes; its arguments and interventions are used.
        kernel: Untuned kernel, with its metric at full shape.
        seed: Key data, shape (2,).
        rows: Numbers of the replications.
        thin: Iterations per draw.
        length: Iterations of a chain.
    """
    # One copy of the simulation serves the truth and the starting points, which are other draws of the prior.
    observed, truth, z, keys = simulations(design, density, seed, rows, _TRIES + 1)
    observed = {name: value[:, 0] for name, value in observed.items()}
    bound = jax.vmap(partial(bind, design, density))(observed)
    states = jax.vmap(partial(start, kernel))(bound, jnp.roll(z, -1, axis=1))

    def run(shared: Any, item: Any) -> Any:
        (kernel, thin, length), (density, state, key) = shared, item
        return chain((design.warmup, design.draws), density, kernel, state, key, thin, length)

    (positions, diverging), witness = mapped_whole(run, (kernel, thin, length), (bound, states, keys[:, 0]))
    return (
        mapped(lambda x: compare(design, *x), (bound, observed, (truth[:, 0], z[:, 0]), positions)),
        diverging,
        witness,
    )


@partial(jax.jit, static_argnums=0)
def truths(design: Design, density: Any, seed: Array, rows: Array) -> tuple[dict[str, Array], Truth]:
    """Observed values and the truth of each replication."""
    observed, truth, z, _ = simulations(design, density, seed, rows)
    return {name: value[:, 0] for name, value in observed.items()}, (truth[:, 0], z[:, 0])


@partial(jax.jit, static_argnums=0)
def codes(design: Design, density: Any, observed: dict[str, Array], truth: Truth, positions: Array) -> Array:
    """Comparisons for one replication whose draws were made elsewhere."""
    return compare(design, density, observed, truth, positions)
