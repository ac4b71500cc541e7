"""Stochastic-gradient kernels against closed forms: what they sample on a Gaussian with any step, and the bias' order.

For a Gaussian of precision a and a gradient with additive Gaussian noise of variance v every kernel here is a linear
recursion, whose stationary covariance is a closed form or the solution of a discrete Lyapunov equation. Many chains are
run from zero until they have forgotten it; the variance over N final states has the standard error
var * sqrt(2 / N). Bounds are |z| < 4.5: a false alarm in 1.5e5 each.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_discrete_lyapunov

from ppl.inference.core import as_stochastic
from ppl.inference.mcmc import PSGLD, SGHMC, SGLD, Cyclical, control_variates, gradient_noise
from ppl.inference.mcmc import sgmcmc_langevin as langevin
from ppl.inference.mcmc.euclidean import Dense, Diagonal

PRECISION, NOISE = 2.0, 9.0
CHAINS = 40_000


def noisy(key, z):
    return -0.5 * PRECISION * z @ z + np.sqrt(NOISE) * z @ jax.random.normal(key, z.shape)


TARGET = as_stochastic(noisy, 1, unbiased="logarithm")


def final(kernel, steps, target=TARGET, chains=CHAINS, start=(0.0,), seed=0):
    """Final positions of many chains, shape (chains, dim)."""

    @jax.jit
    def run(kernel, keys):
        def one(key):
            def body(i, state):
                return kernel.step(jax.random.fold_in(key, i), state, target)[0]

            return jax.lax.fori_loop(0, steps, body, kernel.init(jnp.array(start), target)).position

        return jax.lax.map(one, keys, batch_size=10_000)

    return np.asarray(run(kernel, jax.random.split(jax.random.key(seed), chains)))


def deviation(z, variance):
    """Standardised error of a variance."""
    return (np.mean(z**2) / variance - 1.0) / np.sqrt(2.0 / z.size)


def sgld_variance(h, a=PRECISION, v=NOISE):
    """Solve s = (1 - h a / 2)^2 s + h + h^2 v / 4."""
    return (h + 0.25 * h**2 * v) / (1.0 - (1.0 - 0.5 * h * a) ** 2)


def sghmc_variance(h, friction, b=0.0, a=PRECISION, v=NOISE):
    """Stationary variance of z for x' = A x + noise, x = (z, q)."""
    move = np.array([[1.0, h], [-h * a, 1.0 - h * friction - h * h * a]])
    added = np.diag([0.0, h * h * v + 2.0 * (friction - 0.5 * h * b) * h])
    return solve_discrete_lyapunov(move, added)[0, 0]


def test_sgld_has_the_variance_of_its_step():
    for h in (0.4, 0.2):
        z = final(SGLD(h), int(8 / h))
        assert abs(deviation(z, sgld_variance(h))) < 4.5
        assert abs(deviation(z, 1.0 / PRECISION)) > 20  # the bias is there to be seen


def test_the_bias_of_sgld_halves_with_the_step():
    bias = [final(SGLD(h), int(8 / h), seed=1).var() * PRECISION - 1.0 for h in (0.2, 0.1)]
    exact = [sgld_variance(h) * PRECISION - 1.0 for h in (0.2, 0.1)]
    assert 1.9 < exact[0] / exact[1] < 2.3
    assert abs(bias[0] / bias[1] - exact[0] / exact[1]) < 4.5 * np.hypot(1 / bias[0], 1 / bias[1]) * 2 / CHAINS**0.5
    order = np.log2(np.diff(np.log([sgld_variance(h) * PRECISION - 1.0 for h in (2e-4, 1e-4)]))[0] / np.log(0.5))
    assert abs(order) < 1e-3


def test_noise_that_is_known_is_taken_off():
    h = 0.2
    z = final(SGLD(h, noise=NOISE), int(8 / h))
    assert abs(deviation(z, sgld_variance(h, v=0.0))) < 4.5


