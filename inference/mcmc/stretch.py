r"""The affine-invariant stretch move.

A walker x is stretched along the line through another walker c, ``y = c + s (x - c)``, with s from
``g(s) ~ 1 / sqrt(s)`` on ``[1/a, a]``, drawn as ``s = ((a - 1) u + 1)^2 / a``. As ``g(1/s) = s g(s)`` and the
transformation of R^d has the Jacobian ``s^d``, r is ``s^(d-1)``. The move is the same in all affine coordinates.

It needs no gradient and no tuning, and a set of walkers spread over the posterior; the walkers must be more than d, or
they stay in a subspace. Steps are of relative size sqrt(d), so the number of transitions grows with d: good
below about 20 dimensions, slow and slow to notice it above 50 (Huijser et al. 2015).

References: Goodman and Weare, "Ensemble samplers with affine invariance" (2010); Huijser, Goodman and Brewer,
"Properties of the affine invariant ensemble sampler in high dimensions" (2015).
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
class Stretch:
    """The stretch move on a set of walkers, shape (W, d) with W > d.

    Attributes:
        scale: Greatest stretch a, above 1.

    Raises:
        ValueError: If there are fewer than four walkers.

    Example:
        >>> density, kernel = lambda z: -0.5 * jnp.sum(z**2), Stretch()
        >>> state = kernel.init(jax.random.normal(jax.random.key(0), (10, 2)), density)
        >>> state, info = kernel.step(jax.random.key(1), state, density)
        >>> state.position.shape, bool(0.2 < info.acceptance_rate < 1)
        ((10, 2), True)
    """

    gradient: ClassVar[bool] = False  # see ``core.Kernel``
    ensemble: ClassVar[bool] = True  # its position is a set of walkers

    scale: Array = 2.0

    def init(self, position: Array, density: Any) -> EnsembleState:
        """Make the state at walkers of shape (W, d)."""
        return halves.evaluate(position, density)

    def step(self, key: Array, state: EnsembleState, density: Any) -> tuple[EnsembleState, EnsembleInfo]:
        """Move all walkers once."""
        return halves.move_halves(key, state, density, self.move)

    def move(self, key: Array, x: Array, others: Array) -> tuple[Array, Array]:
        """Propose for walkers x given the others; see ``halves.Move``."""
        choose, stretch = jax.random.split(key)
        centre = others[halves.integers(choose, (others.shape[0],), x)[0]]
        u = halves.uniforms(stretch, 1, x)[0]
        s = ((self.scale - 1.0) * u + 1.0) ** 2 / self.scale
        return centre + s[:, None] * (x - centre), log_factor(s, x.shape[1])


jax.tree_util.register_dataclass(Stretch, ["scale"], [])


def log_factor(stretch: Array, dim: int) -> Array:
    """Log of the ratio of reverse and forward proposal densities."""
    return (dim - 1) * jnp.log(stretch)
