r"""Warm-up of pooled HMC: windows of growing length, the host learning between compiled blocks.

At the end of a window its last two thirds, pooled over all chains that move and are not far below the best
chain, give the Fisher metric; stuck chains are overwritten by good ones. The new window's top eigenvalues in the
old metric, lA of the draws and lB of the gradients, tell how well that one fitted: sqrt(lA lB) leapfrogs per
independent draw. Directions it missed need longer trajectories: length 1.75 clip(sqrt(lA) / (1 + sqrt(d/N)), 1, 3),
where 1 + sqrt(d/N) is what noise alone does to sqrt(lA). Warm-up ends when height and fit have settled.

Reference: Marchenko and Pastur (1967) for the noise; Robbins and Monro (1951) for the step size.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..adapt import kinds
from ..adapt.scales import log_scales
from ..core import host_rng
from .batch_moments import BatchMoments
from .pooled_block import SIZE, Rows
from .pooled_stuck import Watch, find_wall, first_step, gaussian_gradients, stuck_chains

WINDOWS = (10, 10, 20, 30, 40, 60, 90, 140)
CAPS = (8, 16, 32, 64)
LENGTH = 1.75
JITTER = 0.7
FEW, MANY = 200, 500
"""Dimensions above which a metric that is not dense takes five windows, and where log scales are not looked for."""
START, WARMUP, SAMPLING, RESTART, PRIOR = range(1, 6)  # purposes of host_rng
_GOLDEN = 0.6180339887


@dataclass(frozen=True)
class Carry:
    """State of a pooled HMC run: arrays and plain values only.

    Attributes:
        seed: Seed of the run.
        stage: ``"start"``, ``"window"``, ``"step"`` or ``"sampling"``.
        state: Rows (z, g, log pi), shape (C, 2 d + 1).
        metric: Current metric, None before the start.
        log_step: Log step size.
        length: Mean trajectory length.
        window: Index of the warm-up window.
        diagonal: The diagonal metric of the last window, which the next one judges, or None.
        rows: What the blocks of this stage returned so far, shape (t, C, 2 d + 4).
        iteration: Warm-up trajectories made.
        drawn: Sampling trajectories made.
        goal: Sampling trajectories planned as yet.
        done: Whether the planned work is finished.
        leapfrogs: Leapfrogs (and start evaluations) made by each chain.
        restarts: Chains overwritten in warm-up.
        divergences: Divergent trajectories while sampling.
        wall: Share of trajectories that end outside of the support at any step size (``find_wall``).
        watch: What ``watched`` keeps of the sampling phase, None before.
        fit: sqrt(lA lB) of the last window, inf before.
        height: Mean log density of the last window, None before.
        rhat: Last greatest split R-hat.
        coordinates: Parameters k and t of hierarchical effects (``pooled_coordinates``), shape (2, effects); None
            where positions are in the model's own coordinates.
        moments: Batch sums of the draws, None before sampling.
        regions: Separate regions that the chains explored (``pooled_verdict.regions``).
        scales: Coordinates that act as log scales of others, by their index as text (``log_scales``).
        log: What happened, line by line.
        warnings: What a user should be told.
    """

    seed: int
    stage: str
    state: np.ndarray
    goal: int
    metric: kinds.AnyMetric | None = None
    diagonal: kinds.AnyMetric | None = None
    log_step: float = 0.0
    length: float = LENGTH
    window: int = 0
    rows: np.ndarray | None = None
    iteration: int = 0
    drawn: int = 0
    done: bool = False
    leapfrogs: int = 0
    restarts: int = 0
    divergences: int = 0
    wall: float = 0.0
    watch: Watch | None = None
    fit: float = float("inf")
    height: float | None = None
    rhat: float | None = None
    moments: BatchMoments | None = None
    coordinates: np.ndarray | None = None
    regions: list[dict[str, Any]] = field(default_factory=list)
    scales: dict[str, list[int]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def planned(carry: Carry) -> int:
    """Trajectories of the current warm-up stage."""
    return WINDOWS[carry.window] if carry.stage == "window" else SIZE


def cap(carry: Carry, most: int) -> int:
    """Most leapfrogs of a trajectory: small while the metric is crude."""
    if carry.stage == "window" and carry.window < len(CAPS):
        return min(CAPS[carry.window], most)
    return most


def schedule(stage: str, first: int, seen: int) -> np.ndarray:
    """Jitter of the length and gain of the step size, shape (SIZE, 2), for the next SIZE trajectories.

    Args:
        stage: Stage of the run.
        first: Running index of the first of them.
        seen: Trajectories made in this stage.
    """
    index = np.arange(first, first + SIZE)
    out = np.zeros((SIZE, 2))
    out[:, 0] = 1.0 + JITTER * (2.0 * np.mod((index + 0.5) * _GOLDEN, 1.0) - 1.0)
    t = np.arange(seen, seen + SIZE)
    if stage == "window":
        out[:, 1] = 3.0 / (t + 2) ** 0.6
    elif stage == "step":
        out[:, 1] = 1.5 / (t + 3) ** 0.6
    return out


def end_step_stage(carry: Carry) -> Carry:
    """Freeze the step size at the mean of its logarithm over the last two thirds."""
    rows = _rows(carry)
    centre = rows.positions.reshape(-1, rows.dim).mean(axis=0, dtype=np.float64)
    log_step = float(rows.log_step[len(rows.values) // 3 :].mean())
    moments = BatchMoments.empty(centre, carry.state.shape[0])
    line = f"sampling with step size {np.exp(log_step):.4g}, trajectory length {carry.length:.3g}"
    return replace(carry, stage="sampling", log_step=log_step, rows=None, moments=moments, log=[*carry.log, line])


def end_window(carry: Carry, restart: bool, simpler: float = 0.0) -> Carry:
    """Learn from a finished window and decide whether another one follows.

    Args:
        carry: With the rows of the window.
        restart: Whether stuck chains are overwritten.
        simpler: As in ``choose_kind``.
    """
    rows = _rows(carry)
    length = len(rows.values)
    kept = Rows(rows.values[length // 3 :].astype(np.float64), rows.dim)
    log_step = float(rows.log_step[length - length // 3 :].mean())
    if carry.window < 2:
        log_step = max(log_step, float(np.log(first_step(rows.dim))))
    log_step, wall = find_wall(kept, log_step) if carry.window >= 1 else (log_step, 0.0)
    stuck, still = stuck_chains(kept, crude=carry.window < 2)
    if stuck.all():
        line = f"window {carry.window + 1}: no chain moves; step size down, metric unchanged"
        lower = min(log_step, float(rows.log_step[-1].mean()))
        return _advance(replace(carry, log_step=lower, log=[*carry.log, line]), settled=False)
    good = ~stuck
    assert carry.metric is not None  # noqa: S101 - set by the start
    kind = carry.metric.kind
    draws, gradients = (x[:, good].reshape(-1, rows.dim) for x in (kept.positions, kept.gradients))
    slopes = gaussian_gradients(draws, carry.metric.dense) if max(wall, carry.wall) else gradients
    carry, fit = choose_kind(carry, kinds.update(carry.metric, draws, slopes), draws, slopes, simpler)
    scales = {str(k): members for k, members in log_scales(draws, gradients).items()} if rows.dim <= MANY else {}
    heights = kept.log_density[:, good]
    height, spread = float(heights.mean()), float(heights.std())
    settled = (
        carry.window >= (2 if rows.dim <= FEW or kind == kinds.DENSE else 4)
        and fit.metric.kind == kind
        and (carry.wall or not wall)  # the metric of the next window is the first to know
        and not (stuck.any() if restart else still.any())
        and carry.height is not None
        and abs(height - carry.height) < 0.5 * spread
        and (fit.leapfrogs > 0.75 * carry.fit or fit.leapfrogs < 1.5)
    )
    trajectory = carry.length
    if carry.window >= 1:
        trajectory = LENGTH * float(np.clip(np.sqrt(fit.draws_top) / noise(carry, fit.count), 1.0, 3.0))
    if restart and stuck.any():
        told = left(carry, kept, stuck & ~still, height)
        carry = replace(_restarted(carry, stuck), warnings=[*carry.warnings, *told])
    line = (
        f"window {carry.window + 1}: {length} trajectories, log density {height:.6g} +- {spread:.3g}, step size "
        f"{np.exp(log_step):.4g}, leapfrogs per independent draw {fit.leapfrogs:.3g}"
        + (f", {int(stuck.sum())} stuck chains {'restarted' if restart else 'kept'}" if stuck.any() else "")
    )
    learnt = replace(
        carry,
        metric=fit.metric,
        log_step=log_step,
        length=trajectory,
        wall=max(carry.wall, wall),
        fit=fit.leapfrogs,
        height=height,
        scales=scales,
        log=[*carry.log, line],
    )
    return _advance(learnt, settled)


def _restarted(carry: Carry, stuck: np.ndarray) -> Carry:
    """Stuck chains go on from where others are."""
    count, state = int(stuck.sum()), carry.state.copy()
    state[stuck] = state[host_rng(carry.seed, RESTART, carry.window).choice(np.flatnonzero(~stuck), count)]
    return replace(carry, state=state, restarts=carry.restarts + count)


def left(carry: Carry, kept: Rows, low: np.ndarray, height: float) -> list[str]:
    """What a user is told of chains in a mode of small mass that are overwritten once others have settled."""
    if carry.window < 2 or not low.any():
        return []
    gap = height - float(kept.log_density[:, low].mean())
    return [
        f"window {carry.window + 1}: {int(low.sum())} chains explored a region {gap:.3g} nats below the others, of "
        "negligible mass by height and width, and were restarted elsewhere; restart=False keeps them"
    ]


def choose_kind(
    carry: Carry, fit: kinds.Fit, draws: np.ndarray, gradients: np.ndarray, simpler: float
) -> tuple[Carry, kinds.Fit]:
    """Go over to a diagonal metric where that promises nearly as much.

    Both metrics were learned from the window before and are judged on this one, and so that noise is not held
    against the richer one only when that window had at least two draws per dimension (a dense metric) or was the
    third (one of low rank).

    Args:
        carry: The run.
        fit: What the window made of the metric in use.
        draws: Pooled draws of the window, shape (rows, d).
        gradients: Their gradients.
        simpler: How many times the leapfrogs per independent draw of the metric in use a diagonal one may take,
            given how much cheaper it is; 0 for never.

    Returns:
        The carry with the diagonal metric of this window, and the fit: that of the diagonal metric if it is chosen.
    """
    assert carry.metric is not None  # noqa: S101 - set by the start
    if not simpler or carry.window < 1 or carry.metric.kind == kinds.DIAGONAL:
        return carry, fit
    candidate = kinds.diagonal(draws, gradients, carry.metric)
    before = WINDOWS[carry.window - 1] * 2 // 3 * len(carry.state)
    known = before >= 2 * draws.shape[1] if carry.metric.dense else carry.window >= 3
    judged = kinds.promise(carry.diagonal, draws, gradients, carry.metric) if known and carry.diagonal else None
    if judged is None or judged.leapfrogs > simpler * fit.leapfrogs:
        return replace(carry, diagonal=candidate), fit
    line = f"diagonal metric from here: {judged.leapfrogs:.3g} leapfrogs per independent draw, {carry.metric.kind} "
    line += f"{fit.leapfrogs:.3g} at a higher price each"
    return replace(carry, diagonal=None, log=[*carry.log, line]), replace(judged, metric=candidate)


def noise(carry: Carry, count: float | None = None) -> float:
    """What sampling noise alone makes of the root of a top eigenvalue, 1 + sqrt(d/N).

    Args:
        carry: The run.
        count: N, half the number of draws; that of the whole last window unless given.
    """
    length = WINDOWS[carry.window]
    count = (length - length // 3) * len(carry.state) / 2 if count is None else count
    return 1.0 + float(np.sqrt((carry.state.shape[1] - 1) / 2 / count))


def _advance(carry: Carry, settled: bool) -> Carry:
    """The next window, or the step-size stage after the last."""
    if settled:
        return replace(carry, stage="step", rows=None)
    if carry.window + 1 < len(WINDOWS):
        return replace(carry, window=carry.window + 1, rows=None)
    text = "warm-up did not settle: log density or metric still changed in the last window"
    return replace(carry, stage="step", rows=None, warnings=[*carry.warnings, text])


def _rows(carry: Carry) -> Rows:
    assert carry.rows is not None  # noqa: S101 - called at the end of a stage
    return Rows(carry.rows, (carry.state.shape[1] - 1) // 2)
