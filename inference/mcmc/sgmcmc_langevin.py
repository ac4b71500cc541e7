r"""Stochastic-gradient Langevin dynamics, plain and preconditioned.

With an estimate g of the gradient, a metric ``W W^T`` and ``n ~ N(0, I)``,

    z' = z + (h / 2) W W^T g + sqrt(h) W n.

For a Gaussian of precision a and a gradient noise of variance v (both in units of the metric) the stationary variance
is ``(1 + h v / 4) / (a (1 - h a / 4))``: the bias is of order h, its noise part ``h v / 4``. Where v is known
(``gradient_noise``), as much less noise is added and that part goes away, as long as ``h v < 4``.

``PSGLD`` divides by a running root mean square of the gradient, ``G = 1 / (floor + sqrt(V))`` with
``V <- decay V + (1 - decay) g^2`` elementwise, in place of a metric. The divergence of G, ``Gamma`` in the paper, which
a G that follows z would need, is left out, as in the authors' own experiments; instead G is learned in warm-up
only and then held, where Gamma is zero and leaving it out costs nothing.

References: Welling and Teh, "Bayesian learning via stochastic gradient Langevin dynamics" (2011); Li, Chen, Carlson and
Carin, "Preconditioned stochastic gradient Langevin dynamics for deep neural networks" (2016); Vollmer, Zygalakis and
Teh, "Exploration of the (non-)asymptotic bias and variance of SGLD" (2016).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from . import sgmcmc
from .euclidean import Diagonal, draw_momentum
from .sgmcmc import Estimated, NoisyInfo

Array = Any


@dataclass(frozen=True)
class SGLD:
    """Stochastic-gradient Langevin dynamics.

    The step is not adapted: there is no acceptance rate to aim at. In units of a metric with the posterior's
    variances (those of ``laplace``, say) 0.1 gives a bias of some percent of a variance plus that of the gradient's
    noise; with the unit metric take a tenth of the smallest posterior variance.

    Attributes:
        step_size: Step h, of the dimension of a variance, in units of the metric.
        metric: ``Diagonal`` or ``Dense``.
        noise: Variance of the gradient estimate in units of the metric, () or (d,), which is taken off what is added.
        temperature: Samples the density to the power of one over it; 0 is stochastic gradient ascent.

    Raises:
        TypeError: If the target is an estimate of another kind; see ``sgmcmc.estimate``.

    Example:
        >>> from ppl.inference.core import as_stochastic
        >>> noisy = as_stochastic(lambda key, z: -0.5 * z @ z + z.sum() * jax.random.normal(key), 2, "logarithm")
        >>> kernel = SGLD(0.1)
        >>> state, info = kernel.step(jax.random.key(1), kernel.init(jnp.zeros(2), noisy), noisy)
        >>> bool(jnp.all(state.position != 0)), int(info.n_steps), bool(info.diverging)
        (True, 1, False)
    """

    gradient: ClassVar[bool] = True  # see ``core.Kernel``
    stochastic: ClassVar[bool] = True  # works with an estimate,
    estimate: ClassVar[str] = "logarithm"  # of the log density

    step_size: Array = 1e-3
    metric: Any = Diagonal()
    noise: Array = 0.0
    temperature: Array = 1.0

    def adapters(self) -> tuple[Any, ...]:
        """None: nothing is learned in warm-up."""
        return ()

    def init(self, position: Array, density: Any) -> Estimated:
        """Make the state at a position."""
        return sgmcmc.first(position, density)

    def step(self, key: Array, state: Estimated, density: Any) -> tuple[Estimated, NoisyInfo]:
        """Move along the estimated gradient, with noise."""
        h, z = self.step_size, state.position
        size = sgmcmc.injected(h * self.temperature, 0.25 * h**2 * self.noise)
        moved = 0.5 * h * self.metric.force(state.gradient) + size * draw_momentum(key, self.metric, z)
        fresh = jax.random.fold_in(key, 1)
        new, finite = sgmcmc.guarded(sgmcmc.estimate(fresh, z + self.metric.velocity(moved), density), state)
        return new, sgmcmc.report(finite, z.dtype)


@dataclass(frozen=True)
class Squares:
    """Running mean of squared gradients (d,), and the number of transitions."""

    mean: Array
    count: Array


@dataclass(frozen=True)
class PSGLD:
    """Stochastic-gradient Langevin dynamics with a diagonal preconditioner of the RMSprop kind.

    Attributes:
        step_size: Step h, of the dimension of a length: ``h G`` takes the place of SGLD's step.
        decay: Weight of the past in the running mean of squared gradients.
        floor: Least root mean square of the gradient, of the whole log density (the paper's is of a mean over data).
        learn: Transitions after which the preconditioner is held; None for never, which has a bias of its own. The
            default is the warm-up of ``Chains``.
        temperature: See ``SGLD``.

    Raises:
        TypeError: If the target is an estimate of another kind; see ``sgmcmc.estimate``.

    Example:
        >>> density, kernel = lambda z: -0.5 * jnp.sum((z / jnp.array([1.0, 100.0])) ** 2), PSGLD(0.1)
        >>> state = kernel.init(jnp.array([1.0, 100.0]), density)
        >>> (1.0 / kernel.preconditioner(state.memory.mean)).round(2).tolist()
        [1.0, 0.01]
    """

    gradient: ClassVar[bool] = True  # see ``core.Kernel``
    stochastic: ClassVar[bool] = True  # works with an estimate,
    estimate: ClassVar[str] = "logarithm"  # of the log density

    step_size: Array = 1e-3
    decay: Array = 0.99
    floor: Array = 1e-5
    temperature: Array = 1.0
    learn: int | None = 1000

    def adapters(self) -> tuple[Any, ...]:
        """None: the preconditioner is learned in the state."""
        return ()

    def init(self, position: Array, density: Any) -> Estimated:
        """Make the state at a position."""
        state = sgmcmc.first(position, density)
        return replace(state, memory=Squares(state.gradient**2, jnp.zeros((), jnp.int32)))

    def preconditioner(self, squares: Array) -> Array:
        """Diagonal of G, shape (d,)."""
        return 1.0 / (self.floor + jnp.sqrt(squares))

    def step(self, key: Array, state: Estimated, density: Any) -> tuple[Estimated, NoisyInfo]:
        """Move along the preconditioned gradient, with noise."""
        z, memory = state.position, state.memory
        mean = self.decay * memory.mean + (1.0 - self.decay) * state.gradient**2
        if self.learn is not None:
            mean = jnp.where(memory.count < self.learn, mean, memory.mean)
        h = self.step_size * self.preconditioner(mean)
        moved = z + 0.5 * h * state.gradient + jnp.sqrt(h * self.temperature) * draw_momentum(key, None, z)
        memory = Squares(mean, memory.count + 1)
        new, finite = sgmcmc.guarded(sgmcmc.estimate(jax.random.fold_in(key, 1), moved, density, memory), state)
        return new, sgmcmc.report(finite, z.dtype)


jax.tree_util.register_dataclass(SGLD, ["step_size", "metric", "noise", "temperature"], [])
jax.tree_util.register_dataclass(Squares, ["mean", "count"], [])
jax.tree_util.register_dataclass(PSGLD, ["step_size", "decay", "floor", "temperature"], ["learn"])
