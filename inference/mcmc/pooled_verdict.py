r"""What pooled HMC says of a run that its posterior defeats: why the draws may not be trusted, and what would help.

Four things defeat chains that share one metric and one step size: a scale that depends on the position (no metric
fits: many leapfrogs per independent draw, and gradients whose size follows one coordinate), places narrower than a
step (chains stick), modes that no chain leaves (chains differ in location by more than any of them moves), and slow
mixing of unknown cause (R-hat alone).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from . import pooled_warmup as warmup
from .pooled_stuck import PERIOD, SPELL, often

if TYPE_CHECKING:
    from .pooled import PooledHMC
    from .pooled_warmup import Carry

APART = 3.0
"""Distance of neighbouring chain means, in standard deviations within chains, from which they count as separate."""

_HARD, _DISAGREE, _SHOWN = 8.0, 1.05, 3


def regions(means: np.ndarray, spread: np.ndarray, heights: np.ndarray) -> list[dict[str, Any]]:
    """Groups of chains that explore separate regions: their means are far apart, measured by how far a chain moves.

    Args:
        means: Mean position of each chain, shape (C, d).
        spread: Standard deviation within chains, shape (d,).
        heights: Mean log density of each chain, shape (C,).

    Returns:
        For each region, the most chains first, the number of its chains, their mean log density (``height``), and the
        coordinate that tells the regions apart best, with the chains' mean there (``centre``); empty if there is one.

    Example:
        >>> found = regions(np.array([[0.1], [9.0], [-0.1]]), np.ones(1), np.array([-1.0, -4.0, -1.2]))
        >>> [(r["chains"], r["coordinate"], r["centre"]) for r in found]
        [(2, 0, 0.0), (1, 0, 9.0)]
    """
    order = np.argsort(means, axis=0, kind="stable")
    gaps = np.diff(np.take_along_axis(means, order, axis=0), axis=0) / np.maximum(spread, np.finfo(float).tiny)
    if not len(gaps) or not (gaps > APART).any():
        return []
    codes = np.zeros(means.shape, int)
    np.put_along_axis(codes, order[1:], np.cumsum(gaps > APART, axis=0), axis=0)
    _, group = np.unique(codes, axis=0, return_inverse=True)
    best = int(np.argmax(gaps.max(axis=0)))
    found = []
    for number in range(int(group.max()) + 1):
        inside = group.reshape(-1) == number
        facts = {"chains": int(inside.sum()), "height": float(heights[inside].mean()), "coordinate": best}
        found.append(facts | {"centre": float(means[inside, best].mean())})
    return sorted(found, key=lambda r: (-r["chains"], r["centre"]))


def judged(carry: Carry, heights: np.ndarray) -> list[dict[str, Any]]:
    """``regions`` of the draws so far, where R-hat says that the chains disagree.

    Args:
        carry: With the moments of the draws.
        heights: Mean log density of each chain in the last block, shape (C,).
    """
    if carry.moments is None or carry.rhat is None or carry.rhat < _DISAGREE:
        return []
    means, variances = carry.moments.chains()
    return regions(means, np.sqrt(variances.mean(axis=0)), heights) if len(means) > 1 else []


def advice(engine: PooledHMC, carry: Carry, labels: Any) -> list[str]:
    """What a user should be told about the run; coordinates by name where the target has labels."""
    out = []

    def name(i: int) -> str:
        return str(labels[i]) if labels is not None else f"z[{i}]"

    if carry.done and carry.rhat is not None and carry.rhat > max(engine.rhat, 1.01):
        out.append(f"split R-hat is {carry.rhat:.4g} after {carry.goal} draws per chain: not converged")
    if carry.regions:
        out.append(_separate(carry, name))
    if carry.divergences:
        total = carry.drawn * len(carry.state)
        out.append(f"{carry.divergences} of {total} trajectories diverged while sampling: high curvature somewhere")
    if carry.watch is not None and often(carry.watch.last, len(carry.state)):
        total = len(carry.state) * PERIOD // SPELL
        out.append(
            f"chains stick: {carry.watch.last} of the last {total} spells of {SPELL} trajectories hardly moved, after "
            f"halving the step size {carry.watch.halvings} times; the density is narrower somewhere than a "
            "step, or ends abruptly"
        )
    fit = carry.fit / warmup.noise(carry) ** 2
    if math.isfinite(fit) and fit > _HARD and not carry.regions:
        out.append(
            f"{fit:.3g} leapfrogs per independent draw after learning the metric: the scale depends on the "
            "position; reparametrise, or use NUTS"
        )
    return out if carry.regions else [*out, *_funnels(carry, name)]


def _funnels(carry: Carry, name: Any) -> list[str]:
    out = []
    for scale, members in list(carry.scales.items())[:_SHOWN]:
        shown = ", ".join(name(j) for j in members[:3]) + (", ..." if len(members) > 3 else "")
        out.append(
            f"{name(int(scale))} acts as a log scale of {len(members)} coordinates ({shown}): a funnel; write them "
            "as location + scale * a standard variable (ppl.compile(..., reparameterize=...) does), or use NUTS"
        )
    if len(carry.scales) > _SHOWN:
        out.append(f"{len(carry.scales) - _SHOWN} more coordinates act as log scales")
    return out


def _separate(carry: Carry, name: Any) -> str:
    count = len(carry.regions)
    shown = [f"{r['chains']} near {r['centre']:.4g} (mean log density {r['height']:.4g})" for r in carry.regions[:4]]
    more = f", and {count - 4} more regions" if count > 4 else ""
    return (
        f"separate modes: the chains explore {count} regions and none goes from one to another. Chains by "
        f"{name(carry.regions[0]['coordinate'])}: {', '.join(shown)}{more}. Their shares are those of the starting "
        "points, not the modes' probabilities: use tempering, break a symmetry of the model, or compare heights"
    )
