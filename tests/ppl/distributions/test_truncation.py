"""Truncated families: normalisation, far tails, quantiles, draws and their gradients, moving bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st

from ppl import dist

_log_prob = jax.jit(lambda d, x: d.log_prob(x))
_cdf = jax.jit(lambda d, x: d.cdf(x))

CASES = {
    "normal": (lambda: dist.Normal(0.5, 2.0), -1.0, 3.0, st.norm(0.5, 2.0)),
    "normal_low": (lambda: dist.Normal(0.5, 2.0), 1.0, None, st.norm(0.5, 2.0)),
    "normal_high": (lambda: dist.Normal(0.5, 2.0), None, 1.0, st.norm(0.5, 2.0)),
    "normal_far": (lambda: dist.Normal(0.0, 1.0), 8.0, 9.0, st.norm()),
    "student": (lambda: dist.StudentT(3.0, 0.5, 2.0), 0.0, None, st.t(3.0, 0.5, 2.0)),
    "gamma": (lambda: dist.Gamma(0.7, 0.6), None, 2.0, st.gamma(0.7, 0, 1 / 0.6)),
    "weibull": (lambda: dist.Weibull(2.0, 1.5), 1.0, None, st.weibull_min(1.5, 0, 2.0)),
    "lognormal": (lambda: dist.LogNormal(0.3, 1.0), 0.5, 9.0, st.lognorm(1.0, 0, np.exp(0.3))),
    "beta": (lambda: dist.Beta(2.0, 3.0), 0.2, 0.7, st.beta(2.0, 3.0)),
    "cauchy": (lambda: dist.Cauchy(0.0, 1.0), 5.0, None, st.cauchy()),
}
COUNTS = {
    "poisson": (lambda: dist.Poisson(3.0), 1, None, st.poisson(3.0)),
    "poisson_both": (lambda: dist.Poisson(3.0), 2, 6, st.poisson(3.0)),
    "poisson_fraction": (lambda: dist.Poisson(3.0), 1.5, 6.5, st.poisson(3.0)),
    "negative_binomial": (lambda: dist.NegativeBinomial2(3.0, 2.0), 1, None, st.nbinom(2, 0.4)),
    "binomial": (lambda: dist.Binomial(9, 0.3), None, 4, st.binom(9, 0.3)),
    "geometric": (lambda: dist.Geometric(0.3), 2, 7, st.geom(0.3, -1)),
}


def _mass(oracle, low, high):
    """P(low < X <= high) from the smaller tail."""
    if low is not None and oracle.sf(low) < 0.5:
        return oracle.sf(low) - (0.0 if high is None else oracle.sf(high))
    return (1.0 if high is None else oracle.cdf(high)) - (0.0 if low is None else oracle.cdf(low))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_continuous(name):
    make, low, high, oracle = CASES[name]
    d = dist.truncated(make(), low, high)
    ends = [oracle.support()[0] if low is None else low, oracle.support()[1] if high is None else high]
    q = np.array([0.01, 0.3, 0.5, 0.9, 0.999])

    @jax.jit
    def both(x, q):
        return _log_prob(d, x), d.icdf(q), d.log_cdf(x), d.log_sf(x), _log_prob(d, d.icdf(q))

    x = np.array([0.25, 0.6, 1.5, 2.5, 5.5, 8.3])
    log_prob, quantiles, log_cdf, log_sf, _ = (np.asarray(v) for v in both(x, q))
    inside = (x >= ends[0]) & (x <= ends[1])
    mass = _mass(oracle, low, high)
    np.testing.assert_allclose(log_prob[inside], (oracle.logpdf(x) - np.log(mass))[inside], rtol=1e-9, atol=1e-12)
    assert np.all(log_prob[~inside] == -np.inf)
    below = np.array([_mass(oracle, low, v) / mass for v in x])
    np.testing.assert_allclose(np.exp(log_cdf)[inside], below[inside], rtol=1e-8)
    np.testing.assert_allclose(np.exp(log_cdf) + np.exp(log_sf), 1.0, rtol=1e-9)
    np.testing.assert_allclose([_mass(oracle, low, v) / mass for v in quantiles], q, rtol=1e-8)


def test_integrates_to_one():
    for low, high in [(8.0, 9.0), (-9.0, -8.0), (40.0, 41.0)]:
        d = dist.truncated(dist.Normal(0.0, 1.0), low, high)
        x, w = np.polynomial.legendre.leggauss(80)
        total = 0.5 * np.sum(w * np.exp(np.asarray(_log_prob(d, low + 0.5 * (x + 1.0)))))
        assert abs(total - 1.0) < 1e-10


@pytest.mark.parametrize("name", COUNTS)
def test_counts(name):
    make, low, high, oracle = COUNTS[name]
    d = dist.truncated(make(), low, high)
    values = np.arange(0, 60)
    keep = (values >= (0 if low is None else low)) & (values <= (60 if high is None else high))
    wanted = np.where(keep, oracle.pmf(values), 0.0)
    wanted /= wanted.sum()
    found, cdf, draws = jax.jit(
        lambda v: (jnp.exp(_log_prob(d, v)), _cdf(d, v), d.sample(jax.random.key(4), (20_000,)))
    )(values)
    # JAX's betaln, in NumPyro's negative binomial, is good to 4e-7 only.
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-14)
    np.testing.assert_allclose(cdf, np.cumsum(wanted), rtol=1e-9, atol=1e-14)
    assert jnp.issubdtype(draws.dtype, jnp.integer) and d.support.is_discrete and np.all(d.support(draws))
    freq = np.bincount(np.asarray(draws), minlength=60)[:60] / len(draws)
    busy = wanted * len(draws) > 20
    z = (freq - wanted)[busy] / np.sqrt(wanted * (1 - wanted) / len(draws))[busy]
    assert np.max(np.abs(z)) < 4.5  # about 60 cells over all cases: false alarm 4e-4


@pytest.mark.parametrize("name", ["normal", "normal_far", "student", "gamma", "cauchy"])
def test_draws(name):
    """Probability integral transform, judged by Kolmogorov's test at 1e-4 (seeded)."""
    make, low, high, oracle = CASES[name]
    d = dist.truncated(make(), low, high)
    x = np.asarray(jax.jit(lambda: d.sample(jax.random.key(5), (2000,)))())
    assert np.all(d.support(x))
    mass = _mass(oracle, low, high)
    u = np.array([_mass(oracle, low, v) / mass for v in x])
    assert st.kstest(u, "uniform").pvalue > 1e-4


