"""Some of the draws of a very large fit, so that a report on a run of any length fits into memory.

Thinned draws have the same distribution; their effective sample size is at most that of all draws.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ..core import Draws

NUMBERS = 40_000_000
"""Most numbers of unconstrained draws and values that are looked at: 320 megabytes."""

PIECE = 4096
"""Draws that are read at a time."""


def bounded(fit: Any) -> tuple[Any, int]:
    """The fit, or one with every k-th draw of it; and k."""
    chains, draws, dim = fit.draws.shape
    step = math.ceil(chains * draws * (dim + _values(fit)) / NUMBERS)
    if step <= 1 or draws < 2 * step:
        return fit, 1
    log = getattr(fit.draws, "sampling", None)
    if log is None:
        stats = {name: value[:, ::step] for name, value in fit.draws.stats.items()}
        few = Draws(fit.draws.positions[:, ::step], stats, info=fit.draws.info)
        stored = {name: _every(data, step) for name, data in fit.stored.items()}
        return replace(fit, draws=few, stored=stored), step
    positions = _read(log, "unconstrained_posterior", "z", step)
    stats = {name: _read(log, "sample_stats", name, step) for name in log.tail["sample_stats"]}
    stored = {name: _read_group(log, name, data, step) for name, data in fit.stored.items() if name in log.tail}
    stored = {**{name: data for name, data in fit.stored.items() if "draw" not in data.dims}, **stored}
    return replace(fit, draws=Draws(positions, stats, info=fit.draws.info), stored=stored), step


def _values(fit: Any) -> int:
    """Numbers of one draw beside the unconstrained ones."""
    if "posterior" in fit.stored:
        return sum(math.prod(value.shape[2:]) for value in fit.stored["posterior"].data_vars.values())
    if fit.program is None:
        return 0
    return sum(math.prod(site.shape) for site in fit.program.sites.values() if site.kind in ("latent", "record"))


def _every(data: Any, step: int) -> Any:
    return data.isel(draw=slice(None, None, step)) if "draw" in data.dims else data


def _read(log: Any, group: str, name: str, step: int) -> np.ndarray:
    """Every ``step``-th draw, piece by piece."""
    size = step * max(PIECE // step, 1)
    starts = range(0, log.total, size)
    ends = [min(start + size, log.total) for start in starts]
    pieces = [log.read(group, name, start, end)[:, ::step].copy() for start, end in zip(starts, ends, strict=True)]
    return np.concatenate(pieces, axis=1)


def _read_group(log: Any, group: str, data: Any, step: int) -> Any:
    import xarray as xr

    variables = {name: xr.Variable(value.dims, _read(log, group, name, step)) for name, value in data.data_vars.items()}
    coords = {name: value for name, value in data.coords.items() if "draw" not in value.dims}
    return xr.Dataset(variables, coords=coords)
