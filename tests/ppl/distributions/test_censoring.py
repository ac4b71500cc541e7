"""Censored laws: masses that add to one, tails of counts, survival likelihoods, gradients, vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats as st

from ppl import dist

_log_prob = jax.jit(lambda d, x: d.log_prob(x))
_cdf = jax.jit(lambda d, x: d.cdf(x))

CONTINUOUS = {
    "normal": lambda p: dist.Normal(p, 2.0),
    "lognormal": lambda p: dist.LogNormal(p, 0.8),
    "gamma": lambda p: dist.Gamma(p + 0.5, 0.6),
    "student": lambda p: dist.StudentT(p + 1.0, 0.5, 2.0),
    "weibull": lambda p: dist.Weibull(2.0, p),
}
COUNTS = {
    "poisson": lambda p: dist.Poisson(p),
    "negative_binomial": lambda p: dist.NegativeBinomial2(3.0, p),
    "binomial": lambda p: dist.Binomial(9, p / 3.0),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_masses_add_to_one(name):
    d = dist.censored(CONTINUOUS[name](1.0), lower=0.5, upper=4.0)
    density = jax.jit(lambda x: jnp.exp(_log_prob(d, x)))
    x, w = np.polynomial.legendre.leggauss(60)
    inside = 0.5 * 3.5 * np.sum(w * np.asarray(density(0.5 + 1.75 * (x + 1.0))))
    ends = density(jnp.array([0.5, 4.0]))
    assert abs(inside + float(jnp.sum(ends)) - 1.0) < 1e-10
    assert np.all(np.asarray(density(jnp.array([0.4, 4.1]))) == 0.0)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("lower, upper", [(2, 5), (1.5, 4.5), (None, 3), (2, None)])
def test_counts_add_to_one(name, lower, upper):
    """P(X <= lower) and P(X >= upper): the mass at a limit belongs to it."""
    d = dist.censored(COUNTS[name](1.0), lower, upper)
    low = 0 if lower is None else lower
    high = 200 if upper is None else upper
    values = np.unique(np.concatenate([[low, high], np.arange(np.ceil(low), np.floor(high) + 1)])).astype(float)
    total = float(jnp.sum(jnp.exp(_log_prob(d, values))))
    assert abs(total - 1.0) < 1e-6  # JAX's betaln, in NumPyro's masses, is no better


def test_limits_of_counts():
    d = dist.censored(dist.Poisson(3.0), lower=2, upper=5)
    wanted = [st.poisson.cdf(2, 3), st.poisson.pmf(3, 3), st.poisson.pmf(4, 3), st.poisson.sf(4, 3)]
    np.testing.assert_allclose(jnp.exp(_log_prob(d, jnp.arange(2, 6))), wanted, rtol=1e-12)
    np.testing.assert_allclose(_cdf(d, jnp.array([1.0, 2.0, 4.0, 5.0])), [0, *st.poisson.cdf([2, 4], 3), 1], rtol=1e-12)


def test_far_limit_has_a_finite_density_and_gradient():
    """NumPyro's right censoring clips the survival function: -inf or a constant beyond 8 standard deviations."""

    def censored_at(x, loc):
        return dist.censored(dist.Normal(loc, 1.0), upper=x).log_prob(x)

    assert abs(float(censored_at(50.0, 0.0)) + 1254.8313611394201) < 1e-9
    slope = float(jax.grad(censored_at, 1)(50.0, 0.0))
    assert abs(slope - 50.019984) < 1e-5  # the hazard of a normal at 50 is 50 + 1/50 - 2/50^3
    survived = dist.right_censored(dist.Gamma(5.0, 1.0), jnp.array(False))
    assert abs(float(_log_prob(survived, 1200.0)) + 1174.8144103776833885) < 1e-9


def test_no_nan_reaches_a_gradient():
    """At the limit the density of the family is not evaluated: log 0 and its NaN gradient stay out."""

    def total(p, x):
        return jnp.sum(dist.censored(dist.LogNormal(p, 1.0), lower=0.5).log_prob(x))

    x = jnp.array([0.5, 2.0])
    exact = lambda p: st.norm.logcdf(np.log(0.5) - p) + st.lognorm.logpdf(2.0, 1.0, 0, np.exp(p))  # noqa: E731
    assert abs(float(jax.grad(total)(0.3, x)) - (exact(0.3 + 1e-6) - exact(0.3 - 1e-6)) / 2e-6) < 1e-7
    # limits at the edge of the support and at infinity
    edge = jax.grad(lambda p: dist.censored(dist.Gamma(p, 1.0), lower=0.0, upper=jnp.inf).log_prob(2.0))(0.7)
    plain = jax.grad(lambda p: dist.Gamma(p, 1.0).log_prob(2.0))(0.7)
    assert float(edge) == float(plain)