@pytest.mark.slow
def test_far_tail_draws_keep_their_digits():
    """Beyond 40 standard deviations x - 40 is exponential with rate 40; inversion through the cdf gives inf."""
    d = dist.truncated(dist.Normal(0.0, 1.0), low=40.0)
    x = np.asarray(jax.jit(lambda: d.sample(jax.random.key(6), (2000,)))())
    assert np.all(np.isfinite(x)) and len(np.unique(x)) == 2000
    mean = np.mean(x - 40.0)
    assert abs(mean - 1 / 40.0) < 4.5 / 40.0 / np.sqrt(2000)
    with jax.enable_x64(False):
        y = np.asarray(dist.truncated(dist.Normal(0.0, 1.0), low=8.0, high=9.0).sample(jax.random.key(6), (2000,)))
        assert np.all((y >= 8.0) & (y <= 9.0)) and abs(np.mean(y) - 8.1213) < 0.015


@pytest.mark.slow
def test_gradients_of_density_and_draws():
    """Scores by finite differences; draws follow their parameters as the implicit function says."""
    key = jax.random.key(7)
    theta = jnp.array([0.3, 1.2, -0.5, 1.9])

    def law(t):
        return dist.truncated(dist.Normal(t[0], t[1]), t[2], t[3])

    for function in (lambda t: law(t).log_prob(0.7), lambda t: law(t).sample(key), lambda t: law(t).log_sf(0.7)):
        function = jax.jit(function)
        slope = jax.grad(function)(theta)
        step = 1e-5
        numeric = [(function(theta + step * e) - function(theta - step * e)) / (2 * step) for e in np.eye(4)]
        np.testing.assert_allclose(slope, np.asarray(numeric), atol=1e-7)
    counts = jax.grad(lambda r: dist.truncated(dist.Poisson(r), low=1).log_prob(2))(1.5)
    assert abs(float(counts) - (2 / 1.5 - 1 - np.exp(-1.5) / (1 - np.exp(-1.5)))) < 1e-12


@pytest.mark.slow
def test_values_outside_give_no_nan():
    slope = jax.vmap(jax.grad(lambda a, x: dist.truncated(dist.Gamma(a, 1.0), 1.0, 3.0).log_prob(x)), (None, 0))
    assert np.all(np.isfinite(slope(0.7, jnp.array([-1.0, 0.0, 1.0, 2.0, 3.0, 5.0]))))


def test_bounds_may_be_latent_and_mapped():
    """Inside vmap, with traced bounds, the support is an interval that `biject_to` follows."""

    def one(low, z):
        d = dist.truncated(dist.Normal(0.0, 1.0), low=low, high=low + 1.0)
        assert d.shape() == ()
        x = dist.biject_to(d.support)(z)
        return x, _log_prob(d, x)

    low = jnp.array([-1.0, 0.0, 8.0])
    x, log_prob = jax.jit(jax.vmap(one))(low, jnp.array([0.3, -2.0, 1.0]))
    assert np.all((x > low) & (x < low + 1.0))
    whole = dist.truncated(dist.Normal(jnp.zeros(3), jnp.ones(3)), low=low, high=low + 1.0)
    np.testing.assert_allclose(log_prob, _log_prob(whole, x), rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(lambda d, x: _log_prob(d, x))(whole, x), log_prob, rtol=1e-12)
    assert whole.sample(jax.random.key(0), (4,)).shape == (4, 3)
    assert whole.to_event(1).event_shape == (3,) and whole.expand((2, 3)).log_prob(x).shape == (2, 3)


def test_supports():
    c = dist.constraints
    assert isinstance(dist.truncated(dist.Normal(0.0, 1.0), low=1.0).support, c.greater_than)
    assert isinstance(dist.truncated(dist.Normal(0.0, 1.0), high=1.0).support, c.less_than)
    gamma = dist.truncated(dist.Gamma(2.0, 1.0), low=-1.0, high=3.0).support
    assert (gamma.lower_bound, gamma.upper_bound) == (0.0, 3.0)
    counts = dist.truncated(dist.Poisson(2.0), low=0.5, high=3.5).support
    assert (counts.lower_bound, counts.upper_bound) == (1.0, 3.0)
    with pytest.raises(TypeError, match="scalar"):
        dist.truncated(dist.Dirichlet(jnp.ones(3)), low=0.1)
