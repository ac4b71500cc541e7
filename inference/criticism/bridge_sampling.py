r"""Bridge sampling: the log evidence from posterior draws.

For an unnormalised posterior q with integral r, a normalised g that covers it, l = q / g and shares s1 + s2 = 1,

    r = E_g[l / (s1 l + s2 r)] / E_post[1 / (s1 l + s2 r)],

iterated to its fixed point (Meng and Wong, 1996). g is standard normal after whitening by the mean and covariance of
half of the chains; the other half is iterated on, then the halves change places. With ``"warp3"`` the posterior is
made symmetric first, (q(x) + q(-x)) / 2, which has the same integral and is nearer to normal (Meng and Schilling,
2002). Every half has the relative error of Fruehwirth-Schnatter (2004),

    var_g(f2) / (N2 mean(f2)^2) + var_post(f1) / (ESS(f1) mean(f1)^2),   f1 = 1 / (s1 l/r + s2), f2 = l/r f1,

with the effective sample size for autocorrelation. Its first-order terms do not see that r is estimated.

References: Meng and Wong (1996), Simulating ratios of normalizing constants via a simple identity; Fruehwirth-Schnatter
(2004), Estimating marginal likelihoods for mixture and Markov switching models; Gronau et al. (2017), A tutorial on
bridge sampling; Gronau et al. (2020) for warp-III.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from .. import diagnostics
from ..chunks import in_chunks
from ..compiling import jit_quick
from ..core import host_rng

Array = np.ndarray

METHODS = ("warp3", "normal")

_PROPOSAL = 97
"""Purpose of the random numbers of the proposal."""

ITERATIONS, TOLERANCE = 5000, 1e-10
"""Most fixed-point iterations, and the change of log r at which they end."""

LARGE = 0.3
"""Standard error of a log evidence above which it says so."""


@dataclass(frozen=True)
class Evidence:
    """A log evidence with its Monte Carlo standard error.

    Attributes:
        log_evidence: Log of the integral of prior times likelihood.
        se: Standard error of it.
        halves: The two estimates whose mean it is.
        halves_se: Their standard errors.
        method: ``"warp3"`` or ``"normal"``.
        draws: Posterior draws that were used.
        notes: What speaks against the number.
    """

    log_evidence: float
    se: float
    halves: tuple[float, ...]
    halves_se: tuple[float, ...]
    method: str
    draws: int
    notes: tuple[str, ...] = ()

    def __sub__(self, other: Evidence) -> Evidence:
        """Log Bayes factor of this model against another, with its standard error.

        Example:
            >>> one, two = (Evidence(x, 0.3, (x, x), (0.4, 0.4), "warp3", 100) for x in (-10.0, -12.0))
            >>> (one - two).log_evidence, round((one - two).se, 3)
            (2.0, 0.424)
        """
        return Evidence(
            self.log_evidence - other.log_evidence,
            float(np.hypot(self.se, other.se)),
            tuple(a - b for a, b in zip(self.halves, other.halves, strict=True)),
            tuple(float(np.hypot(a, b)) for a, b in zip(self.halves_se, other.halves_se, strict=True)),
            self.method,
            min(self.draws, other.draws),
            (*self.notes, *other.notes),
        )

    def __repr__(self) -> str:
        """The number, its error and what speaks against it."""
        text = f"log evidence {self.log_evidence:.3f} +- {self.se:.2g} (bridge sampling, {self.method})"
        return "\n".join([text, *(f"! {note}" for note in self.notes)])


def bridge(fit: Any, *, method: str = "warp3", seed: int = 0, proposals: int | None = None) -> Evidence:
    """Estimate the log evidence log p(y) of a program.

    Args:
        fit: A fit, or a conditioned program, which is then fitted. For a fit of a plain log density it is the log of
            that density's integral.
        method: ``"warp3"``, or ``"normal"``, which evaluates half as much and fits skewed posteriors less well.
        seed: Determines the proposals, and the fit of a program.
        proposals: Draws from the proposal for each half; by default as many as posterior draws.

    Raises:
        ppl.ModelError: If a prior is improper: the evidence then has an arbitrary factor.
        ValueError: If the method is unknown, or there are too few draws for the dimension.

    Example:
        >>> from ppl.inference import infer
        >>> fit = infer(lambda z: -0.5 * (z**2).sum(), init=np.zeros(2), seed=1, progress=False)
        >>> found = bridge(fit)
        >>> bool(abs(found.log_evidence - np.log(2 * np.pi)) < 0.05), bool(found.se < 0.02)
        (True, True)
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}; there are {', '.join(map(repr, METHODS))}")
    if not hasattr(fit, "draws"):
        from ..drive import infer

        fit = infer(fit, seed=seed, progress=False)
    from ppl import ModelError

    if fit.density is None:
        raise ModelError(
            "bridge sampling needs the density, and this fit does not know its program: load(path, program)"
        )
    with fit._context():
        _refuse_improper(fit)
        positions = np.asarray(fit.draws.positions, np.float64)
        _refuse_few(positions)
        log_density = partial(_log_density, fit.density)
        found = [
            _half(log_density, learn, use, method, proposals, host_rng(seed, _PROPOSAL, number))
            for number, (learn, use) in enumerate(two_folds(positions))
        ]
    values, errors = (tuple(float(x) for x in column) for column in zip(*found, strict=True))
    se = float(np.linalg.norm(errors)) / 2.0
    notes = [text for text in fit.warnings() if "R-hat" in text or "divergent" in text]
    factors = [] if fit.program is None else [n for n, site in fit.program.sites.items() if site.kind == "factor"]
    if factors:
        notes.append(
            f"factors ({', '.join(factors)}) count as they are: an evidence only if they are densities of data"
        )
    gap = abs(values[0] - values[1])
    if gap > 4.0 * np.linalg.norm(errors):
        notes.append(
            f"the two halves of the draws give {values[0]:.3f} and {values[1]:.3f}, which their standard errors do not "
            "explain: the standard error is taken from the difference. Draw longer"
        )
        se = gap / 2.0
    if se > LARGE:
        notes.append(f"a standard error of {se:.2g} is large: the normal proposal and the posterior hardly overlap")
    for note in notes:
        warnings.warn(note, stacklevel=2)
    draws = positions.shape[0] * positions.shape[1]
    return Evidence(float(np.mean(values)), se, values, errors, method, draws, tuple(notes))


