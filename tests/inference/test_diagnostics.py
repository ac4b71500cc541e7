"""Diagnostics against ArviZ, and against laws known exactly."""

import logging
import warnings

import arviz as az
import numpy as np
import pytest
from scipy.special import ndtri

from ppl.inference import diagnostics

logging.getLogger("arviz").setLevel(logging.ERROR)  # it says for every short or NaN array what the test expects

PAIRS = {
    "rhat": (diagnostics.rhat, lambda v: az.rhat(v, method="split")),
    "rhat_rank": (diagnostics.rhat_rank, az.rhat),
    "ess_mean": (diagnostics.ess_mean, lambda v: az.ess(v, method="mean")),
    "ess_bulk": (diagnostics.ess_bulk, az.ess),
    "ess_tail": (diagnostics.ess_tail, lambda v: az.ess(v, method="tail", prob=(0.05, 0.95))),
    "ess_sd": (diagnostics.ess_sd, lambda v: az.ess(v, method="sd")),
    "ess_quantile": (
        lambda v: diagnostics.ess_quantile(v, 0.31),
        lambda v: az.ess(v, method="quantile", prob=0.31),
    ),
    "mcse_mean": (diagnostics.mcse_mean, az.mcse),
    "mcse_sd": (diagnostics.mcse_sd, lambda v: az.mcse(v, method="sd")),
    "mcse_quantile": (
        lambda v: diagnostics.mcse_quantile(v, 0.31),
        lambda v: az.mcse(v, method="quantile", prob=0.31),
    ),
}


def autoregressions(rng, chains, draws, coefficient):
    """Columns: AR(1), the same rounded so that ties occur, skewed with chains that differ, antithetic, constant."""
    noise = rng.normal(size=(chains, draws, 5))
    x = noise.copy()
    for t in range(1, draws):
        x[:, t] += np.array([1, 1, 1, -0.5, 0]) * coefficient * x[:, t - 1]
    x[:, :, 1] = np.round(x[:, :, 1])
    x[:, :, 2] = np.exp(x[:, :, 2] / 3) + rng.normal(size=(chains, 1))
    x[:, :, 4] = 2.5
    return x


# In none of these a quantile below is an order statistic itself: of two such, rounding would choose.
SHAPES = [(4, 200), (3, 289), (1, 51), (2, 4), (5, 13), (4, 18), (4, 5), (1, 9), (2, 64)]


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("shape", SHAPES)
def test_equal_to_arviz(name, shape):
    ours, theirs = PAIRS[name]
    rng = np.random.default_rng(sum(shape))
    for coefficient in (0.0, 0.6, 0.97):
        x = autoregressions(rng, *shape, coefficient)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = np.array([float(theirs(x[:, :, j])) for j in range(x.shape[2])])
        np.testing.assert_allclose(ours(x), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", PAIRS)
def test_trailing_axes_and_nan(name):
    ours, _ = PAIRS[name]
    x = np.random.default_rng(0).normal(size=(4, 40, 2, 3))
    whole = ours(x)
    assert whole.shape == (2, 3)
    np.testing.assert_allclose(whole[1, 2], ours(x[:, :, 1, 2]), rtol=1e-12)
    x[0, 3, 0, 1] = np.nan
    holed = ours(x)
    assert np.isnan(holed[0, 1]) and np.isfinite(np.delete(holed.ravel(), 1)).all()
    assert np.isnan(ours(x[:, :3])).all()  # too few draws


def test_rejects_a_flat_array():
    with pytest.raises(ValueError, match="chains, draws"):
        diagnostics.rhat(np.zeros(10))


def test_normal_quantile_to_rounding():
    p = np.concatenate([np.linspace(1e-9, 1 - 1e-9, 10_001), 10.0 ** -np.arange(1, 300)])
    np.testing.assert_allclose(diagnostics.normal_quantile(p), ndtri(p), rtol=2e-15, atol=1e-16)
    np.testing.assert_array_equal(diagnostics.normal_quantile(np.array([0.0, 1.0])), [-np.inf, np.inf])


def test_ess_of_autoregression_is_the_known_law():
    """ESS / n of an AR(1) is (1 - a) / (1 + a); the estimate from 400 000 draws is within 10% of it."""
    rng = np.random.default_rng(3)
    for a in (0.5, -0.4):
        noise = rng.normal(size=(4, 100_000))
        x = np.empty_like(noise)
        x[:, 0] = noise[:, 0] / np.sqrt(1 - a * a)
        for t in range(1, x.shape[1]):
            x[:, t] = a * x[:, t - 1] + noise[:, t]
        assert abs(diagnostics.ess_mean(x) / x.size / ((1 - a) / (1 + a)) - 1) < 0.1
