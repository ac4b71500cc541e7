"""Microcanonical kernels: exact properties of the dynamics, the order of the bias, tuning, guards.

That MAMS leaves its targets invariant is in test_battery.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from ppl.inference import infer
from ppl.inference.adapt.metric import Moments
from ppl.inference.adapt.microcanonical import BatchMemory, EnergyError, Memorylessness
from ppl.inference.core import as_density
from ppl.inference.diagnostics import ess_bulk
from ppl.inference.mcmc import MAMS, MCLMC, Block, Chains, Cycle, Slice
from ppl.inference.mcmc.euclidean import Dense, Diagonal, evaluate
from ppl.inference.mcmc.microcanonical import leapfrog, refreshed, turn, unit

RNG = np.random.default_rng(0)
METRIC = Dense(np.linalg.cholesky(np.diag([1.0, 4.0, 2.0]) + 0.5))


def log_density(z):
    """Asymmetric and not separable."""
    return -jnp.sum(jnp.exp(0.5 * z)) + jnp.sum(z) - 0.25 * (z[0] * z[1] - z[2]) ** 2


@pytest.mark.parametrize("size", [1e-8, 0.7, 40.0])
def test_turn_solves_its_equation(size):
    """Against a numerical solution of du/dt = (I - u u') g / (d - 1), and its weight against the integral of g.u."""
    u, g, time = RNG.normal(size=4), size * RNG.normal(size=4), 0.8
    u /= np.linalg.norm(u)

    def rhs(t, y):
        u = y[:4]
        return np.append((g - u * (u @ g)) / 3.0, g @ u)

    exact = solve_ivp(rhs, (0, time), np.append(u, 0.0), rtol=1e-11, atol=1e-13).y[:, -1]
    turned, change = jax.jit(turn)(u, g, time)
    np.testing.assert_allclose(turned, exact[:4], atol=1e-8)
    np.testing.assert_allclose(change, exact[4], rtol=1e-7, atol=1e-12)


def test_turn_survives_zero_and_huge_gradients():
    u = np.array([0.6, 0.8])
    for g, end in ((np.zeros(2), u), (np.array([0.0, -1e100]), [0.0, -1.0])):
        turned, change = turn(u, g, 1.0)
        np.testing.assert_allclose(turned, end, atol=1e-12)
        assert np.isfinite(change)


def path(metric, step, count, z, u):
    def body(_, loop):
        state, u, total = loop
        state, u, error = leapfrog(metric, step, state, u, log_density)
        return state, u, total + error

    state, u, total = jax.lax.fori_loop(0, count, body, (evaluate(z, log_density), jnp.asarray(u), jnp.zeros(())))
    return state.position, u, total


def test_dynamics_are_reversible_and_their_weight_is_the_jacobian():
    """W is what the change of variables (x, u) needs: exp(-W) = pi(x')/pi(x) |d(x', u')/d(x, u)|, numerically."""
    z, u = RNG.normal(size=3), np.asarray(unit(RNG.normal(size=3)))
    end, v, total = jax.jit(path, static_argnums=2)(METRIC, 0.3, 4, z, u)
    back, w, again = jax.jit(path, static_argnums=2)(METRIC, 0.3, 4, end, -v)
    np.testing.assert_allclose(back, z, atol=1e-10)
    np.testing.assert_allclose(-w, u, atol=1e-10)
    np.testing.assert_allclose(again, -total, rtol=1e-8)
    basis = np.linalg.svd(np.outer(u, u))[0][:, 1:]  # tangents of the sphere at u, and at the end
    basis_end = np.linalg.svd(np.outer(v, v))[0][:, 1:]

    def chart(y):
        x, v, _ = path(METRIC, 0.3, 4, y[:3], unit(u + basis @ y[3:]))
        return jnp.concatenate([x, basis_end.T @ v])

    jacobian = np.linalg.slogdet(jax.jit(jax.jacfwd(chart))(np.append(z, [0.0, 0.0])))[1]
    np.testing.assert_allclose(log_density(end) - log_density(z) + jacobian, -total, rtol=1e-8)


def test_error_of_a_trajectory_is_of_second_order():
    z, u = np.array([0.3, -0.4, 0.8]), np.asarray(unit(np.array([1.0, 0.5, -0.7])))
    errors = [abs(jax.jit(path)(METRIC, 1.0 / n, n, z, u)[2]) for n in (10, 20, 40)]
    np.testing.assert_allclose(np.log2([errors[0] / errors[1], errors[1] / errors[2]]), 2.0, atol=0.15)


def test_refreshment_keeps_the_uniform_law_and_forgets_at_its_rate():
    keys = jax.random.split(jax.random.key(0), 50_000)
    noise = np.asarray(jax.vmap(lambda k: jax.random.normal(k, (20,)))(keys))
    u = np.zeros(20)
    u[0] = 1.0
    new = np.asarray(jax.jit(jax.vmap(lambda n: refreshed(u, n, 0.5, 2.0)))(noise))
    np.testing.assert_allclose((new**2).sum(1), 1.0, rtol=1e-12)
    assert abs(new[:, 0].mean() - np.exp(-0.125)) < 0.02  # up to terms of order 1/d


def bias(step, replications, target=6):
    """Bias of E[z^2] of a 6-dimensional normal after a fixed time from exact draws, antithetic to exact dynamics."""
    kernel, density = MCLMC(step, 2.0), as_density(lambda z: -0.5 * jnp.sum(z**2), target)
    count = int(round(30.0 / step))

    @jax.jit
    @jax.vmap
    def run(key):
        state = kernel.init(jax.random.normal(jax.random.fold_in(key, 1), (target,)), density)

        def body(i, loop):
            state, total = loop
            state, _ = kernel.step(jax.random.fold_in(key, i + 2), state, density)
            late = i >= count // 2
            return state, total + jnp.where(late, jnp.mean(state.position**2), 0.0)

        return jax.lax.fori_loop(0, count, body, (state, 0.0))[1] / (count - count // 2)

    values = np.asarray(run(jax.random.split(jax.random.key(3), replications)))
    return values.mean() - 1.0, values.std() / np.sqrt(replications)


def test_bias_of_the_unadjusted_kernel_is_of_second_order():
    """Halving the step quarters the bias: 4 within 4 standard errors, and far from what orders 1 and 3 give."""
    (large, error), (small, small_error) = bias(3.0, 20_000), bias(1.5, 20_000)
    assert abs(large) > 20 * error and abs(small) > 8 * small_error
    ratio = large / small
    spread = ratio * np.hypot(error / large, small_error / small)
    assert abs(ratio - 4.0) < 4 * abs(spread) + 0.6, (ratio, spread)
    assert 2.6 < ratio < 6.0


GAUSSIAN = np.geomspace(1e-2, 10.0, 12)
TARGET = as_density(lambda z: -0.5 * jnp.sum(((z - 3.0) / GAUSSIAN) ** 2), 12)


@pytest.mark.parametrize("kernel", [MCLMC(), pytest.param(MAMS(), marks=pytest.mark.slow)], ids=["mclmc", "mams"])
def test_warm_up_tunes_step_length_and_metric(kernel):
    """Twelve scales over three orders of magnitude, from U(-2, 2): |z| < 4.5, deviations within 10%."""
    fit = infer(TARGET, Chains(kernel, warmup=1000, draws=2000), progress=False, seed=2)
    z = fit.draws.positions
    size = ess_bulk(z)
    assert size.min() > 400
    assert np.all(np.abs(z.mean((0, 1)) - 3.0) < 4.5 * GAUSSIAN / np.sqrt(size))
    np.testing.assert_allclose(z.std((0, 1)), GAUSSIAN, rtol=0.1)
    if isinstance(kernel, MCLMC):
        error = np.mean(fit.draws.stats["energy_error"] ** 2) / 12
        assert 1e-4 < error < 2.5e-3  # 5e-4 wanted
        assert not fit.draws.stats["diverging"].any()
    else:
        assert 0.8 < fit.draws.stats["acceptance_rate"].mean() < 0.99


def test_energy_error_adapter_finds_the_step_of_a_known_law():
    """W = 3 h^3 xi: the step with E[W^2] = d tolerance, within 10%; a divergence bounds it."""
    adapter, kernel = EnergyError(), MCLMC(step_size=np.array(0.01), tolerance=5e-4)
    memory, rng = adapter.init(kernel, None), np.random.default_rng(1)
    for _ in range(1000):
        memory, kernel = adapter.learn(memory, kernel, np.asarray(3 * kernel.step_size**3 * rng.normal()), 10)
    assert abs(kernel.step_size / (10 * 5e-4 / 9) ** (1 / 6) - 1) < 0.1
    memory, after = adapter.learn(memory, kernel, np.array(np.nan), 10)
    np.testing.assert_allclose(after.step_size, 0.8 * kernel.step_size)


def test_length_follows_the_autocorrelation_time():
    """An AR(1) series with time (1 + rho)/(1 - rho) = 19: L = 0.4 h 19 in units of the series, within 30%."""
    kernel = MCLMC(step_size=np.array(0.5), length=np.array(3.0), metric=Diagonal(np.ones(4)))
    adapter, rng, x = Memorylessness(), np.random.default_rng(0), np.zeros(4)
    state = type("S", (), {"position": x})
    memory = adapter.init(kernel, state)
    assert float(memory.size) == 40.0
    for _ in range(20_000):
        x = 0.9 * x + 5.0 * np.sqrt(1 - 0.81) * rng.normal(size=4)
        state.position = x
        memory, kernel = adapter.update(memory, kernel, state, None)
    assert abs(float(adapter.final(memory, kernel).length) * 5.0 / (0.4 * 0.5 * 19) - 1) < 0.3
    none = Moments(np.array(2.0), x, x)
    few = BatchMemory(none, none, memory.size, x, np.array(0.0))
    assert float(adapter.final(few, kernel).length) == 3.0


def test_one_dimension_is_refused():
    for kernel in (MCLMC(), MAMS()):
        with pytest.raises(ValueError, match="two dimensions"):
            kernel.init(jnp.zeros(1), as_density(lambda z: -0.5 * z @ z))
        with pytest.raises(ValueError, match="two dimensions"):
            Chains(kernel).start(0, as_density(lambda z: -0.5 * z @ z, dim=1))


def test_direction_is_kept_when_the_kernel_is_resumed():
    density = as_density(lambda z: -0.5 * jnp.sum(z**2))
    kernel = MCLMC(0.2, 5.0)
    state = kernel.step(jax.random.key(0), kernel.init(jnp.ones(3), density), density)[0]
    again = kernel.resume(state, jnp.zeros(3), density)
    np.testing.assert_array_equal(again.direction, state.direction)
    assert float(again.log_density) == 0.0


@pytest.mark.slow
def test_kernel_in_a_cycle():
    """Three coordinates by it and one by slices: |z| < 4.5."""
    density = as_density(lambda z: -0.5 * jnp.sum(z**2), 4)
    engine = Chains(Cycle(Block([0, 1, 2], MCLMC()), Block([3], Slice())), warmup=300, draws=500)
    z = infer(density, engine, progress=False).draws.positions
    assert np.all(np.abs(z.mean((0, 1))) < 4.5 / np.sqrt(ess_bulk(z)))
    assert z.std((0, 1)).min() > 0.8