def test_survival_likelihood():
    """Exponential survival: sum of events * log rate - rate * total time."""
    time = jnp.array([2.0, 4.0, 6.0, 1.0])
    event = jnp.array([True, False, True, False])

    def loglik(rate):
        return jnp.sum(dist.right_censored(dist.Exponential(rate), event).log_prob(time))

    value, slope = jax.jit(jax.value_and_grad(loglik))(0.3)
    assert abs(float(value) - (2 * np.log(0.3) - 0.3 * 13.0)) < 1e-12
    assert abs(float(slope) - (2 / 0.3 - 13.0)) < 1e-12
    left = dist.left_censored(dist.Exponential(0.3), event.astype(int)).log_prob(time)
    np.testing.assert_allclose(left[1], np.log1p(-np.exp(-1.2)), rtol=1e-13)


def test_draws_are_clipped():
    d = dist.censored(dist.Normal(jnp.array([0.0, 1.0]), 1.0), lower=-0.5, upper=jnp.array([1.0, 2.0]))
    x = np.asarray(jax.jit(lambda: d.sample(jax.random.key(1), (20_000,)))())
    assert x.shape == (20_000, 2) and d.batch_shape == (2,)
    assert np.all((x >= -0.5) & (x <= [1.0, 2.0])) and np.all(d.support(x))
    for value in (-0.5, 1.0):  # |z| < 4.5: false alarm 1e-5
        p = float(jnp.exp(_log_prob(d, jnp.array([value, 1.0]))[0]))
        assert abs(np.mean(x[:, 0] == value) - p) < 4.5 * np.sqrt(p * (1 - p) / len(x))
    counts = dist.censored(dist.Poisson(3.0), upper=4).sample(jax.random.key(2), (1000,))
    assert jnp.issubdtype(counts.dtype, jnp.integer) and int(jnp.max(counts)) == 4


def test_limit_stored_in_another_precision_is_the_same_limit():
    x = jnp.asarray(0.1, jnp.float32)
    value = dist.censored(dist.Normal(0.0, 1.0), lower=jnp.asarray(0.1)).log_prob(x)
    assert abs(float(value) - st.norm.logcdf(0.1)) < 1e-7


def test_vmap_pytree_and_shapes():
    loc, lower = jnp.linspace(-1.0, 1.0, 5), jnp.linspace(-2.0, 0.0, 5)

    def one(loc, lower, x):
        d = dist.censored(dist.Normal(loc, 1.0), lower=lower)
        assert d.shape() == ()
        return _log_prob(d, x), d.support(x), d.sample(jax.random.key(0))

    x = jnp.maximum(jnp.zeros(5), lower)
    mapped = jax.jit(jax.vmap(one))(loc, lower, x)
    whole = dist.censored(dist.Normal(loc, jnp.ones(5)), lower=lower)
    np.testing.assert_allclose(mapped[0], _log_prob(whole, x), rtol=1e-14)
    np.testing.assert_allclose(jax.vmap(lambda d, x: _log_prob(d, x))(whole, x), mapped[0], rtol=1e-14)
    again = jax.tree.unflatten(*reversed(jax.tree.flatten(whole)))
    np.testing.assert_array_equal(_log_prob(again, x), _log_prob(whole, x))
    assert whole.to_event(1).log_prob(x).shape == () and whole.expand((3, 5)).sample(jax.random.key(0)).shape == (3, 5)


def test_refuses_vectors():
    with pytest.raises(TypeError, match="scalar"):
        dist.censored(dist.Dirichlet(jnp.ones(3)), lower=0.1)
    assert dist.censored(dist.Normal(0.0, 1.0)).__class__ is dist.Normal


def test_quadrature_oracle():
    """An independent quadrature of one case, so that the rule above is not its own judge."""
    d = dist.censored(dist.Gamma(1.5, 0.6), lower=0.5)
    inside = scipy.integrate.quad(lambda x: float(jnp.exp(_log_prob(d, x))), 0.5 + 1e-12, 60.0, limit=30, epsabs=1e-6)[
        0
    ]
    assert abs(inside + float(jnp.exp(_log_prob(d, 0.5))) - 1.0) < 1e-5
