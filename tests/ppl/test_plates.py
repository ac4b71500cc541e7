"""Plates: names, sizes, slices, randomness by index, and what they refuse. Densities: test_densities.py."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import ppl
from ppl import dist

pytestmark = pytest.mark.standard_promotion


def normal(name, mean=0.0):
    return ppl.sample(name, dist.Normal(mean, 1.0))


@ppl.model
def rows(n):
    mu = normal("mu")
    ppl.plate("row", lambda: normal("y", mu), n)


@ppl.model
def weighted(x):
    mu = normal("mu")

    @ppl.plate("row", x)
    def _(x):
        normal("y", mu * x)


def test_shapes_and_dims_put_plates_first_in_the_order_of_nesting():
    @ppl.model
    def m():
        @ppl.plate("a", 2)
        def _():
            @ppl.plate("b", 3)
            def _():
                ppl.sample("x", dist.Dirichlet(jnp.ones(4)), dims="level")

        @ppl.plate("b", 3)
        def _():
            ppl.plate("a", lambda: ppl.record("r", jnp.zeros(5)), 2)

    sites = m().sites
    assert sites["x"].shape == (2, 3, 4) and sites["x"].dims == ("a", "b", "level")
    assert sites["r"].shape == (3, 2, 5) and sites["r"].dims == ("b", "a", "r_dim_0")
    assert sites["x"].plates == ("a", "b")


def test_coords_give_the_size_and_the_labels():
    @ppl.model
    def m():
        ppl.plate("county", lambda: normal("a"), coords=["x", "y", "z"])

    program = m()
    assert program.sites["a"].shape == (3,)
    assert list(program.coords["county"]) == ["x", "y", "z"]


def test_a_plate_returns_its_stacked_tree_at_once():
    @ppl.model
    def m():
        @ppl.plate("a", jnp.arange(3.0), {"u": jnp.ones((3, 2)), "v": (jnp.arange(3),)})
        def out(x, tree):
            return {"sum": x + tree["u"].sum(), "v": tree["v"][0], "none": None}

        assert out["none"] is None
        return out

    out = m().run()
    np.testing.assert_array_equal(out["sum"], [2.0, 3.0, 4.0])
    np.testing.assert_array_equal(out["v"], [0, 1, 2])


def test_noise_belongs_to_the_element_not_to_the_size_of_the_plate():
    few, many = rows(3).sample(7), rows(8).sample(7)
    np.testing.assert_array_equal(few["y"], many["y"][:3])
    assert len(np.unique(many["y"])) == 8


def test_elements_of_nested_plates_draw_independently():
    @ppl.model
    def m():
        @ppl.plate("a", 40)
        def _():
            ppl.plate("b", lambda: normal("x"), 50)

    x = np.asarray(m().sample(1)["x"])
    assert len(np.unique(x)) == 2000
    # correlations of 40 rows: each of order 1/sqrt(50); the largest of 780 exceeds 0.75 with probability 1e-5
    c = np.corrcoef(x)
    assert np.abs(c[np.triu_indices(40, 1)]).max() < 0.75


@pytest.mark.parametrize("size", [0, -1])
def test_a_plate_without_elements_is_refused(size):
    with pytest.raises(ppl.ModelError, match=f"plate 'row' has size {size}"):
        rows(size).learned()


def test_an_empty_array_is_refused():
    with pytest.raises(ppl.ModelError, match="size 0"):
        weighted(np.zeros(0)).learned()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((np.zeros(3), np.zeros(4)), "disagree in length"),
        ((np.zeros(3), np.float64(1.0)), "is a scalar"),
    ],
)
def test_arrays_must_agree(arrays, message):
    @ppl.model
    def m(a, b):
        ppl.plate("row", lambda a, b: normal("y", a + b), a, b)

    with pytest.raises(ppl.ModelError, match=message):
        m(*arrays).learned()


def test_one_name_stands_for_one_axis():
    @ppl.model
    def m():
        ppl.plate("a", lambda: normal("x"), 2)
        ppl.plate("a", lambda: normal("y"), 3)

    with pytest.raises(ppl.ModelError, match="two sizes, 2 and 3"):
        m().learned()

    @ppl.model
    def nested():
        @ppl.plate("a", 2)
        def _():
            ppl.plate("a", lambda: normal("y"), 2)

    with pytest.raises(ppl.ModelError, match="inside a plate of the same name"):
        nested().learned()


def test_a_site_name_is_used_once_also_in_sibling_plates():
    @ppl.model
    def m():
        ppl.plate("a", lambda: normal("x"), 2)
        ppl.plate("b", lambda: normal("x"), 2)

    with pytest.raises(ppl.ModelError, match="'x' is used twice"):
        m().learned()


@pytest.mark.parametrize("shape", [(3, 1), (1, 3), (1,), (), (4,)])
def test_data_are_never_broadcast(shape):
    with pytest.raises(ppl.ModelError, match="shape"):
        rows(3).condition(y=np.zeros(shape))


def test_lists_integers_and_columns_of_a_frame_are_data():
    frame = pd.DataFrame({"x": [1, 2, 3], "y": [0.5, 1.0, -1.0]}, index=[7, 5, 6])
    z = np.array([0.3])
    exact = float(ppl.compile(weighted(np.array([1.0, 2.0, 3.0])).condition(y=frame.y.to_numpy()))(z))
    for x in ([1.0, 2.0, 3.0], [1, 2, 3], np.array([1, 2, 3]), frame.x, jnp.array([1.0, 2.0, 3.0])):
        for y in ([0.5, 1.0, -1.0], frame.y, jnp.asarray(frame.y.to_numpy())):
            assert abs(float(ppl.compile(weighted(x).condition(y=y))(z)) - exact) < 1e-12
    assert np.isfinite(ppl.compile(weighted(frame.x).condition(y=[1, 2, 3]))(z))


def test_vectors_of_length_zero_are_empty_products():
    @ppl.model
    def m():
        b = ppl.sample("b", dist.Normal(0.0, 1.0).expand([0]))
        normal("y", jnp.sum(b))

    d = ppl.compile(m().condition(y=1.0))
    assert d.dim == 0 and d.labels == []
    np.testing.assert_allclose(d(np.zeros(0)), -0.5 - 0.5 * np.log(2 * np.pi))
    assert d.constrain(np.zeros(0))["b"].shape == (0,)


def test_an_error_in_a_body_leaves_no_frame_behind():
    @ppl.model
    def broken(n):
        def body():
            normal("x")
            raise KeyError("inside")

        ppl.plate("row", body, n)

    with pytest.raises(KeyError):
        broken(3).learned()
    with pytest.raises(ppl.ModelError, match="outside of a model"):
        normal("x")
    assert set(rows(2).sites) == {"mu", "y"}
