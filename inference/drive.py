"""``infer``: run any engine on any target, block by block.

An engine is a resumable state machine; this loop advances it and does between blocks, on the host, what
does not belong into a compiled program: progress, interrupts, time budgets and stopping rules. The plan of
the engine is the least that is done; ``until=`` adds sampling blocks after it.
"""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import precision as floats
from .blas import one_thread
from .core import Block, Engine
from .manifest import manifest
from .predict import sites
from .progress import Monitor, display
from .results import Fit
from .subject import Subject, make_subject, starts
from .until import as_rule

FIRST_BLOCK = 100
"""Steps of the first block."""

BLOCK_SECONDS = (0.25, 2.0)
"""Blocks double below the first and halve above the second: frequent enough to stop, rare enough to cost nothing."""

GROWTH = (1.25, 4.0)
"""A stopping rule is judged again after the draws have grown as much as it guesses, within these factors."""

FIRST_JUDGED, DEAR = 100, 100_000
"""Draws per chain after which a rule is judged first, where one gradient of all chains computes so many elements."""

EXTENSION = 10
"""Times ``max_draws`` (or the planned draws) at which a stopping rule is given up."""

MOST_NUMBERS = 250_000_000
"""Most numbers of unconstrained draws that a stopping rule may ask for: two gigabytes."""


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
        init: Starting positions (chains, dim) or (dim,) on the unconstrained scale, or ``{site: value}``.

    Returns:
        The labelled result.

    Raises:
        ppl.ModelError: If the program cannot be inferred, or its density is not finite at the start.
        TimeoutError: If the time budget ends before the first draw.

    Example:
        >>> fit = infer(lambda z: -0.5 * (z**2).sum(), init=np.zeros(2), seed=1, progress=False)
        >>> bool(abs(fit.values["z"].mean()) < 0.2)
        True
    """
    monitor = Monitor()
    engine = configure(engine, chains=chains, draws=draws, warmup=warmup, init=init)
    rule = None if until is None else as_rule(until)
    most = getattr(engine, "max_draws", None)
    number = floats.choose(precision)
    with floats.context(number):
        subject = make_subject(program, init)
        if rule is not None and rule.converged and draws is None and most:
            engine = _ruled(engine, subject)
        positions = starts(subject, init, getattr(engine, "chains", None), seed)
        plan = list(engine.plan(subject.density)) + _remarks(subject)
        run = _Run(engine, subject, rule, time_budget, display(progress), monitor, most=most)
        run.show.say(plan)
        try:
            run.go(seed, positions)
            fit = run.result(seed=seed, plan=plan, precision=number)
        finally:
            run.show.close()
        run.show.say(_closing(fit, monitor))
    return fit


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
        from .mcmc import Chains

        engine = Chains(engine)
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


@dataclass
class _Run:
    """One run: the blocks so far and why it ended."""

    engine: Engine
    subject: Subject
    rule: Any
    budget: float | None
    show: Any
    monitor: Monitor
    blocks: list[Block] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    carry: Any = None
    interrupted: bool = False
    verdict: str = ""
    due: float = 0.0
    cap: int | None = None
    most: int | None = None

    def go(self, seed: int, positions: np.ndarray | None) -> None:
        """Advance the engine until something says stop."""
        self.show.update(self.monitor, self.blocks, None)
        try:
            self.carry = _checked(self.subject, self.engine.start, seed, self.subject.density, positions)
            self._loop()
        except KeyboardInterrupt:
            self.interrupted = True
            if not self.monitor.done:
                raise KeyboardInterrupt(f"interrupted in {self.monitor.phase}, before the first draw") from None
            self.notes.append(f"interrupted after {self.monitor.done} draws per chain")

    def result(self, **facts: Any) -> Fit:
        """Put the blocks together."""
        density = self.subject.density
        draws = self.engine.finish(self.carry, self.blocks, density)
        facts |= {
            "interrupted": self.interrupted,
            "seconds": {name: round(value, 4) for name, value in self.seconds.items()},
            "sampling_time": round(self.seconds.get("sampling", 0.0), 4),
            "until": "" if self.rule is None else f"{self.rule.name}: {self.verdict or 'not judged'}",
            "info": draws.info,
            "sites": sites(self.subject.program),
        }
        about = manifest(self.engine, **facts)
        return Fit(self.subject.program, density, draws, about, notes=tuple(self.notes))

    def _loop(self) -> None:
        goal = getattr(self.engine, "draws", None) or 0
        n, planned = FIRST_BLOCK, False
        size = min(n, goal) if goal else n
        while True:
            began = time.perf_counter()
            with one_thread(self.subject.dim):
                carry, block, done = _checked(self.subject, self.engine.advance, self.carry, self.subject.density, size)
            took = time.perf_counter() - began
            self.blocks.append(block)
            self._question(block)
            self.carry = carry
            self.seconds[block.phase] = self.seconds.get(block.phase, 0.0) + took
            self.monitor.see(block)
            self.show.update(self.monitor, self.blocks, getattr(self.engine, "draws", None))
            planned = planned or done
            if (planned and self._enough()) or self._late():
                return
            n = _next(n, took)
            # No more than what was asked for: the planned draws, then what the rule is judged on next.
            left = (math.ceil(self.due) if planned else goal) - self.monitor.done
            size = min(n, left) if left > 0 else n

    def _question(self, block: Any) -> None:
        """Ask the model about starting points that had no finite density, though others had."""
        positions = block.metrics.pop("inadmissible", None)
        if positions is not None and len(positions) and self.subject.program is not None:
            import ppl

            ppl.check_parameters(self.subject.program, self.subject.density, positions)

    def _enough(self) -> bool:
        """Whether a run that has done its planned work may end."""
        if self.rule is None:
            return True
        if self.monitor.done < self.due:
            return False
        drawn = [b.positions for b in self.blocks if b.phase == "sampling" and b.positions is not None]
        positions = np.concatenate(drawn, axis=1)
        if not self.cap:
            planned = self.most or max(self.monitor.done, 1)
            fitting = MOST_NUMBERS // (positions.shape[0] * positions.shape[2])
            self.cap = max(planned, min(EXTENSION * planned, fitting))
        verdict = self.rule(positions)
        self.verdict = verdict.text
        self.due = min(self.monitor.done * float(np.clip(1.05 * verdict.growth, *GROWTH)), self.cap)
        if verdict.met or self.monitor.done < self.cap:
            return verdict.met
        note = (
            f"until={self.rule.name} was not met after {self.monitor.done} draws per chain, the most that a "
            f"run is extended to ({verdict.text}); give the engine a larger max_draws, or look at the model"
        )
        self.notes.append(note)
        warnings.warn(note, stacklevel=5)
        return True

    def _late(self) -> bool:
        if self.budget is None or self.monitor.elapsed < self.budget:
            return False
        if not self.monitor.done:
            raise TimeoutError(f"time_budget={self.budget:g} s ended in {self.monitor.phase}, before the first draw")
        self.notes.append(f"time_budget={self.budget:g} s ended after {self.monitor.done} draws per chain")
        return True


def _next(n: int, took: float) -> int:
    """Number of steps of the next block."""
    fast, slow = BLOCK_SECONDS
    if took < fast:
        return min(2 * n, 2000)
    return max(n // 2, 10) if took > slow else n


def _checked(subject: Subject, work: Any, *arguments: Any) -> Any:
    """Run engine work; where no start was found, say which site is to blame."""
    try:
        return work(*arguments)
    except Exception as error:
        if not _is_start_error(error) or subject.program is None:
            raise
        import ppl

        ppl.check(subject.program, subject.density, getattr(error, "position", None))
        raise


def _is_start_error(error: Exception) -> bool:
    try:
        from .mcmc.start import StartError
    except ImportError:
        return False
    return isinstance(error, StartError)


def _remarks(subject: Subject) -> list[str]:
    if subject.program is None or any(s.kind in ("observed", "factor") for s in subject.program.sites.values()):
        return []
    return ["nothing is conditioned: these are draws from the prior"]


def _closing(fit: Fit, monitor: Monitor) -> list[str]:
    chains, draws = fit.draws.positions.shape[:2]
    line = f"{chains} chains x {draws} draws in {monitor.elapsed:.1f} s"
    return [line + "".join(f"; {text}" for text in fit.warnings())]
