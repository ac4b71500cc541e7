"""Posterior probabilities of finite sites that were summed out of a density."""

from __future__ import annotations

from typing import Any

import numpy as np

from .chunks import over_draws

PIECE = 1024
"""Draws whose probabilities are in memory at a time."""


def probabilities(fit: Any, name: str, draws: bool = False) -> Any:
    """Probabilities of a summed site's states, averaged over draws or for each; see ``Fit.probabilities``."""
    import ppl

    summed = getattr(getattr(fit.density, "compiled", None), "summed", None) or {}
    if name not in summed:
        known = f"those that were are {', '.join(summed)}" if summed else "no site was"
        raise ppl.ModelError(f"site {name!r} was not summed out of the density of this fit; {known}")
    positions = np.asarray(fit.draws.positions)
    if draws:
        return over_draws(fit.density, "probabilities", positions)[name]
    from .export import dims_of, labelled

    flat = positions.reshape(1, -1, positions.shape[-1])
    pieces = [flat[:, start : start + PIECE] for start in range(0, flat.shape[1], PIECE)]
    tables = (over_draws(fit.density, "probabilities", piece)[name].sum(axis=(0, 1)) for piece in pieces)
    mean = sum(tables, np.zeros(())) / flat.shape[1]
    low, count = fit.density.compiled.sites[name].states
    states = f"{name}_state"
    dims = {name: (*dims_of(fit.program).get(name, ()), states)}
    return labelled({name: mean}, dims, {**fit.program.coords, states: low + np.arange(count)}, (), {})[name]
