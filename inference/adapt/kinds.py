"""The kinds of Fisher metric and the choice between them by what they promise.

A metric under which the draws of a window have top eigenvalue lA and their gradients lB needs about sqrt(lA lB)
leapfrogs per independent draw. Learned from one window and judged on the next, two kinds can be compared before
either is used.
"""

from __future__ import annotations

import numpy as np

from .fisher import Fit, Metric, top_eigenvalue, winsorise
from .fisher import from_pairs as _full_from_pairs
from .fisher import scaled as _scaled
from .fisher import update as _full_update
from .lowrank import LowRank
from .lowrank import from_pairs as _low_from_pairs
from .lowrank import unit as _low_unit
from .lowrank import update as _low_update

AnyMetric = Metric | LowRank

DENSE, DIAGONAL, LOW_RANK = "dense", "diagonal", "low rank"


def unit(kind: str, dim: int, rank: int = 0) -> AnyMetric:
    """The identity as a metric of one kind.

    Example:
        >>> unit("low rank", 5, 2).basis.shape
        (5, 2)
    """
    return _low_unit(dim, rank) if kind == LOW_RANK else _scaled(np.ones(dim), kind == DENSE)


def from_pairs(steps: np.ndarray, changes: np.ndarray, like: AnyMetric) -> AnyMetric:
    """First metric, of the kind of ``like``, from quasi-Newton pairs; see ``fisher.from_pairs``."""
    if isinstance(like, LowRank):
        return _low_from_pairs(steps, changes, like.basis.shape[1])
    return _full_from_pairs(steps, changes, like.dense)


def update(previous: AnyMetric, draws: np.ndarray, gradients: np.ndarray) -> Fit:
    """Learn a metric of the kind of ``previous`` from pooled draws and gradients; see ``fisher.update``."""
    if isinstance(previous, LowRank):
        return _low_update(previous, draws, gradients)
    return _full_update(previous, draws, gradients)


def diagonal(draws: np.ndarray, gradients: np.ndarray, current: AnyMetric) -> Metric:
    """The diagonal metric sqrt(var z / var g) of some draws, gradients winsorised under the current metric.

    Example:
        >>> z = np.random.default_rng(0).normal(size=(400, 2)) * [1.0, 5.0]
        >>> np.round(diagonal(z, -z / [1.0, 25.0], unit("diagonal", 2)).covariance() / [1.0, 25.0]).tolist()
        [1.0, 1.0]
    """
    g = winsorise(gradients - gradients.mean(axis=0), current)
    a, b = (np.maximum(v, 1e-14 * max(v.max(), np.finfo(float).tiny)) for v in (draws.var(axis=0), g.var(axis=0)))
    return _scaled((a / b) ** 0.25, dense=False)


def promise(metric: AnyMetric, draws: np.ndarray, gradients: np.ndarray, current: AnyMetric) -> Fit:
    """What a metric would have made of draws that were made under the current one: lA and lB, with the metric itself.

    Example:
        >>> z = np.random.default_rng(0).normal(size=(4000, 2)) * [1.0, 5.0]
        >>> right = diagonal(z, -z / [1.0, 25.0], unit("diagonal", 2))
        >>> round(promise(right, z, -z / [1.0, 25.0], right).leapfrogs)
        1
    """
    z = draws - draws.mean(axis=0)
    g = winsorise(gradients - gradients.mean(axis=0), current)
    tops = top_eigenvalue(metric.whiten(z)), top_eigenvalue(metric.whiten_gradients(g))
    return Fit(metric, *tops, len(draws) / 2)
