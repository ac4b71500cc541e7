"""Weakly informative priors that follow the scale of the data.

With s the standard deviation of the response under the identity link and 1 under the others, and sd(x) that of a
column of the design,

    intercept at the means of all columns ~ N(m, 2.5 s),  m = g(mean of the response), 0 for probabilities
    coefficient of x                      ~ N(0, 2.5 s / sd(x))
    standard deviation of group effects   ~ HalfN(2.5 s / sd(z)),  sd(z) = 1 for the intercept
    correlation of group effects          ~ LKJ(2)
    residual scale sigma                  ~ Exponential, its mean the standard deviation of the response
    degrees of freedom nu                 ~ Gamma(2, 0.1)
    shape, concentration                  ~ HalfN(10)

so that a step of one standard deviation in a column moves the response by a few of its own at the most.

References: Gelman, Jakulin, Pittau and Su (2008), A weakly informative default prior distribution for logistic and
other regression models; Gabry and Goodrich (2020), Prior distributions for rstanarm models (the scaling); Lewandowski,
Kurowicka and Joe (2009); Juarez and Steel (2010) for nu.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import distributions as dist
from .errors import ModelError, at, suggest, user_line
from .formula_design import INTERCEPT, Design, Matrices
from .formula_families import LINKS, Family

WIDTH = 2.5
"""Standard deviations of the response that a coefficient may move it by."""

CONCENTRATION = 2.0


def priors_for(
    design: Design, arrays: Matrices, family: Family, link: str, asked: Any, checked: bool = True
) -> dict[str, Any]:
    """Priors by site: distributions, and the concentration of LKJ priors as numbers.

    Args:
        design: The design.
        arrays: Its matrices, with the response.
        family: The family.
        link: Name of the link.
        asked: ``"weak"``, ``"flat"``, or a mapping that replaces some of the weak ones.
        checked: Whether to refuse columns of which the data say nothing.

    Raises:
        ModelError: A name that has no prior, a constant column, or a flat prior that the data leave improper.
    """
    if isinstance(asked, str) and asked not in ("weak", "flat"):
        raise ModelError(
            f"priors={asked!r} is neither 'weak' nor 'flat' nor a mapping such as {{'b': dist.Normal(0.0, 1.0)}}:"
            f"\n{at(user_line())}"
        )
    flat = asked == "flat" and isinstance(asked, str)
    if checked or flat:
        _check_columns(design, arrays, flat)
    found = _flat(design, family) if flat else _weak(design, arrays, family, link)
    return found if isinstance(asked, str) else _replaced(found, design, dict(asked or {}))


def _center(arrays: Matrices, family: Family, link: str) -> tuple[float, float, float]:
    """Place and scale of the linear predictor, and the scale of the response."""
    y = np.asarray(arrays.response, float)
    spread = float(np.std(y, ddof=1)) if len(y) > 1 else 0.0
    spread = spread if spread > 0 else max(abs(float(np.mean(y))), 1.0)
    forward, mean = LINKS[link].forward, float(np.mean(y))
    if link == "log":
        mean = max(mean, 0.5 / len(y) if family.name in ("poisson", "negativebinomial") else 1e-3 * spread)
    return (forward(mean) if forward else 0.0), (spread if link == "identity" else 1.0), spread


def _weak(design: Design, arrays: Matrices, family: Family, link: str) -> dict[str, Any]:
    place, scale, spread = _center(arrays, family, link)
    found: dict[str, Any] = {}
    if design.intercept:
        found[INTERCEPT] = dist.Normal(place, WIDTH * scale)
    if design.coefficients:
        scales = np.array([WIDTH * scale / _spread(column) for column in arrays.X.T])
        found["b"] = dist.Normal(np.zeros(len(scales)), scales)
    for block in design.blocks:
        scales = np.array([WIDTH * scale / _spread(column) for column in arrays.Z[block.name].T])
        found[f"{block.name}_sd"] = dist.HalfNormal(scales if len(scales) > 1 else float(scales[0]))
        if len(scales) > 1 and block.term.correlated:
            found[f"{block.name}_correlation"] = CONCENTRATION
    return {**found, **_auxiliary(family, spread)}


def _auxiliary(family: Family, spread: float) -> dict[str, Any]:
    every = {
        "sigma": dist.Exponential(1.0 / spread),
        "nu": dist.Gamma(2.0, 0.1),
        "shape": dist.HalfNormal(10.0),
        "concentration": dist.HalfNormal(10.0),
    }
    return {name: every[name] for name in family.auxiliary}


def _flat(design: Design, family: Family) -> dict[str, Any]:
    found: dict[str, Any] = {INTERCEPT: dist.Flat()} if design.intercept else {}
    if design.coefficients:
        found["b"] = dist.Flat((len(design.coefficients),))
    for block in design.blocks:
        many = len(block.effects) > 1
        found[f"{block.name}_sd"] = dist.FlatPositive((len(block.effects),) if many else ())
        if many and block.term.correlated:
            found[f"{block.name}_correlation"] = 1.0
    others = {**_auxiliary(family, 1.0)}
    return {**found, **others, **({"sigma": dist.FlatPositive()} if "sigma" in others else {})}


def _spread(column: np.ndarray) -> float:
    """Standard deviation of a column; the size of a constant one."""
    found = float(np.std(column, ddof=1)) if len(column) > 1 else 0.0
    size = float(np.max(np.abs(column)))
    return found if found > 1e-12 * size else size or 1.0


def _check_columns(design: Design, arrays: Matrices, flat: bool) -> None:
    X = arrays.X
    for name, column in zip(design.coefficients, X.T, strict=True):
        if not column.any() or (design.intercept and np.ptp(column) <= 1e-12 * np.max(np.abs(column))):
            why = "zero in every row" if not column.any() else f"{column[0]:.6g} in every row, as the intercept is"
            raise ModelError(
                f"the term {name!r} is {why}, so the data say nothing about it:\n{at(user_line())}\n"
                "  Leave it out of the formula."
            )
    full = np.column_stack([np.ones(len(X)), X]) if design.intercept else X
    if not flat or not full.size:
        return
    scaled = full / np.linalg.norm(full, axis=0)
    size, directions = np.linalg.eigh(scaled.T @ scaled)
    if size[0] > 1e-12 * size[-1]:
        return
    names = ([INTERCEPT] if design.intercept else []) + list(design.coefficients)
    guilty = [name for name, weight in zip(names, directions[:, 0], strict=True) if abs(weight) > 1e-3]
    raise ModelError(
        f"under flat priors the posterior is improper: the terms {', '.join(map(repr, guilty))} are linearly dependent "
        f"({len(X)} rows, {full.shape[1]} columns):\n{at(user_line())}\n  Leave one out, or take proper priors."
    )


def _replaced(found: dict[str, Any], design: Design, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Put the user's priors in the place of the weak ones."""
    found = dict(found)
    whole = {name: value for name, value in asked.items() if name in found}
    single = {name: value for name, value in asked.items() if name in design.coefficients and name not in found}
    unknown = [name for name in asked if name not in whole and name not in single]
    if unknown:
        known = [*found, *design.coefficients]
        hint = suggest(unknown[0], known).replace("The model has", "Priors are put on")
        raise ModelError(f"priors= names {unknown[0]!r}, which has no prior.{hint}\n{at(user_line())}")
    for name, value in whole.items():
        found[name] = _fitting(name, value, found[name])
    if single:
        found["b"] = _merged(found["b"], design.coefficients, single)
    return found


