r"""Microcanonical Langevin dynamics, unadjusted (MCLMC) and Metropolis-adjusted (MAMS).

In the coordinates of the metric, with g = grad log pi and a direction u, |u| = 1, the dynamics

    dx = u dt,    du = (I - u u^T) g / (d - 1) dt

leave pi(x) times the uniform law of u on the sphere invariant (d > 1): speed is one everywhere, and what Hamiltonian
dynamics keep in their momentum is here a weight that the dynamics hold constant. With the force frozen for a time h the
second equation is solved exactly; with ``delta = h |g| / (d - 1)``, ``e = g / |g|``, ``c = e . u``

    u' = (u + e (sinh delta + c (cosh delta - 1))) / (cosh delta + c sinh delta),

under which the logarithm of the weight changes by ``(d - 1) log(cosh delta + c sinh delta)``. Leapfrog alternates half
steps of u with whole steps of x; ``W``, the sum of these changes and of the drops of log pi, is the error of a
trajectory, zero for exact dynamics. The maps are reversible and their Jacobians are in W, so a trajectory from a fresh
uniform u that is accepted with probability ``min(1, e^-W)`` leaves pi invariant: ``MAMS``. Without the test, and with
the direction partially refreshed around every step at the rate 1/L, draws have a bias of order h^2: ``MCLMC``.

References: Robnik, De Luca, Silverstein and Seljak, "Microcanonical Hamiltonian Monte Carlo" (2023); Robnik and Seljak,
"Fluctuation without dissipation: microcanonical Langevin Monte Carlo" (2024); Robnik, Cohn-Gordon and Seljak,
"Metropolis adjusted microcanonical Hamiltonian Monte Carlo" (2025).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from . import euclidean, metropolis
from .euclidean import Diagonal, State

Array = Any

_TINY = 1e-30


@dataclass(frozen=True)
class MovingState:
    """A position with log density, gradient and direction; a direction of zero has not been drawn yet."""

    position: Array
    log_density: Array
    gradient: Array
    direction: Array


@dataclass(frozen=True)
class MCLMCInfo:
    """What a step reports: the error W of its leapfrog step, and whether it was not finite and so not taken."""

    energy_error: Array
    diverging: Array


@dataclass(frozen=True)
class MAMSInfo:
    """What a transition reports, by ArviZ's names."""

    acceptance_rate: Array
    n_steps: Array
    diverging: Array


for _cls in (MovingState, MCLMCInfo, MAMSInfo):
    jax.tree_util.register_dataclass(_cls, list(_cls.__dataclass_fields__), [])


