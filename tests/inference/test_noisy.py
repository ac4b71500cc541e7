"""Estimates of a log density as targets: subsampled plates under stochastic-gradient kernels, and who refuses them."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import infer, load, mcmc, status
from ppl.inference.core import as_stochastic

N, M, STEP = 60, 6, 0.012
DATA = np.random.default_rng(0).gamma(2.0, 1.0, N)


@ppl.model
def level(n, count):
    mu = ppl.sample("mu", dist.Normal(0.0, 2.0))

    @ppl.plate("row", n, subsample=count)
    def _(_):
        ppl.sample("y", dist.Normal(mu, 1.0))


PROGRAM = level(N, M).condition(y=DATA)
PRECISION = N + 0.25
NOISE = N**2 / M * (1 - M / N) * DATA.var(ddof=1)  # drawing without replacement; the same everywhere


def run(program=PROGRAM, kernel=None, chains=3000, **options):
    engine = mcmc.Chains(kernel or mcmc.SGLD(STEP), chains=chains, warmup=30, draws=5, lane=chains)
    return infer(program, engine, progress=False, **options)


def last(fit):
    """Independent draws: the last of every chain."""
    return fit.draws.positions[:, -1, 0]


def check(z, variance):
    """Mean and variance of independent draws; |z| < 4.5, a false alarm in 1.5e5 each.

    The noise of a minibatch is no Gaussian, but the mean and the variance follow exactly all the same.
    """
    mean = DATA.sum() / PRECISION
    assert abs(z.mean() - mean) < 4.5 * np.sqrt(variance / len(z))
    assert abs(z.var() / variance - 1.0) < 4.5 * np.sqrt(2.0 / len(z))


def test_a_subsampled_plate_has_the_variance_of_its_step_and_its_minibatch():
    fit = run(seed=1)
    variance = (1 + STEP * NOISE / 4) / (PRECISION * (1 - STEP * PRECISION / 4))
    assert variance * PRECISION > 1.5  # worth seeing
    check(last(fit), variance)
    assert fit.labels == ["mu"] and fit.posterior["mu"].shape == (3000, 5)
    assert any("6 of 60 elements of 'row'" in line for line in fit.manifest["plan"])


@pytest.mark.slow
def test_control_variates_leave_the_bias_of_the_step_alone():
    better = mcmc.control_variates(ppl.compile(PROGRAM), [DATA.mean()])
    fit = run(better, seed=2)
    check(last(fit), 1.0 / (PRECISION * (1 - STEP * PRECISION / 4)))
    assert fit.labels == ["mu"]


def test_results_are_those_of_all_the_data(tmp_path):
    fit = infer(PROGRAM, mcmc.SGHMC(0.02, 4.0, steps=3), chains=2, warmup=20, draws=30, progress=False)
    mu = fit.values["mu"]
    expected = -0.5 * (DATA - mu[..., None]) ** 2 - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(fit.log_likelihood["y"].values, expected, rtol=1e-10)
    assert fit.predict()["y"].shape == (2, 30, N)
    np.testing.assert_allclose(fit.log_prior["mu"].values, dist.Normal(0.0, 2.0).log_prob(mu), rtol=1e-6)
    assert "diverging" in fit.sample_stats and fit.sample_stats["n_steps"].values.max() == 3
    fit.save(tmp_path / "fit")
    again = load(tmp_path / "fit", program=PROGRAM)
    np.testing.assert_array_equal(again.predict(seed=3)["y"], fit.predict(seed=3)["y"])


@pytest.mark.slow
def test_the_full_data_are_a_density_without_noise():
    fit = run(level(N, None).condition(y=DATA), chains=2000, seed=3)
    check(last(fit), 1.0 / (PRECISION * (1 - STEP * PRECISION / 4)))


@pytest.mark.parametrize(
    "kernel", [pytest.param(mcmc.SGLD(STEP), marks=pytest.mark.slow), mcmc.Cyclical(mcmc.SGHMC(0.02, 4.0, steps=2), 4)]
)
def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path, kernel):
    engine = mcmc.Chains(kernel, chains=2, warmup=120, draws=150)
    whole = infer(PROGRAM, engine, seed=5, progress=False)
    with pytest.raises(TimeoutError):
        infer(PROGRAM, engine, seed=5, progress=False, path=tmp_path / "run", time_budget=0.0)
    while status(tmp_path / "run")["status"] != "finished":
        with contextlib.suppress(TimeoutError):
            rest = infer.resume(tmp_path / "run", PROGRAM, time_budget=0.0)
    np.testing.assert_array_equal(rest.draws.positions, whole.draws.positions)
    np.testing.assert_array_equal(rest.draws.stats["lp"], whole.draws.stats["lp"])


def test_engines_that_need_the_density_refuse_an_estimate():
    with pytest.raises(ppl.ModelError, match=r"mcmc\.SGLD"):
        infer(PROGRAM, mcmc.NUTS(), progress=False)
    with pytest.raises(ppl.ModelError, match="subsample"):
        infer(PROGRAM, mcmc.Stretch(), progress=False)
    noisy = as_stochastic(lambda key, z: -z @ z + z[0] * jax.random.normal(key), 1, unbiased="logarithm")
    with pytest.raises(TypeError, match=r"HMC needs the log density itself.*SGLD"):
        infer(noisy, mcmc.HMC(), progress=False)
    fit = infer(noisy, mcmc.SGLD(0.1), chains=2, draws=20, warmup=20, progress=False)
    assert fit.values["z"].shape == (2, 20, 1)
    with pytest.raises(TypeError, match="PseudoMarginal"):
        infer(as_stochastic(lambda key, z: -z @ z, 1), mcmc.SGLD(0.1), progress=False)
    with pytest.raises(TypeError, match="SGLD .* cannot be a part of Cycle"):
        infer(lambda z: -jnp.sum(z**2), mcmc.Cycle(mcmc.SGLD(0.1), mcmc.HMC()), init=np.zeros(1), progress=False)
