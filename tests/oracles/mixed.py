"""The sleep study under flat priors, integrated by quadrature.

y_i = Z (beta + u_i) + e,  u_i ~ N(0, D),  e ~ N(0, s^2 I), the same Z (10 x 2) for each of 18 subjects. With b_i the
least squares line of subject i, G = (Z'Z)^-1 and W = D + s^2 G, the likelihood with beta integrated out over a flat
prior (the restricted likelihood) is

    s^-(18 * 8) exp(-RSS / 2 s^2) |W|^-(17/2) exp(-tr(W^-1 S) / 2),   S = sum_i (b_i - mean b)(b_i - mean b)',

and beta given the rest is N(mean b, W / 18). The posterior under a prior that is flat on both standard deviations,
the correlation and s is this function, normalised; its maximum is the REML estimate.
"""

from __future__ import annotations

import numpy as np

PUBLISHED = {
    "beta": (251.405, 10.467),  # fixed effects
    "error": (6.825, 1.546),  # their standard errors
    "reml": (24.741, 5.922, 0.066, 25.592),  # sd of intercept and slope, correlation, residual sd
}
"""REML fit of reaction ~ 1 + days + (1 + days | subject): Bates, Maechler, Bolker and Walker (2015), section 5."""


def summaries(data):
    """Lines of the subjects (18, 2), residual sum of squares, and G."""
    subjects = np.unique(data["subject"])
    lines, rss, Z = [], 0.0, None
    for subject in subjects:
        rows = data["subject"] == subject
        Z = np.column_stack([np.ones(rows.sum()), data["days"][rows]])
        line, residual = np.linalg.lstsq(Z, data["reaction"][rows], rcond=None)[:2]
        lines.append(line)
        rss += residual[0]
    return np.array(lines), rss, np.linalg.inv(Z.T @ Z)


def restricted(data, s0, s1, rho, sigma):
    """Log restricted likelihood, up to a constant, at arrays of parameters."""
    lines, rss, G = summaries(data)
    n = len(lines)
    S = (lines - lines.mean(0)).T @ (lines - lines.mean(0))
    w00 = s0**2 + sigma**2 * G[0, 0]
    w11 = s1**2 + sigma**2 * G[1, 1]
    w01 = rho * s0 * s1 + sigma**2 * G[0, 1]
    det = w00 * w11 - w01**2
    trace = (w11 * S[0, 0] + w00 * S[1, 1] - 2 * w01 * S[0, 1]) / det
    return -(n * 8) * np.log(sigma) - rss / (2 * sigma**2) - 0.5 * (n - 1) * np.log(det) - 0.5 * trace


def posterior(data, nodes=48):
    """Mean and standard deviation of every parameter: ``{name: (mean, sd)}``."""
    lines, _, G = summaries(data)
    x, w = np.polynomial.legendre.leggauss(nodes)
    ranges = ((0.0, 130.0), (0.0, 22.0), (-1.0, 1.0), (18.0, 40.0))
    axes = [(a + b) / 2 + (b - a) / 2 * x for a, b in ranges]
    grid = np.meshgrid(*axes, indexing="ij", sparse=True)
    log = restricted(data, *grid)
    weight = np.exp(log - log.max()) * np.einsum("i,j,k,l->ijkl", w, w, w, w)
    weight /= weight.sum()
    found = {}
    for name, values in zip(("s0", "s1", "rho", "sigma"), grid, strict=True):
        mean = float((weight * values).sum())
        found[name] = (mean, float(np.sqrt((weight * (values - mean) ** 2).sum())))
    spread = [(weight * (grid[i] ** 2 + grid[3] ** 2 * G[i, i])).sum() / len(lines) for i in range(2)]
    return found | {f"beta{i}": (float(lines.mean(0)[i]), float(np.sqrt(spread[i]))) for i in range(2)}


def logistic_intercepts(x, y, group, nodes=26, inner=30):
    """A logistic regression whose intercepts vary by group, by quadrature: ``{name: (mean, sd)}``.

    logit P(y = 1) = a + b (x - mean x) + s u[g],  u ~ N(0, 1), all flat in a, b and s > 0: for every (a, b, s) of a
    grid the effects are integrated out, group by group, by Gauss and Hermite's rule. Right to a few thousandths of a
    standard deviation where effects have a standard deviation of about 2.
    """
    z, w = np.polynomial.hermite_e.hermegauss(inner)
    w = w / w.sum()
    t, v = np.polynomial.legendre.leggauss(nodes)
    ranges = ((-3.5, 4.0), (-1.0, 4.0), (0.0, 7.0))
    axes = [(lo + hi) / 2 + (hi - lo) / 2 * t for lo, hi in ranges]
    a, b, s = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    log = np.zeros(len(a))
    centred = x - x.mean()
    for g in np.unique(group):
        rows = np.flatnonzero(group == g)
        terms = np.zeros((len(a), inner))
        for i in rows:
            eta = (a + b * centred[i])[:, None] + s[:, None] * z
            terms -= np.logaddexp(0.0, -eta if y[i] else eta)
        top = terms.max(axis=1)
        log += top + np.log(np.exp(terms - top[:, None]) @ w)
    weight = np.exp(log - log.max()) * np.einsum("i,j,k->ijk", v, v, v).ravel()
    weight /= weight.sum()
    means = {name: float(weight @ values) for name, values in (("a", a), ("b", b), ("s", s))}
    spread = {
        name: float(np.sqrt(weight @ (values - means[name]) ** 2))
        for name, values in zip("abs", (a, b, s), strict=True)
    }
    return {name: (means[name], spread[name]) for name in means}
