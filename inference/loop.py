"""The loop over blocks of work, and all that happens between blocks on the host.

An engine is a resumable state machine. Between two of its blocks the loop keeps the draws, writes a checkpoint where
the run has a directory, updates the display, notices signals and budgets and asks the stopping rule. Nothing that
depends on the clock changes a draw: only how many there are when a budget ends the run.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppl.host import surfacing

from . import naming
from .blas import one_thread
from .core import Engine
from .devices import agree, current, exchange, together
from .kept import judged
from .manifest import manifest
from .progress import Monitor
from .record import Recorder, explained
from .results import Fit
from .subject import Subject

FIRST_BLOCK = 100
"""Steps of the first block."""

BLOCK_SECONDS = (0.25, 2.0)
"""Blocks double below the first and halve above the second: frequent enough to stop, rare enough to cost nothing."""

GROWTH = (1.25, 4.0)
"""A stopping rule is judged again after the draws have grown as much as it guesses, within these factors."""

EXTENSION = 10
"""Times ``max_draws`` (or the planned draws) at which a stopping rule is given up."""

MOST_NUMBERS = 250_000_000
"""Most numbers of unconstrained draws that a stopping rule may ask for: two gigabytes."""


@dataclass
class Run:
    """One run: what is kept of it so far and why it ended.

    Attributes:
        engine: The engine.
        subject: What is sampled.
        rule: Stopping rule or None.
        budget: Seconds or None.
        show: The display.
        monitor: What the display shows.
        keeper: Keeps the draws.
        facts: Seed, plan, precision and thinning, for the manifest.
        most: Draws at which the engine itself gives up on its own rule, where it has one.
        carry: State of the engine.
        planned: Whether the engine has done what it planned.
        due: Draws at which the rule is judged next.
        cap: Draws at which the rule is given up.
        verdict: The rule's last words.
        seconds: Time spent, by phase.
        notes: How the run ended, where that needs saying.
        stopped: ``"interrupt"``, ``"time_budget"`` or ``"SIGTERM"`` where something ended it before its time.
    """

    engine: Engine
    subject: Subject
    rule: Any
    budget: float | None
    show: Any
    monitor: Monitor
    keeper: Any
    facts: dict[str, Any]
    most: int | None = None
    carry: Any = None
    planned: bool = False
    due: float = 0.0
    cap: int | None = None
    verdict: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    stopped: str = ""

    @property
    def directory(self) -> Any:
        """The run directory, or None."""
        return self.keeper.directory if isinstance(self.keeper, Recorder) else None

    def complete(self, seed: int, positions: np.ndarray | None) -> Fit:
        """Run to the end and make the result; ``seed`` and ``positions`` begin a run that has no state yet."""
        self.show.say(self.facts["plan"])
        try:
            with self._terminated(), surfacing():
                self._go(seed, positions)
                fit = self._result()
        except BaseException as error:
            if self.directory is None:
                raise
            raise self._failed(error) from None if isinstance(error, KeyboardInterrupt) else error
        finally:
            self.show.close()
        self.show.say(closing(fit, self.monitor))
        return fit

    # ------------------------------------------------------------------------------------------------ the loop

    def _go(self, seed: int, positions: np.ndarray | None) -> None:
        self.monitor.superchains = getattr(self.engine, "superchains", None)
        self.show.update(self.monitor, self.keeper.glance, None)
        try:
            if self.carry is None:
                self.carry = checked(self.subject, self.engine.start, seed, self.subject.target, positions)
                self._checkpoint()
            self._loop()
        except KeyboardInterrupt:
            self.stopped = self.stopped or "interrupt"
            if not self.monitor.done:
                raise KeyboardInterrupt(self._before(f"interrupted in {self.monitor.phase}")) from None
            self.notes.append(f"interrupted after {self.monitor.done} draws per chain")

    def _loop(self) -> None:
        goal = getattr(self.engine, "draws", None) or 0
        n, made = FIRST_BLOCK, False
        while not ((self.planned and self._enough()) or (made and self._late())):
            # No more than what was asked for: the planned draws, then what the rule is judged on next.
            left = (math.ceil(self.due) if self.planned else goal) - self.monitor.done
            size = min(n, left) if left > 0 else n
            began = time.perf_counter()
            with one_thread(self.subject.dim):
                carry, block, done = checked(
                    self.subject, self.engine.advance, self.carry, self.subject.target, size
                )
            took = time.perf_counter() - began
            self._question(block)
            with together():  # a full disk of one process ends all
                self.keeper.add(block)
                self.carry, self.planned = carry, self.planned or done
                self.seconds[block.phase] = self.seconds.get(block.phase, 0.0) + took
                self.monitor.see(block)
                self._checkpoint()
            self.show.update(self.monitor, self.keeper.glance, getattr(self.engine, "draws", None))
            n, made = agree(_next(n, took)), True

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
        positions = self.keeper.positions()
        if not self.cap:
            planned = self.most or max(self.monitor.done, 1)
            fitting = MOST_NUMBERS // (positions.shape[0] * positions.shape[2])
            self.cap = max(planned, min(EXTENSION * planned, fitting))
        superchains = getattr(self.engine, "superchains", None)
        verdict = self.rule(judged(positions, self.subject.density), superchains)
        self.verdict = verdict.text
        self.due = min(self.monitor.done * float(np.clip(1.05 * verdict.growth, *GROWTH)), self.cap)
        if verdict.met or self.monitor.done < self.cap:
            return verdict.met
        note = (
            f"until={self.rule.name} was not met after {self.monitor.done} draws per chain, the most that a "
            f"run is extended to ({verdict.text}); give the engine a larger max_draws, or look at the model"
        )
        self.notes.append(note)
        warnings.warn(note, stacklevel=6)
        return True

    def _late(self) -> bool:
        """Whether a signal or the time budget ends the run."""
        over = self.budget is not None and self.monitor.elapsed >= self.budget
        told = exchange([over, self.stopped])  # one process's clock for all, and any process's signal
        over, self.stopped = told[0][0], next((reason for _, reason in told if reason), "")
        if not (over or self.stopped):
            return False
        self.stopped = self.stopped or "time_budget"
        what = self.stopped if not over else f"time_budget={self.budget:g} s"
        if not self.monitor.done:
            raise TimeoutError(self._before(f"{what} ended in {self.monitor.phase}"))
        self.notes.append(f"{what} ended after {self.monitor.done} draws per chain" + self._again())
        return True

    def _before(self, what: str) -> str:
        return f"{what}, before the first draw{self._again()}"

    def _again(self) -> str:
        return "" if self.directory is None else f"; infer.resume({str(self.directory.path)!r}) goes on from there"

    @contextlib.contextmanager
    def _terminated(self) -> Iterator[None]:
        """Where the run has a directory or several processes, let signals end it after the block at work."""
        numbers = [] if self.directory is None else [signal.SIGTERM]
        if current().processes > 1:
            numbers = [signal.SIGTERM, signal.SIGINT]  # a process that stopped at once would leave others waiting
        if not numbers or threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: Any) -> None:
            self.stopped = "interrupt" if number == signal.SIGINT else signal.Signals(number).name

        previous = [signal.signal(number, handle) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, previous, strict=True):
                signal.signal(number, handler)

    # ------------------------------------------------------------------------------------------------ the outcome

    def _checkpoint(self) -> None:
        if self.directory is None:
            return
        loop = {
            "planned": self.planned,
            "due": float(self.due),
            "cap": self.cap,
            "seconds": dict(self.seconds),
            "phase": self.monitor.phase,
            "done": self.monitor.done,
            "divergences": self.monitor.divergences,
        }
        status = {"phase": self.monitor.phase, "draws": self.monitor.done, "divergences": self.monitor.divergences}
        status |= {"seconds": dict(self.seconds), "updated_at": time.time()}
        kept = {"keeper": self.keeper.state(), "memory": self.keeper.memory()}
        state = {"status": status, "carry": self.carry, "loop": loop, **kept}
        self.directory.save(state)

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a checkpoint."""
        loop = state["loop"]
        self.carry, self.planned, self.due, self.cap = state["carry"], loop["planned"], loop["due"], loop["cap"]
        self.seconds = dict(loop["seconds"])
        self.monitor.phase, self.monitor.done = loop["phase"], loop["done"]
        self.monitor.divergences = loop["divergences"]
        self.keeper.restore(state["keeper"], state["memory"])

    def _about(self, **facts: Any) -> dict[str, Any]:
        rule = "" if self.rule is None else f"{self.rule.name}: {self.verdict or 'not judged'}"
        facts = {**self.facts, **facts, "until": rule, "sites": naming.sites(self.subject.program)}
        facts["seconds"] = {name: round(value, 4) for name, value in self.seconds.items()}
        facts["sampling_time"] = round(self.seconds.get("sampling", 0.0), 4)
        facts |= {"interrupted": self.stopped == "interrupt", "stopped": self.stopped}
        return manifest(self.engine, **facts)

    def _result(self) -> Fit:
        """Put the draws together."""
        density = self.subject.density
        draws = self.keeper.finish(self.engine, self.carry, density)
        if "divergences" in draws.info and self.directory is not None:
            draws.info["divergences"] = self.monitor.divergences  # the engine saw the last block only
        about = self._about(info=draws.info)
        stored = {}
        if self.directory is not None:
            from .runs import stored_groups

            about = self._describe(status="stopped" if self.stopped else "finished", notes=self.notes, info=draws.info)
            program = self.subject.program
            stored = stored_groups(draws, program, about, naming.coords(program, density))
        return Fit(self.subject.program, density, draws, about, notes=tuple(self.notes), stored=stored)

    def _describe(self, **facts: Any) -> dict[str, Any]:
        """Write the manifest anew: what the run was begun with, and how it ended."""
        begun = self.directory.manifest()
        about = {**begun, **self._about(**facts), "created_at": begun.get("created_at", "")}
        self.directory.describe(about)
        return about

    def _failed(self, error: BaseException) -> BaseException:
        """Say in the directory that the run ended, as far as that is possible, and in the error what can be done."""
        status = "stopped" if self.stopped else "failed"
        with contextlib.suppress(Exception):
            self._describe(status=status, error=f"{type(error).__name__}: {error}", notes=self.notes)
        return explained(error, self.directory.path)


def closing(fit: Fit, monitor: Monitor) -> list[str]:
    """The last line of the display."""
    chains, draws = fit.draws.shape[:2]
    line = f"{chains} chains x {draws} draws in {monitor.elapsed:.1f} s"
    return [line + "".join(f"; {text}" for text in fit.warnings())]


def _next(n: int, took: float) -> int:
    """Number of steps of the next block."""
    fast, slow = BLOCK_SECONDS
    if took < fast:
        return min(2 * n, 2000)
    return max(n // 2, 10) if took > slow else n


def checked(subject: Subject, work: Any, *arguments: Any) -> Any:
    """Run engine work; where no start was found, say which site is to blame."""
    try:
        with surfacing():
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
