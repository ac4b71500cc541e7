"""Mixtures against sums written out, over families, counts, vectors, atoms and dead components."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st

from ppl import dist

_log_prob = jax.jit(lambda d, x: d.log_prob(x))
_cdf = jax.jit(lambda d, x: d.cdf(x))

W = np.array([0.2, 0.5, 0.3])


def _families():
    return [dist.Normal(-1.0, 0.5), dist.StudentT(4.0, 2.0, 1.0), dist.Logistic(0.0, 1.0)]


ORACLES = [st.norm(-1.0, 0.5), st.t(4.0, 2.0, 1.0), st.logistic(0.0, 1.0)]
X = np.linspace(-6.0, 6.0, 25)


def test_different_families():
    d = dist.mixture(W, _families())
    pdf = sum(w * o.pdf(X) for w, o in zip(W, ORACLES, strict=True))
    cdf = sum(w * o.cdf(X) for w, o in zip(W, ORACLES, strict=True))
    np.testing.assert_allclose(np.exp(_log_prob(d, X)), pdf, rtol=1e-12)
    np.testing.assert_allclose(_cdf(d, X), cdf, rtol=1e-11)
    np.testing.assert_allclose(np.exp(dist.log_sf(d, X)), 1 - cdf, rtol=1e-10, atol=1e-14)
    mean = sum(w * o.mean() for w, o in zip(W, ORACLES, strict=True))
    second = sum(w * (o.var() + o.mean() ** 2) for w, o in zip(W, ORACLES, strict=True))
    np.testing.assert_allclose([d.mean, d.variance], [mean, second - mean**2], rtol=1e-12)
    x = np.asarray(jax.jit(lambda: d.sample(jax.random.key(1), (5000,)))())
    u = sum(w * o.cdf(x) for w, o in zip(W, ORACLES, strict=True))
    assert st.kstest(u, "uniform").pvalue > 1e-4  # seeded
    part = d.responsibilities(X)
    np.testing.assert_allclose(part[:, 1], W[1] * ORACLES[1].pdf(X) / pdf, rtol=1e-11)


def test_weights_logits_and_categorical_agree():
    d = dist.mixture(W, _families())
    for other in (
        dist.mixture(None, _families(), logits=np.log(W) + 3.0),
        dist.mixture(dist.Categorical(probs=W), _families()),
        dist.mixture(dist.Categorical(logits=np.log(W)), _families()),
        dist.mixture(10.0 * W, _families()),
    ):
        np.testing.assert_allclose(_log_prob(other, X), _log_prob(d, X), rtol=1e-12)
    with pytest.raises(ValueError, match="weights or logits"):
        dist.mixture(None, _families())


def test_one_batched_family():
    loc = jnp.array([-1.0, 0.0, 2.0])
    batched = dist.mixture(W, dist.Normal(loc, 1.0))
    listed = dist.mixture(W, [dist.Normal(m, 1.0) for m in loc])
    np.testing.assert_allclose(_log_prob(batched, X), _log_prob(listed, X), rtol=1e-13)
    np.testing.assert_allclose(_cdf(batched, X), _cdf(listed, X), rtol=1e-13)
    np.testing.assert_allclose([batched.mean, batched.variance], [listed.mean, listed.variance], rtol=1e-13)
    many = dist.mixture(np.stack([W, W[::-1]]), dist.Normal(loc, 1.0))
    assert many.batch_shape == (2,) and many.sample(jax.random.key(0), (5,)).shape == (5, 2)
    np.testing.assert_allclose(_log_prob(many, jnp.array([0.5, 0.5]))[0], _log_prob(batched, 0.5), rtol=1e-13)


def test_zero_inflated_counts():
    d = dist.mixture(np.array([0.3, 0.7]), [dist.Delta(0), dist.Poisson(2.0)])
    k = np.arange(40)
    wanted = 0.7 * st.poisson.pmf(k, 2.0) + 0.3 * (k == 0)
    np.testing.assert_allclose(np.exp(_log_prob(d, k)), wanted, rtol=1e-12)
    np.testing.assert_allclose(_cdf(d, k), np.cumsum(wanted), rtol=1e-12)
    assert d.support is dist.constraints.nonnegative_integer and not d.atoms
    x = d.sample(jax.random.key(3), (20_000,))
    assert jnp.issubdtype(x.dtype, jnp.integer)
    zeros = float(jnp.mean(x == 0))
    assert abs(zeros - wanted[0]) < 4.5 * np.sqrt(wanted[0] * (1 - wanted[0]) / 20_000)
    slope = jax.grad(
        lambda w, r: jnp.sum(
            dist.mixture(jnp.stack([w, 1 - w]), [dist.Delta(0), dist.Poisson(r)]).log_prob(jnp.array([0, 3]))
        ),
        (0, 1),
    )(0.3, 2.0)
    e = np.exp(-2.0)
    np.testing.assert_allclose(slope[0], (1 - e) / (0.3 + 0.7 * e) - 1 / 0.7, rtol=1e-10)
    np.testing.assert_allclose(slope[1], -0.7 * e / (0.3 + 0.7 * e) + 3 / 2 - 1, rtol=1e-10)


def test_hurdle_of_a_density():
    """At the atom only the atom counts, whatever the density does there (here it is infinite)."""
    d = dist.mixture(np.array([0.4, 0.6]), [dist.Delta(0.0), dist.Gamma(0.5, 1.0)])
    np.testing.assert_allclose(
        np.exp(_log_prob(d, jnp.array([0.0, 1.0]))), [0.4, 0.6 * st.gamma.pdf(1.0, 0.5)], rtol=1e-12
    )
    slope = jax.grad(lambda a: dist.mixture(W[:2], [dist.Delta(0.0), dist.Gamma(a, 1.0)]).log_prob(0.0))(0.5)
    assert d.atoms and float(slope) == 0.0
    beside = dist.mixture(np.array([0.4, 0.6]), [dist.Delta(0.0), dist.Normal(0.0, 1.0)])
    np.testing.assert_allclose(
        np.exp(_log_prob(beside, jnp.array([0.0, 1.0]))), [0.4, 0.6 * st.norm.pdf(1.0)], rtol=1e-12
    )


def test_different_supports():
    """Each component counts on its own support only; values and gradients stay clean outside it."""
    d = dist.mixture(W, [dist.Normal(0.0, 1.0), dist.LogNormal(0.0, 1.0), dist.Uniform(-2.0, 2.0)])
    x = np.array([-3.0, -1.0, 0.0, 1.0, 3.0])
    wanted = W[0] * st.norm.pdf(x) + W[1] * st.lognorm.pdf(x, 1.0) + W[2] * st.uniform.pdf(x, -2, 4)
    np.testing.assert_allclose(np.exp(_log_prob(d, x)), wanted, rtol=1e-12)
    assert d.support is dist.constraints.real

    def score(m, s, x):
        return dist.mixture(W, [dist.Normal(m, s), dist.LogNormal(m, s), dist.Uniform(-2.0, 2.0)]).log_prob(x)

    assert np.all(np.isfinite(jax.vmap(jax.grad(score, (0, 1, 2)), (None, None, 0))(0.0, 1.0, x)))
    positive = dist.mixture(W[:2], [dist.Gamma(2.0, 1.0), dist.Uniform(-1.0, 1.0)])
    assert positive.support.lower_bound == -1.0 and isinstance(positive.support, dist.constraints.greater_than)
    uniform = dist.mixture(W, dist.Uniform(jnp.array([-1.0, 0.0, 1.0]), jnp.array([0.0, 2.0, 5.0])))
    assert (float(uniform.support.lower_bound), float(uniform.support.upper_bound)) == (-1.0, 5.0)
    np.testing.assert_allclose(np.exp(_log_prob(uniform, jnp.array([-0.5, 1.5, 6.0]))), [0.2, 0.25 + 0.075, 0.0])


def test_dead_components():
    """Weight zero, or a value no component allows: -inf without NaN."""

    def total(w, x):
        return dist.mixture(w, dist.Normal(jnp.array([0.0, 1.0]), 1.0)).log_prob(x)

    w = jnp.array([0.0, 1.0])
    np.testing.assert_allclose(total(w, 0.5), st.norm.logpdf(-0.5), rtol=1e-13)
    assert np.all(np.isfinite(jax.grad(total, (0, 1))(w, 0.5)[0]))
    none = dist.mixture(W[:2], dist.Gamma(jnp.array([1.0, 2.0]), 1.0))
    assert _log_prob(none, -1.0) == -np.inf
    assert float(jax.grad(lambda a: dist.mixture(W[:2], dist.Gamma(jnp.stack([a, a]), 1.0)).log_prob(-1.0))(1.0)) == 0.0
    # far from both components nothing underflows
    far = float(total(jnp.array([0.5, 0.5]), 1000.0))
    assert abs(far - (np.log(0.5) + st.norm.logpdf(999.0))) < 1e-9


def test_vectors():
    mean, cov = jnp.array([[0.0, 0.0, 0.0], [1.0, -1.0, 2.0]]), jnp.eye(3) + 0.3
    d = dist.mixture(W[1:], dist.MultivariateNormal(mean, cov))
    x = np.array([0.3, 0.2, 1.0])
    oracle = [st.multivariate_normal(m, cov) for m in np.asarray(mean)]
    weights = W[1:] / W[1:].sum()
    wanted = np.log(sum(w * o.pdf(x) for w, o in zip(weights, oracle, strict=True)))
    assert abs(float(_log_prob(d, x)) - wanted) < 1e-12 and d.event_shape == (3,)
    listed = dist.mixture(W[1:], [dist.MultivariateNormal(m, cov) for m in mean])
    np.testing.assert_allclose(_log_prob(listed, np.stack([x, 2 * x])), _log_prob(d, np.stack([x, 2 * x])), rtol=1e-12)
    np.testing.assert_allclose(listed.variance, d.variance, rtol=1e-12)
    draws = np.asarray(d.sample(jax.random.key(2), (4000,)))
    assert draws.shape == (4000, 3)
    z = (draws.mean(0) - np.asarray(d.mean)) / np.sqrt(np.asarray(d.variance) / 4000)
    assert np.max(np.abs(z)) < 4.5


def test_vmap_and_pytree():
    def one(w, m, x):
        d = dist.mixture(w, [dist.Normal(m, 1.0), dist.Laplace(0.0, 1.0)])
        assert d.shape() == ()
        return _log_prob(d, x), d.support(x), d.sample(jax.random.key(0))

    w = jnp.array([[0.3, 0.7], [0.5, 0.5], [1.0, 0.0]])
    m, x = jnp.array([0.0, 1.0, 2.0]), jnp.array([0.5, 0.6, 0.7])
    mapped = jax.jit(jax.vmap(one))(w, m, x)[0]
    whole = dist.mixture(w, [dist.Normal(m, 1.0), dist.Laplace(0.0, 1.0)])
    np.testing.assert_allclose(mapped, _log_prob(whole, x), rtol=1e-13)
    again = jax.tree.unflatten(*reversed(jax.tree.flatten(whole)))
    np.testing.assert_array_equal(_log_prob(again, x), _log_prob(whole, x))
    assert whole.expand((2, 3)).sample(jax.random.key(1)).shape == (2, 3) and whole.to_event(1).event_shape == (3,)


def test_combinators_compose():
    """A censored mixture and a mixture of truncated families."""
    mixed = dist.mixture(W, _families())
    limited = dist.censored(mixed, upper=1.0)
    sf = sum(w * o.sf(1.0) for w, o in zip(W, ORACLES, strict=True))
    assert abs(float(_log_prob(limited, 1.0)) - np.log(sf)) < 1e-10
    cut = dist.mixture(W[:2], [dist.truncated(d, low=0.0) for d in _families()[:2]])
    weights = W[:2] / W[:2].sum()
    wanted = sum(w * o.pdf(0.5) / o.sf(0.0) for w, o in zip(weights, ORACLES, strict=False))
    assert abs(float(jnp.exp(_log_prob(cut, 0.5))) - wanted) < 1e-10


def test_errors():
    with pytest.raises(ValueError, match="common measure"):
        dist.mixture(W[:2], [dist.Normal(0.0, 1.0), dist.Poisson(1.0)])
    with pytest.raises(ValueError, match="3 weights for 2"):
        dist.mixture(W, [dist.Normal(0.0, 1.0), dist.Normal(1.0, 1.0)])
    with pytest.raises(ValueError, match="last batch axis"):
        dist.mixture(W, dist.Normal(jnp.zeros(2), 1.0))
    with pytest.raises(ValueError, match="event shape"):
        dist.mixture(W[:2], [dist.Normal(0.0, 1.0), dist.Dirichlet(jnp.ones(2))])
