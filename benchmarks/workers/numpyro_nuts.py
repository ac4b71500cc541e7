"""Measure NumPyro's NUTS. ``--config metric-chains-method-precision``, e.g. ``dense-4-single-f64``.

The whole run, warm-up included, is one jitted function of the key, because a second call of `MCMC.run` would compile
again. Method ``single`` compiles one chain and calls it per chain (no chain waits for another); ``vectorized``
compiles all chains in lockstep. Four chains run 1000 + 1000 iterations, more chains 500 + 400. A cold run that
misses the target adds further sets of chains. The warm run is the next call, with another seed.
"""

from __future__ import annotations

import time

START = time.perf_counter()

import jax  # noqa: E402
import numpy as np  # noqa: E402
import numpyro  # noqa: E402

from benchmarks.posteriordb import pack  # noqa: E402
from benchmarks.workers import common  # noqa: E402
from benchmarks.workers.arguments import ARGUMENTS  # noqa: E402
from benchmarks.workers.numpyro_models import MODELS  # noqa: E402

INTERNAL = ("t", "r", "weights")  # latents that stand behind the compared quantities


def sampler(config: str, model, data: tuple, warmup: int | None = None, draws: int | None = None):
    """The function seed -> draws of the compared variables, each (chains, draws, ...)."""
    metric, chains, method, precision = config.split("-")
    numpyro.enable_x64(precision == "f64")
    many, single = int(chains) > 4, method == "single"
    mcmc = numpyro.infer.MCMC(
        numpyro.infer.NUTS(model, dense_mass=metric == "dense"),
        num_warmup=warmup or (500 if many else 1000),
        num_samples=draws or (400 if many else 1000),
        num_chains=1 if single else int(chains),
        chain_method="vectorized",
        progress_bar=False,
    )

    @jax.jit
    def run(key):
        mcmc.run(key, *data)
        return mcmc.get_samples(group_by_chain=True)

    def draw(seed: int) -> dict[str, np.ndarray]:
        key = jax.random.key(seed)
        keys = jax.random.split(key, int(chains)) if single else [key]
        parts = [jax.device_get(run(k)) for k in keys]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name not in INTERNAL}

    return draw


def speed(job) -> dict:
    """Cold to the target, then warm."""
    model, arguments = MODELS[job.posterior], ARGUMENTS[job.posterior]
    draw = sampler(job.config, model, arguments(pack.load_data(job.pack, job.posterior)))
    diagnostics = common.diagnostics()
    draws, sets = draw(job.seed), 1
    while common.smallest_ess(diagnostics, draws) < job.target and common.cpu_of_process() < 600.0:
        more, sets = draw(job.seed + 100000 * sets), sets + 1
        draws = {name: np.concatenate([value, more[name]]) for name, value in draws.items()}
    row = {"cold": {"cpu": common.cpu_of_process(), "wall": time.perf_counter() - START}}
    row["cold"]["draws"] = common.save(job.out, "cold", draws)
    watch = common.Stopwatch()
    warm = draw(job.seed + 2000)
    row["warm"] = watch.read() | {"draws": common.save(job.out, "warm", warm)}
    return row


def reference(job) -> dict:
    """A long run, whose draws stand in for a reference."""
    model, arguments = MODELS[job.posterior], ARGUMENTS[job.posterior]
    data = arguments(pack.load_data(job.pack, job.posterior))
    draws = sampler("diag-4-single-f64", model, data, warmup=2000, draws=10000)(job.seed)
    return {"draws": common.save(job.out, "reference", draws)}


def trace(job) -> dict:
    """CPU seconds to go from the model to the jaxpr of its value and gradient, after imports."""
    numpyro.enable_x64()
    model, arguments = MODELS[job.posterior], ARGUMENTS[job.posterior]
    data = arguments(pack.load_data(job.pack, job.posterior))
    key = jax.random.key(job.seed)
    jax.jit(lambda x: x + 1.0)(1.0).block_until_ready()
    watch = common.Stopwatch()
    info = numpyro.infer.util.initialize_model(key, model, model_args=data)
    jax.make_jaxpr(jax.value_and_grad(info.potential_fn))(info.param_info.z)
    return {"trace": watch.read()}


if __name__ == "__main__":
    work = common.job()
    common.report({"speed": speed, "reference": reference, "trace": trace}[work.job](work))
