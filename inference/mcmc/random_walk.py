r"""Random-walk Metropolis.

``z' = z + e W xi`` with xi ~ N(0, I) and ``W W^T`` the metric; the proposal is symmetric, so z' is accepted with
probability ``min(1, pi(z') / pi(z))``. With the covariance of the target as metric, e = 2.38 / sqrt(d) and an
acceptance of 0.234 are optimal in high dimension, 0.44 in one. Needs no gradient.

References: Metropolis et al. (1953); Roberts, Gelman and Gilks, "Weak convergence and optimal scaling of random walk
Metropolis algorithms" (1997); Haario, Saksman and Tamminen, "An adaptive Metropolis algorithm" (2001), for the metric.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax

from . import euclidean, metropolis
from .euclidean import Diagonal
from .metropolis import MoveInfo, Point

Array = Any


@dataclass(frozen=True)
class RandomWalk:
    """Random-walk Metropolis with normal increments.

    Attributes:
        step_size: Standard deviation of the increments, in units of the metric.
        metric: ``Diagonal`` or ``Dense``; by default the identity, until warm-up learns one.
        target_accept: Mean acceptance that the standard step-size adapter aims at; by default 0.44 in one dimension
            and 0.234 in more.
        dense: Whether the standard adapter learns a dense metric.

    Example:
        >>> from ppl.inference.core import as_density
        >>> density, kernel = as_density(lambda z: -0.5 * z @ z), RandomWalk(step_size=0.1)
        >>> state, info = kernel.step(jax.random.key(0), kernel.init(jax.numpy.zeros(2), density), density)
        >>> bool(info.acceptance_rate > 0.9)
        True
    """

    gradient: ClassVar[bool] = False
    proposes: ClassVar[bool] = True  # see ``PseudoMarginal``

    step_size: Array = 0.1
    metric: Any = Diagonal()
    target_accept: float | None = None
    dense: bool = False

    def init(self, position: Array, density: Any) -> Point:
        """Make the state at a position."""
        return metropolis.point(position, density)

    def expand(self, dim: int) -> RandomWalk:
        """Give a metric of the default kind its full shape, and aim at the acceptance that suits the dimension."""
        target = (0.44 if dim == 1 else 0.234) if self.target_accept is None else self.target_accept
        return replace(self, metric=euclidean.expanded(self.metric, dim, self.dense), target_accept=target)

    def adapters(self) -> tuple[Any, ...]:
        """The standard adapters: step size and metric."""
        from ..adapt.metric import Variance
        from ..adapt.step_size import StepSize

        return StepSize(None, gamma=0.2, ahead=1.0), Variance()

    def step(self, key: Array, state: Point, density: Any) -> tuple[Point, MoveInfo]:
        """Propose, and accept or reject."""
        noise = euclidean.draw_momentum(key, self.metric, state.position)
        moved = metropolis.point(state.position + self.step_size * self.metric.velocity(noise), density)
        uniform = metropolis.one_uniform(key, noise.dtype)
        return metropolis.decide(uniform, moved.log_density - state.log_density, moved, state)


jax.tree_util.register_dataclass(RandomWalk, ["step_size", "metric", "target_accept"], ["dense"])
