r"""Leave-one-out cross-validation: how well does the posterior without an observation predict it?

    elpd = sum_i log p(y_i | y_{-i}),    p(y_i | y_{-i}) = 1 / E[1 / p(y_i | theta)] = E_w[p(y_i | theta)]

with theta ~ p(theta | y) and w proportional to 1 / p(y_i | theta), smoothed by a Pareto law (``psis``). Where the
ratios have too heavy a tail the draws are moved to the leave-one-out posterior (``moment_match``), and where that does
not help the model is fitted again without the observation.

References: Vehtari, Gelman and Gabry (2017), Practical Bayesian model evaluation using leave-one-out cross-validation
and WAIC, Statistics and Computing 27; Vehtari et al. (2024) for the threshold on k and the Monte Carlo error.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from .. import diagnostics
from ..chunks import in_chunks
from ..compiling import jit_quick
from .moment_match import match_moments
from .psis import log_sum, smooth, threshold
from .units import Units, choose_units, joint_log_likelihood, likelihood_of, together

METHODS = ("auto", "psis", "moment_match", "refit")

MOST_REFITS = 20
"""Refits that ``method="auto"`` makes before it rather warns."""

_NUMBERS = 10_000_000
"""Importance weights that are in memory at once."""

SHOWN = 5
"""Observations that a warning or the printed result names."""


@dataclass(frozen=True, eq=False)
class Loo:
    """Leave-one-out predictive accuracy.

    Attributes:
        elpd: Expected log predictive density: the sum over units that are counted, those with a known value.
        se: Standard error of it as an estimate for other data of the same size.
        p_loo: Effective number of parameters, log p(y | y) - elpd.
        elpd_i: Contribution of each unit, shape (units,), in the order of ``labels``; 0 where nothing is known.
        k: Pareto shape of each unit's final weights; 0 for a refit, whose draws need no weights.
        mcse_i: Monte Carlo standard error of each contribution.
        methods: How each was computed: ``"psis"``, ``"moment_match"`` or ``"refit"``.
        threshold: Shape above which an estimate cannot be trusted.
        units: What was left out, and which units are counted.
        observed: The observed values by site.
        draws: Number of posterior draws.
        notes: What speaks against the numbers.
    """

    elpd: float
    se: float
    p_loo: float
    elpd_i: np.ndarray
    k: np.ndarray
    mcse_i: np.ndarray
    methods: np.ndarray
    threshold: float
    units: Units
    observed: dict[str, np.ndarray]
    draws: int
    notes: tuple[str, ...] = ()

    @property
    def mcse(self) -> float:
        """Monte Carlo standard error of ``elpd``, from the finite number of draws."""
        return float(np.sqrt(np.sum(self.mcse_i**2)))

    @property
    def bad(self) -> np.ndarray:
        """Units whose estimate cannot be trusted."""
        return np.flatnonzero(self.k > self.threshold)

    @property
    def pointwise(self) -> Any:
        """Contributions, shapes, errors and methods by unit, as an ``xarray.Dataset`` with the units' labels."""
        import xarray as xr

        columns = {"elpd": self.elpd_i, "pareto_k": self.k, "mcse": self.mcse_i}
        columns = {name: np.where(self.units.counted, value, np.nan) for name, value in columns.items()}
        columns["method"] = np.where(self.units.counted, self.methods, "")
        variables = {name: (self.units.dims, value.reshape(self.units.shape)) for name, value in columns.items()}
        return xr.Dataset(variables, coords=self.units.coords, attrs={"site": list(self.units.sites)})

    @property
    def labels(self) -> list[str]:
        """A name for every unit, such as ``y[Choate]``."""
        axes = [self.units.coords[dim] for dim in self.units.dims]
        name = "+".join(self.units.sites)
        places = np.ndindex(*self.units.shape)
        return [
            f"{name}[{', '.join(str(a[i]) for a, i in zip(axes, place, strict=True))}]" if place else name
            for place in places
        ]

    def __repr__(self) -> str:
        """The estimate, its errors, and the units that are hard to predict from the others."""
        n = int(self.units.counted.sum())
        methods = self.methods[self.units.counted]
        over, sites = " x ".join(self.units.dims), ", ".join(self.units.sites)
        lines = [
            f"leave-one-out over {n} {over} of {sites}, {self.draws} draws",
            f"elpd   {self.elpd:10.2f} +- {self.se:.2f}   (Monte Carlo error {self.mcse:.2g})",
            f"p_loo  {self.p_loo:10.2f}",
        ]
        counts = [f"{int((methods == m).sum())} by {m}" for m in METHODS[1:] if (methods == m).any()]
        largest = float(np.max(self.k, initial=0.0))
        lines.append(f"k      {largest:10.2f} at most (trusted to {self.threshold:.2f}); {', '.join(counts)}")
        return "\n".join([*lines, *(f"! {note}" for note in self.notes)])


