"""Effective draws per core-second of our samplers over dimension and over chains; makes the plot of docs/samplers.md.

    python -m benchmarks.samplers [--out docs/images/samplers.svg] [--json out.json] [--dims 2 10 50] [--repetitions 3]

The target is a Gaussian whose neighbours correlate by 0.7 and whose scales span two decades. The unit is CPU seconds of
a second call in one process, warm-up included; a cell is the median over repetitions, and is left out where R-hat
exceeds 1.05 (nested, in eight groups, for more than 64 chains). Everything is float64.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from statistics import median
from typing import Any

import jax.numpy as jnp
import numpy as np

from ppl.inference import diagnostics, infer, mcmc
from ppl.inference.core import as_density

DIMS = (2, 5, 10, 30, 100, 300)
CORRELATION, WORST_RHAT = 0.7, 1.05


def target(dim: int) -> Any:
    """The Gaussian, by its conditional regressions: linear cost."""
    scale = np.geomspace(0.1, 10.0, dim)

    def log_density(z):
        x = z / scale
        steps = (x[1:] - CORRELATION * x[:-1]) / np.sqrt(1 - CORRELATION**2)
        return -0.5 * (x[0] ** 2 + jnp.sum(steps**2))

    return as_density(log_density, dim)


OVER_DIMENSION: dict[str, tuple[Any, int]] = {  # options of infer, and the largest dimension
    "PooledHMC (default)": (lambda d: (None, {}), 10**9),
    "NUTS": (lambda d: (mcmc.NUTS(), {}), 10**9),
    "MAMS": (lambda d: (mcmc.MAMS(), {}), 10**9),
    "MALA": (lambda d: (mcmc.MALA(), {"draws": 20_000}), 100),
    "Barker": (lambda d: (mcmc.Barker(), {"draws": 20_000}), 100),
    "RandomWalk": (lambda d: (mcmc.RandomWalk(), {"draws": 40_000}), 30),
    "Slice": (lambda d: (mcmc.Slice(), {"draws": 10_000}), 30),
    "Stretch": (lambda d: (mcmc.Stretch(), {"draws": 4000}), 10),
}
OVER_CHAINS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "PooledHMC (default)": (lambda c: mcmc.PooledHMC(chains=c), (4, 16, 64, 256)),
    "NUTS": (lambda c: mcmc.Chains(mcmc.NUTS(), chains=c), (1, 4, 16)),
    "ChEES": (lambda c: mcmc.ChEES(chains=c), (64, 256, 1024)),
}


def measure(goal: Any, engine: Any, repetitions: int, **options: Any) -> dict[str, Any]:
    """Median of effective draws per core-second of warm calls."""
    infer(goal, engine, seed=100, progress=False, **options)
    rates, worst = [], 0.0
    for seed in range(repetitions):
        start = time.process_time()
        fit = infer(goal, engine, seed=200 + seed, progress=False, **options)
        cpu = time.process_time() - start
        positions = np.asarray(fit.draws.positions)
        few = np.unique(np.linspace(0, positions.shape[2] - 1, 30).astype(int))
        rates.append(float(np.min(diagnostics.ess_bulk(positions[..., few]))) / cpu)
        many = positions.shape[0] > 64
        rhat = diagnostics.rhat_nested(positions[..., few], 8) if many else diagnostics.rhat_rank(positions[..., few])
        worst = max(worst, float(np.max(rhat)))
    return {"rate": median(rates), "rhat": worst}


def run(dims: tuple[int, ...], repetitions: int) -> dict[str, list[dict[str, Any]]]:
    """All cells."""
    found: dict[str, list[dict[str, Any]]] = {"dimension": [], "chains": []}

    def cell(panel: str, name: str, x: int, goal: Any, engine: Any, **options: Any) -> None:
        try:
            row = measure(goal, engine, repetitions, **options)
        except Exception as error:  # noqa: BLE001 - a failing cell must not lose the others
            row = {"error": f"{type(error).__name__}: {error}"}
        found[panel].append({"sampler": name, "x": x} | row)
        print(f"{panel:10} {x:6d} {name:22} {row}", flush=True)

    for name, (make, most) in OVER_DIMENSION.items():
        for dim in dims:
            if dim <= most:
                engine, options = make(dim)
                cell("dimension", name, dim, target(dim), engine, **options)
    for name, (build, counts) in OVER_CHAINS.items():
        for count in counts:
            cell("chains", name, count, target(10), build(count))
    return found


def draw(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """The plot."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "samplers"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    names = list(dict.fromkeys(row["sampler"] for rows in found.values() for row in rows))
    colours = dict(zip(names, plt.get_cmap("tab10").colors, strict=False))
    for ax, panel, label in zip(axes, ("dimension", "chains"), ("dimension", "chains (dimension 10)"), strict=True):
        for name in names:
            good = [r for r in found[panel] if r["sampler"] == name and r.get("rhat", 9.0) <= WORST_RHAT]
            if good:
                x, rate = zip(*((r["x"], r["rate"]) for r in good), strict=True)
                ax.loglog(x, rate, "o-", label=name, color=colours[name], ms=4)
        ax.set_xlabel(label)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("smallest bulk ESS per core-second")
    handles = {h.get_label(): h for ax in axes for h in ax.get_legend_handles_labels()[0]}
    figure.legend(handles.values(), handles.keys(), loc="center right", frameon=False, fontsize=8)
    figure.subplots_adjust(left=0.08, right=0.82, bottom=0.13, top=0.97, wspace=0.08)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main(argv: list[str] | None = None) -> int:
    """Measure, plot, and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.samplers", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images/samplers.svg"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--dims", type=int, nargs="+", default=list(DIMS))
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args(argv)
    found = run(tuple(arguments.dims), arguments.repetitions)
    if arguments.json:
        machine = {"cores": os.cpu_count(), "load": os.getloadavg(), "time": time.strftime("%Y-%m-%d %H:%M")}
        arguments.json.write_text(json.dumps({"machine": machine} | found, indent=1) + "\n")
    draw(found, arguments.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
