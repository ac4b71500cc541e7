"""What the commands do: run, resume, status, report."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import runs
from ..checkpoint import read
from .engines import engine_of, literal, pairs, rule_of
from .errors import UserError
from .program import build, load
from .table import read_table

FINISHED, FAILED, WRONG, RESUMABLE, TERMINATED = 0, 1, 2, 75, 143
"""Exit codes; 75 is EX_TEMPFAIL, which schedulers take as a reason to start again."""


def run(options: Any) -> int:
    """``ppl run``: begin a run."""
    from ..drive import infer

    with terminated():
        program, said = _program(options)
        if not options.quiet:
            for line in said:
                print(line, file=sys.stderr)
        choice = {name: getattr(options, name) for name in ("chains", "draws", "warmup", "precision")}
        settings = {name: literal(value) for name, value in pairs(options.option, "--option").items()}
        engine, rule = engine_of(options.engine, settings), rule_of(options.until)

        def work() -> Any:
            return infer(
                program, engine, **choice, seed=options.seed, until=rule, time_budget=options.time_budget,
                progress=False if options.quiet else None, path=options.out, thin=options.thin,
            )  # fmt: skip

        return _ended(work, options, options.out, options.model)


def resume(options: Any) -> int:
    """``ppl resume``: go on with a run."""
    from ..drive import infer

    with terminated():
        runs.status(options.path)
        program = _again(options)

        def work() -> Any:
            quiet = False if options.quiet else None
            return infer.resume(options.path, program, progress=quiet, time_budget=options.time_budget)  # type: ignore[attr-defined]

        return _ended(work, options, options.path, options.model)


def status(options: Any) -> int:
    """``ppl status``: how a run is, from its manifest and last checkpoint."""
    facts = runs.status(options.path)
    if options.json:
        import json

        print(json.dumps(facts, indent=1))
        return FINISHED
    state = facts["status"] + (f" ({facts['stopped']})" if facts.get("stopped") else "")
    lines = [f"{options.path}: {state}, {facts['engine']}, phase {facts['phase']}, {facts['draws']} draws per chain"]
    if facts.get("seconds"):
        lines.append("time: " + ", ".join(f"{name} {spell(value)}" for name, value in facts["seconds"].items()))
    if facts.get("updated_at"):
        lines.append(f"last checkpoint {spell(max(time.time() - facts['updated_at'], 0.0))} ago")
    if facts.get("divergences"):
        lines.append(f"divergent transitions: {facts['divergences']}")
    lines += [f"until {facts['until']}"] if facts.get("until") else []
    lines += [f"error: {facts['error']}"] if facts.get("error") and facts["status"] != "finished" else []
    lines += [f"note: {note}" for note in facts.get("notes") or ()]
    print("\n".join(lines))
    return FINISHED


def report(options: Any) -> int:
    """``ppl report``: write the page of a run, also of one at work."""
    from ppl import ModelError

    from ..drive import infer

    runs.status(options.path)
    program = _again(options)
    if program is None:
        try:
            program = _imported(options.path)
        except ModelError as error:
            print(f"without the model there are no predictive checks: {error}", file=sys.stderr)
    fit = infer.open(options.path, program)  # type: ignore[attr-defined]
    path = Path(options.output) if options.output else Path(options.path) / "report.html"
    print(fit.report(path, options.title))
    return FINISHED


def _program(options: Any) -> tuple[Any, list[str]]:
    """The program of ``model.py:name`` and the data."""
    thing, name = load(options.model)
    table = None if options.data is None else read_table(options.data)
    columns, conditions = pairs(options.column, "--column"), pairs(options.condition, "--condition")
    settings = {name: literal(value) for name, value in pairs(options.set, "--set").items()}
    return build(thing, name, table, columns, settings, conditions, pairs(options.missing, "--missing"))


def _again(options: Any) -> Any:
    """The program where data are named again; else None, and the model is found by its name."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    if options.model is None:
        if options.data is not None:
            raise UserError("--data needs the model too: file.py:name.")
        return None
    if options.data is None and not (options.set or options.column or options.condition):
        from ppl import Program

        thing, _ = load(options.model)  # now known by its module's name
        return thing if isinstance(thing, Program) else None
    return _program(options)[0]


def _imported(path: Any) -> Any:
    """The program of a run, of its model imported again and the data of its directory."""
    about = runs.RunDirectory(path).manifest()
    return runs._imported(about, read(Path(path) / "inputs.npz", only="call"))


def _ended(work: Callable[[], Any], options: Any, path: Any, model: str | None) -> int:
    """Run, say how it ended, and give the exit code."""
    try:
        fit = work()
    except (KeyboardInterrupt, TimeoutError) as error:
        how = runs.status(path).get("stopped")
        print(f"ppl: {error}", file=sys.stderr)
        return _code(how or "interrupt", path, model)
    if not options.quiet:
        print(fit.summary())
    return _code(fit.manifest.get("stopped"), path, model)


def spell(seconds: float) -> str:
    """A duration in words.

    Example:
        >>> spell(0.25), spell(75.0), spell(7300.0)
        ('0.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _code(stopped: str | None, path: Any, model: str | None) -> int:
    if not stopped:
        return FINISHED
    folder = Path(model.rpartition(":")[0] or model).resolve().parent if model else Path.cwd()
    named = f" {model}" if folder != Path.cwd() else ""
    print(f"ppl: stopped by {stopped}; go on with: ppl resume {path}{named}", file=sys.stderr)
    return TERMINATED if stopped == "SIGTERM" else RESUMABLE


@contextmanager
def terminated() -> Iterator[None]:
    """Before and after the run itself, which handles SIGTERM by itself, end at once with the code of a termination."""

    def handle(number: int, frame: Any) -> None:
        raise SystemExit(TERMINATED)

    try:
        previous = signal.signal(signal.SIGTERM, handle)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
