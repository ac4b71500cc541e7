"""Figures of predictive checks. Matplotlib is imported when one is drawn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..calibration import bands


def figure(columns: int = 1, rows: int = 1, size: tuple[float, float] = (6.0, 3.6)) -> tuple[Any, Any]:
    """An empty figure and its axes, without pyplot's global state.

    Raises:
        ImportError: If Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need Matplotlib: pip install 'ppl-jax[plots]'") from error
    made = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    return made, made.subplots(rows, columns, squeeze=False).ravel()


def statistics_figure(check: Any) -> Any:
    """One histogram per statistic, with the observed value and its p-value."""
    columns = min(4, len(check.labels))
    made, axes = figure(columns, math.ceil(len(check.labels) / columns), (3.2, 2.4))
    for axis, label, seen, again, p in zip(
        axes, check.labels, check.observed, check.replicated.T, check.p, strict=False
    ):
        axis.hist(again, bins=30, color="0.8")
        axis.axvline(seen, color="C1")
        axis.set_title(f"{label}, p = {p:.2f}", fontsize=9)
        axis.set_yticks([])
    for axis in axes[len(check.labels) :]:
        axis.set_visible(False)
    made.supxlabel(f"{check.source} predictive ({check.site}) and observed", fontsize=9)
    return made


def densities_figure(found: Any) -> Any:
    """The observed density over those of replicated data."""
    made, (axis,) = figure()
    low, middle, high = np.quantile(found.replicated, (0.05, 0.5, 0.95), axis=0)
    axis.stairs(high, found.edges, baseline=low, fill=True, color="0.85", label="replicated, 90%")
    axis.stairs(middle, found.edges, color="0.5", label="replicated, median")
    axis.stairs(found.observed, found.edges, color="C1", linewidth=1.8, label="observed")
    axis.set_xlabel(found.site)
    axis.set_title(f"{found.source} predictive, {len(found.replicated)} replications", fontsize=9)
    axis.legend(fontsize=8)
    return made


def pit_figure(found: Any) -> Any:
    """The empirical distribution of transforms less the uniform one, with its simultaneous band."""
    made, (axis,) = figure()
    count = len(found.values)
    limits = bands.band(count, 99, 0.95)
    share = limits.points / 100.0
    axis.fill_between(share, limits.lower / count - share, limits.upper / count - share, color="0.85")
    axis.step(share, bands.counts(found.ranks[:, None], 99)[:, 0] / count - share, where="mid", color="C1")
    axis.set_xlabel("probability of less, given the others")
    axis.set_ylabel("share of observations less uniform")
    axis.set_title(f"LOO-PIT of {found.site}, p = {found.p:.2g}", fontsize=9)
    return made
