"""Flat priors: zero on the support, no draws, shapes known without drawing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl import dist


@pytest.mark.parametrize(
    "make, shape, point",
    [
        (lambda: dist.Flat(), (), -3.0),
        (lambda: dist.Flat(4), (4,), np.zeros(4)),
        (lambda: dist.FlatPositive((2, 3)), (2, 3), np.ones((2, 3))),
        (lambda: dist.flat(dist.constraints.simplex, (5, 3)), (5, 3), np.full((5, 3), 1 / 3)),
        (lambda: dist.flat(dist.constraints.interval(-1.0, 2.0)), (), 0.5),
        (lambda: dist.flat(dist.constraints.corr_cholesky, (3, 3)), (3, 3), np.eye(3)),
    ],
)
def test_flat(make, shape, point):
    d = make()
    assert d.improper and d.shape() == shape and d.placeholder().shape == shape
    assert d.log_prob(point).shape == d.batch_shape and np.all(d.log_prob(point) == 0.0)
    assert np.all(d.support(d.placeholder()))
    z = dist.biject_to(d.support).inv(d.placeholder())
    assert np.all(np.isfinite(z))


def test_outside_and_draws():
    assert dist.FlatPositive().log_prob(-1.0) == -np.inf
    with pytest.raises(ValueError, match="improper prior"):
        dist.Flat().sample(jax.random.key(0))
    with pytest.raises(ValueError, match="axes"):
        dist.flat(dist.constraints.simplex)
    assert not hasattr(dist.Normal(0.0, 1.0), "improper")


def test_traced_ends_vmap_and_pytree():
    def one(low, x):
        d = dist.flat(dist.constraints.greater_than(low))
        return d.log_prob(x), dist.biject_to(d.support)(0.0), d.placeholder()

    value, x, point = jax.jit(jax.vmap(one))(jnp.array([0.0, 2.0]), jnp.array([1.0, 1.0]))
    np.testing.assert_array_equal(value, [0.0, -np.inf])
    np.testing.assert_array_equal(x, [1.0, 3.0])
    np.testing.assert_array_equal(point, [1.0, 3.0])
    d = dist.flat(dist.constraints.positive, 3)
    again = jax.tree.unflatten(*reversed(jax.tree.flatten(d)))
    assert again.shape() == (3,) and float(jax.grad(lambda x: dist.Flat().log_prob(x))(0.3)) == 0.0
    assert dist.Flat().expand((4,)).shape() == (4,) and dist.Flat(4).to_event(1).log_prob(jnp.zeros(4)) == 0.0
