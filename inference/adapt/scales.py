r"""Find coordinates that act as the log scale of others, the sign of a funnel, from draws and their gradients.

Under theta_j | tau ~ N(mu, e^tau) the gradient in theta_j has size e^-tau: where the data say little, log |g_j|
falls with tau. So with l_j = log |g_j|, small values cut off, a coordinate k whose correlation with l_j is below
-0.35, or below what chance could do, for three or more j is reported. No metric helps there, since the right one
depends on the position; writing theta_j as location plus scale times a standard variable does.

Reference: Betancourt and Girolami (2015), Hamiltonian Monte Carlo for hierarchical models.
"""

from __future__ import annotations

import numpy as np

LEAST = 0.35
MEMBERS = 3


def log_scales(draws: np.ndarray, gradients: np.ndarray) -> dict[int, list[int]]:
    """Coordinates that act as log scales, with those whose scale they are.

    Args:
        draws: Pooled draws, shape (rows, d).
        gradients: Gradients of the log density there, shape (rows, d).

    Returns:
        For each log scale k the coordinates j, when there are at least three.

    Example:
        >>> z = np.random.default_rng(0).normal(size=(500, 5))
        >>> z[:, 1:] *= np.exp(z[:, :1])
        >>> g = np.concatenate([np.sum(z[:, 1:] ** 2 * np.exp(-2 * z[:, :1]), 1, keepdims=True) - 4 - z[:, :1],
        ...     -z[:, 1:] * np.exp(-2 * z[:, :1])], axis=1)
        >>> log_scales(z, g)
        {0: [1, 2, 3, 4]}
    """
    with np.errstate(divide="ignore"):
        size = np.log(np.abs(gradients))
    size = np.maximum(size, np.median(size, axis=0) - 3.0)
    correlation = _standard(draws).T @ _standard(size) / len(draws)
    np.fill_diagonal(correlation, 0.0)
    bound = -max(LEAST, 5.0 / np.sqrt(len(draws)))  # draws are correlated: more than four standard errors
    found = {int(k): [int(j) for j in np.flatnonzero(row < bound)] for k, row in enumerate(correlation)}
    return {k: members for k, members in found.items() if len(members) >= MEMBERS}


def _standard(x: np.ndarray) -> np.ndarray:
    x = np.where(np.isfinite(x), x, 0.0)
    x = x - x.mean(axis=0)
    return x / np.maximum(x.std(axis=0), np.finfo(float).tiny)