@dataclass(frozen=True)
class MCLMC:
    """Unadjusted microcanonical Langevin dynamics: one leapfrog step per iteration, never rejected.

    Its draws have a bias of order ``step_size^2``. The standard adapters set the step so that the squared energy error
    per dimension is ``tolerance``, where the bias is below the Monte Carlo error of some hundreds of independent draws;
    for exact answers take ``MAMS``. A step that is not finite is not taken.

    Attributes:
        step_size: Length of a step, in units of the metric.
        length: Length L over which the direction is forgotten; by default 10 sqrt(d), at which a chain that starts far
            out goes straight for the bulk, until the warm-up learns one.
        metric: ``Diagonal`` or ``Dense``; by default the identity, until warm-up learns one.
        tolerance: Mean of W^2 / d that the step-size adapter aims at.
        dense: Whether the standard adapter learns a dense metric.

    Raises:
        ValueError: From ``init`` and ``expand``, in one dimension, where there is no direction to turn.

    Example:
        >>> from ppl.inference.core import as_density
        >>> density, kernel = as_density(lambda z: -0.5 * jnp.sum(z**2)), MCLMC(step_size=0.1, length=2.0)
        >>> state, info = kernel.step(jax.random.key(0), kernel.init(jnp.ones(4), density), density)
        >>> round(float(jnp.sum(state.direction**2)), 5), bool(abs(info.energy_error) < 1e-3)
        (1.0, True)
    """

    gradient: ClassVar[bool] = True  # see ``core.Kernel``

    step_size: Array = 0.1
    length: Array | None = None
    metric: Any = Diagonal()
    tolerance: float = 5e-4
    dense: bool = False

    def init(self, position: Array, density: Any) -> MovingState:
        """Make the state at a position; the first step draws its direction."""
        state = evaluate(position, density)
        return MovingState(state.position, state.log_density, state.gradient, jnp.zeros_like(state.gradient))

    def resume(self, state: MovingState, position: Array, density: Any) -> MovingState:
        """The state at another position, with the direction kept."""
        return replace(self.init(position, density), direction=state.direction)

    def expand(self, dim: int) -> MCLMC:
        """Give metric and length their full shape, as adaptation needs it."""
        need_two(dim)
        length = far(dim) if self.length is None else self.length
        return replace(self, metric=euclidean.expanded(self.metric, dim, self.dense), length=length)

    def adapters(self) -> tuple[Any, ...]:
        """The standard adapters: step size by the energy error, metric, and length unless it is given."""
        from ..adapt.gradient_metric import metric_adapter
        from ..adapt.microcanonical import EnergyError, Memorylessness

        return (EnergyError(), *((Memorylessness(),) if self.length is None else ()), metric_adapter(self))

    def step(self, key: Array, state: MovingState, density: Any) -> tuple[MovingState, MCLMCInfo]:
        """Refresh the direction a little, take a leapfrog step, and refresh it again."""
        length = far(len(state.position)) if self.length is None else self.length
        first, second = (
            euclidean.draw_momentum(jax.random.fold_in(key, i), self.metric, state.position) for i in (0, 1)
        )
        drawn = jnp.sum(state.direction**2) > 0.5
        before = jnp.where(drawn, refreshed(state.direction, first, self.step_size, length), unit(first))
        here = State(state.position, state.log_density, state.gradient)
        moved, direction, error = leapfrog(self.metric, self.step_size, here, before, density)
        good = jnp.isfinite(metropolis.usable(-error, (moved, direction)))
        moved = jax.tree.map(lambda a, b: jnp.where(good, a, b), moved, here)
        # Turned back where the step was not finite, or the next one would be the same.
        direction = refreshed(jnp.where(good, direction, -before), second, self.step_size, length)
        new = MovingState(moved.position, moved.log_density, moved.gradient, direction)
        return new, MCLMCInfo(jnp.where(good, error, jnp.nan), ~good)


@dataclass(frozen=True)
class MAMS:
    """Metropolis-adjusted microcanonical dynamics, with a fresh direction for every trajectory.

    Attributes:
        step_size: Length of a leapfrog step, in units of the metric.
        length: Mean length of a trajectory, in units of the metric; by default ``pi/2 sqrt(d)``, a quarter of the way
            around a normal distribution.
        metric: ``Diagonal`` or ``Dense``; by default the identity, until warm-up learns one.
        jitter: Relative half-width of the random change of the length, in [0, 1).
        target_accept: Mean acceptance that the standard step-size adapter aims at.
        dense: Whether the standard adapter learns a dense metric.
        max_steps: Bound on the number of steps.
        max_energy_error: A trajectory whose error is larger is a divergence.

    Raises:
        ValueError: From ``init`` and ``expand``, in one dimension, where there is no direction to turn.

    Example:
        >>> from ppl.inference.core import as_density
        >>> density, kernel = as_density(lambda z: -0.5 * jnp.sum(z**2)), MAMS(step_size=0.2)
        >>> state, info = kernel.step(jax.random.key(0), kernel.init(jnp.ones(4), density), density)
        >>> bool(info.acceptance_rate > 0.9), int(info.n_steps) > 5
        (True, True)
    """

    gradient: ClassVar[bool] = True  # see ``core.Kernel``

    step_size: Array = 0.1
    length: Array | None = None
    metric: Any = Diagonal()
    jitter: Array = 0.9
    target_accept: float = 0.9
    dense: bool = False
    max_steps: int = 1024
    max_energy_error: float = 1000.0

    def init(self, position: Array, density: Any) -> State:
        """Make the state at a position."""
        return evaluate(position, density)

    def expand(self, dim: int) -> MAMS:
        """Give metric and length their full shape, as adaptation needs it."""
        need_two(dim)
        length = 0.5 * np.pi * np.sqrt(float(dim)) if self.length is None else self.length
        return replace(self, metric=euclidean.expanded(self.metric, dim, self.dense), length=length)

    def trial(self, momentum: Array, state: State, density: Any) -> tuple[State, Array]:
        """Take one leapfrog step along a momentum's direction; the log ratio is -inf where not finite."""
        moved, _, error = leapfrog(self.metric, self.step_size, state, unit(momentum), density)
        return moved, metropolis.usable(-error, moved)

    def step(self, key: Array, state: State, density: Any) -> tuple[State, MAMSInfo]:
        """Draw a direction and a length, and take one transition."""
        direction = unit(euclidean.draw_momentum(key, self.metric, state.position))
        first, second = euclidean.uniform(euclidean.words(key, 0), direction.dtype)
        count = self.count(second, len(state.position))

        def body(_: Array, loop: Any) -> Any:
            here, direction, total = loop
            here, direction, error = leapfrog(self.metric, self.step_size, here, direction, density)
            return here, direction, total + error

        zero = jnp.zeros((), direction.dtype)
        moved, direction, error = jax.lax.fori_loop(0, count, body, (state, direction, zero))
        ratio = metropolis.usable(-error, (moved, direction))
        new, info = metropolis.decide(first, ratio, moved, state)
        return new, MAMSInfo(info.acceptance_rate, count, ~(ratio > -self.max_energy_error))

    def count(self, uniform: Array, dim: int) -> Array:
        """Return the number of leapfrog steps for one uniform number."""
        mean = 0.5 * np.pi * np.sqrt(float(dim)) if self.length is None else self.length
        length = mean * (1.0 + self.jitter * (2.0 * uniform - 1.0))
        return jnp.clip(jnp.ceil(length / self.step_size), 1, self.max_steps).astype(jnp.int32)


