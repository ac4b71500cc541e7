r"""The Metropolis-adjusted Langevin algorithm.

With the metric ``Sigma = W W^T`` and g = grad log pi, the Langevin diffusion ``dz = Sigma g / 2 dt + W dB`` leaves pi
invariant. One Euler step of size h = e^2 proposes

    z' = z + e W (xi + e/2 W^T g(z)),    xi ~ N(0, I).

The step back from z' to z needs the noise ``xi' = -(xi + e/2 W^T g(z)) - e/2 W^T g(z')``, so the ratio of Hastings is
``pi(z') N(xi') / (pi(z) N(xi))``. This is HMC with one leapfrog step. In high dimension an acceptance of 0.574 is
optimal, with e of order d^(-1/6).

References: Besag, comment on Grenander and Miller (1994); Roberts and Tweedie, "Exponential convergence of Langevin
distributions and their discrete approximations" (1996); Roberts and Rosenthal, "Optimal scaling of discrete
approximations to Langevin diffusions" (1998).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from . import euclidean, metropolis
from .euclidean import Diagonal, State
from .metropolis import MoveInfo

Array = Any


@dataclass(frozen=True)
class MALA:
    """The Metropolis-adjusted Langevin algorithm.

    Attributes:
        step_size: The e above, in units of the metric.
        metric: ``Diagonal`` or ``Dense``; by default the identity, until warm-up learns one.
        target_accept: Mean acceptance that the standard step-size adapter aims at.
        dense: Whether the standard adapter learns a dense metric.

    Example:
        >>> from ppl.inference.core import as_density
        >>> density, kernel = as_density(lambda z: -0.5 * jnp.sum(z**2)), MALA(step_size=0.3)
        >>> state, info = kernel.step(jax.random.key(0), kernel.init(jnp.zeros(2), density), density)
        >>> bool(info.acceptance_rate > 0.9)
        True
    """

    gradient: ClassVar[bool] = True  # see ``core.Kernel``
    proposes: ClassVar[bool] = True  # see ``PseudoMarginal``

    step_size: Array = 0.1
    metric: Any = Diagonal()
    target_accept: float = 0.574
    dense: bool = False

    def init(self, position: Array, density: Any) -> State:
        """Make the state at a position."""
        return euclidean.evaluate(position, density)

    def expand(self, dim: int) -> MALA:
        """Give a metric of the default kind its full shape, as adaptation needs it."""
        return replace(self, metric=euclidean.expanded(self.metric, dim, self.dense))

    def adapters(self) -> tuple[Any, ...]:
        """The standard adapters: step size, and a metric from draws and gradients."""
        from ..adapt.gradient_metric import metric_adapter
        from ..adapt.step_size import StepSize

        return StepSize(None, gamma=0.2, ahead=1.0), metric_adapter(self)

    def trial(self, momentum: Array, state: State, density: Any) -> tuple[State, Array]:
        """Propose with given noise; the proposal and the log ratio (-inf where not finite)."""
        push = 0.5 * self.step_size * self.metric.force(state.gradient)
        moved = euclidean.evaluate(state.position + self.step_size * self.metric.velocity(momentum + push), density)
        back = reverse_noise(momentum, push, 0.5 * self.step_size * self.metric.force(moved.gradient))
        ratio = moved.log_density - state.log_density + correction(momentum, back)
        return moved, metropolis.usable(ratio, moved)

    def step(self, key: Array, state: State, density: Any) -> tuple[State, MoveInfo]:
        """Propose, and accept or reject."""
        noise = euclidean.draw_momentum(key, self.metric, state.position)
        moved, ratio = self.trial(noise, state, density)
        return metropolis.decide(metropolis.one_uniform(key, noise.dtype), ratio, moved, state)


jax.tree_util.register_dataclass(MALA, ["step_size", "metric", "target_accept"], ["dense"])


def reverse_noise(noise: Array, push: Array, push_back: Array) -> Array:
    """The noise that leads from the proposal back, given half steps along the gradient at either end.

    Example:
        >>> float(reverse_noise(jnp.array(1.0), jnp.array(0.5), jnp.array(0.25)))
        -1.75
    """
    return -(noise + push) - push_back


def correction(noise: Array, back: Array) -> Array:
    """Logarithm of q(z', z) / q(z, z')."""
    return 0.5 * (jnp.sum(noise**2) - jnp.sum(back**2))
