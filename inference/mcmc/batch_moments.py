r"""Split R-hat while sampling, from sums over batches instead of from all draws.

Kept per batch, chain and coordinate are the sums of x, x^2 and |x| for x = z - centre, with the centre fixed
beforehand; x^2 serves x and |x| alike. Split halves are unions of batches, so plain split R-hat of z and of
|z - centre| follows at any time. At 64 batches neighbours are merged: memory stays bounded for any number of draws.

Reference: Gelman et al. (2013), Bayesian Data Analysis, section 11.4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..diagnostics import nested_of_moments, rhat_of_moments

_MOST = 64
_PIECE = 10


@dataclass(frozen=True)
class BatchMoments:
    """Sums over batches of ``size`` draws, made of sums over pieces of ten.

    Pieces are summed and added in the order of the draws, so that sums do not depend on how many draws come at once.

    Attributes:
        centre: Shape (d,).
        size: Draws per batch.
        sums: Shape (batches, 3, C, d).
        begun: Sums over the pieces of a batch that is not full yet, shape (3, C, d).
        pieces: Number of those pieces.
        pending: Draws that do not fill a piece yet, shape (fewer than ten, C, d).
    """

    centre: np.ndarray
    size: int
    sums: np.ndarray
    begun: np.ndarray
    pieces: int
    pending: np.ndarray

    @classmethod
    def empty(cls, centre: np.ndarray, chains: int) -> BatchMoments:
        """No draws yet."""
        shape = (chains, len(centre))
        return cls(np.array(centre), _PIECE, np.zeros((0, 3, *shape)), np.zeros((3, *shape)), 0, np.zeros((0, *shape)))

    def add(self, positions: np.ndarray) -> BatchMoments:
        """Add draws, shape (n, C, d).

        Example:
            >>> z = np.random.default_rng(0).normal(size=(40, 4, 1))
            >>> bool(BatchMoments.empty(np.zeros(1), 4).add(z).rhat() < 1.2)
            True
        """
        x = np.concatenate([self.pending, positions - self.centre])
        full = len(x) // _PIECE * _PIECE
        split = x[:full].reshape(-1, _PIECE, *x.shape[1:])
        made = np.stack([split.sum(axis=1), (split**2).sum(axis=1), np.abs(split).sum(axis=1)], axis=1)
        sums, size, begun, pieces = list(self.sums), self.size, self.begun, self.pieces
        for piece in made:
            begun, pieces = begun + piece, pieces + 1
            if pieces * _PIECE < size:
                continue
            sums.append(begun)
            begun, pieces = np.zeros_like(begun), 0
            if len(sums) == _MOST:
                sums = [a + b for a, b in zip(sums[::2], sums[1::2], strict=True)]
                size *= 2
        stacked = np.stack(sums) if sums else self.sums
        return replace(self, size=size, sums=stacked, begun=begun, pieces=pieces, pending=x[full:].copy())

    def chains(self) -> tuple[np.ndarray, np.ndarray]:
        """Means and variances of the chains' draws in full batches, (C, d) each; without rows before there are any."""
        count = len(self.sums) * self.size
        if not count:
            return np.zeros((0, len(self.centre))), np.zeros((0, len(self.centre)))
        total = self.sums.sum(axis=0)
        mean = total[0] / count
        return self.centre + mean, np.maximum(total[1] / count - mean**2, 0.0)

    def rhat(self, superchains: int | None = None) -> float:
        """Greatest split R-hat of z and |z - centre| over coordinates; inf where it is not a number.

        Args:
            superchains: Nested R-hat between so many groups of chains, and their halves, instead.
        """
        worst = np.max(self.rhats(superchains))
        return float(worst) if np.isfinite(worst) else float("inf")

    def rhats(self, superchains: int | None = None) -> np.ndarray:
        """Split or nested R-hat of z and |z - centre|, shape (2, d); inf before there are two batches."""
        half = len(self.sums) // 2
        if half == 0:
            return np.full((2, len(self.centre)), np.inf)
        count = half * self.size
        halves = np.concatenate([self.sums[:half].sum(axis=0), self.sums[-half:].sum(axis=0)], axis=1)
        mean = halves[[0, 2]] / count
        variance = np.maximum(halves[1] - count * mean**2, 0.0) / (count - 1)
        with np.errstate(all="ignore"):
            pairs = zip(mean, variance, strict=True)
            if superchains is not None:  # halves of all chains follow one another, so groups stay together
                return np.array([nested_of_moments(m, v, 2 * superchains) for m, v in pairs])
            return np.array([rhat_of_moments(m, v, count) for m, v in pairs])