def _fitting(name: str, value: Any, default: Any) -> Any:
    """The user's prior, brought to the shape of its site."""
    if isinstance(default, float):
        value = getattr(value, "concentration", value)
        if np.ndim(value) == 0 and math.isfinite(float(value)) and float(value) > 0:
            return float(value)
        raise ModelError(
            f"the prior of {name!r} is the concentration of an LKJ distribution, a positive number, not {value!r}:"
            f"\n{at(user_line())}"
        )
    if not hasattr(value, "log_prob"):
        raise ModelError(
            f"the prior of {name!r} is {value!r}, not a distribution such as dist.Normal(0.0, 1.0):\n{at(user_line())}"
        )
    if value.shape() == default.shape():
        return value
    if value.shape() == ():
        return value.expand(default.shape())
    raise ModelError(
        f"the prior of {name!r} has shape {value.shape()}, but there are {default.shape()} of it:\n{at(user_line())}"
    )


def _merged(prior: Any, coefficients: tuple[str, ...], single: Mapping[str, Any]) -> Any:
    """Normal priors of single coefficients beside those of the others."""
    kinds = {type(d).__name__ for d in (prior, *single.values())}
    if kinds != {"Normal"}:
        raise ModelError(
            f"priors of single coefficients are normal here, not {', '.join(sorted(kinds - {'Normal'}))}:"
            f"\n{at(user_line())}\n  Give all of them one prior, {{'b': ...}}, or edit the model: "
            "print(ppl.formula.source(program))."
        )
    location, scale = np.array(prior.loc, float), np.array(prior.scale, float)
    for name, d in single.items():
        place = coefficients.index(name)
        location[place], scale[place] = float(d.loc), float(d.scale)
    return dist.Normal(location, scale)
