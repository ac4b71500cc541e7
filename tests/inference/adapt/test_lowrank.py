"""The metric of low rank plus diagonal: the full geometric mean where the rank suffices, and its algebra."""

import jax
import numpy as np
import pytest

from ppl.inference.adapt import fisher, kinds, lowrank
from ppl.inference.mcmc.pooled_block import _product


def spd(rng, dim, decades=1.0):
    a = rng.normal(size=(dim, dim))
    scale = 10.0 ** np.linspace(-decades, decades, dim)
    return (a @ a.T / dim + 0.1 * np.eye(dim)) * np.outer(scale, scale)


def some(rng, dim=5, rank=3, used=2):
    """A metric with ``used`` of ``rank`` directions."""
    basis = np.zeros((dim, rank))
    basis[:, :used] = np.linalg.qr(rng.normal(size=(dim, used)))[0]
    levels = np.ones(rank)
    levels[:used] = np.exp(rng.normal(size=used) * 2)
    return lowrank.LowRank(np.exp(rng.normal(size=dim)), basis, levels)


def sample(rng, covariance, rows):
    z = rng.multivariate_normal(np.zeros(len(covariance)), covariance, size=rows, method="cholesky")
    g = -z @ np.linalg.inv(covariance)
    return z, g + 0.1 * np.tanh(g)  # not a Gaussian's


@pytest.mark.parametrize(("dim", "rank"), [(1, 1), (3, 5), (7, 7)])
def test_full_rank_is_the_full_geometric_mean(monkeypatch, dim, rank):
    """Without a bound on eigenvalues and without shrinkage the two metrics solve the same equation."""
    monkeypatch.setattr(lowrank, "LEAST", 1.0)
    rng = np.random.default_rng(dim)
    z, g = sample(rng, spd(rng, dim), 60)
    low = lowrank.update(lowrank.unit(dim, rank), z, g, k=0.0)
    full = fisher.update(fisher.scaled(np.ones(dim), True), z, g, k=0.0)
    np.testing.assert_allclose(low.metric.covariance(), full.metric.covariance(), rtol=1e-7)
    np.testing.assert_allclose([low.draws_top, low.gradients_top], [full.draws_top, full.gradients_top], rtol=1e-6)


def test_a_heavy_weight_keeps_what_the_previous_metric_adds_to_the_diagonal(monkeypatch):
    """D is new in every window; within it (I + U (Lambda - I) U') stays, up to a scale."""
    monkeypatch.setattr(lowrank, "LEAST", 1.0)
    rng = np.random.default_rng(3)
    old = some(rng, 4, 4, 4)
    z, g = sample(rng, spd(rng, 4), 50)
    after = lowrank.update(old, z, g, k=1e12).metric
    kept = [m.covariance() / np.outer(m.scale, m.scale) for m in (old, after)]
    np.testing.assert_allclose(kept[1] / kept[0], kept[1][0, 0] / kept[0][0, 0], rtol=1e-5)


def test_factor_momenta_and_whitening_belong_to_one_matrix():
    rng = np.random.default_rng(4)
    metric = some(rng)
    sigma = metric.covariance()
    stretch = np.eye(5) + (metric.basis * (np.sqrt(metric.levels) - 1)) @ metric.basis.T
    factor = metric.scale[:, None] * stretch
    np.testing.assert_allclose(factor @ factor.T, sigma, rtol=1e-10)
    whole = metric.momenta(np.eye(5))
    np.testing.assert_allclose(whole.T @ whole, np.linalg.inv(sigma), rtol=1e-8)
    rows = rng.normal(size=(4, 5))
    np.testing.assert_allclose(metric.whiten(rows), rows @ np.linalg.inv(factor).T, rtol=1e-9)
    np.testing.assert_allclose(metric.whiten_gradients(rows), rows @ factor, rtol=1e-9)


