"""Full conditionals: only the factors of the blanket, over the block's own coordinates."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from tests.oracles import logpdfs as lp
from tests.oracles.evaluate import built, points

pytestmark = pytest.mark.standard_promotion


def test_only_the_factors_of_the_blanket_are_computed():
    case, density = built("state_space")
    z = points("state_space")[0][0]
    names = density.compiled.names
    read = {site: {names[i] for i in density.restrict(site, z).outputs} for site in density.layout}
    assert read["r"] == {("factor", "r"), ("logdet", "r"), ("factor", "y")}
    assert read["q"] == {("factor", "q"), ("logdet", "q"), ("factor", "x")}
    assert read["x0"] == {("factor", "x0"), ("factor", "x")} | (read["x0"] & {("logdet", "x0")})
    assert ("factor", "x") in read["x"] and ("factor", "y") in read["x"] and ("factor", "r") not in read["x"]


def test_a_factor_elsewhere_cannot_spoil_it():
    @ppl.model
    def m():
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        b = ppl.sample("b", dist.Normal(0.0, 1.0))
        ppl.factor("broken", jnp.log(b))
        ppl.sample("y", dist.Normal(a, 2.0))

    d = ppl.compile(m().condition(y=1.0))
    z = jnp.array([0.3, -1.0])
    assert np.isnan(d(z))
    exact = lp.normal(0.3, 0.0, 1.0) + lp.normal(1.0, 0.3, 2.0)
    np.testing.assert_allclose(d.restrict("a", z)(z[:1]), exact, rtol=1e-12)


def test_several_sites_are_read_in_the_order_in_which_they_are_named():
    case, density = built("eight_schools")
    z = points("eight_schools")[0][0]
    conditional = density.restrict(["theta", "mu"], z)
    assert conditional.dim == 9
    np.testing.assert_array_equal(conditional.start(), np.concatenate([z[2:], z[:1]]))
    moved = np.arange(9.0)
    merged = conditional.merge(moved)
    np.testing.assert_array_equal(merged, np.concatenate([[8.0], z[1:2], moved[:8]]))
    change = conditional(moved) - conditional(conditional.start())
    np.testing.assert_allclose(change, density(merged) - density(z), rtol=1e-11)


def test_the_position_held_is_data_and_the_gradient_is_that_of_the_block():
    case, density = built("group_effects")
    z = points("group_effects")[0]
    slot = density.layout["e"]

    @jax.jit
    def gradients(density, z):
        block = z[slot.start : slot.stop]
        return jax.grad(lambda x: density.restrict("e", z)(x))(block), jax.grad(density)(z)[slot.start : slot.stop]

    for row in (0, 1):
        ours, exact = gradients(density, z[row])
        np.testing.assert_allclose(ours, exact, rtol=1e-11)


def test_a_bound_carries_the_dependence_of_the_determinant():
    # c ~ Uniform(a - w, a + 2 w): moving w moves the image and the determinant of c
    case, density = built("intervals")
    z = points("intervals")[0]
    conditional = density.restrict("w", z[0])
    assert ("logdet", "c") in {density.compiled.names[i] for i in conditional.outputs}


def test_unknown_names_are_refused():
    _, density = built("eight_schools")
    with pytest.raises(ppl.ModelError, match="theta"):
        density.restrict("thta", jnp.zeros(10))
    with pytest.raises(ppl.ModelError, match="'y' is not a latent site"):
        density.restrict("y", jnp.zeros(10))
