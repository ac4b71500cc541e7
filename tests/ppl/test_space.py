"""The flat vector: layout, labels, bijections against hand-written ones, and supports without any."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist, space
from tests.oracles import bijections as b

pytestmark = pytest.mark.standard_promotion
c = dist.constraints

SUPPORTS = {
    "positive": (c.positive, (2,), b.positive, 2),
    "unit": (c.unit_interval, (2,), b.unit, 2),
    "interval": (c.interval(-2.0, 5.0), (2,), lambda u: b.interval(u, -2.0, 5.0), 2),
    "above": (c.greater_than(1.5), (2,), lambda u: b.above(u, 1.5), 2),
    "below": (c.less_than(-0.5), (2,), lambda u: b.below(u, -0.5), 2),
    "circular": (c.circular, (), lambda u: b.interval(u[0], -np.pi, np.pi), 1),
    "simplex": (c.simplex, (4,), b.simplex, 3),
    "ordered": (c.ordered_vector, (4,), b.ordered, 4),
    "positive ordered": (c.positive_ordered_vector, (3,), b.positive_ordered, 3),
    "corr_cholesky": (c.corr_cholesky, (4, 4), lambda u: b.corr_cholesky(u, 4), 6),
    "corr_matrix": (c.corr_matrix, (4, 4), lambda u: b.corr_matrix(u, 4), 6),
    "lower_cholesky": (c.lower_cholesky, (3, 3), lambda u: b.lower_cholesky(u, 3), 6),
    "positive_definite": (c.positive_definite, (3, 3), lambda u: b.positive_definite(u, 3), 6),
    "zero_sum": (c.zero_sum(1), (5,), b.zero_sum, 4),
    "l1_ball": (c.l1_ball, (3,), b.l1_ball, 3),
    "real": (c.real, (3,), lambda u: (u, 0.0), 3),
    "real_matrix": (c.real_matrix, (2, 2), lambda u: (u.reshape(2, 2), 0.0), 4),
}


@pytest.mark.parametrize("name", sorted(SUPPORTS))
def test_each_support_has_its_bijection_and_determinant(name):
    support, shape, bijection, size = SUPPORTS[name]

    @ppl.model
    def m():
        ppl.sample("x", dist.flat(support, shape), dims=tuple(f"axis{i}" for i in range(len(shape))))

    density = ppl.compile(m())
    assert density.dim == size
    u = np.random.default_rng(3).normal(size=size)

    @jax.jit
    def ours(density, u):
        values = density.constrain(u)
        return values["x"], density(u), density.unconstrain(values)

    value, logdet, back = ours(density, u)
    exact, exact_logdet = jax.jit(bijection)(u)
    assert value.shape == shape
    np.testing.assert_allclose(value, exact, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(logdet, exact_logdet, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(back, u, rtol=1e-9, atol=1e-9)
    assert np.all(support(value))


def test_slots_lie_one_after_the_other_in_the_order_of_the_model():
    @ppl.model
    def m():
        ppl.sample("b", dist.Normal(0.0, 1.0))
        ppl.plate("row", lambda: ppl.sample("p", dist.Dirichlet(jnp.ones(3))), 2)
        ppl.sample("a", dist.HalfNormal(1.0).expand([2]))

    density = ppl.compile(m())
    assert {n: (s.start, s.stop, s.shape) for n, s in density.layout.items()} == {
        "b": (0, 1, ()), "p": (1, 5, (2, 2)), "a": (5, 7, (2,)),
    }  # fmt: skip
    assert density.labels == ["b", "p[0, 0]", "p[0, 1]", "p[1, 0]", "p[1, 1]", "a[0]", "a[1]"]
    assert density.dim == 7


def test_split_and_join_are_inverse_also_when_there_is_nothing():
    slots = {"a": space.Slot(0, 2, (2,)), "b": space.Slot(2, 3, ()), "c": space.Slot(3, 9, (2, 3))}
    z = jnp.arange(9.0)
    pieces = space.split(z, slots)
    assert {n: v.shape for n, v in pieces.items()} == {"a": (2,), "b": (), "c": (2, 3)}
    np.testing.assert_array_equal(space.join(pieces, slots), z)
    assert space.split(z, {}) == {} and space.join({}, {}).shape == (0,)


def test_a_missing_value_is_named():
    @ppl.model
    def m():
        ppl.sample("a", dist.Normal(0.0, 1.0))
        ppl.sample("b", dist.Normal(0.0, 1.0))

    with pytest.raises(ppl.ModelError, match="missing: b"):
        ppl.compile(m()).unconstrain({"a": 0.0})


def test_a_support_without_a_bijection_is_refused_where_it_is_latent_only():
    @ppl.model
    def m():
        ppl.sample("x", dist.ProjectedNormal(jnp.ones(3)))

    with pytest.raises(ppl.ModelError, match="'x'.*no map from an unconstrained space"):
        ppl.compile(m())
    observed = ppl.compile(m().condition(x=np.array([1.0, 0.0, 0.0])))
    assert np.isfinite(observed(np.zeros(0)))


def test_a_discrete_latent_is_refused_by_name():
    @ppl.model
    def m():
        k = ppl.sample("k", dist.Poisson(3.0))
        ppl.sample("y", dist.Normal(k, 1.0))

    with pytest.raises(ppl.ModelError, match="'k'.*discrete"):
        ppl.compile(m().condition(y=1.0))


def test_far_positions_stay_finite_where_the_density_is():
    @ppl.model
    def m():
        ppl.sample("p", dist.Beta(2.0, 3.0))
        ppl.sample("s", dist.HalfNormal(1.0))
        ppl.sample("w", dist.Dirichlet(jnp.ones(3)))

    density = ppl.compile(m())
    evaluate = jax.jit(jax.value_and_grad(lambda d, z: d(z), argnums=1))
    for size in (5.0, 20.0):
        for sign in (1.0, -1.0):
            z = np.full(4, sign * size)
            z[1] = -size
            value, gradient = evaluate(density, z)
            assert np.isfinite(value) and np.isfinite(gradient).all(), z


def test_positions_may_be_lists_and_integers():
    @ppl.model
    def m():
        ppl.sample("x", dist.Normal(0.0, 1.0).expand([2]))

    density = ppl.compile(m())
    exact = float(density(np.array([1.0, 2.0])))
    np.testing.assert_allclose(exact, -2.5 - np.log(2 * np.pi), rtol=1e-14)
    for z in ([1, 2], np.array([1, 2]), jnp.array([1, 2]), [1.0, 2.0]):
        assert float(density(z)) == exact
