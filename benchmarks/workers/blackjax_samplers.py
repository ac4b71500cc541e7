"""Measure BlackJAX on NumPyro's log densities. ``--config blackjax-sampler-chains-precision``.

Samplers: ``window`` and ``dense`` (NUTS with window adaptation of a diagonal or a dense metric), ``lowrank`` (NUTS,
low-rank window adaptation), ``chees`` (jittered HMC), ``meads`` (generalised HMC), ``mclmc`` (unadjusted microcanonical
Langevin). Warm-up, sampling and the constrained quantities are one jitted function of the key. NUTS and MCLMC run
chain by chain, so that no chain waits for another; ChEES and MEADS run theirs in lockstep, as they must.
"""

from __future__ import annotations

import time

START = time.perf_counter()

import blackjax  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import numpyro  # noqa: E402

from benchmarks.posteriordb import pack  # noqa: E402
from benchmarks.workers import common  # noqa: E402
from benchmarks.workers.arguments import ARGUMENTS  # noqa: E402
from benchmarks.workers.numpyro_models import MODELS  # noqa: E402

INTERNAL = ("t", "r", "weights")  # latents that stand behind the compared quantities

LENGTHS = {"chees": (500, 200), "meads": (1000, 1000), "mclmc": (2000, 5000)}


def target(posterior: str, data, key):
    """NumPyro's log density over dicts of unconstrained values, its constrained quantities, and one starting point."""
    model, arguments = MODELS[posterior], ARGUMENTS[posterior]
    info = numpyro.infer.util.initialize_model(key, model, model_args=arguments(data), dynamic_args=False)
    return (lambda z: -info.potential_fn(z)), info.postprocess_fn, info.param_info.z


def nuts(log_density, start, sampler: str):
    """One NUTS chain: (key) -> positions (draws, ...)."""
    if sampler == "lowrank":
        warmup = blackjax.window_adaptation_low_rank(blackjax.nuts, log_density)
    else:
        warmup = blackjax.window_adaptation(blackjax.nuts, log_density, is_mass_matrix_diagonal=sampler == "window")

    def chain(key):
        begin, adapt, sample = jax.random.split(key, 3)
        (state, parameters), _ = warmup.run(adapt, spread(begin, start), 1000)
        kernel = blackjax.nuts(log_density, **parameters)

        def step(state, key):
            state, _ = kernel.step(key, state)
            return state, state.position

        return jax.lax.scan(step, state, jax.random.split(sample, 1000))[1]

    return chain


def mclmc(log_density, start, _):
    """One chain of unadjusted microcanonical Langevin dynamics."""
    tuning, count = LENGTHS["mclmc"]

    def chain(key):
        begin, first, adapt, sample = jax.random.split(key, 4)
        state = blackjax.mcmc.mclmc.init(position=spread(begin, start), logdensity_fn=log_density, rng_key=first)

        kernel = blackjax.mcmc.mclmc.build_kernel(integrator=blackjax.mcmc.integrators.isokinetic_mclachlan)
        state, parameters, _ = blackjax.mclmc_find_L_and_step_size(
            mclmc_kernel=kernel, num_steps=tuning, state=state, rng_key=adapt, logdensity_fn=log_density
        )
        algorithm = blackjax.mclmc(
            log_density, L=parameters.L, step_size=parameters.step_size,
            inverse_mass_matrix=parameters.inverse_mass_matrix,
        )  # fmt: skip

        def step(state, key):
            state, _ = algorithm.step(key, state)
            return state, state.position

        return jax.lax.scan(step, state, jax.random.split(sample, count))[1]

    return chain


def chees(log_density, start, chains: int):
    """All chains: (key) -> positions (chains, draws, ...)."""
    import optax

    tuning, count = LENGTHS["chees"]
    warmup = blackjax.chees_adaptation(log_density, chains)

    def run(key):
        begin, adapt, sample = jax.random.split(key, 3)
        positions = jax.vmap(lambda k: spread(k, start))(jax.random.split(begin, chains))
        (states, parameters), _ = warmup.run(adapt, positions, 0.1, optax.adam(0.025), tuning)
        kernel = jax.vmap(blackjax.dynamic_hmc(log_density, **parameters).step)

        def step(states, key):
            states, _ = kernel(jax.random.split(key, chains), states)
            return states, states.position

        draws = jax.lax.scan(step, states, jax.random.split(sample, count))[1]
        return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), draws)

    return run


def meads(log_density, start, chains: int):
    """All chains, as ``chees``."""
    tuning, count = LENGTHS["meads"]
    warmup = blackjax.meads_adaptation(log_density, chains)

    def run(key):
        begin, adapt, sample = jax.random.split(key, 3)
        positions = jax.vmap(lambda k: spread(k, start))(jax.random.split(begin, chains))
        (states, parameters), _ = warmup.run(adapt, positions, tuning)
        kernel = jax.vmap(blackjax.ghmc(log_density, **parameters).step)

        def step(states, key):
            states, _ = kernel(jax.random.split(key, chains), states)
            return states, states.position

        draws = jax.lax.scan(step, states, jax.random.split(sample, count))[1]
        return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), draws)

    return run


def spread(key, start):
    """A starting point of U(-2, 2), as NumPyro's."""
    leaves, treedef = jax.tree.flatten(start)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.uniform(k, x.shape, x.dtype, -2.0, 2.0) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(treedef, drawn)


def sampler(config: str, posterior: str, data):
    """The function seed -> draws of the compared variables, each (chains, draws, ...)."""
    _, kind, count, precision = config.split("-")
    chains = int(count)
    numpyro.enable_x64(precision == "f64")
    log_density, constrain, start = target(posterior, data, jax.random.key(0))
    together = kind in ("chees", "meads")
    build = {"chees": chees, "meads": meads, "mclmc": mclmc}.get(kind, nuts)
    raw = build(log_density, start, chains if together else kind)

    @jax.jit
    def run(key):
        draws = raw(key)
        each = jax.vmap(jax.vmap(constrain)) if together else jax.vmap(constrain)
        return each(draws)

    def draw(seed: int) -> dict[str, np.ndarray]:
        key = jax.random.key(seed)
        if together:
            found = jax.device_get(run(key))
        else:
            parts = [jax.device_get(run(k)) for k in jax.random.split(key, chains)]
            found = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        return {name: value for name, value in found.items() if name not in INTERNAL}

    return draw


def speed(job) -> dict:
    """Cold to the target, then warm."""
    draw = sampler(job.config, job.posterior, pack.load_data(job.pack, job.posterior))
    diagnostics = common.diagnostics()
    draws, sets = draw(job.seed), 1
    while not common.smallest_ess(diagnostics, draws) >= job.target and common.cpu_of_process() < 600.0 and sets < 20:
        more, sets = draw(job.seed + 100000 * sets), sets + 1
        draws = {name: np.concatenate([value, more[name]]) for name, value in draws.items()}
    row = {"cold": {"cpu": common.cpu_of_process(), "wall": time.perf_counter() - START}}
    row["cold"]["draws"] = common.save(job.out, "cold", draws)
    watch = common.Stopwatch()
    warm = draw(job.seed + 2000)
    row["warm"] = watch.read() | {"draws": common.save(job.out, "warm", warm)}
    return row


if __name__ == "__main__":
    common.report(speed(common.job()))
