"""Pooled HMC in coordinates that warm-up learns: exact laws, and that all that leaves the engine is in the model's own.

With |z| < 4.5 and fewer than 100 comparisons the chance that a correct sampler fails one of the statistical tests on a
fresh seed is below 0.001.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import checkpoint, diagnostics, infer
from ppl.inference.adapt import kinds
from ppl.inference.adapt.fisher import Metric
from ppl.inference.mcmc import PooledHMC
from ppl.inference.mcmc.pooled_block import Lanes, Rows, quick_block
from ppl.inference.mcmc.pooled_coordinates import Coordinates, moved_metric, relearn
from ppl.models.eight_schools import eight_schools

Y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SIGMA = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Moved:
    """Schools in x: mu, log tau, x."""

    y: Any
    k: Any
    t: Any

    def __call__(self, x):
        mu, log_tau, tau = x[0], x[1], jnp.exp(x[1])
        q = 1.0 + self.k * tau**2
        e = x[2:] / jnp.sqrt(q) + self.k * tau / q * (self.t - mu)
        prior = -0.5 * (mu / 5.0) ** 2 - jnp.log1p((tau / 5.0) ** 2) + log_tau - 0.5 * jnp.sum(e**2 + jnp.log(q))
        return prior - 0.5 * jnp.sum(((self.y - mu - tau * e) / SIGMA.astype(x.dtype)) ** 2)


@dataclass(frozen=True)
class Effects:
    """What a density that is no program says about its effects (``core.Movable``)."""

    y: Any

    columns = np.arange(2, 10)
    standard = np.zeros(8, bool)
    levels = groups = np.zeros(8, int)
    information = np.ones(8)
    names = ("theta",)

    def at(self, k, t):
        return Moved(self.y, k, t)

    def places(self, positions):
        one = np.ones((len(positions), 8))
        return positions[:, :1] * one, np.exp(positions[:, 1:2]) * one

    def described(self, k, t):
        return {"theta": {"k": k.tolist(), "t": t.tolist()}}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Centred:
    """Centred eight schools: mu, log tau, theta; written without the language."""

    y: Any

    dim = 10
    work = 60

    def __call__(self, z):
        mu, log_tau, tau = z[0], z[1], jnp.exp(z[1])
        prior = -0.5 * (mu / 5.0) ** 2 - jnp.log1p((tau / 5.0) ** 2) + log_tau
        prior += jnp.sum(-0.5 * ((z[2:] - mu) / tau) ** 2 - log_tau)
        return prior - 0.5 * jnp.sum(((self.y - z[2:]) / SIGMA.astype(z.dtype)) ** 2)

    @property
    def movable(self):
        return Effects(self.y)


def schools_by_quadrature():
    """Exact E mu, E log tau and E theta_j: given tau the schools are independent Gaussians and mu integrates out."""
    u = np.linspace(-12.0, 7.0, 20_001)
    variance = SIGMA**2 + np.exp(2 * u)[:, None]
    precision = np.sum(1 / variance, axis=1) + 1 / 25
    mean = np.sum(Y / variance, axis=1) / precision
    log_weight = u - np.log1p(np.exp(2 * u) / 25) - 0.5 * np.sum(np.log(variance), axis=1) - 0.5 * np.log(precision)
    log_weight += 0.5 * precision * mean**2 - 0.5 * np.sum(Y**2 / variance, axis=1)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    share = np.exp(2 * u)[:, None] / variance
    return np.array([weight @ mean, weight @ u, *(weight @ (share * Y + (1 - share) * mean[:, None]))])


def run(engine, target, seed=0, n=1000, init=None, store=False):
    carry, blocks, done = engine.start(seed, target, init), [], False
    while not done:
        if store:
            carry = checkpoint.unpack(*checkpoint.pack(carry))
        carry, block, done = engine.advance(carry, target, n)
        blocks.append(block)
    return engine.finish(carry, blocks, target), carry


def agree(draws, mean, limit=4.5):
    error = np.abs(draws.mean(axis=(0, 1)) - mean) / diagnostics.mcse_mean(draws)
    assert (error < limit).all(), error


def test_centred_eight_schools_by_default():
    """Without learned coordinates split R-hat stays near 1.01 after 3000 draws and a hundred times the gradients."""
    target = Centred(Y)
    for seed in range(3):
        draws, carry = run(PooledHMC(chains=16), target, seed)
        z = draws.positions
        agree(z, schools_by_quadrature())
        assert diagnostics.rhat_rank(z).max() < 1.01
        assert diagnostics.ess_bulk(z).min() / (16 * carry.leapfrogs) > 0.07
        assert z.shape[1] <= 900 and carry.divergences <= 2
    lp = jax.vmap(jax.vmap(target))(z[:2, :5])
    np.testing.assert_allclose(draws.stats["lp"][:2, :5], lp, rtol=1e-8)
    lp = jax.vmap(jax.vmap(target))(draws.warmup_positions[:2])
    np.testing.assert_allclose(draws.warmup_stats["lp"][:2], lp, rtol=1e-6)
    learned = draws.info["coordinates"]["theta"]
    np.testing.assert_array_equal(np.array([learned["k"], learned["t"]]), carry.coordinates)
    assert "theta: learned between centred and non-centred" in draws.info["plan"]


def test_the_same_program_by_default():
    """A program that is written centred needs no hint."""
    fit = infer(eight_schools(SIGMA).condition(y=Y), seed=1)
    z = fit.draws.positions
    assert diagnostics.rhat_rank(z).max() < 1.01 and "theta: learned" in " ".join(fit.draws.info["plan"])
    assert not fit.warnings()
    exact = schools_by_quadrature()
    names = list(fit.density.layout)
    assert names == ["mu", "tau", "theta"]
    agree(z, exact)


def test_the_funnel_by_default():
    @ppl.model
    def funnel():
        v = ppl.sample("v", dist.Normal(0.0, 3.0))
        ppl.plate("i", lambda _: ppl.sample("x", dist.Normal(0.0, jnp.exp(v / 2))), 9)

    with jax.enable_x64(True):
        density = ppl.compile(funnel())
        for seed in range(3):
            draws, carry = run(PooledHMC(chains=16), density, seed)
            z = draws.positions
            assert diagnostics.rhat_rank(z).max() < 1.01 and carry.divergences == 0
            assert diagnostics.ess_bulk(z).min() / (16 * carry.leapfrogs) > 0.2
            v, tails = z[..., :1], np.concatenate([np.sign(z[..., 1:]), np.sign(z[..., :1] - 2.0234)], axis=2)
            agree(np.concatenate([v, v**2, tails], axis=2), [0.0, 9.0, *np.zeros(9), -0.5])  # P(v > 2.0234) = 1/4


@pytest.mark.parametrize("n", [7, 33])
def test_draws_depend_neither_on_the_size_of_the_blocks_nor_on_checkpoints(n):
    with jax.enable_x64(True):
        density = ppl.compile(eight_schools(SIGMA).condition(y=Y))
        engine = PooledHMC(chains=4, draws=60, max_draws=60)
        whole, carry = run(engine, density, 10)
        parts, again = run(engine, density, 10, n, store=True)
    assert carry.coordinates.any()
    np.testing.assert_array_equal(again.coordinates, carry.coordinates)
    np.testing.assert_array_equal(parts.positions, whole.positions)
    np.testing.assert_array_equal(parts.warmup_positions, whole.warmup_positions)
    for name, value in whole.stats.items():
        np.testing.assert_array_equal(parts.stats[name], value)


def test_off_on_request():
    target = Centred(Y)
    draws, carry = run(PooledHMC(chains=4, draws=20, max_draws=20, reparameterize=False), target)
    assert carry.coordinates is None and "coordinates" not in draws.info
    assert not any("learned" in line for line in draws.info["plan"])


def test_positions_that_a_user_gives_are_in_the_models_coordinates():
    target, engine = Centred(Y), PooledHMC(chains=4)
    init = np.random.default_rng(0).normal(size=(4, 10))
    carry = engine.start(0, target, init)
    carry, block, _ = engine.advance(carry, target, 10)
    here = Coordinates(target.movable, carry.coordinates, 4)
    stayed = here.base(carry.state[None, :, :10])[0][0]
    np.testing.assert_allclose(stayed, init, rtol=1e-12)
    assert len(block.metrics["inadmissible"]) == 0


def window(engine, target, seed):
    """A finished first window, before anything is learned from it, with the coordinates and lanes of its draws."""
    carry, _, _ = engine.advance(engine.start(seed, target), target, 10)
    here = Coordinates(target.movable, carry.coordinates, engine.chains)
    lanes = Lanes(here.density(), 1, 1, True)
    carry, rows, _ = engine._trajectories(carry, lanes, 10, here)
    return replace(carry, rows=rows.values), here, lanes


def test_going_over_keeps_positions_and_computes_the_rest_anew():
    target, engine = Centred(3.0 * Y), PooledHMC(chains=16)
    with jax.enable_x64(True):
        before, here, lanes = window(engine, target, 3)
        after = relearn(before, here, lanes)
        there = Coordinates(target.movable, after.coordinates, 16)
        assert after.coordinates.any() and not before.coordinates.any()
        old, new = Rows(before.rows[3:], 10), Rows(after.rows[3:], 10)
        np.testing.assert_allclose(there.base(new.positions)[0], here.base(old.positions)[0], rtol=1e-9, atol=1e-9)
        value, slope = jax.vmap(jax.vmap(jax.value_and_grad(there.density())))(new.positions)
        np.testing.assert_allclose(new.log_density, value, rtol=1e-10)
        np.testing.assert_allclose(new.gradients, slope, rtol=1e-8, atol=1e-8)
        np.testing.assert_array_equal(after.state, after.rows[-1, :, :21])
        np.testing.assert_array_equal(after.rows[..., 21:], before.rows[..., 21:])
    assert after.leapfrogs == before.leapfrogs + 8


def test_the_metric_goes_over_by_the_jacobian():
    target = Centred(Y)
    rng = np.random.default_rng(0)
    here = Coordinates(target.movable, np.stack([rng.uniform(0, 0.1, 8), rng.normal(size=8)]), 4)
    there = Coordinates(target.movable, np.stack([rng.uniform(0, 0.3, 8), rng.normal(size=8)]), 4)
    positions = 0.3 * rng.normal(size=(500, 10))

    def change(x):
        def places(z):
            return z[0], jnp.exp(z[1])

        (m, s), (k, t), (k1, t1) = places(x), here.values, there.values
        q, q1 = 1 + k * s**2, 1 + k1 * s**2
        e = x[2:] / jnp.sqrt(q) + k * s / q * (t - m)
        return jnp.concatenate([x[:2], jnp.sqrt(q1) * (e - k1 * s / q1 * (t1 - m))])

    with jax.enable_x64(True):
        jacobian = np.asarray(jax.jacfwd(change)(positions.mean(axis=0)))
        factor = rng.normal(size=(10, 10))
        moved = moved_metric(Metric(factor, np.linalg.inv(factor)), here, there, positions)
        np.testing.assert_allclose(moved.factor, jacobian @ factor, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(moved.factor @ moved.inverse, np.eye(10), atol=1e-9)
        for kind in (kinds.DIAGONAL, kinds.LOW_RANK):
            moved = moved_metric(kinds.unit(kind, 10, 2), here, there, positions)
            covariance = moved.covariance() if kind == kinds.DIAGONAL else np.diag(moved.covariance())
            np.testing.assert_allclose(np.sqrt(covariance), np.diag(jacobian), rtol=1e-10)


def test_learning_compiles_nothing():
    target, engine = Centred(Y), PooledHMC(chains=16, draws=20, max_draws=20)
    with jax.enable_x64(True):
        run(engine, target, 0)
        program = quick_block.compiled("cpu")
        size = program._cache_size()
        _, carry = run(engine, Centred(Y + 1.0), 1)
    assert carry.coordinates.any() and program._cache_size() == size


def test_float32():
    with jax.enable_x64(False):
        draws, _ = run(PooledHMC(chains=16), Centred(Y.astype(np.float32)), 4)
    assert draws.positions.dtype == np.float32
    agree(draws.positions.astype(np.float64), schools_by_quadrature())
    assert diagnostics.rhat_rank(draws.positions).max() < 1.015
