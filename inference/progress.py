"""What a run shows while it works: its plan, a bar or now and then a line, and one closing line.

Everything happens on the host between blocks, so a display can never change a draw or a compiled
program. On a terminal and in notebooks Rich draws a bar; elsewhere (a log file) a plain line appears at
most every five seconds, so a quick run prints its plan and its closing line only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TextIO

import numpy as np

from .core import Block

Glance = Callable[[], "np.ndarray | None"]

QUIET_SECONDS = 5.0
"""Least time between two plain lines."""

GLANCE_SHARE = 0.02
"""Share of the elapsed time that may go into the R-hat and ESS of the display."""


FIRST, MOST = ("step_size", "divergences", "R-hat", "ESS"), 6
"""Numbers that are shown before others, and how many are shown."""


@dataclass
class Monitor:
    """What is known about a run so far, in words.

    Attributes:
        phase: The phase of the last block.
        done: Sampling draws per chain so far.
        divergences: Divergent sampling transitions so far, over all chains.
        metrics: Numbers reported by the engine or found here, in the order of first appearance.
        started: When the run began.
        spent: Seconds that went into looking at R-hat and ESS.
        superchains: Groups of short chains between which nested R-hat is shown, or None for R-hat between chains.
    """

    phase: str = "start"
    done: int = 0
    divergences: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)
    spent: float = 0.0
    superchains: int | None = None

    def see(self, block: Block) -> None:
        """Take note of one block."""
        self.phase = block.phase
        if block.phase == "sampling" and block.positions is not None:
            self.done += block.positions.shape[1]
        self.metrics.update(block.metrics)
        if block.phase == "sampling" and "diverging" in block.stats:
            self.divergences += int(np.sum(block.stats["diverging"]))
            self.metrics["divergences"] = self.divergences

    def glance(self, read: Glance) -> None:
        """R-hat and ESS of the draws that ``read`` returns, when that costs little next to the run itself."""
        now = time.perf_counter()
        if self.done < 20 or self.spent > GLANCE_SHARE * (now - self.started):
            return
        from . import diagnostics

        positions = read()
        if positions is None:
            return
        with np.errstate(all="ignore"):
            groups = self.superchains
            rhat = diagnostics.rhat(positions) if groups is None else diagnostics.rhat_nested(positions, groups)
            self.metrics["R-hat"] = float(np.max(rhat))
            self.metrics["ESS"] = float(np.min(diagnostics.ess_bulk(positions)))
        self.spent += time.perf_counter() - now

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    def words(self) -> str:
        """The numbers as one line."""
        numbers = {name: value for name, value in self.metrics.items() if not isinstance(value, str)}
        names = [*(n for n in FIRST if n in numbers), *(n for n in numbers if n not in FIRST)][:MOST]
        parts = [f"{name} {_number(numbers[name])}" for name in names]
        if self.done:
            parts.insert(0, f"{self.done} draws")
        return ", ".join(parts)


class Silent:
    """Shows nothing."""

    def say(self, lines: Iterable[str]) -> None:
        """Ignore lines."""

    def update(self, monitor: Monitor, read: Glance, total: int | None) -> None:
        """Ignore a block."""

    def close(self) -> None:
        """Nothing to close."""


class Lines:
    """Plain lines, at most one every few seconds."""

    def __init__(self, stream: TextIO, every: float = QUIET_SECONDS) -> None:
        """Write to ``stream``."""
        self.stream, self.every = stream, every
        self.last = time.perf_counter()

    def say(self, lines: Iterable[str]) -> None:
        """Print lines at once."""
        for line in lines:
            print(line, file=self.stream)
        self.stream.flush()

    def update(self, monitor: Monitor, read: Glance, total: int | None) -> None:
        """Print where the run is, if the last line was long enough ago."""
        now = time.perf_counter()
        if now - self.last < self.every:
            return
        self.last = now
        monitor.glance(read)
        self.say([f"  {monitor.elapsed:.0f} s, {monitor.phase}: {monitor.words()}"])

    def close(self) -> None:
        """Nothing to close."""


class Bar:
    """A Rich bar, on a terminal or in a notebook."""

    def __init__(self, console: Any) -> None:
        """Draw on a Rich console."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.fields[phase]:<8}"), BarColumn(bar_width=24), TimeElapsedColumn())
        self.console = console
        self.bar = Progress(*columns, TextColumn("{task.fields[words]}"), console=console, transient=True)
        self.task = self.bar.add_task("", total=None, phase="start", words="compiling")
        self.started, self.last = False, 0.0

    def say(self, lines: Iterable[str]) -> None:
        """Print lines above the bar."""
        for line in lines:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def update(self, monitor: Monitor, read: Glance, total: int | None) -> None:
        """Redraw, ten times a second at most."""
        if not self.started:
            self.bar.start()
            self.started = True
        now = time.perf_counter()
        if now - self.last < 0.1:
            return
        self.last = now
        monitor.glance(read)
        self.bar.update(self.task, total=total, completed=monitor.done, phase=monitor.phase, words=monitor.words())

    def close(self) -> None:
        """Take the bar away."""
        if self.started:
            self.bar.stop()


def display(progress: bool | None, stream: TextIO | None = None) -> Silent | Lines | Bar:
    """Choose how to show a run.

    Args:
        progress: False for silence; True or None for what suits the place.
        stream: Where plain lines go (standard error by default).

    Example:
        >>> type(display(False)).__name__
        'Silent'
    """
    if progress is False:
        return Silent()
    if stream is not None:
        return Lines(stream)
    if _in_notebook() or sys.stderr.isatty():
        try:
            from rich.console import Console
        except ImportError:
            return Lines(sys.stderr)
        return Bar(Console(stderr=not _in_notebook()))
    return Lines(sys.stderr)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def _number(value: Any) -> str:
    if isinstance(value, bool | int | np.integer):
        return str(int(value))
    if abs(value) >= 1000:
        return f"{float(value):.0f}"
    return f"{float(value):.3g}" if abs(float(value) - 1) > 0.1 else f"{float(value):.3f}"
