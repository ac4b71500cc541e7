r"""Elliptical slice sampling.

For a target pi(z) = N(z; m, F F^T) L(z): draw nu ~ N(0, F F^T) and a height ``log y = log L(z) + log u``; the ellipse

    z(theta) = m + (z - m) cos(theta) + nu sin(theta)

passes through z at theta = 0, and points on it at a uniform angle have the law of the prior. The angle is drawn from an
interval of length 2 pi around 0, which is shrunk towards 0 at each point with L below y. No tuning, no gradient, no
rejection; good where the prior is Gaussian and informative.

L is by default *the density divided by the Gaussian*, so the kernel leaves the density invariant whatever the Gaussian
is: a mean that does not fit, or that of an earlier state of other sites, costs efficiency and never correctness
(Nishihara, Murray and Adams use it so on targets without any Gaussian). Where the likelihood is given separately the
Gaussian must be the prior; where prior and density depend on the rest of the model, both must come from the same rest:
``prior`` is then a function of the density that the kernel is given, which is asked in every transition.

References: Murray, Adams and MacKay, "Elliptical slice sampling" (2010); Nishihara, Murray and Adams, "Parallel MCMC
with generalized elliptical slice sampling" (2014).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from . import euclidean, metropolis
from .metropolis import Point
from .slice import inside

Array = Any


@dataclass(frozen=True)
class EllipseInfo:
    """What a transition reports: 1 if it moved, and evaluations of the density."""

    acceptance_rate: Array
    n_steps: Array


jax.tree_util.register_dataclass(EllipseInfo, ["acceptance_rate", "n_steps"], [])


@dataclass(frozen=True)
class EllipticalSlice:
    """Elliptical slice sampling around a Gaussian.

    Attributes:
        mean: Mean of the Gaussian, shape (d,) or ().
        factor: Lower Cholesky factor of its covariance (d, d), or standard deviations (d,) or ().
        prior: Instead of these, a function of the density in force to ``(mean, factor)``, such as ``gaussian_prior``;
            it may read what the density holds fixed, and is asked in every transition.
        likelihood: Function of the position to the log likelihood; by default the density divided by the Gaussian.
        max_misses: Angles after which the state stays, far more than needed.

    Example:
        >>> from ppl.inference.core import as_density
        >>> density = as_density(lambda z: -0.5 * jnp.sum(z**2) - jnp.sum(jnp.abs(z - 1.0)))
        >>> kernel = EllipticalSlice(mean=0.0, factor=1.0)
        >>> state, info = kernel.step(jax.random.key(0), kernel.init(jnp.zeros(2), density), density)
        >>> float(info.acceptance_rate), bool(jnp.all(state.position != 0.0))
        (1.0, True)
    """

    gradient: ClassVar[bool] = False

    mean: Array = 0.0
    factor: Array = 1.0
    prior: Callable[[Any], tuple[Array, Array]] | None = None
    likelihood: Callable[[Array], Array] | None = None
    max_misses: int = 200

    def init(self, position: Array, density: Any) -> Point:
        """Make the state at a position."""
        return metropolis.point(position, density)

    def gaussian(self, density: Any) -> tuple[Array, Array]:
        """Mean and factor that hold for a density."""
        return (self.mean, self.factor) if self.prior is None else self.prior(density)

    def step(self, key: Array, state: Point, density: Any) -> tuple[Point, EllipseInfo]:
        """Draw an ellipse, and the next state on it."""
        dtype = state.position.dtype
        mean, factor = (jnp.asarray(x, dtype) for x in self.gaussian(density))
        start = state.position - mean
        turned = euclidean.draw_momentum(key, None, state.position)
        across = spread(factor, turned)
        white = unspread(factor, start)  # turns by the same angle, so the Gaussian is solved for once

        def height(new: Point, noise: Array) -> Array:
            return (
                new.log_density + 0.5 * jnp.sum(noise**2) if self.likelihood is None else self.likelihood(new.position)
            )

        first, second = euclidean.uniform(euclidean.words(key, 0), dtype)
        level = height(state, white) + jnp.log(first)
        angle = 2.0 * np.pi * second
        zero = jnp.zeros((), jnp.int32)

        def going(loop: Any) -> Array:
            _, _, _, _, hit, count = loop
            return ~hit & (count < self.max_misses)

        def body(loop: Any) -> Any:
            low, high, angle, found, _, count = loop
            cos, sin = jnp.cos(angle), jnp.sin(angle)
            new = metropolis.point(mean + start * cos + across * sin, density)
            hit = inside(Point(new.position, height(new, white * cos + turned * sin)), level)
            hit = hit & jnp.isfinite(new.log_density)
            low, high = shrunk(low, high, angle)
            draw = metropolis.one_uniform(key, dtype, 1 + count)
            found = jax.tree.map(lambda a, b: jnp.where(hit, a, b), new, found)
            return low, high, low + draw * (high - low), found, hit, count + 1

        loop = (angle - 2.0 * np.pi, angle, angle, state, jnp.zeros((), bool), zero)
        _, _, _, found, hit, count = jax.lax.while_loop(going, body, loop)
        return found, EllipseInfo(hit.astype(dtype), count)


jax.tree_util.register_dataclass(EllipticalSlice, ["mean", "factor"], ["prior", "likelihood", "max_misses"])


def shrunk(low: Array, high: Array, angle: Array) -> tuple[Array, Array]:
    """The interval of angles cut at one that missed, so that it still holds 0."""
    return jnp.where(angle < 0, angle, low), jnp.where(angle < 0, high, angle)


def spread(factor: Array, noise: Array) -> Array:
    """F xi, for a factor (d, d), (d,) or ()."""
    return factor @ noise if factor.ndim == 2 else factor * noise


def unspread(factor: Array, change: Array) -> Array:
    """F^-1 x."""
    if factor.ndim == 2:
        return jax.scipy.linalg.solve_triangular(factor, change, lower=True)
    return change / factor


def gaussian_prior(density: Any) -> tuple[Array, Array]:
    """Mean and factor of the Gaussian that the prior of a density is, from the prior's gradient and curvature.

    With log prior ``l``, the precision is ``P = -l''`` and the mean solves ``P m = l'(0)``. On the full conditional of
    a block it follows from what the block is given. Where the prior is not Gaussian, its Gaussian at zero is returned,
    which the kernel may use as well; it costs d gradients of the prior and d^3 operations.

    Args:
        density: A density with ``split``, which returns log prior and log likelihood, and ``dim``.

    Raises:
        TypeError: If it has neither.

    Example:
        >>> import ppl
        >>> from ppl import dist
        >>> @ppl.model
        ... def m():
        ...     z = ppl.sample("z", dist.Normal(np.array([1.0, 2.0]), 0.5).to_event(1))
        ...     ppl.sample("y", dist.Poisson(jnp.exp(z)).to_event(1))
        >>> mean, factor = gaussian_prior(ppl.compile(m().condition(y=np.array([1, 2]))))
        >>> np.round(mean, 6).tolist(), np.round(factor, 6).tolist()
        ([1.0, 2.0], [[0.5, 0.0], [0.0, 0.5]])
    """
    if not (hasattr(density, "split") and hasattr(density, "dim")):
        raise TypeError(
            f"the prior of {type(density).__name__} is not known apart from the likelihood: give EllipticalSlice mean= "
            "and factor=, or prior=, a function of the density to both"
        )
    log_prior = density.split()[0]
    zero = jnp.zeros(density.dim)
    slope, precision = jax.grad(log_prior)(zero), -jax.hessian(log_prior)(zero)
    mean = jnp.linalg.solve(precision, slope)
    # With J the reversal of the order, P = J C C^T J gives the lower factor J C^-T J of the inverse of P.
    reverse = jnp.linalg.cholesky(precision[::-1, ::-1])
    factor = jax.scipy.linalg.solve_triangular(reverse, jnp.eye(len(zero), dtype=zero.dtype), lower=True).T
    return mean, factor[::-1, ::-1]
