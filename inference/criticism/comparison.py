r"""Comparison of models by their leave-one-out predictive accuracy.

Differences of elpd are sums over observations of differences, so their standard error is that of a sum:

    se(elpd_a - elpd_b) = sqrt(n var_i(elpd_ai - elpd_bi)).

Weights: *stacking* maximises the log score of the mixture of the models' leave-one-out predictive densities,
sum_i log sum_k w_k exp(elpd_ki) over the simplex; *pseudo-BMA* takes w_k proportional to exp(elpd_k), and *pseudo-BMA+*
its mean over the Bayesian bootstrap of the observations.

References: Yao, Vehtari, Simpson and Gelman (2018), Using stacking to average Bayesian predictive distributions,
Bayesian Analysis 13(3); Sivula, Magnusson, Matamoros and Vehtari (2025), Uncertainty in Bayesian leave-one-out
cross-validation based model comparison, Bayesian Analysis.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..core import host_rng
from .leave_one_out import Loo, loo
from .psis import log_sum

METHODS = ("stacking", "pseudo-bma+", "pseudo-bma")

_BOOTSTRAP, _REPLICATES = 89, 1000
"""Purpose of the random numbers of the bootstrap, and its size."""

FEW, CLOSE = 100, 4.0
"""Observations below which the standard error of a difference is too small, and elpd within which models are alike."""


def compare(
    fits: Mapping[str, Any] | Iterable[Any],
    *,
    method: str = "stacking",
    site: Any = None,
    unit: Any = None,
    loo_method: str = "auto",
    seed: int = 0,
) -> Any:
    """Compare models that were fitted to the same data.

    Args:
        fits: Fits by name, or results of ``loo``, or a list of either (then called ``model 0``, ...).
        method: How the weights are found: ``"stacking"``, ``"pseudo-bma+"`` or ``"pseudo-bma"``.
        site: The observed site to predict, as in ``loo``, or ``{model: site}`` where names differ.
        unit: Dims whose elements are left out whole, as in ``loo``.
        loo_method: ``method`` of ``loo``.
        seed: Determines refits and the bootstrap.

    Returns:
        A ``pandas.DataFrame`` with a row per model, best first: ``rank``, ``elpd``, ``p`` (effective parameters),
        ``elpd_diff`` to the best, ``weight``, ``se`` of the elpd, ``dse`` of the difference, ``warning`` and ``bad_k``.

    Raises:
        ppl.ModelError: If the models have not seen the same data; the difference is named.
        ValueError: If there are fewer than two models, or the method is unknown.

    Example:
        >>> import ppl
        >>> from ppl import dist
        >>> from ppl.inference import infer
        >>> @ppl.model
        ... def normal(n, scale):
        ...     mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        ...     ppl.plate("row", lambda _: ppl.sample("y", dist.Normal(mu, scale)), n)
        >>> y = np.linspace(-2.0, 2.0, 9)
        >>> fits = {s: infer(normal(9, s).condition(y=y), seed=1, progress=False) for s in (1.0, 9.0)}
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     table = compare(fits)
        >>> list(table.index), bool(table["weight"].iloc[0] > 0.99)
        ([1.0, 9.0], True)
    """
    import pandas as pd

    if method not in METHODS:
        raise ValueError(f"method={method!r}; there are {', '.join(map(repr, METHODS))}")
    if not isinstance(fits, Mapping):
        fits = {f"model {i}": fit for i, fit in enumerate(fits)}
    if len(fits) < 2:
        raise ValueError(f"a comparison needs at least two models, not {len(fits)}")
    sites = site if isinstance(site, Mapping) else dict.fromkeys(fits, site)
    results = {
        name: fit if isinstance(fit, Loo) else loo(fit, method=loo_method, site=sites.get(name), unit=unit, seed=seed)
        for name, fit in fits.items()
    }
    _refuse_other_data(results)
    counted = next(iter(results.values())).units.counted
    pointwise = np.stack([result.elpd_i[counted] for result in results.values()])
    weights = _weights(pointwise, method, seed)
    order = np.argsort([-result.elpd for result in results.values()], kind="stable")
    names = [list(results)[i] for i in order]
    best = results[names[0]]
    rows = []
    for rank, (i, name) in enumerate(zip(order, names, strict=True)):
        result = results[name]
        difference = (best.elpd_i - result.elpd_i)[counted]
        rows.append(
            {
                "rank": rank,
                "elpd": result.elpd,
                "p": result.p_loo,
                "elpd_diff": float(difference.sum()),
                "weight": float(weights[i]),
                "se": result.se,
                "dse": float(np.sqrt(difference.size * np.var(difference))),
                "warning": bool(len(result.bad)),
                "bad_k": len(result.bad),
            }
        )
    table = pd.DataFrame(rows, index=pd.Index(names, name="model"))
    _warn(table, int(counted.sum()))
    return table


def stacking_weights(pointwise: Any, tolerance: float = 1e-10) -> np.ndarray:
    """Weights on the simplex that maximise the log score of the mixture of predictive densities.

    Sequential quadratic programming, after which multiplicative steps, which never lose, end it. The score is
    concave: no mixture scores better by more than max_k mean_i p_ki / (w . p_i) - 1 per observation, which is
    at most ``tolerance`` at the end (or what a fixed number of steps reached).

    Args:
        pointwise: Log predictive densities, shape (models, observations).
        tolerance: Largest loss per observation.

    Example:
        >>> stacking_weights(np.log([[0.9, 0.1], [0.1, 0.9]])).tolist()
        [0.5, 0.5]
    """
    from scipy.optimize import minimize

    log_density = np.asarray(pointwise, np.float64)
    density = np.exp(log_density - log_density.max(axis=0))
    count = len(density)

    def score(weights: Any) -> tuple[float, np.ndarray]:
        mixture = np.maximum(weights @ density, 1e-300)
        return -float(np.log(mixture).mean()), -(density / mixture).mean(axis=1)

    start = np.full(count, 1.0 / count)
    found = minimize(
        score, start, jac=True, method="SLSQP", bounds=[(0.0, 1.0)] * count, options={"ftol": 1e-14, "maxiter": 500},
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": lambda w: np.ones(count)},
    )  # fmt: skip
    candidates = [start]
    if np.isfinite(found.x).all() and found.x.clip(0.0).sum() > 0:
        candidates.append(found.x.clip(0.0) / found.x.clip(0.0).sum())
    weights = min(candidates, key=lambda w: score(w)[0])
    weights = (weights + 1e-12) / (1.0 + count * 1e-12)  # a weight of zero would stay one
    for _ in range(2000):
        gain = -score(weights)[1]
        if gain.max() <= 1.0 + tolerance:
            break
        weights = weights * gain
        weights = weights / weights.sum()
    return np.where(weights < 1e-9, 0.0, weights) / weights[weights >= 1e-9].sum()


def pseudo_bma_weights(pointwise: Any, replicates: int = 0, seed: int = 0) -> np.ndarray:
    """Weights proportional to exp(elpd), or the mean of them over a Bayesian bootstrap of the observations.

    Example:
        >>> pseudo_bma_weights(np.log([[0.5, 0.5], [0.25, 0.5]])).round(3).tolist()
        [0.667, 0.333]
    """
    pointwise = np.asarray(pointwise, np.float64)
    n = pointwise.shape[1]
    sums = pointwise.sum(axis=1)[None]
    if replicates:
        sums = host_rng(seed, _BOOTSTRAP).dirichlet(np.ones(n), size=replicates) @ pointwise.T * n
    return np.exp(sums - log_sum(sums, axis=1)[:, None]).mean(axis=0)


def _weights(pointwise: np.ndarray, method: str, seed: int) -> np.ndarray:
    if method == "stacking":
        return stacking_weights(pointwise)
    return pseudo_bma_weights(pointwise, _REPLICATES if method == "pseudo-bma+" else 0, seed)


def _refuse_other_data(results: Mapping[str, Loo]) -> None:
    """Densities of different data, or of data in different units, cannot be compared."""
    from ppl import ModelError

    first, *others = results
    one = results[first]
    for name in others:
        other = results[name]
        pair = f"models {first!r} and {name!r} cannot be compared: "
        if one.units.count != other.units.count:
            raise ModelError(pair + f"{one.units.count} units in the one, {other.units.count} in the other")
        if len(one.observed) != len(other.observed):
            raise ModelError(pair + f"they predict {', '.join(one.observed)} and {', '.join(other.observed)}")
        for (site, here), (their, there) in zip(one.observed.items(), other.observed.items(), strict=True):
            named = site if site == their else f"{site} / {their}"
            if here.shape != there.shape:
                raise ModelError(pair + f"the data of {named} have shapes {here.shape} and {there.shape}")
            same = (here == there) | (_missing(here) & _missing(there))
            if not same.all():
                place = tuple(int(i) for i in np.argwhere(~same)[0])
                raise ModelError(
                    pair + f"the data of {named} differ at {int((~same).sum())} of {same.size} places, first at "
                    f"{list(place)}: {here[place]} and {there[place]}. A transformation of the data belongs into the "
                    "model (with its Jacobian), not before it."
                )
        for dim in set(one.units.dims) & set(other.units.dims):
            if not np.array_equal(one.units.coords[dim], other.units.coords[dim]):
                raise ModelError(pair + f"their observations have other labels along {dim!r}, or another order")


def _missing(x: np.ndarray) -> np.ndarray:
    return np.isnan(x) if x.dtype.kind == "f" else np.zeros(x.shape, bool)


def _warn(table: Any, count: int) -> None:
    bad = table[table["warning"]]
    for name, row in bad.iterrows():
        warnings.warn(f"the elpd of {name!r} rests on {row['bad_k']} observations with a bad Pareto k", stacklevel=3)
    close = [str(name) for name, row in table.iloc[1:].iterrows() if row["elpd_diff"] < CLOSE]
    if close:
        warnings.warn(
            f"elpd of {', '.join(close)} within {CLOSE:g} of the best: the models predict alike, and the standard "
            "error of so small a difference is not to be trusted",
            stacklevel=3,
        )
    elif count < FEW:
        warnings.warn(
            f"with {count} observations the standard errors of differences (dse) tend to be too small",
            stacklevel=3,
        )
