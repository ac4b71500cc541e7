"""The groups of a fit as plain arrays: what is in each, and how it is computed.

Light groups are at hand or cost one evaluation per draw. Heavy groups (pointwise log likelihood, log prior,
predictive and prior draws) are computed when somebody reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ppl.ragged import as_columns, is_table

from . import naming
from .chunks import over_draws, shapes_of

LIGHT = ("posterior", "sample_stats", "unconstrained_posterior", "observed_data", "constant_data")
"""Groups that are arrays from the start."""

HEAVY = (
    "log_likelihood",
    "log_prior",
    "posterior_predictive",
    "prior",
    "prior_predictive",
    "warmup_posterior",
    "warmup_sample_stats",
)
"""Groups that are computed when they are read."""

PRIOR_DRAWS = 1000
"""Draws in the groups ``prior`` and ``prior_predictive``."""

Arrays = dict[str, np.ndarray]


def shapes(fit: Any, group: str) -> Mapping[str, Any]:
    """Shapes and dtypes of a heavy group, with the axes (chain, draw); empty where the fit has no such group."""
    chains, draws = fit.draws.shape[:2]
    if group == "warmup_sample_stats":
        return {name: np.asarray(value) for name, value in fit.draws.warmup_stats.items()}
    if group == "warmup_posterior":
        if fit.draws.warmup_positions is None:
            return {}
        leading, inner = fit.draws.warmup_positions.shape[:2], _inner(fit, "generated")
        inner = inner or {"z": fit.draws.warmup_positions[0, 0]}
    elif group in ("log_likelihood", "log_prior"):
        leading, inner = (chains, draws), _inner(fit, _METHODS[group])
    elif fit.program is None:
        return {}
    else:
        leading = (chains, draws) if group == "posterior_predictive" else (1, PRIOR_DRAWS)
        inner = _simulated(fit, group)
    return {name: jax.ShapeDtypeStruct(leading + tuple(x.shape), x.dtype) for name, x in inner.items()}


def compute(fit: Any, group: str) -> Arrays:
    """The arrays of a heavy group."""
    if group == "warmup_sample_stats":
        return dict(fit.draws.warmup_stats)
    if group == "warmup_posterior":
        return generated(fit, fit.draws.warmup_positions)
    if group in ("log_likelihood", "log_prior"):
        return factors(fit, group, fit.draws.positions)
    from .predict import draw_prior, replicate

    if group == "posterior_predictive":
        return replicate(fit, seed=0)
    names = set(_simulated(fit, group))
    return {name: value for name, value in draw_prior(fit, PRIOR_DRAWS, seed=0).items() if name in names}


def generated(fit: Any, positions: np.ndarray, keys: np.ndarray | None = None) -> Arrays:
    """Latent sites and records at positions of shape (chains, draws, dim).

    Finite sites that are summed out of the density are drawn given each position; ``keys`` tells draws apart.
    """
    if not hasattr(fit.density, "generated"):
        return {"z": positions}
    return in_order(fit, over_draws(fit.density, "generated", positions, _keys(fit, positions, keys)))


def _keys(fit: Any, positions: np.ndarray, keys: np.ndarray | None = None) -> np.ndarray | None:
    """Numbers that tell draws apart, None where nothing is drawn given a position."""
    if not getattr(getattr(fit.density, "compiled", None), "summed", None):
        return None
    return draw_keys(fit.manifest.get("seed"), *positions.shape[:2]) if keys is None else keys


def draw_keys(seed: Any, chains: int, draws: int, first: int = 0) -> np.ndarray:
    """Numbers that tell draws apart, by seed, chain and draw, shape (chains, draws, 3).

    Example:
        >>> draw_keys(7, 1, 2, first=4).tolist()
        [[[7, 0, 4], [7, 0, 5]]]
    """
    chain, draw = np.indices((chains, draws))
    return np.stack([np.full_like(chain, int(seed or 0) % 2**32), chain, draw + first], axis=-1).astype(np.uint32)


def factors(fit: Any, group: str, positions: np.ndarray) -> Arrays:
    """Pointwise log likelihood, or log prior by site, at positions of shape (chains, draws, dim)."""
    keys = _keys(fit, positions) if group == "log_prior" else None
    return in_order(fit, over_draws(fit.density, _METHODS[group], positions, keys))


def in_order(source: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by site in the order of the model; compiled functions return dicts in alphabetical order.

    Args:
        source: A program, or something with a ``program`` and a ``density``, of which either knows the names.
        values: By site.
    """
    program = getattr(source, "program", source)
    place = {name: i for i, name in enumerate(naming.order(program, getattr(source, "density", None)))}
    return {name: values[name] for name in sorted(values, key=lambda name: place.get(name, len(place)))}


def observed(program: Any, density: Any = None) -> Arrays:
    """The data of every observed site."""
    return naming.observed(program, density)


def constants(program: Any) -> Arrays:
    """The array arguments of the model by parameter name, and what ``do`` has fixed."""
    if program is None:
        return {}
    found: Arrays = {}
    for name, value in program.inputs.items():
        value = jax.tree_util.tree_map(as_columns, value, is_leaf=is_table)
        for path, leaf in jax.tree_util.tree_flatten_with_path(value, is_leaf=_numbers)[0]:
            label = name + "".join(f"/{_key(entry)}" for entry in path)
            if hasattr(leaf, "__array__") or _numbers(leaf):
                found[label] = np.asarray(leaf)
    found = {name: value for name, value in found.items() if value.ndim and value.dtype.kind in "biufU"}
    done = {name: np.asarray(value) for name, value in program.fixed.items() if program.roles[name] == "done"}
    done = program.tidy.unpacked(done)
    return {**found, **done}


def _numbers(value: Any) -> bool:
    """Whether a value is a list of numbers, which users mean as an array."""
    return isinstance(value, list) and bool(value) and all(isinstance(x, int | float | np.number) for x in value)


_METHODS = {"log_likelihood": "pointwise", "log_prior": "log_prior", "generated": "generated"}


def _inner(fit: Any, method: str) -> Mapping[str, Any]:
    return in_order(fit, shapes_of(fit.density, method)) if hasattr(fit.density, method) else {}


def _simulated(fit: Any, group: str) -> Mapping[str, Any]:
    from .predict import simulated_shapes

    kinds = {name: site.kind for name, site in fit.program.sites.items()}
    wanted = ("latent", "record") if group == "prior" else ("observed",)
    every = simulated_shapes(fit, clamped=group == "posterior_predictive")
    return {name: shape for name, shape in every.items() if kinds.get(name) in wanted}


def _key(entry: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)
