r"""Split R-hat while sampling, from sums over batches instead of from all draws.

Kept per batch, chain and coordinate are the sums of x, x^2 and |x| for x = z - centre, with the centre fixed
beforehand; x^2 serves x and |x| alike. Split halves are unions of batches, so plain split R-hat of z and of
|z - centre| follows at any time. At 64 batches neighbours are merged: memory stays bounded for any number of draws.

Reference: Gelman et al. (2013), Bayesian Data Analysis, section 11.4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..diagnostics import rhat_of_moments

_MOST = 64


@dataclass(frozen=True)
class BatchMoments:
    """Sums over batches of ``size`` draws.

    Attributes:
        centre: Shape (d,).
        size: Draws per batch.
        sums: Shape (batches, 3, C, d).
        pending: Draws that do not fill a batch yet, shape (fewer than ``size``, C, d).
    """

    centre: np.ndarray
    size: int
    sums: np.ndarray
    pending: np.ndarray

    @classmethod
    def empty(cls, centre: np.ndarray, chains: int, size: int = 10) -> BatchMoments:
        """No draws yet."""
        dim = len(centre)
        return cls(np.array(centre), size, np.zeros((0, 3, chains, dim)), np.zeros((0, chains, dim)))

    def add(self, positions: np.ndarray) -> BatchMoments:
        """Add draws, shape (n, C, d).

        Example:
            >>> z = np.random.default_rng(0).normal(size=(40, 4, 1))
            >>> bool(BatchMoments.empty(np.zeros(1), 4).add(z).rhat() < 1.2)
            True
        """
        x = np.concatenate([self.pending, positions - self.centre])
        sums, size, at = list(self.sums), self.size, 0
        while len(x) - at >= size:
            batch = x[at : at + size]
            sums.append(np.stack([batch.sum(axis=0), (batch**2).sum(axis=0), np.abs(batch).sum(axis=0)]))
            at += size
            if len(sums) == _MOST:
                sums = [a + b for a, b in zip(sums[::2], sums[1::2], strict=True)]
                size *= 2
        stacked = np.stack(sums) if sums else self.sums
        return replace(self, size=size, sums=stacked, pending=x[at:].copy())

    def rhat(self) -> float:
        """Greatest split R-hat of z and |z - centre| over coordinates; inf where it is not a number."""
        worst = np.max(self.rhats())
        return float(worst) if np.isfinite(worst) else float("inf")

    def rhats(self) -> np.ndarray:
        """Split R-hat of z and |z - centre|, shape (2, d); inf before there are two batches."""
        half = len(self.sums) // 2
        if half == 0:
            return np.full((2, len(self.centre)), np.inf)
        count = half * self.size
        halves = np.concatenate([self.sums[:half].sum(axis=0), self.sums[-half:].sum(axis=0)], axis=1)
        mean = halves[[0, 2]] / count
        variance = np.maximum(halves[1] - count * mean**2, 0.0) / (count - 1)
        with np.errstate(all="ignore"):
            return np.array([rhat_of_moments(m, v, count) for m, v in zip(mean, variance, strict=True)])
