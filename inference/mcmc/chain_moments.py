r"""Mean and variance of every chain, kept while sampling: what nested R-hat needs of many chains.

Sums of ``x - c`` and its square are added draw by draw, with c fixed beforehand, so that they do not depend on how
many draws come at once.

Reference: Margossian et al., "Nested R-hat" (2024).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..diagnostics import nested_of_moments


@dataclass(frozen=True)
class ChainMoments:
    """Sums over the draws of every chain.

    Attributes:
        count: Draws per chain.
        centre: Shape (d,).
        sums: Shape (chains, d).
        squares: Shape (chains, d).
    """

    count: int
    centre: np.ndarray
    sums: np.ndarray
    squares: np.ndarray

    @classmethod
    def empty(cls, chains: int, dim: int) -> ChainMoments:
        """No draws yet."""
        return cls(0, np.zeros(dim), np.zeros((chains, dim)), np.zeros((chains, dim)))

    def add(self, positions: np.ndarray) -> ChainMoments:
        """Add draws, shape (chains, n, d).

        Example:
            >>> x = np.random.default_rng(0).normal(size=(8, 50, 1))
            >>> moments = ChainMoments.empty(8, 1).add(x[:, :20]).add(x[:, 20:])
            >>> bool(np.allclose(moments.variance, x.var(axis=1, ddof=1)))
            True
        """
        if positions.shape[1] == 0:
            return self
        centre = self.centre if self.count else positions[:, 0].mean(axis=0, dtype=float)
        sums, squares = self.sums.copy(), self.squares.copy()
        for t in range(positions.shape[1]):
            x = positions[:, t] - centre
            sums += x
            squares += x * x
        return replace(self, count=self.count + positions.shape[1], centre=centre, sums=sums, squares=squares)

    @property
    def mean(self) -> np.ndarray:
        """Mean of every chain, shape (chains, d)."""
        return self.centre + self.sums / max(self.count, 1)

    @property
    def variance(self) -> np.ndarray:
        """Variance of every chain, shape (chains, d)."""
        n = max(self.count, 1)
        return np.maximum(self.squares - self.sums**2 / n, 0.0) / max(n - 1, 1)

    def nested_rhat(self, superchains: int) -> np.ndarray:
        """Nested R-hat of every coordinate, shape (d,)."""
        return nested_of_moments(self.mean, self.variance, superchains)
