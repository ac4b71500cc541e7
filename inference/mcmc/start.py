r"""Where chains start: dispersed points, brought up to the height of the typical set by a lockstep ascent.

The ladder: (1) z ~ U(-2, 2); (2) chains where the log density or its gradient is not finite draw again, then
from the prior where the model offers one, then uniformly in shrinking boxes; (3) those still inadmissible start
at another chain's point; (4) all chains climb by L-BFGS, one batched evaluation per iteration. With H the
quasi-Newton estimate of the inverse of minus the Hessian, g' H g / 2 is the height still to climb, and draws of a
d-dimensional Gaussian lie d/2 below its mode: a chain stops when g' H g < d, because the mode itself may lie in
a funnel, far from where the mass is. The pairs (step, change of gradient) give the first metric for nothing.

Reference: Nocedal and Wright (2006), Numerical Optimization, algorithm 7.4; Stan's U(-2, 2) starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..core import host_rng

Evaluate = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

_REDRAWS = 3
_PRIOR_DRAWS = 5
_SHRUNKEN = (1.0, 0.5, 0.2, 0.05, 0.01)
_ITERATIONS = 150
_ENOUGH_PAIRS = 5


class StartError(ValueError):
    """No admissible starting point was found.

    Attributes:
        position: The most promising position tried, shape (d,).
        log_density: Log density there.
        gradient: Gradient there, shape (d,).
        log: What was tried, line by line.
    """

    def __init__(self, position: np.ndarray, log_density: float, gradient: np.ndarray, log: list[str]):
        """Keep what a driver needs to explain the failure in the model's own terms."""
        bad = int(np.sum(~np.isfinite(gradient)))
        super().__init__(
            "no starting point has a finite log density and gradient:\n  "
            + "\n  ".join(log)
            + f"\nat the most promising one the log density is {log_density} and {bad} of {len(gradient)} "
            "gradient entries are not finite. Check the support and the priors, or pass init=."
        )
        self.position, self.log_density, self.gradient, self.log = position, log_density, gradient, log


@dataclass(frozen=True)
class Start:
    """Starting points of all chains and what the way there taught.

    Attributes:
        positions: Shape (C, d).
        log_density: Shape (C,).
        gradients: Shape (C, d).
        steps: Steps s of the stored quasi-Newton pairs, shape (pairs, d).
        changes: Changes y of the gradient along them, shape (pairs, d).
        evaluations: Batched evaluations spent.
        inadmissible: First positions at which the log density or its gradient was not finite, shape (k, d).
        log: What was done, line by line.
    """

    positions: np.ndarray
    log_density: np.ndarray
    gradients: np.ndarray
    steps: np.ndarray
    changes: np.ndarray
    evaluations: int
    inadmissible: np.ndarray
    log: list[str] = field(default_factory=list)


def find_start(
    evaluate: Evaluate,
    random: Callable[[int], np.random.Generator],
    shape: tuple[int, int],
    init: np.ndarray | None = None,
    prior: Callable[[int], np.ndarray] | None = None,
    explain: Evaluate | None = None,
) -> Start:
    """Climb the ladder of the module's docstring.

    Args:
        evaluate: Positions (C, d) to log densities (C,) and gradients (C, d); -inf where either is not finite.
        random: Gives an independent generator for each round.
        shape: (C, d).
        init: Positions to start at instead, shape (C, d); a chain keeps its own unless it is inadmissible or
            its log density is more than 30 + 2 d below where the ascent from it arrives.
        prior: Gives C draws of the prior, shape (C, d), for each round; a ``ValueError`` says why it cannot.
        explain: Like ``evaluate`` but returning the values as they are; used once, before failing.

    Returns:
        Starting points, pairs and a log.

    Raises:
        StartError: If no chain found an admissible point.
        ValueError: If ``init`` has the wrong shape.

    Example:
        >>> start = find_start(lambda z: (-0.5 * (z**2).sum(1), -z), lambda i: np.random.default_rng(i), (4, 3))
        >>> bool(start.log_density.min() > -5.0)
        True
    """
    log: list[str] = []
    counted = _Counter(evaluate)
    if init is None:
        z = random(0).uniform(-2.0, 2.0, shape)
    else:
        z = np.array(init, dtype=np.float64)
        if z.shape != shape:
            raise ValueError(f"init has shape {z.shape}; this run needs (chains, dimension) = {shape}")
    tried = [z]
    lp, g = counted(z)
    inadmissible = z[~np.isfinite(lp)]
    if len(inadmissible):
        z, lp, g = _redraw(counted, random, prior, (z, lp, g), tried, log)
    if not np.any(np.isfinite(lp)):
        _fail(explain or evaluate, tried, log)
    bad = ~np.isfinite(lp)
    if np.any(bad):
        source = random(99).choice(np.flatnonzero(~bad), int(bad.sum()))
        z[bad], lp[bad], g[bad] = z[source], lp[source], g[source]
        log.append(f"{int(bad.sum())} chains found no admissible point and start at another chain's")
    with np.errstate(over="ignore", invalid="ignore"):  # trial steps may land where gradients are huge
        top, lp_top, g_top, steps, changes = ascend(counted, z, lp, g)
    log.append(
        f"ascent: log density {np.min(lp):.6g}...{np.max(lp):.6g} -> {np.min(lp_top):.6g}...{np.max(lp_top):.6g}, "
        f"{len(steps)} curvature pairs"
    )
    if init is not None:
        keep = lp_top - lp < 30.0 + 2.0 * shape[1]
        top, lp_top = np.where(keep[:, None], z, top), np.where(keep, lp, lp_top)
        g_top = np.where(keep[:, None], g, g_top)
        if not keep.all():
            log.append(f"{int((~keep).sum())} chains leave their init, more than 30 + 2 d below the ascent's end")
    return Start(top, lp_top, g_top, steps, changes, counted.calls, inadmissible, log)


