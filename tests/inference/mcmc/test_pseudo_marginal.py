"""Estimates in place of the density leave the answer exact, because they are kept with their keys.

Statistical tests compare means over independent chains with |z| < 4.5, so a correct kernel fails one of them with
probability below 1e-5 for each number compared.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import infer, mcmc
from ppl.inference.core import as_density, as_stochastic
from ppl.inference.mcmc import (
    HMC,
    MALA,
    Block,
    Chains,
    Cycle,
    Mixture,
    PseudoMarginal,
    RandomWalk,
    Slice,
    composite,
    pseudo_marginal,
)

COVARIANCE = np.array([[1.0, 0.6], [0.6, 1.0]])
PRECISION = np.linalg.inv(COVARIANCE)


def noise_of(key, z):
    """Log of a weight with mean one whose spread depends on the position."""
    spread = 0.6 + 0.9 * jax.nn.sigmoid(jnp.sum(z))
    return spread * jax.random.normal(key) - 0.5 * spread**2


def normal(key, z):
    return -0.5 * z @ z + noise_of(key, z)


def pair(key, z):
    return -0.5 * z @ PRECISION @ z + noise_of(key, z)


def draws(kernel, density, dim, chains=2000, burn=150, steps=250, seed=0):
    """Positions (chains, steps, dim) of independent chains."""

    @jax.jit
    def run(keys):
        def one(key):
            state = kernel.init(jax.random.normal(jax.random.fold_in(key, 0), (dim,)), density)

            def move(state, i):
                state, _ = kernel.step(jax.random.fold_in(key, i), state, density)
                return state, state.position

            return jax.lax.scan(move, state, jnp.arange(1, burn + steps + 1))[1][burn:]

        return jax.vmap(one)(keys)

    return np.asarray(run(jax.random.split(jax.random.key(seed, impl="threefry2x32"), chains)))


def errors(found, covariance):
    """Standardised errors of means and second moments, by independent chains."""
    dim = found.shape[-1]
    products = found[..., :, None] * found[..., None, :]
    rows = np.concatenate([found.mean(1), products.mean(1).reshape(len(found), -1)], axis=1)
    truth = np.concatenate([np.zeros(dim), np.ravel(covariance)])
    return (rows.mean(0) - truth) / (rows.std(0, ddof=1) / np.sqrt(len(rows)))


def test_the_variance_of_a_normal_is_one():
    found = draws(PseudoMarginal(RandomWalk(2.0)), as_stochastic(normal, 1), 1)
    assert np.all(np.abs(errors(found, np.eye(1))) < 4.5), (found.mean(), found.var())


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "kernel",
    [
        pytest.param(MALA(1.0), marks=SLOW),
        pytest.param(HMC(0.5, steps=3), marks=SLOW),
        pytest.param(Slice(2.0), marks=SLOW),
    ],
    ids=["mala", "hmc", "slice"],
)
def test_kernels_that_look_at_several_points_or_at_gradients_are_exact_too(kernel):
    found = draws(PseudoMarginal(kernel), as_stochastic(normal, 1), 1, chains=1000)
    assert np.all(np.abs(errors(found, np.eye(1))) < 4.5), (found.mean(), found.var())


COMPOSED = {
    "cycle": Cycle(Block([0], PseudoMarginal(RandomWalk(1.5))), Block([1], HMC(0.5, steps=3))),
    "two of them": Cycle(Block([0], PseudoMarginal(RandomWalk(1.5))), Block([1], PseudoMarginal(RandomWalk(1.5)))),
    "around a cycle": Cycle(PseudoMarginal(RandomWalk(1.0)), Cycle(Block([1], RandomWalk(1.0)))),
    "mixture": Mixture((Block([0], PseudoMarginal(RandomWalk(1.5))), Block([1], Slice(1.0))), (0.7, 0.3)),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "cycle" else SLOW) for n in COMPOSED])
def test_others_of_a_cycle_move_with_the_key_held(name):
    found = draws(COMPOSED[name], as_stochastic(pair, 2), 2, chains=1000)
    assert np.all(np.abs(errors(found, COVARIANCE)) < 4.5), (found.mean((0, 1)), np.cov(found.reshape(-1, 2).T))


@pytest.mark.parametrize(
    "kernel",
    [PseudoMarginal(RandomWalk(2.0)), pytest.param(PseudoMarginal(HMC(0.5, steps=2)), marks=SLOW), COMPOSED["cycle"]],
)
def test_the_estimate_of_a_state_is_that_of_its_key(kernel):
    density = as_stochastic(pair, 2)
    state, kept = kernel.init(jnp.ones(2), density), 0
    step = jax.jit(lambda key, state: kernel.step(key, state, density)[0])
    for i in range(60):
        new = step(jax.random.key(i), state)
        np.testing.assert_allclose(new.log_density, density(composite.wrapped(new.noise), new.position), rtol=1e-12)
        if bool(jnp.all(new.position == state.position)):
            same = bool(jnp.all(new.noise == state.noise))
            kept += same
            assert same or float(new.log_density) != float(state.log_density)
        state = new
    assert kept > 0 or not isinstance(kernel, PseudoMarginal)


# ---------------------------------------------------------------------------------------------- mutants


def test_estimating_anew_at_the_present_point_is_caught(monkeypatch):
    right = PseudoMarginal.step

    def anew(self, key, state, density):
        noise = jax.random.key_data(jax.random.fold_in(key, 7))
        return right(self, key, self.resume(state, state.position, density, noise), density)

    monkeypatch.setattr(PseudoMarginal, "step", anew)
    found = draws(PseudoMarginal(RandomWalk(2.0)), as_stochastic(lambda k, z: normal(k, z), 1), 1)
    assert np.abs(errors(found, np.eye(1))).max() > 15
    assert abs(found.var() - 1.0) > 0.1


@SLOW
def test_estimating_anew_in_a_cycle_is_caught(monkeypatch):
    right = pseudo_marginal.PseudoMarginal.resume

    def anew(self, state, position, density, noise):
        bits = jax.lax.bitcast_convert_type(jnp.sum(position).astype(jnp.float32), jnp.uint32)
        return right(self, state, position, density, noise + bits)

    monkeypatch.setattr(pseudo_marginal.PseudoMarginal, "resume", anew)
    found = draws(COMPOSED["cycle"], as_stochastic(lambda k, z: pair(k, z), 2), 2, chains=1000)
    assert np.abs(errors(found, COVARIANCE)).max() > 10


@SLOW
def test_a_key_that_outlives_the_rejection_of_its_estimate_is_caught(monkeypatch):
    """The accepted estimate is kept, but the cycle's other blocks see the key of the rejected one."""
    monkeypatch.setattr(pseudo_marginal, "differs", lambda new, old: jnp.ones((), bool))
    found = draws(COMPOSED["cycle"], as_stochastic(lambda k, z: pair(k, z), 2), 2, chains=1000)
    assert np.abs(errors(found, COVARIANCE)).max() > 10


