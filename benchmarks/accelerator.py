"""The many-chain sampler at 10^2, 10^3 and 10^4 chains on whatever device JAX finds, recorded as JSON.

    python -m benchmarks.accelerator [--chains 100 1000 10000] [--json out.json]

For each target and number of chains a run in a process that has compiled already, and one cold before it: seconds of
warm-up and sampling, leapfrog steps of one chain per second, the least effective sample size of a mean (of z and of
z^2) per second of the whole run and of sampling alone, nested R-hat, and the greatest error of a mean in standard
deviations against the truth where that is known. The name of the machine and of the device, versions and precision are
in the file. ``--chains`` small and ``--targets gaussian`` run on a laptop.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

CHAINS = (100, 1_000, 10_000)


def gaussian(dim: int = 100) -> tuple[Any, np.ndarray, np.ndarray]:
    """Correlated, scales from 1 to 30 along random axes: density, mean and standard deviations."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    scales = np.geomspace(1.0, 30.0, dim)
    precision = axes @ np.diag(scales**-2) @ axes.T
    sd = np.sqrt(np.diag(axes @ np.diag(scales**2) @ axes.T))
    return Quadratic(jnp.asarray(precision)), np.zeros(dim), sd


def logistic(rows: int = 1000, dim: int = 25) -> tuple[Any, None, None]:
    """Bayesian logistic regression on simulated data."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(rows, dim)) * np.geomspace(0.3, 3.0, dim)
    y = (rng.random(rows) < 1 / (1 + np.exp(-x @ rng.normal(size=dim)))).astype(float)
    return Logistic(jnp.asarray(x), jnp.asarray(y)), None, None


class Quadratic:
    """A Gaussian log density whose precision is data of the compiled program."""

    def __init__(self, precision: Any) -> None:
        self.precision = precision
        self.dim = int(precision.shape[0])

    def __call__(self, z: Any) -> Any:
        return -0.5 * z @ self.precision.astype(z.dtype) @ z


class Logistic:
    """The log posterior of a logistic regression with standard normal coefficients."""

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = x, y
        self.dim = int(x.shape[1])

    def __call__(self, z: Any) -> Any:
        x, y = self.x.astype(z.dtype), self.y.astype(z.dtype)
        eta = x @ z
        return jnp.sum(y * eta - jnp.logaddexp(0.0, eta)) - 0.5 * z @ z


jax.tree_util.register_pytree_node(
    Quadratic, lambda q: ((q.precision,), None), lambda _, leaves: _made(Quadratic, precision=leaves[0])
)
jax.tree_util.register_pytree_node(
    Logistic, lambda q: ((q.x, q.y), None), lambda _, leaves: _made(Logistic, x=leaves[0], y=leaves[1])
)


def _made(cls: Any, **values: Any) -> Any:
    """An object whose leaves may be anything that JAX puts there."""
    new = object.__new__(cls)
    for name, value in values.items():
        setattr(new, name, value)
    first = next(iter(values.values()))
    new.dim = int(first.shape[-1]) if hasattr(first, "shape") else 0
    return new


TARGETS = {"gaussian": gaussian, "logistic": logistic}


def measure(name: str, chains: int, draws: int, warmup: int, seed: int, precision: str | None) -> dict[str, Any]:
    """One run."""
    from ppl.inference import diagnostics, infer, mcmc

    target, mean, sd = TARGETS[name]()
    began = time.perf_counter()
    fit = infer(
        target,
        mcmc.ChEES(chains=chains, warmup=warmup, draws=draws),
        seed=seed,
        precision=precision,
        progress=False,
    )
    seconds = time.perf_counter() - began
    z = fit.draws.positions
    judged = z[: min(chains, 512)]  # effective sample sizes of a part of the chains, times what they are a part of
    share = chains / len(judged)
    ess = min(np.min(diagnostics.ess_mean(judged)), np.min(diagnostics.ess_mean(judged**2))) * share
    steps = int(fit.draws.stats["n_steps"][0].sum())
    sampling = fit.manifest["seconds"].get("sampling", float("nan"))
    return {
        "target": name,
        "dim": int(z.shape[2]),
        "chains": chains,
        "draws": int(z.shape[1]),
        "warmup": warmup,
        "precision": fit.manifest["precision"],
        "seconds": seconds,
        "seconds_warmup": fit.manifest["seconds"].get("warmup", 0.0),
        "seconds_sampling": sampling,
        "leapfrog_steps_per_chain": fit.draws.info["gradients"] // chains,
        "gradients_per_second_sampling": steps * chains / sampling,
        "least_ess": float(ess),
        "least_ess_per_second": float(ess / seconds),
        "least_ess_per_second_sampling": float(ess / sampling),
        "nested_rhat": float(np.max(fit.draws.info["nested_rhat"])),
        "acceptance_rate": float(fit.draws.stats["acceptance_rate"].mean()),
        "step_size": fit.draws.info["step_size"],
        "length": fit.draws.info["length"],
        "worst_error_in_sd": None if mean is None else float(np.max(np.abs(z.mean((0, 1)) - mean) / sd)),
        "worst_ratio_of_sd": None if sd is None else float(np.max(np.abs(z.std((0, 1)) / sd - 1.0))),
    }


def machine() -> dict[str, Any]:
    """What ran."""
    device = jax.devices()[0]
    return {
        "machine": platform.node(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": device.device_kind,
        "platform": device.platform,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chains", type=int, nargs="+", default=list(CHAINS))
    parser.add_argument("--targets", nargs="+", choices=sorted(TARGETS), default=sorted(TARGETS))
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--warmup", type=int, default=400)
    parser.add_argument("--precision", choices=("float32", "float64"), default=None)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    runs = []
    for name in options.targets:
        for chains in options.chains:
            for kind in ("cold", "warm"):
                seed = len(runs)
                run = measure(name, chains, options.draws, options.warmup, seed, options.precision)
                runs.append({"kind": kind, **run})
                speed = (
                    f"{run['least_ess_per_second']:9.0f} ESS/s, {run['gradients_per_second_sampling']:9.3g} gradients/s"
                )
                took = f"{name:9} {chains:6} chains {kind}: {run['seconds']:7.2f} s"
                print(f"{took}, {speed}, nested R-hat {run['nested_rhat']:.3f}", flush=True)
    report = {**machine(), "command": "python -m benchmarks.accelerator", "runs": runs}
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return report


if __name__ == "__main__":
    main()
