"""Simulation: exact moments, common random numbers, clamped values, and what cannot be simulated."""

from __future__ import annotations

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from tests.oracles.evaluate import NAMES, built

pytestmark = pytest.mark.standard_promotion


@ppl.model
def chain():
    a = ppl.sample("a", dist.Normal(1.0, 2.0))
    b = ppl.sample("b", dist.Normal(0.5 * a, 1.0))

    @ppl.plate("row", 3)
    def _():
        ppl.sample("y", dist.Normal(a + b, 0.5))

    ppl.record("sum", a + b)


def draws(program, n, seed, values=None):
    keys = jax.random.split(jax.random.key(seed), n)
    return jax.jit(jax.vmap(lambda k: program.simulate(k, values or {})))(keys)


def test_moments_are_those_of_the_joint_normal():
    # 5 means and 15 covariances, |z| < 4.5 each: false alarm 1.4e-4
    n = 20_000
    found = draws(chain(), n, 5)
    x = np.column_stack([found["a"], found["b"], found["y"]])
    A = np.array([[1, 0, 0, 0, 0], [0.5, 1, 0, 0, 0], *[[1.5, 1, *row] for row in np.eye(3)]])
    covariance = A @ np.diag([4.0, 1.0, 0.25, 0.25, 0.25]) @ A.T
    mean = np.array([1.0, 0.5, 1.5, 1.5, 1.5])
    z = (x.mean(0) - mean) / np.sqrt(np.diag(covariance) / n)
    assert np.abs(z).max() < 4.5
    centred = x - mean
    products = centred[:, :, None] * centred[:, None, :]
    z = (products.mean(0) - covariance) / (products.std(0) / np.sqrt(n))
    assert np.abs(z).max() < 4.5


def test_discrete_and_dependent_families_have_their_moments():
    @ppl.model
    def m():
        p = ppl.sample("p", dist.Beta(2.0, 3.0))
        n = ppl.sample("n", dist.Poisson(6.0))
        ppl.sample("k", dist.Binomial(n, p))

    # E k = 6 * 0.4; given p, k is Poisson(6 p): var k = 2.4 + 36 var p = 2.4 + 36 * 0.04. |z| < 4: 1e-4
    found = draws(m(), 20_000, 6)
    k = np.asarray(found["k"], float)
    assert (found["k"] <= found["n"]).all()
    variance = 2.4 + 36 * 0.04
    assert abs(k.mean() - 2.4) < 4 * np.sqrt(variance / k.size)
    square = (k - 2.4) ** 2
    assert abs(square.mean() - variance) < 4 * square.std() / np.sqrt(k.size)


def test_programs_that_differ_by_do_or_condition_share_the_noise_of_the_rest():
    free = chain().sample(9)
    for fixed in (chain().do(b=0.0), chain().condition(b=0.0)):
        draw = fixed.sample(9)
        assert draw["b"] == 0.0
        np.testing.assert_array_equal(draw["a"], free["a"])
        np.testing.assert_allclose(draw["y"] - draw["sum"], free["y"] - free["sum"], rtol=0, atol=1e-14)
    assert not np.array_equal(chain().sample(10)["a"], free["a"])


def test_a_counterfactual_moves_by_the_effect_alone():
    low, high = chain().do(a=0.0).sample(4), chain().do(a=1.0).sample(4)
    np.testing.assert_allclose(high["b"] - low["b"], 0.5, atol=1e-14)
    np.testing.assert_allclose(high["y"] - low["y"], 1.5, atol=1e-14)


def test_a_site_draws_the_same_whatever_stands_before_it():
    @ppl.model
    def longer():
        ppl.sample("new", dist.Normal(0.0, 1.0))
        a = ppl.sample("a", dist.Normal(1.0, 2.0))
        ppl.sample("b", dist.Normal(0.5 * a, 1.0))

    np.testing.assert_array_equal(longer().sample(2)["b"], chain().sample(2)["b"])


def test_clamped_values_pass_through_and_simulate_equals_sample():
    program = chain()
    key = jax.random.key(3)
    pure = jax.jit(program.simulate)(key, {})
    for name, value in program.sample(3).items():
        np.testing.assert_allclose(pure[name], value, rtol=1e-14)
    clamped = program.simulate(key, {"a": jnp.asarray(4.0), "y": jnp.arange(3.0)})
    np.testing.assert_array_equal(clamped["y"], [0.0, 1.0, 2.0])
    np.testing.assert_allclose(clamped["b"] - 2.0, pure["b"] - 0.5 * pure["a"], atol=1e-14)


