r"""Coordinates of hierarchical effects between centred and non-centred, learned from draws and their gradients.

An effect theta = m + s e with e standard is sampled through x, with one k >= 0 and one t per effect,

    e = x / sqrt(q) + (k s / q) (t - m),    q = 1 + k s^2,

where k is what data tell about theta and t where they put it: k = 0 is the non-centred form, k -> infinity the centred
one. Where data are Gaussian, x is standard normal and independent of m and s. With h = (d log p / d e)^2 and all else
held, E h = 1 + k s^2 (Fisher's identity), a regression through the origin of h - 1 on s^2, whose weights w^2 = 1 / q^2
are proportional to the inverse variance of h; t follows from e = (k s / q) (t - m) + noise of variance 1 / q. A law of
e with information i about its location is brought to the same form by h / i.

References: Papaspiliopoulos, Roberts and Skold (2007), A general framework for the parametrization of hierarchical
models; Gorinova, Moore and Hoffman (2020), Automatic reparameterisation of probabilistic programs; Efron and Morris
(1973), Stein's estimation rule and its competitors.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

_CAP = 9.0 / 0.455
"""Squared gradients count up to nine times what their median says of their mean (0.455 for one degree of freedom)."""

_ROUNDS = 3


def standardised(x: Array, m: Array, s: Array, coordinates: Array) -> Array:
    """The standard effects e of positions x.

    Args:
        x: Positions, shape (n, effects).
        m: Locations, of the same shape.
        s: Scales, likewise.
        coordinates: k and t, shape (2, effects).

    Example:
        >>> e = standardised(np.array([[1.0]]), np.array([[0.5]]), np.array([[2.0]]), np.array([[0.75], [1.5]]))
        >>> float(e[0, 0])  # q = 4, so 1/2 + 0.375 * 1
        0.875
    """
    k, t = coordinates
    q = 1.0 + k * s * s
    return x / np.sqrt(q) + k * s / q * (t - m)


def moved(e: Array, m: Array, s: Array, coordinates: Array) -> Array:
    """Inverse of ``standardised``: the positions x of standard effects e.

    Example:
        >>> at = np.array([[0.5]]), np.array([[2.0]]), np.array([[0.75], [1.5]])
        >>> float(moved(np.array([[0.875]]), *at)[0, 0])
        1.0
    """
    k, t = coordinates
    q = 1.0 + k * s * s
    return np.sqrt(q) * (e - k * s / q * (t - m))


def learn(e: Array, gradients: Array, m: Array, s: Array, groups: Array | None = None) -> Array:
    """Learn k and t.

    The excesses d = mean h - 1 of a group of effects are noisy, with variances v = 2 var(h) / n. Where their sum is not
    twice its standard error, the group stays non-centred; else each is shrunk to their mean as far as noise explains
    what sets it apart, (c d + v mean) / (c + v) with c the variance between effects (Efron and Morris, 1973).

    Args:
        e: Standard effects, shape (n, effects).
        gradients: Of the log density with respect to e, divided by the root of the information of its law.
        m: Locations, shape (n, effects).
        s: Scales, likewise; their sign does not matter to k.
        groups: Number of the group of each effect, shape (effects,); all are one group by default.

    Returns:
        k and t, shape (2, effects); t is zero where k is.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> s, m, u = np.exp(0.3 * rng.normal(size=(3000, 1))), rng.normal(size=(3000, 1)), rng.normal(size=(3000, 1))
        >>> q = 1.0 + 4.0 * s**2  # data tell 4 about the effect, and put it at 0.7
        >>> e = u / np.sqrt(q) + 4.0 * s / q * (0.7 - m)
        >>> k, t = learn(e, 4.0 * s * (0.7 - m) - q * e, m, s)
        >>> bool(abs(k[0] - 4.0) < 0.3), round(float(t[0]), 1)
        (True, 0.7)
    """
    h = gradients**2
    h = np.minimum(h, _CAP * np.median(h, axis=0))
    square = s * s
    mean_h, mean_square = h.mean(axis=0), np.maximum(square.mean(axis=0), np.finfo(float).tiny)
    least = 1e-6 / mean_square
    k = np.maximum(mean_h - 1.0, 1e-6) / mean_square
    for _ in range(_ROUNDS):
        weighted = (square / (1.0 + k * square)) ** 2  # w^2 s^4
        tilted = square / (1.0 + k * square) ** 2
        k = np.maximum((tilted * (h - 1.0)).sum(axis=0) / np.maximum(weighted.sum(axis=0), 1e-300), least)
    excess, noise = mean_h - 1.0, 2.0 * h.var(axis=0) / len(h) + 1e-12
    for group in range(1 if groups is None else int(groups.max()) + 1):
        those = np.full(k.shape, True) if groups is None else groups == group
        shrunk = np.maximum(_shrunk(excess[those], noise[those]), 0.0)
        clear = excess[those] > 1e-3  # else k and the excess are both about zero
        k[those] = shrunk * np.where(clear, k[those] / np.where(clear, excess[those], 1.0), 1.0 / mean_square[those])
    q = 1.0 + k * square
    b = k * s / q
    ridge = 1.0 / (16.0 * np.maximum(np.median(np.abs(s), axis=0) ** 2, np.finfo(float).tiny))
    total = (q * b * (e + b * m)).sum(axis=0) + ridge * m.mean(axis=0)
    t = total / ((q * b * b).sum(axis=0) + ridge)
    return np.where(k > 0.0, np.stack([k, t]), 0.0)


def _shrunk(excess: Array, noise: Array) -> Array:
    """Estimates of a group, drawn together; zero where all of them may be noise."""
    if excess.sum() <= 2.0 * np.sqrt(noise.sum()):
        return np.zeros_like(excess)
    middle = np.sum(excess / noise) / np.sum(1.0 / noise)
    between = max(float(np.mean((excess - excess.mean()) ** 2 - noise)), 0.0)
    return (between * excess + noise * middle) / (between + noise)


def apart(old: Array, new: Array, m: Array, s: Array) -> float:
    """How far two choices differ: the largest change of log q or, in sds of x, of the shift, at typical m and s.

    Example:
        >>> apart(np.array([[0.0], [0.0]]), np.array([[3.0], [0.0]]), np.zeros((9, 1)), np.ones((9, 1))).__round__(3)
        0.693
    """
    middle, scale = np.median(m, axis=0), np.median(np.abs(s), axis=0)
    (k0, t0), (k1, t1) = old, new
    q0, q1 = 1.0 + k0 * scale**2, 1.0 + k1 * scale**2
    shift = k1 * scale / np.sqrt(q1) * (t1 - middle) - k0 * scale / np.sqrt(q0) * (t0 - middle)
    return float(max(np.max(0.5 * np.abs(np.log(q1 / q0)), initial=0.0), np.max(np.abs(shift), initial=0.0)))
