"""Exact leave-one-out: draw from the posterior without one unit.

The mean of p(y_i | theta) over those draws hangs on the few that come near the unit. It is also the ratio of two
normalising constants, that of the posterior with the unit and that without, and there are draws of both: the bridge
identity (``bridge_sampling.iterate``) with l = p(y_i | theta) has a far smaller error.

The unit is data of the density (``units.LeaveOut``), so all refits of a model share what is compiled.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import host_rng
from .bridge_sampling import iterate
from .leave_one_out import Work, evaluate_at
from .units import LeaveOut

_START = 83
"""Purpose of the random numbers that choose starting points among the posterior's draws."""


def refit(work: Work, fit: Any, index: int, engine: Any, seed: int) -> None:
    """Fit without a unit and replace its contribution."""
    from ..drive import infer

    places = work.units.places(fit.density)
    density = LeaveOut(fit.density, np.int32(index), places)
    engine = engine_of(fit) if engine is None else engine
    positions = np.asarray(fit.draws.positions)
    flat = positions.reshape(-1, positions.shape[-1])
    chains = getattr(engine, "chains", None) or positions.shape[0]
    start = flat[host_rng(seed, _START, index).integers(len(flat), size=chains)]
    number = int(host_rng(seed, _START, index, 1).integers(2**31))
    again = infer(density, engine, seed=number, init=start, progress=False, precision=fit.manifest.get("precision"))
    drawn = again.draws.positions
    there = evaluate_at(fit.density, places, index, drawn.reshape(-1, drawn.shape[-1]))[1].reshape(drawn.shape[:2])
    here = work.log_likelihood[:, index].reshape(positions.shape[:2])
    work.elpd_i[index], work.mcse_i[index] = iterate(here, there, 0.5)
    work.k[index], work.methods[index] = 0.0, "refit"
    trouble = [text for text in again.warnings() if "R-hat" in text]
    if trouble:
        work.notes.append(f"refit without unit {index} of {'+'.join(work.units.sites)}: {trouble[0]}")


def engine_of(fit: Any) -> Any:
    """The engine of a fit as its manifest tells, or the default one where it cannot be told.

    Example:
        >>> from ppl.inference import infer
        >>> fit = infer(lambda z: -0.5 * (z**2).sum(), init=np.zeros(1), draws=50, progress=False)
        >>> engine_of(fit).draws
        50
    """
    from .. import mcmc

    try:
        return _rebuilt({"type": fit.manifest.get("engine"), **(fit.manifest.get("engine_options") or {})})
    except (LookupError, TypeError, ValueError):
        return mcmc.PooledHMC()


def _rebuilt(value: Any) -> Any:
    """Options from the JSON form that ``manifest.plain`` gave them."""
    from .. import adapt, mcmc
    from ..mcmc import euclidean

    if isinstance(value, list):
        return tuple(map(_rebuilt, value))
    if not isinstance(value, dict):
        return value
    name = str(value["type"])
    kinds = [getattr(module, name) for module in (mcmc, adapt, euclidean) if hasattr(module, name)]
    if not kinds:
        raise LookupError(name)
    return kinds[0](**{name: _rebuilt(option) for name, option in value.items() if name != "type"})
