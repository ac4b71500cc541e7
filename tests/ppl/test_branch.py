"""Branches: both sides run, the observed factors of one count. Densities: test_densities.py."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from tests.oracles import logpdfs as lp

pytestmark = pytest.mark.standard_promotion


@ppl.model
def either():
    x = ppl.sample("x", dist.Normal(0.0, 1.0))

    def wide():
        s = ppl.sample("s", dist.HalfNormal(3.0))
        ppl.sample("y", dist.Normal(0.0, s))
        return s

    return ppl.branch("side", x > 0, wide, lambda: 1.0)


def test_an_observed_factor_counts_on_its_side_only():
    density = ppl.compile(either().condition(y=0.7))
    for x in (0.5, -0.5):
        s = np.exp(0.2)
        exact = lp.normal(x, 0.0, 1.0) + lp.half_normal(s, 3.0) + 0.2
        exact = exact + (lp.normal(0.7, 0.0, s) if x > 0 else 0.0)
        np.testing.assert_allclose(density(np.array([x, 0.2])), exact, rtol=1e-12)


def test_a_latent_site_of_the_other_side_keeps_its_prior_so_the_joint_stays_proper():
    # with y latent too, the density factorises whatever x is: integrate over x on a grid, s and y at a point
    density = ppl.compile(either())
    grid = np.linspace(-8.0, 8.0, 4001)
    z = np.stack([grid, np.full_like(grid, 0.2), np.full_like(grid, 0.7)], axis=1)
    values = np.exp(jax.jit(jax.vmap(lambda d, z: d(z), in_axes=(None, 0)))(density, z))
    exact = np.exp(lp.half_normal(np.exp(0.2), 3.0) + 0.2 + lp.normal(0.7, 0.0, np.exp(0.2)))
    np.testing.assert_allclose(np.trapezoid(values, grid), exact, rtol=1e-9)


def test_a_side_that_is_not_taken_spoils_neither_value_nor_gradient_of_observed_factors():
    @ppl.model
    def m():
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        safe = jnp.where(x > 0, x, 1.0)
        ppl.branch(
            "side",
            x > 0,
            lambda: ppl.sample("y", dist.Normal(0.0, safe)),
            lambda: ppl.sample("w", dist.Uniform(0.0, x)),
        )

    d = ppl.compile(m().condition(y=1.0, w=2.0))
    value, gradient = jax.jit(jax.value_and_grad(lambda d, z: d(z), argnums=1))(d, np.array([0.8]))
    np.testing.assert_allclose(value, lp.normal(0.8, 0.0, 1.0) + lp.normal(1.0, 0.0, 0.8), rtol=1e-12)
    np.testing.assert_allclose(gradient, [-0.8 - 1 / 0.8 + 1 / 0.8**3], rtol=1e-12)


def test_sites_know_on_which_side_they_stand():
    learned = either().learned()
    assert learned["x"].branches == ()
    assert learned["s"].branches == learned["y"].branches == ("side:true",)


def test_the_result_is_selected_leaf_by_leaf():
    @ppl.model
    def m(x):
        return ppl.branch("b", x > 0, lambda: {"a": x, "b": (1, 2.0)}, lambda: {"a": -x, "b": (3, 4.0)})

    assert m(2.0).run() == {"a": 2.0, "b": (1, 2.0)}
    assert m(-2.0).run() == {"a": 2.0, "b": (3, 4.0)}


def test_what_cannot_be_selected_is_refused():
    @ppl.model
    def structures(x):
        ppl.branch("b", x > 0, lambda: x, lambda: (x, x))

    @ppl.model
    def shapes(x):
        ppl.branch("b", x > 0, lambda: jnp.zeros(2), lambda: jnp.zeros(3))

    @ppl.model
    def predicate(x):
        ppl.branch("b", jnp.array([x > 0, x < 0]), lambda: x, lambda: x)

    @ppl.model
    def twice(x):
        ppl.branch("b", x > 0, *[lambda: ppl.sample("y", dist.Normal(0.0, 1.0))] * 2)

    for model, message in [(structures, "structures"), (shapes, "shapes"), (predicate, "scalar"), (twice, "twice")]:
        with pytest.raises(ppl.ModelError, match=message):
            model(1.0).learned()
