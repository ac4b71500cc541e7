r"""Tuning of unadjusted microcanonical dynamics: the step size by the energy error, L by the autocorrelation.

The error W of a leapfrog step has ``E[W^2] ~ h^6``. With ``xi = W^2 / (d tolerance)`` of every step, the step size is
``h = mean(xi / h^6)^(-1/6)``, the mean being weighted by ``exp(-(log xi / (6 sigma))^2 / 2)``, so that steps taken with
a size far off count little, and forgetting old ones.

The direction should be forgotten as fast as the position: ``L = 0.4 h tau`` with tau the integrated autocorrelation
time of the draws, in steps, here from the variance of the means of batches of 10 sqrt(d) / h steps each:
``tau = batch Var(means) / Var(draws)``, averaged harmonically over the coordinates. It comes before the adapter of
the metric, whose units the length is to have.

References: Robnik, De Luca, Silverstein and Seljak, "Microcanonical Hamiltonian Monte Carlo" (2023), section 4 and
appendix; Geyer, "Practical Markov chain Monte Carlo" (1992), for batch means.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax

from .metric import Moments, accumulate
from .step_size import namespace

Array = Any

_SIGMA = 1.5
_MEMORY = 150.0
_LARGEST = 1e30


@dataclass(frozen=True)
class ErrorMemory:
    """Weighted sums of xi / h^6 and of the weights, and a bound on the step that divergences have set."""

    total: Array
    weight: Array
    bound: Array


jax.tree_util.register_dataclass(ErrorMemory, ["total", "weight", "bound"], [])


@dataclass(frozen=True)
class EnergyError:
    """Adapts a kernel's ``step_size`` to its ``tolerance`` of the squared energy error per dimension.

    Example:
        >>> import numpy as np
        >>> from ppl.inference.mcmc import MCLMC
        >>> adapter, kernel = EnergyError(), MCLMC(step_size=np.array(0.1), tolerance=5e-4)
        >>> memory = adapter.init(kernel, None)
        >>> memory, kernel = adapter.learn(memory, kernel, np.array(0.2), 4)  # the error that a step of 0.1 made
        >>> bool(kernel.step_size < 0.1)
        True
    """

    pooled = False
    windowed = False

    def init(self, kernel: Any, state: Any) -> ErrorMemory:
        """Start with no errors seen."""
        xp = namespace(kernel.step_size)
        zero = xp.zeros_like(kernel.step_size)
        return ErrorMemory(zero, zero, zero + _LARGEST)

    def update(self, memory: ErrorMemory, kernel: Any, state: Any, info: Any) -> tuple[ErrorMemory, Any]:
        """Learn from one step's ``info.energy_error``."""
        return self.learn(memory, kernel, info.energy_error, state.position.shape[-1])

    def learn(self, memory: ErrorMemory, kernel: Any, error: Array, dim: int) -> tuple[ErrorMemory, Any]:
        """Learn from one energy error in ``dim`` dimensions; one that is not finite bounds the step."""
        xp = namespace(error, memory.total)
        step = kernel.step_size
        good = xp.isfinite(error)
        xi = xp.where(good, error, 1.0) ** 2 / (dim * kernel.tolerance) + 1e-8
        weight = xp.where(good, xp.exp(-0.5 * (xp.log(xi) / (6.0 * _SIGMA)) ** 2), 0.0)
        forget = (_MEMORY - 1.0) / (_MEMORY + 1.0)
        total = forget * memory.total + weight * xi / step**6
        weights = forget * memory.weight + weight
        bound = xp.where(good, memory.bound, 0.8 * step)
        wanted = xp.where(weights > 0, (total / xp.maximum(weights, 1e-30)) ** (-1.0 / 6.0), step)
        # At most a doubling at once: a first error may be small by chance.
        new = xp.minimum(xp.minimum(wanted, 2.0 * step), bound)
        return ErrorMemory(total, weights, bound), replace(kernel, step_size=new.astype(step.dtype))

    def final(self, memory: ErrorMemory, kernel: Any) -> Any:
        """Keep the step."""
        return kernel


jax.tree_util.register_dataclass(EnergyError, [], [])


@dataclass(frozen=True)
class BatchMemory:
    """Moments of the draws and of batch means, the batch's length, and the unfinished batch."""

    draws: Moments
    means: Moments
    size: Array
    total: Array
    filled: Array


jax.tree_util.register_dataclass(BatchMemory, list(BatchMemory.__dataclass_fields__), [])


@dataclass(frozen=True)
class Memorylessness:
    """Adapts a kernel's ``length`` to the autocorrelation time of its draws, before ``Variance`` changes the metric.

    Example:
        >>> Memorylessness().windowed
        True
    """

    pooled = False
    windowed = True

    def init(self, kernel: Any, state: Any) -> BatchMemory:
        """Start with no positions seen."""
        xp = namespace(state.position)
        zero = xp.zeros_like(state.position)
        none = Moments(xp.zeros((), zero.dtype), zero, zero)
        size = xp.ceil(10.0 * zero.shape[-1] ** 0.5 / kernel.step_size).astype(zero.dtype)
        return BatchMemory(none, none, size, zero, xp.zeros((), zero.dtype))

    def update(self, memory: BatchMemory, kernel: Any, state: Any, info: Any) -> tuple[BatchMemory, Any]:
        """Learn from one position."""
        xp = namespace(state.position)
        total, filled = memory.total + state.position, memory.filled + 1.0
        full = filled >= memory.size
        means = accumulate(memory.means, total / filled)
        means = jax.tree.map(lambda a, b: xp.where(full, a, b), means, memory.means)
        total, filled = xp.where(full, 0.0, total), xp.where(full, 0.0, filled)
        return BatchMemory(accumulate(memory.draws, state.position), means, memory.size, total, filled), kernel

    def final(self, memory: BatchMemory, kernel: Any) -> Any:
        """Set the length; with fewer than five batches, leave it."""
        xp = namespace(memory.total)
        draws, means = memory.draws, memory.means
        spread = draws.squares / xp.maximum(draws.count - 1.0, 1.0)
        between = means.squares / xp.maximum(means.count - 1.0, 1.0)
        # Draws per autocorrelation time, 1 / tau, averaged over the coordinates.
        rate = xp.mean(spread / xp.maximum(memory.size * between, 1e-30))
        length = xp.maximum(0.4 / xp.maximum(rate, 1e-6), 2.0) * kernel.step_size
        # In units of the metric that this window's draws will give, by which their variance is one.
        own = kernel.metric.factor if kernel.metric.full else kernel.metric.scale
        own = xp.sum(own**2, axis=1) if kernel.metric.full else own**2
        length = length / xp.sqrt(xp.maximum(xp.mean(spread / own), 1e-30))
        dim = memory.total.shape[-1]
        length = xp.minimum(length, 10.0 * dim**0.5)
        new = xp.where(means.count >= 5, length, kernel.length)
        return replace(kernel, length=xp.asarray(new).astype(xp.asarray(kernel.length).dtype))


jax.tree_util.register_dataclass(Memorylessness, [], [])
