"""Log distribution and survival functions of every family with one, against SciPy and far in the tails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st

from ppl import dist
from ppl.distributions.tails import bounds

POINTS = np.array([-50.0, -3.0, -0.2, 0.0, 0.3, 2.0, 7.0, 40.0, 1e4])
FAMILIES = {
    "normal": (lambda: dist.Normal(1.0, 2.0), st.norm(1, 2)),
    "logistic": (lambda: dist.Logistic(1.0, 2.0), st.logistic(1, 2)),
    "laplace": (lambda: dist.Laplace(1.0, 2.0), st.laplace(1, 2)),
    "cauchy": (lambda: dist.Cauchy(1.0, 2.0), st.cauchy(1, 2)),
    "student": (lambda: dist.StudentT(3.0, 1.0, 2.0), st.t(3, 1, 2)),
    "gumbel": (lambda: dist.Gumbel(1.0, 2.0), st.gumbel_r(1, 2)),
    "soft_laplace": (lambda: dist.SoftLaplace(1.0, 2.0), st.hypsecant(1, 2)),
    "asymmetric_laplace": (lambda: dist.AsymmetricLaplace(1.0, 2.0, 0.7), st.laplace_asymmetric(0.7, 1, 2)),
    "half_normal": (lambda: dist.HalfNormal(2.0), st.halfnorm(0, 2)),
    "half_cauchy": (lambda: dist.HalfCauchy(2.0), st.halfcauchy(0, 2)),
    "exponential": (lambda: dist.Exponential(0.5), st.expon(0, 2)),
    "weibull": (lambda: dist.Weibull(2.0, 1.5), st.weibull_min(1.5, 0, 2)),
    "gompertz": (lambda: dist.Gompertz(0.5, 2.0), st.gompertz(0.5, 0, 0.5)),
    "gamma": (lambda: dist.Gamma(2.5, 0.5), st.gamma(2.5, 0, 2)),
    "chi2": (lambda: dist.Chi2(3.0), st.chi2(3)),
    "beta": (lambda: dist.Beta(2.0, 3.0), st.beta(2, 3)),
    "dagum": (lambda: dist.Dagum(2.0, 3.0, 1.0), st.mielke(6, 3)),
    "uniform": (lambda: dist.Uniform(-1.0, 5.0), st.uniform(-1, 6)),
    "lognormal": (lambda: dist.LogNormal(1.0, 2.0), st.lognorm(2, 0, np.e)),
    "inverse_gamma": (lambda: dist.InverseGamma(2.0, 3.0), st.invgamma(2, 0, 3)),
    "pareto": (lambda: dist.Pareto(1.0, 3.0), st.pareto(3, 0, 1)),
    "loguniform": (lambda: dist.LogUniform(1.0, 3.0), st.loguniform(1, 3)),
    "poisson": (lambda: dist.Poisson(3.0), st.poisson(3)),
    "negative_binomial": (lambda: dist.NegativeBinomial2(3.0, 2.0), st.nbinom(2, 2 / 5)),
    "binomial": (lambda: dist.Binomial(9, 0.3), st.binom(9, 0.3)),
    "binomial_logits": (lambda: dist.Binomial(9, logits=-0.3), st.binom(9, 1 / (1 + np.exp(0.3)))),
    "geometric": (lambda: dist.Geometric(0.3), st.geom(0.3, -1)),
    "geometric_logits": (lambda: dist.Geometric(logits=-0.3), st.geom(1 / (1 + np.exp(0.3)), -1)),
    "bernoulli": (lambda: dist.Bernoulli(0.3), st.bernoulli(0.3)),
    "discrete_uniform": (lambda: dist.DiscreteUniform(1, 5), st.randint(1, 6)),
}


@jax.jit
def _tails(leaves, d, x):
    """Values, and gradients in the point and in every parameter, of both tails."""

    def at(leaves, x, tail):
        full = jax.tree.unflatten(jax.tree.structure(d), leaves)
        value = tail(full, x)
        return jnp.where(jnp.isfinite(value), value, 0.0), value

    out = []
    for tail in (dist.log_cdf, dist.log_sf):
        slopes, values = jax.vmap(jax.grad(lambda p, x, t=tail: at(p, x, t), (0, 1), has_aux=True), (None, 0))(
            leaves, x
        )
        out.append((values, slopes))
    return out


@pytest.mark.parametrize("name", FAMILIES)
def test_against_scipy(name):
    """Gradients are finite also where a tail is 0 or 1, and for families whose `cdf` JAX cannot differentiate."""
    make, oracle = FAMILIES[name]
    d = make()
    with np.errstate(all="ignore"):
        exact = oracle.cdf(POINTS), oracle.sf(POINTS)
    leaves = [jnp.asarray(leaf, float) for leaf in jax.tree.leaves(d)]
    for (values, slopes), wanted in zip(_tails(leaves, d, POINTS), exact, strict=True):
        np.testing.assert_allclose(np.exp(values), wanted, rtol=1e-9, atol=1e-13)
        assert all(np.all(np.isfinite(s)) for s in jax.tree.leaves(slopes)), slopes


def test_levy():
    """Apart: NumPyro's Levy loses its support when it passes through a pytree."""
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(dist.log_cdf(dist.Levy(1.0, 2.0), POINTS), st.levy.logcdf(POINTS, 1, 2), rtol=1e-12)
        np.testing.assert_allclose(dist.log_sf(dist.Levy(1.0, 2.0), POINTS), st.levy.logsf(POINTS, 1, 2), rtol=1e-12)


