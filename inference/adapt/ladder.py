r"""The ladder of parallel tempering: where its rungs stand, and the evidence that it yields.

Rungs b_0 = 0 < b_1 < ... < b_K = 1 temper pi_b(z) = q(z) exp(b V(z)) / Z(b), V = log pi - log q. With r_k the mean
probability that a swap of rungs k-1 and k is rejected, the communication barrier L(b_k) = r_1 + ... + r_k estimates a
function of b that does not depend on the ladder; the rungs that give every pair the same rejection are its quantiles,
and about 2 L(1) of them are best for non-reversible swaps.

The ratio of the normalising constants of two neighbours is estimated by a bridge (Bennett's acceptance ratio), for any
constant c and with D = b_k - b_{k-1}

    Z(b_k) / Z(b_{k-1}) = exp(c) E_{k-1}[s(D V - c)] / E_k[s(c - D V)],     s(x) = 1 / (1 + exp(-x)),

best at c = log Z(b_k) / Z(b_{k-1}), for which warm-up's estimate is used. Both means are of numbers in [0, 1].

References: Bennett, "Efficient estimation of free energy differences from Monte Carlo data" (1976); Syed,
Bouchard-Cote, Deligiannidis and Doucet, "Non-reversible parallel tempering: a scalable highly parallel MCMC scheme"
(2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

GROUPS = 8
"""Stretches into which each copy's draws are cut for the standard error of the evidence."""


def first_ladder(count: int) -> np.ndarray:
    """Rungs before anything is known, denser where the tempered density changes fastest: b = (k / K)^3.

    Example:
        >>> first_ladder(3).tolist()
        [0.0, 0.125, 1.0]
    """
    return np.linspace(0.0, 1.0, count) ** 3


def placed(betas: np.ndarray, rejected: np.ndarray, count: int) -> np.ndarray:
    """Rungs between which swaps are rejected equally often.

    Args:
        betas: The present rungs, shape (K + 1,).
        rejected: Mean rejection of each neighbouring pair, shape (K,).
        count: Number of rungs wanted.

    Returns:
        The rungs, from 0 to 1, shape (count,).

    Example:
        >>> placed(np.array([0.0, 0.5, 1.0]), np.array([0.6, 0.2]), 3).round(3).tolist()
        [0.0, 0.333, 1.0]
    """
    barrier = np.concatenate([[0.0], np.cumsum(np.maximum(rejected, 1e-3))])
    new = np.interp(np.linspace(0.0, barrier[-1], count), barrier, betas)
    new[0], new[-1] = 0.0, 1.0
    return new


def advised(barrier: float, most: int) -> int:
    """Number of rungs for a barrier.

    Example:
        >>> advised(3.2, 64)
        8
    """
    return int(np.clip(math.ceil(2.0 * barrier) + 1, 4, most))


def rejections(values: np.ndarray, betas: np.ndarray) -> np.ndarray:
    """Probability that a swap of neighbouring rungs is rejected, for each draw.

    Args:
        values: V at the state of every rung, shape (..., K + 1); -inf where the target has no mass.
        betas: Rungs, shape (K + 1,).

    Returns:
        Shape (..., K).
    """
    with np.errstate(invalid="ignore"):
        log_ratio = np.diff(betas) * (values[..., :-1] - values[..., 1:])
    log_ratio = np.where(np.isnan(log_ratio), -np.inf, log_ratio)
    return 1.0 - np.exp(np.minimum(log_ratio, 0.0))


def bridge_terms(values: np.ndarray, betas: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The two bounded functions of the bridge between each pair of rungs, for each draw.

    Returns:
        Shape (..., K, 2): of the lower rung, and of the upper one.
    """
    gap = np.diff(betas)
    lower = _sigmoid(_product(gap, values[..., :-1]) - centres)
    upper = _sigmoid(centres - _product(gap, values[..., 1:]))
    return np.stack([lower, upper], axis=-1)


def _product(gap: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), -np.inf, gap * values)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-x))


def centre(values: np.ndarray, betas: np.ndarray, steps: int = 50) -> np.ndarray:
    """Solve for the constants of the bridge, log Z(b_k) / Z(b_{k-1}), from some draws.

    Args:
        values: V at every rung, shape (n, K + 1).
        betas: Rungs.
        steps: Most iterations of c <- c + log of the estimated ratio over exp(c).
    """
    gap = np.diff(betas)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        start = _product(gap, values[..., :-1])
        top = start.max(axis=0)
        centres = top + np.log(np.mean(np.exp(start - top), axis=0))  # importance sampling from the lower rung
    centres = np.where(np.isfinite(centres), centres, 0.0)
    for _ in range(steps):
        change = log_ratios(bridge_terms(values, betas, centres).mean(axis=0), np.zeros_like(centres))
        change = np.where(np.isfinite(change), change, 0.0)
        centres = centres + change
        if np.abs(change).max(initial=0.0) < 1e-10:
            break
    return centres


def log_ratios(means: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Log ratios of normalising constants from the means (..., K, 2) of ``bridge_terms``."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return centres + np.log(means[..., 0]) - np.log(means[..., 1])


@dataclass(frozen=True)
class Evidence:
    """A log evidence.

    Attributes:
        value: Its estimate.
        error: Its standard error, by the jackknife over stretches of draws of every copy.
    """

    value: float
    error: float


def evidence(batches: np.ndarray, centres: np.ndarray) -> Evidence:
    """Sum the log ratios of all pairs of rungs.

    Batches are joined to ``GROUPS`` stretches of each copy, long against the time in which a copy forgets its state;
    leaving one out at a time gives the standard error.

    Args:
        batches: Means of ``bridge_terms`` over equally long batches of draws, shape (batches, copies, K, 2).
        centres: Constants of the bridges, shape (K,).

    Raises:
        ValueError: Fewer than two stretches in all.
    """
    count, copies = batches.shape[:2]
    groups = min(GROUPS, count)
    length = count // groups
    kept = batches[count - groups * length :]
    parts = kept.reshape(groups, length, *kept.shape[1:]).mean(axis=1).reshape(groups * copies, *kept.shape[2:])
    if len(parts) < 2:
        raise ValueError("an evidence needs at least two batches of draws for its standard error")
    total = float(log_ratios(batches.mean(axis=(0, 1)), centres).sum())
    left = (parts.sum(axis=0) - parts) / (len(parts) - 1)
    found = log_ratios(left, centres).sum(axis=-1)
    spread = float(np.sum((found - found.mean()) ** 2) * (len(parts) - 1) / len(parts))
    return Evidence(total, math.sqrt(spread))
