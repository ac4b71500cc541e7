r"""Predictive checks: do data that the model makes look like the data that it was given?

For replicated data y_rep ~ p(y | theta), theta from the posterior (or from the prior), and a statistic T,

    p = P(T(y_rep) > T(y)) + P(T(y_rep) = T(y)) / 2.

Under the posterior the same data are used twice, so p is near 1/2 more often than a uniform number would be: extreme
values speak against the model, middling ones speak weakly for it. The leave-one-out probability integral transform
u_i = P(y_rep,i <= y_i | y_{-i}) does not use them twice; its values are nearly uniform if the model is right.

References: Gelman, Meng and Stern (1996), Posterior predictive assessment of model fitness via realized discrepancies;
Gelman et al. (2020), Bayesian workflow; Gabry et al. (2019), Visualization in Bayesian workflow.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..calibration import bands
from ..core import host_rng
from .leave_one_out import pointwise_log_likelihood, relative_efficiency
from .psis import smooth, threshold
from .units import choose_units

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

MOST_NUMBERS = 50_000_000
"""Most replicated numbers that the leave-one-out transform looks at; of more draws it takes evenly spaced ones."""

_TIES = 101
"""Purpose of the random numbers that break the ties of discrete data."""


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
    name = _site(fit, site)
    data, known = _observed(fit, name)
    made = _replicated(fit, name, prior, draws, seed)
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
    name = _site(fit, site)
    data, known = _observed(fit, name)
    made = _replicated(fit, name, prior, draws, seed)[:, known].astype(float)
    data = data[known].astype(float)
    edges = _edges(data, made, bins)
    widths = np.diff(edges)
    seen = np.histogram(data, edges)[0] / (data.size * widths)
    again = np.stack([np.histogram(y, edges)[0] for y in made]) / (data.size * widths)
    return Densities(edges, seen, again, "prior" if prior else "posterior", name)


@dataclass(frozen=True, eq=False)
class LooPit:
    """Leave-one-out probability integral transforms.

    Attributes:
        values: For each observation, the probability that the others give to less than it; near uniform if all is well.
        labels: Names of the observations.
        k: Pareto shapes of the weights.
        threshold: Shape above which a value cannot be trusted.
        site: The observed site.
    """

    values: Array
    labels: tuple[str, ...]
    k: Array
    threshold: float
    site: str

    @property
    def ranks(self) -> Array:
        """The values in hundredths."""
        return np.minimum((self.values * 100).astype(int), 99)

    @property
    def p(self) -> float:
        """P-value of uniformity, by the simultaneous band of the empirical distribution of independent values."""
        return float(bands.ecdf_pvalues(self.ranks[:, None], 99)[0])

    def plot(self) -> Any:
        """Their empirical distribution less the uniform one, with its simultaneous band, as a Matplotlib figure."""
        from .plots import pit_figure

        return pit_figure(self)

    def __repr__(self) -> str:
        """In words, how the values differ from uniform ones."""
        mean, spread = self.values.mean(), self.values.std() * np.sqrt(12.0)
        bad = int((self.k > self.threshold).sum())
        lines = [
            f"LOO-PIT of {self.site}: {len(self.values)} values, mean {mean:.2f} (0.5: no bias), spread {spread:.2f} "
            f"(1: right; more: predictions too narrow; less: too wide), uniform with p = {self.p:.2g}"
        ]
        if bad:
            lines.append(f"! {bad} of them have a Pareto shape above {self.threshold:.2f}")
        return "\n".join(lines)


def loo_pit(fit: Any, *, site: str | None = None, seed: int = 0) -> LooPit:
    """Where does each observation lie in its prediction from the others?

    Args:
        fit: A fit of a conditioned program with a pointwise log likelihood.
        site: The observed site; may be omitted where there is one.
        seed: Determines the replications and the breaking of ties.

    Raises:
        ppl.ModelError: If there are several sites and none is named, or nothing can be replicated.

    Example:
        >>> import ppl
        >>> from ppl import dist
        >>> from ppl.inference import infer
        >>> @ppl.model
        ... def normal(n):
        ...     mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        ...     ppl.plate("row", lambda _: ppl.sample("y", dist.Normal(mu, 5.0)), n)
        >>> y = np.random.default_rng(0).normal(size=50)
        >>> found = loo_pit(infer(normal(50).condition(y=y), seed=1, progress=False))
        >>> bool(found.values.std() < 0.15), bool(found.p < 1e-6)
        (True, True)
    """
    name = _site(fit, site)
    units = choose_units(fit, name)
    data, known = _observed(fit, name)
    if units.shape != data.shape:
        from ppl import ModelError

        raise ModelError(
            f"site {name!r} has {data.shape} values and {units.shape} log factors: a value is not predicted by itself, "
            "so it has no probability integral transform"
        )
    log_likelihood = pointwise_log_likelihood(fit, units)
    chains, total = fit.draws.positions.shape[:2]
    wanted = max(min(total, MOST_NUMBERS // max(chains * data.size, 1)), 1)
    made = fit.predict(names=[name], draws=wanted, seed=seed)
    index = np.asarray(made.coords["draw"].values, int)
    rows = log_likelihood.reshape(chains, total, -1)[:, index].reshape(chains * len(index), -1)[:, known.ravel()]
    drawn = made[name].values.reshape(len(rows), -1)[:, known.ravel()]
    weights, k = smooth(-rows, relative_efficiency(fit))
    given = data.ravel()[known.ravel()]
    share = np.exp(weights)
    ties = host_rng(seed, _TIES).random(given.size)
    values = (share * (drawn < given)).sum(0) + ties * (share * (drawn == given)).sum(0)
    labels = [f"{name}{list(place)}" for place in np.argwhere(known).tolist()]
    return LooPit(np.clip(values, 0.0, 1.0), tuple(labels), k, threshold(len(rows)), name)


def _site(fit: Any, site: str | None) -> str:
    from ppl import ModelError

    from ..summary import choose

    known = [str(name) for name in fit.dataset("observed_data").data_vars]
    if not known:
        raise ModelError("this fit has no observed data to check")
    if site is None and len(known) > 1:
        raise ModelError(
            f"this fit has {len(known)} observed sites: say which, site={known[0]!r} (of: {', '.join(known)})"
        )
    return choose(known, site)[0]


def _observed(fit: Any, name: str) -> tuple[Array, Array]:
    """The data of a site, and which of them are known."""
    data = np.asarray(fit.dataset("observed_data")[name].values)
    return data, ~np.isnan(data) if data.dtype.kind == "f" else np.ones(data.shape, bool)


def _replicated(fit: Any, name: str, prior: bool, draws: int, seed: int) -> Array:
    """Replicated data, shape (draws, ...)."""
    from ppl import ModelError

    if draws < 1:
        raise ValueError(f"draws={draws!r} is not a positive whole number")
    if prior:
        group = fit.dataset("prior_predictive")
        if name not in group:
            raise ModelError(f"the prior of {name!r} cannot be simulated, so there is nothing to compare with")
        made = group[name].values
        index = np.linspace(0, made.shape[1] - 1, min(draws, made.shape[1])).round().astype(int)
        made = made[:, index]
    else:
        each = -(-draws // fit.draws.positions.shape[0])
        made = fit.predict(names=[name], draws=each, seed=seed)[name].values
    return made.reshape(-1, *made.shape[2:])


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
