"""Leave-one-out cross-validation by Pareto-smoothed importance sampling, with the trouble makers by name.

The Pareto shape k of an observation's importance ratios says whether its term can be computed from these draws:
up to min(1 - 1 / log10(draws), 0.7) it can.

References: Vehtari, Gelman, Gabry (2017), Practical Bayesian model evaluation; Vehtari, Simpson, Gelman, Yao, Gabry
(2024), Pareto smoothed importance sampling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..chunks import over_draws
from .markup import Markup, code, figure, join, number, table, tag
from .quantities import Quantities
from .section import Concern
from .svg import Plot

NUMBERS = 30_000_000
"""Most pointwise log likelihoods that are computed; of more draws some are used."""

WORST = 10


@dataclass(frozen=True)
class Loo:
    """The estimate for one observed site.

    Attributes:
        elpd: Expected log predictive density of all observations.
        se: Its standard error.
        effective: Effective number of parameters.
        k: Pareto shape of every observation, flat.
        bound: Value of k above which a term is not to be trusted.
    """

    elpd: float
    se: float
    effective: float
    k: np.ndarray
    bound: float


def loo(fit: Any, q: Quantities) -> tuple[Markup, list[Concern]]:
    """The estimate and the shapes, for each observed site whose factors are one per observation."""
    if fit.program is None and "log_likelihood" not in fit.stored:
        return tag("p", "The fit does not know its model, so there are no pointwise log likelihoods."), []
    likelihoods = pointwise(fit)
    if not likelihoods:
        return tag("p", "Nothing is observed, so nothing can be left out."), []
    relative = _relative(q)
    parts: list[Any] = []
    rows, concerns = [], []
    for place, (name, value) in enumerate(likelihoods.items()):
        if int(np.prod(value.shape[2:])) < 2:
            parts.append(tag("p", "The site ", code(name), " has one factor: there is no observation to leave out."))
            continue
        found = estimate(name, value, relative)
        bad = int(np.sum(~(found.k <= found.bound)))
        rows.append([code(name), number(found.elpd, 5), number(found.se), number(found.effective), f"{found.k.size:,}",
                     f"{bad:,} above {found.bound:.2f}", f"{np.nanmax(found.k):.2f}"])  # fmt: skip
        parts += [_figure(found, name, place), _worst(fit, name, value.shape[2:], found) if bad else None]
        if bad:
            which = "one observation" if bad == 1 else f"{bad:,} observations"
            text = join([f"The leave-one-out estimate of {which} of ", code(name), " cannot be trusted."])
            concerns.append(Concern(False, text, "Look at these observations; compute their terms by refitting."))
    if not rows:
        return join(parts), []
    header = ("site", "elpd", "standard error", "effective parameters", "observations", "Pareto k", "largest k")
    return join([table(header, rows, "Expected log predictive density"), *parts]), concerns


def pointwise(fit: Any) -> dict[str, np.ndarray]:
    """Log factors of the observed sites, shape (chains, draws, ...), of evenly spaced draws where they are many."""
    if "log_likelihood" in fit.stored:
        return {name: value.values for name, value in fit.stored["log_likelihood"].data_vars.items()}
    from ..groups import shapes

    chains, draws = fit.draws.positions.shape[:2]
    numbers = sum(math.prod(x.shape) for x in shapes(fit, "log_likelihood").values())
    if numbers <= NUMBERS:
        return dict(fit.group("log_likelihood"))
    keep = np.unique(np.linspace(0, draws - 1, max(int(draws * NUMBERS / numbers), 25)).round().astype(int))
    with fit._context():
        return over_draws(fit.density, "pointwise", fit.draws.positions[:, keep])


def estimate(name: str, values: np.ndarray, relative: float) -> Loo:
    """PSIS-LOO of pointwise log likelihoods by the installed ArviZ.

    Args:
        name: Name of the site.
        values: Shape (chains, draws, ...).
        relative: Effective draws per draw.
    """
    import importlib.metadata

    import arviz as az

    flat = np.asarray(values, float).reshape(*values.shape[:2], -1)
    groups = {"posterior": {"any": flat[:, :, 0]}, "log_likelihood": {"y": flat}}
    modern = int(importlib.metadata.version("arviz").split(".")[0]) >= 1
    data = az.from_dict(groups) if modern else az.from_dict(**groups)
    found = az.loo(data, pointwise=True, reff=relative)
    names = ("elpd", "se", "p") if modern else ("elpd_loo", "se", "p_loo")
    elpd, se, effective = (float(getattr(found, n)) for n in names)
    shape = np.asarray(found.pareto_k, float).ravel()
    bound = min(1.0 - 1.0 / math.log10(max(flat.shape[0] * flat.shape[1], 20)), 0.7)
    return Loo(elpd, se, effective, shape, bound)


def _relative(q: Quantities) -> float:
    bulk = np.where(q.constant, np.nan, q.column("bulk"))
    if not np.isfinite(bulk).any():
        return 1.0
    return float(min(np.nanmean(bulk) / (q.fit.draws.positions[..., 0].size), 1.0))


def _figure(found: Loo, name: str, place: int) -> Markup:
    k = found.k
    keep = np.arange(k.size) if k.size <= 4000 else np.sort(np.argsort(-np.nan_to_num(k, nan=9.0))[:4000])
    top = max(1.0, float(np.nanmax(k)) * 1.05) if np.isfinite(k).any() else 1.0
    low = min(-0.2, float(np.nanmin(k)) * 1.05) if np.isfinite(k).any() else 0.0
    plot = Plot(640, 240, (-0.5, max(k.size - 0.5, 0.5)), (low, top), "observation", "Pareto k", "Leave-one-out shapes")
    bad = ~(k[keep] <= found.bound)
    plot.level(found.bound, "expected", f"{found.bound:.2f}")
    plot.points(keep[~bad], k[keep][~bad], "observed")
    plot.crosses(keep[bad], np.nan_to_num(k[keep][bad], nan=top), "divergent", 4.0)
    text = (
        f"{int(bad.sum())} of {k.size} observations have k above {found.bound:.2f}; the largest is {np.nanmax(k):.2f}."
    )
    drawn = plot.svg(f"loo-{place}", f"Pareto k of {name}", text)
    return figure(
        drawn, join(["Observations of ", code(name), " in order. Crosses above the line: not to be trusted."])
    )


def _worst(fit: Any, name: str, shape: tuple[int, ...], found: Loo) -> Markup:
    order = np.argsort(-np.nan_to_num(found.k, nan=np.inf), kind="stable")[:WORST]
    order = [int(i) for i in order if not found.k[i] <= found.bound]
    labels = _labels(fit, name, shape)
    rows = [(code(labels(i)), f"{found.k[i]:.2f}") for i in order]
    return table(("observation", "Pareto k"), rows, f"Observations of {name} with the largest k")


def _labels(fit: Any, name: str, shape: tuple[int, ...]) -> Any:
    site = fit.program.sites.get(name) if fit.program is not None else None
    dims = site.dims[: len(shape)] if site is not None else ()
    coords = fit.program.coords if fit.program is not None else {}

    def label(i: int) -> str:
        index = np.unravel_index(i, shape)
        words = []
        for axis, (place, size) in enumerate(zip(index, shape, strict=True)):
            known = coords.get(dims[axis]) if axis < len(dims) else None
            words.append(str(known[place]) if known is not None and len(known) == size else str(place))
        return f"{name}[{', '.join(words)}]"

    return label