def test_taking_too_much_off_is_caught(monkeypatch):
    right = langevin.sgmcmc.injected
    monkeypatch.setattr(langevin.sgmcmc, "injected", lambda variance, noise: right(variance, 2.0 * noise))
    z = final(SGLD(0.2, noise=NOISE), 40)
    assert abs(deviation(z, sgld_variance(0.2, v=0.0))) > 10


@pytest.mark.parametrize("metric", [Diagonal(0.5), Dense(np.array([[0.5]]))], ids=["diagonal", "dense"])
def test_a_metric_changes_the_units(metric):
    h = 0.8  # in units of a metric of variance 1/4: the same as a step of 0.2
    z = final(SGLD(h, metric=metric, noise=0.25 * NOISE), 40)
    assert abs(deviation(z, sgld_variance(0.2, v=0.0))) < 4.5


@pytest.mark.parametrize("known", [0.0, NOISE])
def test_sghmc_has_the_variance_of_its_step(known):
    h, friction = 0.2, 2.0
    z = final(SGHMC(h, friction, noise=known, steps=5), 15)
    assert abs(deviation(z, sghmc_variance(h, friction, known))) < 4.5


def test_the_bias_of_sghmc_halves_with_the_step_and_goes_with_the_noise_known():
    bias = [sghmc_variance(h, 2.0) * PRECISION - 1.0 for h in (2e-3, 1e-3)]
    assert abs(bias[0] / bias[1] - 2.0) < 0.01 and abs(bias[1] / (1e-3 * NOISE / 4.0) - 1.0) < 0.01
    known = [sghmc_variance(h, 2.0, NOISE) * PRECISION - 1.0 for h in (2e-3, 1e-3)]
    assert abs(known[1]) < 1e-5 and abs(known[0] / known[1] - 4.0) < 0.05


def test_psgld_is_sgld_with_a_step_of_its_own_once_it_stops_learning():
    kernel = PSGLD(0.2, learn=0)
    state = kernel.init(jnp.full(1, 0.5), lambda z: -0.5 * PRECISION * z @ z)
    assert abs(float(kernel.preconditioner(state.memory.mean)[0]) - 1.0 / (PRECISION * 0.5 + 1e-5)) < 1e-12

    @jax.jit
    def run(keys):
        def one(key):
            state = replace(kernel.init(jnp.zeros(1), TARGET), memory=langevin.Squares(jnp.full(1, 1.0), jnp.int32(1)))
            body = lambda i, s: kernel.step(jax.random.fold_in(key, i), s, TARGET)[0]  # noqa: E731
            return jax.lax.fori_loop(0, 40, body, state).position

        return jax.lax.map(one, keys, batch_size=10_000)

    z = np.asarray(run(jax.random.split(jax.random.key(3), 50_000)))
    assert abs(deviation(z, sgld_variance(0.2 / (1.0 + 1e-5)))) < 4.5


@pytest.mark.slow
def test_psgld_finds_the_scales_of_its_coordinates():
    scales = np.array([1.0, 10.0])
    target = as_stochastic(lambda key, z: -0.5 * jnp.sum((z / scales) ** 2), 2, "logarithm")
    z = final(PSGLD(0.1, learn=300), 1500, target, chains=400, start=tuple(scales))
    assert np.all(np.abs(z.std(axis=0) / scales - 1.0) < 0.2)


@pytest.mark.slow
def test_cycles_find_both_modes_and_their_shape():
    """Two modes 8 apart with sd 0.5: SGLD of the last steps' size alone never crosses."""
    log_density = lambda z: jnp.logaddexp(-2.0 * (z[0] - 4.0) ** 2, -2.0 * (z[0] + 4.0) ** 2)  # noqa: E731
    target = as_stochastic(lambda key, z: log_density(z) + 4.0 * z[0] * jax.random.normal(key), 1, "logarithm")
    kernel = Cyclical(SGLD(0.9), length=60, explore=0.3)
    z = final(kernel, 12, target, chains=1000)
    share = np.mean(z > 0)
    assert 0.3 < share < 0.7
    assert abs(np.abs(z).mean() - 4.0) < 0.05 and 0.4 < np.abs(z).std() < 0.65
    stuck = final(SGLD(0.02), 300, target, chains=500, start=(4.0,), seed=2)
    assert np.all(stuck > 0)


