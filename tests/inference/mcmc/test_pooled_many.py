"""Hundreds of short chains: superchains with one starting point each, judged by nested R-hat."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import digamma

from ppl.inference import diagnostics
from ppl.inference.core import as_density
from ppl.inference.mcmc import PooledHMC
from ppl.inference.mcmc.batch_moments import BatchMoments
from ppl.inference.mcmc.pooled_host import in_groups


def sample(engine, target, seed=0, init=None):
    carry, blocks, done = engine.start(seed, target, init), [], False
    while not done:
        carry, part, done = engine.advance(carry, target, 20)
        blocks.append(part)
    return engine.finish(carry, blocks, target)


skewed = as_density(lambda z: jnp.sum(0.7 * z - jnp.exp(z)), 2)


def test_short_chains_pass_where_plain_r_hat_cannot():
    """E z = digamma(0.7); |error| < 4.5 standard errors: a correct sampler fails with probability below 2e-5."""
    engine = PooledHMC(chains=256, draws=40, max_draws=200)
    assert any("16 superchains of 16 chains" in line for line in engine.plan(skewed))
    draws = sample(engine, skewed, seed=1)
    z = draws.positions
    assert z.shape[1] == 40 and draws.info["split_rhat"] < 1.007 and max(draws.info["nested_rhat"]) < 1.007
    assert diagnostics.rhat(z).max() > 1.007
    error = (z.mean(axis=(0, 1)) - float(digamma(0.7))) / diagnostics.mcse_mean(z)
    assert np.abs(error).max() < 4.5


def test_nested_r_hat_sees_modes_that_chains_do_not_leave():
    target = as_density(lambda z: jnp.logaddexp(-0.5 * (z[0] + 15) ** 2, -0.5 * (z[0] - 15) ** 2), 1)
    draws = sample(PooledHMC(chains=96, draws=30, max_draws=45), target, seed=2)
    assert draws.positions.shape[1] == 45 and draws.info["split_rhat"] > 1.5 and max(draws.info["nested_rhat"]) > 1.5
    signs = np.sign(draws.positions[:, 0, 0]).reshape(16, 6)
    assert (signs == signs[:, :1]).all()  # chains of a superchain start at one point
    assert {r["chains"] for r in draws.info["regions"]} == {int((signs > 0).sum()), int((signs < 0).sum())}


def test_starting_points_that_are_given_are_kept():
    init = np.random.default_rng(0).normal(size=(80, 2)) - 1.0
    engine = PooledHMC(draws=10, max_draws=10)
    carry = engine.start(0, skewed, init)
    carry, _, _ = engine.advance(carry, skewed, 10)
    np.testing.assert_array_equal(carry.state[:, :2], init)


def test_a_number_without_divisors_is_judged_by_plain_r_hat():
    engine = PooledHMC(chains=67, draws=20, max_draws=20)
    assert engine.superchains is None and replace(engine, chains=66).superchains == 11
    assert "superchains" not in sample(engine, skewed).info


def test_moments_give_the_nested_r_hat_of_halves():
    z = np.random.default_rng(3).normal(size=(40, 96, 3)) + np.linspace(0, 0.3, 96)[:, None]
    moments = BatchMoments.empty(np.zeros(3), 96).add(z)
    chains = np.concatenate([z[:20], z[20:]], axis=1).swapaxes(0, 1)
    expected = [diagnostics.rhat_nested(x, 32) for x in (chains, np.abs(chains))]
    np.testing.assert_allclose(moments.rhats(16), expected, rtol=1e-10)
    assert moments.rhat(16) == np.max(expected)


def test_groups_evaluate_one_position_each():
    seen = []

    def evaluate(z):
        seen.append(z)
        return z[:, 0], 2.0 * z

    log_density, gradients = in_groups(evaluate, 3)(np.arange(4.0).reshape(2, 2))
    np.testing.assert_array_equal(log_density, [0.0, 2.0])
    np.testing.assert_array_equal(gradients, [[0.0, 2.0], [4.0, 6.0]])
    assert seen[0].shape == (6, 2) and in_groups(evaluate, 1) is evaluate
