"""Ensemble moves leave the joint law of their walkers invariant, in two and in twenty dimensions.

All walkers start from independent exact draws; ranks are those of one walker, of the walkers' means, and of how wide
and how far apart they are. Each test rejects a correct kernel with probability 1e-4; the mutants pass with one far
below 1e-6.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.inference.calibration.rank import rank_invariance
from ppl.inference.core import as_density
from ppl.inference.mcmc import DifferentialEvolution, Stretch, Walk, differential, halves, stretch

RNG = np.random.default_rng(3)
MAPS = {d: RNG.normal(size=(d, d)) / np.sqrt(d) * np.geomspace(1.0, 100.0, d)[:, None] for d in (2, 20)}


def target(d):
    """Logarithms of independent exponentials, mixed by a matrix: skewed and anisotropic."""
    inverse = np.linalg.inv(MAPS[d])

    def log_density(z):
        u = inverse @ z
        return jnp.sum(u - jnp.exp(u))

    return log_density, lambda key: MAPS[d] @ jnp.log(jax.random.exponential(key, (d,)))


def judge(kernel, d, walkers, replications=2048, steps=5, seed=1):
    log_density, sample = target(d)

    inverse = np.linalg.inv(MAPS[d])

    def functions(z):
        height = jnp.round(log_density(z[0]), 6)  # a walker that stays has equal values whatever the rounding
        u = z @ inverse.T
        size = jnp.stack([height, jnp.mean(jax.vmap(log_density)(z)), jnp.sum(u**2), jnp.sum(u[0] * u[walkers // 2])])
        return jnp.concatenate([z[0, :2], z[0, -2:] ** 2, jnp.mean(z[:, :2], axis=0), size])

    return rank_invariance(
        kernel,
        as_density(lambda z: log_density(z)),
        lambda key: jax.vmap(sample)(jax.random.split(key, walkers)),
        functions,
        replications=replications,
        steps=steps,
        seed=seed,
    )


KERNELS = {
    "stretch": Stretch(),
    "walk": Walk(),
    "differential": DifferentialEvolution(snooker=0.0),
    "snooker": DifferentialEvolution(snooker=1.0),
    "mixed": DifferentialEvolution(jitter=0.3, jumps=0.5, snooker=0.5),
}
WALKERS = {2: 6, 20: 24}


@pytest.mark.parametrize(("name", "d"), [("stretch", 2), ("stretch", 20), ("mixed", 2)])
def test_the_joint_law_is_invariant(name, d):
    result = judge(KERNELS[name], d, WALKERS[d], replications=2048 if d == 2 else 1024)
    assert result.passed(1e-4), str(result)


@pytest.mark.slow
@pytest.mark.parametrize("d", [2, 20])
@pytest.mark.parametrize("name", KERNELS)
def test_the_joint_law_is_invariant_many(name, d):
    result = judge(KERNELS[name], d, WALKERS[d], replications=20_000, steps=7, seed=2)
    assert result.passed(1e-4), str(result)


@pytest.mark.parametrize(
    ("name", "module", "d"),
    [
        ("stretch", stretch, 2),
        ("stretch", stretch, 20),
        pytest.param("snooker", differential, 2, marks=pytest.mark.slow),
    ],
)
def test_the_wrong_exponent_is_caught(monkeypatch, name, module, d):
    monkeypatch.setattr(module, "log_factor", lambda ratio, dim: dim * jnp.log(ratio))
    result = judge(KERNELS[name], d, WALKERS[d])
    assert not result.passed(1e-6), str(result)


@pytest.mark.slow
def test_taking_every_proposal_is_caught(monkeypatch):
    monkeypatch.setattr(halves, "uniforms", lambda key, count, x: 1e-30 * jnp.ones((count, len(x)), x.dtype))
    result = judge(KERNELS["walk"], 2, 6)
    assert not result.passed(1e-6), str(result)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stretch", "walk", "differential"])
def test_affine_coordinates_make_no_difference(name):
    """The same draws in other coordinates: positions are mapped, acceptances are the same."""
    kernel = {"differential": DifferentialEvolution(jitter=0.0, snooker=0.0)}.get(name, KERNELS[name])
    log_density, sample = target(2)
    matrix = np.array([[2.0, 1.0], [-300.0, 0.5]])
    inverse = np.linalg.inv(matrix)
    walkers = jax.vmap(sample)(jax.random.split(jax.random.key(0), 8))
    here = kernel.init(walkers, log_density)
    there = kernel.init(walkers @ matrix.T, lambda z: log_density(inverse @ z))
    step = jax.jit(lambda key, state: kernel.step(key, state, log_density))
    moved_step = jax.jit(lambda key, state: kernel.step(key, state, lambda z: log_density(inverse @ z)))
    for i in range(5):
        here, first = step(jax.random.key(i), here)
        there, second = moved_step(jax.random.key(i), there)
        np.testing.assert_allclose(here.position @ matrix.T, there.position, rtol=1e-8)
        np.testing.assert_allclose(first.acceptance_rate, second.acceptance_rate, rtol=1e-8)


@pytest.mark.slow
def test_a_walker_does_not_leave_the_support():
    """NaN and -inf are rejections."""
    log_density = lambda z: jnp.where(z[0] > 0, -z[0], jnp.nan)  # noqa: E731
    for kernel in (KERNELS["stretch"], KERNELS["mixed"]):
        state = kernel.init(jnp.arange(1.0, 9.0)[:, None], log_density)
        step = jax.jit(lambda key, state, kernel=kernel: kernel.step(key, state, log_density))
        for i in range(20):
            state, info = step(jax.random.key(i), state)
            assert np.all(state.position > 0) and np.all(np.isfinite(state.log_density))
            assert 0 <= info.acceptance_rate <= 1
        assert not np.all(state.position == jnp.arange(1.0, 9.0)[:, None])


def test_one_position_is_no_ensemble():
    with pytest.raises(ValueError, match="even number of walkers, at least 4"):
        Stretch().init(jnp.zeros(3), lambda z: -jnp.sum(z**2))
