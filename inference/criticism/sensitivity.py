r"""Power-scaling sensitivity: which conclusions hang on the prior, and which on the likelihood?

The prior (or the likelihood) is raised to a power alpha near one; posterior draws then have weights proportional to
p(theta)^(alpha - 1), smoothed by a Pareto law. The sensitivity of a quantity is the rate at which its distribution
moves, in the cumulative Jensen-Shannon distance between the distribution functions P and Q without and with weights,

    D = (d(1 / (1 + delta)) + d(1 + delta)) / (2 log2(1 + delta)),
    d^2 = integral P log2(2 P / (P + Q)) + Q log2(2 Q / (P + Q)) / integral (P + Q),

the greater of those for x and for -x. A normal posterior whose mean moves by a quarter of its standard deviation per
doubling of the power has a D near 0.05, from which an influence is taken to matter.

References: Kallioinen, Paananen, Buerkner and Vehtari (2024), Detecting and diagnosing prior and likelihood sensitivity
with power-scaling, Statistics and Computing 34(57); Nguyen and Vreeken (2015) for the distance.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..summary import choose, element_labels
from .psis import smooth, threshold
from .units import Units, joint_log_likelihood, together

Array = np.ndarray

MATTERS = 0.05
"""Sensitivity from which an influence is worth a look."""

CONFLICT, STRONG = "potential prior-data conflict", "potential strong prior / weak likelihood"


def psense(
    fit: Any,
    names: Iterable[str] | None = None,
    *,
    prior: Iterable[str] | None = None,
    likelihood: Iterable[str] | None = None,
    delta: float = 0.01,
) -> Any:
    """Sensitivity of every quantity to the power of the prior and of the likelihood.

    Args:
        fit: A fit of a conditioned program.
        names: Sites and records to judge; by default all.
        prior: Latent sites whose priors are scaled; by default those that depend on no other latent site, for the law
            of group effects given their mean and scale is a part of the model rather than of the prior. Say which
            where such effects are written non-centred.
        likelihood: Observed sites whose likelihood is scaled; by default all.
        delta: Relative change of the power.

    Returns:
        A ``pandas.DataFrame`` with a row per quantity: ``prior``, ``likelihood`` and ``diagnosis``: ``"potential
        prior-data conflict"`` where both are at least 0.05, ``"potential strong prior / weak likelihood"`` where only
        the prior is, else ``"-"``. Its ``attrs`` say what was scaled.

    Raises:
        ppl.ModelError: If the fit has no log prior or no log likelihood, or a name is unknown.

    Example:
        >>> import ppl
        >>> from ppl import dist
        >>> from ppl.inference import infer
        >>> @ppl.model
        ... def normal(n):
        ...     mu = ppl.sample("mu", dist.Normal(0.0, 0.3))
        ...     ppl.plate("row", lambda _: ppl.sample("y", dist.Normal(mu, 1.0)), n)
        >>> fit = infer(normal(20).condition(y=np.linspace(1.0, 4.0, 20)), seed=1, progress=False)
        >>> psense(fit)["diagnosis"]["mu"]
        'potential prior-data conflict'
    """
    import pandas as pd

    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta={delta!r} is not between 0 and 1")
    scaled = {
        "prior": _component(fit, "log_prior", top_level(fit) if prior is None else prior),
        "likelihood": _component(fit, "log_likelihood", likelihood),
    }
    labels, columns = _quantities(fit, names)
    found = {}
    for name, (sites, component) in scaled.items():
        found[name], k = sensitivity(columns, component, delta)
        if k > threshold(len(component)):
            warnings.warn(
                f"scaling the {name} ({', '.join(sites)}) by {1 + delta:g} has a Pareto shape of {k:.2f}: a few draws "
                "decide, so its sensitivities are rough; a smaller delta, or more draws, may help",
                stacklevel=2,
            )
    table = pd.DataFrame(found, index=pd.Index(labels, name="quantity"))
    table["diagnosis"] = [diagnosis(p, q) for p, q in zip(found["prior"], found["likelihood"], strict=True)]
    table.attrs = {"scaled": {name: list(sites) for name, (sites, _) in scaled.items()}, "delta": delta}
    return table


def top_level(fit: Any) -> list[str] | None:
    """Latent sites whose prior depends on no other latent site; None where the program is not known."""
    if fit.program is None:
        return None
    sites, parents = fit.program.sites, fit.program.graph().parents

    def depends(name: str, seen: frozenset[str] = frozenset()) -> bool:
        above = [p for p in parents.get(name, ()) if p not in seen]
        return any(sites[p].kind == "latent" or depends(p, seen | {name}) for p in above if p in sites)

    summed = getattr(getattr(fit.density, "compiled", None), "summed", None) or {}
    return [n for n, site in sites.items() if site.kind == "latent" and n not in summed and not depends(n)]


def sensitivity(draws: Array, component: Array, delta: float = 0.01) -> tuple[Array, float]:
    """Rate at which weighted distributions move with the power of a component.

    Args:
        draws: Quantities at posterior draws, shape (draws, quantities).
        component: Log prior or log likelihood at the draws, shape (draws,).
        delta: Relative change of the power.

    Returns:
        A sensitivity for each quantity, and the larger Pareto shape of the two sets of weights.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(4000, 2))
        >>> moved, k = sensitivity(x, x[:, 0])
        >>> bool(moved[0] > 0.1 > 0.05 > moved[1])
        True
    """
    total, worst = np.zeros(draws.shape[1]), -np.inf
    for power in (1.0 / (1.0 + delta), 1.0 + delta):
        weights, k = smooth((power - 1.0) * component)
        # a tail without spread cannot be fitted, and need not be: the weights are almost equal
        worst = max(worst, float(k) if np.isfinite(k) else -np.inf)
        for j in range(draws.shape[1]):
            x, w = draws[:, j], np.exp(weights)
            total[j] += max(cumulative_distance(x, w), cumulative_distance(-x, w))
    return total / (2.0 * np.log2(1.0 + delta)), worst


def cumulative_distance(x: Array, weights: Array) -> float:
    """Cumulative Jensen-Shannon distance between draws and the same draws with weights, between 0 and 1.

    Example:
        >>> x = np.arange(5.0)
        >>> cumulative_distance(x, np.ones(5)), bool(cumulative_distance(x, np.arange(5.0)) > 0.1)
        (0.0, True)
    """
    order = np.argsort(x, kind="stable")
    widths = np.diff(x[order])
    n = len(x)
    p = np.arange(1, n) / n
    q = np.cumsum(weights[order] / weights.sum())[:-1]
    area_p, area_q = float(p @ widths), float(q @ widths)
    if not area_p + area_q > 0.0:
        return 0.0
    middle = 0.5 * (p + q)
    with np.errstate(divide="ignore", invalid="ignore"):
        one = widths @ (p * np.log2(p / middle)) + 0.5 / np.log(2) * (area_q - area_p)
        other = widths @ np.where(q > 0, q * np.log2(q / middle), 0.0) + 0.5 / np.log(2) * (area_p - area_q)
    return float(np.sqrt((max(one, 0.0) + max(other, 0.0)) / (area_p + area_q)))


def diagnosis(prior: float, likelihood: float) -> str:
    """The words for a pair of sensitivities.

    Example:
        >>> diagnosis(0.1, 0.3), diagnosis(0.1, 0.01), diagnosis(0.01, 0.3)
        ('potential prior-data conflict', 'potential strong prior / weak likelihood', '-')
    """
    if not prior >= MATTERS:
        return "-"
    return CONFLICT if likelihood >= MATTERS else STRONG


def _component(fit: Any, group: str, names: Iterable[str] | None) -> tuple[list[str], Array]:
    """Names of the sites, and the sum of their log factors at each draw."""
    from ppl import ModelError

    data = fit.dataset(group)
    if not data.data_vars:
        what = group.replace("_", " ")
        why = "the program is not known: load(path, program)" if fit.program is None else "nothing is conditioned"
        raise ModelError(f"this fit has no {what}, so nothing can be scaled ({why})")
    sites = choose([str(name) for name in data.data_vars], names)
    arrays = [np.asarray(data[name].values, np.float64) for name in sites]
    total = np.sum([a.reshape(*a.shape[:2], -1).sum(-1) for a in arrays], axis=0).reshape(-1)
    if group == "log_likelihood" and together(fit.density, sites):  # of elements that share sites that are summed out
        whole = Units({n: np.zeros(data[n].shape[2:], np.int32) for n in sites}, (), (1,), {}, np.ones(1, bool))
        positions = np.asarray(fit.draws.positions)
        joint = joint_log_likelihood(fit.density, whole, positions.reshape(-1, positions.shape[-1]))
        total = joint[:, 0].astype(np.float64)
    if not np.isfinite(total).all():
        raise ModelError(f"the {group.replace('_', ' ')} of {', '.join(sites)} is not finite at some draws")
    return sites, total


def _quantities(fit: Any, names: Iterable[str] | None) -> tuple[list[str], Array]:
    labels: list[str] = []
    columns = []
    for name in choose(fit.values, names):
        value = np.asarray(fit.values[name])
        if value.dtype.kind in "fiub":
            labels += element_labels(fit, name)
            columns.append(value.reshape(value.shape[0] * value.shape[1], -1).astype(np.float64))
    if not columns:
        raise ValueError("there is no numeric quantity to judge")
    return labels, np.concatenate(columns, axis=1)
