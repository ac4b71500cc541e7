"""HMC: exact properties of the integrator, the Metropolis test against its formula, and its guards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.inference.core import as_density
from ppl.inference.mcmc import HMC
from ppl.inference.mcmc.euclidean import Dense, Diagonal, draw_momentum, energy_of, evaluate, trial

RNG = np.random.default_rng(0)
METRICS = [Diagonal(np.array([0.5, 2.0, 1.3])), Dense(np.linalg.cholesky(np.diag([1.0, 4.0, 2.0]) + 0.5))]


def log_density(z):
    """Asymmetric and not separable."""
    return -jnp.sum(jnp.exp(0.5 * z)) + jnp.sum(z) - 0.25 * (z[0] * z[1] - z[2]) ** 2


@jax.jit
def end(kernel, count, position, momentum):
    state, ended = kernel.integrate(count, evaluate(position, log_density), momentum, log_density)
    return state.position, ended, energy_of(state.log_density, ended)


@pytest.mark.parametrize("metric", METRICS, ids=["diagonal", "dense"])
def test_leapfrog_is_reversible(metric):
    z, q = RNG.normal(size=3), RNG.normal(size=3)
    there, momentum, _ = end(HMC(0.1, metric), 17, z, q)
    back, momentum, _ = end(HMC(0.1, metric), 17, there, -momentum)
    np.testing.assert_allclose(back, z, atol=1e-12)
    np.testing.assert_allclose(-momentum, q, atol=1e-12)
    assert np.linalg.norm(there - z) > 0.3


@pytest.mark.parametrize("metric", METRICS, ids=["diagonal", "dense"])
def test_leapfrog_keeps_volume(metric):
    def flow(x):
        position, momentum, _ = end(HMC(0.2, metric), 5, x[:3], x[3:])
        return jnp.concatenate([position, momentum])

    jacobian = jax.jit(jax.jacfwd(flow))(RNG.normal(size=6) * 0.5)
    np.testing.assert_allclose(np.linalg.det(jacobian), 1.0, rtol=1e-10)


@pytest.mark.parametrize("metric", METRICS, ids=["diagonal", "dense"])
def test_energy_error_is_of_second_order(metric):
    """Halving the step at fixed length quarters the energy error."""
    z, q = np.array([0.3, -0.4, 0.8]), np.array([1.0, 0.5, -0.7])
    start = end(HMC(0.1, metric), 0, z, q)[2]
    errors = [abs(end(HMC(1.0 / n, metric), n, z, q)[2] - start) for n in (40, 80, 160)]
    np.testing.assert_allclose(np.log2([errors[0] / errors[1], errors[1] / errors[2]]), 2.0, atol=0.1)


def test_harmonic_oscillator_turns_by_the_known_angle():
    """Leapfrog on a standard normal rotates by arccos(1 - step^2 / 2) per step, exactly."""
    step, n, normal = 0.3, 11, as_density(lambda z: -0.5 * jnp.sum(z**2))
    state, _ = HMC(step).integrate(n, evaluate(jnp.array([1.0]), normal), jnp.zeros(1), normal)
    np.testing.assert_allclose(state.position[0], np.cos(n * np.arccos(1 - step**2 / 2)), atol=1e-12)


def test_metropolis_probability_is_the_formula():
    """The mean of acceptances given the energy error, |z| < 4.5 standard errors."""
    kernel, density = HMC(1.1, METRICS[0], steps=3), as_density(log_density)

    @jax.jit
    def run(keys):
        state = kernel.init(jnp.array([0.3, -0.4, 0.8]), density)
        new, info = jax.vmap(lambda k: kernel.step(k, state, density))(keys)
        return jnp.any(new.position != state.position, axis=1), info

    moved, info = run(jax.random.split(jax.random.key(0), 20_000))
    rate = np.asarray(info.acceptance_rate)
    assert 0.1 < rate.mean() < 0.95
    spread = np.sqrt(np.mean(rate * (1 - rate)) / len(rate))
    assert abs(np.mean(np.asarray(moved) - rate)) < 4.5 * spread


def test_momenta_are_standard_normal():
    """Moments, tails and independence of the momenta of many keys; each |z| < 4.5."""
    draw = jax.jit(jax.vmap(lambda k: draw_momentum(k, Diagonal(), jnp.zeros(5))))
    q = np.asarray(draw(jax.random.split(jax.random.key(3), 40_000)))
    n = len(q)
    for value, exact, variance in [
        (q.mean(0), 0, 1),
        ((q**2).mean(0), 1, 2),
        ((q**3).mean(0), 0, 15),
        ((q**4).mean(0), 3, 96),
        ((q > 2.5).mean(0), 0.00620967, 0.00617),
    ]:
        assert np.all(np.abs(value - exact) < 4.5 * np.sqrt(variance / n))
    for f in (lambda x: x, lambda x: x**2 - 1):
        products = np.corrcoef(f(q).T)[np.triu_indices(5, 1)]
        assert np.all(np.abs(products) < 4.5 / np.sqrt(n))
    assert len(np.unique(q)) > 0.999 * q.size


def test_jitter_spreads_the_length_evenly():
    kernel = HMC(0.1, length=1.0, jitter=0.5)
    counts = np.asarray(jax.vmap(kernel.count)(jnp.linspace(0.0005, 0.9995, 1000)))
    values, number = np.unique(counts, return_counts=True)
    assert values.tolist() == list(range(6, 16))
    np.testing.assert_allclose(number, 100, atol=1)
    assert int(HMC(1e-9).count(jnp.array(0.5))) == 1024


def test_not_finite_is_rejected_and_counts_as_divergence():
    density = as_density(lambda z: jnp.where(z[0] > 1, jnp.nan, -0.5 * jnp.sum(z**2)))
    kernel = HMC(0.5, steps=2)

    @jax.jit
    def run(keys):
        state = kernel.init(jnp.array([0.9]), density)
        return jax.vmap(lambda k: kernel.step(k, state, density))(keys)

    state, info = run(jax.random.split(jax.random.key(0), 500))
    assert np.isfinite(state.position).all() and np.isfinite(state.gradient).all()
    assert 50 < np.sum(info.diverging) < 450
    assert np.all(np.asarray(state.position[:, 0] == 0.9)[np.asarray(info.diverging)])
    assert np.all(np.asarray(info.acceptance_rate)[np.asarray(info.diverging)] == 0)


def test_trial_of_no_step_evaluates_the_position():
    density = as_density(log_density)
    z = np.array([0.1, 0.2, 0.3])
    blank = evaluate(jnp.asarray(z), lambda z: 0.0 * jnp.sum(z))
    state, _ = trial(HMC(0.0), jnp.zeros(3), blank, density)
    exact = evaluate(jnp.asarray(z), density)
    np.testing.assert_array_equal(state.position, z)
    np.testing.assert_allclose([state.log_density, *state.gradient], [exact.log_density, *exact.gradient])
