r"""Importance weighted moment matching for leave-one-out posteriors.

Draws z of the posterior p are moved by an affine map T so that their mean (then their scales, then their covariance)
are those that the weights r = p_{-i} / p say the leave-one-out posterior p_{-i} has; weights of moved draws are
p_{-i}(T z) |det T| / p(z), and the map is kept where it lowers the Pareto shape. The estimate then uses both laws, half
of the draws moved and half not, weighted by their mixture:

    w(x) = p_{-i}(x) / (p(x) / 2 + p(T^-1 x) |det T|^-1 / 2),

for the expectation of the likelihood needs the one where the likelihood is large and the other where it is small.

References: Paananen, Piironen, Buerkner and Vehtari (2021), Implicitly adaptive importance sampling, Statistics and
Computing 31(16).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .psis import smooth

Array = Any
Evaluate = Callable[[Array], tuple[Array, Array]]

ROUNDS = 30
"""Most maps that are composed."""

PER_DIMENSION = 10
"""Draws for each dimension below which covariances are not matched."""


@dataclass(frozen=True)
class Map:
    """The affine map z -> matrix z + offset, row by row."""

    matrix: Array
    offset: Array

    def __call__(self, z: Array) -> Array:
        """Apply it to positions of shape (draws, dim)."""
        return z @ self.matrix.T + self.offset

    def inverse(self, z: Array) -> Array:
        """Undo it."""
        return np.linalg.solve(self.matrix, (z - self.offset).T).T

    def after(self, other: Map) -> Map:
        """This map after another."""
        return Map(self.matrix @ other.matrix, self.matrix @ other.offset + self.offset)

    @property
    def log_det(self) -> float:
        """Log of the factor by which it stretches volume."""
        return float(np.linalg.slogdet(self.matrix)[1])


@dataclass(frozen=True)
class Matched:
    """Draws weighted for one leave-one-out posterior.

    Attributes:
        log_likelihood: Log likelihood of the unit at each, shape (draws,).
        log_weights: Log weights that sum to one.
        k: Pareto shape of the weights.
        map: What half of the draws were moved by; None where nothing helped.
    """

    log_likelihood: Array
    log_weights: Array
    k: float
    map: Map | None


def match_moments(
    evaluate: Evaluate, positions: Array, log_density: Array, log_likelihood: Array, efficiency: float, enough: float
) -> Matched:
    """Weight posterior draws for the posterior without one unit.

    Args:
        evaluate: From positions (draws, dim) to the log posterior density and the unit's log likelihood.
        positions: Posterior draws, unconstrained, shape (draws, dim); neighbours may be dependent.
        log_density: Log posterior density there.
        log_likelihood: Log likelihood of the unit there.
        efficiency: Effective by actual number of draws.
        enough: Pareto shape at which to stop.

    Example:
        >>> from ppl.inference.criticism.psis import log_sum
        >>> z = np.random.default_rng(0).normal(size=(4000, 1)) / np.sqrt(2) + 2.5
        >>> both = lambda z: (-0.5 * z[:, 0] ** 2 - 0.5 * (z[:, 0] - 5) ** 2, -0.5 * (z[:, 0] - 5) ** 2)
        >>> matched = match_moments(both, z, *both(z), 1.0, 0.5)
        >>> exact = -0.25 * 25 - 0.5 * np.log(2)  # log of the integral of N(z | 0, 1) times the likelihood
        >>> bool(abs(log_sum(matched.log_weights + matched.log_likelihood) - exact) < 0.1)
        True
    """
    weights, shape = smooth(-log_likelihood, efficiency)
    k, first = float(shape), float(shape)
    dim = positions.shape[1]
    total = Map(np.eye(dim), np.zeros(dim))
    moved, found = positions, False
    kinds = ("mean", "scale", "covariance") if len(positions) >= PER_DIMENSION * dim else ("mean", "scale")
    for _ in range(ROUNDS):
        if k <= enough:
            break
        for kind in kinds:
            step = _fitted(kind, moved, np.exp(weights))
            if step is None:
                continue
            trial = step(moved)
            density, likelihood = evaluate(trial)
            new_weights, new_k = _weigh(density - likelihood - log_density, efficiency)
            if new_k < k:
                moved, weights, k, total, found = trial, new_weights, new_k, step.after(total), True
                break
        else:
            break
    if found:
        split = _split(evaluate, positions, log_density, total, efficiency)
        if split.k < first:
            return split
    return Matched(log_likelihood, smooth(-log_likelihood, efficiency)[0], first, None)


def _weigh(log_ratios: Array, efficiency: float) -> tuple[Array, float]:
    """Smoothed weights; a map that leads where nothing can be evaluated has an infinite shape."""
    if not np.isfinite(np.max(log_ratios)):
        return log_ratios, np.inf
    weights, shape = smooth(log_ratios, efficiency)
    return weights, float(shape)


def _fitted(kind: str, z: Array, weights: Array) -> Map | None:
    """The map that gives draws the weighted mean, and scales or covariance; None where it does not exist."""
    mean, target = z.mean(axis=0), weights @ z
    if kind == "mean":
        return Map(np.eye(len(mean)), target - mean)
    centred, wanted = z - mean, z - target
    if kind == "scale":
        old, new = (centred**2).mean(axis=0), weights @ wanted**2
        if not (np.all(old > 0) and np.all(new > 0)):
            return None
        matrix = np.diag(np.sqrt(new / old))
    else:
        try:
            old = np.linalg.cholesky(centred.T @ centred / len(z))
            new = np.linalg.cholesky((weights[:, None] * wanted).T @ wanted)
        except np.linalg.LinAlgError:
            return None
        matrix = np.linalg.solve(old.T, new.T).T
    return Map(matrix, target - matrix @ mean)


def _split(evaluate: Evaluate, z: Array, log_density: Array, total: Map, efficiency: float) -> Matched:
    """Every other draw moved, weights by the mixture of the two laws."""
    move = np.arange(len(z)) % 2 == 0
    mixed = np.where(move[:, None], total(z), z)
    density, likelihood = evaluate(mixed)
    # The density of moved draws: at T z it is that of z, and at z it is that of T^-1 z, shrunk by the stretch.
    back, _ = evaluate(np.where(move[:, None], z, total.inverse(z)))
    stretched = np.asarray(np.where(move, log_density, back)) - total.log_det
    top = np.logaddexp(density, stretched)
    with np.errstate(invalid="ignore"):
        ratios = np.where(np.isfinite(density), density - likelihood - top, -np.inf)
    weights, k = _weigh(ratios, efficiency)
    return Matched(likelihood, weights, k, total)
