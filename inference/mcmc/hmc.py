r"""Hamiltonian Monte Carlo with a trajectory of given length.

A momentum ``q ~ N(0, I)`` is drawn, ``n`` leapfrog steps lead from (z, q) to (z', q'), and z' is accepted with
probability ``min(1, exp(H(z, q) - H(z', q')))``. The length of the trajectory may be jittered,
``n = ceil(length (1 + jitter (2u - 1)) / step)`` with u uniform and independent of the state, which
leaves the target invariant and breaks resonances.

References: Duane et al., "Hybrid Monte Carlo" (1987); Neal, "MCMC using Hamiltonian dynamics" (2011).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from . import euclidean
from .euclidean import Diagonal, State

Array = Any


@dataclass(frozen=True)
class HMCInfo:
    """What a transition reports, by ArviZ's names; ``energy`` is that of the new state."""

    acceptance_rate: Array
    n_steps: Array
    diverging: Array
    energy: Array


jax.tree_util.register_dataclass(HMCInfo, list(HMCInfo.__dataclass_fields__), [])


@dataclass(frozen=True)
class HMC:
    """Hamiltonian Monte Carlo.

    Attributes:
        step_size: Leapfrog step, in units of the metric.
        metric: ``Diagonal`` or ``Dense``; by default the identity, until warm-up learns one.
        length: Integration time, in units of the metric; a quarter period of a standard normal by default.
        jitter: Relative half-width of the random change of the length, in [0, 1).
        steps: Fixed number of leapfrog steps; overrides ``length`` and ``jitter``.
        target_accept: Mean acceptance that the standard step-size adapter aims at.
        dense: Whether the standard adapter learns a dense metric.
        max_steps: Bound on the number of steps.
        max_energy_error: An end point whose energy is higher by this is a divergence.

    Example:
        >>> from ppl.inference.core import as_density
        >>> density, kernel = as_density(lambda z: -0.5 * jnp.sum(z**2)), HMC(step_size=0.2, steps=5)
        >>> state, info = kernel.step(jax.random.key(0), kernel.init(jnp.zeros(2), density), density)
        >>> bool(info.acceptance_rate > 0.9), int(info.n_steps)
        (True, 5)
    """

    gradient: ClassVar[bool] = True  # see ``core.Kernel``

    step_size: Array = 0.1
    metric: Any = Diagonal()
    length: Array = 1.5708
    jitter: Array = 0.5
    steps: int | None = None
    target_accept: float = 0.8
    dense: bool = False
    max_steps: int = 1024
    max_energy_error: float = 1000.0

    def init(self, position: Array, density: Any) -> State:
        """Make the state at a position."""
        return euclidean.evaluate(position, density)

    def expand(self, dim: int) -> HMC:
        """Give a metric of the default kind its full shape, as adaptation needs it."""
        return replace(self, metric=euclidean.expanded(self.metric, dim, self.dense))

    def trial(self, momentum: Array, state: State, density: Any) -> tuple[State, Array]:
        """Take one leapfrog step; see ``euclidean.trial``."""
        return euclidean.trial(self, momentum, state, density)

    def step(self, key: Array, state: State, density: Any) -> tuple[State, HMCInfo]:
        """Draw a momentum and take one transition."""
        momentum = euclidean.draw_momentum(key, self.metric, state.position)
        first, second = euclidean.uniform(euclidean.words(key, 0), momentum.dtype)
        count = self.count(second)
        moved, ended = self.integrate(count, state, momentum, density)
        initial = euclidean.energy_of(state.log_density, momentum)
        energy = euclidean.energy_of(moved.log_density, ended)
        log_ratio = jnp.where(jnp.isfinite(energy), initial - energy, -jnp.inf)
        accept = keep(jnp.log(first), log_ratio)
        new = jax.tree.map(lambda a, b: jnp.where(accept, a, b), moved, state)
        return new, HMCInfo(
            jnp.exp(jnp.minimum(log_ratio, 0.0)),
            count,
            ~(log_ratio > -self.max_energy_error),
            jnp.where(accept, energy, initial),
        )

    def count(self, uniform: Array) -> Array:
        """Return the number of leapfrog steps for one uniform number."""
        if self.steps is not None:
            return jnp.asarray(self.steps, jnp.int32)
        length = self.length * (1.0 + self.jitter * (2.0 * uniform - 1.0))
        number = jnp.clip(jnp.ceil(length / self.step_size), 1, self.max_steps)
        return number.astype(jnp.int32)

    def integrate(self, count: Array, state: State, momentum: Array, density: Any) -> tuple[State, Array]:
        """Take ``count`` leapfrog steps."""

        def body(_: Array, pair: tuple[State, Array]) -> tuple[State, Array]:
            return euclidean.leapfrog(self.metric, self.step_size, *pair, density)

        return jax.lax.fori_loop(0, count, body, (state, momentum))


jax.tree_util.register_dataclass(
    HMC,
    ["step_size", "metric", "length", "jitter", "target_accept"],
    ["steps", "dense", "max_steps", "max_energy_error"],
)


def keep(log_uniform: Array, log_ratio: Array) -> Array:
    """Metropolis test."""
    return log_uniform < log_ratio
