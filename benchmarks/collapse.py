"""What collapse gains: densities with likelihoods replaced by sufficient statistics beside the plain ones.

    python -m benchmarks.collapse [--pack PATH] [--seed 0] [--json out.json]

For two posteriors of a pack (regressions) and for the models below, with data made from the seed: the largest relative
difference of log density and gradient over random positions, and the ratio of times of one log density with gradient,
in a compiled loop where each needs the one before. Times are CPU seconds of the process.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ppl
from ppl import dist

POSTERIORS = ("diamonds-diamonds", "nes1980-nes")
POINTS = 16
CLOSE = 1e-8


@ppl.model
def regression(X):
    """y ~ N(alpha + X beta, sigma): through a triangular factor."""
    alpha = ppl.sample("alpha", dist.Normal(0.0, 5.0))
    beta = ppl.sample("beta", dist.Normal(np.zeros(X.shape[1]), 1.0).to_event(1))
    sigma = ppl.sample("sigma", dist.HalfNormal(1.0))
    ppl.sample("y", dist.Normal(alpha + X @ beta, sigma))


@ppl.model
def weighted(x, w):
    """Known weights: the scale is a latent scalar times data."""
    a = ppl.sample("a", dist.Normal(0.0, 5.0))
    b = ppl.sample("b", dist.Normal(0.0, 5.0))
    sigma = ppl.sample("sigma", dist.HalfNormal(1.0))
    ppl.plate("row", lambda x, w: ppl.sample("y", dist.Normal(a + b * x, sigma * w)), x, w)


@ppl.model
def lognormal(x):
    """LogNormal of data with an affine mean of the logarithm."""
    a = ppl.sample("a", dist.Normal(0.0, 5.0))
    b = ppl.sample("b", dist.Normal(0.0, 5.0))
    sigma = ppl.sample("sigma", dist.HalfNormal(1.0))
    ppl.plate("row", lambda x: ppl.sample("y", dist.LogNormal(a + b * x, sigma)), x)


@ppl.model
def intercepts(group, x, size):
    """Random intercepts: statistics of groups."""
    mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
    tau = ppl.sample("tau", dist.HalfNormal(1.0))
    b = ppl.sample("b", dist.Normal(0.0, 5.0))
    sigma = ppl.sample("sigma", dist.HalfNormal(1.0))
    theta = ppl.plate("group", lambda _: mu + tau * ppl.sample("raw", dist.Normal(0.0, 1.0)), size)
    ppl.plate("row", lambda g, x: ppl.sample("y", dist.Normal(theta[g] + b * x, sigma)), group, x)


@ppl.model
def slopes(group, x, size):
    """Random intercepts and slopes, a scale for each group: a small triangle for each group."""
    a = ppl.sample("a", dist.Normal(np.zeros(size), 1.0).to_event(1))
    b = ppl.sample("b", dist.Normal(np.zeros(size), 1.0).to_event(1))
    sigma = ppl.sample("sigma", dist.HalfNormal(np.ones(size)).to_event(1))
    ppl.plate("row", lambda g, x: ppl.sample("y", dist.Normal(a[g] + b[g] * x, sigma[g])), group, x)


@ppl.model
def counts(group, exposure, size):
    """Poisson counts with exposures: sums by group."""
    mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
    effect = ppl.sample("effect", dist.Normal(np.zeros(size), 1.0).to_event(1))
    ppl.plate("row", lambda g, e: ppl.sample("y", dist.Poisson(jnp.exp(mu + effect[g]) * e)), group, exposure)


@ppl.model
def factors(age, region, X):
    """Logistic regression on factors: repeated rows."""
    a = ppl.sample("a", dist.Normal(np.zeros(4), 1.0).to_event(1))
    r = ppl.sample("r", dist.Normal(np.zeros(5), 1.0).to_event(1))
    beta = ppl.sample("beta", dist.Normal(np.zeros(2), 1.0).to_event(1))
    ppl.plate("row", lambda i, j, x: ppl.sample("y", dist.Bernoulli(logits=a[i] + r[j] + x @ beta)), age, region, X)


@ppl.model
def rates(size):
    """Gamma waiting times: an exponential family."""
    shape = ppl.sample("shape", dist.HalfNormal(1.0))
    rate = ppl.sample("rate", dist.HalfNormal(1.0))
    ppl.sample("y", dist.Gamma(shape, rate).expand((size,)))


@ppl.model
def shares(size):
    """Beta shares: an exponential family."""
    a = ppl.sample("a", dist.HalfNormal(1.0))
    b = ppl.sample("b", dist.HalfNormal(1.0))
    ppl.sample("y", dist.Beta(a, b).expand((size,)))


@ppl.model
def choices(group, size):
    """Categorical data with probabilities of each group: a table of counts."""
    logits = ppl.sample("logits", dist.Normal(np.zeros((size, 4)), 1.0).to_event(2))
    ppl.plate("row", lambda g: ppl.sample("y", dist.Categorical(logits=logits[g])), group)


@ppl.model
def overdispersed(x):
    """Negative binomial counts on a covariate with few values: repeated rows, the count among them."""
    a = ppl.sample("a", dist.Normal(0.0, 1.0))
    b = ppl.sample("b", dist.Normal(0.0, 1.0))
    shape = ppl.sample("shape", dist.HalfNormal(1.0))
    ppl.plate("row", lambda x: ppl.sample("y", dist.NegativeBinomial2(jnp.exp(a + b * x), shape + 0.5)), x)


@ppl.model
def rounded(size):
    """Student's t for data rounded to a tenth: repeated values."""
    mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
    sigma = ppl.sample("sigma", dist.HalfNormal(1.0))
    ppl.sample("y", dist.StudentT(4.0, mu, sigma).expand((size,)))


