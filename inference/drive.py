"""``infer``: run any engine on any target, block by block.

An engine is a resumable state machine; this loop advances it and does between blocks, on the host, what
does not belong into a compiled program: progress, interrupts, time budgets and stopping rules. The plan of
the engine is the least that is done; ``until=`` adds sampling blocks after it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from . import gradients, kept, noisy
from . import precision as floats
from .devices import check_same, is_leader, together, use
from .identity import describe
from .keep import Memory
from .loop import Run
from .manifest import plain
from .placing import check_engine, place
from .progress import Monitor, display
from .results import Fit
from .runs import create, open_run, resume
from .sharding import lay_out_subject
from .subject import Subject, coordinates, is_program, make_subject, starts
from .until import as_rule

FIRST_JUDGED, DEAR = 100, 100_000
"""Draws per chain after which a rule is judged first, where one gradient of all chains computes so many elements."""


def infer(
    program: Any,
    engine: Any = None,
    *,
    chains: int | None = None,
    draws: int | None = None,
    warmup: int | None = None,
    seed: int = 0,
    until: Any = None,
    time_budget: float | None = None,
    progress: bool | None = None,
    precision: str | None = None,
    init: Any = None,
    path: Any = None,
    keep: Any = None,
    thin: int = 1,
    devices: Any = None,
    shard: Any = None,
    collapse: bool = True,
    reparameterize: Any = "auto",
) -> Fit:
    """Draw from the posterior of a program, or from a log density.

    Args:
        program: A conditioned program, or a log density ``f(z)`` of a flat vector (then ``init`` is needed).
        engine: An engine or a kernel; the default is ``mcmc.PooledHMC()``.
        chains: Overrides the engine's option of that name.
        draws: Overrides the engine's option of that name (per chain).
        warmup: Overrides the engine's option of that name.
        seed: Determines every draw.
        until: A stopping rule such as ``ess(400)``: sampling goes on after the engine's plan until it is met.
        time_budget: Seconds after which the run stops with the draws it has.
        progress: False for silence.
        precision: ``"float32"`` or ``"float64"``; the default is double on a CPU and single elsewhere.
        init: Starting positions (chains, dim) or (dim,) on the unconstrained scale, or ``{site: value}``; or a proposal
            over such positions, such as ``laplace(program)``, of which every chain gets a draw.
        path: A directory for the run: draws are written as they are made, every block ends with a checkpoint, and
            ``infer.resume(path)`` goes on after a crash; ``infer.open(path)`` reads it, also while it runs.
        keep: With ``path``, the sites and records whose values are stored; by default all. ``"log_likelihood"``
            among them stores the pointwise log likelihood whatever its size. Unconstrained draws are always stored.
        thin: Keep one of so many sampling draws.
        devices: On how many devices, or on which, lanes of chains run; by default on all devices of an accelerator's
            kind, and on one CPU. Draws do not depend on it.
        shard: True, or the name of a plate, to lay out the data over the devices instead.
        collapse: False to compute likelihoods as the model says, never from sufficient statistics (``ppl.compile``);
            so it is with ``shard``.
        reparameterize: Coordinates of hierarchical effects (``ppl.compile``): ``"auto"`` lets the default engine learn
            them in warm-up, False does not, ``"centred"``, ``"noncentred"`` or a mapping from sites chooses by hand.

    Returns:
        The labelled result.

    Raises:
        ppl.ModelError: If the program cannot be inferred, or its density is not finite at the start.
        TimeoutError: If the time budget ends before the first draw.
        FileExistsError: If ``path`` holds a run already.

    Example:
        >>> fit = infer(lambda z: -0.5 * (z**2).sum(), init=np.zeros(2), seed=1, progress=False)
        >>> bool(abs(fit.values["z"].mean()) < 0.2)
        True
    """
    monitor = Monitor()
    engine = configure(engine, chains=chains, draws=draws, warmup=warmup, init=init)
    rule = None if until is None else as_rule(until)
    most = getattr(engine, "max_draws", None)
    placement = place(devices, shard)
    number = floats.choose(precision, placement.platform)
    with floats.context(number), use(placement):
        codes = kept.kept(engine, program) if is_program(program) else ()
        collapse = bool(collapse) and not shard
        options = codes, noisy.wanted(engine), collapse, reparameterize
        subject, where = lay_out_subject(lambda: make_subject(program, init, *options), shard)
        if gradients.needed(engine):
            gradients.check(type(getattr(engine, "kernel", engine)).__name__, subject.density)
        noisy.check(engine, subject.target, shard)
        kept.check(getattr(engine, "kernel", engine), subject.density)
        engine = gradients.suited(engine, subject.density)
        if rule is not None and rule.converged and draws is None and most:
            engine = _ruled(engine, subject)
        positions = starts(subject, init, getattr(engine, "chains", None), seed)
        check_same(lambda: [describe(subject.program, subject.dim), plain(engine), seed, thin])
        plan = [*engine.plan(subject.target), *check_engine(engine, subject.target, placement), *where]
        plan += noisy.remarks(subject.target) + gradients.remarks(subject.density)
        plan += kept.plan(codes) + _remarks(subject)
        facts: dict[str, Any] = {"seed": seed, "plan": plan, "precision": number, "thin": thinning(thin)}
        facts |= {"shard": shard, "mesh": placement.parts, "codes": list(codes), "collapse": collapse}
        facts["reparameterize"] = coordinates(reparameterize)
        keeper: Any = Memory(facts["thin"])
        if path is not None:
            with together():
                if is_leader():
                    keeper = create(path, engine, subject, rule, keep, facts, most)
            plan.append(f"draws and checkpoints go to {path}")
        show = display(progress if is_leader() else False)
        run = Run(engine, subject, rule, time_budget, show, monitor, keeper, facts, most=most)
        return run.complete(seed, positions)


def configure(engine: Any, init: Any = None, **overrides: int | None) -> Any:
    """Complete an engine: the default one, a wrapped kernel, options replaced.

    Raises:
        TypeError: If the object is no engine, or has no such option.

    Example:
        >>> configure(None, draws=50).draws
        50
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    for name, value in given.items():
        if isinstance(value, bool) or int(value) != value or value < (0 if name == "warmup" else 1):
            raise ValueError(f"{name}={value!r} is not a positive whole number")
    if engine is None:
        from .mcmc import PooledHMC

        engine = PooledHMC()
    elif isinstance(engine, type):
        raise TypeError(f"infer takes an engine, not its class: write {engine.__name__}()")
    elif not hasattr(engine, "advance"):
        if not (hasattr(engine, "init") and hasattr(engine, "step")):
            raise TypeError(f"{engine!r} is neither an engine (start, advance, finish) nor a kernel (init, step)")
        from .mcmc import Chains, Ensemble

        engine = (Ensemble if getattr(engine, "ensemble", False) else Chains)(engine)
    options = [f.name for f in dataclasses.fields(engine)]
    for name in given:
        if name not in options:
            raise TypeError(f"{type(engine).__name__} has no option '{name}'; its options are {', '.join(options)}")
    if "chains" in options and "chains" not in given and np.ndim(init) == 2:
        given["chains"] = len(init)
    if given.get("draws", 0) > (getattr(engine, "max_draws", None) or math.inf):
        given["max_draws"] = given["draws"]
    return dataclasses.replace(engine, **given) if given else engine


def _ruled(engine: Any, subject: Subject) -> Any:
    """An engine whose own judgement of convergence rests, because a rule judges; early where draws are dear."""
    work = (getattr(subject.density, "work", 0) or 0) * engine.chains
    first = min(engine.draws, FIRST_JUDGED) if work >= DEAR else engine.draws
    return dataclasses.replace(engine, draws=first, max_draws=first)


def _remarks(subject: Subject) -> list[str]:
    compiled: Any = getattr(subject.density, "compiled", None)
    notes = list(compiled.rewritten.notes) if hasattr(compiled, "rewritten") else []
    if subject.program is None or any(s.kind in ("observed", "factor") for s in subject.program.sites.values()):
        return notes
    return [*notes, "nothing is conditioned: these are draws from the prior"]


def thinning(thin: Any) -> int:
    """``thin`` as a positive whole number."""
    if isinstance(thin, bool) or int(thin) != thin or thin < 1:
        raise ValueError(f"thin={thin!r} is not a positive whole number: keep one of so many draws")
    return int(thin)


infer.resume = resume  # type: ignore[attr-defined]
infer.open = open_run  # type: ignore[attr-defined]
