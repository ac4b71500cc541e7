"""Coordinates of hierarchical effects, learned: exact conjugate cases, and noise."""

from __future__ import annotations

import numpy as np

from ppl.inference.adapt import kappa


def conjugate(k, t, n, seed, sd=0.4):
    """Draws of m, s and of e given them where data tell k about each effect and put it at t, with exact gradients."""
    rng = np.random.default_rng(seed)
    k, t = np.asarray(k, float), np.asarray(t, float)
    s = np.exp(sd * rng.normal(size=(n, 1))) * np.ones_like(k)
    m = rng.normal(size=(n, 1)) * np.ones_like(k)
    q = 1.0 + k * s**2
    e = rng.normal(size=(n, len(k))) / np.sqrt(q) + k * s / q * (t - m)
    return e, k * s * (t - m) - q * e, m, s


def test_maps_are_inverse_and_the_right_coordinates_are_standard_normal():
    k, t = np.array([0.0, 0.5, 40.0]), np.array([0.0, 2.0, -1.0])
    e, gradients, m, s = conjugate(k, t, 20_000, 0)
    x = kappa.moved(e, m, s, np.stack([k, t]))
    np.testing.assert_allclose(kappa.standardised(x, m, s, np.stack([k, t])), e, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(x[:, 0], e[:, 0])
    # 18 comparisons at 4.5 standard errors
    columns = np.concatenate([x, x * np.log(s), x * m], axis=1)
    assert (np.abs(columns.mean(axis=0)) < 4.5 * columns.std(axis=0) / np.sqrt(len(x))).all()
    squares = np.concatenate([x**2 - 1.0, (x**2 - 1.0) * np.log(s), (x**2 - 1.0) * m], axis=1)
    assert (np.abs(squares.mean(axis=0)) < 4.5 * squares.std(axis=0) / np.sqrt(len(x))).all()


def test_information_and_estimate_are_found():
    k, t = np.array([0.3, 1.0, 5.0, 50.0]), np.array([3.0, -2.0, 0.5, 0.0])
    found = np.mean([kappa.learn(*conjugate(k, t, 4000, seed)) for seed in range(10)], axis=0)
    np.testing.assert_allclose(found[0], k, rtol=0.15)  # squared gradients are capped: a little low
    np.testing.assert_allclose(found[1], t, atol=0.25)


def test_the_sign_of_a_scale_does_not_matter():
    e, gradients, m, s = conjugate([2.0, 3.0], [1.0, -1.0], 2000, 1)
    flip = np.array([1.0, -1.0])
    np.testing.assert_allclose(kappa.learn(e * flip, gradients * flip, m, s * flip), kappa.learn(e, gradients, m, s))


def test_effects_without_data_stay_noncentred():
    """One-sided tests of a group at two standard errors: 2.3 % of 200 groups would be 5, more than 14 has p < 1e-3."""
    moved = sum(kappa.learn(*conjugate(np.zeros(8), np.zeros(8), 400, seed)).any() for seed in range(200))
    assert moved <= 14


def test_a_group_without_data_is_not_moved_by_another():
    moved = 0
    for seed in range(100):
        k, t = np.repeat([0.0, 20.0], 5), np.zeros(10)
        found = kappa.learn(*conjugate(k, t, 400, seed), groups=np.repeat([0, 1], 5))
        moved += bool(found[0, :5].any())
        assert (found[0, 5:] > 5.0).all()
    assert moved <= 9  # p < 1e-3 for 2.3 %


def test_noise_is_shrunk():
    """Weak equal information: the spread of what is found is smaller than that of each effect by itself."""
    together, apart = [], []
    for seed in range(20):
        draws = conjugate(np.full(20, 0.5), np.zeros(20), 400, seed)
        together.append(kappa.learn(*draws)[0].std())
        apart.append(kappa.learn(*draws, groups=np.arange(20))[0].std())
    assert np.mean(together) < 0.6 * np.mean(apart)


def test_distance_between_coordinates():
    m, s = np.zeros((10, 2)), np.full((10, 2), 2.0)
    old = np.array([[1.0, 0.0], [0.5, 0.0]])
    assert kappa.apart(old, old, m, s) == 0.0
    np.testing.assert_allclose(kappa.apart(old, np.array([[1.0, 0.25], [0.5, 0.0]]), m, s), 0.5 * np.log(2.0))
    np.testing.assert_allclose(kappa.apart(old, np.array([[1.0, 0.0], [1.5, 0.0]]), m, s), 2.0 / np.sqrt(5.0))
