"""Speed beside NumPyro, BlackJAX and nutpie: one machine, one command, interleaved, every run a fresh process.

    python -m benchmarks.speed --pack PATH [--peer-python PYTHON] [--peers all] [--json out.json]

For each posterior and repetition our defaults and every configuration of the peers run in turn (A B C A B C).
Per configuration, medians over repetitions of

* warm: smallest bulk ESS, and smallest of bulk and tail ESS, per core-second, warm-up included;
* cold: CPU seconds of a fresh process until 1000 effective draws (imports, tracing, compilation, sampling);
* the errors of those same draws against the reference (mean in reference sd, worst ratio of sds).

The unit is CPU seconds, user plus system, of the whole process; compilation caches are off on both sides.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from .posteriordb import measure, pack
from .workers.arguments import ARGUMENTS

ROOT = Path(__file__).resolve().parents[1]
POSTERIORS = tuple(ARGUMENTS)
NUMPYRO = (
    "diag-4-single-f64",
    "dense-4-single-f64",
    "diag-4-single-f32",
    "dense-4-single-f32",
    "diag-16-vectorized-f64",
    "dense-16-vectorized-f64",
)
SAMPLERS = ("window-4", "dense-4", "lowrank-4", "chees-32", "meads-64", "mclmc-4")
BLACKJAX = tuple(f"blackjax-{sampler}-f64" for sampler in SAMPLERS)
NUTPIE = ("nutpie-default-4", "nutpie-lowrank-4")
PEERS = {"numpyro": NUMPYRO, "blackjax": BLACKJAX, "nutpie": NUTPIE, "all": NUMPYRO + BLACKJAX + NUTPIE}
WORKERS = {"blackjax": "blackjax_samplers", "nutpie": "nutpie_sampler"}
PACKAGES = ("numpyro", "blackjax", "optax", "nutpie", "pymc")
WORST_RHAT = 1.1
"""A run whose chains disagree by more has no effective sample size to speak of, and is no competitor."""
OURS = "ours"


def peer_python(given: Path | None) -> str:
    """An interpreter with the peers, in an environment of its own in the user's cache if none is given."""
    if given is not None:
        return str(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ppl-benchmarks" / "peers"
    python = cache / "bin" / "python"
    if not (cache / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(cache)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (cache / "installed").touch()
    return str(python)


def run_worker(python: str, module: str, out: Path, timeout: float, **options: Any) -> dict[str, Any]:
    """Run one measuring process and read its last line; a failure becomes an ``error`` entry."""
    out.mkdir(parents=True, exist_ok=True)
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment |= {"JAX_ENABLE_COMPILATION_CACHE": "false", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [python, "-m", f"benchmarks.workers.{module}", "--out", str(out), *words]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"error": f"no result within {timeout:.0f} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def scalars_in(path: str) -> pack.Draws:
    """The named scalars of a file of draws."""
    with np.load(path) as archive:
        found: pack.Draws = {}
        for name in sorted(archive.files):
            found |= pack.scalars(name, archive[name].astype(np.float64))
    return found


def figures(phase: dict[str, Any], reference: pack.Draws) -> dict[str, Any]:
    """Rates and errors of one phase of one run."""
    every = scalars_in(phase["draws"])
    row = measure.judge({key: every[key] for key in reference}, reference)
    smaller = min(row["ess_bulk"], row["ess_tail"])
    rates = {"bulk_per_core_s": row["ess_bulk"] / phase["cpu"], "both_per_core_s": smaller / phase["cpu"]}
    return row | rates | {"cpu": phase["cpu"], "wall": phase["wall"]}


def reference_for(name: str, arguments: argparse.Namespace, python: str, scratch: Path) -> pack.Draws:
    """Reference draws of the pack, or the peer's long run where there are none."""
    reference = pack.load_reference(arguments.pack, name)
    if reference is not None:
        return reference
    print(f"{name}: no reference draws, taking a long run of NumPyro", flush=True)
    out = scratch / name / "reference"
    options = {"job": "reference", "pack": arguments.pack, "posterior": name, "seed": 20240}
    row = run_worker(python, "numpyro_nuts", out, arguments.timeout, **options)
    if "error" in row:
        raise RuntimeError(f"the reference run of {name} failed: {row['error']}")
    return scalars_in(row["draws"])


def worker_of(config: str) -> str:
    """The measuring module of a peer's configuration."""
    return WORKERS.get(config.partition("-")[0], "numpyro_nuts")


def measure_posterior(name: str, arguments: argparse.Namespace, python: str, scratch: Path) -> dict[str, Any]:
    """All repetitions of all sides on one posterior."""
    reference = reference_for(name, arguments, python, scratch)
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in (OURS, *arguments.config)}
    for repetition in range(arguments.repetitions):
        for side in runs:
            interpreter, module = (sys.executable, "ours") if side == OURS else (python, worker_of(side))
            options = {"job": "speed", "pack": arguments.pack, "posterior": name, "seed": 1 + repetition}
            options |= {"config": side, "target": arguments.target}
            out = scratch / name / side / str(repetition)
            row = run_worker(interpreter, module, out, arguments.timeout, **options)
            if "error" not in row:
                row = {phase: figures(row[phase], reference) for phase in ("cold", "warm")}
            runs[side].append(row)
            print(f"  {side:26} {_brief(row)}", flush=True)
    traces = {
        side: run_worker(interpreter, module, scratch / name / "trace", arguments.timeout, job="trace",
                         pack=arguments.pack, posterior=name)
        for side, interpreter, module in ((OURS, sys.executable, "ours"), ("numpyro", python, "numpyro_nuts"))
    }  # fmt: skip
    return {"posterior": name, "runs": runs, "trace": traces}


def _brief(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"failed: {row['error']}"
    cold, warm = row["cold"], row["warm"]
    ess, rate = cold["ess_bulk"], warm["bulk_per_core_s"]
    return f"cold {cold['cpu']:6.2f} CPU s (ESS {ess:.0f}), warm {rate:9.0f} ESS/core-s"


def medians(runs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Medians over the runs that finished, and their worst errors; None when none did."""
    good = [run for run in runs if "error" not in run]
    if not good:
        return None
    return {
        "warm_bulk": median(run["warm"]["bulk_per_core_s"] for run in good),
        "warm_both": median(run["warm"]["both_per_core_s"] for run in good),
        "warm_cpu": median(run["warm"]["cpu"] for run in good),
        "cold_cpu": median(run["cold"]["cpu"] for run in good),
        "cold_wall": median(run["cold"]["wall"] for run in good),
        "cold_bulk": median(run["cold"]["bulk_per_core_s"] for run in good),
        "cold_both": median(run["cold"]["both_per_core_s"] for run in good),
        "cold_ess": median(run["cold"]["ess_bulk"] for run in good),
        "rhat": max(run["warm"]["rhat"] for run in good),
        "mean_error": max(run["warm"]["mean_error"] for run in good),
        "sd_ratio": max((run["warm"]["sd_ratio"] for run in good), key=lambda ratio: abs(ratio - 1.0)),
        "failed": len(runs) - len(good),
    }


def summarise(results: list[dict[str, Any]], configs: tuple[str, ...]) -> dict[str, Any]:
    """Ratios to the best configuration of the peer, per posterior and as geometric means."""
    table, ratios = [], []
    for result in results:
        cells = {side: medians(runs) for side, runs in result["runs"].items()}
        cells = {side: cell for side, cell in cells.items() if cell}
        table.append({"posterior": result["posterior"], "cells": cells, "trace": result["trace"]})
        peers = [cells[side] for side in configs if side in cells and cells[side]["rhat"] <= WORST_RHAT]
        if OURS in cells and peers:
            own = cells[OURS]
            best = {
                key: own[key] / max(peer[key] for peer in peers)
                for key in ("warm_bulk", "warm_both", "cold_bulk", "cold_both")
            }
            best["cold_cpu"] = min(peer["cold_cpu"] for peer in peers) / own["cold_cpu"]
            ratios.append({"posterior": result["posterior"]} | best)
    keys = [key for key in ratios[0] if key != "posterior"] if ratios else []
    means = {key: math.exp(sum(math.log(r[key]) for r in ratios) / len(ratios)) for key in keys}
    return {"table": table, "ratios": ratios, "geometric_means": means}


def show(summary: dict[str, Any]) -> None:
    """Print the table."""
    print(
        f"\n{'':28} {'warm, per core-second':>24} {'cold to target':>24} {'worst of the warm runs':>28}\n"
        f"{'':28} {'bulk ESS':>12}{'min(b,t)':>12} {'CPU s':>8}{'wall s':>8}{'ESS':>8} "
        f"{'mean err':>10}{'sd ratio':>9}{'R-hat':>9}"
    )
    for entry in summary["table"]:
        print(entry["posterior"])
        for side, c in entry["cells"].items():
            print(
                f"  {side:26} {c['warm_bulk']:12.0f}{c['warm_both']:12.0f} "
                f"{c['cold_cpu']:8.2f}{c['cold_wall']:8.2f}"
                f"{c['cold_ess']:8.0f} {c['mean_error']:10.3f}{c['sd_ratio']:9.3f}{c['rhat']:9.4f}"
            )
        traced = {side: row["trace"]["cpu"] for side, row in entry["trace"].items() if "trace" in row}
        print("  tracing, CPU s: " + ", ".join(f"{side} {seconds:.3f}" for side, seconds in traced.items()))
    print("\nours over the best configuration of all peers")
    for row in [*summary["ratios"], {"posterior": "geometric mean"} | summary["geometric_means"]]:
        cells = "  ".join(f"{key} {value:6.2f}" for key, value in row.items() if key != "posterior")
        print(f"  {row['posterior'][:34]:34} {cells}")


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.splitlines()[0])
    parser.add_argument("--pack", type=Path, required=True, help="folder with one sub-folder per posterior")
    parser.add_argument("--only", action="append", metavar="NAME", help="posteriors whose name contains this")
    parser.add_argument("--peers", choices=tuple(PEERS), default="numpyro", help="whose configurations")
    parser.add_argument("--config", nargs="+", help="these configurations of the peers")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--target", type=int, default=1000, help="effective draws that end a cold run")
    parser.add_argument("--timeout", type=float, default=900.0, help="wall seconds per process")
    parser.add_argument("--peer-python", type=Path, help="interpreter that has the peers (else one is set up)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    arguments.pack = arguments.pack.resolve()
    arguments.config = list(arguments.config or PEERS[arguments.peers])
    python = peer_python(arguments.peer_python)
    names = [name for name in POSTERIORS if any(part in name for part in arguments.only or [""])]
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            print(name, flush=True)
            results.append(measure_posterior(name, arguments, python, Path(scratch)))
            summary = summarise(results, tuple(arguments.config))
            if arguments.json:  # after each posterior: a long command may be interrupted
                machine = {"cores": os.cpu_count(), "load": os.getloadavg(), "time": time.strftime("%Y-%m-%d %H:%M")}
                document = {"machine": machine, **summary, "results": results}
                arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    show(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