jax.tree_util.register_dataclass(MCLMC, ["step_size", "length", "metric", "tolerance"], ["dense"])
jax.tree_util.register_dataclass(
    MAMS,
    ["step_size", "length", "metric", "jitter", "target_accept"],
    ["dense", "max_steps", "max_energy_error"],
)


def evaluate(position: Array, density: Any) -> State:
    """Make the state at a position of two or more dimensions."""
    need_two(position.shape[0])
    return euclidean.evaluate(position, density)


def need_two(dim: int) -> None:
    """Refuse one dimension."""
    if dim < 2:
        raise ValueError(
            "microcanonical dynamics turn a direction on a sphere and need two dimensions or more; in one take "
            "mcmc.Slice, mcmc.NUTS or mcmc.MALA"
        )


def far(dim: int) -> float:
    """The length over which an untuned ``MCLMC`` forgets its direction."""
    return 10.0 * float(np.sqrt(dim))


def unit(vector: Array) -> Array:
    """The direction of a vector; zero for zero."""
    return vector / jnp.maximum(jnp.sqrt(jnp.sum(vector**2)), _TINY)


def refreshed(direction: Array, noise: Array, step: Array, length: Array) -> Array:
    """Half of a step's refreshment of the direction, by ``exp(-step / (2 length))`` in the mean.

    A unit vector plus noise of variance ``nu^2`` each, normalised, keeps the uniform law for every nu.
    """
    size = jnp.sqrt(jnp.expm1(step / length) / direction.shape[0])
    return unit(direction + size * noise)


def turn(direction: Array, gradient: Array, time: Array) -> tuple[Array, Array]:
    """Follow a constant whitened gradient for a time.

    Returns:
        The direction, and the change of the logarithm of the weight.

    Example:
        >>> u, change = turn(jnp.array([0.0, 1.0]), jnp.array([1000.0, 0.0]), 1.0)
        >>> u.round(6).tolist(), round(float(change), 3)
        ([1.0, 0.0], 999.307)
    """
    freedom = direction.shape[0] - 1.0
    size = jnp.sqrt(jnp.sum(gradient**2))
    towards = gradient / jnp.maximum(size, _TINY)
    cosine = jnp.sum(towards * direction)
    delta = time * size / freedom
    # Divided by exp(delta), so that large forces do not overflow; small is exp(-2 delta).
    small = jnp.exp(-2.0 * delta)
    scale = 0.5 * (1.0 + small) + 0.5 * cosine * (1.0 - small)
    along = 0.5 * (1.0 - small) + cosine * 0.5 * (1.0 - jnp.exp(-delta)) ** 2
    turned = (jnp.exp(-delta) * direction + along * towards) / scale
    return unit(turned), freedom * (delta + jnp.log(scale))


def leapfrog(metric: Any, step: Array, state: State, direction: Array, density: Any) -> tuple[State, Array, Array]:
    """Take one leapfrog step.

    Returns:
        The state, the direction, and the error W of the step.
    """
    direction, first = turn(direction, metric.force(state.gradient), 0.5 * step)
    moved = euclidean.evaluate(state.position + step * metric.velocity(direction), density)
    direction, second = turn(direction, metric.force(moved.gradient), 0.5 * step)
    return moved, direction, first + second - (moved.log_density - state.log_density)