def test_control_variates_take_the_noise_away():
    data = np.random.default_rng(0).normal(size=(40, 2)) + 3.0

    def minibatch(key, z):
        rows = jax.random.randint(key, (4,), 0, 40)
        return -5.0 * jnp.sum((jnp.asarray(data)[rows] - z) ** 2)

    def curved(key, z):
        rows = jax.random.randint(key, (4,), 0, 40)
        return -10.0 * jnp.sum(jnp.log1p((jnp.asarray(data)[rows] - z) ** 2))

    full = lambda z: -0.5 * jnp.sum((data - z) ** 2)  # noqa: E731
    mode, far = data.mean(0), data.mean(0) + 2.0
    plain = as_stochastic(minibatch, 2, "logarithm")
    better = control_variates(plain, mode, full)
    assert better.unbiased == "logarithm" and better.dim == 2
    assert np.all(gradient_noise(plain, mode) > 100)
    # a quadratic: none anywhere
    assert np.all(gradient_noise(better, mode) < 1e-20) and np.all(gradient_noise(better, far) < 1e-20)
    # in general none at the centre, more with the distance, and unbiased
    curve = as_stochastic(curved, 2, "logarithm")
    whole = lambda z: -jnp.sum(jnp.log1p((data - z) ** 2))  # noqa: E731
    better = control_variates(curve, mode, whole)
    noise = [gradient_noise(better, mode + s).sum() for s in (0.0, 0.1, 0.2)]
    assert noise[0] < 1e-20 < 10 * noise[1] < 50 * noise[2] and noise[2] < 0.2 * gradient_noise(curve, mode).sum()
    keys = jax.random.split(jax.random.key(1), 4000)
    value, slope = jax.vmap(jax.value_and_grad(better, argnums=1), (0, None))(keys, mode + 0.3)
    exact, gradient = jax.value_and_grad(whole)(mode + 0.3)
    assert abs(value.mean() - exact) < 4.5 * value.std() / 4000**0.5
    assert np.all(np.abs(slope.mean(0) - gradient) < 4.5 * slope.std(0) / 4000**0.5)


def test_what_is_not_finite_is_not_entered():
    bounded = as_stochastic(lambda key, z: jnp.where(z[0] > 0, -z[0], jnp.nan), 1, "logarithm")
    for kernel in (PSGLD(0.5), Cyclical(SGHMC(0.5, steps=2), 5)):
        state, count = kernel.init(jnp.ones(1), bounded), 0
        step = jax.jit(lambda key, state, kernel=kernel: kernel.step(key, state, bounded))
        for i in range(60):
            state, info = step(jax.random.key(i), state)
            assert state.position[0] > 0 and np.isfinite(state.log_density)
            count += bool(info.diverging)
        assert count > 0, kernel


def test_wrong_targets_and_places_are_refused():
    with pytest.raises(TypeError, match="PseudoMarginal"):
        SGLD(0.1).init(jnp.zeros(1), as_stochastic(noisy, 1))
    with pytest.raises(TypeError, match="step_size and temperature"):
        Cyclical(object()).init(jnp.zeros(1), TARGET)
    with pytest.raises(TypeError, match="full="):
        control_variates(TARGET, [0.0])
    with pytest.raises(ValueError, match="centre"):
        control_variates(TARGET, [0.0], full=lambda z: jnp.log(z[0]))


@pytest.mark.parametrize("kernel", [SGLD(0.1), PSGLD(0.1), SGHMC(0.1), Cyclical(SGHMC(0.1))], ids=lambda k: str(k)[:8])
def test_a_step_lowers_for_accelerators(kernel):
    state = kernel.init(jnp.zeros(1), TARGET)
    traced = jax.jit(lambda key, state: kernel.step(key, state, TARGET)).trace(jax.random.key(0), state)
    assert "stablehlo" in traced.lower(lowering_platforms=("cuda", "tpu")).as_text()
