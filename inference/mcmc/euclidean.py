r"""Hamiltonian dynamics with a Euclidean kinetic energy, in whitened momenta.

The inverse mass matrix is ``W W^T``. With the momentum ``q = W^T p`` the joint law is
``pi(z) N(q; 0, I)`` for every metric, and the dynamics are ``dz/dt = W q``, ``dq/dt = W^T grad log pi(z)``;
the leapfrog scheme keeps volume and is its own inverse after ``q -> -q``. The generalised U-turn
criterion ``p^T M^{-1} (p_1 + ... + p_n) > 0`` becomes a plain inner product of whitened momenta.

References: Neal, "MCMC using Hamiltonian dynamics" (2011); Betancourt, "A conceptual introduction to
Hamiltonian Monte Carlo" (2017); Box and Muller, "A note on the generation of random normal deviates" (1958).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any


@dataclass(frozen=True)
class Diagonal:
    """A diagonal metric; a scalar scale fits every dimension.

    Attributes:
        scale: Square root of the inverse mass, shape (d,) or ().

    Example:
        >>> float(Diagonal(np.array([2.0, 3.0])).velocity(np.array([1.0, 1.0]))[1])
        3.0
    """

    scale: Array = 1.0

    full = False

    @staticmethod
    def of(variance: Array) -> Diagonal:
        """Make the metric whose inverse mass is a variance (d,)."""
        return Diagonal(variance**0.5)

    def velocity(self, momentum: Array) -> Array:
        """Return W q, the time derivative of the position."""
        return self.scale * momentum

    def force(self, gradient: Array) -> Array:
        """Return W^T grad log pi, the time derivative of the whitened momentum."""
        return self.scale * gradient


@dataclass(frozen=True)
class Dense:
    """A dense metric.

    Attributes:
        factor: Lower Cholesky factor of the inverse mass matrix, shape (d, d).

    Example:
        >>> Dense(np.array([[2.0, 0.0], [1.0, 1.0]])).force(np.array([1.0, 1.0])).tolist()
        [3.0, 1.0]
    """

    factor: Array

    full = True

    @staticmethod
    def of(covariance: Array) -> Dense:
        """Make the metric whose inverse mass is a covariance (d, d)."""
        return Dense((jnp if isinstance(covariance, jax.Array) else np).linalg.cholesky(covariance))

    def velocity(self, momentum: Array) -> Array:
        """Return W q, the time derivative of the position."""
        return self.factor @ momentum

    def force(self, gradient: Array) -> Array:
        """Return W^T grad log pi, the time derivative of the whitened momentum."""
        return self.factor.T @ gradient


@dataclass(frozen=True)
class State:
    """A position with its log density and gradient; always finite once ``log_density`` is."""

    position: Array
    log_density: Array
    gradient: Array


jax.tree_util.register_dataclass(Diagonal, data_fields=["scale"], meta_fields=[])
jax.tree_util.register_dataclass(Dense, data_fields=["factor"], meta_fields=[])
jax.tree_util.register_dataclass(State, ["position", "log_density", "gradient"], [])


def evaluate(position: Array, density: Any) -> State:
    """Make the state at a position."""
    value, gradient = jax.value_and_grad(density)(position)
    return State(position, value, gradient)


def unit_metric(dim: int, dense: bool) -> Diagonal | Dense:
    """Return the identity metric in ``dim`` dimensions, as host arrays."""
    return Dense(np.eye(dim)) if dense else Diagonal(np.ones(dim))


def words(key: Array, counter: Array) -> Array:
    """Return two random 32-bit words that belong to (key, counter): one evaluation of the cipher."""
    return jax.random.key_data(jax.random.fold_in(key, counter))


def uniform(word: Array, dtype: Any) -> Array:
    """Map the upper 24 bits of a word into (0, 1]."""
    return (jnp.right_shift(word, 8).astype(dtype) + 0.5) * 2.0**-24


# Counters below this one are left to the kernels (a NUTS transition uses one for each leaf).
_MOMENTUM = 1 << 24


def _rolled_normal(key: Array, like: Array) -> Array:
    half = (like.shape[0] + 1) // 2
    pairs = jax.lax.map(lambda i: words(key, i), jnp.arange(_MOMENTUM, _MOMENTUM + half, dtype=jnp.uint32))
    first, second = ((pairs[:, i].astype(like.dtype) + 0.5) * 2.0**-32 for i in (0, 1))
    radius, angle = jnp.sqrt(-2.0 * jnp.log(first)), (2.0 * np.pi) * second
    return jnp.concatenate([radius * jnp.cos(angle), radius * jnp.sin(angle)])[: like.shape[0]]


def _vector_normal(key: Array, like: Array) -> Array:
    return jax.random.normal(jax.random.fold_in(key, _MOMENTUM), like.shape, like.dtype)


def draw_momentum(key: Array, metric: Any, like: Array) -> Array:
    """Draw a whitened momentum: standard normal, whatever the metric.

    On a CPU the cipher runs in a rolled loop, two normals each: vectorised over the coordinates it is
    the largest part of a small model's compilation.
    """
    del metric
    return jax.lax.platform_dependent(key, like, cpu=_rolled_normal, default=_vector_normal)


def energy_of(log_density: Array, momentum: Array) -> Array:
    """Return the Hamiltonian -log pi(z) + |q|^2 / 2."""
    return 0.5 * jnp.sum(momentum**2) - log_density


def leapfrog(metric: Any, step: Array, state: State, momentum: Array, density: Any) -> tuple[State, Array]:
    """Take one leapfrog step of size ``step`` (negative: backwards in time)."""
    middle = momentum + 0.5 * step * metric.force(state.gradient)
    moved = evaluate(state.position + step * metric.velocity(middle), density)
    return moved, middle + 0.5 * step * metric.force(moved.gradient)


def trial(kernel: Any, momentum: Array, state: State, density: Any) -> tuple[State, Array]:
    """Take one leapfrog step of ``kernel`` and report the log Metropolis ratio (-inf where not finite).

    With a step size of zero and a zero gradient it evaluates the state at a position.
    """
    moved, ended = leapfrog(kernel.metric, kernel.step_size, state, momentum, density)
    ratio = energy_of(state.log_density, momentum) - energy_of(moved.log_density, ended)
    return moved, jnp.where(jnp.isfinite(ratio), ratio, -jnp.inf)


def expanded(metric: Any, dim: int, dense: bool) -> Any:
    """A metric in full shape: a scalar scale becomes that multiple of the unit metric, others stay as they are.

    Example:
        >>> expanded(Diagonal(2.0), 3, dense=False).scale.tolist()
        [2.0, 2.0, 2.0]
    """
    if isinstance(metric, Diagonal) and jnp.ndim(metric.scale) == 0:
        return jax.tree.map(lambda x: x * metric.scale, unit_metric(dim, dense))
    return metric
