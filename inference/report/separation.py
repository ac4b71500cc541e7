r"""Which coordinates tell divergent draws from the others?

For a coordinate, A = P(divergent > other) + P(equal) / 2 is the Mann-Whitney share; its distance from 1/2, in
standard errors sqrt((n + m + 1) / (12 n m)), says on which side of the others the divergent draws lie. The same
share of |x - median| says whether they lie further out or further in: the members of a funnel lie further in.

References: Mann and Whitney (1947); Betancourt and Girolami (2015), Hamiltonian Monte Carlo for hierarchical models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ..adapt.scales import log_scales
from ..compiling import jit_quick

OTHERS, GRADIENTS = 4000, 1000
"""Draws without divergence that are compared; draws at which gradients are taken."""

CLEAR = 4.0
"""Standard errors by which a coordinate must differ to be named (chance: one in 16,000 per coordinate)."""


@dataclass(frozen=True)
class Separation:
    """Divergent and other draws, and what tells them apart.

    Attributes:
        divergent: Divergent draws, shape (n, dim).
        others: Some of the other draws, shape (m, dim).
        shift: Mann-Whitney share of every coordinate less one half: negative where divergent draws lie lower.
        spread: The same for the distance from the median.
        error: Standard error of both.
        scales: Coordinates that act as log scales of others.
    """

    divergent: np.ndarray
    others: np.ndarray
    shift: np.ndarray
    spread: np.ndarray
    error: float
    scales: dict[int, list[int]]

    @property
    def strength(self) -> np.ndarray:
        """The greater distance from chance of every coordinate, in standard errors."""
        return np.maximum(np.abs(self.shift), np.abs(self.spread)) / self.error

    @property
    def order(self) -> np.ndarray:
        """Coordinates, those that separate best first."""
        return np.argsort(-self.strength, kind="stable")


def separate(fit: Any) -> Separation:
    """Compare the divergent draws of a fit with the others, on the unconstrained scale."""
    positions = fit.draws.positions
    flag = np.asarray(fit.draws.stats["diverging"], bool).ravel()
    flat = positions.reshape(-1, positions.shape[2])
    finite = np.isfinite(flat).all(axis=1)
    divergent, others = flat[flag & finite], flat[~flag & finite]
    divergent = divergent[even(len(divergent), OTHERS)].astype(float)
    others = others[even(len(others), OTHERS)].astype(float)
    n, m = max(len(divergent), 1), max(len(others), 1)
    middle = np.median(others, axis=0) if len(others) else np.zeros(flat.shape[1])
    shift = mann_whitney(divergent, others) - 0.5
    spread = mann_whitney(np.abs(divergent - middle), np.abs(others - middle)) - 0.5
    error = float(np.sqrt((n + m + 1) / (12.0 * n * m)))
    return Separation(divergent, others, shift, spread, error, scales_of(fit, np.concatenate([others, divergent])))


def mann_whitney(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """P(a > b) + P(a = b) / 2 for every column.

    Example:
        >>> mann_whitney(np.array([[2.0], [3.0]]), np.array([[1.0], [2.0]]))
        array([0.875])
    """
    share = np.full(a.shape[1], 0.5)
    if len(a) and len(b):
        for j in range(a.shape[1]):
            sorted_b = np.sort(b[:, j])
            below = np.searchsorted(sorted_b, a[:, j], "left") + np.searchsorted(sorted_b, a[:, j], "right")
            share[j] = below.mean() / (2.0 * len(b))
    return share


def scales_of(fit: Any, draws: np.ndarray) -> dict[int, list[int]]:
    """Coordinates that act as log scales, from gradients at some draws; none where no density is at hand."""
    if fit.density is None or len(draws) < 50:
        return {}
    some = draws[even(len(draws), GRADIENTS)].astype(fit.draws.positions.dtype)
    with fit._context():
        gradients = np.asarray(_gradients(fit.density, some), float)
    fine = np.isfinite(gradients).all(axis=1)
    return log_scales(some[fine].astype(float), gradients[fine]) if fine.sum() >= 50 else {}


@jit_quick
def _gradients(density: Any, positions: Any) -> Any:
    return jax.lax.map(jax.grad(density), positions, batch_size=64)


def even(count: int, most: int) -> np.ndarray:
    """At most so many indices, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)) if count else np.zeros(0, int)
