r"""The Barker proposal: a gradient step that large gradients cannot spoil.

In the coordinates x of the metric, z = W x with gradient c = W^T grad log pi, each coordinate moves by its own noise
w_i, forwards with probability 1 / (1 + exp(-w_i c_i)) and backwards otherwise. The proposal density of the increment
delta_i is proportional to ``mu(delta_i) / (1 + exp(-delta_i c_i))``, mu symmetric, so with c' at the proposal

    log q(z', z) / q(z, z') = sum_i log(1 + exp(-delta_i c_i)) - log(1 + exp(delta_i c'_i)).

The gradient decides only the sign of a move, never its length: from a bad start, on light tails or with a step size
far off, the chain still moves, where MALA stands still. Optimal acceptance is near 0.4 with normal noise. ``width``
below 1 takes noise ``w = e (sqrt(1 - width^2) + width xi)``, concentrated around its typical size, which moves further.

References: Livingstone and Zanella, "The Barker proposal: combining robustness and efficiency in gradient-based MCMC"
(2022); Vogrinc, Livingstone and Zanella, "Optimal design of the Barker proposal and other locally balanced
Metropolis-Hastings algorithms" (2023).
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
class Barker:
    """Metropolis-Hastings with the Barker proposal.

    Attributes:
        step_size: Root mean square of a coordinate's noise, in units of the metric.
        metric: ``Diagonal`` or ``Dense``; by default the identity, until warm-up learns one.
        width: Standard deviation of the noise's size relative to the step; 1 for normal noise, 0.1 for a noise that
            has nearly always the same size.
        target_accept: Mean acceptance that the standard step-size adapter aims at.
        dense: Whether the standard adapter learns a dense metric.

    Example:
        >>> from ppl.inference.core import as_density
        >>> density, kernel = as_density(lambda z: -jnp.sum(z**4)), Barker(step_size=0.5)
        >>> far = kernel.init(jnp.full(2, 50.0), density)  # a gradient of 5e5
        >>> state, info = kernel.step(jax.random.key(0), far, density)
        >>> bool(jnp.all(state.position < 50.0)), bool(info.acceptance_rate > 0.99)
        (True, True)
    """

    gradient: ClassVar[bool] = True  # see ``core.Kernel``
    proposes: ClassVar[bool] = True  # see ``PseudoMarginal``

    step_size: Array = 0.1
    metric: Any = Diagonal()
    width: Array = 1.0
    target_accept: float = 0.4
    dense: bool = False

    def init(self, position: Array, density: Any) -> State:
        """Make the state at a position."""
        return euclidean.evaluate(position, density)

    def expand(self, dim: int) -> Barker:
        """Give a metric of the default kind its full shape, as adaptation needs it."""
        return replace(self, metric=euclidean.expanded(self.metric, dim, self.dense))

    def adapters(self) -> tuple[Any, ...]:
        """The standard adapters: step size, and a metric from draws and gradients."""
        from ..adapt.gradient_metric import metric_adapter
        from ..adapt.step_size import StepSize

        return StepSize(None, gamma=0.2, ahead=1.0), metric_adapter(self)

    def trial(self, momentum: Array, state: State, density: Any) -> tuple[State, Array]:
        """Propose with given noise in the likelier direction: a proposal to judge a step size by."""
        noise = self._noise(momentum)
        return self.propose(jnp.where(noise * self.metric.force(state.gradient) < 0.0, -noise, noise), state, density)

    def propose(self, change: Array, state: State, density: Any) -> tuple[State, Array]:
        """The state after a whitened increment, and the log ratio of Hastings (-inf where not finite)."""
        moved = euclidean.evaluate(state.position + self.metric.velocity(change), density)
        forth, back = self.metric.force(state.gradient), self.metric.force(moved.gradient)
        ratio = moved.log_density - state.log_density + correction(change, forth, back)
        return moved, metropolis.usable(ratio, moved)

    def step(self, key: Array, state: State, density: Any) -> tuple[State, MoveInfo]:
        """Propose, and accept or reject."""
        noise = self._noise(euclidean.draw_momentum(key, self.metric, state.position))
        forwards = jax.nn.sigmoid(noise * self.metric.force(state.gradient))
        change = jnp.where(metropolis.uniforms(key, noise) <= forwards, noise, -noise)
        moved, ratio = self.propose(change, state, density)
        return metropolis.decide(metropolis.one_uniform(key, noise.dtype), ratio, moved, state)

    def _noise(self, normal: Array) -> Array:
        return self.step_size * (jnp.sqrt(1.0 - self.width**2) + self.width * normal)


jax.tree_util.register_dataclass(Barker, ["step_size", "metric", "width", "target_accept"], ["dense"])


def correction(change: Array, forth: Array, back: Array) -> Array:
    """Logarithm of q(z', z) / q(z, z') for whitened gradients at z (``forth``) and at z' (``back``)."""
    return jnp.sum(jax.nn.softplus(-change * forth) - jax.nn.softplus(change * back))
