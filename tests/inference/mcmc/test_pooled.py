"""Pooled HMC: its draws against exact laws, and its bookkeeping.

The statistical tests are seeded; with |z| < 4.5 and fewer than 100 comparisons the chance that a correct sampler
fails one of them on a fresh seed is below 0.001.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import digamma, polygamma

from ppl.inference import diagnostics
from ppl.inference.core import as_density
from ppl.inference.mcmc import PooledHMC
from ppl.inference.mcmc.pooled_block import quick_block
from ppl.inference.mcmc.start import StartError


def sample(engine, target, seed=0, n=100, init=None):
    carry, blocks, done = engine.start(seed, target, init), [], False
    while not done:
        carry, part, done = engine.advance(carry, target, n)
        blocks.append(part)
    return engine.finish(carry, blocks, target)


def agree(draws, mean, limit=4.5):
    """Compare means of columns of shape (chains, draws, k) with their exact values."""
    error = np.abs(draws.mean(axis=(0, 1)) - mean) / diagnostics.mcse_mean(draws)
    assert (error < limit).all(), error


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Gaussian:
    """N(mean, precision^-1), a density with data."""

    mean: Any
    precision: Any

    @property
    def dim(self):
        return len(self.mean)

    def __call__(self, z):
        r = z - self.mean
        return -0.5 * r @ self.precision @ r


def anisotropic():
    """Scales from 0.01 to 100 and a correlation of 0.95."""
    scale = np.array([1e-2, 1.0, 1e2])
    correlation = np.array([[1.0, 0.95, 0.3], [0.95, 1.0, 0.3], [0.3, 0.3, 1.0]])
    covariance = correlation * np.outer(scale, scale)
    return Gaussian(np.array([1.0, -2.0, 30.0]), np.linalg.inv(covariance)), covariance


def quartic(z):
    return -0.5 * jnp.sum(z * z * jnp.array([1.0, 4.0])) - 0.1 * jnp.sum(z) ** 4


# --- exact laws ------------------------------------------------------------------------------------------------


def test_anisotropic_gaussian():
    target, covariance = anisotropic()
    draws = sample(PooledHMC(draws=600, max_draws=600), target, seed=1)
    assert draws.positions.shape == (16, 600, 3) and draws.info["finished"]
    u = (draws.positions - target.mean) @ np.linalg.cholesky(target.precision)
    agree(u, 0.0)
    agree(np.stack([u[..., i] * u[..., j] for i in range(3) for j in range(i + 1)], axis=2), [1, 0, 1, 0, 0, 1])
    assert diagnostics.ess_mean(draws.positions).min() > 5000  # the learned metric makes it an easy target
    assert abs(draws.stats["acceptance_rate"].mean() - 0.9) < 0.07


def test_energies_hold_a_kinetic_energy_of_half_a_unit_per_dimension():
    """The momentum at the end of a trajectory is distributed as at its start: E K = d / 2."""
    target, _ = anisotropic()
    draws = sample(PooledHMC(draws=600, max_draws=600, target_accept=0.6), target, seed=2)
    kinetic = draws.stats["energy"] + draws.stats["lp"]
    assert (kinetic > -1e-9).all() and draws.stats["acceptance_rate"].mean() > 0.4
    agree(kinetic[..., None], 1.5)


def test_log_gamma_is_skewed():
    shape = 0.7
    draws = sample(
        PooledHMC(draws=1000, max_draws=1000), as_density(lambda z: jnp.sum(shape * z - jnp.exp(z)), 2), seed=3
    )
    mean, variance = float(digamma(shape)), float(polygamma(1, shape))
    agree(draws.positions, mean)
    agree((draws.positions - mean) ** 2, variance)
    agree(np.exp(draws.positions), shape)


def test_student_t_tails():
    """With 3 degrees of freedom: mean 0, and probabilities of tails that the draws' own quantiles must meet."""
    target = as_density(lambda z: -2.0 * jnp.sum(jnp.log1p(z * z / 3.0)), 2)
    z = sample(PooledHMC(draws=1500, max_draws=1500), target, seed=4).positions
    for quantile, tail in ((0.7648923, 0.5), (2.3533634, 0.1), (5.8409093, 0.01)):
        agree((np.abs(z) > quantile).astype(float), tail)