# ---------------------------------------------------------------------------------------------- running


def test_infer_takes_an_estimate_and_adapts():
    target = as_stochastic(lambda key, z: -0.5 * jnp.sum((z / 10.0) ** 2) + 0.2 * jax.random.normal(key) - 0.02, 2)
    engine = Chains(PseudoMarginal(RandomWalk()), chains=4, warmup=500, draws=2000)
    fit = infer(target, engine, seed=1, progress=False)
    z = np.asarray(fit.values["z"])
    assert abs(z.std() - 10.0) < 1.5 and abs(z.mean()) < 2.0
    assert 0.15 < float(fit.sample_stats["acceptance_rate"].mean()) < 0.4
    assert float(fit.sample_stats["step_size"].mean()) > 0.5


def test_what_is_no_estimate_of_a_density_is_refused():
    with pytest.raises(TypeError, match="as_stochastic"):
        PseudoMarginal(RandomWalk()).init(jnp.zeros(1), as_density(lambda z: -z @ z, 1))
    with pytest.raises(TypeError, match="PseudoMarginal"):
        infer(as_stochastic(normal, 1), mcmc.NUTS(), progress=False)
    with pytest.raises(TypeError, match="PseudoMarginal"):
        infer(as_stochastic(normal, 1), progress=False)

    @ppl.model
    def rows(x):
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        ppl.plate("row", lambda v: ppl.factor("f", -((v - mu) ** 2)), x, subsample=2)

    with pytest.raises(TypeError, match="unbiased estimate of the logarithm"):
        PseudoMarginal(RandomWalk()).init(jnp.zeros(1), ppl.compile(rows(np.zeros(8))))
