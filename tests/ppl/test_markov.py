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


# ---------------------------------------------------------------------------------------- labels


def labelled_walk(steps, labels):
    @ppl.model
    def m():
        return ppl.markov("t", lambda c, t: ppl.sample("x", dist.Normal(c, 1.0)), init=0.0, xs=steps, coords=labels)

    return m()


def test_labels_of_the_steps_become_coordinates_and_alone_give_their_number():
    for steps in (3, None, np.zeros(3)):
        program = labelled_walk(steps, ["jan", "feb", "mar"])
        assert program.sites["x"].shape == (3,) and program.coords["t"].tolist() == ["jan", "feb", "mar"]
    with pytest.raises(ppl.ModelError, match="3 elements but coords names 2 labels"):
        labelled_walk(3, ["jan", "feb"]).learned()


def test_labels_go_on_at_equal_distances_by_months_or_as_text():
    from ppl.following import continued

    def after(labels):
        return continued(labels, 2, "the labels", "here")[-2:]

    assert after([10, 20, 30]).tolist() == [40, 50]
    np.testing.assert_allclose(after([0.1, 0.2, 0.3]), [0.4, 0.5])
    assert after(["x", "y"]).tolist() == ["y+1", "y+2"]
    dates = {
        ("2020-11-01", "2020-11-08"): ["2020-11-15", "2020-11-22"],
        ("2020-11-15", "2020-12-15"): ["2021-01-15", "2021-02-15"],
        ("2020-01-31", "2020-03-31"): ["2020-05-31", "2020-07-31"],
        ("2023-11-30", "2023-12-31"): ["2024-01-31", "2024-02-29"],
    }
    for known, expected in dates.items():
        for unit in ("D", "ns"):
            assert after(np.array(known, f"M8[{unit}]")).astype("M8[D]").astype(str).tolist() == expected
    for odd in ([1, 2, 4], [5], [3, 3], np.array(["2020-01-01", "2020-01-02", "2020-01-09"], "M8[D]")):
        with pytest.raises(ppl.ModelError, match="not clear how the labels go on"):
            after(odd)
