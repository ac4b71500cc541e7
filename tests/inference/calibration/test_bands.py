"""Exact bands against enumeration and simulation, and the power of the tests."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ppl.inference.calibration import bands


def every_sample(replications, draws):
    return np.array(list(itertools.product(range(draws + 1), repeat=replications)))


@pytest.mark.parametrize(("replications", "draws"), [(1, 1), (4, 2), (3, 6), (5, 3)])
def test_within_is_the_enumerated_probability(replications, draws):
    below = bands.counts(every_sample(replications, draws).T, draws)
    rng = np.random.default_rng(0)
    for _ in range(30):
        lower, upper = np.sort(rng.integers(0, replications + 1, (2, draws)), axis=0)
        inside = (below >= lower[:, None]) & (below <= upper[:, None])
        found = bands.within(lower, upper, replications, draws)
        assert found == pytest.approx(inside.all(axis=0).mean(), abs=1e-12)


@pytest.mark.parametrize(("replications", "draws"), [(4, 2), (5, 3), (6, 2)])
def test_the_pvalue_is_the_enumerated_probability(replications, draws):
    ranks = every_sample(replications, draws).T
    pvalues = bands.ecdf_pvalues(ranks, draws)
    # The p-value orders samples as T does, and P(p <= x) = x at each x that occurs: that is exactness.
    for p in np.unique(pvalues.round(10)):
        assert (pvalues <= p + 1e-9).mean() == pytest.approx(p, abs=1e-9)


@pytest.mark.parametrize(("replications", "draws"), [(50, 9), (200, 99), (300, 255)])
def test_the_band_covers_what_it_says(replications, draws):
    """Simulation of 4000 samples; each z is below 4 except with probability 6e-5."""
    rng = np.random.default_rng(1)
    limits = bands.band(replications, draws, 0.9)
    assert 0.9 <= limits.coverage < 0.93
    below = bands.counts(rng.integers(0, draws + 1, (replications, 4000)), draws)
    inside = ((below >= limits.lower[:, None]) & (below <= limits.upper[:, None])).all(axis=0).mean()
    z = (inside - limits.coverage) / np.sqrt(limits.coverage * (1 - limits.coverage) / 4000)
    assert abs(z) < 4


def test_pvalues_of_uniform_ranks_are_nearly_uniform():
    """At 5% and 1% of 1200 samples; false alarm 4e-4 in all (|z| < 4, four comparisons, some slack for chi2)."""
    rng = np.random.default_rng(2)
    ranks = rng.integers(0, 100, (150, 1200))
    for pvalues, slack in ((bands.ecdf_pvalues(ranks, 99), 0.0), (bands.chi2_pvalues(ranks, 99), 0.004)):
        for level in (0.05, 0.01):
            error = 4 * np.sqrt(level * (1 - level) / 1200)
            assert abs((pvalues <= level).mean() - level) < error + slack


def test_the_band_and_the_pvalue_agree():
    rng = np.random.default_rng(3)
    ranks = np.minimum(rng.binomial(19, rng.beta(1.2, 1.0, (80, 500))), 19)
    limits = bands.band(80, 19, 0.95)
    below = bands.counts(ranks, 19)
    outside = ((below < limits.lower[:, None]) | (below > limits.upper[:, None])).any(axis=0)
    rejected = bands.ecdf_pvalues(ranks, 19) <= 1.0 - limits.coverage + 1e-12
    assert 0.1 < outside.mean() < 0.9
    np.testing.assert_array_equal(outside, rejected)


@pytest.mark.parametrize("a", [0.75, 1.4])
def test_ranks_of_too_narrow_and_too_wide_posteriors_are_found(a):
    """Ranks of Beta(a, a) quantiles: power near one at N = 1000."""
    rng = np.random.default_rng(4)
    ranks = rng.binomial(99, rng.beta(a, a, (1000, 40)))
    assert (bands.ecdf_pvalues(ranks, 99) < 0.001).mean() > 0.9
    assert (bands.chi2_pvalues(ranks, 99) < 0.001).mean() > 0.8


def test_more_draws_than_points_are_thinned_exactly():
    grid = bands.points(999)
    assert len(grid) == bands.MOST_POINTS and grid[0] == 1 and grid[-1] == 999
    ranks = np.random.default_rng(5).integers(0, 1000, (60, 800))
    rejected = (bands.ecdf_pvalues(ranks, 999) <= 0.05).mean()
    assert abs(rejected - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 800)  # false alarm 6e-5


def test_bins_that_do_not_divide_the_rank_values_have_their_own_probabilities():
    edges, number, share = bands.histogram(np.arange(10), 9, bins=4)
    np.testing.assert_array_equal(np.diff(edges), number)
    np.testing.assert_allclose(share, number / 10)
    assert bands.chi2_pvalues(np.arange(10), 9, bins=4) == pytest.approx(1.0)


@pytest.mark.parametrize("ranks", [np.array([0, 11]), np.array([-1, 3]), np.array([0.5]), np.array([])])
def test_what_cannot_be_ranks_is_refused(ranks):
    with pytest.raises(ValueError, match="ranks"):
        bands.ecdf_pvalues(ranks, 10)
