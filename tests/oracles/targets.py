"""Targets with exact samplers, in unconstrained coordinates, for tests of Markov kernels.

Asymmetric, anisotropic, bounded and heavy-tailed on purpose: symmetric standardised targets hide bugs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Target:
    """A log density up to a constant, its exact sampler, and a step size and scales that suit it."""

    name: str
    log_density: Callable[[Any], Any]
    sample: Callable[[Any], Any]
    step_size: float
    scale: Any


def _gaussian() -> Target:
    rng = np.random.default_rng(5)
    axes = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    covariance = axes @ np.diag(np.geomspace(1.0, 1e-4, 5)) @ axes.T  # condition number 1e4
    factor, precision = np.linalg.cholesky(covariance), np.linalg.inv(covariance)
    mean = np.arange(5.0)
    return Target(
        "gaussian",
        lambda z: -0.5 * (z - mean) @ precision @ (z - mean),
        lambda key: mean + factor @ jax.random.normal(key, (5,)),
        0.7,
        # A metric that is off by up to two in scale, as adaptation leaves it.
        factor @ np.diag([1.5, 0.8, 1.0, 0.7, 1.2]),
    )


def _funnel() -> Target:
    def log_density(z: Any) -> Any:
        return -0.5 * (z[0] / 1.5) ** 2 - 0.5 * jnp.exp(-z[0]) * jnp.sum(z[1:] ** 2) - 0.5 * 3 * z[0]

    def sample(key: Any) -> Any:
        noise = jax.random.normal(key, (4,))
        v = 1.5 * noise[0]
        return jnp.concatenate([v[None], jnp.exp(0.5 * v) * noise[1:]])

    return Target("funnel", log_density, sample, 0.4, np.array([1.3, 1.0, 0.8, 1.2]))


_ALPHA = np.array([2.0, 0.7, 4.0])


def simplex_log_density(z: Any, jacobian: float = 1.0) -> Any:
    """Dirichlet(2, 0.7, 4) through stick breaking, the log-determinant written out."""
    share = jax.nn.sigmoid(z)
    rest = jnp.concatenate([jnp.ones(1), 1.0 - share[:1]])
    x = jnp.concatenate([rest * share, (rest[1] * (1.0 - share[1]))[None]])
    log_determinant = jnp.sum(jnp.log(rest) + jnp.log(share) + jnp.log1p(-share))
    return jnp.sum((_ALPHA - 1.0) * jnp.log(x)) + jacobian * log_determinant


def _simplex() -> Target:
    def sample(key: Any) -> Any:
        x = jax.random.dirichlet(key, _ALPHA)
        share = jnp.stack([x[0], x[1] / (1.0 - x[0])])
        return jnp.log(share) - jnp.log1p(-share)

    return Target("simplex", simplex_log_density, sample, 0.9, np.array([0.8, 1.5]))


def positive_log_density(z: Any, jacobian: float = 1.0) -> Any:
    """Gamma(1.3, 2) and Gamma(4, 0.5) on the log scale."""
    shape, rate = jnp.array([1.3, 4.0]), jnp.array([2.0, 0.5])
    return jnp.sum((shape - 1.0) * z - rate * jnp.exp(z) + jacobian * z)


def _positive() -> Target:
    def sample(key: Any) -> Any:
        return jnp.log(jax.random.gamma(key, jnp.array([1.3, 4.0])) / jnp.array([2.0, 0.5]))

    return Target("positive", positive_log_density, sample, 0.8, np.array([1.0, 0.5]))


def _heavy() -> Target:
    """The logarithm of |t| with 2 degrees of freedom, times 3, and a plain t with 4 shifted by it."""

    def log_density(z: Any) -> Any:
        u = z[0] / 3.0
        return u - 1.5 * jnp.log1p(jnp.exp(2 * u) / 2.0) - 2.5 * jnp.log1p((z[1] - z[0]) ** 2 / 4.0)

    def sample(key: Any) -> Any:
        first, second = jax.random.split(key)
        z = 3.0 * jnp.log(jnp.abs(jax.random.t(first, 2.0)))
        return jnp.stack([z, z + jax.random.t(second, 4.0)])

    return Target("heavy", log_density, sample, 0.6, np.array([2.0, 1.5]))


def _banana() -> Target:
    def log_density(z: Any) -> Any:
        return -0.5 * (z[0] - 1.0) ** 2 - 0.5 * ((z[1] - z[0] ** 2) / 0.5) ** 2

    def sample(key: Any) -> Any:
        noise = jax.random.normal(key, (2,))
        x = 1.0 + noise[0]
        return jnp.stack([x, x**2 + 0.5 * noise[1]])

    return Target("banana", log_density, sample, 0.3, np.array([0.8, 1.2]))


TARGETS = [_gaussian(), _funnel(), _simplex(), _positive(), _heavy(), _banana()]
