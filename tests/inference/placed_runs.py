"""Runs for ``test_devices``, in a process of their own, because the number of host devices is chosen before JAX starts.

``python -m tests.inference.placed_runs OUT DEVICES PART... [-- PORT PROCESS COUNT]`` saves what the parts found.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

import jax
import numpy as np

import ppl
from ppl import dist
from ppl.inference import infer, mcmc
from ppl.inference.sharding import shard


def data(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows)
    return rng.normal(size=(rows, 3)), rng.integers(0, 7, rows), rng.integers(0, 2, rows)


@ppl.model
def regression(x, group, scale):
    slope = ppl.sample("slope", dist.Normal(0.0, scale).expand([3]).to_event(1))
    tau = ppl.sample("tau", dist.HalfNormal(1.0))
    level = ppl.plate("group", lambda i: ppl.sample("level", dist.Normal(0.0, tau)), 7)

    @ppl.plate("row", x, group)
    def _(x, g):
        ppl.sample("y", dist.Bernoulli(logits=level[g] + x @ slope))


@ppl.model
def eight_schools(error):
    mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
    tau = ppl.sample("tau", dist.HalfCauchy(5.0))
    ppl.plate(
        "school", lambda e: ppl.sample("y", dist.Normal(mu + tau * ppl.sample("z", dist.Normal(0.0, 1.0)), e)), error
    )


def program(rows: int) -> Any:
    x, group, y = data(rows)
    return regression(x, group, 2.5).condition(y=y)


def schools() -> Any:
    error = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    return eight_schools(error).condition(y=np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]))


def positions(dim: int) -> np.ndarray:
    return np.random.default_rng(5).uniform(-1.0, 1.0, (4, dim))


@jax.jit
def values(density: Any, z: np.ndarray) -> Any:
    return jax.vmap(jax.value_and_grad(density))(z)


ENGINES: dict[str, tuple[Any, dict[str, Any]]] = {
    "pooled": (mcmc.PooledHMC(chains=8, lanes=4, draws=30, max_draws=30), {}),
    "nuts": (mcmc.NUTS(), {"chains": 5, "warmup": 60, "draws": 20}),
}


def chains(found: dict[str, Any], devices: int, name: str) -> None:
    """Lanes of an engine."""
    engine, options = ENGINES[name]
    fit = infer(schools(), engine, seed=3, devices=devices, progress=False, **options)
    found[f"{name}/draws"], found[f"{name}/lp"] = fit.draws.positions, fit.draws.stats["lp"]
    found[f"{name}/warmup"] = fit.draws.warmup_positions
    found[f"{name}/plan"] = np.array(fit.manifest["plan"])


def rows(found: dict[str, Any], devices: int) -> None:
    """The density at fixed positions, with its data laid out, for even and uneven numbers of rows."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("data",))
    with jax.enable_x64(True):
        for size in (103, 104):
            density = shard(ppl.compile(program(size)), mesh)
            z = positions(density.dim)
            found[f"{size}/lp"], found[f"{size}/gradient"] = values(density, z)
            found[f"{size}/pointwise"] = jax.vmap(density.pointwise)(z)["y"]
            text = values.lower(density, z).compile().as_text()
            kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
            found[f"{size}/collectives"] = np.array(sorted(set(re.findall(rf" ({kinds})(?:-start)?\(", text))))
            leaves = jax.tree.leaves(density)
            found[f"{size}/shares"] = np.array([x.addressable_shards[0].data.nbytes / x.nbytes for x in leaves])
            found[f"{size}/rows"] = np.array([x.shape[0] if x.ndim else 0 for x in leaves])


def over(found: dict[str, Any], devices: int) -> None:
    """A short run with laid out data."""
    engine = mcmc.PooledHMC(chains=4, draws=20, max_draws=20)
    fit = infer(program(103), engine, seed=1, shard=True, devices=devices, progress=False)
    found["run/draws"], found["run/warmup"] = fit.draws.positions, fit.draws.warmup_positions
    found["run/lp"] = fit.draws.stats["lp"]
    found["run/pointwise"] = fit.log_likelihood["y"].values
    found["run/plan"] = np.array(fit.manifest["plan"])


def long(found: dict[str, Any], devices: int) -> None:
    """A long run with laid out data."""
    fit = infer(program(103), mcmc.NUTS(), chains=4, draws=1500, seed=1, shard=True, devices=devices, progress=False)
    found["long/draws"] = fit.draws.positions


