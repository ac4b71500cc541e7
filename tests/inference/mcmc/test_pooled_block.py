"""The compiled block: its trajectories against a plain integrator, its evaluations, its lowering."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from ppl.inference.adapt.fisher import scaled
from ppl.inference.core import FunctionDensity
from ppl.inference.mcmc.pooled_block import SIZE, Lanes, block


def quartic(z):
    return -0.5 * jnp.sum(z * z * jnp.array([1.0, 4.0])) - 0.1 * jnp.sum(z) ** 4


def leapfrogs(z, p, step, count, sigma):
    """Velocity Verlet, written with half kicks in every step; the last momentum too."""

    def gradient(z):
        return np.array([-z[0], -4 * z[1]]) - 0.4 * np.sum(z) ** 3

    for _ in range(count):
        p = p + 0.5 * step * gradient(z)
        z = z + step * sigma @ p
        p = p + 0.5 * step * gradient(z)
    return z, p


def run_block(target, z, noise, metric, step, length, gain=0.0, count=SIZE, most=100.0):
    lanes = Lanes(target, 1, 1)
    device = lanes.put_metric(metric)
    lp, g = lanes.evaluate(z, device)
    state = np.concatenate([z, g, lp[:, None]], axis=1)
    schedule = np.stack([np.linspace(0.5, 1.5, SIZE), np.full(SIZE, gain)], axis=1)
    return lanes.run(state, noise, schedule, (np.log(step), length, most, 0.9), device, count)


def test_trajectories_are_leapfrogs_and_their_energy_error_is_right():
    rng = np.random.default_rng(0)
    factor = np.array([[1.0, 0.0], [0.4, 0.7]])
    metric = replace(scaled(np.ones(2), True), factor=factor, inverse=np.linalg.inv(factor))
    z = rng.normal(size=(3, 2))
    normals = rng.normal(size=(SIZE, 3, 2))
    kinetic = 0.5 * np.sum(normals**2, axis=2)
    uniforms = np.log(rng.random((SIZE, 3)))
    noise = np.concatenate([metric.momenta(normals), kinetic[..., None], uniforms[..., None]], axis=2)
    rows = run_block(FunctionDensity(quartic, 2), z, noise, metric, 0.35, 2.0)
    density = jax.jit(quartic)
    rejected = 0
    for t in range(SIZE):
        count = int(np.ceil(2.0 * np.linspace(0.5, 1.5, SIZE)[t] / 0.35))
        assert (rows.leapfrogs[t] == count).all()
        for c in range(3):
            p = np.linalg.solve(factor.T, normals[t, c])
            new, p_new = leapfrogs(z[c], p, 0.35, count, factor @ factor.T)
            change = density(new) - density(z[c]) + kinetic[t, c] - 0.5 * np.sum((factor.T @ p_new) ** 2)
            np.testing.assert_allclose(rows.change[t, c], change, rtol=1e-7, atol=1e-9)
            if uniforms[t, c] < change:
                z[c] = new
            else:
                rejected += 1
            np.testing.assert_allclose(rows.positions[t, c], z[c], rtol=1e-8)
            np.testing.assert_allclose(rows.log_density[t, c], density(z[c]), rtol=1e-8)
            np.testing.assert_allclose(rows.gradients[t, c], jax.grad(quartic)(z[c]), rtol=1e-7, atol=1e-9)
    assert rejected > 0


def test_step_size_moves_by_gain_times_acceptance_minus_target():
    rng = np.random.default_rng(1)
    noise = np.concatenate([rng.normal(size=(SIZE, 4, 2)), np.ones((SIZE, 4, 1)), np.zeros((SIZE, 4, 1))], axis=2)
    rows = run_block(
        FunctionDensity(quartic, 2), rng.normal(size=(4, 2)), noise, scaled(np.ones(2), True), 0.5, 1.0, 0.3
    )
    moves = np.diff(np.concatenate([[np.log(0.5)], rows.log_step[:, 0]]))
    np.testing.assert_allclose(moves, 0.3 * (rows.acceptance().mean(axis=1) - 0.9), atol=1e-12)


def test_lanes_share_the_chains():
    """With a frozen step size chains do not see each other, so shares change rounding at most."""
    rng = np.random.default_rng(2)
    state = np.concatenate([rng.normal(size=(6, 2)), np.zeros((6, 3))], axis=1)
    noise = np.concatenate([rng.normal(size=(SIZE, 6, 2)), np.ones((SIZE, 6, 1)), -np.ones((SIZE, 6, 1))], axis=2)
    schedule = np.tile([1.0, 0.0], (SIZE, 1))
    results = []
    for lanes, threads in ((1, 1), (2, 1), (3, 3)):
        runner = Lanes(FunctionDensity(quartic, 2), lanes, threads)
        device = runner.put_metric(scaled(np.ones(2), True))
        results.append(runner.run(state, noise, schedule, (np.log(0.3), 1.5, 50.0, 0.9), device, 7).values)
    assert results[0].shape == (7, 6, 8)
    np.testing.assert_allclose(results[1], results[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(results[2], results[0], rtol=1e-9, atol=1e-12)


def test_the_program_lowers_for_accelerators():
    arguments = (np.zeros((4, 5)), np.zeros((SIZE, 4, 4)), np.zeros((SIZE, 2)), np.zeros(4))
    for metric in (np.eye(2), np.ones(2), (np.ones(2), np.ones((2, 1)), np.ones(1))):
        traced = block.trace(FunctionDensity(quartic, 2), *arguments, metric, metric, np.int32(3))
        text = traced.lower(lowering_platforms=("cuda", "tpu")).as_text()
        assert "while" in text
        assert "cholesky" not in text and "threefry" not in text and "callback" not in text


def test_inadmissible_evaluations_are_minus_infinity():
    def target(z):
        x = z[0]
        nan_gradient = jnp.where(x > 2, jnp.sqrt(jnp.maximum(2.0 - x, 0.0)), 0.0)
        spike = jnp.where(jnp.abs(x - 1.5) < 0.1, jnp.inf, -0.5 * x * x)
        return jnp.where(x < -1, jnp.where(x < -3, jnp.nan, -jnp.inf), spike) + nan_gradient

    lanes = Lanes(FunctionDensity(target, 1), 1, 1)
    z = np.array([[0.5], [3.0], [-2.0], [-4.0], [1.5]])
    lp, g = lanes.evaluate(z, lanes.put_metric(scaled(np.ones(1), True)))
    np.testing.assert_array_equal(lp, [-0.125, -np.inf, -np.inf, -np.inf, -np.inf])
    np.testing.assert_array_equal(g[:, 0], [-0.5, 0.0, 0.0, 0.0, 0.0])