def test_far_tails():
    """Values whose probabilities underflow; references with 50 digits or in closed form."""
    assert abs(float(dist.log_sf(dist.Normal(0.0, 1.0), 50.0)) + 1254.8313611394201) < 1e-10
    assert abs(float(dist.log_sf(dist.Exponential(2.0), 1e4)) + 2e4) < 1e-9
    assert abs(float(dist.log_sf(dist.Weibull(1.0, 2.0), 100.0)) + 1e4) < 1e-9
    assert abs(float(dist.log_sf(dist.Gamma(5.0, 1.0), 1200.0)) + 1174.8144103776833885) < 1e-9
    assert abs(float(dist.log_sf(dist.Logistic(0.0, 1.0), 900.0)) + 900.0) < 1e-9
    assert abs(float(dist.log_sf(dist.Gumbel(0.0, 1.0), 900.0)) + 900.0) < 1e-9
    assert abs(float(dist.log_cdf(dist.Gumbel(0.0, 1.0), -7.0)) + np.exp(7.0)) < 1e-9
    assert abs(float(dist.log_cdf(dist.Weibull(1.0, 2.0), 1e-200)) - 400.0 * np.log(0.1) * 1.0) < 1e-9
    assert abs(float(dist.log_cdf(dist.SoftLaplace(0.0, 1.0), -2000.0)) + 2000.0 - np.log(2 / np.pi)) < 1e-9
    assert abs(float(dist.log_sf(dist.LogNormal(0.0, 1.0), np.exp(50.0))) + 1254.8313611394201) < 1e-9
    # P(X > k) of a Poisson is dominated by its first term when k is far above the rate.
    k = 1000.0
    first = (k + 1) * np.log(0.01) - 0.01 - float(jax.lax.lgamma(k + 2))
    assert abs(float(dist.log_sf(dist.Poisson(0.01), k)) - first) < 1e-4
    assert abs(float(dist.log_sf(dist.Cauchy(0.0, 1.0), 1e20)) + np.log(np.pi * 1e20)) < 1e-12


def test_single_precision_tails():
    with jax.enable_x64(False):
        for d, x, wanted in [
            (dist.Normal(0.0, 1.0), 50.0, -1254.8313611394201),
            (dist.Gamma(5.0, 1.0), 1200.0, -1174.8144103776833885),
        ]:
            assert abs(float(dist.log_sf(d, x)) / wanted - 1.0) < 1e-6
        # P(X <= 7999) of a Poisson of mean 10000 is Q(8000, 10000)
        exact = st.gamma.logsf(10000.0, 8000.0)
        assert abs(float(dist.log_cdf(dist.Poisson(10000.0), 7999.0)) / exact - 1.0) < 1e-6


def test_between():
    d = dist.Normal(0.0, 1.0)
    wanted = st.norm.logsf(8.0) + np.log1p(-np.exp(st.norm.logsf(9.0) - st.norm.logsf(8.0)))
    assert abs(float(dist.log_between(d, 8.0, 9.0)) - wanted) < 1e-12
    assert abs(float(dist.log_between(d, -9.0, -8.0)) - wanted) < 1e-12
    assert abs(float(dist.log_between(d, -1.0, 2.0)) - np.log(st.norm.cdf(2) - st.norm.cdf(-1))) < 1e-14
    assert dist.log_between(d, 1.0, 1.0) == -np.inf
    assert dist.log_between(d, None, None) == 0.0
    slopes = jax.grad(lambda a, b: dist.log_between(d, a, b), (0, 1))(-jnp.inf, jnp.inf)
    assert slopes == (0.0, 0.0)


def test_structures_and_errors():
    x = jnp.array([0.5, 1.0])
    base = dist.Gamma(jnp.array([1.0, 2.0]), 1.0)
    np.testing.assert_allclose(dist.log_sf(base.expand((3, 2)), x), np.tile(dist.log_sf(base, x), (3, 1)))
    assert dist.log_cdf(dist.Delta(2.0), 2.0) == 0.0 and dist.log_sf(dist.Delta(2.0), 2.0) == -np.inf
    summed = dist.log_cdf(dist.BetaBinomial(2.0, 3.0, 9), 4.0)
    assert abs(float(summed) - st.betabinom.logcdf(4, 9, 2, 3)) < 1e-5  # NumPyro's masses are no better
    with pytest.raises(TypeError, match="vector"):
        dist.log_cdf(dist.Dirichlet(jnp.ones(3)), 0.5)
    with pytest.raises(TypeError, match="no distribution function"):
        dist.log_cdf(dist.VonMises(0.0, 1.0), 0.5)
    assert bounds(dist.constraints.independent(dist.constraints.unit_interval, 1)) == (0.0, 1.0)
    with pytest.raises(TypeError, match="no ends"):
        bounds(dist.constraints.simplex)