def test_banana():
    target = as_density(lambda z: -0.5 * z[0] ** 2 - 0.5 * ((z[1] - z[0] ** 2) / 0.5) ** 2, 2)
    z = sample(PooledHMC(draws=2000, max_draws=2000), target, seed=5).positions
    x, y = z[..., 0], z[..., 1]
    agree(np.stack([x, y, x * x, (y - 1) ** 2, (y - x * x) ** 2], axis=2), [0, 1, 1, 2.25, 0.25])


@pytest.mark.parametrize("dim", [1, 2])
def test_small_dimensions_and_a_scale_of_a_thousandth(dim):
    """From U(-2, 2) the log density is -2e6; the start must get down to a scale of 1e-3."""
    target = Gaussian(np.full(dim, 0.5), np.eye(dim) * 1e6)
    draws = sample(PooledHMC(draws=300, max_draws=300), target, seed=6)
    agree((draws.positions - 0.5) * 1e3, 0.0)
    agree(((draws.positions - 0.5) * 1e3) ** 2, 1.0)


def test_a_wall_and_a_gradient_that_is_not_a_number():
    """An exponential with density zero below 0, whose gradient is NaN beyond 3: draws stay between."""

    def density(z):
        x = z[0]
        poison = jnp.where(x > 3.0, jnp.sqrt(jnp.maximum(3.0 - x, 0.0)), 0.0)
        return jnp.where(x < 0.0, -jnp.inf, -x) + poison

    draws = sample(PooledHMC(draws=1500, max_draws=1500), as_density(density, 1), seed=7)
    x = draws.positions
    assert x.min() >= 0 and x.max() <= 3
    agree(x, 1 - 3 / np.expm1(3.0))
    assert draws.info["divergences"] == draws.stats["diverging"].sum() > 0
    assert (draws.stats["acceptance_rate"][draws.stats["diverging"]] == 0).all()


def test_plus_infinity_is_never_accepted():
    """A spike of +inf on 0.2 < x < 0.4 would hold every chain for ever; the rest of the Gaussian is sampled."""
    target = as_density(lambda z: jnp.where(jnp.abs(z[0] - 0.3) < 0.1, jnp.inf, -0.5 * z[0] ** 2), 1)
    draws = sample(PooledHMC(draws=300, max_draws=300), target, seed=21)
    assert np.isfinite(draws.stats["lp"]).all() and not (np.abs(draws.positions - 0.3) < 0.1).any()
    assert draws.info["divergences"] > 0


def modes(gap):
    """Two unit Gaussians at -1.5 and 1.5 times ten, the right one lower by ``gap`` nats."""
    return as_density(lambda z: jnp.logaddexp(-0.5 * (z[0] + 15) ** 2, -gap - 0.5 * (z[0] - 15) ** 2), 1)


def test_low_modes_are_left_in_warm_up_and_kept_on_request():
    init = np.where(np.arange(16) < 10, 15.0, -15.0)[:, None] + np.linspace(-1, 1, 16)[:, None]
    engine = PooledHMC(draws=50, max_draws=50)
    left = sample(engine, modes(100.0), seed=8, init=init)
    assert (left.positions < 0).all() and left.info["restarts"] >= 10
    assert any("stuck chains restarted" in line for line in left.info["log"])
    kept = sample(replace(engine, restart=False), modes(100.0), seed=8, init=init)
    assert (np.sign(kept.positions[:, :, 0]) == np.sign(init)).all() and kept.info["restarts"] == 0
    similar = sample(engine, modes(1.0), seed=8, init=init)  # a gap below 30 + 2 d: nobody is moved
    assert (np.sign(similar.positions[:, :, 0]) == np.sign(init)).all() and similar.info["restarts"] == 0
    assert similar.info["split_rhat"] > 1.5 and not kept.info["split_rhat"] < 1.5


def test_a_funnel_is_reported():
    def density(z):
        return -(z[0] ** 2) / 18 - 0.5 * jnp.sum(z[1:] ** 2) * jnp.exp(-z[0]) - 4.5 * z[0]

    draws = sample(PooledHMC(draws=100, max_draws=150), as_density(density, 10), seed=22)
    advice = " ".join(draws.info["warnings"])
    assert "z[0] acts as a log scale of 9 coordinates (z[1], z[2], z[3], ...)" in advice
    assert "not converged" in advice


