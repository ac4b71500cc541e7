"""Densities of parts of joint vectors and draws of the rest, against SciPy and formulas on sub-matrices."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ppl import dist
from ppl.distributions import partial

RNG = np.random.default_rng(3)
D = 4
LOC = RNG.normal(size=D)
ROOT = RNG.normal(size=(D, D)) / 2 + np.eye(D)
COV = ROOT @ ROOT.T
FACTOR, DIAGONAL = RNG.normal(size=(D, 2)), np.array([0.5, 1.0, 2.0, 0.7])
PATTERNS = np.array(list(itertools.product([True, False], repeat=D)))  # all known and none known are among them
X = RNG.normal(size=(len(PATTERNS), D))


def normal(mean, cov):
    return lambda x, k: stats.multivariate_normal(mean[k], cov[np.ix_(k, k)]).logpdf(x[k]) if k.any() else 0.0


def student(mean, cov, df):
    return lambda x, k: stats.multivariate_t(mean[k], cov[np.ix_(k, k)], df=df).logpdf(x[k]) if k.any() else 0.0


LOW_RANK = FACTOR @ FACTOR.T + np.diag(DIAGONAL)
FAMILIES = {
    "covariance": (lambda: dist.MultivariateNormal(LOC, covariance_matrix=COV), normal(LOC, COV)),
    "precision": (lambda: dist.MultivariateNormal(LOC, precision_matrix=np.linalg.inv(COV)), normal(LOC, COV)),
    "scale_tril": (lambda: dist.MultivariateNormal(LOC, scale_tril=np.linalg.cholesky(COV)), normal(LOC, COV)),
    "student": (lambda: dist.MultivariateStudentT(5.0, LOC, np.linalg.cholesky(COV)), student(LOC, COV, 5.0)),
    "low rank": (lambda: dist.LowRankMultivariateNormal(LOC, FACTOR, DIAGONAL), normal(LOC, LOW_RANK)),
    "independent": (lambda: dist.Normal(LOC, 2.0).to_event(1), normal(LOC, 4.0 * np.eye(D))),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_density_of_every_part_is_that_of_the_sub_vector(family):
    make, oracle = FAMILIES[family]
    expected = [oracle(x, known) for x, known in zip(X, PATTERNS, strict=True)]

    @jax.jit
    def found(value, known):
        batch = make().expand([len(PATTERNS)])
        mapped = jax.vmap(lambda x, known: partial.log_prob(make(), x, known))(value, known)
        return mapped, partial.log_prob(batch, value, known), partial.log_prob(batch.to_event(1), value, known)

    for filler in (0.0, 1e3):  # what stands at unknown elements has no influence
        mapped, batch, rows = found(np.where(PATTERNS, X, filler), PATTERNS)
        np.testing.assert_allclose(mapped, expected, atol=1e-8)
        np.testing.assert_allclose(batch, expected, atol=1e-8)
        np.testing.assert_allclose(rows, sum(expected), atol=1e-8)


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("precision", "scale_tril")]


@pytest.mark.parametrize("family", ["covariance", *OTHERS])
def test_gradients_are_finite_and_those_of_the_sub_vector(family):
    def density(scale, shift, x, known):
        loc = LOC + shift
        match family:
            case "covariance":
                d = dist.MultivariateNormal(loc, covariance_matrix=scale * COV)
            case "precision":
                d = dist.MultivariateNormal(loc, precision_matrix=jnp.linalg.inv(COV) / scale)
            case _:
                d = dist.MultivariateNormal(loc, scale_tril=jnp.sqrt(scale) * jnp.linalg.cholesky(COV))
        return partial.log_prob(d, x, known)

    gradient = jax.jit(jax.vmap(jax.grad(density, argnums=(0, 1, 2)), (None, None, 0, 0)))
    scale, shift, own = gradient(1.3, np.zeros(D), X, PATTERNS)
    for i, k in enumerate(PATTERNS):
        r = (X[i] - LOC)[k]
        white = np.linalg.solve(1.3 * COV[np.ix_(k, k)], r)
        expected = np.zeros(D)
        expected[k] = white
        np.testing.assert_allclose(shift[i], expected, atol=1e-8)
        np.testing.assert_allclose(own[i], -expected, atol=1e-8)
        np.testing.assert_allclose(scale[i], 0.5 * (white @ r - k.sum()) / 1.3, atol=1e-8)


@pytest.mark.parametrize("family", ["covariance", "low rank", *OTHERS])
def test_draws_given_the_known_elements_have_the_conditional_mean_and_covariance(family):
    make, _ = FAMILIES[family]
    cov = LOW_RANK if family == "low rank" else COV
    known, n = np.array([True, False, True, False]), 40_000
    keys = jax.random.split(jax.random.key(1), n)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: partial.draw(make(), key, X[0], jnp.asarray(known))))(keys))
    assert (drawn[:, known] == X[0, known]).all()
    gain = np.linalg.solve(cov[np.ix_(known, known)], cov[np.ix_(known, ~known)]).T
    mean = LOC[~known] + gain @ (X[0] - LOC)[known]
    left = cov[np.ix_(~known, ~known)] - gain @ cov[np.ix_(known, ~known)]
    white = np.linalg.solve(np.linalg.cholesky(left), (drawn[:, ~known] - mean).T)
    # 4 families x 5 statistics, each a standard normal: |z| < 5 fails by chance once in 80,000 runs
    assert np.abs(white.mean(1) * np.sqrt(n)).max() < 5
    assert np.abs((white**2).mean(1) - 1).max() * np.sqrt(n / 2) < 5
    assert abs((white[0] * white[1]).mean()) * np.sqrt(n) < 5


def test_draws_of_a_student_t_follow_its_conditional_law():
    make, n, df = FAMILIES["student"][0], 20_000, 5.0
    known = np.array([True, True, True, False])
    keys = jax.random.split(jax.random.key(2), n)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: partial.draw(make(), key, X[1], jnp.asarray(known))))(keys))[:, 3]
    weights = np.linalg.solve(COV[:3, :3], COV[:3, 3])
    residual = (X[1] - LOC)[:3]
    spread = (df + residual @ np.linalg.solve(COV[:3, :3], residual)) / (df + 3)
    scale = np.sqrt(spread * (COV[3, 3] - weights @ COV[:3, 3]))
    law = stats.t(df + 3, LOC[3] + weights @ residual, scale)
    assert stats.kstest(drawn, law.cdf).pvalue > 1e-5  # fails by chance once in 100,000 runs


@pytest.mark.parametrize("pattern", [np.zeros(D, bool), np.ones(D, bool)])
def test_draws_with_nothing_or_everything_known(pattern):
    d = FAMILIES["covariance"][0]()
    drawn = partial.draw(d, jax.random.key(0), jnp.asarray(X[0]), jnp.asarray(pattern))
    assert np.isfinite(drawn).all()
    assert bool((drawn == X[0]).all()) == bool(pattern.all())


def test_a_family_without_closed_marginals_counts_whole_rows():
    d = dist.Dirichlet(jnp.array([2.0, 3.0, 4.0])).expand([2])
    x = jnp.array([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]])
    known = jnp.array([[True] * 3, [False] * 3])
    assert not partial.marginalizes(d) and partial.joint_axes(d) == 1
    np.testing.assert_allclose(partial.log_prob(d, x, known), [d.log_prob(x)[0], 0.0])
    np.testing.assert_allclose(partial.split(d, x, known)[1], [0.0, d.log_prob(x)[1]])


def test_the_terms_of_independent_elements_are_divided_between_known_and_unknown():
    d = dist.Gamma(2.0, jnp.ones((2, 3))).to_event(1)
    x, known = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.1, 4.0]]), jnp.array([[True, False, True], [False] * 3])
    each = stats.gamma(2.0).logpdf(np.asarray(x))
    left, right = partial.split(d, x, known)
    known = np.asarray(known)
    np.testing.assert_allclose(left, (each * known).sum(1))
    np.testing.assert_allclose(right, (each * ~known).sum(1))