def two_folds(positions: Array) -> list[tuple[Array, Array]]:
    """Two halves in both roles: chains, which are independent, where there are four; else halves of each chain.

    Example:
        >>> [(a.ravel().tolist(), b.ravel().tolist()) for a, b in two_folds(np.arange(4.0).reshape(4, 1, 1))]
        [([0.0, 2.0], [1.0, 3.0]), ([1.0, 3.0], [0.0, 2.0])]
    """
    chains, draws, _ = positions.shape
    if chains >= 4:
        halves = positions[::2], positions[1::2]
    else:
        halves = positions[:, : draws // 2], positions[:, draws // 2 :]
    return [(halves[0], halves[1]), (halves[1], halves[0])]


def _half(
    log_density: Callable, learn: Array, use: Array, method: str, proposals: int | None, rng: np.random.Generator
) -> tuple[float, float]:
    """Log evidence and standard error: the proposal from some draws, the iteration on others."""
    chains, draws, dim = use.shape
    flat = learn.reshape(-1, dim)
    mean = flat.mean(axis=0)
    factor = np.linalg.cholesky(np.atleast_2d(np.cov(flat.T)))
    log_det = float(np.log(np.diagonal(factor)).sum())
    noise = rng.normal(size=(proposals or chains * draws, dim))

    def log_ratio(x: Array) -> Array:
        """Log of l at whitened positions."""
        value = log_density(mean + x @ factor.T)
        if method == "warp3":
            value = np.logaddexp(value, log_density(mean - x @ factor.T)) - np.log(2.0)
        return value + log_det + 0.5 * (x**2).sum(axis=1) + 0.5 * dim * np.log(2.0 * np.pi)

    here = log_ratio(np.linalg.solve(factor, (use.reshape(-1, dim) - mean).T).T)
    there = log_ratio(noise)
    sizes = np.asarray(diagnostics.ess_mean(use), np.float64)
    size = float(np.clip(np.nanmean(sizes), 1.0, chains * draws)) if np.isfinite(sizes).any() else float(chains * draws)
    return iterate(here.reshape(chains, draws), there, size / (size + len(noise)))


def iterate(here: Array, there: Array, share: float) -> tuple[float, float]:
    """Solve the bridge identity.

    Args:
        here: Log of q / g at posterior draws, shape (chains, draws).
        there: The same at draws of g: shape (proposals,) where they are independent, (chains, draws) where not.
        share: s1, the share of (effective) posterior draws.

    Returns:
        Log r and its standard error.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.normal(size=(4, 500)), rng.normal(size=2000) * 2.0
        >>> log_ratio = lambda x: -0.5 * x**2 + 0.5 * (x / 2.0) ** 2 + np.log(2.0) + 0.5 * np.log(2.0 * np.pi)
        >>> log_r, se = iterate(log_ratio(x), log_ratio(y), 0.5)
        >>> bool(abs(log_r - 0.5 * np.log(2.0 * np.pi)) < 4 * se < 0.2)
        True
    """
    s1, s2 = np.log(share), np.log1p(-share)
    log_r = float(np.median(here))
    for _ in range(ITERATIONS):
        f1 = -np.logaddexp(s1 + here, s2 + log_r)
        f2 = there - np.logaddexp(s1 + there, s2 + log_r)
        before, log_r = log_r, _log_mean(f2) - _log_mean(f1)
        if abs(log_r - before) < TOLERANCE:
            break
    f1 = np.exp(-np.logaddexp(s1 + here - log_r, s2))
    f2 = np.exp(there - log_r - np.logaddexp(s1 + there - log_r, s2))
    return log_r, float(np.hypot(_relative_error(f1), _relative_error(f2)))


def _relative_error(f: Array) -> float:
    """Standard error of a mean by the mean, with the autocorrelation of chains (chains, draws)."""
    size = float(diagnostics.ess_mean(f)) if f.ndim == 2 else float(f.size)
    size = min(size, f.size) if np.isfinite(size) else f.size
    return float(f.std() / f.mean() / np.sqrt(size))


def _log_mean(x: Array) -> float:
    top = float(x.max())
    return top + float(np.log(np.exp(x - top).mean()))


def _log_density(density: Any, positions: Array) -> Array:
    """Log density at positions (draws, dim), minus infinity where it is not finite."""
    work = 8 * int(getattr(density, "work", 0) or 0)
    value = np.asarray(in_chunks(partial(_evaluate, density), positions, work), np.float64)
    return np.where(np.isfinite(value), value, -np.inf)


@jit_quick
def _evaluate(density: Any, positions: Any) -> Any:
    return jax.vmap(density)(positions)


def _refuse_few(positions: Array) -> None:
    """Half of the draws must determine a covariance."""
    chains, draws, dim = positions.shape
    fewest = min(half[..., 0].size for half in two_folds(positions)[0])
    if fewest < max(2 * dim, 10):
        raise ValueError(f"{chains} x {draws} draws are too few for the covariance of {dim} dimensions: draw longer")


def _refuse_improper(fit: Any) -> None:
    """An improper prior leaves the evidence undefined."""
    from ppl import ModelError
    from ppl.errors import ImproperPrior

    if not hasattr(fit.density, "prior"):
        return
    try:
        jax.eval_shape(fit.density.prior, jax.random.key(0))
    except ImproperPrior as error:
        raise ModelError(
            f"the evidence of a model with an improper prior is not defined: {error}\n  Give that site a proper prior."
        ) from error
    except (ModelError, NotImplementedError):
        return  # a prior that cannot be simulated may yet be proper
