r"""A diagonal metric from draws and gradients together, chain by chain.

For a Gaussian with standard deviations s the gradient of the log density is ``-(z - m) / s^2``, so any two different
points, however near, tell s: ``s^2 = sqrt(Var z_j / Var g_j)``. In general this is the diagonal metric that minimises
the Fisher divergence between the target and a normal law in its coordinates. The variance of the draws alone tells a
scale only after the chain has moved across it, which kernels of short steps have not after a window of some dozens.

With n draws the logarithm is shrunk towards that of the old metric, with weights n and 5: whatever the units.

Reference: Seyboldt, Carlson and Carpenter, "Preconditioning Hamiltonian Monte Carlo by minimizing Fisher divergence"
(2026).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax

from .metric import Moments, accumulate
from .step_size import namespace

Array = Any

_SMALLEST, _LARGEST = 1e-20, 1e20


@dataclass(frozen=True)
class PairMemory:
    """Moments of positions and of gradients."""

    positions: Moments
    gradients: Moments


jax.tree_util.register_dataclass(PairMemory, ["positions", "gradients"], [])


@dataclass(frozen=True)
class GradientVariance:
    """Learns a kernel's diagonal ``metric`` from the variances of its positions and of their gradients.

    Example:
        >>> import numpy as np
        >>> from ppl.inference.mcmc import MALA
        >>> from ppl.inference.mcmc.euclidean import State
        >>> adapter, kernel = GradientVariance(), MALA().expand(1)
        >>> memory = adapter.init(kernel, State(np.zeros(1), 0.0, np.zeros(1)))
        >>> for x in np.random.default_rng(0).normal(5.0, 0.1, size=200):  # near a point, on a scale of 3
        ...     state = State(np.array([x]), 0.0, np.array([-x / 9.0]))
        ...     memory, kernel = adapter.update(memory, kernel, state, None)
        >>> bool(abs(adapter.final(memory, kernel).metric.scale[0] - 3.0) < 0.5)
        True
    """

    pooled = False
    windowed = True

    def init(self, kernel: Any, state: Any) -> PairMemory:
        """Start with nothing seen."""
        xp = namespace(state.position)
        zero = xp.zeros_like(state.position)
        none = Moments(xp.zeros((), zero.dtype), zero, zero)
        return PairMemory(none, none)

    def update(self, memory: PairMemory, kernel: Any, state: Any, info: Any) -> tuple[PairMemory, Any]:
        """Learn from one state."""
        positions = accumulate(memory.positions, state.position)
        return PairMemory(positions, accumulate(memory.gradients, state.gradient)), kernel

    def final(self, memory: PairMemory, kernel: Any) -> Any:
        """Give the kernel the metric; with fewer than ten states, leave it."""
        xp = namespace(memory.positions.mean)
        old = kernel.metric.scale**2
        above = xp.clip(memory.positions.squares, _SMALLEST, _LARGEST)
        below = xp.clip(memory.gradients.squares, _SMALLEST, _LARGEST)
        moved = (memory.positions.squares > 0) & (memory.gradients.squares > 0) & xp.isfinite(memory.gradients.squares)
        ratio = xp.where(moved, 0.5 * xp.log(above / below), xp.log(old))
        keep = memory.positions.count / (memory.positions.count + 5.0)
        learned = kernel.metric.of(xp.exp(keep * ratio + (1.0 - keep) * xp.log(old)))
        seen = memory.positions.count >= 10
        leaves = jax.tree.map(lambda new, old: xp.where(seen, new, old), learned, kernel.metric)
        return replace(kernel, metric=leaves)


jax.tree_util.register_dataclass(GradientVariance, [], [])


def metric_adapter(kernel: Any) -> Any:
    """The standard adapter of the metric of a kernel that follows gradients in short steps.

    Example:
        >>> from ppl.inference.mcmc import MALA
        >>> [type(metric_adapter(k)).__name__ for k in (MALA(), MALA(dense=True))]
        ['GradientVariance', 'Variance']
    """
    from .metric import Variance

    return Variance() if kernel.dense or getattr(kernel.metric, "full", False) else GradientVariance()
