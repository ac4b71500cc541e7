"""Power scaling: against quadrature where the scaled posterior is known, against ArviZ, and in words."""

from __future__ import annotations

import warnings

import arviz as az
import numpy as np
import pytest
from scipy import stats

import ppl
from ppl import dist
from ppl.inference import infer, mcmc, psense
from ppl.inference.criticism.sensitivity import cumulative_distance, sensitivity, top_level
from tests.inference.criticism.conjugate import needs_old_arviz
from tests.inference.engines import Gaussian

ENGINE = mcmc.PooledHMC(chains=16, draws=500, max_draws=500)


@ppl.model
def normal(n, mean, sd):
    mu = ppl.sample("mu", dist.Normal(mean, sd))
    ppl.plate("row", lambda _: ppl.sample("y", dist.Normal(mu, 1.0)), n)


def posterior(y, mean, sd, prior=1.0, likelihood=1.0):
    """The posterior with its prior and likelihood raised to powers."""
    precision = prior / sd**2 + likelihood * len(y)
    return stats.norm((prior * mean / sd**2 + likelihood * y.sum()) / precision, precision**-0.5)


def distance(one, other, grid):
    """The cumulative Jensen-Shannon distance of two laws on a range, by quadrature."""
    p, q = one.cdf(grid), other.cdf(grid)
    m = 0.5 * (p + q)
    with np.errstate(all="ignore"):
        integrand = np.where(p > 0, p * np.log2(p / m), 0) + np.where(q > 0, q * np.log2(q / m), 0)
    return np.sqrt(max(np.trapezoid(integrand, grid), 0) / np.trapezoid(p + q, grid))


def rate(y, mean, sd, which, low, high, delta=0.01):
    """The derivative that power scaling estimates, from the exact laws."""
    base, grid = posterior(y, mean, sd), np.linspace(low, high, 20001)
    total = 0.0
    for power in (1 / (1 + delta), 1 + delta):
        other = posterior(y, mean, sd, **{which: power})
        turned = [stats.norm(-law.mean(), law.std()) for law in (base, other)]
        total += max(distance(base, other, grid), distance(*turned, -grid[::-1]))
    return total / (2 * np.log2(1 + delta))


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 0.3), (-2.0, 1.0), (5.0, 0.5), (0.0, 50.0)])
def test_the_rate_in_a_conjugate_model(mean, sd):
    y = np.linspace(0.0, 2.0, 8)
    fit = infer(normal(8, mean, sd).condition(y=y), ENGINE, seed=1, progress=False)
    table = psense(fit)
    draws = fit.values["mu"]
    for which in ("prior", "likelihood"):
        want = rate(y, mean, sd, which, draws.min(), draws.max())
        # 8000 draws: the rate has a relative error of a few per cent
        assert table[which]["mu"] == pytest.approx(want, rel=0.06, abs=0.004), which


def test_the_words():
    y = np.linspace(1.0, 3.0, 12)
    words = {}
    for name, (mean, sd) in {"conflict": (-2.0, 0.3), "flat": (0.0, 100.0), "agreeing": (2.0, 2.0)}.items():
        fit = infer(normal(12, mean, sd).condition(y=y), ENGINE, seed=2, progress=False)
        words[name] = psense(fit)["diagnosis"]["mu"]
    assert words == {"conflict": "potential prior-data conflict", "flat": "-", "agreeing": "-"}

    @ppl.model
    def silent(n):
        a = ppl.sample("a", dist.Gamma(2.0, 1.0))
        b = ppl.sample("b", dist.Normal(0.0, 1.0))
        ppl.plate("row", lambda _: ppl.sample("y", dist.Normal(b, 1.0)), n)
        ppl.record("double", 2.0 * a)

    fit = infer(silent(6).condition(y=np.array([0.3, -0.1, 1.2, 0.6, 0.9, 0.2])), ENGINE, seed=2, progress=False)
    table = psense(fit)
    assert table["diagnosis"]["a"] == table["diagnosis"]["double"] == "potential strong prior / weak likelihood"
    assert table["likelihood"]["a"] < 0.03


@needs_old_arviz
def test_equal_to_arviz():
    fit = infer(normal(8, -2.0, 1.0).condition(y=np.linspace(0, 2, 8)), ENGINE, seed=1, progress=False)
    table = psense(fit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for component in ("prior", "likelihood"):
            other = az.psens(fit.to_arviz(), component=component)
            assert table[component]["mu"] == pytest.approx(float(other["mu"]), rel=1e-8)


def test_the_distance():
    x = np.random.default_rng(0).normal(size=500)
    assert cumulative_distance(x, np.ones(500)) < 1e-7  # the root of a rounding error
    assert cumulative_distance(np.zeros(500), np.random.default_rng(1).random(500)) == 0.0
    w = np.random.default_rng(1).random(500)
    assert cumulative_distance(x, w) == pytest.approx(cumulative_distance(10 * x + 3, w))
    last = np.zeros(500)
    last[np.argmax(x)] = 1.0
    assert 0.5 < cumulative_distance(x, last) <= 1.0


def test_the_default_prior_is_the_top_of_the_hierarchy():
    @ppl.model
    def nested(n):
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        tau = ppl.sample("tau", dist.HalfNormal(1.0))
        centre = ppl.record("centre", 2.0 * mu)

        @ppl.plate("group", n)
        def _(_):
            theta = ppl.sample("theta", dist.Normal(centre, tau))
            ppl.sample("y", dist.Normal(theta, 1.0))

    fit = infer(nested(3).condition(y=np.zeros(3)), Gaussian(chains=2, draws=200, sd=0.3), progress=False)
    assert top_level(fit) == ["mu", "tau"]
    table = psense(fit, ["mu", "theta"])
    assert table.attrs["scaled"]["prior"] == ["mu", "tau"]
    assert list(table.index) == ["mu", "theta[0]", "theta[1]", "theta[2]"]
    whole = psense(fit, prior=["mu", "tau", "theta"])
    assert not np.allclose(whole["prior"]["mu"], table["prior"]["mu"])
    with pytest.raises(ppl.ModelError, match="unknown site 'nu'"):
        psense(fit, prior="nu")


def test_nothing_to_scale_is_refused():
    fit = infer(lambda z: -0.5 * (z**2).sum(), Gaussian(chains=1, draws=20), init=np.zeros(1), progress=False)
    with pytest.raises(ppl.ModelError, match="no log prior"):
        psense(fit)
    with pytest.raises(ValueError, match="delta"):
        psense(fit, delta=0.0)


def test_rough_weights_are_said():
    x = np.random.default_rng(0).standard_cauchy(size=2000)
    moved, k = sensitivity(x[:, None], 100.0 * x)
    assert k > 0.7 and moved.shape == (1,)
