"""Sub-models under a scope: names, conditions, overriding. Densities: test_densities.py."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from tests.oracles import logpdfs as lp

pytestmark = pytest.mark.standard_promotion


@ppl.model
def part(width):
    m = ppl.sample("m", dist.Normal(0.0, width))
    ppl.record("double", 2 * m)

    @ppl.plate("row", 2)
    def _():
        ppl.sample("y", dist.Normal(m, 1.0))

    return m


@ppl.model
def whole(sub):
    a = ppl.call("a", sub)
    b = ppl.call("b", part(2.0))
    ppl.sample("sum", dist.Normal(a + b, 1.0))


def test_sites_and_plates_carry_the_scope():
    sites = whole(part(1.0)).sites
    assert set(sites) == {f"{s}/{n}" for s in "ab" for n in ("m", "double", "y")} | {"sum"}
    assert sites["a/y"].dims == ("a/row",) and sites["b/y"].dims == ("b/row",)


def test_two_calls_may_have_plates_of_one_name_and_different_sizes():
    @ppl.model
    def sized(n):
        ppl.plate("row", lambda: ppl.sample("y", dist.Normal(0.0, 1.0)), n)

    @ppl.model
    def m():
        ppl.call("a", sized(2))
        ppl.call("b", sized(3))

    assert m().sites["b/y"].shape == (3,)


def test_conditions_of_the_part_hold_and_the_outer_program_may_override_them():
    y = np.array([0.5, 1.5])
    inner = part(1.0).condition(y=y)
    program = whole(inner)
    assert program.sites["a/y"].kind == "observed" and program.sites["b/y"].kind == "latent"
    values = {"a/m": 0.3, "b/m": -0.2, "b/y": np.zeros(2), "sum": 0.0}
    rest = lp.normal(0.3, 0.0, 1.0) + lp.normal(-0.2, 0.0, 2.0) + lp.normal(np.zeros(2), -0.2, 1.0)
    rest = rest + lp.normal(0.0, 0.1, 1.0)
    np.testing.assert_allclose(program.log_prob(values), rest + lp.normal(y, 0.3, 1.0), rtol=1e-12)
    other = program.condition({"a/y": y + 1})
    np.testing.assert_allclose(other.log_prob(values), rest + lp.normal(y + 1, 0.3, 1.0), rtol=1e-12)
    done = program.do({"a/y": y})
    assert done.sites["a/y"].kind == "done"
    np.testing.assert_allclose(done.log_prob(values), rest, rtol=1e-12)
    np.testing.assert_array_equal(program.sample(0)["a/y"], y)


def test_conditioned_data_are_sliced_by_the_plates_inside_and_shared_by_those_around():
    y = np.array([0.5, 1.5])

    @ppl.model
    def m():
        @ppl.plate("unit", 3)
        def _():
            ppl.call("in", part(1.0).condition(y=y))

    program = m()
    assert program.sites["in/y"].shape == (3, 2)
    values = {"in/m": np.array([0.1, 0.2, 0.3])}
    exact = sum(lp.normal(v, 0.0, 1.0) + lp.normal(y, v, 1.0) for v in values["in/m"])
    np.testing.assert_allclose(program.log_prob(values), exact, rtol=1e-12)


def test_the_same_scope_twice_is_a_clash():
    @ppl.model
    def m():
        ppl.call("a", part(1.0))
        ppl.call("a", part(1.0))

    with pytest.raises(ppl.ModelError, match="'a/m' is used twice"):
        m().learned()


def test_only_programs_can_be_called():
    @ppl.model
    def m():
        ppl.call("a", part)

    with pytest.raises(ppl.ModelError, match="needs a program"):
        m().learned()


def test_arguments_of_a_part_may_be_random_variables():
    @ppl.model
    def m():
        s = ppl.sample("s", dist.HalfNormal(1.0))
        ppl.call("a", part(s))

    assert m().graph().parents["a/m"] == {"s"}
    d = ppl.compile(m().condition({"a/y": np.zeros(2)}))
    s = jnp.exp(0.4)
    exact = lp.half_normal(s, 1.0) + 0.4 + lp.normal(0.2, 0.0, s) + lp.normal(np.zeros(2), 0.2, 1.0)
    np.testing.assert_allclose(d(np.array([0.4, 0.2])), exact, rtol=1e-12)
