r"""Are ranks uniform? Exact simultaneous bands for their empirical distribution, and Pearson's test.

Let R_1, ..., R_N be independent and uniform on {0, ..., L}, and C_m the number of ranks below m. Then
C_m ~ Binomial(N, m / (L + 1)), and

    T = min over m of 2 min(P(Binomial <= C_m), P(Binomial >= C_m))

is small when the empirical distribution strays anywhere. C_1, C_2, ... is a Markov chain: independent Poisson
increments conditioned on their sum. So P(all C_m within given limits) is a product of narrow convolutions, and
the law of T, p-values and bands are exact, discreteness included, without simulation.

References: Säilynoja, Bürkner and Vehtari (2022), Graphical test for discrete uniformity and its applications in
goodness-of-fit evaluation and multiple sample comparison; Steck (1971), Rectangle probabilities for uniform
order statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

MOST_POINTS = 128
"""Rank values at which the empirical distribution is compared, at most."""


@dataclass(frozen=True)
class Band:
    """Limits that the counts C_m of uniform ranks keep, all at once, with at least a given probability.

    Attributes:
        points: The rank values m, increasing.
        lower: Least admissible count at each point.
        upper: Greatest admissible count.
        coverage: Exact probability that all counts are within.
    """

    points: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    coverage: float


def points(draws: int) -> np.ndarray:
    """Rank values m in 1, ..., draws at which ranks are compared: all, or evenly spread ones.

    Example:
        >>> points(3).tolist()
        [1, 2, 3]
    """
    return np.unique(np.linspace(1, draws, min(draws, MOST_POINTS)).round().astype(int))


def counts(ranks: np.ndarray, draws: int) -> np.ndarray:
    """Number of ranks below each point, shape (points, ...) for ranks of shape (N, ...)."""
    flat = ranks.reshape(len(ranks), -1)
    below = np.stack([np.searchsorted(np.sort(column), points(draws)) for column in flat.T], axis=1)
    return below.reshape(len(below), *ranks.shape[1:])


@lru_cache(maxsize=16)
def _tails(replications: int, draws: int) -> np.ndarray:
    """Two-sided binomial tail probabilities, shape (points, N + 1); rises and falls along each row."""
    from scipy.special import bdtr, bdtrc

    share = (points(draws) / (draws + 1))[:, None]
    count = np.arange(replications + 1)
    above = np.ones((len(share), replications + 1))
    above[:, 1:] = bdtrc(count[:-1], replications, share)
    return 2.0 * np.minimum(bdtr(count, replications, share), above)


def within(lower: np.ndarray, upper: np.ndarray, replications: int, draws: int) -> float:
    """Probability that uniform ranks have all counts in ``[lower, upper]``.

    Example:
        >>> round(within(np.array([0]), np.array([1]), replications=2, draws=1), 12)
        0.75
    """
    share = np.concatenate([[0.0], points(draws) / (draws + 1), [1.0]])
    rates = replications * np.diff(share)
    lower = np.concatenate([[0], lower, [replications]])
    upper = np.concatenate([[0], upper, [replications]])
    if (lower > upper).any():
        return 0.0
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, replications + 1)))])
    mass = np.ones(1)
    for i, rate in enumerate(rates):
        # Increments from the lowest old count to the highest new one; negative ones are impossible.
        reach = upper[i + 1] - lower[i]
        if reach < 0:
            return 0.0
        jump = np.arange(reach + 1)
        spread = np.convolve(mass, np.exp(jump * np.log(rate) - rate - log_factorial[jump]))
        first, last = lower[i + 1] - lower[i], upper[i + 1] - lower[i]
        kept = np.zeros(last - first + 1)
        source = spread[max(first, 0) : last + 1]
        kept[max(-first, 0) : max(-first, 0) + len(source)] = source
        mass = kept
    total = np.exp(replications * np.log(replications) - replications - log_factorial[replications])
    return float(min(mass[0] / total, 1.0))


def _limits(level: float, replications: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest counts whose tail probability exceeds ``level``; crossed where there are none."""
    good = _tails(replications, draws) > level * (1.0 + 1e-9)
    lower = np.argmax(good, axis=1)
    upper = replications - np.argmax(good[:, ::-1], axis=1)
    none = ~good.any(axis=1)
    return np.where(none, 1, lower), np.where(none, 0, upper)