class _Counter:
    def __init__(self, evaluate: Evaluate):
        self.evaluate, self.calls = evaluate, 0

    def __call__(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.calls += 1
        lp, g = self.evaluate(z)
        return np.array(lp, np.float64), np.array(g, np.float64)


Point = tuple[np.ndarray, np.ndarray, np.ndarray]


def _redraw(
    evaluate: Evaluate,
    random: Callable[[int], np.random.Generator],
    prior: Callable[[int], np.ndarray] | None,
    point: Point,
    tried: list[np.ndarray],
    log: list[str],
) -> Point:
    """Draw inadmissible chains again: uniformly, from the prior, then in shrinking boxes."""
    z, lp, g = (np.array(x) for x in point)
    chains = len(z)
    log.append(f"first positions: {int(np.sum(~np.isfinite(lp)))} of {chains} chains are inadmissible")

    def box(width: float) -> tuple[str, Callable[[int], np.ndarray]]:
        return f"U(-{width:g}, {width:g})", lambda number: random(number).uniform(-width, width, z.shape)

    rungs = [box(2.0)] * _REDRAWS
    if prior is not None:
        rungs += [("the prior", prior)] * _PRIOR_DRAWS
    rungs += [box(width) for width in _SHRUNKEN]
    refused = False
    for number, (name, draw) in enumerate(rungs, start=1):
        bad = ~np.isfinite(lp)
        if not bad.any():
            break
        if name == "the prior" and refused:
            continue
        try:
            fresh = np.asarray(draw(number), np.float64)
        except ValueError as error:
            refused = True
            log.append(f"the prior cannot be drawn from: {str(error).splitlines()[0] if str(error) else error!r}")
            continue
        tried.append(fresh)
        trial = np.where(bad[:, None], fresh, z)
        lp_new, g_new = evaluate(trial)
        won = bad & np.isfinite(lp_new)
        z[won], lp[won], g[won] = trial[won], lp_new[won], g_new[won]
        log.append(f"redrawn from {name}: {int(won.sum())} of {int(bad.sum())} became admissible")
    return z, lp, g


def _fail(explain: Evaluate, tried: list[np.ndarray], log: list[str]) -> None:
    """Raise with the position that is closest to admissible: finite log density, fewest bad gradients."""
    best: tuple[tuple[float, ...], np.ndarray, float, np.ndarray] | None = None
    for z in tried:
        lp, g = (np.asarray(x, np.float64) for x in explain(z))
        for i in range(len(z)):
            bad = float(np.sum(~np.isfinite(g[i])))
            key = (float(np.isfinite(lp[i])), -bad, -float(np.isnan(lp[i])), lp[i] if np.isfinite(lp[i]) else 0.0)
            if best is None or key > best[0]:
                best = (key, z[i], float(lp[i]), g[i])
    assert best is not None  # noqa: S101 - `tried` holds at least the first positions
    raise StartError(best[1], best[2], best[3], log)


def ascend(
    evaluate: Evaluate, z: np.ndarray, lp: np.ndarray, g: np.ndarray, iterations: int = _ITERATIONS
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Climb with all chains in lockstep until 95% of them have the height of the typical set.

    A step that fails Armijo's condition is tried again at a quarter of its length in the next iteration.

    Args:
        evaluate: As in ``find_start``.
        z: Admissible positions, shape (C, d).
        lp: Log densities there, shape (C,).
        g: Gradients there, shape (C, d).
        iterations: Most evaluations.

    Returns:
        Positions, log densities, gradients; steps and gradient changes of all pairs in memory, (pairs, d) each.
    """
    chains, dim = z.shape
    memory = Memory.empty(chains, min(10, max(dim, 3)), dim)
    stored = np.zeros(chains, int)
    t = np.ones(chains)
    done = np.zeros(chains, bool)
    direction = g / np.maximum(np.linalg.norm(g, axis=1), np.finfo(float).tiny)[:, None]
    slope = np.sum(g * direction, axis=1)
    for _ in range(iterations):
        trial = z + np.where(done, 0.0, t)[:, None] * direction
        lp_new, g_new = evaluate(trial)
        good = ~done & np.isfinite(lp_new) & (lp_new >= lp + 1e-4 * t * slope)
        stored += memory.store(good, trial - z, g - g_new)
        gain = np.where(good, lp_new - np.where(good, lp, 0.0), 0.0)
        z, g = np.where(good[:, None], trial, z), np.where(good[:, None], g_new, g)
        lp, t = np.where(good, lp_new, lp), np.where(good, 1.0, 0.25 * t)
        direction, slope = memory.direction(g)
        high = (stored >= _ENOUGH_PAIRS) & (slope < dim) & (gain < dim)
        done |= (good & (high | (slope < 1e-6))) | (t < 1e-12)
        if np.mean(done) >= 0.95:
            break
    kept = memory.rho > 0
    return z, lp, g, memory.steps[kept], memory.changes[kept]


class Memory:
    """L-BFGS memories of all chains: pairs (s, y), newest last; rho = 1 / s.y, or 0 for an empty place."""

    def __init__(self, steps: np.ndarray, changes: np.ndarray, rho: np.ndarray):
        """Shapes (C, m, d), (C, m, d) and (C, m)."""
        self.steps, self.changes, self.rho = steps, changes, rho

    @classmethod
    def empty(cls, chains: int, size: int, dim: int) -> Memory:
        """Memories without pairs."""
        return cls(np.zeros((chains, size, dim)), np.zeros((chains, size, dim)), np.zeros((chains, size)))

    def store(self, where: np.ndarray, s: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Append the pair of each chain in ``where`` that has positive curvature; say which."""
        sy = np.sum(s * y, axis=1)
        keep = where & (sy > 1e-10 * np.linalg.norm(s, axis=1) * np.linalg.norm(y, axis=1))
        for array, new in ((self.steps, s), (self.changes, y), (self.rho, 1.0 / np.where(keep, sy, 1.0))):
            array[keep, :-1] = array[keep, 1:]
            array[keep, -1] = new[keep]
        return keep

    def direction(self, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ascent directions H g by the two-loop recursion and the slopes g' H g.

        A chain without pairs gets g / |g|; one whose direction does not ascend forgets its memory first.
        """
        q = g.copy()
        alphas = []
        size = self.rho.shape[1]
        for i in range(size - 1, -1, -1):
            alpha = self.rho[:, i] * np.sum(self.steps[:, i] * q, axis=1)
            q -= alpha[:, None] * self.changes[:, i]
            alphas.append(alpha)
        newest = np.sum(self.changes[:, -1] ** 2, axis=1)
        some = self.rho[:, -1] > 0
        scale = 1.0 / np.where(some, np.where(some, self.rho[:, -1], 1.0) * np.where(some, newest, 1.0), 1.0)
        q *= scale[:, None]
        for i in range(size):
            beta = self.rho[:, i] * np.sum(self.changes[:, i] * q, axis=1)
            q += (alphas[size - 1 - i] - beta)[:, None] * self.steps[:, i]
        slope = np.sum(g * q, axis=1)
        lost = ~(slope > 0)
        self.rho[lost] = 0.0
        plain = lost | ~some
        norm = np.linalg.norm(g, axis=1)
        q = np.where(plain[:, None], g / np.maximum(norm, np.finfo(float).tiny)[:, None], q)
        return q, np.where(plain, norm, slope)


def generator(seed: int, purpose: int) -> Callable[[int], np.random.Generator]:
    """Independent generators for the rounds of one purpose."""
    return lambda number: host_rng(seed, purpose, number)
