"""Posterior predictive checks: does the fitted model produce data like those observed?

For a statistic T the share of replicated data sets with T(y_rep) > T(y), ties counted half, is near 0 or 1 where the
model does not reproduce it. It is conservative, for the data were used to fit (Gelman, Meng, Stern, 1996).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .markup import Markup, code, figure, join, number, table, tag
from .section import Concern
from .svg import Plot, clip

REPLICATES, NUMBERS = 400, 20_000_000
"""Most replicated data sets, and most numbers that they may have together."""

SITES, BINS, SUSPECT = 8, 30, 0.01
"""Sites that are shown, bins of their histograms, and the tail probability that is remarked."""


def predictive(fit: Any) -> tuple[Markup, list[Concern]]:
    """A histogram with predictive intervals and a table of statistics for each observed site."""
    if fit.program is None:
        return tag("p", "The fit does not know its model, so nothing can be replicated. Open it with its program."), []
    given = fit.dataset("observed_data").data_vars
    data = {str(name): np.asarray(value.values) for name, value in given.items() if value.size}
    if not data:
        return tag("p", "Nothing is observed, so there is nothing to check."), []
    families = {name: info.family for name, info in fit.program.learned().items()}
    partly = [name for name in data if "HalfCensored" in str(families.get(name))]
    shown = {name: data[name] for name in [n for n in data if n not in partly][:SITES]}
    replicated = replicates(fit, shown) if shown else {}
    intro = (
        "Points are counts of the observed values, bars and whiskers the median and 90% of the counts in replicated "
        "data. Where points lie outside of several whiskers, the model does not produce such data."
    )
    parts: list[Any] = [tag("p", intro)] if shown else []
    for name in partly:
        why = " is censored at times that the model does not simulate, so replications of it cannot be compared."
        parts.append(tag("p", "The site ", code(name), why))
    concerns: list[Concern] = []
    for place, (name, value) in enumerate(shown.items()):
        y, rep = complete(value, replicated[name])
        if not y.size:
            parts.append(tag("p", "All values of ", code(name), " are missing."))
            continue
        discrete = value.dtype.kind in "biu"
        rows, odd = _statistics(y, rep, discrete)
        caption = join(["Observed and replicated ", code(name), f" ({y.size:,} values, {len(rep)} replications)"])
        header = ("statistic", "observed", "replicated 5%", "50%", "95%", "share above observed")
        drawn = _plot(name, y, rep, discrete, f"predictive-{place}")
        parts += [figure(drawn, caption), table(header, rows, f"Statistics of {name}")]
        if odd:
            text = join(["The model does not reproduce the ", ", ".join(odd), " of ", code(name), "."])
            concerns.append(Concern(False, text, "See the predictive check.", draws=False))
    if len(data) > len(shown) + len(partly):
        parts.append(tag("p", f"{len(data) - len(shown) - len(partly)} more observed sites are not shown."))
    return join(parts), concerns


def replicates(fit: Any, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Replicated data by site, shape (replications, ...), from evenly spaced draws."""
    chains = fit.draws.shape[0]
    numbers = sum(value.size for value in data.values())
    most = min(REPLICATES, max(NUMBERS // max(numbers, 1), chains))
    found = fit.predict(names=list(data), draws=max(most // chains, 1))
    return {name: found[name].values.reshape(-1, *found[name].shape[2:]) for name in data}


def complete(value: np.ndarray, replicated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Known values and their replications, flat.

    Example:
        >>> y, rep = complete(np.array([1.0, np.nan]), np.array([[3.0, 4.0], [5.0, 6.0]]))
        >>> y.tolist(), rep.tolist()
        ([1.0], [[3.0], [5.0]])
    """
    known = ~np.ma.getmaskarray(value) & np.isfinite(np.ma.getdata(value).astype(float))
    flat = np.ma.getdata(value).astype(float)[known]
    return flat, replicated.reshape(len(replicated), -1)[:, known.ravel()].astype(float)


def _statistics(y: np.ndarray, rep: np.ndarray, discrete: bool) -> tuple[list[list[str]], list[str]]:
    functions: dict[str, Callable[..., Any]] = {"mean": np.mean}
    if y.size > 1:
        functions |= {"standard deviation": np.std, "smallest": np.min, "largest": np.max}
    if discrete:
        functions["share of zeros"] = lambda v, axis=None: np.mean(v == 0, axis=axis)
    rows, odd = [], []
    for name, function in functions.items():
        here, there = float(function(y)), np.asarray(function(rep, axis=1))
        tie = np.isclose(there, here, rtol=1e-9, atol=0.0)
        above = float(np.mean((there > here) & ~tie) + 0.5 * np.mean(tie))
        rows.append([name, number(here), *(number(q) for q in np.quantile(there, (0.05, 0.5, 0.95))), f"{above:.3f}"])
        if len(rep) >= 100 and min(above, 1.0 - above) < SUSPECT:
            odd.append(name)
    return rows, odd


def bins_of(y: np.ndarray, rep: np.ndarray, discrete: bool) -> np.ndarray:
    """Edges of the bins: one for each whole number where these are few; extremes share the outermost bins.

    Example:
        >>> bins_of(np.array([0.0, 1.0]), np.array([[0.0, 2.0]]), True)
        array([-0.5,  0.5,  1.5,  2.5])
    """
    low, high = np.quantile(rep, (0.002, 0.998))
    low, high = min(low, y.min()), max(high, y.max())
    if discrete:
        low, high = np.floor(low), np.ceil(high)
        step = max(1.0, np.ceil((high - low + 1) / (2 * BINS)))
        return np.arange(low, high + 1.5 * step, step) - 0.5
    if not high > low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, int(np.clip(2 * y.size ** (1 / 2), 8, BINS)) + 1)


def _plot(name: str, y: np.ndarray, rep: np.ndarray, discrete: bool, slug: str) -> Markup:
    edges = bins_of(y, rep, discrete)
    inside = (edges[0], np.nextafter(edges[-1], -np.inf))
    here = np.histogram(np.clip(y, *inside), edges)[0]
    place = np.clip(np.searchsorted(edges, np.clip(rep, *inside), "right") - 1, 0, len(edges) - 2)
    there = np.stack([np.bincount(row, minlength=len(edges) - 1) for row in place])
    low, middle, high = np.quantile(there, (0.05, 0.5, 0.95), axis=0)
    centre = (edges[:-1] + edges[1:]) / 2
    top = 1.08 * max(high.max(), here.max(), 1.0)
    plot = Plot(640, 260, (edges[0], edges[-1]), (0.0, float(top)), clip(name, 60), "count", "Predictive check")
    gap = 0.08 * (edges[1] - edges[0])
    plot.bars(edges[:-1] + gap, edges[1:] - gap, middle, "bar pale")
    plot.intervals(centre, low, high, "whisker")
    plot.points(centre, here, "observed")
    outside = int(np.sum((here < low) | (here > high)))
    text = f"Of {len(here)} bins {outside} hold a number of observed values outside of the 90% of replicated data."
    return plot.svg(slug, f"Predictive check of {name}", text)
