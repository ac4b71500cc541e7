r"""The affine-invariant walk move.

A walker x moves by a normal vector with the covariance of the other half of the walkers,
``y = x + size / sqrt(h) sum_j n_j (c_j - mean(c))`` with n_j ~ N(0, 1): a random walk Metropolis step in the scales and
directions of the target, as the others show them. The proposal is symmetric, r = 1.

References: Goodman and Weare, "Ensemble samplers with affine invariance" (2010), section 2; Roberts, Gelman and Gilks,
"Weak convergence and optimal scaling of random walk Metropolis algorithms" (1997), for the size 2.38 / sqrt(d).
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
class Walk:
    """The walk move on a set of walkers, shape (W, d) with W >= 2 d + 2.

    Attributes:
        size: Size of a step in units of the spread of the walkers; None for 2.38 / sqrt(d).

    Raises:
        ValueError: If there are fewer than four walkers.

    Example:
        >>> density, kernel = lambda z: -0.5 * jnp.sum(z**2), Walk()
        >>> state = kernel.init(jax.random.normal(jax.random.key(0), (10, 2)), density)
        >>> state, info = kernel.step(jax.random.key(1), state, density)
        >>> state.position.shape, bool(0.1 < info.acceptance_rate < 1)
        ((10, 2), True)
    """

    gradient: ClassVar[bool] = False  # see ``core.Kernel``
    ensemble: ClassVar[bool] = True  # its position is a set of walkers

    size: Array | None = None

    def init(self, position: Array, density: Any) -> EnsembleState:
        """Make the state at walkers of shape (W, d)."""
        return halves.evaluate(position, density)

    def step(self, key: Array, state: EnsembleState, density: Any) -> tuple[EnsembleState, EnsembleInfo]:
        """Move all walkers once."""
        return halves.move_halves(key, state, density, self.move)

    def move(self, key: Array, x: Array, others: Array) -> tuple[Array, Array]:
        """Propose for walkers x given the others; see ``halves.Move``."""
        size = 2.38 / x.shape[1] ** 0.5 if self.size is None else self.size
        noise = jax.random.normal(key, (x.shape[0], others.shape[0]), x.dtype)
        centred = (others - jnp.mean(others, axis=0)) / others.shape[0] ** 0.5
        return x + size * (noise @ centred), jnp.zeros(x.shape[0], x.dtype)


jax.tree_util.register_dataclass(Walk, ["size"], [])
