"""Predictive checks: p-values against known laws, groups, leave-one-out transforms, plots."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import ppl
from ppl import dist
from ppl.inference import checks, infer, load
from tests.inference.criticism.conjugate import bernoulli, normal_mean
from tests.inference.engines import Gaussian


@ppl.model
def fixed(n, names):
    """Replicated data do not depend on the posterior: their law is known."""
    ppl.sample("idle", dist.Normal(0.0, 1.0))

    @ppl.plate("row", n, coords=names)
    def _(_):
        ppl.sample("y", dist.Normal(3.0, 2.0))


Y = np.array([1.0, 2.0, 6.5, 4.0])
NAMES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def fit():
    return infer(fixed(4, NAMES).condition(y=Y), Gaussian(chains=4, draws=1000), progress=False)


def test_p_values_against_the_law(fit):
    found = checks.statistics(fit, ["mean", "max"], draws=4000)
    assert found.labels == ("mean", "max")
    assert found.replicated.shape == (4000, 2)
    np.testing.assert_allclose(found.observed, [Y.mean(), Y.max()])
    want = [stats.norm(3, 1).sf(Y.mean()), 1 - stats.norm(3, 2).cdf(Y.max()) ** 4]
    error = np.sqrt(np.multiply(want, np.subtract(1, want)) / 4000)
    assert (np.abs(found.p - want) < 4 * error).all()  # independent replications; false alarm 1 in 8,000
    table = found.to_dataframe()
    assert table.loc["max", "observed"] == 6.5
    assert "posterior predictive check of y" in repr(found)


def test_any_function_by_group(fit):
    def largest(y):
        return y.max()

    found = checks.statistics(fit, largest, by=["u", "v", "u", "v"], draws=400)
    assert found.labels == ("largest[u]", "largest[v]")
    np.testing.assert_allclose(found.observed, [6.5, 4.0])
    one = checks.statistics(fit, {"value": lambda y: y[0]}, by="row", draws=400)
    assert one.labels == ("value[a]", "value[b]", "value[c]", "value[d]")
    np.testing.assert_allclose(one.observed, Y)
    again = checks.statistics(fit, {"value": lambda y: y[2]}, draws=400)
    np.testing.assert_allclose(one.replicated[:, 2], again.replicated[:, 0])


def test_the_prior(fit):
    found = checks.statistics(fit, prior=True)
    assert found.source == "prior"
    assert found.replicated.shape == (1000, 4)


def test_ties_count_by_half():
    check = checks.Check(("t",), np.array([1.0]), np.array([[0.0], [1.0], [1.0], [2.0]]), "posterior", "y")
    assert check.p.tolist() == [0.5]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"site": "z"}, ppl.ModelError, "unknown site 'z'"),
        ({"functions": "kurtosis"}, ValueError, "'kurtosis'"),
        ({"functions": lambda y: y}, ValueError, r"an array of shape \(4,\)"),
        ({"functions": lambda y: np.nan}, ValueError, "is nan of data of shape"),
        ({"by": "pupil"}, ppl.ModelError, "by='pupil' is no axis of site 'y'"),
        ({"by": [1, 2]}, ValueError, r"shape \(2,\); site 'y' has \(4,\)"),
        ({"draws": 0}, ValueError, "draws=0"),
    ],
)
def test_wrong_calls_are_refused(fit, options, error, message):
    with pytest.raises(error, match=message):
        checks.statistics(fit, **options)


def test_densities_have_unit_mass_and_the_law(fit):
    found = checks.densities(fit, draws=2000)
    assert (np.diff(found.edges) @ found.observed) == pytest.approx(1.0)
    law = np.diff(stats.norm(3, 2).cdf(found.edges)) / np.diff(found.edges)
    error = np.sqrt(law / (8000 * np.diff(found.edges)))
    assert (np.abs(found.replicated.mean(0) - law) < 4.5 * error + 1e-4).all()


def test_whole_numbers_have_a_bin_each():
    fit = infer(bernoulli(4).condition(y=np.array([0, 1, 0, 0])), Gaussian(chains=2, draws=100), progress=False)
    found = checks.densities(fit)
    np.testing.assert_allclose(found.edges, [-0.5, 0.5, 1.5])
    np.testing.assert_allclose(found.observed, [0.75, 0.25])


def exact_fit(y):
    """Exact posterior draws of a conjugate normal mean."""
    precision = 1 / 4.0 + len(y)
    mean, sd = (0.5 / 4.0 + y.sum()) / precision, precision**-0.5
    program = normal_mean(len(y), 2.0, 1.0).condition(y=y)
    return infer(program, Gaussian(mean=mean, sd=sd, chains=4, draws=1500), progress=False)


def test_loo_pit_against_the_closed_form():
    y = np.array([-1.0, 0.2, 0.4, 1.4, 2.0, 2.2])
    found = checks.loo_pit(exact_fit(y))
    rest = [np.delete(y, i) for i in range(6)]
    precision = 1 / 4.0 + 5
    means = [(0.5 / 4 + others.sum()) / precision for others in rest]
    want = stats.norm(means, np.sqrt(1 + 1 / precision)).cdf(y)
    np.testing.assert_allclose(found.values, want, atol=0.035)  # 6,000 draws: four standard errors with weights
    assert found.labels[1] == "y[1]"


def test_loo_pit_of_a_right_and_a_wrong_model():
    rng = np.random.default_rng(4)
    right, wide = checks.loo_pit(exact_fit(rng.normal(size=60))), checks.loo_pit(exact_fit(0.2 * rng.normal(size=60)))
    assert right.p > 0.01  # seeded
    assert wide.p < 1e-4
    assert "spread" in repr(wide)


def test_loo_pit_of_discrete_data_is_uniform_by_randomised_ties():
    rng = np.random.default_rng(0)
    y = (rng.random(80) < 0.3).astype(int)
    fit = infer(bernoulli(80).condition(y=y), Gaussian(chains=2, draws=500), progress=False)
    p = rng.beta(2.0 + y.sum(), 5.0 + 80 - y.sum(), size=(2, 500, 1))  # exact posterior draws
    fit = replace(fit, draws=replace(fit.draws, positions=np.log(p) - np.log1p(-p)))
    found = checks.loo_pit(fit)
    assert found.p > 0.01  # seeded
    assert len(np.unique(found.values)) == 80
    q = 1 - (2.0 + y.sum()) / 87  # nearly the probability of 0 given the others
    assert (found.values[y == 0] < q + 0.05).all()
    assert (found.values[y == 1] > q - 0.05).all()


def test_the_fit_has_a_shortcut(fit):
    assert fit.check("mean", draws=40).labels == ("mean",)


def test_plots(fit):
    pytest.importorskip("matplotlib")
    assert len(checks.statistics(fit, draws=100).plot().axes) == 4
    for made in (checks.densities(fit).plot(), checks.loo_pit(fit).plot()):
        made.canvas.draw()
        assert len(made.axes) == 1


def test_a_saved_fit_is_checked_without_its_program(fit, tmp_path):
    fit.save(tmp_path / "fit", groups=["log_likelihood", "posterior_predictive"])
    again = load(tmp_path / "fit")
    found = checks.statistics(again, "mean", draws=40)
    assert found.replicated.shape == (40, 1)
    np.testing.assert_allclose(checks.loo_pit(again).values, checks.loo_pit(fit).values, atol=0.03)


def test_gaps_are_left_out():
    y = np.array([-1.0, np.nan, 0.3, 0.8])
    program = normal_mean(4, 2.0, 1.0).condition(y=y, missing="marginalize")
    fit = infer(program, Gaussian(chains=2, draws=200, sd=0.5), progress=False)
    found = checks.statistics(fit, {"count": np.size, "mean": np.mean}, draws=50)
    np.testing.assert_allclose(found.observed, [3, np.nanmean(y)])
    assert checks.loo_pit(fit).labels == ("y[0]", "y[2]", "y[3]")
    assert np.isfinite(checks.densities(fit).observed).all()
