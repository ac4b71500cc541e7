r"""Pareto smoothed importance sampling.

The M largest of S importance ratios r_s follow nearly a generalised Pareto law above the next largest one, u:

    P(r - u > x) = (1 + k x / sigma)^(-1/k),

whose shape k tells how many moments the ratios have. They are replaced by the expected order statistics of the
fitted law; k above ``threshold(S)`` says that no number of draws of this size makes the estimate trustworthy.

References: Zhang and Stephens (2009), A new and efficient estimation method for the generalized Pareto
distribution; Vehtari, Simpson, Gelman, Yao and Gabry (2024), Pareto smoothed importance sampling, JMLR 25(72).
"""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray

EQUAL = 1e-12
"""Spread of log ratios up to which they are equal: there is no tail, and nothing to distrust."""

FEWEST = 5
"""Draws in the tail with which the law can be fitted."""


def threshold(draws: int) -> float:
    """Shape k above which an importance sampling estimate from so many draws cannot be trusted.

    Example:
        >>> round(threshold(100), 3), threshold(10_000)
        (0.5, 0.7)
    """
    return min(1.0 - 1.0 / math.log10(max(draws, 2)), 0.7)


def log_sum(x: Array, axis: int = 0) -> Array:
    """Log of the sum of exponentials along an axis.

    Example:
        >>> float(np.exp(log_sum(np.log([1.0, 2.0, 3.0]))).round(12))
        6.0
    """
    top = np.max(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.sum(np.exp(x - top), axis=axis)) + np.squeeze(top, axis)


def smooth(log_ratios: Array, efficiency: float = 1.0) -> tuple[Array, Array]:
    """Smooth importance ratios and normalise them.

    Args:
        log_ratios: Shape (draws, ...); each column is treated by itself.
        efficiency: Effective sample size of the draws by their number; a chain that mixes slowly has a longer tail.

    Returns:
        Log weights that sum to one over the draws, and the shapes k: infinite where the tail is too short to fit, 0
        where all ratios are equal.

    Raises:
        ValueError: If a ratio is NaN or infinite upwards, or a column has no positive one.

    Example:
        >>> weights, k = smooth(np.random.default_rng(0).exponential(size=1000) * 0.5)
        >>> bool(0.2 < k < 0.8), float(np.exp(weights).sum().round(12))
        (True, 1.0)
    """
    log_ratios = np.asarray(log_ratios, np.float64)
    draws = log_ratios.shape[0]
    flat = log_ratios.reshape(draws, -1)
    top = flat.max(axis=0)
    if not np.isfinite(top).all():
        bad = int(np.argmin(np.isfinite(top)))
        raise ValueError(f"importance ratios of column {bad} have the largest logarithm {top[bad]}: nothing to weight")
    tail = math.ceil(min(draws / 5, 3 * math.sqrt(draws / efficiency)))
    weights, shapes = np.empty_like(flat), np.empty(flat.shape[1])
    for j in range(flat.shape[1]):
        weights[:, j], shapes[j] = _smooth(flat[:, j] - top[j], tail)
    weights -= log_sum(weights)
    return weights.reshape(log_ratios.shape), shapes.reshape(log_ratios.shape[1:])


def _smooth(x: Array, tail: int) -> tuple[Array, float]:
    """One column with largest value 0; the shape first fitted to ``tail`` values above the next."""
    if -x.min() < EQUAL:
        return x, 0.0
    if tail + 1 > len(x):
        return x, math.inf
    order = np.argsort(x, kind="stable")
    cut = max(float(x[order[-tail - 1]]), math.log(np.finfo(np.float64).tiny))
    largest = order[-tail:]
    largest = largest[x[largest] > cut]  # ties with the cut are not above it
    if len(largest) < FEWEST:
        return x, math.inf
    base = math.exp(cut)
    k, sigma = fit_pareto(np.exp(x[largest]) - base)
    if not (math.isfinite(k) and sigma > 0):
        return x, k
    p = (np.arange(len(largest)) + 0.5) / len(largest)
    x = x.copy()
    x[largest] = np.minimum(np.log(base + pareto_quantile(p, k, sigma)), 0.0)
    return x, k


def fit_pareto(x: Array) -> tuple[float, float]:
    """Shape and scale of a generalised Pareto law from sorted positive numbers.

    The posterior mean of b = k / -sigma under an empirical prior, on a grid of its profile likelihood; the shape is
    then shrunk towards 1/2 as by ten further observations.

    Example:
        >>> x = np.sort(pareto_quantile((np.arange(2000) + 0.5) / 2000, 0.3, 2.0))
        >>> k, sigma = fit_pareto(x)
        >>> bool(abs(k - 0.3) < 0.03 and abs(sigma - 2.0) < 0.1)
        True
    """
    n = len(x)
    grid = 30 + int(math.sqrt(n))
    quartile = x[int(n / 4 + 0.5) - 1]
    with np.errstate(all="ignore"):
        b = (1.0 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))) / (3.0 * quartile) + 1.0 / x[-1]
        k = np.log1p(-b[:, None] * x).mean(axis=1)
        profile = n * (np.log(-b / k) - k - 1.0)
        weight = np.exp(profile - log_sum(profile))
        kept = weight >= 10.0 * np.finfo(np.float64).eps
        mean = float((b[kept] * weight[kept]).sum() / weight[kept].sum())
        shape = float(np.log1p(-mean * x).mean())
        return (n * shape + 5.0) / (n + 10.0), -shape / mean


def pareto_quantile(p: Array, k: float, sigma: float) -> Array:
    """Quantiles of the generalised Pareto law.

    Example:
        >>> float(pareto_quantile(np.array([0.5]), 1.0, 2.0)[0])
        2.0
    """
    rate = -np.log1p(-p)
    return sigma * (rate if abs(k) < np.finfo(np.float64).eps else np.expm1(k * rate) / k)
