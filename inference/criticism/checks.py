r"""Predictive checks: do data that the model makes look like the data that it was given?

For replicated data y_rep ~ p(y | theta), theta from the posterior (or from the prior), and a statistic T,

    p = P(T(y_rep) > T(y)) + P(T(y_rep) = T(y)) / 2.

Under the posterior the same data are used twice, so p is near 1/2 more often than a uniform number would be: extreme
values speak against the model, middling ones speak weakly for it. Leave-one-out transforms (``pit``) use them once.

References: Gelman, Meng and Stern (1996), Posterior predictive assessment of model fitness via realized discrepancies;
Gelman et al. (2020), Bayesian workflow; Gabry et al. (2019), Visualization in Bayesian workflow.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .pit import LooPit, loo_pit
from .replicas import observed_site, observed_values, replicated

__all__ = ["Check", "Densities", "LooPit", "densities", "loo_pit", "statistics"]

Array = np.ndarray

STATISTICS: dict[str, Callable[[Array], Any]] = {
    "mean": np.mean,
    "sd": np.std,
    "min": np.min,
    "max": np.max,
    "median": np.median,
    "zeros": lambda y: np.mean(y == 0),
}
"""Statistics that are known by name; ``"zeros"`` is the share of zeros."""

DEFAULT = ("mean", "sd", "min", "max")

DRAWS = 1000
"""Replicated data sets, about, unless another number is asked for."""


@dataclass(frozen=True, eq=False)
class Check:
    """Statistics of the data and of replicated data.

    Attributes:
        labels: Names of the statistics, with the group where there are groups.
        observed: Of the data, shape (statistics,).
        replicated: Of replicated data sets, shape (draws, statistics).
        source: ``"posterior"`` or ``"prior"``.
        site: The observed site.
    """

    labels: tuple[str, ...]
    observed: Array
    replicated: Array
    source: str
    site: str

    @property
    def p(self) -> Array:
        """Predictive p-values: share of replicated data with a larger statistic, ties counted by half."""
        return (self.replicated > self.observed).mean(0) + 0.5 * (self.replicated == self.observed).mean(0)

    def to_dataframe(self) -> Any:
        """A row per statistic: observed, mean and sd of the replicated, p-value."""
        import pandas as pd

        columns = {
            "observed": self.observed,
            "replicated": self.replicated.mean(0),
            "sd": self.replicated.std(0),
            "p": self.p,
        }
        return pd.DataFrame(columns, index=pd.Index(self.labels, name="statistic"))

    def plot(self) -> Any:
        """Histograms of the replicated statistics with the observed ones, as a Matplotlib figure."""
        from .plots import statistics_figure

        return statistics_figure(self)

    def __repr__(self) -> str:
        """The table; statistics that the model hardly ever reproduces are marked."""
        width = max(map(len, self.labels))
        lines = [f"{self.source} predictive check of {self.site}, {len(self.replicated)} replications"]
        lines.append(f"{'':{width}}  {'observed':>10}  {'replicated':>10}  {'sd':>8}  {'p':>5}")
        for label, seen, made, p in zip(self.labels, self.observed, self.replicated.T, self.p, strict=True):
            mark = "" if 0.01 <= p <= 0.99 else "  !"
            lines.append(f"{label:{width}}  {seen:10.4g}  {made.mean():10.4g}  {made.std():8.3g}  {p:5.3f}{mark}")
        return "\n".join(lines)


def statistics(
    fit: Any,
    functions: Any = None,
    *,
    site: str | None = None,
    by: Any = None,
    prior: bool = False,
    draws: int = DRAWS,
    seed: int = 0,
) -> Check:
    """Compare statistics of the data with those of replicated data.

    Args:
        fit: A fit of a conditioned program.
        functions: Functions of a data set (the array of the site, or of a group's elements) to a number, by name;
            a function alone; or names of ``STATISTICS``. By default mean, sd, min and max.
        site: The observed site; may be omitted where there is one.
        by: Statistics by group: the name of a dim of the site, or a label for each element of its first axis.
        prior: Replicate from the prior rather than from the posterior.
        draws: Number of replications, about: evenly spaced draws of every chain.
        seed: Determines the replications.

    Returns:
        The statistics, their p-values and a plot.

    Raises:
        ppl.ModelError: If there is no such site, or nothing can be replicated.
        ValueError: If a statistic is not a number, or ``by`` has another length than the data.

    Example:
        >>> import ppl
        >>> from ppl import dist
        >>> from ppl.inference import infer
        >>> @ppl.model
        ... def normal(n):
        ...     mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        ...     ppl.plate("row", lambda _: ppl.sample("y", dist.Normal(mu, 1.0)), n)
        >>> fit = infer(normal(4).condition(y=np.array([0.0, 0.0, 0.0, 9.0])), seed=1, progress=False)
        >>> found = statistics(fit, {"largest gap": lambda y: np.diff(np.sort(y)).max()})
        >>> found.labels, bool(found.p[0] < 0.001)
        (('largest gap',), True)
    """
    name = observed_site(fit, site)
    data, known = observed_values(fit, name)
    made = replicated(fit, name, prior, draws, seed)
    if made.shape[1:] != data.shape:
        raise ValueError(f"replicated data of {name!r} have shape {made.shape[1:]}, the observed ones {data.shape}")
    chosen, parts = _functions(functions), _groups(fit, name, data.shape, by)
    labels, seen, again = [], [], []
    for (title, function), (group, mask) in itertools.product(chosen.items(), parts.items()):
        kept = known if mask is None else known & mask
        whole = bool(kept.all())
        labels.append(title + (f"[{group}]" if mask is not None else ""))
        seen.append(_number(function, data if whole else data[kept], labels[-1]))
        again.append([_number(function, y if whole else y[kept], labels[-1]) for y in made])
    return Check(tuple(labels), np.array(seen), np.array(again).T, "prior" if prior else "posterior", name)


@dataclass(frozen=True, eq=False)
class Densities:
    """The distribution of the data and of replicated data sets, in common bins.

    Attributes:
        edges: Edges of the bins; whole data of few values have a bin for each.
        observed: Density of the data in each bin.
        replicated: The same for replicated data sets, shape (draws, bins).
        source: ``"posterior"`` or ``"prior"``.
        site: The observed site.
    """

    edges: Array
    observed: Array
    replicated: Array
    source: str
    site: str

    def plot(self) -> Any:
        """The data over replicated data and their pointwise 90% band, as a Matplotlib figure."""
        from .plots import densities_figure

        return densities_figure(self)


def densities(
    fit: Any, *, site: str | None = None, prior: bool = False, draws: int = 100, bins: int | None = None, seed: int = 0
) -> Densities:
    """The distribution of all values of a site in the data and in replicated data; arguments as in ``statistics``.

    Values of replicated data beyond the outermost bins are left out, so a replicated density may have less than its
    whole mass in view.
    """
    name = observed_site(fit, site)
    data, known = observed_values(fit, name)
    made = replicated(fit, name, prior, draws, seed)[:, known].astype(float)
    data = data[known].astype(float)
    edges = _edges(data, made, bins)
    widths = np.diff(edges)
    seen = np.histogram(data, edges)[0] / (data.size * widths)
    again = np.stack([np.histogram(y, edges)[0] for y in made]) / (data.size * widths)
    return Densities(edges, seen, again, "prior" if prior else "posterior", name)


def _functions(functions: Any) -> dict[str, Callable[[Array], Any]]:
    if functions is None:
        functions = DEFAULT
    if isinstance(functions, Mapping):
        return dict(functions)
    if isinstance(functions, str) or callable(functions):
        functions = (functions,)
    found = {}
    for item in functions:
        if isinstance(item, str):
            if item not in STATISTICS:
                raise ValueError(
                    f"no statistic is called {item!r}; there are {', '.join(STATISTICS)}, and any function"
                )
            found[item] = STATISTICS[item]
        else:
            found[getattr(item, "__name__", f"statistic {len(found)}")] = item
    return found


def _groups(fit: Any, name: str, shape: tuple[int, ...], by: Any) -> dict[Any, Array | None]:
    """Masks of the site's elements by group."""
    from ppl import ModelError

    if by is None:
        return {"": None}
    if isinstance(by, str):
        given = fit.dataset("observed_data")[name]
        dims = list(map(str, given.dims))
        if by not in dims:
            raise ModelError(f"by={by!r} is no axis of site {name!r}, whose axes are {', '.join(dims) or 'none'}")
        axis = dims.index(by)
        labels = np.asarray(given.coords[by].values) if by in given.coords else np.arange(shape[axis])
    else:
        axis, labels = 0, np.asarray(by)
        if not shape or labels.shape != (shape[0],):
            raise ValueError(f"by= has shape {labels.shape}; site {name!r} has {shape[:1]} elements on its first axis")
    found: dict[Any, Array | None] = {}
    for label in _unique(labels.tolist()):
        here = np.array([entry == label for entry in labels.tolist()])
        wide = here.reshape([-1 if a == axis else 1 for a in range(len(shape))])
        found[label] = np.broadcast_to(wide, shape)
    return found


def _unique(labels: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(labels))


def _number(function: Callable[[Array], Any], y: Array, label: str) -> float:
    value = np.asarray(function(y))
    if value.size != 1 or not np.isfinite(value).all():
        what = f"an array of shape {value.shape}" if value.size != 1 else str(value)
        raise ValueError(f"statistic {label!r} is {what} of data of shape {y.shape}, not a number")
    return float(value.reshape(()))


def _edges(data: Array, made: Array, bins: int | None) -> Array:
    """Edges that cover the data and the bulk of the replicated values."""
    if not data.size:
        raise ValueError("there are no known data to bin")
    low = min(data.min(), np.quantile(made, 0.005))
    high = max(data.max(), np.quantile(made, 0.995))
    whole = bool((data == np.round(data)).all() and (made == np.round(made)).all())
    if whole and bins is None and high - low < 60:
        return np.arange(np.floor(low) - 0.5, np.ceil(high) + 1.0)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, (bins or int(np.clip(2.0 * data.size ** (1 / 3) + 8, 10, 60))) + 1)