@pytest.mark.parametrize("kind", ["dense", "diagonal", "low rank"])
def test_the_program_applies_the_metric_that_the_host_means(kind):
    rng = np.random.default_rng(5)
    metric = {"dense": fisher.Metric(a := spd(rng, 5), np.linalg.inv(a)), "diagonal": fisher.scaled(
        np.arange(1.0, 6.0), False), "low rank": some(rng)}[kind]  # fmt: skip
    sigma, factor = metric.arguments()
    rows = rng.normal(size=(3, 5))
    whole = metric.covariance() if metric.covariance().ndim == 2 else np.diag(metric.covariance())
    product = jax.jit(_product, static_argnums=2)
    np.testing.assert_allclose(product(rows, sigma, True), rows @ whole, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(product(rows, factor, False), metric.whiten_gradients(rows), rtol=1e-9, atol=1e-12)


def factor_covariance(rng, dim, factors):
    loadings = rng.normal(size=(dim, factors))
    scale = 10.0 ** rng.uniform(-1, 1, dim)
    return (loadings @ loadings.T + np.eye(dim)) * np.outer(scale, scale)


def test_fewer_draws_than_dimensions_find_the_factors():
    """Three factors in 300 dimensions from 100 draws: the condition number falls from 562 to 4."""
    rng = np.random.default_rng(6)
    covariance = factor_covariance(rng, 300, 3)
    lower = np.linalg.cholesky(covariance)
    metric = lowrank.unit(300, 8)
    for _ in range(3):
        z = rng.normal(size=(100, 300)) @ lower.T
        metric = lowrank.update(metric, z, -np.linalg.solve(lower.T, np.linalg.solve(lower, z.T)).T).metric
    spectrum = np.linalg.eigvalsh(np.linalg.inv(lower) @ metric.covariance() @ np.linalg.inv(lower).T)
    diagonal = np.sqrt(np.diag(covariance) / np.diag(np.linalg.inv(covariance)))
    before = np.linalg.eigvalsh(np.linalg.inv(lower) @ np.diag(diagonal) @ np.linalg.inv(lower).T)
    assert before[-1] / before[0] > 500 and spectrum[-1] / spectrum[0] < 6
    assert metric.basis.shape == (300, 8)


def test_a_window_that_shows_nothing_new_keeps_what_is_known():
    """From draws of the metric's own Gaussian with few rows, known directions stay: the old basis is in the span."""
    rng = np.random.default_rng(7)
    metric = some(rng, 60, 4, 4)
    metric = lowrank.LowRank(np.ones(60), metric.basis, np.array([100.0, 50.0, 0.02, 0.01]))
    z = rng.normal(size=(200, 60)) @ np.linalg.cholesky(metric.covariance()).T
    g = -z @ np.linalg.inv(metric.covariance())
    after = lowrank.update(metric, z, g).metric
    overlap = np.linalg.svd(metric.basis.T @ after.basis, compute_uv=False)
    assert overlap.min() > 0.9


def test_pairs_of_a_quadratic_give_its_covariance(monkeypatch):
    rng = np.random.default_rng(8)
    covariance = spd(rng, 4, decades=0.3)
    s = rng.normal(size=(400, 4)) * 10.0 ** rng.uniform(-3, 3, size=(400, 1))
    metric = lowrank.from_pairs(s, s @ np.linalg.inv(covariance), 4)
    eigenvalues = np.linalg.eigvals(np.linalg.solve(covariance, metric.covariance())).real
    assert 0.7 < eigenvalues.min() and eigenvalues.max() < 1.4  # eigenvalues within 1.3 of one are left alone


def test_degenerate_draws_still_give_a_positive_definite_metric():
    z = np.outer(np.linspace(-1, 1, 20), [1.0, 2.0, 0.0])
    sigma = lowrank.update(lowrank.unit(3, 2), z, -z).metric.covariance()
    assert np.isfinite(sigma).all() and np.linalg.eigvalsh(sigma)[0] > 0


def test_kinds_keep_their_kind():
    rng = np.random.default_rng(9)
    z, g = sample(rng, spd(rng, 6), 40)
    for kind in (kinds.DENSE, kinds.DIAGONAL, kinds.LOW_RANK):
        start = kinds.unit(kind, 6, 2)
        assert kinds.update(start, z, g).metric.kind == kind == kinds.from_pairs(z, -g, start).kind


def test_a_promise_is_the_condition_of_what_a_metric_leaves():
    rng = np.random.default_rng(10)
    covariance = np.array([[1.0, 0.95], [0.95, 1.0]])
    lower = np.linalg.cholesky(covariance)
    z = rng.normal(size=(20_000, 2)) @ lower.T
    g = -z @ np.linalg.inv(covariance)
    right = fisher.Metric(lower, np.linalg.inv(lower))
    diagonal = kinds.diagonal(z, g, right)
    assert abs(kinds.promise(right, z, g, right).leapfrogs - 1.0) < 0.1
    promised = kinds.promise(diagonal, z, g, right).leapfrogs  # of winsorised gradients
    assert abs(promised / np.sqrt(1.95 / 0.05) - 1.0) < 0.15
