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

from ppl.inference.core import as_density


@dataclass(frozen=True)
class Target:
    """A log density up to a constant, its exact sampler, and a step size and scales that suit it.

    The last entries of a position are codes of finite variables, as many as ``finite`` has entries; ``scale`` speaks
    of the real ones.
    """

    name: str
    log_density: Callable[[Any], Any]
    sample: Callable[[Any], Any]
    step_size: float
    scale: Any
    finite: tuple[int, ...] = ()

    @property
    def dim(self) -> int:
        """Length of positions."""
        return len(self.scale) + len(self.finite)

    def density(self) -> Any:
        """The log density in a fresh wrapper, which shares nothing compiled with others."""
        return as_density(lambda z: self.log_density(z), self.dim, self.finite)


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
        noise, log_u = jax.random.normal(first, (2,)), jnp.log(jax.random.uniform(second, (3,), minval=1e-300))
        # Half a chi-square of two degrees of freedom is -log u; of four, the sum of two.
        z = 3.0 * jnp.log(jnp.abs(noise[0]) / jnp.sqrt(-log_u[0]))
        return jnp.stack([z, z + noise[1] / jnp.sqrt(-0.5 * (log_u[1] + log_u[2]))])

    return Target("heavy", log_density, sample, 0.6, np.array([2.0, 1.5]))


def _banana() -> Target:
    def log_density(z: Any) -> Any:
        return -0.5 * (z[0] - 1.0) ** 2 - 0.5 * ((z[1] - z[0] ** 2) / 0.5) ** 2

    def sample(key: Any) -> Any:
        noise = jax.random.normal(key, (2,))
        x = 1.0 + noise[0]
        return jnp.stack([x, x**2 + 0.5 * noise[1]])

    return Target("banana", log_density, sample, 0.3, np.array([0.8, 1.2]))


def _bimodal() -> Target:
    """Two unlike correlated normals, 0.35 and 0.65, near enough that every kernel changes between them."""
    means = np.array([[-1.8, 0.5], [1.5, -0.4]])
    factors = np.array([[[0.5, 0.0], [0.4, 0.6]], [[0.9, 0.0], [-0.3, 0.4]]])
    weights = np.array([0.35, 0.65])

    def log_density(z: Any) -> Any:
        noise = jnp.einsum("kij,kj->ki", np.linalg.inv(factors), z - means)
        size = np.log(weights) - np.log(np.linalg.det(factors))
        return jax.nn.logsumexp(size - 0.5 * jnp.sum(noise**2, axis=1))

    def sample(key: Any) -> Any:
        first, second = jax.random.split(key)
        k = (jax.random.uniform(first) > weights[0]).astype(int)
        return jnp.asarray(means)[k] + jnp.asarray(factors)[k] @ jax.random.normal(second, (2,))

    return Target("bimodal", log_density, sample, 0.5, np.array([1.2, 0.7]))


_REACH = 0.5


def _support() -> Target:
    """x ~ Gamma(3, 1), y | x ~ Uniform(0, x), w | y ~ Normal(y, 0.5) as they are: -inf outside of 0 < y < x."""

    def log_density(z: Any) -> Any:
        inside = (z[1] > 0.0) & (z[1] < z[0])
        x = jnp.where(inside, z[0], 1.0)
        value = jnp.log(x) - x - 0.5 * ((z[2] - z[1]) / _REACH) ** 2
        return jnp.where(inside, value, -jnp.inf)

    return Target("support", log_density, _sample_support, 0.5, np.array([1.5, 0.8, 0.9]))


def _sample_support(key: Any) -> Any:
    first, second, third = jax.random.split(key, 3)
    x = -jnp.sum(jnp.log1p(-jax.random.uniform(first, (3,))))  # a gamma variable of shape 3
    y = x * jax.random.uniform(second)
    return jnp.stack([x, y, y + _REACH * jax.random.normal(third)])


def nested_log_density(z: Any, jacobian: float = 1.0) -> Any:
    """The variables of ``_support`` as log x, logit(y / x) and w."""
    x, share = jnp.exp(z[0]), jax.nn.sigmoid(z[1])
    log_determinant = 2.0 * z[0] + jnp.log(share) + jnp.log1p(-share)
    return z[0] - x - 0.5 * ((z[2] - x * share) / _REACH) ** 2 + jacobian * log_determinant


def _nested() -> Target:
    def sample(key: Any) -> Any:
        x, y, w = _sample_support(key)
        return jnp.stack([jnp.log(x), jnp.log(y) - jnp.log(x - y), w])

    return Target("nested", nested_log_density, sample, 0.6, np.array([0.5, 1.2, 0.8]))


_TABLE = np.array([[0.02, 0.3, 0.05], [0.15, 0.01, 0.12], [0.03, 0.04, 0.08], [0.1, 0.06, 0.04]])
"""Joint probabilities of two codes; neither is monotone, independent of the other or nearly uniform."""


def _finite() -> Target:
    log_table = np.log(_TABLE)

    def sample(key: Any) -> Any:
        cell = jax.random.categorical(key, jnp.asarray(log_table.ravel()))
        return jnp.stack([cell // 3, cell % 3]).astype(float)

    log_density = lambda z: jnp.asarray(log_table)[z[0].astype(int), z[1].astype(int)]  # noqa: E731
    return Target("finite", log_density, sample, 1.0, np.zeros(0), _TABLE.shape)


def _mixed() -> Target:
    """Codes c, k of ``finite`` and an x whose law, a normal or a skewed one, depends on both."""
    log_table = np.log(_TABLE)
    location, scale = np.array([-1.5, 0.0, 2.0, 0.5]), np.array([0.5, 1.0, 1.6])

    def log_density(z: Any) -> Any:
        c, k = z[1].astype(int), z[2].astype(int)
        u = (z[0] - jnp.asarray(location)[c]) / jnp.asarray(scale)[k]
        return jnp.asarray(log_table)[c, k] + u - jnp.exp(u) - jnp.log(jnp.asarray(scale)[k])

    def sample(key: Any) -> Any:
        first, second = jax.random.split(key)
        cell = jax.random.categorical(first, jnp.asarray(log_table.ravel()))
        c, k = cell // 3, cell % 3
        u = jnp.log(jax.random.exponential(second))
        x = jnp.asarray(location)[c] + jnp.asarray(scale)[k] * u
        return jnp.stack([x, c.astype(x.dtype), k.astype(x.dtype)])

    return Target("mixed", log_density, sample, 0.8, np.array([1.2]), _TABLE.shape)


TARGETS = [_gaussian(), _funnel(), _simplex(), _positive(), _heavy(), _banana()]
"""All real, in unconstrained coordinates, unimodal."""

CONTINUOUS = [*TARGETS, _bimodal(), _nested(), _support()]
"""All real; the last one has a boundary that depends on another coordinate, and no density beyond it."""

FINITE = [_finite()]
"""All codes, with 12 competing states."""

MIXED = [_mixed()]
"""One real coordinate and two codes."""

BY_NAME = {target.name: target for target in [*CONTINUOUS, *FINITE, *MIXED]}
