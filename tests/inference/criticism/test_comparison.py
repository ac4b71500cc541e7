"""Comparison: weights against brute force, differences against sums, other data refused."""

from __future__ import annotations

import itertools
import warnings

import arviz as az
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import compare, infer, loo, mcmc
from ppl.inference.criticism.comparison import pseudo_bma_weights, stacking_weights
from tests.inference.criticism.conjugate import needs_old_arviz
from tests.inference.engines import Gaussian

ENGINE = mcmc.PooledHMC(draws=150, max_draws=150)


def score(weights, log_density):
    return np.log(weights @ np.exp(log_density)).mean()


@pytest.mark.parametrize("seed", range(5))
def test_stacking_against_a_grid(seed):
    rng = np.random.default_rng(seed)
    log_density = rng.normal(size=(3, 40)) * [[0.5], [1.0], [0.3]] + np.array([[0.0], [-0.1], [-0.5 * (seed > 2)]])
    steps = 100
    grid = [(i / steps, j / steps, 1 - (i + j) / steps) for i, j in itertools.product(range(steps + 1), repeat=2)]
    grid = np.array([w for w in grid if w[2] >= -1e-12])
    best = grid[np.argmax([score(w, log_density) for w in grid])]
    found = stacking_weights(log_density)
    assert found.sum() == pytest.approx(1.0)
    assert (found >= 0).all()
    assert score(found, log_density) >= score(best, log_density)
    np.testing.assert_allclose(found, best, atol=0.02)


def test_stacking_ends_at_the_optimum():
    """Karush, Kuhn and Tucker: the gain of no model exceeds one, and is one where it has weight."""
    rng = np.random.default_rng(7)
    log_density = rng.normal(size=(8, 300)) - np.arange(8)[:, None] * 0.3 - 500.0
    weights = stacking_weights(log_density)
    density = np.exp(log_density + 500.0)
    gain = (density / (weights @ density)).mean(axis=1)
    assert gain.max() < 1 + 1e-9
    np.testing.assert_allclose(gain[weights > 1e-6], 1.0, atol=1e-5)


def test_a_model_that_is_always_better_has_all_the_weight():
    assert stacking_weights(np.array([[0.0, 0.0], [-1.0, -2.0]])).tolist() == [1.0, 0.0]
    twins = stacking_weights(np.zeros((2, 5)))
    assert twins.sum() == pytest.approx(1.0)


def test_pseudo_bma():
    log_density = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, -1.0]])
    want = np.exp([-1.0, -2.0]) / np.exp([-1.0, -2.0]).sum()
    np.testing.assert_allclose(pseudo_bma_weights(log_density), want, rtol=1e-12)
    softer = pseudo_bma_weights(log_density, 4000, seed=1)
    assert 0.5 < softer[0] < want[0]  # the bootstrap draws the weights together


@ppl.model
def line(x, slope, scale):
    a = ppl.sample("a", dist.Normal(0.0, 2.0))
    b = ppl.sample("b", dist.Normal(0.0, slope))
    ppl.plate("row", lambda x: ppl.sample("y", dist.Normal(a + b * x, scale)), x)


X = np.linspace(-1.0, 1.0, 30)
Y = 1.0 + 2.0 * X + np.sin(9.0 * np.arange(30)) * 0.7


@pytest.fixture(scope="module")
def fits():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = {"flat": line(X, 0.01, 1.0), "line": line(X, 2.0, 0.5), "wide": line(X, 2.0, 1.5)}
        return {name: infer(p.condition(y=Y), ENGINE, seed=1, progress=False) for name, p in models.items()}


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compare(*args, **options)


def test_the_table_is_that_of_the_pointwise_sums(fits):
    table = quiet(fits)
    assert list(table.index) == ["line", "wide", "flat"]
    one, two = (loo(fits[name]) for name in ("line", "flat"))
    difference = one.elpd_i - two.elpd_i
    row = table.loc["flat"]
    assert row["elpd"] == pytest.approx(two.elpd)
    assert row["elpd_diff"] == pytest.approx(difference.sum())
    assert row["dse"] == pytest.approx(np.sqrt(30 * difference.var()))
    assert table.loc["line", ["rank", "elpd_diff", "dse"]].tolist() == [0, 0, 0]
    assert table["weight"].sum() == pytest.approx(1.0)


@needs_old_arviz
def test_equal_to_arviz(fits):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = az.compare({name: fit.to_arviz() for name, fit in fits.items()}, ic="loo", method="stacking")
    ours = quiet(fits, loo_method="psis")
    assert list(ours.index) == list(other.index)
    for mine, theirs in (
        ("elpd", "elpd_loo"),
        ("p", "p_loo"),
        ("elpd_diff", "elpd_diff"),
        ("se", "se"),
        ("dse", "dse"),
    ):
        np.testing.assert_allclose(ours[mine], other[theirs].astype(float), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(ours["weight"], other["weight"].astype(float), atol=1e-3)


def test_results_of_loo_and_lists_are_taken(fits):
    results = {name: loo(fit) for name, fit in fits.items()}
    np.testing.assert_allclose(quiet(results)["elpd"], quiet(fits)["elpd"])
    assert set(quiet(list(fits.values())[:2]).index) == {"model 0", "model 1"}


def test_few_observations_and_small_differences_are_said(fits):
    with pytest.warns(UserWarning, match="with 30 observations"):
        compare({name: fits[name] for name in ("line", "flat")})
    with pytest.warns(UserWarning, match="'twin'|twin within 4"):
        compare({"one": fits["line"], "twin": fits["line"]})


@pytest.mark.parametrize(
    ("y", "x", "message"),
    [
        (np.append(Y[:-1], 3.0), X, r"data of y differ at 1 of 30 places, first at \[29\]"),
        (Y[:-1], X[:-1], "30 units in the one, 29 in the other"),
        (np.log(Y + 10.0), X, "differ at 30 of 30 places.*Jacobian"),
    ],
)
def test_other_data_are_refused(fits, y, x, message):
    other = infer(line(x, 2.0, 0.5).condition(y=y), Gaussian(chains=2, draws=50), progress=False)
    with pytest.raises(ppl.ModelError, match=message):
        quiet({"a": fits["line"], "b": other}, loo_method="psis")


def test_other_labels_are_refused():
    @ppl.model
    def labelled(names):
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        ppl.plate("row", lambda: ppl.sample("y", dist.Normal(mu, 1.0)), coords=names)

    made = [
        infer(labelled(names).condition(y=np.zeros(2)), Gaussian(chains=2, draws=50), progress=False)
        for names in (("a", "b"), ("b", "a"))
    ]
    with pytest.raises(ppl.ModelError, match="other labels along 'row'"):
        quiet(made, loo_method="psis")


def test_wrong_calls_are_refused(fits):
    with pytest.raises(ValueError, match="at least two"):
        compare({"line": fits["line"]})
    with pytest.raises(ValueError, match="'waic'"):
        compare(fits, method="waic")
