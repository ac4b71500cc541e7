r"""Simulation-based calibration: is what a sampler calls the posterior the posterior of the program?

If theta* ~ p(theta) and y ~ p(y | theta*), then theta* is itself a draw of p(theta | y). So among L independent
draws theta_1, ..., theta_L of the posterior of y the rank of f(theta*, y) is uniform on {0, ..., L}, for every f.
The quantities f here are all scalars of all latent sites and records, and the log likelihood log p(y | theta),
without which a sampler that returns the prior passes.

Draws of a Markov chain are thinned until they are nearly independent: a positive correlation spreads ranks and
fails a correct sampler. What matters is the autocorrelation of the indicator f(theta_l) < f(theta*), for a rank is
its sum; its integrated autocorrelation time tau, pooled over replications, is estimated for every quantity, and
the thinning grows until the greatest tau is at most ``TAU``: then the variance of ranks exceeds that of uniform
ones by less than the fraction 2 (tau - 1) / L.

References: Talts, Betancourt, Simpson, Vehtari and Gelman (2018), Validating Bayesian inference algorithms with
simulation-based calibration; Modrák et al. (2023), Simulation-based calibration checking for Bayesian
computation: the choice of test quantities shapes sensitivity; Cook, Gelman and Rubin (2006).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from .. import kept
from .. import precision as floats
from ..core import host_rng
from ..diagnostics import autocovariance
from ..mcmc import NUTS, composite
from . import replicate as graph
from .replicate import Design
from .report import SBC

Array = Any

TAU = 1.5
"""Autocorrelation time of kept draws at which automatic thinning is content."""
MOST_THIN = 64
_ELEMENTS = 20_000_000  # numbers kept at once by a chunk
_KEYS, _TIES, _ENGINE = 1, 2, 3  # purposes of host random numbers


def sbc(
    program: Any,
    kernel: Any = None,
    *,
    observe: str | Sequence[str] | None = None,
    replications: int = 200,
    draws: int = 99,
    warmup: int | None = None,
    thin: int | None = None,
    seed: int = 0,
    quantities: Sequence[str] | Mapping[str, Callable] | None = None,
    engine: Any = None,
    chunk: int | None = None,
    precision: str | None = None,
) -> SBC:
    """Check a sampler on data simulated from a program: ranks of true values among posterior draws.

    All replications run in one compiled program, in chunks of equal size; a chain starts at a draw of the prior and
    is warmed up by itself. With ``engine`` each replication is one call of ``infer`` instead, whose draws are
    picked evenly from all chains.

    Args:
        program: A program. The values of its observed sites do not matter: they are simulated.
        kernel: The kernel to check; by default ``mcmc.NUTS()``. Adapted if it has a step size or a metric.
        observe: Sites to condition on, where the program is not conditioned.
        replications: Number of simulated data sets.
        draws: Draws L that the truth is ranked among.
        warmup: Warm-up iterations of a chain, by default 300.
        thin: Iterations per draw; by default as many as make draws nearly independent.
        seed: Determines everything.
        quantities: Names of the sites to rank (``"log_likelihood"`` is one more), or further quantities
            ``{name: function of the dict of one draw's values}`` beside all sites.
        engine: An engine such as ``mcmc.PooledHMC()`` in place of a kernel.
        chunk: Replications in one call of the compiled program.
        precision: As in ``infer``.

    Returns:
        Ranks with labels, their p-values and a verdict.

    Raises:
        ppl.ModelError: If nothing is observed, or the prior cannot be simulated.
        ValueError: If a quantity is NaN, or options are out of range.

    Example:
        >>> import ppl
        >>> from ppl import dist
        >>> @ppl.model
        ... def normal():
        ...     mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        ...     ppl.sample("y", dist.Normal(mu, 1.0))
        >>> result = sbc(normal(), observe="y", replications=40, draws=19, warmup=100)
        >>> result.labels, result.ranks.shape, result.passes(0.001)
        (('mu', 'log_likelihood'), (40, 2), True)
    """
    _check_options(replications=replications, draws=draws, thin=thin, chunk=chunk)
    if engine is not None and not (kernel is None and warmup is None and thin is None and chunk is None):
        raise ValueError("an engine has its own kernel, warm-up and thinning: leave kernel, warmup, thin, chunk out")
    if kernel is not None and not (hasattr(kernel, "init") and hasattr(kernel, "step")):
        raise TypeError(f"{kernel!r} is no kernel (init, step); an engine goes into engine=")
    began = time.perf_counter()
    with floats.context(floats.choose(precision)):
        moving = kernel if engine is None else engine
        subject = prepare(program, observe, quantities, 300 if warmup is None else warmup, draws, moving)
        seeds = host_rng(seed, _KEYS).integers(2**32, size=2, dtype=np.uint32)
        if engine is None:
            run = _in_graph(subject, NUTS() if kernel is None else kernel, seeds, replications, thin, chunk)
        else:
            run = _by_engine(subject, engine, seeds, replications, seed, precision)
    name = type(engine if engine is not None else NUTS() if kernel is None else kernel).__name__
    return assemble(subject, run, draws, seed, name, time.perf_counter() - began)


# ---------------------------------------------------------------------------------------------- the subject


@dataclass(frozen=True)
class Subject:
    """What is calibrated: the conditioned program with placeholders for data, its density and the design.

    Of all scalars ``real`` are those that exist, by place; the others are the padding of ragged plates.
    """

    program: Any
    density: Any
    design: Design
    labels: tuple[str, ...]
    real: np.ndarray


def prepare(program: Any, observe: Any, quantities: Any, warmup: int, draws: int, kernel: Any = None) -> Subject:
    """Condition a program on placeholders and compile it; finite sites that the kernel moves are kept as codes.

    Raises:
        ppl.ModelError: If nothing is observed, or the prior cannot be simulated.
    """
    import ppl
    from ppl.check import check_simulable
    from ppl.values import site_of

    names = _observed(program, observe)
    done = {name: value for name, value in program.fixed.items() if program.roles[name] == "done"}
    free = replace(program, fixed=done, roles=dict.fromkeys(done, "done"))
    check_simulable(free)
    infos = free.learned()
    blank = {name: np.zeros(infos[name].full_shape, infos[name].dtype) for name in names}
    gaps = {mark: value for mark, value in program.fixed.items() if mark not in names and site_of(mark) in names}
    roles = {**free.roles, **dict.fromkeys(names, "observed"), **{mark: program.roles[mark] for mark in gaps}}
    template = replace(free, fixed={**done, **blank, **gaps}, roles=roles)
    density = ppl.compile(template, marginalize=kept.summed(template, kept.kept(kernel, template)))
    if not density.dim:
        raise ppl.ModelError("the program has no latent site: there is nothing to calibrate")
    functions = tuple(quantities.items()) if isinstance(quantities, Mapping) else ()
    wanted = _wanted(template, () if functions else quantities, [name for name, _ in functions])
    design = Design(density.compiled, names, wanted, functions, warmup, draws)
    labels = _labels(template, design)
    real = np.flatnonzero(["[padding " not in label for label in labels])
    return Subject(template, density, design, tuple(labels[i] for i in real), real)


def _observed(program: Any, observe: Any) -> tuple[str, ...]:
    """Sites to simulate data for."""
    import ppl

    if not hasattr(program, "condition") or not hasattr(program, "simulate"):
        raise TypeError(f"sbc takes a program, not {type(program).__name__}")
    sites = program.sites
    fixed = tuple(name for name, site in sites.items() if site.kind == "observed")
    names = fixed if observe is None else (observe,) if isinstance(observe, str) else tuple(observe)
    for name in names:
        if name not in sites or sites[name].kind not in ("latent", "observed"):
            raise ppl.ModelError(f"observe: {name!r} is not a random site; there are {', '.join(sites)}")
    if not names:
        raise ppl.ModelError("sbc needs observed sites: condition the program, or say observe='y'")
    left = [name for name in fixed if name not in names or name not in program.fixed]
    if left:
        raise ppl.ModelError(
            f"sbc draws parameters from the prior, but {left[0]!r} keeps an observed value, so they would have to come "
            "from a posterior. Simulate it too (name it in observe=), or fix it by program.do."
        )
    return names


def _wanted(program: Any, names: Sequence[str] | None, more: list[str]) -> tuple[str, ...]:
    import ppl

    sites = program.sites
    known = [name for kind in ("latent", "record") for name, site in sites.items() if site.kind == kind]
    known.append(graph.LOG_LIKELIHOOD)
    taken = [name for name in more if name in known]
    unknown = [name for name in names or () if name not in known]
    if isinstance(names, str) or unknown or taken:
        raise ppl.ModelError(
            f"quantities: {(unknown or taken or [str(names)])[0]!r}; the program's are {', '.join(known)}"
        )
    return tuple(names) if names else (*known, *more)


def _labels(program: Any, design: Design) -> list[str]:
    """Names of all scalars, in the order of ``replicate.flat``."""
    infos, functions, found = program.learned(), dict(design.functions), []
    if functions:
        values = {n: jax.ShapeDtypeStruct(i.full_shape, i.dtype) for n, i in infos.items() if i.kind != "factor"}
    for name in design.names:
        if name in functions:
            shape = jax.eval_shape(functions[name], values).shape
        else:
            shape = infos[name].full_shape if name in infos else ()
        own = infos[name] if name in infos and name not in functions else None
        for place in np.ndindex(*shape):
            inner = ", ".join(map(str, place)) if own is None else program.tidy.element(own, place)
            found.append(f"{name}[{inner}]" if place else name)
    return found


# ---------------------------------------------------------------------------------------------- running


@dataclass(frozen=True)
class Run:
    """Codes (replications, draws, quantities), divergences (replications,), autocorrelation times, thinning."""

    codes: np.ndarray
    divergences: np.ndarray
    tau: np.ndarray
    thin: int


def _in_graph(subject: Subject, kernel: Any, seeds: Array, count: int, thin: int | None, chunk: int | None) -> Run:
    """All replications in the compiled program; a first chunk finds the thinning."""
    design, density = subject.design, subject.density
    dtype = np.dtype(float) if jax.config.jax_enable_x64 else np.dtype(np.float32)
    composite.check(kernel, density, density.dim)
    kernel = composite.expanded(kernel, density.dim, density)
    kernel = jax.tree.map(lambda x: _strong(x, dtype), kernel)
    size = chunk or _chunk(count, design.draws * max(density.dim, len(subject.labels)))

    def run(begin: int, thin: int, still: bool = False) -> tuple[np.ndarray, np.ndarray]:
        rows = np.arange(begin, begin + size, dtype=np.uint32)
        length = 0 if still else design.warmup + design.draws * thin
        out = graph.replicate(design, density, kernel, seeds, rows, np.int32(thin), np.int32(length))
        codes, divergences = jax.device_get(out[:2])
        return codes[..., subject.real], divergences

    first, tau, chosen = None, np.inf, thin or 1
    while thin is None and tau > TAU:
        first = run(0, chosen)
        tau = float(_tau(first[0][: min(size, count)]).max())
        if chosen >= MOST_THIN or tau <= TAU:
            break
        chosen, first = min(MOST_THIN, math.ceil(chosen * tau)), None
    begins = [begin for begin in range(0, count, size) if begin or first is None]
    parts = ([first] if first is not None else []) + _threaded(run, begins, chosen, compiled=thin is None)
    codes, divergences = (np.concatenate(x)[:count] for x in zip(*parts, strict=True))
    return Run(codes, divergences, _tau(codes), chosen)


def _threaded(run: Callable, begins: list[int], thin: int, compiled: bool) -> list[Any]:
    """Run chunks, on a CPU several at once; one call that does nothing compiles before threads start."""
    threads = min(len(begins), os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1
    if threads < 2:
        return [run(begin, thin) for begin in begins]
    if not compiled:
        run(0, thin, still=True)
    x64 = jax.config.jax_enable_x64

    def work(begin: int) -> Any:
        with jax.enable_x64(x64):  # the setting belongs to the thread
            return run(begin, thin)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, begins))


def _chunk(count: int, elements: int) -> int:
    """Replications per call: equal chunks within the memory, and one for each core."""
    threads = os.cpu_count() or 1 if jax.default_backend() == "cpu" else 1
    most = max(1, min(math.ceil(count / threads), _ELEMENTS // max(elements, 1)))
    return math.ceil(count / math.ceil(count / most))


def _strong(leaf: Any, dtype: np.dtype) -> np.ndarray:
    leaf = np.asarray(leaf)
    return leaf.astype(dtype) if leaf.dtype.kind == "f" else leaf


def _by_engine(subject: Subject, engine: Any, seeds: Array, count: int, seed: int, precision: Any) -> Run:
    """One call of ``infer`` per replication; data of equal shape compile nothing."""
    from ..drive import infer

    design, density = subject.design, subject.density
    observed, truth = jax.device_get(graph.truths(design, density, seeds, np.arange(count, dtype=np.uint32)))
    found, divergences = [], []
    for r in range(count):
        data = {name: value[r] for name, value in observed.items()}
        posterior = replace(subject.program, fixed={**subject.program.fixed, **data})
        number = int(host_rng(seed, _ENGINE, r).integers(2**31))
        fit = infer(posterior, engine, seed=number, progress=False, precision=precision)
        positions = fit.draws.positions.reshape(-1, density.dim)
        if len(positions) < design.draws:
            raise ValueError(f"{len(positions)} draws of the engine are fewer than draws={design.draws}")
        chosen = ((np.arange(design.draws) + 0.5) * len(positions) / design.draws).astype(int)
        bound = fit.density
        codes = graph.codes(design, bound, data, (truth[0][r], truth[1][r]), positions[chosen])
        found.append(jax.device_get(codes)[..., subject.real])
        divergences.append(int(np.sum(fit.draws.stats.get("diverging", 0))))
    codes = np.stack(found)
    return Run(codes, np.array(divergences), _tau(codes), len(positions) // design.draws)


# ---------------------------------------------------------------------------------------------- ranks


def assemble(subject: Subject, run: Run, draws: int, seed: int, sampler: str, seconds: float) -> SBC:
    """Ranks from codes, ties broken at random; constants are left out.

    Raises:
        ValueError: If a quantity is NaN.
    """
    invalid = (run.codes == graph.INVALID).any(axis=(0, 1))
    if invalid.any():
        bad = int(np.argmax(invalid))
        share = (run.codes[:, :, bad] == graph.INVALID).mean()
        raise ValueError(f"{subject.labels[bad]} is NaN in {share:.1%} of draws or at the truth: it has no rank")
    below = (run.codes == graph.BELOW).sum(axis=1)
    ties = (run.codes == graph.EQUAL).sum(axis=1)
    ranks = below + host_rng(seed, _TIES).integers(0, ties + 1)
    varies = ~(ties == draws).all(axis=0)
    if not varies.any():
        raise ValueError("all quantities are constant: there is nothing to rank")
    constant = [label for label, v in zip(subject.labels, varies, strict=True) if not v]
    notes = [f"constant, left out: {', '.join(constant[:5])}{', ...' * (len(constant) > 5)}"] if constant else []
    worst = float(run.tau[varies].max())
    if worst > TAU:
        label = subject.labels[int(np.flatnonzero(varies)[np.argmax(run.tau[varies])])]
        notes.append(
            f"draws of {label} are correlated (autocorrelation time {worst:.2g}): their ranks spread for that alone"
        )
    return SBC(
        ranks=ranks[:, varies],
        labels=tuple(label for label, v in zip(subject.labels, varies, strict=True) if v),
        draws=draws,
        thin=run.thin,
        tau=run.tau[varies],
        divergences=run.divergences,
        sampler=sampler,
        seed=seed,
        seconds=seconds,
        notes=tuple(notes),
    )


def _tau(codes: np.ndarray) -> np.ndarray:
    """Integrated autocorrelation time of the indicators of lying below the truth, pooled over replications.

    Sums the autocorrelations in pairs of lags while the pairs are positive (Geyer's initial positive sequence).
    """
    found = []
    for column in range(codes.shape[2]):
        covariance = autocovariance(codes[:, :, column].astype(np.float64))
        if len(covariance) < 4 or covariance[0] <= 0.0:
            found.append(1.0)
            continue
        pairs = (covariance[: len(covariance) // 2 * 2] / covariance[0]).reshape(-1, 2).sum(axis=1)
        stop = int(np.argmax(pairs <= 0.0)) if (pairs <= 0.0).any() else len(pairs)
        found.append(2.0 * float(pairs[:stop].sum()) - 1.0)
    return np.array(found)


def _check_options(**options: int | None) -> None:
    for name, value in options.items():
        if value is not None and (isinstance(value, bool) or int(value) != value or value < 1):
            raise ValueError(f"{name}={value!r} is not a positive whole number")
