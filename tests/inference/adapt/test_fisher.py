"""The Fisher metric: exact on Gaussians, equivariant, shrunk to what it was where there are no data."""

import numpy as np
import pytest

from ppl.inference.adapt import fisher


def spd(rng, dim, decades=1.0):
    a = rng.normal(size=(dim, dim))
    scale = 10.0 ** np.linspace(-decades, decades, dim)
    return (a @ a.T / dim + 0.1 * np.eye(dim)) * np.outer(scale, scale)


def previous(rng, dim):
    factor = np.linalg.cholesky(spd(rng, dim))
    return fisher.Metric(factor, np.linalg.inv(factor))


def gaussian_sample(rng, covariance, rows):
    z = rng.multivariate_normal(np.zeros(len(covariance)), covariance, size=rows, method="cholesky")
    return z, -z @ np.linalg.inv(covariance)


@pytest.mark.parametrize("dim", [1, 2, 7])
def test_geometric_mean_solves_its_equation(dim):
    """Sigma B Sigma = A for any A, B and any previous metric, and F inverse is the inverse of F."""
    rng = np.random.default_rng(dim)
    a, b = spd(rng, dim), spd(rng, dim)
    metric, _, _ = fisher.geometric_mean(a, b, previous(rng, dim), 0.0, 10.0)
    sigma = metric.covariance()
    np.testing.assert_allclose(sigma @ b @ sigma, a, rtol=1e-8, atol=1e-12 * np.abs(a).max())
    np.testing.assert_allclose(metric.factor @ metric.inverse, np.eye(dim), atol=1e-10)


def test_exact_on_a_gaussian_from_one_draw_more_than_dimensions():
    rng = np.random.default_rng(0)
    covariance = spd(rng, 6, decades=2.0)
    z, g = gaussian_sample(rng, covariance, 7)
    z, g = z - z.mean(axis=0), g - g.mean(axis=0)
    metric, _, _ = fisher.geometric_mean(z.T @ z / 7, g.T @ g / 7, previous(rng, 6), 0.0, 7.0)
    np.testing.assert_allclose(metric.covariance(), covariance, rtol=1e-5)


def test_update_is_equivariant_under_linear_maps():
    """Learning from z M' with gradients g M^-1 in the metric M F gives M Sigma M': no coordinates are special."""
    rng = np.random.default_rng(1)
    z, g = gaussian_sample(rng, spd(rng, 5), 40)
    g = g + 0.3 * g**3 / (1 + g**2)  # not a Gaussian's, so that shrinkage and winsorising matter
    old = previous(rng, 5)
    m = rng.normal(size=(5, 5)) + 2 * np.eye(5)
    inverse = np.linalg.inv(m)
    moved = fisher.Metric(m @ old.factor, old.inverse @ inverse)
    plain, mapped = fisher.update(old, z, g), fisher.update(moved, z @ m.T, g @ inverse)
    np.testing.assert_allclose(mapped.metric.covariance(), m @ plain.metric.covariance() @ m.T, rtol=1e-8)
    np.testing.assert_allclose(
        [mapped.draws_top, mapped.gradients_top], [plain.draws_top, plain.gradients_top], rtol=1e-8
    )


def test_the_factor_may_be_turned():
    """F and F Q are the same metric: so is what is learnt, with shrinkage up to a scale."""
    rng = np.random.default_rng(8)
    z, g = gaussian_sample(rng, spd(rng, 4), 15)
    old = previous(rng, 4)
    q, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    turned = fisher.Metric(old.factor @ q, q.T @ old.inverse)
    plain, other = (fisher.update(metric, z, g, k=0.0).metric.covariance() for metric in (old, turned))
    np.testing.assert_allclose(other, plain, rtol=1e-8)
    plain, other = (fisher.update(metric, z, g, k=1e9).metric.covariance() for metric in (old, turned))
    np.testing.assert_allclose(other / plain, (other / plain)[0, 0], rtol=1e-5)


