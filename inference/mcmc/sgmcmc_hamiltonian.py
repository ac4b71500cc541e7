r"""Stochastic-gradient Hamiltonian Monte Carlo: Hamiltonian dynamics with friction against the gradient's noise.

With an estimate g of the gradient, whitened momentum q (``euclidean``), friction C and n ~ N(0, I) one step of size h
is

    z' = z + h W q,    q' = q + h W^T g(z') - h C q + sqrt(2 (C - B) h) n,    B = h v / 2,

v the variance of W^T g over minibatches: its noise heats the momentum like the B that is taken off what is added. With
v unknown (B = 0) the variances are too large by about ``h v / (2 C)`` of themselves, relative; friction bounds it.

References: Chen, Fox and Guestrin, "Stochastic gradient Hamiltonian Monte Carlo" (2014).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from . import sgmcmc
from .euclidean import Diagonal, draw_momentum
from .sgmcmc import Estimated, NoisyInfo

Array = Any


@dataclass(frozen=True)
class SGHMC:
    """Stochastic-gradient Hamiltonian Monte Carlo.

    Attributes:
        step_size: Step h, of the dimension of a standard deviation, in units of the metric.
        friction: C; about one over the time in which the dynamics crosses the posterior.
        metric: ``Diagonal`` or ``Dense``.
        noise: Variance of the gradient estimate in units of the metric, () or (d,); see ``gradient_noise``.
        temperature: Samples the density to the power of one over it.
        steps: Steps in a transition, each with a minibatch of its own.

    Raises:
        TypeError: If the target is an estimate of another kind; see ``sgmcmc.estimate``.

    Example:
        >>> from ppl.inference.core import as_stochastic
        >>> noisy = as_stochastic(lambda key, z: -0.5 * z @ z + z.sum() * jax.random.normal(key), 2, "logarithm")
        >>> kernel = SGHMC(0.1, noise=1.0, steps=5)
        >>> state, info = kernel.step(jax.random.key(1), kernel.init(jnp.zeros(2), noisy), noisy)
        >>> bool(jnp.all(state.position != 0)), int(info.n_steps)
        (True, 5)
    """

    gradient: ClassVar[bool] = True  # see ``core.Kernel``
    stochastic: ClassVar[bool] = True  # works with an estimate,
    estimate: ClassVar[str] = "logarithm"  # of the log density

    step_size: Array = 1e-2
    friction: Array = 1.0
    metric: Any = Diagonal()
    noise: Array = 0.0
    temperature: Array = 1.0
    steps: int = 10

    def adapters(self) -> tuple[Any, ...]:
        """None: nothing is learned in warm-up."""
        return ()

    def init(self, position: Array, density: Any) -> Estimated:
        """Make the state at a position, at rest."""
        return sgmcmc.first(position, density, jnp.zeros_like(position))

    def step(self, key: Array, state: Estimated, density: Any) -> tuple[Estimated, NoisyInfo]:
        """Take ``steps`` steps."""
        zero = jnp.zeros((), jnp.int32)

        def body(i: Array, loop: Any) -> Any:
            state, failed = loop
            state, finite = self._one(jax.random.fold_in(key, i), state, density)
            return state, failed + (~finite).astype(jnp.int32)

        state, failed = jax.lax.fori_loop(0, self.steps, body, (state, zero))
        dtype = state.position.dtype
        rate = 1.0 - failed.astype(dtype) / self.steps
        return state, NoisyInfo(rate, jnp.asarray(self.steps, jnp.int32), failed > 0)

    def _one(self, key: Array, state: Estimated, density: Any) -> tuple[Estimated, Array]:
        h, q = self.step_size, state.memory
        z = state.position + h * self.metric.velocity(q)
        moved = sgmcmc.estimate(jax.random.fold_in(key, 1), z, density, q)
        size = sgmcmc.injected(2.0 * self.friction * self.temperature * h, h**2 * self.noise)
        push = h * self.metric.force(moved.gradient) - h * self.friction * q + size * draw_momentum(key, self.metric, z)
        # A move that is not made stops the momentum too, or the next would lead to the same place.
        rest = Estimated(state.position, state.log_density, state.gradient, jnp.zeros_like(q))
        return sgmcmc.guarded(Estimated(z, moved.log_density, moved.gradient, q + push), rest)


jax.tree_util.register_dataclass(SGHMC, ["step_size", "friction", "metric", "noise", "temperature"], ["steps"])
