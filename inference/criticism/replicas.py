"""Observed data and their replications, by site."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray


def observed_site(fit: Any, site: str | None) -> str:
    """The observed site that is meant.

    Raises:
        ppl.ModelError: If there are several, or none of that name.
    """
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


def observed_values(fit: Any, name: str) -> tuple[Array, Array]:
    """The data of a site, and which of them are known."""
    data = np.asarray(fit.dataset("observed_data")[name].values)
    return data, ~np.isnan(data) if data.dtype.kind == "f" else np.ones(data.shape, bool)


def replicated(fit: Any, name: str, prior: bool, draws: int, seed: int) -> Array:
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
        return made.reshape(-1, *made.shape[2:])
    made = posterior_replicas(fit, name, -(-draws // fit.draws.positions.shape[0]), seed)[0]
    return made.reshape(-1, *made.shape[2:])


def posterior_replicas(fit: Any, name: str, each: int, seed: int) -> tuple[Array, Array]:
    """Replicated data of evenly spaced draws, shape (chains, draws, ...), and which draws of a chain they are.

    Those that were saved with a fit are taken where the program is not known.
    """
    if fit.program is None and name in fit.dataset("posterior_predictive"):
        saved = fit.dataset("posterior_predictive")[name].values
        index = np.linspace(0, saved.shape[1] - 1, min(each, saved.shape[1])).round().astype(int)
        return saved[:, index], index
    made = fit.predict(names=[name], draws=each, seed=seed)
    return made[name].values, np.asarray(made.coords["draw"].values, int)
