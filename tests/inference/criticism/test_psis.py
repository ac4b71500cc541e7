"""Pareto smoothing: equal to ArviZ's, and right where the law is known."""

from __future__ import annotations

import arviz as az
import numpy as np
import pytest
from scipy import stats

from ppl.inference.criticism.psis import fit_pareto, log_sum, pareto_quantile, smooth, threshold
from tests.inference.criticism.conjugate import needs_old_arviz


def ratios(kind, size=1000):
    rng = np.random.default_rng(5)
    heavy = {"light": 0.3, "heavy": 1.2}
    if kind in heavy:
        return rng.exponential(size=(size, 4)) * heavy[kind] - 700.0
    if kind == "normal":
        return rng.normal(size=(size, 4)) * np.array([0.1, 1.0, 3.0, 9.0])
    return np.round(rng.normal(size=(size, 4)), 1)  # ties


@needs_old_arviz
@pytest.mark.parametrize("kind", ["light", "heavy", "normal", "ties"])
@pytest.mark.parametrize(("size", "efficiency"), [(1000, 1.0), (1000, 0.3), (40, 0.7), (21, 1.0)])
def test_equal_to_arviz(kind, size, efficiency):
    x = ratios(kind, size)
    weights, k = smooth(x, efficiency)
    other, other_k = az.psislw(x.T, reff=efficiency)
    np.testing.assert_allclose(k, other_k, rtol=1e-9)
    other = np.asarray(other).T
    if kind == "ties":  # which of equal ratios gets which order statistic is arbitrary
        weights, other = np.sort(weights, axis=0), np.sort(other, axis=0)
    np.testing.assert_allclose(weights, other, rtol=1e-8, atol=1e-10)


def test_a_tail_that_is_too_short_is_not_fitted():
    weights, k = smooth(np.zeros(50))
    assert k == 0.0  # equal ratios need no tail
    np.testing.assert_allclose(np.exp(weights), 1 / 50)
    assert smooth(np.append(np.zeros(46), np.ones(4)))[1] == np.inf
    assert smooth(np.arange(6.0))[1] == np.inf


def test_a_ratio_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="column 1"):
        smooth(np.array([[0.0, np.nan], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="inf"):
        smooth(np.array([0.0, np.inf]))


@pytest.mark.parametrize("k", [-0.3, 0.0, 0.5, 1.0])
def test_the_quantile_is_that_of_the_law(k):
    p = np.array([0.01, 0.5, 0.99])
    np.testing.assert_allclose(pareto_quantile(p, k, 2.0), stats.genpareto(k, scale=2.0).ppf(p), rtol=1e-12)


@pytest.mark.parametrize("k", [-0.2, 0.3, 0.9])
def test_the_law_is_recovered(k):
    x = np.sort(stats.genpareto(k, scale=3.0).ppf((np.arange(4000) + 0.5) / 4000))
    shape, scale = fit_pareto(x)
    assert abs(shape - k) < 0.02
    assert abs(scale - 3.0) < 0.1


def test_the_threshold_follows_the_number_of_draws():
    assert threshold(1000) == pytest.approx(2 / 3)
    assert threshold(10**6) == 0.7


def test_log_sum_survives_the_ends():
    assert log_sum(np.array([-np.inf, -np.inf])) == -np.inf
    assert log_sum(np.array([1000.0, 1000.0])) == pytest.approx(1000 + np.log(2))
