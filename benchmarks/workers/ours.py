"""Measure `infer` with its defaults: cold until so many effective draws, then warm, then tracing apart."""

from __future__ import annotations

import time

START = time.perf_counter()

import numpy as np  # noqa: E402

from benchmarks.posteriordb import pack  # noqa: E402
from benchmarks.posteriordb.programs import OF_INTEREST, PROGRAMS  # noqa: E402
from benchmarks.workers import common  # noqa: E402


def extract(fit, job) -> dict[str, np.ndarray]:
    """Draws of the compared variables."""
    reference = pack.load_reference(job.pack, job.posterior)
    wanted = {pack.base(key) for key in reference} if reference else set(OF_INTEREST[job.posterior])
    return {name: np.asarray(fit.values[name]) for name in sorted(wanted)}


def speed(job) -> dict:
    """Cold run to the target, a second call that compiles what is left, and the measured third."""
    from ppl.inference import ess, infer

    program = PROGRAMS[job.posterior](pack.load_data(job.pack, job.posterior))
    fit = infer(program, until=ess(job.target), seed=job.seed, progress=False)
    cold = extract(fit, job)
    row = {"cold": {"cpu": common.cpu_of_process(), "wall": time.perf_counter() - START}}
    row["cold"]["draws"] = common.save(job.out, "cold", cold)
    infer(program, seed=job.seed + 1000, progress=False)
    watch = common.Stopwatch()
    fit = infer(program, seed=job.seed + 2000, progress=False)
    warm = extract(fit, job)
    row["warm"] = watch.read() | {"draws": common.save(job.out, "warm", warm)}
    return row


def trace(job) -> dict:
    """CPU seconds to go from the program to the jaxpr of its value and gradient, after imports."""
    import jax
    import jax.numpy as jnp

    import ppl

    with jax.enable_x64(True):
        jax.jit(lambda x: x + 1.0)(jnp.zeros(3)).block_until_ready()
        program = PROGRAMS[job.posterior](pack.load_data(job.pack, job.posterior))
        watch = common.Stopwatch()
        density = ppl.compile(program)
        jax.make_jaxpr(jax.value_and_grad(lambda z, d: d(z)))(jnp.zeros(density.dim), density)
        return {"trace": watch.read()}


if __name__ == "__main__":
    arguments = common.job()
    common.report((speed if arguments.job == "speed" else trace)(arguments))
