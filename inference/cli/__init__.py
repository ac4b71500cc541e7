"""The command line: ``ppl run``, ``resume``, ``status`` and ``report``.

Exit codes: 0 finished; 1 failed while running; 2 used wrongly; 75 stopped by a time budget or an interrupt, 143 by
SIGTERM, both resumable.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from typing import Any


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="ppl", description="Run models from a shell, in directories that survive.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = _command(commands, "run", "draw from the posterior of a model, into a new directory")
    command.add_argument("model", metavar="FILE.py:NAME", help="a model, a program, or a function of the columns")
    command.add_argument("--out", required=True, metavar="DIR", help="directory of the run")
    _data(command)
    command.add_argument("--engine", choices=("pooled", "nuts", "hmc"), help="default: pooled")
    command.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="an option of the engine")
    for name, what in (("chains", "chains"), ("draws", "draws per chain"), ("warmup", "warm-up draws per chain")):
        command.add_argument(f"--{name}", type=int, metavar="N", help=f"number of {what}")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="determines every draw (default 0)")
    command.add_argument("--until", metavar="ess=N", help="go on until every quantity has N effective draws")
    command.add_argument("--thin", type=int, default=1, metavar="N", help="keep one of N draws")
    command.add_argument("--precision", choices=("float32", "float64"))
    _how(command)

    command = _command(commands, "resume", "go on with a run that was stopped or killed")
    _again(command)
    _how(command)

    command = _command(commands, "status", "say how a run is, also while it runs")
    command.add_argument("path", metavar="DIR")
    command.add_argument("--json", action="store_true", help="all facts, for programs")

    command = _command(commands, "report", "write the report of a run, also while it runs")
    _again(command)
    command.add_argument("-o", "--output", metavar="FILE", help="default: report.html in the run's directory")
    command.add_argument("--title", metavar="TEXT", help="heading; default: the model's name")
    return top


def _command(commands: Any, name: str, what: str) -> Any:
    command = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
    command.add_argument("--traceback", action="store_true", help="show where an error was raised")
    return command


def _data(command: Any) -> None:
    command.add_argument("--data", metavar="FILE.csv", help="columns for the model")
    pair = {"action": "append", "default": []}
    command.add_argument(
        "--condition", metavar="SITE=COLUMN", help="observe SITE; default: columns named like a site", **pair
    )
    command.add_argument("--column", metavar="PARAMETER=COLUMN", help="a column of another name", **pair)
    command.add_argument("--set", metavar="PARAMETER=VALUE", help="a parameter that is no column", **pair)
    command.add_argument("--missing", metavar="SITE=POLICY", help="impute or marginalize the gaps of SITE", **pair)


def _again(command: Any) -> None:
    command.add_argument("path", metavar="DIR")
    command.add_argument("model", nargs="?", metavar="FILE.py:NAME", help="default: the model's module, found again")
    _data(command)


def _how(command: Any) -> None:
    command.add_argument("--time-budget", type=float, metavar="SECONDS", help="stop after so long, resumable")
    command.add_argument("--quiet", action="store_true", help="no progress and no summary")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command line without the program's name; that of the process by default.

    Returns:
        The exit code.

    Example:
        >>> main(["status", "nowhere"])
        2
    """
    from . import commands

    options = parser().parse_args(arguments)
    try:
        return int(getattr(commands, options.command)(options))
    except KeyboardInterrupt:
        print("ppl: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        # Any mistake, also one in the user's model, ends as a message; where it was raised is shown when asked for.
        if options.traceback:
            traceback.print_exc()
        print(message(error), file=sys.stderr)
        return commands.FAILED if _began(options, error) else commands.WRONG


def message(error: BaseException) -> str:
    """An error as a paragraph."""
    notes = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
    kind = "" if isinstance(error, ValueError | OSError | TimeoutError) else f"{type(error).__name__}: "
    text = _of_the_user(str(error)) or type(error).__name__
    return f"ppl: {kind}{text}{notes}" + ("" if kind == "" else " (--traceback shows where)")


def _of_the_user(text: str) -> str:
    """A message without locations in the command itself, which no user wrote."""
    kept: list[str] = []
    lines = text.split("\n")
    for i, line in enumerate(lines):
        at = lines[i - 1] if i and line.startswith("        ") else line
        if not at.startswith(("    at unknown line", f"    at {sys.argv[0]}:")):
            kept.append(line)
    return "\n".join(kept)


def _began(options: Any, error: BaseException) -> bool:
    """Whether the run of this command failed on the way, rather than before it began."""
    from ..runs import status

    path = getattr(options, "out", None) or (options.path if options.command == "resume" else None)
    if isinstance(error, FileExistsError):
        return False
    try:
        return path is not None and status(path)["status"] == "failed"
    except (OSError, ValueError):
        return False