@pytest.mark.parametrize("name", ["state_space", "calls", "intervention"])
def test_a_draw_has_every_site_and_record_in_its_shape_and_support(name):
    case, density = built(name)
    program = case.program
    draw = program.sample(1)
    sites = program.sites
    assert set(draw) == {n for n, s in sites.items() if s.kind != "factor"}
    for site, value in draw.items():
        assert value.shape == sites[site].shape and value.dtype == sites[site].dtype, site
    assert np.isfinite(program.log_prob({n: draw[n] for n in program.latent()}))
    z = density.unconstrain({n: draw[n] for n in program.latent()})
    for site, value in density.constrain(z).items():
        np.testing.assert_allclose(value, draw[site], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", [n for n in NAMES if n in ("flats", "volatility", "branches", "local_trend")])
def test_what_would_simulate_another_model_is_refused_by_name(name):
    case, _ = built(name)
    assert not case.simulable
    with pytest.raises(ppl.ModelError, match="improper prior|factor '"):
        case.program.sample(0)


def test_a_prior_draw_is_distributed_as_the_prior():
    @ppl.model
    def m():
        s = ppl.sample("s", dist.LogNormal(0.3, 0.7))
        ppl.sample("x", dist.Uniform(-s, s))

    # log s ~ N(0.3, 0.7), and the logit of (x + s) / 2s is standard logistic with variance pi^2 / 3. |z| < 4: 3e-4
    density = ppl.compile(m())
    n = 10_000
    z = np.asarray(jax.jit(jax.vmap(density.prior))(jax.random.split(jax.random.key(8), n)))
    for column, mean, variance in ((z[:, 0], 0.3, 0.49), (z[:, 1], 0.0, np.pi**2 / 3)):
        assert abs(column.mean() - mean) < 4 * np.sqrt(variance / n)
        square = (column - mean) ** 2
        assert abs(square.mean() - variance) < 4 * square.std() / np.sqrt(n)
    assert abs(np.corrcoef(z.T)[0, 1]) < 4 / np.sqrt(n)


def test_an_improper_prior_cannot_be_drawn():
    @ppl.model
    def m():
        mu = ppl.sample("mu", dist.Flat())
        ppl.sample("y", dist.Normal(mu, 1.0))

    density = ppl.compile(m().condition(y=1.0))
    with pytest.raises(ppl.ImproperPrior, match="mu"):
        density.prior(jax.random.key(0))
    assert float(m().do(mu=2.0).sample(0)["mu"]) == 2.0


def test_threads_do_not_share_the_ambient_frame():
    results, errors = {}, []

    @ppl.model
    def m(x):
        b = ppl.sample("b", dist.Normal(0.0, 1.0))

        @ppl.plate("row", x)
        def _(x):
            ppl.sample("y", dist.Normal(b * x, 1.0))

    def work(i):
        try:
            x = np.arange(1.0, 3.0 + i)
            with jax.enable_x64(True):
                results[i] = float(ppl.compile(m(x).condition(y=np.ones_like(x)))(np.ones(1)))
        except Exception as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    for i in range(4):
        x = np.arange(1.0, 3.0 + i)
        exact = -0.5 - 0.5 * np.sum((1 - x) ** 2) - 0.5 * (x.size + 1) * np.log(2 * np.pi)
        np.testing.assert_allclose(results[i], exact, rtol=1e-12)


def test_a_model_may_run_other_programs_while_it_runs():
    @ppl.model
    def other():
        ppl.sample("y", dist.Normal(0.0, 1.0))

    @ppl.model
    def m():
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        shift = ppl.compile(other().condition(y=2.0))(np.zeros(0)) + other().sample(0)["y"]
        ppl.sample("w", dist.Normal(x + shift, 1.0))

    assert set(m().sites) == {"x", "w"}
    shift = -2.0 - 0.5 * np.log(2 * np.pi) + float(other().sample(0)["y"])
    value = ppl.compile(m().condition(w=0.0))(np.array([0.5]))
    np.testing.assert_allclose(value, -0.125 - 0.5 * (0.5 + shift) ** 2 - np.log(2 * np.pi), rtol=1e-12)


def test_single_precision_is_a_context():
    with jax.enable_x64(False):
        program = chain().condition(y=[1, 2, 3])
        density = ppl.compile(program)
        z = np.zeros(2, np.float32)
        assert density(z).dtype == np.float32
        assert density.constrain(z)["a"].dtype == np.float32
        assert program.sample(0)["b"].dtype == np.float32
        value = float(density(z))
    exact = float(ppl.compile(chain().condition(y=[1, 2, 3]))(np.zeros(2)))
    assert abs(value - exact) < 1e-4 and exact != value
