r"""Chains that do not move, or explore what has no mass, or stick where the density is narrow; and walls.

All rules look at a window or a spell of trajectories and say what is seen; ``pooled_warmup`` and ``pooled`` act.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .pooled_block import Rows

SPELL, PERIOD, STICKY, HALVINGS = 10, 100, 0.4, 4


@dataclass(frozen=True)
class Watch:
    """Acceptance since the last spell and period boundary of the sampling phase.

    Attributes:
        sums: Sum of acceptance probabilities within the current spell, shape (C,).
        sticky: Spells of the current period with mean acceptance below ``STICKY``.
        halvings: How often the step size was halved.
        before: Sticky spells of the period that led to the last halving, while its effect is not known; else 0.
        last: Sticky spells of the last whole period.
    """

    sums: np.ndarray
    sticky: int = 0
    halvings: int = 0
    before: int = 0
    last: int = 0


def watched(watch: Watch, acceptance: np.ndarray, index: int) -> tuple[Watch, int]:
    """Notice chains that stick while sampling; says by how many factors of two the step size should change.

    A step size tuned for the bulk can be unstable where the density is narrower, in a tail or a neck: chains enter
    such places rarely and then stay for long. That shows as spells of ten trajectories with hardly any acceptance,
    which do not occur at all where one step size fits everywhere. When more than one in a hundred spells of a
    period is sticky, half the step size follows, at most four times; where that did not halve their number (a wall
    rejects at any step size) it is taken back for good. Draws made before are kept, for every step size leaves the
    posterior invariant.

    Args:
        watch: The account so far.
        acceptance: Acceptance probabilities of the next trajectories, within one spell, shape (n, C).
        index: Number of sampling trajectories made, with these.

    Returns:
        The account, and -1 to halve the step size, +1 to double it or 0.
    """
    sums = watch.sums + acceptance.sum(axis=0, dtype=np.float64)
    if index % SPELL:
        return replace(watch, sums=sums), 0
    sticky = watch.sticky + int((sums / SPELL < STICKY).sum())
    if index % PERIOD:
        return replace(watch, sums=np.zeros_like(sums), sticky=sticky), 0
    empty = Watch(np.zeros_like(sums), 0, watch.halvings, last=sticky)
    if watch.before and 2 * sticky > watch.before:
        return replace(empty, halvings=HALVINGS), 1
    if often(sticky, len(sums)) and watch.halvings < HALVINGS:
        return replace(empty, halvings=watch.halvings + 1, before=sticky), -1
    return empty, 0


def often(sticky: int, chains: int) -> bool:
    """Whether so many sticky spells in a period are more than one in a hundred.

    Example:
        >>> often(1, 16), often(2, 16), often(5, 64)
        (False, True, False)
    """
    return sticky > max(1, 0.01 * chains * (PERIOD // SPELL))


def first_step(dim: int) -> float:
    """Step size tried first, 0.5 d^(-1/4)."""
    return 0.5 * dim**-0.25


def find_wall(kept: Rows, log_step: float) -> tuple[float, float]:
    """Notice that a small step size is the work of a wall, and undo it.

    Where the density ends abruptly, a share w of the trajectories ends outside whatever the step size, mean
    acceptance stays below its target, and the step size would shrink for ever. When it is below a quarter of the
    first one and w exceeds 0.05, it is put back there, and the target becomes (1 - w) times itself.

    Returns:
        The log step size and w, 0 where there is no wall.
    """
    least = float(np.log(first_step(kept.dim) / 4.0))
    share = float(1.0 - np.isfinite(kept.change).mean())
    return (least, share) if share > 0.05 and log_step < least else (log_step, 0.0)


def gaussian_gradients(positions: np.ndarray, correlated: bool = True) -> np.ndarray:
    """Gradients of the Gaussian that fits some positions: at a wall the target's own say nothing of its scale."""
    centred = positions - positions.mean(axis=0)
    if not correlated:
        return -centred / (centred.var(axis=0) + 1e-300)
    covariance = np.atleast_2d(np.cov(centred, rowvar=False))
    ridge = 1e-9 * np.trace(covariance) / len(covariance) + 1e-300
    return -np.linalg.solve(covariance + ridge * np.eye(len(covariance)), centred.T).T


def stuck_chains(kept: Rows, crude: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Which chains are stuck, and which of those do not move at all.

    A chain is still when its mean acceptance is below 0.02. It is stuck when it is still, or when the mode that it
    explores has no mass worth a chain. A mode's mass is exp(mean log density) times its volume, so with g the gap of
    the mean log densities and v the logarithm of the ratio of volumes, bounded from above by the coordinates'
    standard deviations within the window, its weight is about exp(v - g). A chain is stuck when

        g > 10 + 3 sqrt(d) + min(max(v, 0), 2 d),

    where 3 sqrt(d) allows for the spread of window means (the log density has standard deviation sqrt(d / 2)). The
    bound 2 d is for chains that travel, whose volume means nothing: where the mean log density of the two halves of
    the window differs by less than 1 + 3 sqrt(d / 2), v counts in full.

    Args:
        kept: The window's rows.
        crude: While chains are still on their way, g > 30 + 2 d is also needed.
    """
    still = kept.acceptance().mean(axis=0) < 0.02
    heights = kept.log_density.mean(axis=0)
    heights_of_moving = np.where(still, -np.inf, heights)
    best = int(np.argmax(heights_of_moving))
    generous = 30.0 + 2.0 * kept.dim
    spread = np.log(kept.positions.var(axis=0) + 1e-300)
    volume = 0.5 * np.maximum(spread - spread[best], 0.0).sum(axis=-1)
    half = len(kept.log_density) // 2
    trend = kept.log_density[-half:].mean(axis=0) - kept.log_density[:half].mean(axis=0) if half else np.inf
    settled = np.abs(trend) < 1.0 + 3.0 * np.sqrt(kept.dim / 2)
    least = 10.0 + 3.0 * np.sqrt(kept.dim)
    margin = np.where(settled, least + volume, np.minimum(generous, least + np.minimum(volume, 2.0 * kept.dim)))
    if crude:
        margin = np.maximum(margin, generous)
    return still | (heights < heights_of_moving[best] - margin), still
