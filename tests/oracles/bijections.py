"""Bijections from flat vectors onto constrained sets, each with its log-determinant derived by hand.

Written one element at a time with plain loops, apart from any library's transforms. Every function returns
``(value, log |det|)``; the determinant of a set of lower dimension than its array is that of the map onto the
coordinates which ``free`` names.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np


def log_sigmoid(u):
    return -jnp.logaddexp(0.0, -u)


def positive(u):
    """x = e^u."""
    return jnp.exp(u), jnp.sum(u)


def interval(u, low, high):
    """x = a + (b - a) / (1 + e^-u); dx/du = (b - a) s(u) s(-u)."""
    width = high - low
    value = low + width / (1.0 + jnp.exp(-u))
    return value, jnp.sum(jnp.log(width) + log_sigmoid(u) + log_sigmoid(-u))


def unit(u):
    return interval(u, 0.0, 1.0)


def above(u, low):
    """x = a + e^u."""
    return low + jnp.exp(u), jnp.sum(u)


def below(u, high):
    """x = b - e^u."""
    return high - jnp.exp(u), jnp.sum(u)


def simplex(u):
    """Stick breaking: a share s_i = sigmoid(u_i - log(K - 1 - i)) of what is left; dx_i/du_i = left s_i (1 - s_i)."""
    k = u.shape[0]
    left, log_left, value, logdet = 1.0, 0.0, [], 0.0
    for i in range(k):
        v = u[i] - np.log(k - i)
        share = 1.0 / (1.0 + jnp.exp(-v))
        value.append(left * share)
        logdet = logdet + log_left + log_sigmoid(v) + log_sigmoid(-v)
        left, log_left = left * (1.0 - share), log_left + log_sigmoid(-v)
    return jnp.stack([*value, left]), logdet


def ordered(u):
    """x_0 = u_0, x_i = x_(i-1) + e^(u_i)."""
    value = [u[0]]
    for i in range(1, u.shape[0]):
        value.append(value[-1] + jnp.exp(u[i]))
    return jnp.stack(value), jnp.sum(u[1:])


def positive_ordered(u):
    """The exponential of an ordered vector."""
    x, logdet = ordered(u)
    return jnp.exp(x), logdet + jnp.sum(x)


def corr_cholesky(u, n):
    """Rows on the unit sphere: L_ij = t_ij prod_(k<j) sqrt(1 - t_ik^2) with t = tanh u, filled row by row.

    Row by row the map is triangular, with diagonal (1 - t_ij^2) prod_(k<j) sqrt(1 - t_ik^2).
    """
    rows, logdet, place = [], 0.0, 0
    for i in range(n):
        row, log_left = [], 0.0
        for _ in range(i):
            t = jnp.tanh(u[place])
            shrink = jnp.log(1.0 - t**2)
            row.append(t * jnp.exp(0.5 * log_left))
            logdet = logdet + shrink + 0.5 * log_left
            log_left = log_left + shrink
            place += 1
        row.append(jnp.exp(0.5 * log_left))
        rows.append(jnp.stack([*row, *[jnp.zeros(())] * (n - 1 - i)]))
    return jnp.stack(rows), logdet


def corr_matrix(u, n):
    """C = L L'; dC_ij / dL_ij = L_jj for j < i, triangular row by row, so column j counts n - 1 - j times."""
    L, logdet = corr_cholesky(u, n)
    for j in range(n):
        logdet = logdet + (n - 1 - j) * jnp.log(L[j, j])
    return L @ L.T, logdet


def lower_cholesky(u, n):
    """Strictly lower entries row by row, then the logarithms of the diagonal."""
    L, place = jnp.zeros((n, n)), 0
    for i in range(n):
        for j in range(i):
            L = L.at[i, j].set(u[place])
            place += 1
    for i in range(n):
        L = L.at[i, i].set(jnp.exp(u[place + i]))
    return L, jnp.sum(u[place:])


def positive_definite(u, n):
    """S = L L'; dS_ii / dL_ii = 2 L_ii and dS_ij / dL_ij = L_jj, so log |dS/dL| = n log 2 + sum_i (n - i) log L_ii."""
    L, logdet = lower_cholesky(u, n)
    logdet = logdet + n * np.log(2.0)
    for i in range(n):
        logdet = logdet + (n - i) * jnp.log(L[i, i])
    return L @ L.T, logdet


def zero_sum(u):
    """An isometry of R^(n-1) onto the vectors of length n that sum to zero: log-determinant 0."""
    n = u.shape[0] + 1
    total = jnp.sum(u)
    shift = total / (np.sqrt(n) + n)
    return jnp.stack([*(u - shift), -total / np.sqrt(n)]), 0.0


def l1_ball(u):
    """x_i = t_i prod_(k<i) (1 - |t_k|) with t = tanh u; triangular."""
    value, logdet, log_left = [], 0.0, 0.0
    for i in range(u.shape[0]):
        t = jnp.tanh(u[i])
        value.append(t * jnp.exp(log_left))
        logdet = logdet + jnp.log(1.0 - t**2) + log_left
        log_left = log_left + jnp.log(1.0 - jnp.abs(t))
    return jnp.stack(value), logdet


# name -> (map of a flat vector, its length, free coordinates of the image as a flat vector)
def _lower(x, k):
    return x[np.tril_indices(x.shape[0], k)]


CATALOGUE = {
    "positive": (positive, 2, lambda x: x),
    "interval": (lambda u: interval(u, np.array([-2.0, 0.5]), np.array([1.0, 4.0])), 2, lambda x: x),
    "above": (lambda u: above(u, 1.5), 2, lambda x: x),
    "below": (lambda u: below(u, -0.5), 2, lambda x: x),
    "simplex": (simplex, 3, lambda x: x[:-1]),
    "ordered": (ordered, 4, lambda x: x),
    "positive_ordered": (positive_ordered, 3, lambda x: x),
    "corr_cholesky": (lambda u: corr_cholesky(u, 4), 6, lambda x: _lower(x, -1)),
    "corr_matrix": (lambda u: corr_matrix(u, 4), 6, lambda x: _lower(x, -1)),
    "lower_cholesky": (lambda u: lower_cholesky(u, 3), 6, lambda x: _lower(x, 0)),
    "positive_definite": (lambda u: positive_definite(u, 3), 6, lambda x: _lower(x, 0)),
    "l1_ball": (l1_ball, 3, lambda x: x),
}