def test_spectra_are_one_where_the_metric_is_right():
    rng = np.random.default_rng(2)
    covariance = spd(rng, 4)
    factor = np.linalg.cholesky(covariance)
    z, g = gaussian_sample(rng, covariance, 40_000)
    fit = fisher.update(fisher.Metric(factor, np.linalg.inv(factor)), z, g)
    assert abs(fit.draws_top - 1) < 0.05 and abs(fit.gradients_top - 1) < 0.2  # the latter is winsorised
    assert fit.count == 20_000


def test_a_heavy_weight_keeps_the_previous_metric_up_to_scale():
    rng = np.random.default_rng(3)
    old = previous(rng, 4)
    z, g = gaussian_sample(rng, spd(rng, 4), 30)
    kept = fisher.update(old, z, g, k=1e12).metric.covariance() / old.covariance()
    np.testing.assert_allclose(kept, kept[0, 0], rtol=1e-6)


def test_diagonal_is_the_ratio_of_standard_deviations():
    rng = np.random.default_rng(4)
    z, g = rng.normal(size=(50, 3)) * [1e-2, 1.0, 50.0], rng.normal(size=(50, 3)) * [80.0, 1.0, 0.03]
    old = fisher.scaled(np.array([0.1, 2.0, 9.0]), dense=False)
    centred = fisher.winsorise(g - g.mean(axis=0), old)
    expected = z.std(axis=0) / np.sqrt(np.mean(centred**2, axis=0))
    fit = fisher.update(old, z, g, k=0.0)
    np.testing.assert_allclose(fit.metric.covariance(), expected, rtol=1e-10)
    whitened = old.whiten(z - z.mean(axis=0))
    top = np.linalg.eigvalsh(whitened.T @ whitened / 50)[-1]
    np.testing.assert_allclose(fit.draws_top, top, rtol=1e-6)
    assert not fit.metric.dense


def test_winsorised_rows_keep_direction_and_bound_length():
    rng = np.random.default_rng(5)
    metric = previous(rng, 3)
    g = rng.normal(size=(101, 3))
    g[:5] *= 1e6
    short = fisher.winsorise(g, metric)
    length = np.linalg.norm(g @ metric.factor, axis=1)
    shortened = np.linalg.norm(short @ metric.factor, axis=1)
    bound = 1.5 * np.median(length)
    np.testing.assert_allclose(shortened, np.minimum(length, bound))
    np.testing.assert_allclose(np.cross(g, short), 0.0, atol=1e-6)


def test_pairs_of_a_quadratic_give_its_covariance():
    """Pairs of a Gaussian satisfy s = Sigma y, wherever and however long they are."""
    rng = np.random.default_rng(6)
    covariance = spd(rng, 4, decades=0.3)
    s = rng.normal(size=(60, 4)) * 10.0 ** rng.uniform(-3, 3, size=(60, 1))
    metric = fisher.from_pairs(s, s @ np.linalg.inv(covariance), dense=True)
    eigenvalues = np.linalg.eigvals(np.linalg.solve(covariance, metric.covariance())).real
    assert 0.9 < eigenvalues.min() and eigenvalues.max() < 1.1  # a shrinkage of 0.02 d / 60
    diagonal = fisher.from_pairs(s, s / np.array([4.0, 1.0, 9.0, 0.01]), dense=False)
    np.testing.assert_allclose(diagonal.covariance(), [4.0, 1.0, 9.0, 0.01])


def test_degenerate_moments_still_give_a_positive_definite_metric():
    z = np.outer(np.linspace(-1, 1, 20), [1.0, 2.0, 0.0])
    fit = fisher.update(fisher.scaled(np.ones(3), True), z, -z)
    sigma = fit.metric.covariance()
    assert np.isfinite(sigma).all() and np.linalg.eigvalsh(sigma)[0] > 0


def test_momenta_have_the_inverse_as_covariance():
    rng = np.random.default_rng(7)
    metric = previous(rng, 3)
    whole = metric.momenta(np.eye(3))
    np.testing.assert_allclose(whole.T @ whole, np.linalg.inv(metric.covariance()), rtol=1e-9)
