r"""The Fisher metric: geometric mean of the covariance of draws and the inverse covariance of gradients.

Let A = cov(z) and B = cov(grad log pi(z)) under pi. For a Gaussian B = A^{-1}; in general a linear change of
coordinates by Sigma balances both when Sigma B Sigma = A, whose one positive definite solution is the geometric
mean A # B^{-1}. Estimated from N draws, both are shrunk towards the previous metric F F', in whose
coordinates A~ = F^{-1} A F^{-T} and B~ = F' B F should be near a multiple of I:

    A1 = (1 - w) A~ + w a I,   B1 = (1 - w) B~ + w b I,   w = k / (N + k),   log a, log b = mean log diagonals

With B1 = L L' and L' A1 L = U e U', the new factor is F L^{-T} U e^{1/4}. Shrinkage in the previous
coordinates keeps the estimate equivariant under linear maps; on a Gaussian it is exact from d + 1 draws when k = 0.

References: Seyboldt, Carlson, Carpenter (2026), Preconditioning Hamiltonian Monte Carlo by minimizing Fisher
divergence, arXiv:2603.18845; Bhatia (2007), Positive Definite Matrices, ch. 4, for the geometric mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_FLOOR = 1e-14


@dataclass(frozen=True)
class Metric:
    """An inverse mass matrix Sigma = F F', kept as F and its inverse, both (d, d), or (d,) when diagonal."""

    factor: np.ndarray
    inverse: np.ndarray

    @property
    def dense(self) -> bool:
        """Whether the metric is a full matrix."""
        return self.factor.ndim == 2

    @property
    def kind(self) -> str:
        """``"dense"`` or ``"diagonal"``."""
        return "dense" if self.dense else "diagonal"

    def arguments(self) -> tuple[np.ndarray, np.ndarray]:
        """What the compiled program takes for Sigma and for F."""
        return self.covariance(), self.factor

    def covariance(self) -> np.ndarray:
        """Sigma, or its diagonal."""
        return self.factor @ self.factor.T if self.dense else self.factor**2

    def momenta(self, normals: np.ndarray) -> np.ndarray:
        """Rows of N(0, Sigma^{-1}) from rows of standard normals."""
        return normals @ self.inverse if self.dense else normals * self.inverse

    def whiten(self, positions: np.ndarray) -> np.ndarray:
        """Rows z F^{-T}: coordinates in which Sigma is the identity."""
        return positions @ self.inverse.T if self.dense else positions * self.inverse

    def whiten_gradients(self, gradients: np.ndarray) -> np.ndarray:
        """Rows g F: gradients in the coordinates of ``whiten``."""
        return gradients @ self.factor if self.dense else gradients * self.factor


def scaled(scale: np.ndarray, dense: bool) -> Metric:
    """The metric diag(scale^2).

    Example:
        >>> scaled(np.array([2.0, 3.0]), dense=False).covariance()
        array([4., 9.])
    """
    if dense:
        return Metric(np.diag(scale), np.diag(1.0 / scale))
    return Metric(np.array(scale), 1.0 / scale)


def _shrink(matrix: np.ndarray, weight: float) -> np.ndarray:
    """(1 - w) M + w exp(mean log diag M) I."""
    diagonal = np.diag(matrix)
    level = np.exp(np.mean(np.log(np.maximum(diagonal, _FLOOR * max(diagonal.max(), np.finfo(float).tiny)))))
    return (1.0 - weight) * matrix + weight * level * np.eye(len(matrix))


def geometric_mean(
    draws: np.ndarray, gradients: np.ndarray, previous: Metric, k: float, count: float
) -> tuple[Metric, np.ndarray, np.ndarray]:
    """The metric A # B^{-1} from second moments, shrunk towards the previous one.

    Args:
        draws: A, covariance of draws, (d, d).
        gradients: B, covariance of gradients, (d, d).
        previous: Dense metric whose coordinates are used.
        k: Weight of the previous metric, in draws.
        count: Effective number of draws behind A and B.

    Returns:
        The metric and the whitened covariances A~ and B~, whose spectra tell how well the previous metric fits.

    Example:
        >>> a = np.array([[2.0, 1.0], [1.0, 3.0]])
        >>> metric, _, _ = geometric_mean(a, np.linalg.inv(a), scaled(np.ones(2), True), 0.0, 10.0)
        >>> bool(np.allclose(metric.covariance(), a))
        True
    """
    f, g = previous.factor, previous.inverse
    a, b = g @ draws @ g.T, f.T @ gradients @ f
    weight = k / (count + k)
    lower = _cholesky(_shrink(b, weight))
    e, u = np.linalg.eigh(lower.T @ _shrink(a, weight) @ lower)
    quarter = np.maximum(e, _FLOOR * max(e[-1], np.finfo(float).tiny)) ** 0.25
    factor = f @ (np.linalg.solve(lower.T, u) * quarter)
    return Metric(factor, ((lower @ u) / quarter).T @ g), a, b


