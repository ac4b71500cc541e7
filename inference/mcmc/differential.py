r"""Differential evolution: a set of walkers that move along each other's differences.

*Parallel direction.* A walker x moves by the difference of two others, ``y = x + gamma (c_a - c_b) + e``, with
``gamma = 2.38 / sqrt(2 d)`` and small normal noise e, in units of the other walkers' spread, that makes every point
reachable. Now and then gamma is 1: the difference of two modes leads from one to the other. Symmetric, r = 1.
*Snooker.* With a third walker c, y lies on the line through x and c: with P the projection on its direction,
``y = x + gamma P (c_a - c_b)``, gamma uniform on [1.2, 2.2]. The line is parametrised by the distance from c, so
``r = (|y - c| / |x - c|)^(d-1)``.

References: ter Braak, "A Markov chain Monte Carlo version of the genetic algorithm differential evolution" (2006); ter
Braak and Vrugt, "Differential evolution Markov chain with snooker updater and fewer chains" (2008).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from . import halves
from .halves import EnsembleInfo, EnsembleState

Array = Any


@dataclass(frozen=True)
class DifferentialEvolution:
    """Differential evolution on a set of walkers, shape (W, d) with W >= 2 d + 2.

    Attributes:
        gamma: Factor of the difference; None for 2.38 / sqrt(2 d).
        jitter: Standard deviation of the noise, relative to the other walkers' in each coordinate.
        jumps: Share of the parallel moves with a factor of 1.
        snooker: Share of the moves that are snooker moves.

    Raises:
        ValueError: If there are fewer than four walkers.

    Example:
        >>> density, kernel = lambda z: -0.5 * jnp.sum(z**2), DifferentialEvolution()
        >>> state = kernel.init(jax.random.normal(jax.random.key(0), (10, 2)), density)
        >>> state, info = kernel.step(jax.random.key(1), state, density)
        >>> state.position.shape, bool(0.1 < info.acceptance_rate < 1)
        ((10, 2), True)
    """

    gradient: ClassVar[bool] = False  # see ``core.Kernel``
    ensemble: ClassVar[bool] = True  # its position is a set of walkers

    gamma: Array | None = None
    jitter: Array = 1e-2
    jumps: Array = 0.1
    snooker: Array = 0.1

    def init(self, position: Array, density: Any) -> EnsembleState:
        """Make the state at walkers of shape (W, d)."""
        return halves.evaluate(position, density)

    def step(self, key: Array, state: EnsembleState, density: Any) -> tuple[EnsembleState, EnsembleInfo]:
        """Move all walkers once."""
        return halves.move_halves(key, state, density, self.move)

    def move(self, key: Array, x: Array, others: Array) -> tuple[Array, Array]:
        """Propose for walkers x given the others; see ``halves.Move``."""
        rows = others.shape[0]
        choose, place, normal = jax.random.split(key, 3)
        a, b, c = halves.integers(choose, (rows, rows - 1, rows), x)
        difference = others[a] - others[jnp.where(b >= a, b + 1, b)]
        which, jump, size = halves.uniforms(place, 3, x)
        far = jnp.where(jump < self.jumps, 1.0, 2.38 / (2.0 * x.shape[1]) ** 0.5 if self.gamma is None else self.gamma)
        noise = self.jitter * jnp.std(others, axis=0) * jax.random.normal(normal, x.shape, x.dtype)
        towards, log_ratio = along(x, others[c], difference, 1.2 + size)
        on = which <= self.snooker
        return (
            jnp.where(on[:, None], towards, x + far[:, None] * difference + noise),
            jnp.where(on, log_ratio, 0.0),
        )


def along(x: Array, centre: Array, difference: Array, gamma: Array) -> tuple[Array, Array]:
    """Snooker moves: on the line through each x and its centre, by the projection of a difference, and their log r."""
    line = x - centre
    distance = jnp.linalg.norm(line, axis=1)
    unit = line / jnp.maximum(distance, jnp.finfo(x.dtype).tiny)[:, None]
    move = gamma * jnp.sum(difference * unit, axis=1)
    # beyond the centre the distance is counted on the other side: only its absolute value matters
    return x + move[:, None] * unit, log_factor(jnp.abs(distance + move) / distance, x.shape[1])


jax.tree_util.register_dataclass(DifferentialEvolution, ["gamma", "jitter", "jumps", "snooker"], [])


def log_factor(ratio: Array, dim: int) -> Array:
    """Log of the ratio of reverse and forward proposal densities of a snooker move."""
    return (dim - 1) * jnp.log(ratio)
