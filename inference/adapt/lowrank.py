r"""A Fisher metric of low rank plus diagonal, for hundreds or thousands of dimensions.

    Sigma = D (I + U (Lambda - I) U') D,   D diagonal,  U (d, R) with orthonormal columns,  Lambda diagonal

costs O(d R) to apply where a full matrix costs O(d^2), and is learned from fewer draws than dimensions. D and U are
improved in turn. *D:* in the coordinates that the metric at hand whitens, w = F^{-1} z with gradient v, each entry of D
is multiplied by (var w_i / var v_i)^(1/4); so what U explains does not count as scale.
*U:* with X the draws and Y the gradients scaled by D, the eigenvectors of the geometric mean X'X # (Y'Y)^{-1} whose
eigenvalues lie far from one are sought in the span of the old U and the leading eigenvectors of X'X and of Y'Y (a
direction is long where draws vary much, short where gradients do). Within those at most 3 R dimensions the geometric
mean, shrunk to the old metric, is exact (``fisher.geometric_mean``). The old U stays in the span because a window
shows only what the last metric missed. R is fixed, so that one compiled program serves all windows; columns that are
not needed have Lambda = 1.

References: Seyboldt, Carlson, Carpenter (2026), arXiv:2603.18845, for the Fisher metric of low rank; Halko,
Martinsson, Tropp (2011), Finding structure with randomness, for subspace iteration.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .fisher import Fit, Metric, geometric_mean, top_eigenvalue, winsorise

LEAST = 1.3
"""Eigenvalues of D^{-1} Sigma D^{-1} within this factor of one are noise and set to one."""

_ROUNDS, _ALTERNATIONS = 4, 2
_TINY = 1e-14


@dataclass(frozen=True)
class LowRank:
    """An inverse mass matrix Sigma = F F' with F = D (I + U (Lambda^(1/2) - I) U').

    Attributes:
        scale: Diagonal of D, shape (d,).
        basis: U, shape (d, R); a column is zero where its eigenvalue is one.
        levels: Diagonal of Lambda, shape (R,).

    Example:
        >>> metric = LowRank(np.ones(2), np.array([[0.6], [0.8]]), np.array([4.0]))
        >>> metric.covariance()
        array([[2.08, 1.44],
               [1.44, 2.92]])
    """

    scale: np.ndarray
    basis: np.ndarray
    levels: np.ndarray

    kind = "low rank"
    dense = False

    def covariance(self) -> np.ndarray:
        """Sigma as a full matrix."""
        inner = np.eye(len(self.scale)) + (self.basis * (self.levels - 1.0)) @ self.basis.T
        return self.scale[:, None] * inner * self.scale

    def arguments(self) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        """What the compiled program takes for Sigma and for F."""
        both = self.scale, self.basis
        return (*both, self.levels - 1.0), (*both, np.sqrt(self.levels) - 1.0)

    def _stretch(self, rows: np.ndarray, power: float) -> np.ndarray:
        return rows + ((rows @ self.basis) * (self.levels**power - 1.0)) @ self.basis.T

    def momenta(self, normals: np.ndarray) -> np.ndarray:
        """Rows of N(0, Sigma^{-1}) from rows of standard normals."""
        return self._stretch(normals, -0.5) / self.scale

    def whiten(self, positions: np.ndarray) -> np.ndarray:
        """Rows z F^{-T}."""
        return self._stretch(positions / self.scale, -0.5)

    def whiten_gradients(self, gradients: np.ndarray) -> np.ndarray:
        """Rows g F."""
        return self._stretch(gradients * self.scale, 0.5)


def unit(dim: int, rank: int) -> LowRank:
    """The identity with room for ``rank`` directions."""
    return LowRank(np.ones(dim), np.zeros((dim, rank)), np.ones(rank))


def update(previous: LowRank, draws: np.ndarray, gradients: np.ndarray, k: float | None = None) -> Fit:
    """Learn a metric from pooled draws and their gradients.

    Args:
        previous: The metric under which they were drawn.
        draws: Shape (rows, d).
        gradients: Shape (rows, d).
        k: Weight of the previous metric in draws; 2 + 0.04 R unless given.

    Returns:
        The new metric, with the spectra in the previous one.

    Example:
        >>> sigma = np.array([[9.64, 11.52, 0.0], [11.52, 16.36, 0.0], [0.0, 0.0, 1.0]])
        >>> z = np.random.default_rng(0).normal(size=(2000, 3)) @ np.linalg.cholesky(sigma).T
        >>> fit = update(unit(3, 1), z, -z @ np.linalg.inv(sigma))
        >>> bool(np.linalg.cond(sigma) > 20), bool(np.linalg.cond(np.linalg.inv(sigma) @ fit.metric.covariance()) < 5)
        (True, True)
    """
    rows, rank = draws.shape[0], previous.basis.shape[1]
    z = draws - draws.mean(axis=0)
    g = winsorise(gradients - gradients.mean(axis=0), previous)
    count = rows / 2
    tops = top_eigenvalue(previous.whiten(z)), top_eigenvalue(previous.whiten_gradients(g))
    k = 2.0 + 0.04 * rank if k is None else k
    return Fit(_learn(previous, z, g, k, count), *tops, count)


def from_pairs(steps: np.ndarray, changes: np.ndarray, rank: int) -> LowRank:
    """First metric from quasi-Newton pairs, as ``fisher.from_pairs``.

    Args:
        steps: Rows s, shape (pairs, d), with s.y > 0.
        changes: Rows y, shape (pairs, d), the drops of the gradient along them.
        rank: R.
    """
    root = np.sqrt(np.sum(steps * changes, axis=1))[:, None]
    pairs, dim = steps.shape
    return _learn(unit(dim, rank), steps / root, changes / root, 2.0 + 0.04 * rank, float(pairs))


def _learn(previous: LowRank, z: np.ndarray, g: np.ndarray, k: float, count: float) -> LowRank:
    """Improve D for the U at hand and U for that D, in turn."""
    metric = previous
    for _ in range(_ALTERNATIONS):
        w, v = metric.whiten(z), metric.whiten_gradients(g)
        scale = metric.scale * (_floored(np.mean(w * w, axis=0)) / _floored(np.mean(v * v, axis=0))) ** 0.25
        metric = _directions(previous, scale, z / scale, g * scale, (k, count))
    return metric


def _directions(
    previous: LowRank, scale: np.ndarray, x: np.ndarray, y: np.ndarray, weight: tuple[float, float]
) -> LowRank:
    """Geometric mean of the second moments of scaled draws x and gradients y within the span of all that matters."""
    rows, dim = x.shape
    rank = previous.basis.shape[1]
    old = previous.levels != 1.0
    kept, levels = previous.basis[:, old], previous.levels[old]
    size = max(1, min(rank, rows // 2, dim))
    q = _orthonormal(np.concatenate([kept, _leading(x, size), _leading(y, size)], axis=1))
    within = q.T @ kept
    before = Metric(
        np.eye(q.shape[1]) + (within * (np.sqrt(levels) - 1.0)) @ within.T,
        np.eye(q.shape[1]) + (within * (1.0 / np.sqrt(levels) - 1.0)) @ within.T,
    )
    xq, yq = x @ q, y @ q
    mean, _, _ = geometric_mean(xq.T @ xq / rows, yq.T @ yq / rows, before, *weight)
    values, vectors = np.linalg.eigh(mean.covariance())
    values = np.maximum(values, _TINY * values[-1])
    far = np.argsort(-np.abs(np.log(values)), kind="stable")[:rank]
    far = far[np.abs(np.log(values[far])) > np.log(LEAST)]
    new = unit(dim, rank)
    new.basis[:, : len(far)] = q @ vectors[:, far]
    new.levels[: len(far)] = values[far]
    return LowRank(scale, new.basis, new.levels)


def _floored(variance: np.ndarray) -> np.ndarray:
    return np.maximum(variance, _TINY * max(variance.max(), np.finfo(float).tiny))


def _leading(rows: np.ndarray, size: int) -> np.ndarray:
    """Orthonormal basis of about the leading ``size`` eigenvectors of X'X, which is never formed."""
    basis = np.random.default_rng(0).standard_normal((rows.shape[1], size))
    for _ in range(_ROUNDS):
        basis, _ = np.linalg.qr(rows.T @ (rows @ basis))
    return basis


def _orthonormal(span: np.ndarray) -> np.ndarray:
    """Orthonormal basis of the span of columns of length one, without directions that rounding alone would choose."""
    u, s, _ = np.linalg.svd(span, full_matrices=False)
    return u[:, s > 1e-8 * s[0]]