@lru_cache(maxsize=64)
def band(replications: int, draws: int, probability: float = 0.95) -> Band:
    """The narrowest band of equal pointwise levels with at least the given simultaneous probability.

    Args:
        replications: Number of ranks N.
        draws: Greatest rank L.
        probability: Nominal coverage.

    Example:
        >>> limits = band(100, 9, 0.95)
        >>> 0.95 <= limits.coverage < 0.96
        True
    """
    # The coverage is a step function of the level, with steps at the tail probabilities.
    levels = np.unique(_tails(replications, draws))
    low, high = -1, len(levels) - 1  # below the first level nothing is excluded
    while high - low > 1:
        middle = (low + high) // 2
        if within(*_limits(levels[middle], replications, draws), replications, draws) >= probability:
            low = middle
        else:
            high = middle
    lower, upper = _limits(levels[low] if low >= 0 else 0.0, replications, draws)
    return Band(points(draws), lower, upper, within(lower, upper, replications, draws))


def ecdf_pvalues(ranks: np.ndarray, draws: int) -> np.ndarray:
    """Exact p-value of T for each column of ranks: the probability that uniform ranks stray as far.

    Args:
        ranks: Integers in 0, ..., draws, shape (N, ...).
        draws: Greatest rank L.

    Returns:
        Shape (...).

    Example:
        >>> even, low = np.arange(100) % 10, np.arange(100) % 8
        >>> [bool(p > 0.01) for p in ecdf_pvalues(np.stack([even, low], axis=1), 9)]
        [True, False]
    """
    ranks = checked(ranks, draws)
    size = len(ranks)
    table, below = _tails(size, draws), counts(ranks.reshape(size, -1), draws)
    least = np.take_along_axis(table, below, axis=1).min(axis=0)
    pvalues = [1.0 - within(*_limits(level, size, draws), size, draws) for level in least]
    return np.clip(pvalues, 0.0, 1.0).reshape(ranks.shape[1:])


def histogram(ranks: np.ndarray, draws: int, bins: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Histogram of ranks in bins of nearly equally many rank values.

    Args:
        ranks: Shape (N, ...).
        draws: Greatest rank L.
        bins: Number of bins; by default at most 20 with ten expected ranks or more in each.

    Returns:
        Edges (bins + 1,), counts (bins, ...) and the bins' probabilities (bins,).

    Example:
        >>> edges, number, share = histogram(np.arange(100), 99, bins=4)
        >>> number.tolist(), share.tolist()
        ([25, 25, 25, 25], [0.25, 0.25, 0.25, 0.25])
    """
    ranks = checked(ranks, draws)
    bins = bins or max(2, min(20, len(ranks) // 10))
    edges = np.unique(np.linspace(0, draws + 1, min(bins, draws + 1) + 1).round().astype(int))
    flat = ranks.reshape(len(ranks), -1)
    number = np.stack([np.histogram(column, edges - 0.5)[0] for column in flat.T], axis=1)
    return edges, number.reshape(-1, *ranks.shape[1:]), np.diff(edges) / (draws + 1)


def chi2_pvalues(ranks: np.ndarray, draws: int, bins: int | None = None) -> np.ndarray:
    """P-value of Pearson's statistic of the rank histogram, by its asymptotic law; see ``histogram``.

    Example:
        >>> float(chi2_pvalues(np.arange(100), 99))
        1.0
    """
    from scipy.special import chdtrc

    _, number, share = histogram(ranks, draws, bins)
    expected = (len(ranks) * share).reshape(-1, *([1] * (number.ndim - 1)))
    return chdtrc(len(share) - 1, ((number - expected) ** 2 / expected).sum(axis=0))


def checked(ranks: np.ndarray, draws: int) -> np.ndarray:
    """Ranks as integers in 0, ..., draws.

    Raises:
        ValueError: If there are none, or they are out of range or not whole.
    """
    ranks = np.asarray(ranks)
    if ranks.ndim < 1 or ranks.size == 0 or draws < 1:
        raise ValueError(f"no ranks to test: shape {ranks.shape}, {draws} draws")
    whole = ranks.astype(np.int64)
    if (whole != ranks).any() or whole.min() < 0 or whole.max() > draws:
        raise ValueError(f"ranks among {draws} draws are whole numbers from 0 to {draws}")
    return whole
