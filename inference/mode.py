r"""The mode of a posterior and the Gaussian that fits it there (Laplace's approximation).

On the unconstrained scale, with z* = argmax log pi(z) and H = -d2 log pi(z*),

    pi(z) ~ N(z*, H^-1),    log integral pi ~ log pi(z*) + d/2 log 2 pi - 1/2 log det H,

the evidence being that of the normalised joint density. The mode is that of the unconstrained density (with
the log-determinants of the transformations), so it moves when a site is parameterised differently. Double
precision on the host around one compiled function for value and gradient, and one for the Hessian: BFGS from
several starts, then Newton.

References: Laplace (1774); Tierney and Kadane (1986), Accurate approximations for posterior moments and
marginal densities, JASA 81; Nocedal and Wright (2006), Numerical Optimization, chapters 3 and 6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl.host import surfacing

from . import gradients
from . import precision as floats
from .core import Array, host_rng
from .groups import in_order
from .subject import Subject, make_subject, starts

_START, _LARGE = 41, 1e4
"""Purpose of the random numbers of the starts; a coordinate beyond this size has run away."""


@dataclass(frozen=True)
class Laplace:
    """A Gaussian at the mode; a proposal over flat unconstrained positions.

    Attributes:
        position: The mode on the unconstrained scale, shape (d,).
        cholesky: Lower Cholesky factor of the covariance, shape (d, d).
        log_evidence: Laplace's estimate of the log of the integral of the density.
        values: Latent sites and records at the mode, constrained.
        labels: Names of the coordinates.

    Example:
        >>> fit = laplace(lambda z: -0.5 * (z**2).sum(), init=np.ones(2))
        >>> bool(abs(fit.log_evidence - np.log(2 * np.pi)) < 1e-9)
        True
    """

    position: Array
    cholesky: Array
    log_evidence: Array
    values: dict[str, Array]
    labels: tuple[str, ...] = ()

    @property
    def mode(self) -> dict[str, np.ndarray]:
        """Latent sites and records at the mode."""
        return {name: np.asarray(value) for name, value in self.values.items()}

    @property
    def covariance(self) -> np.ndarray:
        """Covariance on the unconstrained scale, shape (d, d)."""
        factor = np.asarray(self.cholesky)
        return factor @ factor.T

    def sample(self, key: Array) -> Array:
        """Draw one unconstrained position."""
        noise = jax.random.normal(key, self.position.shape, self.position.dtype)
        return self.position + self.cholesky @ noise

    def log_prob(self, position: Array) -> Array:
        """Log density of the Gaussian at an unconstrained position."""
        white = jax.scipy.linalg.solve_triangular(self.cholesky, position - self.position, lower=True)
        scale = jnp.sum(jnp.log(jnp.diagonal(self.cholesky)))
        return -0.5 * white @ white - scale - 0.5 * len(self.position) * np.log(2 * np.pi)

    def __repr__(self) -> str:
        """Mode and standard deviation of every coordinate."""
        sd = np.linalg.norm(np.asarray(self.cholesky), axis=1)
        shown = [f"{n} {m:.4g} +- {s:.2g}" for n, m, s in zip(self.labels, np.asarray(self.position), sd, strict=True)]
        more = f", ... ({len(shown)})" if len(shown) > 8 else ""
        return f"<Laplace (unconstrained): {', '.join(shown[:8])}{more}; log evidence {float(self.log_evidence):.4g}>"


jax.tree_util.register_dataclass(
    Laplace, data_fields=["position", "cholesky", "log_evidence", "values"], meta_fields=["labels"]
)


@surfacing
def laplace(program: Any, *, seed: int = 0, restarts: int = 4, init: Any = None) -> Laplace:
    """Find the mode of a posterior and the Gaussian there.

    Args:
        program: A conditioned program, or a log density of a flat vector (then ``init`` is needed).
        seed: Determines the starting points.
        restarts: Number of starting points; the highest mode wins.
        init: Starting positions (d,) or (restarts, d), unconstrained, or ``{site: value}``.

    Raises:
        ppl.ModelError: If the density has no maximum, or is flat there.
    """
    with floats.context("float64"):
        subject = make_subject(program, init)
        gradients.check("laplace", subject.density)
        points = starts(subject, init, restarts if np.ndim(init) == 1 else None, seed)
        if points is None:
            rng = host_rng(seed, _START)
            # The origin first: many models are at their best near it.
            points = np.concatenate([np.zeros((1, subject.dim)), rng.uniform(-2, 2, (restarts - 1, subject.dim))])
        labels = tuple(getattr(subject.density, "labels", None) or (f"z[{i}]" for i in range(subject.dim)))
        value, position = _best(subject, np.atleast_2d(points))
        return _approximate(subject, labels, value, position)


def _best(subject: Subject, points: np.ndarray) -> tuple[float, np.ndarray]:
    """The highest of the local maxima that are reached."""
    from ppl import ModelError

    found = []
    for point in points:
        reached = _climb(lambda z: _ascent(subject.density, z), point)
        if reached is not None:
            found.append(reached)
    if not found:
        if subject.program is not None:
            import ppl

            ppl.check(subject.program, subject.density, points[0])
        raise ModelError("the log density or its gradient is not finite at any starting point")
    return max(found, key=lambda pair: pair[0])


def _climb(evaluate: Callable, point: np.ndarray, iterations: int = 1000) -> tuple[float, np.ndarray] | None:
    """BFGS with backtracking on minus the log density; None where it cannot begin."""
    value, gradient = _host(evaluate(point))
    if not (np.isfinite(value) and np.isfinite(gradient).all()):
        return None
    inverse, fresh = np.eye(len(point)) / max(1.0, float(np.linalg.norm(gradient))), True
    for _ in range(iterations):
        direction = inverse @ gradient
        slope = float(direction @ gradient)
        if slope < 1e-16 * (1 + abs(value)) or np.abs(point).max() > _LARGE:
            break
        length = 1.0
        while length > 1e-12:
            new_value, new_gradient = _host(evaluate(point + length * direction))
            if np.isfinite(new_gradient).all() and new_value >= value + 1e-4 * length * slope:
                break
            length *= 0.5
        else:
            if fresh:
                break
            inverse, fresh = np.eye(len(point)) / max(1.0, float(np.linalg.norm(gradient))), True
            continue
        step, change = length * direction, gradient - new_gradient
        point, value, gradient = point + step, new_value, new_gradient
        curvature = float(step @ change)
        if curvature > 1e-10 * np.linalg.norm(step) * np.linalg.norm(change):
            if fresh:
                inverse, fresh = np.eye(len(point)) * curvature / float(change @ change), False
            image = inverse @ change
            cross = np.outer(step, image)
            inverse = inverse + (curvature + change @ image) * np.outer(step, step) / curvature**2
            inverse -= (cross + cross.T) / curvature
    return value, point


def _approximate(subject: Subject, labels: tuple[str, ...], value: float, position: np.ndarray) -> Laplace:
    """Newton steps to the very top, then the Gaussian."""
    from ppl import ModelError

    for _ in range(20):
        hessian, gradient = (np.asarray(x) for x in _bend(subject.density, position))
        finite = bool(np.isfinite(hessian).all()) and np.abs(hessian).max() < 1e150
        values, vectors = np.linalg.eigh(-0.5 * (hessian + hessian.T) if finite else -np.diag(np.abs(position)))
        if values[0] <= 1e-10 * values[-1] or np.abs(position).max() > _LARGE:
            worst = int(np.argmax(np.abs(vectors[:, 0])))
            raise ModelError(
                f"the density has no proper maximum: it is flat or still rising in a direction that is mostly "
                f"'{labels[worst]}' (at {position[worst]:.4g}, unconstrained; log density {value:.4g}). A scale "
                "of latent variables has no joint mode with them; use infer, or a non-centred parameterisation."
            )
        step = vectors @ ((vectors.T @ gradient) / values)
        if gradient @ step < 1e-24:
            break
        new_value = float(_ascent(subject.density, position + step)[0])
        if not new_value >= value - 1e-12 * abs(value):
            break
        value, position = new_value, position + step
    factor = vectors / np.sqrt(values)
    cholesky = np.linalg.qr(factor.T)[1].T
    cholesky = cholesky * np.sign(np.diagonal(cholesky))
    evidence = value + 0.5 * len(position) * np.log(2 * np.pi) - 0.5 * float(np.sum(np.log(values)))
    generated = getattr(subject.density, "generated", None)
    at_mode = {"z": position}
    if generated is not None:
        at_mode = in_order(subject, jax.tree.map(np.asarray, dict(_generated(subject.density, position))))
    return Laplace(position, cholesky, np.float64(evidence), at_mode, labels)


def _bend(density: Any, position: np.ndarray) -> tuple[Array, Array]:
    """Hessian and gradient; the Hessian by central differences of gradients where those come from outside of JAX."""
    if not getattr(density, "external", ()):
        return _curvature(density, position)
    steps = np.finfo(float).eps ** (1 / 3) * (1 + np.abs(position))
    up, down = position + np.diag(steps), position - np.diag(steps)
    gradients = np.asarray(_gradients(density, np.concatenate([up, down, position[None]])))
    d = len(position)
    hessian = (gradients[:d] - gradients[d : 2 * d]) / (2 * steps[:, None])
    return 0.5 * (hessian + hessian.T), gradients[-1]


def _host(pair: tuple[Any, Any]) -> tuple[float, np.ndarray]:
    value, gradient = pair
    return float(value), np.asarray(gradient)


@jax.jit
def _ascent(density: Any, position: Array) -> tuple[Array, Array]:
    return jax.value_and_grad(density)(position)


@jax.jit
def _curvature(density: Any, position: Array) -> tuple[Array, Array]:
    return jax.hessian(density)(position), jax.grad(density)(position)


@jax.jit
def _gradients(density: Any, positions: Array) -> Array:
    return jax.vmap(jax.grad(density))(positions)


@jax.jit
def _generated(density: Any, position: Array) -> Any:
    return density.generated(position)
