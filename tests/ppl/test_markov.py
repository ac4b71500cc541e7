"""Chains: carries, inputs, randomness by time, and an exact marginal. Densities: test_densities.py."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist

pytestmark = pytest.mark.standard_promotion


@ppl.model
def walk(n, rho, q):
    def start():
        return ppl.sample("x0", dist.Normal(0.0, q / jnp.sqrt(1 - rho**2)))

    def step(x, _):
        x = ppl.sample("x", dist.Normal(rho * x, q))
        ppl.sample("y", dist.Normal(x, 0.5))
        return x

    return ppl.markov("time", step, init=start, xs=n)


def test_sites_of_the_chain_gain_its_axis_and_those_of_init_do_not():
    sites = walk(5, 0.5, 1.0).sites
    assert sites["x"].shape == (5,) and sites["x"].dims == ("time",)
    assert sites["x0"].shape == ()


def test_the_result_is_the_carry_after_each_step():
    @ppl.model
    def m(xs):
        return ppl.markov("t", lambda c, x: (c[0] + x, c[0]), init=(10.0, -1.0), xs=xs)

    total, before = m(np.array([1.0, 2.0, 3.0])).run()
    np.testing.assert_array_equal(total, [11.0, 13.0, 16.0])
    np.testing.assert_array_equal(before, [10.0, 11.0, 13.0])


def test_an_integer_is_a_number_of_steps_and_the_step_receives_the_index():
    @ppl.model
    def m():
        return ppl.markov("t", lambda c, t: c + t, init=0, xs=4)

    np.testing.assert_array_equal(m().run(), [0.0, 1.0, 3.0, 6.0])


def test_noise_belongs_to_the_time_so_a_longer_chain_continues_a_shorter_one():
    few, many = walk(4, 0.5, 1.0).sample(3), walk(9, 0.5, 1.0).sample(3)
    np.testing.assert_allclose(few["x"], many["x"][:4], rtol=1e-14)
    np.testing.assert_allclose(few["y"], many["y"][:4], rtol=1e-14)


def test_covariances_over_time_are_those_of_the_stationary_autoregression():
    # x_s, x_t have covariance q^2 rho^|s-t| / (1 - rho^2). Six standardised statistics, |z| < 4: false alarm 4e-4.
    rho, q, n = 0.7, 1.3, 4000
    program = walk(4, rho, q)
    keys = jax.random.split(jax.random.key(11), n)
    x = np.asarray(jax.jit(jax.vmap(lambda k: program.simulate(k, {})["x"]))(keys))
    variance = q**2 / (1 - rho**2)
    for lag in range(3):
        product = x[:, 0] * x[:, lag]
        z = (product.mean() - variance * rho**lag) / (product.std() / np.sqrt(n))
        assert abs(z) < 4, lag
        assert abs(x[:, lag].mean()) < 4 * np.sqrt(variance / n)


def test_the_density_integrates_to_the_marginal_of_the_kalman_filter():
    # Gaussian in (x0, x): the integral over both is exact by Laplace's formula at the mode.
    y = np.array([0.3, -1.0, 2.0])
    rho, q, r = 0.6, 0.9, 0.5
    density = ppl.compile(walk(3, rho, q).condition(y=y))
    zero = jnp.zeros(4)
    hessian = jax.jit(jax.hessian(lambda d, z: d(z), argnums=1))(density, zero)
    gradient = jax.jit(jax.grad(lambda d, z: d(z), argnums=1))(density, zero)
    mode = -np.linalg.solve(hessian, gradient)
    integral = density(mode) + 2 * np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(-hessian)[1]
    m, P, log_marginal = 0.0, q**2 / (1 - rho**2), 0.0
    for value in y:
        m, P = rho * m, rho**2 * P + q**2
        S = P + r**2
        log_marginal += -0.5 * (value - m) ** 2 / S - 0.5 * np.log(2 * np.pi * S)
        m, P = m + P / S * (value - m), P * r**2 / S
    np.testing.assert_allclose(integral, log_marginal, rtol=1e-10)


def test_a_step_must_return_a_carry_like_its_own():
    @ppl.model
    def m():
        ppl.markov("t", lambda c, t: (c, c), init=0.0, xs=3)

    with pytest.raises(ppl.ModelError, match="same structure as init"):
        m().learned()


def test_inputs_are_needed_and_must_agree():
    @ppl.model
    def nothing():
        ppl.markov("t", lambda c, t: c, init=0.0)

    with pytest.raises(ppl.ModelError, match="needs xs"):
        nothing().learned()

    @ppl.model
    def uneven(a, b):
        ppl.markov("t", lambda c, x: c, init=0.0, xs=(a, b))

    with pytest.raises(ppl.ModelError, match="disagree in length"):
        uneven(np.zeros(2), np.zeros(3)).learned()
    with pytest.raises(ppl.ModelError, match="size 0"):
        walk(0, 0.5, 1.0).learned()


def test_an_integer_start_does_not_truncate_the_states():
    @ppl.model
    def m():
        return ppl.markov("t", lambda c, t: ppl.sample("x", dist.Normal(c, 1.0)), init=0, xs=3)

    draw = m().sample(0)
    np.testing.assert_array_equal(m().run(seed=0), draw["x"])
    assert np.any(draw["x"] != np.round(draw["x"]))
