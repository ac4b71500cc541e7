"""Leave-one-out cross-validation: the estimate of ``criticism.loo``, and the observations that spoil it, by name.

The Pareto shape k of an observation's importance ratios says whether its term can be computed from these draws. Terms
with too large a k are computed again with moment matching, which costs evaluations of the density but no refit.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from ..core import Draws
from ..groups import shapes
from .markup import Markup, code, figure, join, number, table, tag
from .section import Concern
from .svg import Plot

NUMBERS = 30_000_000
"""Most pointwise log likelihoods that are used; of more draws some are taken."""

WORST, POINTS = 10, 4000


def loo(fit: Any) -> tuple[Markup, list[Concern]]:
    """The estimate and the shapes, for each observed site whose factors are one per observation."""
    from ..criticism import loo as leave_one_out

    likelihoods = fit.dataset("log_likelihood")
    names = list(likelihoods.data_vars)
    if not names:
        why = "nothing is observed" if fit.program is not None else "the fit does not know its model"
        return tag("p", f"There are no pointwise log likelihoods: {why}."), []
    fit = _thinned(fit)
    parts: list[Any] = []
    rows, concerns = [], []
    for place, name in enumerate(names):
        if math.prod(likelihoods[name].shape[2:]) < 2:
            parts.append(tag("p", "The site ", code(name), " has one factor: there is no observation to leave out."))
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is told below
            found = leave_one_out(fit, site=name, method="moment_match" if fit.density is not None else "psis")
        bad = len(found.bad)
        rows.append([code(name), number(found.elpd, 4), number(found.se), number(found.p_loo), f"{found.k.size:,}",
                     f"{bad:,} above {found.threshold:.2f}", f"{np.max(found.k):.2f}", _methods(found)])  # fmt: skip
        parts += [_figure(found, name, place), _worst(found, name)]
        if bad:
            which = "one observation" if bad == 1 else f"{bad:,} observations"
            text = join([f"The leave-one-out estimate of {which} of ", code(name), " cannot be trusted."])
            remedy = "Look at these observations; loo(fit, method='refit') computes their terms."
            concerns.append(Concern(False, text, remedy, draws=False))
    if not rows:
        return join(parts), []
    header = (
        "site",
        "elpd",
        "error",
        "effective parameters",
        "observations",
        "Pareto k",
        "largest k",
        "computed again",
    )
    return join([table(header, rows, "Expected log predictive density"), *parts]), concerns


def _methods(found: Any) -> str:
    again = int((np.asarray(found.methods) == "moment_match").sum())
    return f"{again:,} by moment matching" if again else "none"


def _thinned(fit: Any) -> Any:
    """The fit with fewer draws, evenly spaced, where its log likelihoods would be too many."""
    chains, draws = fit.draws.shape[:2]
    if "log_likelihood" in fit.stored:
        numbers = sum(math.prod(value.shape) for value in fit.stored["log_likelihood"].data_vars.values())
    else:
        numbers = sum(math.prod(value.shape) for value in shapes(fit, "log_likelihood").values())
    most = max(int(draws * NUMBERS / max(numbers, 1)), 25)
    if most >= draws or fit.density is None:
        return fit
    keep = np.unique(np.linspace(0, draws - 1, most).round().astype(int))
    return replace(fit, draws=Draws(fit.draws.positions[:, keep], {}), stored={})


def _figure(found: Any, name: str, place: int) -> Markup:
    k = np.minimum(np.nan_to_num(np.asarray(found.k, float), nan=np.inf, posinf=np.inf), 2.0)
    keep = np.arange(k.size) if k.size <= POINTS else np.sort(np.argsort(-k, kind="stable")[:POINTS])
    low, high = min(-0.2, float(k.min()) * 1.05), max(1.0, float(k.max()) * 1.05)
    plot = Plot(
        640, 240, (-0.5, max(k.size - 0.5, 0.5)), (low, high), "observation", "Pareto k", "Leave-one-out shapes"
    )
    bad = k[keep] > found.threshold
    plot.level(found.threshold, "expected", f"{found.threshold:.2f}")
    plot.points(keep[~bad], k[keep][~bad], "observed")
    plot.crosses(keep[bad], k[keep][bad], "divergent", 4.0)
    text = (
        f"{int(bad.sum())} of {k.size} observations have k above {found.threshold:.2f}; the largest is {k.max():.2f}."
    )
    drawn = plot.svg(f"loo-{place}", f"Pareto k of {name}", text)
    return figure(drawn, join(["Observations of ", code(name), " in order; crosses above the line cannot be trusted."]))


def _worst(found: Any, name: str) -> Markup:
    order = np.argsort(-np.asarray(found.k), kind="stable")[:WORST]
    rows = [(code(found.labels[i]), f"{found.k[i]:.2f}", number(found.elpd_i[i]), str(found.methods[i])) for i in order]
    return table(("observation", "Pareto k", "elpd", "computed by"), rows, f"Observations of {name} with the largest k")
