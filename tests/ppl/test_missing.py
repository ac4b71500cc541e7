"""Data with gaps: exact marginals, imputation with its Jacobian, markers, refusals, and no new compilation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import ppl
from ppl import dist

pytestmark = pytest.mark.standard_promotion
NAN = np.nan


def message(action) -> str:
    with pytest.raises(ppl.ModelError) as caught:
        action()
    return str(caught.value)


@jax.jit
def evaluate(density, z):
    """Value, gradient and pointwise log likelihood, in one compilation."""
    return density(z), jax.grad(density)(z), density.pointwise(z)


# ---------------------------------------------------------------------------------------------- multivariate normals


@ppl.model
def vectors(n, d):
    mu = ppl.sample("mu", dist.Normal(0.0, 1.0).expand([d]).to_event(1))
    s = ppl.sample("s", dist.HalfNormal(1.0))

    @ppl.plate("group", 2)
    def _(g):
        @ppl.plate("row", n)
        def _():
            cov = s * jnp.eye(d) + 0.3 * (1 + g)
            ppl.sample("y", dist.MultivariateNormal(mu, covariance_matrix=cov))


def gaps(n, d, seed=0):
    rng = np.random.default_rng(seed)
    y = np.where(rng.random((2, n, d)) < 0.5, NAN, rng.normal(size=(2, n, d)))
    y[0, 0], y[0, 1] = NAN, rng.normal(size=d)
    return y


def row_by_row(y, mu, s):
    """The closed-form marginal of every row, computed on its own sub-vector."""
    found = np.zeros(y.shape[:2])
    for g, i in np.ndindex(*y.shape[:2]):
        k = ~np.isnan(y[g, i])
        cov = (s * np.eye(y.shape[2]) + 0.3 * (1 + g))[np.ix_(k, k)]
        found[g, i] = stats.multivariate_normal(mu[k], cov).logpdf(y[g, i][k]) if k.any() else 0.0
    return found


def test_a_half_missing_multivariate_normal_equals_its_marginal_row_by_row():
    y = gaps(5, 3)
    density = ppl.compile(vectors(5, 3).condition(y=y, missing="marginalize"))
    z = np.array([0.3, -0.2, 1.0, 0.1])

    def oracle(z):
        mu, s = z[:3], np.exp(z[3])
        prior = stats.norm.logpdf(mu).sum() + stats.halfnorm.logpdf(s) + z[3]
        return prior + row_by_row(y, mu, s).sum()

    value, gradient, pointwise = evaluate(density, z)
    assert abs(float(value) - oracle(z)) < 1e-8
    np.testing.assert_allclose(pointwise["y"], row_by_row(y, z[:3], np.exp(z[3])), atol=1e-8)
    step = 1e-4  # fourth-order differences of the oracle
    slopes = []
    for e in np.eye(4) * step:
        differences = [oracle(z + k * e) - oracle(z - k * e) for k in (1, 2)]
        slopes.append((8 * differences[0] - differences[1]) / (12 * step))
    np.testing.assert_allclose(gradient, slopes, atol=1e-8)


def test_many_patterns_at_once_and_marginal_equals_the_integral_of_the_imputed_density():
    y, z = gaps(4, 3, seed=5), np.array([0.3, -0.2, 1.0, 0.1])
    marginal = ppl.compile(vectors(4, 3).condition(y=y, missing="marginalize"))
    imputed = ppl.compile(vectors(4, 3).condition(y=y, missing="impute"))
    assert imputed.dim == 4 + np.isnan(y).sum()
    assert abs(_integrated(imputed, z) - float(marginal(z))) < 1e-8
    full = np.concatenate([z, np.linspace(-1.0, 1.0, imputed.dim - 4)])
    np.testing.assert_allclose(imputed.pointwise(full)["y"], marginal.pointwise(z)["y"], atol=1e-8)
    prior, likelihood = (float(part(full)) for part in imputed.split())
    np.testing.assert_allclose([prior + likelihood, likelihood], [imputed(full), marginal.pointwise(z)["y"].sum()])
    log_prior = imputed.log_prior(full)
    np.testing.assert_allclose(sum(log_prior.values()) + likelihood + z[3], imputed(full))  # and a log-determinant


@jax.jit
def _integrated(density, z):
    """The log integral over the imputed elements, at which the density is Gaussian: exact by its mode and Hessian."""
    k = density.dim - len(z)

    def of(u):
        return density(jnp.concatenate([z, u]))

    value, slope, hessian = of(jnp.zeros(k)), jax.grad(of)(jnp.zeros(k)), -jax.hessian(of)(jnp.zeros(k))
    at_mode = value + 0.5 * slope @ jnp.linalg.solve(hessian, slope)
    return at_mode + 0.5 * k * jnp.log(2 * jnp.pi) - 0.5 * jnp.linalg.slogdet(hessian)[1]


# ---------------------------------------------------------------------------------------------- chains


@ppl.model
def autoregression(steps):
    phi = ppl.sample("phi", dist.Uniform(-1.0, 1.0))

    @ppl.plate("series", coords=["a", "b"])
    def _():
        def step(x, t):
            return ppl.sample("y", dist.Normal(phi * x, 0.7))

        ppl.markov("time", step, init=0.0, xs=steps)


def chain_covariance(phi, steps):
    return np.array(
        [[0.49 * sum(phi ** (i + j - 2 * k) for k in range(min(i, j) + 1)) for j in range(steps)] for i in range(steps)]
    )


Y = np.array([[1.0, NAN, NAN, 0.4, 0.2, NAN], [NAN, -0.3, 0.5, NAN, 1.2, 0.1]])


def test_a_chain_with_imputed_gaps_has_the_exact_gaussian_marginal():
    program = autoregression(6).condition(y=Y, missing="impute")
    assert program.sites["y_missing"].shape == (5,)
    assert program.coords["y_missing_dim_0"].tolist()[:2] == ["series=a,time=1", "series=a,time=2"]
    density = ppl.compile(program)
    for u in (-0.5, 0.8):
        phi = 2 / (1 + np.exp(-u)) - 1
        cov, expected = chain_covariance(phi, 6), 0.0
        for y in Y:
            k = ~np.isnan(y)
            expected += stats.multivariate_normal(np.zeros(k.sum()), cov[np.ix_(k, k)]).logpdf(y[k])
        prior = np.log(0.5) + np.log((1 + phi) * (1 - phi) / 2)
        assert abs(_integrated(density, np.array([u])) - prior - expected) < 1e-8


def test_the_end_of_a_chain_may_be_left_out():
    y = np.array([[1.0, 0.3, NAN, NAN], [0.2, NAN, NAN, NAN]])
    density = ppl.compile(autoregression(4).condition(y=y, missing="marginalize"))
    z = np.array([0.4])
    factors = density.factors(z)["y"]
    np.testing.assert_array_equal(factors == 0, np.isnan(y))
    phi = 2 / (1 + np.exp(-0.4)) - 1
    np.testing.assert_allclose(factors[0, :2], stats.norm.logpdf([1.0, 0.3 - phi], 0, 0.7), atol=1e-12)
    text = message(lambda: autoregression(6).condition(y=Y, missing="marginalize"))
    assert "y[series=a, time=1]" in text and 'missing="impute"' in text


# ---------------------------------------------------------------------------------------------- bounded families

BOUNDED = {
    "Gamma": (lambda t: dist.Gamma(2.0, t), 1.3),
    "Beta": (lambda t: dist.Beta(t, 2.0), 0.4),
    "LogNormal": (lambda t: dist.LogNormal(0.0, t), 0.7),
    "Uniform(0, t)": (lambda t: dist.Uniform(0.0, t), 0.01),
    "truncated below t": (lambda t: dist.truncated(dist.Normal(0.0, 1.0), high=t), -0.2),
    "StudentT": (lambda t: dist.StudentT(3.0, 0.0, t), 0.5),
}


SLOW = ("LogNormal", "truncated below t", "StudentT")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in BOUNDED])
def test_imputed_elements_have_the_density_and_jacobian_of_an_explicit_latent(name):
    make, value = BOUNDED[name]

    @ppl.model
    def gappy():
        t = ppl.sample("t", dist.LogNormal(0.0, 1.0))
        y = ppl.plate("row", lambda: ppl.sample("y", make(t)), 3)
        ppl.sample("sum", dist.Normal(y.sum(), 1.0))  # reads the completed value

    @ppl.model
    def explicit():
        t = ppl.sample("t", dist.LogNormal(0.0, 1.0))
        hidden = ppl.plate("hidden", lambda: ppl.sample("y_missing", make(t)), 2)
        y = ppl.sample("y", make(t))
        ppl.sample("sum", dist.Normal(y + hidden.sum(), 1.0))

    left = ppl.compile(gappy().condition(y=[NAN, value, NAN], sum=1.0, missing={"y": "impute"}))
    right = ppl.compile(explicit().condition(y=value, sum=1.0))
    z = np.array([0.2, -0.6, 0.9])
    (value, gradient, pointwise), (expected, slope, known) = evaluate(left, z), evaluate(right, z)
    assert abs(float(value) - float(expected)) < 1e-10
    np.testing.assert_allclose(gradient, slope, atol=1e-9)
    assert pointwise["y"][0] == 0 == pointwise["y"][2] and abs(pointwise["y"][1] - known["y"]) < 1e-10
    if name != "Uniform(0, t)":
        return
    a, b = left.constrain(z), right.constrain(z)
    np.testing.assert_allclose(a["y_missing"], b["y_missing"])
    np.testing.assert_allclose(left.unconstrain(a), z, atol=1e-9)
    np.testing.assert_allclose(left.log_prior(z)["y_missing"], right.log_prior(z)["y_missing"], atol=1e-10)
    halves = [[float(part(z)) for part in density.split()] for density in (left, right)]
    np.testing.assert_allclose(halves[0], halves[1], atol=1e-10)


# ---------------------------------------------------------------------------------------------- every pattern


@ppl.model
def zoo(weights, total):
    t = ppl.sample("t", dist.LogNormal(0.0, 0.3))
    v = ppl.sample("v", dist.Dirichlet(jnp.ones(3)))

    @ppl.plate("row", 3)
    def _():
        ppl.sample("normal", dist.Normal(0.0, t))
        ppl.sample("gamma", dist.Gamma(2.0, t))
        ppl.sample("beta", dist.Beta(t, 2.0))
        ppl.sample("uniform", dist.Uniform(-t, 3.0 + t))
        ppl.sample("scale", dist.Pareto(t, 1.5))
        ppl.sample("vector", dist.MultivariateNormal(jnp.zeros(2), t * jnp.eye(2)))
        ppl.sample("event", dist.Gamma(2.0, t).expand([2]).to_event(1))
        ppl.sample("poisson", dist.Poisson(t))
        ppl.sample("binomial", dist.Binomial(total, t / (1 + t)))
        ppl.sample("category", dist.Categorical(v))
        ppl.sample("censored", dist.censored(dist.Weibull(t, 2.0), upper=0.7))
        ppl.sample("simplex", dist.Dirichlet(weights * t))
        ppl.sample("counts", dist.Multinomial(probs=v, total_count=4))
        ppl.sample("flag", dist.Bernoulli(logits=t))


FULL = {
    "normal": [0.3, -1.0, 2.0], "gamma": [0.3, 1.0, 2.0], "beta": [0.3, 0.9, 0.2], "uniform": [1.5, 1.8, 2.0],
    "scale": [40.0, 50.0, 60.0], "vector": np.ones((3, 2)), "event": np.ones((3, 2)), "poisson": [0, 2, 3],
    "binomial": [0, 5, 2], "category": [0, 1, 2], "censored": [0.3, 0.7, 0.1],
    "simplex": [[0.2, 0.3, 0.5], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]], "counts": [[4, 0, 0], [1, 1, 2], [0, 4, 0]],
    "flag": [1, 0, 1],
}  # fmt: skip
CONTINUOUS = ("normal", "gamma", "beta", "uniform", "scale", "vector", "event")


PATTERNS = {"none": [], "some": [1], "all": [0, 1, 2]}
CASES = [(policy, pattern) for policy in ("marginalize", "impute") for pattern in PATTERNS]
QUICK = [("marginalize", "some"), ("marginalize", "all"), ("impute", "some")]  # the first two are one program


@pytest.mark.parametrize(
    "policy, pattern", [pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.slow]) for case in CASES]
)
def test_gradients_are_finite_under_every_pattern(policy, pattern):
    missing = PATTERNS[pattern]
    data = {name: np.array(x, float) for name, x in FULL.items()}
    for name in CONTINUOUS if policy == "impute" else data:
        data[name][missing] = NAN
        if name in ("vector", "event") and missing:
            data[name][1, 0] = 1.0  # partly known
    program = zoo(np.ones(3), np.array(5))
    density = ppl.compile(program.condition(data, missing=policy))
    for z in np.random.default_rng(1).normal(size=(3, density.dim)):
        value, gradient, pointwise = evaluate(density, z)
        assert np.isfinite(value) and np.isfinite(gradient).all()
        for name, factor in pointwise.items():
            known = ~np.isnan(data[name]).reshape(3, -1)
            np.testing.assert_array_equal(factor != 0, known.any(1), err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["marginalize", "impute"])
def test_draws_keep_what_is_known(policy):
    data = {name: np.array(x, float) for name, x in FULL.items()}
    for name in CONTINUOUS if policy == "impute" else data:
        data[name][1] = NAN
    program = zoo(np.ones(3), np.array(5)).condition(data, missing=policy)
    ppl.check(program)
    drawn = program.sample(3)
    for name, x in data.items():
        assert np.isfinite(drawn[name]).all()
        np.testing.assert_array_equal(np.asarray(drawn[name])[[0, 2]], x[[0, 2]])
