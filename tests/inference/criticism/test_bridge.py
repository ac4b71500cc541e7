"""Bridge sampling against evidences in closed form; its standard error against its spread."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import ppl
from ppl import dist
from ppl.inference import bridge, infer, mcmc
from ppl.inference.criticism.bridge_sampling import iterate, two_folds
from tests.inference.criticism.conjugate import evidence_cases, regression, regression_evidence
from tests.inference.engines import Gaussian

ENGINE = mcmc.PooledHMC(draws=200, max_draws=200)
CASES = evidence_cases()


@cache
def fit_of(name):
    return infer(CASES[name].program, ENGINE, seed=1, progress=False)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", ["warp3", "normal"])
def test_closed_form_evidences(name, method):
    """Three standard errors, seeded; false alarm 1 in 370 each for a fresh seed."""
    case = CASES[name]
    found = bridge(fit_of(name), method=method, seed=2)
    assert found.se < (0.02 if method == "warp3" else 0.05)
    assert abs(found.log_evidence - case.log_evidence) < 3 * found.se


def test_the_closed_forms_are_evidences():
    """The oracle itself, by quadrature of the program's own density over an unconstrained scalar."""
    for name in ("beta-bernoulli", "gamma-exponential"):
        case = CASES[name]
        density = ppl.compile(case.program)
        grid = np.linspace(-25.0, 25.0, 4001)[:, None]
        values = np.exp(np.asarray(jax.jit(jax.vmap(density))(grid)) - case.log_evidence)
        assert np.trapezoid(values, grid[:, 0]) == pytest.approx(1.0, abs=1e-6), name


def test_seven_dimensions_with_correlated_draws():
    rng = np.random.default_rng(8)
    X = np.column_stack([np.ones(30), rng.normal(size=(30, 5)).cumsum(axis=1)])
    y = X @ rng.normal(size=6) + rng.normal(size=30)
    fit = infer(regression(X, 1.0, 1.5, 1.0).condition(y=y), mcmc.HMC(steps=8), draws=600, seed=1, progress=False)
    found = bridge(fit)
    assert abs(found.log_evidence - regression_evidence(y, X, 1.0, 1.5, 1.0)) < 3 * found.se < 0.15


def test_a_program_is_fitted():
    case = CASES["gamma-exponential"]
    found = bridge(case.program, seed=4)
    assert abs(found.log_evidence - case.log_evidence) < 3 * found.se
    assert "log evidence" in repr(found)


def test_identity_with_known_laws():
    """N(0, 1) times 5 against N(0.5, 1.5^2), independent draws: 200 repetitions have the stated spread."""
    z = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(4, 150)), rng.normal(0.5, 1.5, size=400)

        def ratio(x):
            return np.log(5.0) + stats.norm.logpdf(x) - stats.norm(0.5, 1.5).logpdf(x)

        log_r, se = iterate(ratio(x), ratio(y), 0.6)
        z.append((log_r - np.log(5.0)) / se)
    z = np.array(z)
    assert abs(z.mean()) < 4 / np.sqrt(200)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / 200)  # four standard errors of a normal's variance


def test_autocorrelation_counts():
    """The same draws repeated fourfold in time say no more: the error must not halve."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(4, 300)), rng.normal(size=50_000) * 2

    def ratio(x):
        return stats.norm.logpdf(x) - stats.norm(0, 2).logpdf(x)

    once, again = iterate(ratio(x), ratio(y), 0.5)[1], iterate(ratio(np.repeat(x, 4, axis=1)), ratio(y), 0.5)[1]
    assert 0.8 < again / once < 1.2


def test_chains_that_disagree_widen_the_error():
    fit = infer(lambda z: (z - jnp.exp(z)).sum(), Gaussian(chains=4, draws=500), init=np.zeros(1), progress=False)
    exact = np.log(np.random.default_rng(0).exponential(size=(4, 500, 1)))
    apart = exact + np.array([2.0, 0.0, 2.0, 0.0])[:, None, None]
    fits = [replace(fit, draws=replace(fit.draws, positions=positions)) for positions in (exact, apart)]
    assert abs(bridge(fits[0]).log_evidence) < 3 * bridge(fits[0]).se
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = bridge(fits[1])
    assert any("two halves of the draws" in str(w.message) for w in caught)
    assert any("R-hat" in note for note in found.notes)
    assert found.se == abs(found.halves[0] - found.halves[1]) / 2


def test_the_halves_are_disjoint():
    positions = np.arange(4 * 6 * 1.0).reshape(4, 6, 1)
    for learn, use in two_folds(positions):
        assert not set(learn.ravel()) & set(use.ravel())
    for learn, use in two_folds(np.arange(40.0).reshape(2, 20, 1)):
        assert not set(learn.ravel()) & set(use.ravel())


def test_too_few_draws_are_refused():
    fit = infer(lambda z: -0.5 * (z**2).sum(), Gaussian(chains=2, draws=9), init=np.zeros(5), progress=False)
    with pytest.raises(ValueError, match="2 x 9 draws are too few for the covariance of 5"):
        bridge(fit)


def test_an_improper_prior_is_refused():
    @ppl.model
    def improper(n):
        mu = ppl.sample("mu", dist.flat())
        ppl.plate("row", lambda _: ppl.sample("y", dist.Normal(mu, 1.0)), n)

    fit = infer(improper(3).condition(y=np.zeros(3)), Gaussian(chains=4, draws=50), progress=False)
    with pytest.raises(ppl.ModelError, match="evidence of a model with an improper prior.*mu"):
        bridge(fit)


def test_unknown_methods_are_refused():
    fit = infer(lambda z: -0.5 * (z**2).sum(), Gaussian(chains=2, draws=50), init=np.zeros(1), progress=False)
    with pytest.raises(ValueError, match="'harmonic'"):
        bridge(fit, method="harmonic")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["regression", "dirichlet-multinomial", "gamma-exponential", "beta-bernoulli"])
@pytest.mark.parametrize("method", ["warp3", "normal"])
def test_the_standard_error_is_calibrated(name, method):
    """50 seeds: z-scores centred, with variance near one (four standard errors)."""
    case = CASES[name]
    z = []
    for seed in range(50):
        fit = infer(case.program, ENGINE, seed=seed, progress=False)
        found = bridge(fit, method=method, seed=seed)
        z.append((found.log_evidence - case.log_evidence) / found.se)
    z = np.array(z)
    assert abs(z.mean()) < 4 / np.sqrt(50)
    assert 0.5 < z.std() < 1.6  # four standard errors of a normal's sd: 0.6 to 1.4; the errors are estimates themselves


def test_factors_are_said_to_count():
    @ppl.model
    def tilted():
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        ppl.factor("tilt", 2.0 * mu)

    fit = infer(tilted(), Gaussian(chains=4, draws=200, mean=2.0), progress=False)
    with pytest.warns(UserWarning, match=r"factors \(tilt\) count"):
        found = bridge(fit)
    assert abs(found.log_evidence - 2.0) < 3 * found.se + 1e-3  # log E exp(2 mu) = 2
