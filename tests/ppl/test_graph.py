"""Parents are read off the dataflow: exact through scans, loops, conditionals and custom derivatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from tests.oracles.evaluate import built

pytestmark = pytest.mark.standard_promotion


def parents(program):
    return {name: set(found) for name, found in program.graph().parents.items()}


def test_a_transition_does_not_read_the_observation_scale():
    case, _ = built("state_space")
    found = parents(case.program)
    assert found["y"] == {"x", "r"}
    assert found["x"] == {"x", "x0", "phi", "q"}
    assert found["last"] == {"x"}


def test_carries_of_one_chain_are_told_apart():
    @ppl.model
    def m():
        a, b, c = (ppl.sample(n, dist.Normal(0.0, 1.0)) for n in "abc")

        def step(carry, t):
            u, v, constant = carry
            u = ppl.sample("u", dist.Normal(u + a, 1.0))
            v = ppl.sample("v", dist.Normal(v * b + u, 1.0))
            ppl.sample("w", dist.Normal(constant, 1.0))
            return u, v, constant

        ppl.markov("t", step, init=(0.0, 0.0, c), xs=4)

    found = parents(m())
    assert found["u"] == {"u", "a"}
    assert found["v"] == {"v", "u", "b"}
    assert found["w"] == {"c"}


def test_a_dependence_that_needs_several_steps_is_found():
    # a shift register: w at time t reads u at time t - 3
    @ppl.model
    def m():
        def step(carry, t):
            first, second, third = carry
            u = ppl.sample("u", dist.Normal(0.0, 1.0))
            ppl.sample("w", dist.Normal(third, 1.0))
            return u, first, second

        ppl.markov("t", step, init=(0.0, 0.0, 0.0), xs=6)

    assert parents(m()) == {"u": set(), "w": {"u"}}


def test_loops_conditionals_and_jitted_functions_keep_their_arguments_apart():
    @jax.jit
    def swap(x, y):
        return y, x

    @ppl.model
    def m(flag):
        a, b, c, d = (ppl.sample(n, dist.Normal(0.0, 1.0)) for n in "abcd")
        first, second = swap(a, b)
        ppl.sample("jitted", dist.Normal(first, 1.0))
        ppl.sample("jitted2", dist.Normal(second, 1.0))
        x, y = jax.lax.cond(flag > 0, lambda a, b, c: (a, c), lambda a, b, c: (a * 2, b), a, b, c)
        ppl.sample("cond", dist.Normal(x, 1.0))
        ppl.sample("cond2", dist.Normal(y, 1.0))
        picked, _ = jax.lax.cond(d > 0, lambda a, b: (a, b), lambda a, b: (-a, b), a, b)
        ppl.sample("predicate", dist.Normal(picked, 1.0))
        p, q, _ = jax.lax.fori_loop(0, 3, lambda i, s: (s[0] + s[1], s[1] * 2, s[2] + d), (a, b, c))
        ppl.sample("fori", dist.Normal(p, 1.0))
        ppl.sample("fori2", dist.Normal(q, 1.0))
        stop = jax.lax.while_loop(lambda s: s[0] < c, lambda s: (s[0] + 1.0, s[1] * a), (b, 1.0))
        ppl.sample("while", dist.Normal(stop[1], 1.0))

    found = parents(m(1.0))
    assert found["jitted"] == {"b"} and found["jitted2"] == {"a"}
    assert found["cond"] == {"a"} and found["cond2"] == {"b", "c"}
    assert found["predicate"] == {"a", "d"}
    assert found["fori"] == {"a", "b"} and found["fori2"] == {"b"}
    assert found["while"] == {"a", "b", "c"}


def test_custom_derivatives_and_checkpoints_are_looked_through():
    @jax.custom_jvp
    def f(x, y):
        return jnp.sin(x), y

    @f.defjvp
    def _(primals, tangents):
        return f(*primals), tangents

    @jax.custom_vjp
    def g(x, y):
        return x * 2.0, y * 3.0

    g.defvjp(lambda x, y: (g(x, y), None), lambda _, ct: ct)

    @ppl.model
    def m():
        a, b = (ppl.sample(n, dist.Normal(0.0, 1.0)) for n in "ab")
        for name, function in [("f", f), ("g", g), ("h", jax.checkpoint(lambda x, y: (x + 1.0, y)))]:
            first, second = function(a, b)
            ppl.sample(f"{name}1", dist.Normal(first, 1.0))
            ppl.sample(f"{name}2", dist.Normal(second, 1.0))

    found = parents(m())
    for name in "fgh":
        assert found[f"{name}1"] == {"a"}, name
        assert found[f"{name}2"] == {"b"}, name


def test_records_are_transparent_and_factors_are_sinks():
    @ppl.model
    def m(y):
        tau = ppl.sample("tau", dist.HalfNormal(1.0))
        double = ppl.record("double", 2 * tau)
        x = ppl.sample("x", dist.Normal(0.0, double))
        ppl.factor("penalty", -(x**2))
        ppl.sample("y", dist.Normal(x, 1.0))

    graph = m(0.0).condition(y=1.0).graph()
    found = {name: set(p) for name, p in graph.parents.items()}
    assert found == {"tau": set(), "double": {"tau"}, "x": {"tau"}, "penalty": {"x"}, "y": {"x"}}
    assert graph.children("x") == {"penalty", "y"}
    assert graph.blanket("x") == {"tau", "penalty", "y"}
    assert graph.blanket("tau") == {"x"}


def test_a_latent_support_makes_the_bound_a_parent():
    @ppl.model
    def m():
        top = ppl.sample("top", dist.HalfNormal(1.0))
        ppl.sample("y", dist.Uniform(0.0, top))

    assert parents(m())["y"] == {"top"}


def test_what_is_multiplied_by_a_zero_of_the_data_is_still_a_parent():
    @ppl.model
    def m(x):
        b = ppl.sample("b", dist.Normal(0.0, 1.0))
        ppl.sample("y", dist.Normal(x * b, 1.0))

    assert parents(m(np.zeros(())))["y"] == {"b"}


def test_text_and_dot_show_plates_and_kinds():
    case, _ = built("eight_schools")
    graph = case.program.graph()
    text = str(graph)
    assert "plate school (8)" in text
    assert "  theta ~ Normal(mu, tau)" in text
    assert "  y ~ Normal(theta) (observed)" in text
    assert "best = f(theta)" in text
    dot = graph.dot()
    assert '"mu" -> "theta";' in dot and '"theta" -> "y";' in dot and '"mu" -> "y"' not in dot
    assert 'label="plate school (8)"' in dot
    assert dot.count("{") == dot.count("}")