def _cholesky(matrix: np.ndarray) -> np.ndarray:
    """Lower Cholesky factor; when rounding leaves a zero or negative eigenvalue, that of the floored matrix."""
    try:
        return np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        e, u = np.linalg.eigh(matrix)
        floor = max(1e-12 * e[-1], np.finfo(float).tiny)
        return np.linalg.cholesky((u * np.maximum(e, floor)) @ u.T + floor * np.eye(len(matrix)))


def winsorise(gradients: np.ndarray, metric: Any, limit: float = 1.5) -> np.ndarray:
    """Shorten the rows of centred gradients longer, in the metric, than ``limit`` medians.

    A few draws in a narrow neck have gradients that would rule the covariance of all.

    Example:
        >>> float(winsorise(np.array([[1.0], [1.0], [30.0]]), scaled(np.ones(1), True)).max())
        1.5
    """
    length = np.linalg.norm(metric.whiten_gradients(gradients), axis=1)
    bound = limit * np.median(length)
    return gradients * np.minimum(1.0, bound / np.maximum(length, np.finfo(float).tiny))[:, None]


@dataclass(frozen=True)
class Fit:
    """A metric and how well the one before it fitted.

    Attributes:
        metric: The new metric, of the kind of the one before.
        draws_top: Largest eigenvalue of the draws' covariance whitened by the previous metric.
        gradients_top: The same of the gradients.
        count: Effective number of draws, half the number of rows.
    """

    metric: Any
    draws_top: float
    gradients_top: float
    count: float

    @property
    def leapfrogs(self) -> float:
        """Rough number of leapfrogs per independent draw with the previous metric, sqrt of both tops."""
        return float(np.sqrt(self.draws_top * self.gradients_top))


def update(previous: Metric, draws: np.ndarray, gradients: np.ndarray, k: float | None = None) -> Fit:
    """Learn a metric from pooled draws and their gradients.

    Args:
        previous: The metric under which they were drawn.
        draws: Shape (rows, d).
        gradients: Shape (rows, d).
        k: Weight of the previous metric in draws; 2 + 0.02 d unless given.

    Returns:
        The new metric of the same kind, with the spectra in the previous one.
    """
    rows, dim = draws.shape
    k = 2.0 + 0.02 * dim if k is None else k
    z = draws - draws.mean(axis=0)
    g = winsorise(gradients - gradients.mean(axis=0), previous)
    count = rows / 2
    if previous.dense:
        metric, a, b = geometric_mean(z.T @ z / rows, g.T @ g / rows, previous, k, count)
        tops = np.linalg.eigvalsh(np.stack([a, b]))[:, -1]
        return Fit(metric, float(tops[0]), float(tops[1]), count)
    x, y = previous.whiten(z), previous.whiten_gradients(g)
    metric = _diagonal_mean(np.mean(x * x, axis=0), np.mean(y * y, axis=0), previous, k, count)
    return Fit(metric, top_eigenvalue(x), top_eigenvalue(y), count)


def _diagonal_mean(a: np.ndarray, b: np.ndarray, previous: Metric, k: float, count: float) -> Metric:
    """``geometric_mean`` where all matrices are diagonal; a and b are the whitened variances."""
    weight = k / (count + k)
    ratio = np.empty((2, len(a)))
    for i, v in enumerate((a, b)):
        v = np.maximum(v, _FLOOR * max(v.max(), np.finfo(float).tiny))
        ratio[i] = (1.0 - weight) * v + weight * np.exp(np.mean(np.log(v)))
    return scaled(previous.factor * (ratio[0] / ratio[1]) ** 0.25, dense=False)


def top_eigenvalue(rows: np.ndarray) -> float:
    """Largest eigenvalue of X'X/n by subspace iteration, never forming a d x d matrix."""
    count, dim = rows.shape
    basis = np.random.default_rng(0).standard_normal((dim, min(4, dim)))
    for _ in range(6):
        basis, _ = np.linalg.qr(rows.T @ (rows @ basis))
    image = rows @ basis
    return float(np.linalg.eigvalsh(image.T @ image / count)[-1])


def from_pairs(steps: np.ndarray, changes: np.ndarray, dense: bool) -> Metric:
    """First metric from quasi-Newton pairs (s, y), s a step and y the drop of the gradient along it.

    Each pair is divided by sqrt(s.y), so that pairs from the far tail and from the middle count alike.

    Args:
        steps: Rows s, shape (pairs, d), with s.y > 0.
        changes: Rows y, shape (pairs, d).
        dense: Kind of the metric.

    Returns:
        A # B^{-1} of the pairs' second moments, in the coordinates of their diagonals.
    """
    pairs, dim = steps.shape
    root = np.sqrt(np.sum(steps * changes, axis=1))[:, None]
    s, y = steps / root, changes / root
    var_s, var_y = np.mean(s * s, axis=0), np.mean(y * y, axis=0)
    floor_s, floor_y = _FLOOR * max(var_s.max(), 1e-300), _FLOOR * max(var_y.max(), 1e-300)
    first = scaled((np.maximum(var_s, floor_s) / np.maximum(var_y, floor_y)) ** 0.25, dense)
    if not dense:
        return first
    return geometric_mean(s.T @ s / pairs, y.T @ y / pairs, first, 0.02 * dim, float(pairs))[0]
