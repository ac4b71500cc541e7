"""Leave-one-out: equal to ArviZ's by importance sampling, and to closed forms where that fails."""

from __future__ import annotations

import warnings
from functools import partial

import arviz as az
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import infer, loo, mcmc
from ppl.inference.criticism import leave_one_out, moment_match, refit
from ppl.inference.criticism.units import LeaveOut, choose_units
from tests.inference.criticism.conjugate import leave_one_out as exact
from tests.inference.criticism.conjugate import (
    mean_evidence,
    needs_old_arviz,
    normal_mean,
    regression,
    regression_evidence,
)
from tests.inference.engines import Gaussian

ENGINE = mcmc.PooledHMC(chains=16, draws=250, max_draws=250)


def quiet(fit, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return loo(fit, **options)


# ------------------------------------------------------------------------------------------- an outlier


def outlier():
    rng = np.random.default_rng(2)
    X = np.column_stack([np.ones(20), rng.normal(size=20)])
    y = X @ [1.0, 2.0] + 0.5 * rng.normal(size=20)
    y[7] += 4.5
    return X, y


@pytest.fixture(scope="module")
def regressed():
    """Scale and coefficients unknown: without the outlier the posterior moves and shrinks."""
    X, y = outlier()
    return infer(regression(X, 2.0, 2.0, 1.0).condition(y=y), ENGINE, seed=3, progress=False)


def truth():
    X, y = outlier()
    return exact(lambda y, X: regression_evidence(y, X, 2.0, 2.0, 1.0), y, X)


def test_importance_sampling_fails_on_the_outlier_and_says_so(regressed):
    with pytest.warns(UserWarning, match=r"1 of 20 observations .* y\[7\] \(k ="):
        found = loo(regressed, method="psis")
    assert found.bad.tolist() == [7]
    assert found.k[7] > found.threshold == pytest.approx(min(1 - 1 / np.log10(4000), 0.7))
    # The others are within their Monte Carlo errors (4000 draws; 19 values, false alarm 1 in 800).
    others = np.arange(20) != 7
    assert (np.abs(found.elpd_i - truth())[others] < 4 * found.mcse_i[others] + 1e-4).all()


def test_moment_matching_comes_closer(regressed):
    plain = quiet(regressed, method="psis")
    matched = quiet(regressed, method="moment_match")
    assert matched.methods.tolist() == ["moment_match" if i == 7 else "psis" for i in range(20)]
    assert matched.k[7] < matched.threshold
    error = abs(matched.elpd_i[7] - truth()[7])
    assert error < 4 * matched.mcse_i[7] < 0.4
    assert error < abs(plain.elpd_i[7] - truth()[7])


def test_a_refit_agrees_within_monte_carlo_error(regressed):
    found = quiet(regressed, method="refit")
    assert found.methods[7] == "refit"
    assert abs(found.elpd_i[7] - truth()[7]) < 4 * found.mcse_i[7] < 0.04
    assert not len(found.bad)


def test_a_refit_is_right_for_an_outlier_far_away():
    """The posteriors with and without it hardly overlap: a mean of likelihoods would be off by ten."""
    X, y = outlier()
    y[7] += 20.0
    want = exact(lambda y, X: regression_evidence(y, X, 2.0, 2.0, 1.0), y, X)
    fit = infer(regression(X, 2.0, 2.0, 1.0).condition(y=y), ENGINE, seed=3, progress=False)
    found = quiet(fit, method="refit")
    assert abs(found.elpd_i[7] - want[7]) < 4 * found.mcse_i[7] < 0.04
    assert abs(quiet(fit, method="psis").elpd_i[7] - want[7]) > 5.0


def test_every_unit_can_be_refitted_and_matched():
    """All units of a small problem, whatever their k: the two paths against the closed form."""
    y = np.array([-1.0, 0.3, 0.8, 1.9, 4.0])
    fit = infer(normal_mean(5, 2.0, 1.0).condition(y=y), ENGINE, seed=2, progress=False)
    want = exact(lambda y: mean_evidence(y, 2.0, 1.0), y)
    units = choose_units(fit)
    work = leave_one_out._by_importance(fit, units)
    flat = fit.draws.positions.reshape(-1, 1)
    for i in range(5):
        refit.refit(work, fit, i, None, 0)
        evaluate = partial(leave_one_out.evaluate_at, fit.density, units.places(fit.density), i)
        matched = moment_match.match_moments(
            evaluate, flat, evaluate(flat)[0], work.log_likelihood[:, i], work.efficiency, -1.0
        )
        got, error = leave_one_out.estimate(matched.log_likelihood, matched.log_weights, 0.5)
        assert abs(got - want[i]) < 4 * error + 2e-3  # MC error of 4000 draws; false alarm 1 in 10^4 each
    assert (np.abs(work.elpd_i - want) < 4 * work.mcse_i + 1e-3).all()


def test_the_split_weights_have_the_stretch_of_the_map():
    """Exact draws of N(0, 1), a leave-one-out law N(3, 3^2): the normaliser is wrong without the determinant."""
    z = np.random.default_rng(0).normal(size=(20_000, 1))

    def evaluate(z):
        lp = -0.5 * z[:, 0] ** 2
        without = -0.5 * ((z[:, 0] - 3) / 3) ** 2
        return lp, lp - without

    # log E_w[lik] = log(Z / Z_without) = log(1 / 3)
    total = moment_match.Map(np.array([[3.0]]), np.array([3.0]))
    found = moment_match._split(evaluate, z, evaluate(z)[0], total, 1.0)
    got, error = leave_one_out.estimate(found.log_likelihood, found.log_weights, 1.0)
    assert error < 0.03
    assert abs(got - np.log(1 / 3)) < 4 * error


def test_the_map_takes_the_posterior_to_the_other_law():
    """From N(0, 1) to N(1, 1.4^2): z -> 1 + 1.4 z, found from weights of transformed draws only if they are right."""
    z = np.random.default_rng(0).normal(size=(8000, 1))

    def evaluate(z):
        lp = -0.5 * z[:, 0] ** 2
        return lp, lp + 0.5 * ((z[:, 0] - 1.0) / 1.4) ** 2

    found = moment_match.match_moments(evaluate, z, *evaluate(z), 1.0, -0.5)
    assert found.map is not None
    np.testing.assert_allclose(found.map.matrix, [[1.4]], atol=0.06)
    np.testing.assert_allclose(found.map.offset, [1.0], atol=0.06)


# ------------------------------------------------------------------------------------------- plain PSIS


@ppl.model
def panel(x, names):
    mu = ppl.sample("mu", dist.Normal(0.0, 3.0))
    tau = ppl.sample("tau", dist.HalfNormal(2.0))

    @ppl.plate("school", x, coords=names)
    def _(row):
        theta = ppl.sample("theta", dist.Normal(mu, tau))
        ppl.sample("size", dist.Normal(theta, 1.0))
        ppl.plate("year", lambda x: ppl.sample("y", dist.Normal(theta + x, 1.5)), row)


X = np.array([[0.0, 1.0], [1.0, 1.0], [0.5, 0.0]])
NAMES = ("a", "b", "c")
DATA = {"y": np.array([[1.0, 2.0], [0.0, 3.0], [5.0, 4.0]]), "size": np.array([0.5, 1.0, 4.0])}


@pytest.fixture(scope="module")
def schools():
    return infer(panel(X, NAMES).condition(y=DATA["y"]).do(size=DATA["size"]), ENGINE, seed=1, progress=False)


@pytest.fixture(scope="module")
def both_sites():
    return infer(panel(X, NAMES).condition(**DATA), Gaussian(chains=2, draws=50, sd=0.1), progress=False)


@needs_old_arviz
def test_equal_to_arviz(schools):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = az.loo(schools.to_arviz(), pointwise=True)
    found = quiet(schools, method="psis")
    ours = {"elpd_loo": found.elpd, "se": found.se, "p_loo": found.p_loo, "good_k": found.threshold}
    assert ours == pytest.approx({name: other[name] for name in ours}, rel=1e-8)
    pointwise = found.pointwise
    np.testing.assert_allclose(pointwise["elpd"].values, other["loo_i"].values, rtol=1e-8)
    np.testing.assert_allclose(pointwise["pareto_k"].values, other["pareto_k"].values, rtol=1e-8)


def test_results_are_labelled(schools):
    found = quiet(schools, method="psis")
    assert found.pointwise["elpd"].dims == ("school", "year")
    assert found.pointwise["elpd"].sel(school="b").shape == (2,)
    assert found.labels[:3] == ["y[a, 0]", "y[a, 1]", "y[b, 0]"]
    assert "leave-one-out over 6 school x year of y" in repr(found)
    assert "p_loo" in repr(found)


# ------------------------------------------------------------------------------------------- units


def test_several_sites_need_a_choice(both_sites):
    with pytest.raises(ppl.ModelError, match=r"2 observed sites.*site='size'"):
        loo(both_sites)
    with pytest.raises(ppl.ModelError, match="unknown site 'sise'.*did you mean 'size'"):
        loo(both_sites, site="sise")


def test_sites_are_left_out_together_by_what_they_share(both_sites):
    units = choose_units(both_sites, ("y", "size"))
    assert (units.dims, units.shape) == (("school",), (3,))
    values = both_sites.log_likelihood
    want = values["y"].sum("year") + values["size"]
    got = leave_one_out.pointwise_log_likelihood(both_sites, units)
    np.testing.assert_allclose(got, want.values.reshape(100, 3), rtol=1e-12)


def test_units_may_be_whole_groups(both_sites):
    units = choose_units(both_sites, "y", "year")
    want = both_sites.log_likelihood["y"].sum("school").values.reshape(100, 2)
    np.testing.assert_allclose(leave_one_out.pointwise_log_likelihood(both_sites, units), want, rtol=1e-12)
    turned = choose_units(both_sites, "y", ("year", "school"))
    want = both_sites.log_likelihood["y"].transpose("chain", "draw", "year", "school").values.reshape(100, 6)
    np.testing.assert_allclose(leave_one_out.pointwise_log_likelihood(both_sites, turned), want, rtol=1e-12)
    with pytest.raises(ppl.ModelError, match="unit='pupil' is no axis.*'school', 'year'"):
        choose_units(both_sites, "y", "pupil")


@pytest.mark.parametrize(
    ("site", "unit"), [("y", None), ("size", None), ("y", "school"), ("y", ("year", "school")), (("y", "size"), None)]
)
def test_the_density_without_a_unit_lacks_its_factors(both_sites, site, unit):
    units = choose_units(both_sites, site, unit)
    z = both_sites.draws.positions[0, 0]
    factors = {name: np.asarray(value) for name, value in both_sites.density.pointwise(z).items()}
    by_unit = units.total(factors)
    for i in range(units.count):
        without = LeaveOut(both_sites.density, np.int32(i), units.places(both_sites.density))
        assert float(without(z)) == pytest.approx(float(both_sites.density(z)) - by_unit[i], rel=1e-10)


def test_a_joint_vector_cannot_be_left_out_by_element():
    @ppl.model
    def joint():
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        ppl.sample("y", dist.MultivariateNormal(mu * np.ones(3), np.eye(3)))

    fit = infer(joint().condition(y=np.zeros(3)), Gaussian(chains=1, draws=20), progress=False)
    with pytest.raises(ppl.ModelError, match="one log factor for all of its values"):
        loo(fit)


def test_nothing_to_leave_out_is_refused():
    fit = infer(lambda z: -0.5 * (z**2).sum(), Gaussian(chains=1, draws=20), init=np.zeros(1), progress=False)
    with pytest.raises(ppl.ModelError, match="no pointwise log likelihood"):
        loo(fit)


def test_unknown_methods_are_refused(schools):
    with pytest.raises(ValueError, match="'waic'"):
        loo(schools, method="waic")


def test_an_impossible_observation_is_named():
    @ppl.model
    def bounded(n):
        top = ppl.sample("top", dist.Normal(2.0, 1.0))
        ppl.plate("row", lambda _: ppl.sample("y", dist.Uniform(top - 5.0, top)), n)

    fit = infer(bounded(2).condition(y=np.array([0.0, 1.9])), Gaussian(chains=1, draws=20, mean=2.0), progress=False)
    with pytest.raises(ValueError, match=r"y\[1\] is -inf at draw"):
        loo(fit)


# ------------------------------------------------------------------------------------------- refits


def test_refits_share_one_compilation(caplog):
    import jax

    fit = infer(normal_mean(6, 2.0, 1.0).condition(y=np.arange(6.0)), ENGINE, seed=2, progress=False)
    work = leave_one_out._by_importance(fit, choose_units(fit))
    compiled = []
    for i in range(2):
        caplog.clear()
        with jax.log_compiles(), caplog.at_level("WARNING"):
            refit.refit(work, fit, i, None, 0)
        compiled.append(sum("Compiling" in record.getMessage() for record in caplog.records))
    assert compiled[0] > 0
    assert compiled[1] == 0


def test_the_engine_of_a_fit_is_made_again(schools):
    assert refit.engine_of(schools) == ENGINE
    engine = mcmc.Chains(mcmc.NUTS(max_depth=6), chains=2, warmup=30, draws=20)
    fit = infer(normal_mean(2, 1.0, 1.0).condition(y=np.zeros(2)), engine, progress=False)
    again = refit.engine_of(fit)
    assert (type(again.kernel), again.kernel.max_depth, again.chains) == (mcmc.NUTS, 6, 2)
    fit = infer(normal_mean(2, 1.0, 1.0).condition(y=np.zeros(2)), Gaussian(chains=2, draws=20), progress=False)
    assert refit.engine_of(fit) == mcmc.PooledHMC()


# ------------------------------------------------------------------------------------------- gaps and ragged tables


def test_gaps_are_not_counted():
    y = np.array([-1.0, np.nan, 0.3, 0.8, np.nan, 4.0])
    known = ~np.isnan(y)
    whole = quiet(infer(normal_mean(4, 2.0, 1.0).condition(y=y[known]), ENGINE, seed=2, progress=False))
    for policy in ("impute", "marginalize"):
        program = normal_mean(6, 2.0, 1.0).condition(y=y, missing=policy)
        found = quiet(infer(program, ENGINE, seed=2, progress=False))
        assert found.units.counted.tolist() == known.tolist()
        assert np.isnan(found.pointwise["elpd"].values[[1, 4]]).all()
        np.testing.assert_allclose(found.elpd_i[known], whole.elpd_i, atol=0.2)
        assert found.se == pytest.approx(np.sqrt(4 * found.elpd_i[known].var()))
        assert "over 4 row" in repr(found)


@ppl.model
def ragged(table):
    mu = ppl.sample("mu", dist.Normal(0.0, 2.0))

    @ppl.plate("unit", table)
    def _(rows):
        a = ppl.sample("a", dist.Normal(mu, 1.0))
        ppl.plate("obs", within=rows)(lambda row: ppl.sample("y", dist.Normal(a + row["x"], 0.7)))


@pytest.mark.standard_promotion
def test_units_of_ragged_plates_are_the_rows_of_the_table():
    codes = np.array([1, 0, 1, 2, 0, 1, 3, 1])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=8), rng.normal(size=8)
    program = ragged(ppl.ragged(codes, {"x": x})).condition(y=y)
    fit = infer(program, Gaussian(chains=2, draws=20, sd=0.5), progress=False)
    z = fit.draws.positions[0, 0]
    full = float(fit.density(z))
    by_row = fit.log_likelihood["y"].values[0, 0]
    for unit, parts in ((None, by_row), (codes, np.bincount(codes, by_row))):
        units = choose_units(fit, unit=unit)
        places = units.places(fit.density)
        assert units.count == len(parts)
        for i, part in enumerate(parts):
            assert float(LeaveOut(fit.density, np.int32(i), places)(z)) == pytest.approx(full - part, rel=1e-10)
            assert float(leave_one_out.evaluate_at(fit.density, places, i, z[None])[1][0]) == pytest.approx(part)
    with pytest.raises(ppl.ModelError, match=r"labels of shape \(3,\)"):
        choose_units(fit, unit=np.arange(3))


