"""Names of the quantities of a fit, their axes and labels: from its program, or from its density.

A program knows them. A log density that comes from elsewhere may say them itself (``core.NamedDensity``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def order(program: Any, density: Any) -> tuple[str, ...]:
    """Names of sites and records in the order in which they are shown."""
    return tuple(program.sites) if program is not None else tuple(getattr(density, "names", ()))


def dims(program: Any, density: Any) -> dict[str, tuple[str, ...]]:
    """Names of the axes of every quantity that has any."""
    if program is not None:
        return {name: tuple(site.dims) for name, site in program.sites.items() if site.dims}
    found: Mapping[str, Any] = getattr(density, "dims", None) or {}
    return {name: tuple(axes) for name, axes in found.items() if axes}


def factor_dims(program: Any) -> dict[str, tuple[str, ...]]:
    """Names of the axes of log factors that are not the first axes of their sites, as in ragged plates."""
    if program is None:
        return {}
    pairs = ((name, program.tidy.scored(name), site) for name, site in program.tidy.sites.items())
    return {name: (*(p[0] for p in own.plates), *(own.dims or ())) for name, own, site in pairs if own is not site}


def coords(program: Any, density: Any) -> dict[str, np.ndarray]:
    """Labels by axis."""
    found: Mapping[str, Any] = program.coords if program is not None else getattr(density, "coords", None) or {}
    return {name: np.asarray(labels) for name, labels in found.items()}


def observed(program: Any, density: Any) -> dict[str, np.ndarray]:
    """The data of every observed site."""
    found: Mapping[str, Any] = program.observed() if program is not None else getattr(density, "observed", None) or {}
    return {name: np.asarray(value) for name, value in found.items()}


def sites(program: Any) -> dict[str, list[str]]:
    """What a fit without its program has to remember: latent and observed sites, dims with labels."""
    if program is None:
        return {}
    kinds = {kind: [n for n, site in program.sites.items() if site.kind == kind] for kind in ("latent", "observed")}
    return {**kinds, "labelled": list(program.coords)}
