r"""Metropolis on finite coordinates: propose one of the other states, uniformly.

From state i of K the proposal j is uniform on the K - 1 others; it is symmetric, so j is accepted with probability
min(1, pi(j | rest) / pi(i | rest)). The codes of a group (``discrete``) are independent given the rest and accept
apart. Two evaluations for each group whatever K, where Gibbs sampling needs K.

Reference: Metropolis et al., "Equation of state calculations by fast computing machines" (1953).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from . import discrete
from .gibbs import Info, State

Array = Any


@dataclass(frozen=True)
class FiniteMetropolis:
    """Proposes for every code one of its other states; the real entries stay.

    Attributes:
        scan: ``"systematic"``, each group of codes in turn, or ``"random"``.

    Raises:
        ValueError: An unknown scan; at the first step, a density without finite coordinates.

    Example:
        >>> from ppl.inference.core import as_density
        >>> density = as_density(lambda z: -0.3 * z[0], dim=1, finite=(50,))
        >>> kernel = FiniteMetropolis()
        >>> state, info = kernel.step(jax.random.key(1), kernel.init(jnp.array([49.0]), density), density)
        >>> bool(state.position[0] < 49), float(info.moved)
        (True, 1.0)
    """

    finite: ClassVar[bool] = True  # see ``core.Kernel``
    covers = staticmethod(discrete.covers)

    scan: str = "systematic"

    def __post_init__(self) -> None:
        """Check the scan."""
        discrete.scan_checked("FiniteMetropolis", self.scan)

    def init(self, position: Array, density: Any) -> State:
        """Make the state at a position."""
        discrete.checked(density, "FiniteMetropolis")
        return State(position, density(position))

    def step(self, key: Array, state: State, density: Any) -> tuple[State, Info]:
        """Let every group of codes accept or reject once."""
        counts = discrete.checked(density, "FiniteMetropolis")
        real, codes = discrete.split(state.position, len(counts))
        able = counts > 1

        def move(key: Array, codes: Array, group: Array) -> tuple[Array, Array]:
            inside = discrete.members(density, group) & able
            first, second = jax.random.uniform(key, (2, *codes.shape), codes.dtype)
            proposal = jnp.where(inside, other(codes, counts, first), codes)
            here = discrete.local(density, jnp.concatenate([real, codes]), group)
            there = discrete.local(density, jnp.concatenate([real, proposal]), group)
            rate = jnp.where(inside, jnp.exp(jnp.minimum(log_ratio(here, there), 0.0)), 0.0)
            return jnp.where(second < rate, proposal, codes), jnp.sum(rate)

        moved, accepted = discrete.pass_over(density, key, codes, self.scan, move)
        position = jnp.concatenate([real, moved])
        info = Info(accepted / len(counts), jnp.mean((moved != codes).astype(position.dtype)))
        return State(position, density(position)), info


jax.tree_util.register_dataclass(FiniteMetropolis, [], ["scan"])


def other(codes: Array, counts: Array, uniform: Array) -> Array:
    """One of the other states of each code, from a uniform number in [0, 1).

    Example:
        >>> other(jnp.array([0.0, 2.0]), jnp.array([2, 3]), jnp.array([0.9, 0.6])).tolist()
        [1.0, 1.0]
    """
    step = 1 + jnp.minimum(jnp.floor(uniform * (counts - 1).astype(codes.dtype)), (counts - 2).astype(codes.dtype))
    return jnp.mod(codes + step, counts.astype(codes.dtype))


def log_ratio(here: Array, there: Array) -> Array:
    """Log of the ratio of densities; from a point without density anything with some is accepted."""
    return jnp.where(jnp.isneginf(there), -jnp.inf, jnp.where(jnp.isneginf(here), jnp.inf, there - here))
