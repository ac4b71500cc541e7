"""Measure NumPyro's NUTS. ``--config metric-chains-method-precision``, e.g. ``dense-4-parallel-f64``.

Four chains run 1000 + 1000 iterations, more chains 500 + 400. The cold run goes on in blocks of as many draws
until the smallest bulk ESS reaches the target; the warm run is a further call of the same sampler object with
another seed, warm-up included, so nothing is compiled again where NumPyro can avoid it.
"""

from __future__ import annotations

import time

START = time.perf_counter()

import jax  # noqa: E402
import numpy as np  # noqa: E402
import numpyro  # noqa: E402

from benchmarks.posteriordb import pack  # noqa: E402
from benchmarks.workers import common  # noqa: E402
from benchmarks.workers.numpyro_models import MODELS  # noqa: E402

INTERNAL = ("t", "r", "weights")  # latents that stand behind the compared quantities


def sampler(config: str, model, warmup: int | None = None, draws: int | None = None):
    """The MCMC object of a configuration."""
    metric, chains, method, precision = config.split("-")
    numpyro.enable_x64(precision == "f64")
    many = int(chains) > 4
    if method == "parallel":
        numpyro.set_host_device_count(int(chains))
    kernel = numpyro.infer.NUTS(model, dense_mass=metric == "dense")
    return numpyro.infer.MCMC(
        kernel,
        num_warmup=warmup or (500 if many else 1000),
        num_samples=draws or (400 if many else 1000),
        num_chains=int(chains),
        chain_method=method,
        progress_bar=False,
    )


def extract(mcmc) -> dict[str, np.ndarray]:
    """Draws of the compared variables, each (chains, draws, ...)."""
    samples = mcmc.get_samples(group_by_chain=True)
    return {name: np.asarray(value) for name, value in samples.items() if name not in INTERNAL}


def smallest_ess(diagnostics, draws: dict[str, np.ndarray]) -> float:
    """Smallest bulk ESS over all scalars."""
    flat = [value.reshape(*value.shape[:2], -1) for value in draws.values()]
    return float(np.min(diagnostics.ess_bulk(np.concatenate(flat, axis=-1))))


def speed(job) -> dict:
    """Cold to the target, then warm."""
    model, arguments = MODELS[job.posterior]
    data = arguments(pack.load_data(job.pack, job.posterior))
    mcmc = sampler(job.config, model)
    diagnostics = common.diagnostics()
    mcmc.run(jax.random.key(job.seed), *data)
    draws = extract(mcmc)
    while smallest_ess(diagnostics, draws) < job.target and common.cpu_of_process() < 600.0:
        mcmc.post_warmup_state = mcmc.last_state
        mcmc.run(mcmc.post_warmup_state.rng_key, *data)
        more = extract(mcmc)
        draws = {name: np.concatenate([value, more[name]], axis=1) for name, value in draws.items()}
    row = {"cold": {"cpu": common.cpu_of_process(), "wall": time.perf_counter() - START}}
    row["cold"]["draws"] = common.save(job.out, "cold", draws)
    mcmc.post_warmup_state = None
    watch = common.Stopwatch()
    mcmc.run(jax.random.key(job.seed + 2000), *data)
    warm = extract(mcmc)
    row["warm"] = watch.read() | {"draws": common.save(job.out, "warm", warm)}
    return row


def reference(job) -> dict:
    """A long run, whose draws stand in for a reference."""
    model, arguments = MODELS[job.posterior]
    mcmc = sampler("diag-4-parallel-f64", model, warmup=2000, draws=10000)
    mcmc.run(jax.random.key(job.seed), *arguments(pack.load_data(job.pack, job.posterior)))
    return {"draws": common.save(job.out, "reference", extract(mcmc))}


def trace(job) -> dict:
    """CPU seconds to go from the model to the jaxpr of its value and gradient, after imports."""
    numpyro.enable_x64()
    model, arguments = MODELS[job.posterior]
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
