r"""Exact leave-one-out: draw from the posterior without one unit, and weigh those draws against the posterior's.

p(y_i | y_{-i}) = Z / Z_{-i} is the ratio of the normalising constants of the posterior p and of p_{-i}, and there are
draws of both. The mean of the likelihood over draws of p_{-i} hangs on the few that come near the unit; warped bridge
sampling does not: both are whitened by their own means and covariances,

    q(x) = p(m + L x) |L|,    q_{-i}(x) = p_{-i}(m' + L' x) |L'|,

which leaves their integrals as they are and makes them alike, and the bridge identity (``bridge_sampling.iterate``) is
solved for their ratio: moments from half of the chains, the identity on the others, and the other way round.

The unit is data of the density (``units.LeaveOut``), so all refits of a model share what is compiled.

Reference: Meng and Schilling (2002), Warp bridge sampling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..core import host_rng
from .bridge_sampling import iterate, two_folds
from .leave_one_out import Work, evaluate_at
from .moment_match import PER_DIMENSION

Array = np.ndarray

_START = 83
"""Purpose of the random numbers that choose starting points among the posterior's draws."""

FAR = 1e6
"""Stands for an infinite log ratio."""


def refit(work: Work, fit: Any, index: int, engine: Any, seed: int) -> None:
    """Fit without a unit and replace its contribution."""
    from ..drive import infer
    from .units import LeaveOut

    places = work.units.places(fit.density)
    density = LeaveOut(fit.density, np.int32(index), places)
    engine = engine_of(fit) if engine is None else engine
    positions = np.asarray(fit.draws.positions, np.float64)
    flat = positions.reshape(-1, positions.shape[-1])
    chains = getattr(engine, "chains", None) or positions.shape[0]
    start = flat[host_rng(seed, _START, index).integers(len(flat), size=chains)]
    number = int(host_rng(seed, _START, index, 1).integers(2**31))
    again = infer(density, engine, seed=number, init=start, progress=False, precision=fit.manifest.get("precision"))
    evaluate = partial(evaluate_at, fit.density, places, index)
    without = np.asarray(again.draws.positions, np.float64)
    work.elpd_i[index], work.mcse_i[index] = log_ratio(evaluate, positions, without)
    work.k[index], work.methods[index] = 0.0, "refit"
    trouble = [text for text in again.warnings() if "R-hat" in text]
    if trouble:
        work.notes.append(f"refit without unit {index} of {'+'.join(work.units.sites)}: {trouble[0]}")


def log_ratio(evaluate: Callable, posterior: Array, without: Array) -> tuple[float, float]:
    """Log of p(y_i | y_{-i}) and its standard error, by warped bridge sampling.

    Args:
        evaluate: From positions (draws, dim) to the log posterior density and the unit's log likelihood.
        posterior: Draws of the posterior, shape (chains, draws, dim).
        without: Draws of the posterior without the unit, likewise.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> both = lambda z: (-0.5 * z[:, 0] ** 2 - 0.5 * (z[:, 0] - 9) ** 2, -0.5 * (z[:, 0] - 9) ** 2)
        >>> noise = rng.normal(size=(2, 4, 500, 1))
        >>> value, se = log_ratio(both, 4.5 + noise[0] / np.sqrt(2), noise[1])
        >>> exact = -0.25 * 81 - 0.5 * np.log(2)
        >>> bool(abs(value - exact) < 4 * se + 1e-9), bool(se < 0.02)
        (True, True)
    """
    found = []
    for (learn, use), (learn_without, use_without) in zip(two_folds(posterior), two_folds(without), strict=True):
        here, there = Whitening.of(learn), Whitening.of(learn_without)

        def ratio(x: Array, here: Whitening = here, there: Whitening = there) -> Array:
            whole = evaluate(here.undo(x))[0] + here.log_det
            density, likelihood = evaluate(there.undo(x))
            # where only one of the two is zero their ratio is far beyond what matters
            value = np.where(np.isfinite(density), whole - density + likelihood - there.log_det, np.inf)
            return np.nan_to_num(value, nan=0.0, posinf=FAR, neginf=-FAR)

        x, y = (w.do(v.reshape(-1, v.shape[-1])) for w, v in ((here, use), (there, use_without)))
        values = ratio(x).reshape(use.shape[:2]), ratio(y).reshape(use_without.shape[:2])
        share = use[..., 0].size / (use[..., 0].size + use_without[..., 0].size)
        found.append(iterate(*values, share))
    value = float(np.mean([v for v, _ in found]))
    gap = abs(found[0][0] - found[1][0]) / 2.0
    error = float(np.linalg.norm([se for _, se in found])) / 2.0
    return value, gap if gap > 4.0 * error else error


@dataclass(frozen=True)
class Whitening:
    """The map x -> mean + factor x under which draws have mean zero and unit covariance (or unit scales)."""

    mean: Array
    factor: Array

    @classmethod
    def of(cls, draws: Array) -> Whitening:
        """Learn it from draws (chains, draws, dim); only scales where there are few draws for the dimension."""
        flat = draws.reshape(-1, draws.shape[-1])
        if len(flat) >= PER_DIMENSION * flat.shape[1]:
            try:
                return cls(flat.mean(axis=0), np.linalg.cholesky(np.atleast_2d(np.cov(flat.T))))
            except np.linalg.LinAlgError:
                pass
        return cls(flat.mean(axis=0), np.diag(np.maximum(flat.std(axis=0), 1e-12)))

    def do(self, z: Array) -> Array:
        """Whiten positions (draws, dim)."""
        return np.linalg.solve(self.factor, (z - self.mean).T).T

    def undo(self, x: Array) -> Array:
        """Back to positions."""
        return self.mean + x @ self.factor.T

    @property
    def log_det(self) -> float:
        """Log of the factor by which ``undo`` stretches volume."""
        return float(np.log(np.diagonal(self.factor)).sum())


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
