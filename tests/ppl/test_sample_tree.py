"""Priors on the leaves of a pytree. Densities: test_densities.py."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from tests.oracles import logpdfs as lp

pytestmark = pytest.mark.standard_promotion


class Layer(eqx.Module):
    weight: jax.Array
    bias: jax.Array | None
    steps: int = 3
    name: str = eqx.field(static=True, default="layer")


def test_names_are_paths_and_other_leaves_stay_as_they_are():
    template = {
        "a": [np.zeros(2), (np.zeros((1, 3)), 5, "text", None, np.arange(3))],
        "layer": Layer(jnp.zeros(4), None),
    }
    kept = {}

    @ppl.model
    def m():
        kept.update(ppl.sample_tree("t", template, dist.Normal(0.0, 1.0)))

    sites = m().sites
    assert {n: s.shape for n, s in sites.items()} == {"t/a/0": (2,), "t/a/1/0": (1, 3), "t/layer/weight": (4,)}
    assert kept["a"][1][1:4] == (5, "text", None)
    np.testing.assert_array_equal(kept["a"][1][4], np.arange(3))
    assert kept["layer"].steps == 3 and kept["layer"].name == "layer" and kept["layer"].bias is None


def test_the_prior_may_depend_on_the_path_and_the_leaf():
    seen = []

    def prior(path, leaf):
        seen.append((path, leaf.shape))
        return dist.Normal(0.0, 1.0 / np.sqrt(leaf.size))

    @ppl.model
    def m():
        t = ppl.sample_tree("t", {"w": np.zeros((2, 2)), "b": np.zeros(())}, prior)
        ppl.sample("y", dist.Normal(t["w"].sum() + t["b"], 1.0))

    density = ppl.compile(m().condition(y=1.0))
    assert ("w", (2, 2)) in seen and ("b", ()) in seen
    b, w = 0.3, np.array([0.1, -0.2, 0.5, 0.7])
    exact = lp.normal(b, 0.0, 1.0) + lp.normal(w, 0.0, 0.5) + lp.normal(1.0, w.sum() + b, 1.0)
    np.testing.assert_allclose(density(np.array([b, *w])), exact, rtol=1e-12)


def test_a_bare_array_is_a_tree():
    @ppl.model
    def m():
        return ppl.sample_tree("w", np.zeros((2, 3)), dist.Normal(0.0, 1.0))

    assert m().sites["w"].shape == (2, 3)


def test_inside_a_plate_every_element_has_its_own_tree():
    @ppl.model
    def m(x):
        @ppl.plate("unit", x)
        def _(x):
            net = ppl.sample_tree("net", Layer(np.zeros((2, 2)), np.zeros(2)), dist.Normal(0.0, 1.0))
            ppl.sample("y", dist.Normal(jnp.tanh(net.weight @ x + net.bias), 1.0).to_event(1))

    x = np.random.default_rng(0).normal(size=(3, 2))
    program = m(x).condition(y=np.zeros((3, 2)))
    assert program.sites["net/weight"].shape == (3, 2, 2)
    z = np.random.default_rng(1).normal(size=18)
    weight, bias = z[:12].reshape(3, 2, 2), z[12:].reshape(3, 2)
    exact = lp.normal(z, 0.0, 1.0)
    for i in range(3):
        exact = exact + lp.normal(np.zeros(2), np.tanh(weight[i] @ x[i] + bias[i]), 1.0)
    np.testing.assert_allclose(ppl.compile(program)(z), exact, rtol=1e-12)


def test_a_scope_stands_before_the_name():
    @ppl.model
    def part():
        ppl.sample_tree("net", {"w": np.zeros(2)}, dist.Normal(0.0, 1.0))

    @ppl.model
    def m():
        ppl.call("left", part())
        ppl.call("right", part())

    assert set(m().sites) == {"left/net/w", "right/net/w"}