def programs(seed: int = 0, n: int = 10_000) -> dict[str, Any]:
    """The models on synthetic data of ``n`` observations."""
    rng = np.random.default_rng(seed)
    group, x, y = rng.integers(0, 40, n), rng.normal(size=n), rng.normal(size=n)
    X = rng.normal(size=(n, 6))
    few = rng.integers(0, 6, n) / 4.0
    sex = rng.integers(0, 2, (n, 2)).astype(float)
    exposure = rng.gamma(2.0, size=n)
    return {
        "regression": regression(X).condition(y=X @ np.arange(6.0) + y),
        "weighted": weighted(x, exposure + 0.1).condition(y=1.0 + 2.0 * x + exposure * y),
        "lognormal": lognormal(x).condition(y=np.exp(1.0 + x + y)),
        "intercepts": intercepts(group, x, 40).condition(y=group / 10.0 + x + y),
        "slopes": slopes(group, x, 40).condition(y=group / 10.0 * x + y),
        "counts": counts(group, exposure, 40).condition(y=rng.poisson(exposure)),
        "factors": factors(rng.integers(0, 4, n), rng.integers(0, 5, n), sex).condition(y=rng.integers(0, 2, n)),
        "rates": rates(n).condition(y=rng.gamma(3.0, size=n)),
        "shares": shares(n).condition(y=rng.beta(2.0, 3.0, n)),
        "choices": choices(group, 40).condition(y=rng.integers(0, 4, n)),
        "overdispersed": overdispersed(few).condition(y=rng.negative_binomial(3, 0.5, n)),
        "rounded": rounded(n).condition(y=np.round(rng.standard_t(4, n), 1)),
    }


def difference(one: Any, other: Any, seed: int = 0) -> tuple[float, float]:
    """Largest relative differences of log density and gradient at random positions.

    That of a gradient is relative to its largest entry.
    """
    z = 0.5 * np.random.default_rng(seed).normal(size=(POINTS, one.dim))
    (a, g), (b, h) = (jax.device_get(_values(density, z)) for density in (one, other))
    scale = np.maximum(np.abs(g).max(axis=1, keepdims=True), 1e-300)
    return float(np.max(np.abs(a - b) / np.abs(a))), float(np.max(np.abs(g - h) / scale))


@jax.jit
def _values(density: Any, z: Any) -> Any:
    return jax.vmap(jax.value_and_grad(density))(z)


@jax.jit
def _loop(density: Any, z: Any, steps: Any) -> Any:
    def step(_: Any, carry: Any) -> Any:
        z, total = carry
        value, gradient = jax.value_and_grad(density)(z)
        return z + 1e-3 * gradient / (1.0 + jnp.max(jnp.abs(gradient))), total + value

    return jax.lax.fori_loop(0, steps, step, (z, jnp.zeros((), z.dtype)))[1]


def seconds(density: Any, repeats: int = 3) -> float:
    """CPU seconds of one log density with its gradient, the least of some measurements of about a tenth of a second."""
    z = jnp.zeros(density.dim) + 0.1
    _loop(density, z, 1).block_until_ready()
    steps, spent = 8, 0.0
    while spent < 0.1:
        steps *= 2
        spent = _timed(density, z, steps)
    return min([spent, *(_timed(density, z, steps) for _ in range(repeats - 1))]) / steps


def _timed(density: Any, z: Any, steps: int) -> float:
    start = time.process_time()
    _loop(density, z, steps).block_until_ready()
    return time.process_time() - start


def row(name: str, program: Any, clock: Callable[[Any], float] = seconds) -> dict[str, Any]:
    """One line of the table."""
    plain, collapsed = ppl.compile(program, collapse=False), ppl.compile(program)
    value, gradient = difference(plain, collapsed)
    times = clock(plain), clock(collapsed)
    return {
        "model": name,
        "value": value,
        "gradient": gradient,
        "plain_us": 1e6 * times[0],
        "collapsed_us": 1e6 * times[1],
        "ratio": times[0] / times[1],
        "notes": list(collapsed.compiled.rewritten.notes),
    }


def main(argv: list[str] | None = None) -> int:
    """Print the table; nonzero where a density changed or a model did not collapse."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.collapse", description=__doc__)
    parser.add_argument("--pack", type=Path, help="folder of posteriors")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=10_000, help="observations of the synthetic models")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    arguments = parser.parse_args(argv)
    rows = []
    print(f"{'model':20s} {'value':>9s} {'gradient':>9s} {'plain us':>9s} {'us':>9s} {'ratio':>7s}  what was done")
    with jax.enable_x64(True):
        chosen: dict[str, Any] = {}
        if arguments.pack is not None:
            from .posteriordb import pack
            from .posteriordb.programs import PROGRAMS

            chosen = {name: PROGRAMS[name](pack.load_data(arguments.pack, name)) for name in POSTERIORS}
        for name, program in {**chosen, **programs(arguments.seed, arguments.size)}.items():
            rows.append(row(name, program))
            r = rows[-1]
            print(
                f"{name:20s} {r['value']:9.1e} {r['gradient']:9.1e} {r['plain_us']:9.2f} {r['collapsed_us']:9.2f} "
                f"{r['ratio']:7.1f}  {'; '.join(r['notes'])}",
                flush=True,
            )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    good = all(max(r["value"], r["gradient"]) < CLOSE and r["notes"] for r in rows)
    print("every density is unchanged" if good else "A DENSITY CHANGED OR DID NOT COLLAPSE")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