# --- bookkeeping -----------------------------------------------------------------------------------------------

EIGHT = dict(
    y=np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
    sigma=np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EightSchools:
    """Non-centred eight schools: mu, log tau, eta."""

    y: Any
    sigma: Any

    dim = 10
    work = 60

    def __call__(self, z):
        mu, log_tau, eta = z[0], z[1], z[2:]
        tau = jnp.exp(log_tau)
        prior = -0.5 * (mu / 5.0) ** 2 - jnp.log1p((tau / 5.0) ** 2) + log_tau - 0.5 * jnp.sum(eta**2)
        return prior - 0.5 * jnp.sum(((self.y - mu - tau * eta) / self.sigma) ** 2)


def eight_schools_by_quadrature():
    """Exact E mu and E log tau: given tau the schools are independent Gaussians and mu integrates out."""
    u = np.linspace(-12.0, 7.0, 20_001)
    variance = EIGHT["sigma"] ** 2 + np.exp(2 * u)[:, None]
    precision = np.sum(1 / variance, axis=1) + 1 / 25
    mean = np.sum(EIGHT["y"] / variance, axis=1) / precision
    log_weight = u - np.log1p(np.exp(2 * u) / 25) - 0.5 * np.sum(np.log(variance), axis=1) - 0.5 * np.log(precision)
    log_weight += 0.5 * precision * mean**2 - 0.5 * np.sum(EIGHT["y"] ** 2 / variance, axis=1)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    return weight @ mean, weight @ u, weight @ (mean**2 + 1 / precision)


def test_eight_schools_with_defaults():
    draws = sample(PooledHMC(), EightSchools(**EIGHT), seed=9)
    mean, log_tau, second = eight_schools_by_quadrature()
    z = draws.positions
    agree(np.stack([z[..., 0], z[..., 1], z[..., 0] ** 2], axis=2), [mean, log_tau, second])
    assert diagnostics.ess_bulk(z).min() > 2000 and diagnostics.rhat_rank(z).max() < 1.015
    assert not any("log scale" in text for text in draws.info["warnings"])
    assert draws.info["split_rhat"] <= 1.007 and draws.info["leapfrogs_per_chain"] < 10_000
    assert set(draws.stats) == {"lp", "acceptance_rate", "step_size", "diverging", "energy", "n_steps"}
    assert all(v.shape == z.shape[:2] for v in draws.stats.values())
    assert draws.warmup_positions.shape[1] == draws.info["warmup_draws"] == draws.warmup_stats["lp"].shape[1]
    lp = jax.vmap(jax.vmap(EightSchools(**EIGHT)))(z[:2, :5])
    np.testing.assert_allclose(draws.stats["lp"][:2, :5], lp, rtol=1e-10)


def test_draws_do_not_depend_on_the_size_of_the_blocks():
    target, engine = EightSchools(**EIGHT), PooledHMC(chains=4, draws=60, max_draws=60)
    whole = sample(engine, target, seed=10, n=1000)
    for n in (7, 10, 33):
        parts = sample(engine, target, seed=10, n=n)
        np.testing.assert_array_equal(parts.positions, whole.positions)
        np.testing.assert_array_equal(parts.warmup_positions, whole.warmup_positions)
        for name, value in whole.stats.items():
            np.testing.assert_array_equal(parts.stats[name], value)
    other = sample(engine, target, seed=11, n=1000)
    assert not np.any(other.positions == whole.positions)


def test_advance_goes_on_after_the_planned_work():
    target = EightSchools(**EIGHT)
    long = sample(PooledHMC(chains=4, draws=60, max_draws=60), target, seed=12)
    engine = PooledHMC(chains=4, draws=25, max_draws=25)
    carry, blocks, done = engine.start(12, target), [], False
    while not done:
        carry, part, done = engine.advance(carry, target, 9)
        blocks.append(part)
    carry, part, done = engine.advance(carry, target, 35)
    assert done and part.positions.shape == (4, 35, 10)
    np.testing.assert_array_equal(engine.finish(carry, [*blocks, part], target).positions, long.positions)


def test_sampling_goes_on_until_rhat_is_small():
    engine = PooledHMC(chains=4, draws=40, max_draws=100, rhat=1.0)
    draws = sample(engine, EightSchools(**EIGHT), seed=13)
    assert draws.positions.shape[1] == 100  # 40, 60, 90, 100: no R-hat is below 1
    assert sum("going on to" in line for line in draws.info["log"]) == 3
    assert any("not converged" in text for text in draws.info["warnings"])
    easy = sample(replace(engine, rhat=2.0), EightSchools(**EIGHT), seed=13)
    np.testing.assert_array_equal(easy.positions, draws.positions[:, :40])


def test_new_data_do_not_compile():
    engine = PooledHMC(chains=4, draws=20, max_draws=20)
    sample(engine, EightSchools(**EIGHT), seed=14)
    program = quick_block.compiled("cpu")
    before = program._cache_size()
    sample(engine, EightSchools(EIGHT["y"] + 1.0, EIGHT["sigma"] * 2.0), seed=15)
    assert program._cache_size() == before


def test_one_program_serves_the_whole_run():
    program = quick_block.compiled("cpu")
    before = program._cache_size()
    sample(PooledHMC(chains=3, draws=20, max_draws=20), EightSchools(**EIGHT), seed=14)
    assert program._cache_size() == before + 1


def test_lanes_are_chosen_by_cost_and_threads_do_not_change_draws(monkeypatch):
    engine, target = PooledHMC(chains=8, draws=30, max_draws=30, lanes=2), EightSchools(**EIGHT)
    threaded = sample(engine, target, seed=16)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    alone = sample(engine, target, seed=16)
    np.testing.assert_array_equal(threaded.positions, alone.positions)

    @jax.tree_util.register_dataclass
    @dataclass(frozen=True)
    class Costly(EightSchools):
        work = 10**7

    cheap, costly = PooledHMC().plan(target), PooledHMC().plan(Costly(**EIGHT))
    assert any("1 lane of 32" in line and "too few" in line for line in cheap)
    assert any("4 lanes of 4" in line and "enough" in line for line in costly)
    assert any("does not say" in line for line in PooledHMC().plan(as_density(quartic, 2)))
    with pytest.raises(ValueError, match="equal lanes"):
        PooledHMC(chains=16, lanes=3)


def test_cheap_densities_get_twice_the_chains():
    @jax.tree_util.register_dataclass
    @dataclass(frozen=True)
    class Costing(EightSchools):
        work = 10**5

    cheap, dear, silent = EightSchools(**EIGHT), Costing(**EIGHT), as_density(quartic, 2)
    assert [PooledHMC().suited(t).chains for t in (cheap, dear, silent)] == [32, 16, 16]
    assert any("32 chains (an evaluation computes 60 array elements" in line for line in PooledHMC().plan(cheap))
    assert PooledHMC(chains=5).suited(cheap).chains == 5 and PooledHMC(lanes=3).suited(dear).chains == 18
    carry = PooledHMC(draws=10).start(0, silent, np.zeros((7, 2)))  # as many as there are starting points
    assert carry.state.shape[0] == 7
    with pytest.raises(ValueError, match="init has shape"):
        PooledHMC(chains=4).start(0, silent, np.zeros((7, 2)))


@pytest.mark.parametrize("lanes", [1, 2])
def test_float32_context_reaches_every_lane(lanes):
    with jax.enable_x64(False):
        target, _ = anisotropic()
        draws = sample(PooledHMC(draws=400, max_draws=400, lanes=lanes), target, seed=17)
    assert draws.positions.dtype == np.float32
    u = (draws.positions.astype(float) - target.mean) @ np.linalg.cholesky(target.precision)
    agree(u, 0.0)
    agree(u**2, 1.0)


def test_float64_context_reaches_every_lane():
    jax.config.update("jax_enable_x64", False)  # the fixture sets it again
    with jax.enable_x64(True):
        draws = sample(PooledHMC(draws=20, max_draws=20, lanes=2), as_density(lambda z: -0.5 * z @ z, 2), seed=17)
    assert draws.positions.dtype == np.float64
    assert np.any(draws.positions != draws.positions.astype(np.float32))


@pytest.mark.parametrize("kind", ["diagonal", "low rank"])
def test_kinds_of_metric_as_asked(kind):
    scale = 10.0 ** np.linspace(-2, 2, 12)
    target = as_density(lambda z: -0.5 * jnp.sum((z / scale) ** 2), 12)
    engine = PooledHMC(draws=300, max_draws=300, metric=kind, rank=3)
    assert any("as asked" in line for line in engine.plan(target))
    draws = sample(engine, target, seed=18)
    agree((draws.positions / scale) ** 2, 1.0)
    assert diagnostics.ess_mean(draws.positions).min() > 2000
    with pytest.raises(ValueError, match="metric is"):
        PooledHMC(metric="full")
    with pytest.raises(ValueError, match="at least one direction"):
        PooledHMC(rank=0)


def test_a_density_without_an_admissible_point_is_explained():
    target = as_density(lambda z: jnp.sum(jnp.log(-jnp.abs(z) - 1.0)), 2)
    engine = PooledHMC(chains=2)
    carry = engine.start(0, target)
    with pytest.raises(StartError) as caught:
        engine.advance(carry, target, 10)
    assert caught.value.position.shape == (2,) and np.isnan(caught.value.log_density)


def test_the_prior_of_the_target_is_used_when_it_has_one():
    @jax.tree_util.register_dataclass
    @dataclass(frozen=True)
    class Far:
        centre: Any

        dim = 1

        def __call__(self, z):
            r = z[0] - self.centre
            return jnp.where(jnp.abs(r) > 5.0, -jnp.inf, -0.5 * r * r)

        def prior(self, key):
            return self.centre + jax.random.uniform(key, (1,), minval=-4.0, maxval=4.0)

    draws = sample(PooledHMC(draws=200, max_draws=200), Far(np.array(1000.0)), seed=19)
    agree(draws.positions, 1000.0)
    assert any("the prior" in line for line in draws.info["log"])


def test_carry_holds_only_plain_values():
    engine, target = PooledHMC(chains=4, draws=20), EightSchools(**EIGHT)
    carry = engine.start(0, target)
    for _ in range(8):
        carry, _, _ = engine.advance(carry, target, 10)

        def plain(value):
            if hasattr(value, "__dataclass_fields__"):
                return all(plain(getattr(value, name)) for name in value.__dataclass_fields__)
            if isinstance(value, list):
                return all(map(plain, value))
            if isinstance(value, dict):
                return all(isinstance(key, str) and plain(v) for key, v in value.items())
            return value is None or isinstance(value, np.ndarray | float | int | str | bool)

        assert plain(carry)


def test_options_and_targets_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        PooledHMC(chains=0)
    with pytest.raises(ValueError, match="probability"):
        PooledHMC(target_accept=1.0)
    with pytest.raises(ValueError, match="no dim"):
        PooledHMC().plan(as_density(quartic))
    with pytest.raises(ValueError, match="no coordinates"):
        PooledHMC().start(0, as_density(quartic, 0))
    with pytest.raises(ValueError, match="init has shape"):
        PooledHMC(chains=4).start(0, as_density(quartic, 2), np.zeros((3, 2)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scales:
    """Independent coordinates of different scales; cheap for its dimension."""

    scale: Any

    dim = 120
    work = 1000

    def __call__(self, z):
        return -0.5 * jnp.sum((z / self.scale) ** 2)


def test_many_cheap_dimensions_go_over_to_a_diagonal_metric():
    target = Scales(10.0 ** np.linspace(-2, 2, 120))
    assert any("a diagonal one if that takes at most 1.35 times" in line for line in PooledHMC().plan(target))
    draws = sample(PooledHMC(chains=16, draws=200, max_draws=200), target, seed=20)
    assert any("diagonal metric from here" in line for line in draws.info["log"])
    agree((draws.positions / target.scale) ** 2, 1.0)
    parts = sample(PooledHMC(chains=16, draws=200, max_draws=200), target, seed=20, n=30)
    np.testing.assert_array_equal(parts.positions, draws.positions)
    assert not any("a diagonal one" in line for line in PooledHMC().plan(EightSchools(**EIGHT)))
