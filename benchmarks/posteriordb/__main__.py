"""Run the posteriors of a posteriordb selection with the default sampler and judge them.

`--pack PATH` runs the default with and without `until=ess(4000)`; `--check-density` tests
the densities against the reference draws without a sampler; `--peer numpyro` compares speed with NumPyro.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from . import measure, pack
from .check import check_density
from .programs import HEAVY_TAILED, OF_INTEREST, PROGRAMS


def draws_of(fit: Any, wanted: set[str]) -> pack.Draws:
    """The scalars of the wanted variables from a fit."""
    found: pack.Draws = {}
    for name in sorted(wanted):
        found |= pack.scalars(name, np.asarray(fit.values[name]))
    return found


def run_once(name: str, data: dict[str, Any], reference: Any, seed: int, until: int | None) -> dict[str, Any]:
    """Fit one posterior with no option but the stopping rule, and judge it."""
    from ppl.inference import ess, infer

    program = PROGRAMS[name](data)
    wall, cpu = time.perf_counter(), time.process_time()
    options = {} if until is None else {"until": ess(until)}
    fit = infer(program, seed=seed, progress=False, **options)
    wanted = {pack.base(key) for key in reference} if reference else set(OF_INTEREST[name])
    draws = draws_of(fit, wanted)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    row = {"posterior": name, "rule": f"ess({until})" if until else "default", "seed": seed}
    row |= measure.judge(draws, reference, name in HEAVY_TAILED)
    return row | {"wall_s": wall, "cpu_s": cpu}


HEADER = (
    f"{'posterior':34} {'rule':9} {'seed':>4} {'mean err':>9} {'sd ratio':>8} {'q err':>6} {'R-hat':>7} "
    f"{'bulk':>7} {'tail':>7} {'draws':>8} {'wall s':>7} {'cpu s':>7}  result"
)


def line(row: dict[str, Any]) -> str:
    """One row of the table."""

    def number(key: str, width: int, places: int) -> str:
        value = row.get(key)
        return f"{value:{width}.{places}f}" if value is not None else " " * (width - 1) + "-"

    if "error" in row:
        return f"{row['posterior'][:34]:34} {row['rule']:9} {row['seed']:4d}  {row['error']}"
    draws = f"{row['chains']}x{row['draws']}"
    verdict = ("pass" if row["pass"] else "FAIL") + ("" if "mean_error" in row else " (R-hat only)")
    return (
        f"{row['posterior'].split('-', 1)[-1][:34]:34} {row['rule']:9} {row['seed']:4d} "
        f"{number('mean_error', 9, 3)} {number('sd_ratio', 8, 3)} {number('quantile_error', 6, 1)} "
        f"{number('rhat', 7, 4)} {number('ess_bulk', 7, 0)} {number('ess_tail', 7, 0)} {draws:>8} "
        f"{number('wall_s', 7, 1)} {number('cpu_s', 7, 1)}  {verdict}"
    )


def judge_pack(arguments: argparse.Namespace, names: list[str]) -> list[dict[str, Any]]:
    """Fit every posterior with every seed and rule, printing as it goes."""
    until = arguments.until
    rules = {"both": [until, None], "until": [until], "default": [None]}[arguments.rules]
    rows = []
    print(HEADER)
    for name in names:
        data, reference = pack.load_data(arguments.pack, name), pack.load_reference(arguments.pack, name)
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
            for until in rules:
                try:
                    row = run_once(name, data, reference, seed, until)
                except Exception as error:  # one broken posterior must not hide the others
                    label = f"ess({until})" if until else "default"
                    text = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                    row = {"posterior": name, "rule": label, "seed": seed, "error": text, "pass": False}
                rows.append(row)
                print(line(row), flush=True)
    return rows


def check_pack(arguments: argparse.Namespace, names: list[str]) -> list[dict[str, Any]]:
    """Score identities of every posterior that has reference draws."""
    rows = []
    print(f"{'posterior':45} {'score z':>8} {'matrix z':>9} {'cells':>6} {'dropped':>8}  result")
    for name in names:
        reference = pack.load_reference(arguments.pack, name)
        if reference is None:
            continue
        data = pack.load_data(arguments.pack, name)
        row = check_density(name, PROGRAMS[name](data), data, reference)
        rows.append(row)
        print(
            f"{name:45} {row['score_z']:8.2f} {row['matrix_z']:9.2f} {row['cells']:6d} {row['dropped']:8d}  "
            f"{'pass' if row['pass'] else 'FAIL'}",
            flush=True,
        )
    return rows


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="python -m benchmarks.posteriordb", description=__doc__)
    root.add_argument("--pack", type=Path, required=True, help="folder with one sub-folder per posterior")
    root.add_argument("--only", nargs="+", metavar="NAME", help="posteriors whose name contains one of these")
    root.add_argument("--all", action="store_true", help="also those without reference draws, judged by R-hat alone")
    root.add_argument("--seeds", type=int, default=3, help="number of seeds")
    root.add_argument("--first-seed", type=int, default=1)
    root.add_argument("--until", type=int, default=4000, help="bulk ESS of the stopping rule")
    root.add_argument("--rules", choices=("both", "until", "default"), default="both")
    root.add_argument("--json", type=Path, help="write the rows there")
    root.add_argument("--check-density", action="store_true", help="check densities only")
    root.add_argument("--peer", choices=("numpyro",), help="compare speed with a peer instead")
    root.add_argument("--peer-python", type=Path, help="interpreter that has the peer installed")
    return root


def main(argv: list[str] | None = None) -> int:
    """Run; the exit status is 0 when everything that was asked for passed."""
    arguments = parser().parse_args(argv)
    if arguments.peer:
        from ..speed import main as speed

        extra = [word for name in arguments.only or [] for word in ("--only", name)]
        extra += ["--peer-python", str(arguments.peer_python)] if arguments.peer_python else []
        extra += ["--json", str(arguments.json)] if arguments.json else []
        return speed(["--pack", str(arguments.pack), *extra])
    wanted = arguments.only or [""]
    names = [name for name in pack.posteriors(arguments.pack) if any(part in name for part in wanted)]
    if not (arguments.all or arguments.only):
        names = [name for name in names if pack.load_reference(arguments.pack, name) is not None]
    rows = (check_pack if arguments.check_density else judge_pack)(arguments, names)
    passed = sum(row["pass"] for row in rows)
    print(f"{passed} of {len(rows)} pass")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if passed == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
