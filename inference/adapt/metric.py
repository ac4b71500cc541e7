r"""Metric adaptation: the variance of the draws in windows of doubling length.

Welford's recursion over positions x_1, x_2, ...: ``m += (x - m) / n``, ``S += (x - m_old)(x - m_new)^T``. With n
draws the estimate ``S / (n - 1)`` is shrunk as ``n / (n + 5) var + 5 / (n + 5) * 1e-3``. Warm-up has an initial
part without metric adaptation (75), windows of 25, 50, 100, ... draws each of which replaces the
metric, and a final part (50) for the step size alone; the last window takes what remains.

References: Welford, "Note on a method for calculating corrected sums of squares" (1962); Chan, Golub and
LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979); Stan Development
Team, Stan Reference Manual, "HMC algorithm parameters".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax

from .step_size import namespace

Array = Any


@dataclass(frozen=True)
class Moments:
    """Count, mean (d,) and sum of squares (d,) or (d, d) of what was seen."""

    count: Array
    mean: Array
    squares: Array


jax.tree_util.register_dataclass(Moments, ["count", "mean", "squares"], [])


def accumulate(memory: Moments, position: Array) -> Moments:
    """Add one position.

    Example:
        >>> import numpy as np
        >>> memory = Moments(np.array(0.0), np.zeros(1), np.zeros(1))
        >>> for x in (1.0, 2.0, 6.0):
        ...     memory = accumulate(memory, np.array([x]))
        >>> float(memory.squares[0] / 2), float(np.var([1, 2, 6], ddof=1))
        (7.0, 7.0)
    """
    count = memory.count + 1.0
    before = position - memory.mean
    mean = memory.mean + before / count
    after = position - mean
    dense = memory.squares.ndim == 2
    product = after[:, None] * before[None, :] if dense else after * before
    return Moments(count, mean, memory.squares + product)


def merge(memories: Sequence[Moments]) -> Moments:
    """Combine the moments of several chains, about their common mean.

    Example:
        >>> import numpy as np
        >>> a = Moments(np.array(2.0), np.array([1.0]), np.array([2.0]))
        >>> b = Moments(np.array(1.0), np.array([4.0]), np.array([0.0]))
        >>> float(merge([a, b]).squares[0])
        8.0
    """
    total = memories[0]
    for other in memories[1:]:
        count = total.count + other.count
        gap = other.mean - total.mean
        dense = total.squares.ndim == 2
        between = gap[:, None] * gap[None, :] if dense else gap * gap
        total = Moments(
            count,
            total.mean + gap * other.count / count,
            total.squares + other.squares + between * total.count * other.count / count,
        )
    return total


@dataclass(frozen=True)
class Variance:
    """Learns a kernel's ``metric``, diagonal or full as the kernel has it, from the variance of its positions.

    Attributes:
        pooled: Whether all chains share one metric; then a chain's draws depend on the others.

    Example:
        >>> import numpy as np
        >>> from ppl.inference.mcmc import NUTS
        >>> adapter, kernel = Variance(), NUTS().expand(1)
        >>> memory = Moments(np.array(1001.0), np.zeros(1), np.array([4000.0]))
        >>> round(float(adapter.final(memory, kernel).metric.scale[0]), 3)
        1.995
    """

    pooled: bool = False

    windowed = True

    def init(self, kernel: Any, state: Any) -> Moments:
        """Start with no positions seen."""
        xp = namespace(state.position)
        zero = xp.zeros_like(state.position)
        squares = zero[:, None] * zero[None, :] if kernel.metric.full else zero
        return Moments(xp.zeros((), zero.dtype), zero, squares)

    def update(self, memory: Moments, kernel: Any, state: Any, info: Any) -> tuple[Moments, Any]:
        """Learn from one position."""
        return accumulate(memory, state.position), kernel

    def final(self, memory: Moments, kernel: Any) -> Any:
        """Give the kernel the regularised variance; with fewer than two positions, leave it."""
        xp = namespace(memory.mean)
        n = memory.count
        variance = memory.squares / xp.maximum(n - 1.0, 1.0)
        keep, floor = n / (n + 5.0), 1e-3 * 5.0 / (n + 5.0)
        unit = xp.eye(len(memory.mean), dtype=variance.dtype) if kernel.metric.full else 1.0
        learned = kernel.metric.of(keep * variance + floor * unit)
        leaves = jax.tree.map(lambda new, old: xp.where(n > 1, new, old), learned, kernel.metric)
        return replace(kernel, metric=leaves)


jax.tree_util.register_dataclass(Variance, [], ["pooled"])


@dataclass(frozen=True)
class Window:
    """A stretch of warm-up iterations [start, stop); ``slow`` says that windowed adapters learn in it."""

    start: int
    stop: int
    slow: bool


def windows(warmup: int, initial: int = 75, base: int = 25, terminal: int = 50) -> list[Window]:
    """Cut a warm-up into the windows of Stan's schedule.

    A short warm-up is cut in the proportions 15%, 75%, 10%; below 20 iterations there is no metric window.

    Args:
        warmup: Number of warm-up iterations.
        initial: Iterations before the first metric window.
        base: Length of the first metric window.
        terminal: Iterations after the last metric window.

    Example:
        >>> [w.stop for w in windows(1000)]
        [75, 100, 150, 250, 450, 950, 1000]
    """
    if warmup < 20:
        return [Window(0, warmup, False)] if warmup else []
    if initial + base + terminal > warmup:
        initial, terminal = int(0.15 * warmup), int(0.1 * warmup)
        base = warmup - initial - terminal
    cuts, length, end = [initial], base, warmup - terminal
    while cuts[-1] < end:
        stop = cuts[-1] + length
        length *= 2
        cuts.append(end if stop + length > end else stop)
    slow = [Window(a, b, True) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]
    edges = [Window(0, initial, False), *slow, Window(end, warmup, False)]
    return [w for w in edges if w.stop > w.start]