def loo(
    fit: Any,
    *,
    method: str = "auto",
    site: str | Iterable[str] | None = None,
    unit: Any = None,
    engine: Any = None,
    seed: int = 0,
) -> Loo:
    """Leave-one-out predictive accuracy of a fitted model.

    Args:
        fit: A fit of a conditioned program.
        method: ``"psis"``: importance sampling only. ``"moment_match"``: observations with a Pareto shape above the
            threshold are done again with matched moments. ``"refit"``: those are fitted again. ``"auto"``: moments are
            matched, and what is still bad is fitted again, for up to 20 observations.
        site: The observed site to predict, or several to leave out together; needed where there are several.
        unit: Dims whose elements are left out whole, such as ``"school"`` for all observations of a school, or a label
            for each element of the first axis; by default each observation alone.
        engine: Engine of the refits; by default that of the fit, or the default engine where it is not known.
        seed: Determines the refits.

    Raises:
        ppl.ModelError: If there are several sites and none is named, or nothing that can be left out.
        ValueError: If the method is unknown, or a log likelihood is not finite at a draw.

    Example:
        >>> import ppl
        >>> from ppl import dist
        >>> from ppl.inference import infer
        >>> @ppl.model
        ... def normal(n):
        ...     mu = ppl.sample("mu", dist.Normal(0.0, 10.0))
        ...     ppl.plate("row", lambda _: ppl.sample("y", dist.Normal(mu, 1.0)), n)
        >>> fit = infer(normal(4).condition(y=np.array([-1.0, 0.0, 0.5, 1.5])), seed=1, progress=False)
        >>> result = loo(fit)
        >>> result.elpd_i.shape, bool(abs(result.elpd - (-6.414)) < 0.05)  # the exact value
        ((4,), True)
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}; there are {', '.join(map(repr, METHODS))}")
    units = choose_units(fit, site, unit)
    found = _by_importance(fit, units)
    if method != "psis" and len(found.bad()):
        if fit.density is None:
            found.notes.append("the program is not known, so bad observations are left so: load(path, program=)")
        else:
            with fit._context():
                _improve(found, fit, method, engine, seed)
    return _result(found, fit)


@dataclass
class Work:
    """Contributions while they are improved; see ``Loo``."""

    units: Units
    log_likelihood: np.ndarray
    elpd_i: np.ndarray
    k: np.ndarray
    mcse_i: np.ndarray
    methods: np.ndarray
    threshold: float
    efficiency: float
    notes: list[str] = field(default_factory=list)

    def bad(self) -> np.ndarray:
        """Units with too large a shape."""
        return np.flatnonzero(self.k > self.threshold)

    def put(self, i: int, log_likelihood: Any, log_weights: Any, k: float, method: str, efficiency: float) -> None:
        """Replace the contribution of a unit by one from weighted draws."""
        self.elpd_i[i], self.mcse_i[i] = estimate(log_likelihood, log_weights, efficiency)
        self.k[i], self.methods[i] = k, method


def estimate(log_likelihood: Any, log_weights: Any, efficiency: float) -> tuple[Any, Any]:
    """Log of the weighted mean of likelihoods, shape (draws, ...), and its Monte Carlo standard error."""
    elpd = log_sum(log_weights + log_likelihood)
    with np.errstate(over="ignore"):
        deviation = np.exp(2.0 * log_weights) * np.expm1(np.minimum(log_likelihood - elpd, 300.0)) ** 2
    return elpd, np.sqrt(deviation.sum(axis=0) / efficiency)


def relative_efficiency(fit: Any) -> float:
    """Mean over all quantities of the effective sample size of the mean, by the number of draws; one for one chain."""
    arrays = [np.asarray(v) for v in fit.values.values()]
    arrays = [v.reshape(*v.shape[:2], -1).astype(float) for v in arrays if v.dtype.kind in "fiub"]
    chains, draws = arrays[0].shape[:2]
    if chains == 1 or draws < 4:
        return 1.0
    sizes = np.concatenate([np.atleast_1d(diagnostics.ess_mean(v)) for v in arrays])
    return float(sizes[np.isfinite(sizes)].mean() / (chains * draws))  # a code that never changes has none


def pointwise_log_likelihood(fit: Any, units: Units) -> np.ndarray:
    """Log likelihood of every unit at every draw, shape (chains x draws, units).

    Raises:
        ValueError: If one is NaN or infinite, with its label.
    """
    if units.several and together(fit.density, units.sites):
        positions = np.asarray(fit.draws.positions)
        total = joint_log_likelihood(fit.density, units, positions.reshape(-1, positions.shape[-1])).astype(np.float64)
    else:
        _refuse_unknown(fit, units)
        data = fit.dataset("log_likelihood")
        arrays = {name: np.asarray(data[name].values, np.float64) for name in units.sites}
        total = units.total(arrays).reshape(-1, units.count)
    wrong = ~np.isfinite(total)
    if wrong.any():
        draw, place = (int(x) for x in np.argwhere(wrong)[0])
        where = ", ".join(map(str, np.unravel_index(place, units.shape)))
        raise ValueError(
            f"the log likelihood of {'+'.join(units.sites)}[{where}] is {total[draw, place]} at draw {draw}: without "
            "that observation the posterior is not a reweighting of these draws. Look at the model's support there."
        )
    return total


def _refuse_unknown(fit: Any, units: Units) -> None:
    """Elements of a unit may share a site that was summed out, which only the program can tell."""
    from ppl import ModelError

    plan = fit.manifest.get("plan") or ()
    if units.several and fit.density is None and any("summed exactly" in line for line in plan):
        raise ModelError(
            "to leave out several elements at once, whose finite sites are summed out, takes the program: "
            "load(path, program=...)"
        )


def _by_importance(fit: Any, units: Units) -> Work:
    log_likelihood = pointwise_log_likelihood(fit, units)
    efficiency = relative_efficiency(fit)
    block = max(1, _NUMBERS // len(log_likelihood))
    found = []
    for start in range(0, units.count, block):  # weights of all units at once would double the memory
        part = log_likelihood[:, start : start + block]
        weights, k = smooth(-part, efficiency)
        found.append((*estimate(part, weights, min(efficiency, 1.0)), k))
    elpd, error, k = (np.concatenate(column) for column in zip(*found, strict=True))
    # a unit of which nothing is known says nothing
    elpd, error, k = (np.where(units.counted, x, 0.0) for x in (elpd, error, k))
    methods = np.full(units.count, "psis", dtype="<U12")
    return Work(units, log_likelihood, elpd, k, error, methods, threshold(len(log_likelihood)), efficiency)


def _improve(work: Work, fit: Any, method: str, engine: Any, seed: int) -> None:
    positions = np.asarray(fit.draws.positions)
    if method in ("moment_match", "auto") and not getattr(fit.density, "finite", ()):  # codes cannot be moved so
        _match(work, fit.density, positions)
    bad = work.bad()
    if method == "refit" or (method == "auto" and len(bad) <= MOST_REFITS):
        from .refit import refit

        for i in map(int, bad):
            refit(work, fit, i, engine, seed)
    elif method == "auto" and len(bad):
        work.notes.append(f"{len(bad)} observations are too many to refit unasked: method='refit' does")


def _match(work: Work, density: Any, positions: np.ndarray) -> None:
    # chain by chain, so that every other draw is one half of each chain
    flat = positions.reshape(-1, positions.shape[-1])
    log_density: Any = None
    places = work.units.places(density)
    for i in map(int, work.bad()):
        evaluate = partial(evaluate_at, density, places, i)
        if log_density is None:
            log_density = evaluate(flat)[0]
        found = match_moments(evaluate, flat, log_density, work.log_likelihood[:, i], work.efficiency, work.threshold)
        if found.map is not None:
            work.put(i, found.log_likelihood, found.log_weights, found.k, "moment_match", min(work.efficiency, 1.0))


def evaluate_at(density: Any, places: Any, index: int, positions: Any) -> tuple[np.ndarray, np.ndarray]:
    """Log posterior density and log likelihood of one unit at positions (draws, dim); not finite is minus infinity."""
    run = partial(_evaluate, density, places, np.int32(index))
    work = 16 * int(getattr(density, "work", 0) or 0)
    both = in_chunks(run, positions, work)
    lp, likelihood = (np.asarray(both[name], np.float64) for name in ("log_density", "log_likelihood"))
    wrong = ~(np.isfinite(lp) & np.isfinite(likelihood))
    return np.where(wrong, -np.inf, lp), np.where(wrong, 0.0, likelihood)


@jit_quick
def _evaluate(density: Any, places: Any, index: Any, positions: Any) -> Any:
    def one(z: Any) -> dict[str, Any]:
        return {"log_density": density(z), "log_likelihood": likelihood_of(density, places, index, z)}

    return jax.vmap(one)(positions)


def _result(work: Work, fit: Any) -> Loo:
    counted, draws = work.units.counted, len(work.log_likelihood)
    n, parts = int(counted.sum()), work.elpd_i[counted]
    elpd = float(parts.sum())
    full = float((log_sum(work.log_likelihood) - np.log(draws))[counted].sum())
    given = fit.dataset("observed_data")
    observed = {name: np.asarray(given[name].values) for name in work.units.sites if name in given}
    result = Loo(
        elpd, float(np.sqrt(n * np.var(parts))), full - elpd, work.elpd_i, work.k, work.mcse_i, work.methods,
        work.threshold, work.units, observed, draws,
    )  # fmt: skip
    notes = list(work.notes)
    if len(result.bad):
        worst = result.bad[np.argsort(-result.k[result.bad])][:SHOWN]
        shown = ", ".join(f"{result.labels[i]} (k = {result.k[i]:.2f})" for i in worst)
        more = f" and {len(result.bad) - SHOWN} more" if len(result.bad) > SHOWN else ""
        notes.append(
            f"{len(result.bad)} of {n} observations have a Pareto shape above {work.threshold:.2f}, so their part of "
            f"the estimate is not to be trusted: {shown}{more}. method='moment_match' or 'refit' may help"
        )
    for note in notes:
        warnings.warn(note, stacklevel=3)
    return replace(result, notes=tuple(notes))