# ------------------------------------------------------------------------------------------- calibration


def exact_draws(X, y, rng, shape=(8, 250)):
    """Independent draws of (log s2, beta) from the posterior of ``regression`` with spread 2, a = 2, b = 1."""
    precision = X.T @ X + np.eye(2) / 4.0
    mean = np.linalg.solve(precision, X.T @ y)
    a, b = 2.0 + len(y) / 2, 1.0 + 0.5 * (y @ y - mean @ precision @ mean)
    s2 = b / rng.gamma(a, size=shape)
    noise = rng.normal(size=(*shape, 2)) @ np.linalg.cholesky(np.linalg.inv(precision)).T
    return np.concatenate([np.log(s2)[..., None], mean + np.sqrt(s2)[..., None] * noise], axis=-1)


@pytest.mark.slow
def test_errors_of_refits_and_matched_moments_are_calibrated(regressed):
    """From exact draws, 60 seeds: z-scores centred with sd near one (four standard errors of each)."""
    X, y = outlier()
    keep = np.arange(20) != 7
    places = choose_units(regressed).places(regressed.density)
    evaluate = partial(leave_one_out.evaluate_at, regressed.density, places, 7)
    refits, matches = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        posterior, without = exact_draws(X, y, rng), exact_draws(X[keep], y[keep], rng)
        value, error = refit.log_ratio(evaluate, posterior, without)
        refits.append((value - truth()[7]) / error)
        flat = posterior.reshape(-1, 3)
        found = moment_match.match_moments(evaluate, flat, *evaluate(flat), 1.0, 0.5)
        if found.k < 0.5:
            value, error = leave_one_out.estimate(found.log_likelihood, found.log_weights, 1.0)
            matches.append((value - truth()[7]) / error)
    assert len(matches) > 30
    for z in (np.array(refits), np.array(matches)):
        assert abs(z.mean()) < 4 / np.sqrt(len(z))
        assert 0.6 < z.std() < 1.5