def lower(found: dict[str, Any], devices: int) -> None:
    """The blocks of both engines for accelerators, with laid out data."""
    from ppl.inference.mcmc import lanes
    from ppl.inference.mcmc.pooled_block import SIZE, block

    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("data",))
    with jax.enable_x64(True):
        density = shard(ppl.compile(program(103)), mesh)
        dim, texts = density.dim, []
        state, noise = np.zeros((4, 2 * dim + 1)), np.zeros((SIZE, 4, dim + 2))
        traced = block.trace(
            density, state, noise, np.zeros((SIZE, 2)), np.zeros(4), np.eye(dim), np.eye(dim), np.int32(3)
        )
        texts.append(traced.lower(lowering_platforms=("cuda", "tpu")).as_text())
        kernel = jax.tree.map(lambda x: np.broadcast_to(x, (4, *np.shape(x))), mcmc.NUTS().expand(dim))
        start, _ = lanes.evaluate(kernel, np.zeros((4, dim)), density, 4)
        keys = np.zeros((4, 2), np.uint32)
        shapes = jax.eval_shape(lanes._one_report, kernel, start, keys, density)
        buffers = {name: np.zeros((8, *s.shape), s.dtype) for name, s in shapes.items()}
        traced = lanes.plain_block.trace(buffers, (), kernel, [], start, keys, density, np.zeros(4, np.int32))
        texts.append(traced.lower(lowering_platforms=("cuda", "tpu")).as_text())
    found["lowered"] = np.array(["stablehlo.while" in text and "data" in text for text in texts])


def directory(found: dict[str, Any], devices: int) -> None:
    """A run in a directory that a time budget ends at once, resumed; and one without interruption."""
    engine = mcmc.PooledHMC(chains=8, lanes=4, draws=200, max_draws=200)
    path = os.environ["RUN_DIRECTORY"]
    try:
        infer(schools(), engine, seed=3, path=path, time_budget=0.01, progress=False)
    except TimeoutError as error:
        found["stopped"] = np.array(str(error))
    fit = infer.resume(path, schools(), progress=False)  # type: ignore[attr-defined]
    found["resumed/draws"], found["resumed/mu"] = fit.draws.positions, fit.posterior["mu"].values
    fit = infer(schools(), engine, seed=3, progress=False)
    found["whole/draws"], found["whole/mu"] = fit.draws.positions, fit.posterior["mu"].values


def stopped(found: dict[str, Any], devices: int) -> None:
    """A run in a directory that a time budget ends at once."""
    engine = mcmc.PooledHMC(chains=8, lanes=4, draws=60, max_draws=60)
    shard = os.environ.get("SHARD")
    try:
        infer(program(103), engine, seed=3, path=os.environ["RUN_DIRECTORY"], time_budget=0.01, progress=False,
              devices=devices, shard=shard)  # fmt: skip
    except TimeoutError as error:
        found["stopped"] = np.array(str(error))


def resumed(found: dict[str, Any], devices: int) -> None:
    """The rest of that run, and the whole of it."""
    path, shard = os.environ["RUN_DIRECTORY"], os.environ.get("SHARD")
    fit = infer.resume(path, program(103), progress=False, devices=None if shard else devices)  # type: ignore[attr-defined]
    found["resumed/draws"] = fit.draws.positions
    engine = mcmc.PooledHMC(chains=8, lanes=4, draws=60, max_draws=60)
    whole = infer(program(103), engine, seed=3, progress=False, devices=devices, shard=shard)
    found["whole/draws"] = whole.draws.positions


def endless(found: dict[str, Any], devices: int) -> None:
    """A run that only a signal ends."""
    fit = infer(
        schools(), mcmc.NUTS(), chains=2, warmup=50, draws=10**7, path=os.environ["RUN_DIRECTORY"], progress=False
    )
    found["draws"], found["stopped"] = fit.draws.positions, np.array(fit.manifest["stopped"])


PARTS = {function.__name__: function for function in (rows, over, long, lower, directory, stopped, resumed, endless)}


def main(out: str, devices: str, *parts: str) -> None:
    own, _, joined = "\n".join(parts).partition("\n--\n")
    if joined:
        port, process, count = joined.split("\n")
        jax.distributed.initialize(f"127.0.0.1:{port}", int(count), int(process))
    found: dict[str, Any] = {}
    for part in own.split("\n"):
        if part in ENGINES:
            chains(found, int(devices), part)
        else:
            PARTS[part](found, int(devices))
    np.savez(out, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
