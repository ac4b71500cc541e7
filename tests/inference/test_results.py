"""Fit: groups, labels, summary, ArviZ, storage."""

from __future__ import annotations

import dataclasses
import json
import warnings

import jax
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import chunks, diagnostics, groups, infer, load
from ppl.inference.export import flat
from tests.inference.engines import Gaussian

Y = np.array([28.0, 8.0, -3.0, 7.0])
SIGMA = np.array([15.0, 10.0, 16.0, 11.0])
NAMES = ("Choate", "Deerfield", "Andover", "Exeter")


@ppl.model
def schools(sigma, names):
    mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
    tau = ppl.sample("tau", dist.HalfNormal(5.0))
    ppl.record("precision", tau**-2)

    @ppl.plate("school", sigma, coords=names)
    def theta(s):
        theta = ppl.sample("theta", dist.Normal(mu, tau))
        ppl.sample("pair", dist.Normal(theta, 1.0).expand([2]), dims="side")
        ppl.sample("y", dist.Normal(theta, s))
        return theta


def program():
    return schools(SIGMA, NAMES).condition(y=Y)


def fitted(chains=2, draws=30, **options):
    return infer(program(), Gaussian(chains=chains, draws=draws, warmup=7, **options), progress=False)


@pytest.fixture(scope="module")
def fit():
    with jax.enable_x64(True):
        return fitted()


def constrained(fit):
    z = fit.draws.positions
    density = fit.density
    return [[density.generated(z[c, d]) for d in range(z.shape[1])] for c in range(z.shape[0])]


def test_the_posterior_is_the_constrained_draws(fit):
    want = constrained(fit)
    for name in ("mu", "tau", "theta", "pair", "precision"):
        np.testing.assert_allclose(
            fit.values[name], [[draw[name] for draw in chain] for chain in want], rtol=1e-12, err_msg=name
        )


def test_every_group_is_there_with_dims_and_coords(fit):
    data = fit.data
    assert set(data.children) == set(groups.LIGHT + groups.HEAVY)
    assert data["posterior"]["theta"].dims == ("chain", "draw", "school")
    assert data["posterior"]["pair"].dims == ("chain", "draw", "school", "side")
    assert list(data["posterior"].coords["school"].values) == list(NAMES)
    assert data["posterior"]["theta"].sel(school="Andover").shape == (2, 30)
    assert data["log_likelihood"]["y"].dims == ("chain", "draw", "school")
    assert data["log_prior"]["theta"].dims == ("chain", "draw")
    assert data["prior_predictive"]["y"].shape == (1, groups.PRIOR_DRAWS, 4)
    assert data["observed_data"]["y"].dims == ("school",)
    np.testing.assert_array_equal(data["observed_data"]["y"], Y)
    np.testing.assert_array_equal(data["constant_data"]["sigma"], SIGMA)
    assert data["warmup_posterior"]["mu"].shape == (2, 7)
    assert data["warmup_sample_stats"]["energy"].shape == (2, 7)
    assert list(data["unconstrained_posterior"].coords["unconstrained"].values) == fit.density.labels
    assert set(data["prior"].data_vars) == {"mu", "tau", "theta", "pair", "precision"}


def test_log_likelihood_and_log_prior_are_the_densities(fit):
    theta, mu, tau = (fit.values[name] for name in ("theta", "mu", "tau"))
    log_normal = lambda x, m, s: -0.5 * ((x - m) / s) ** 2 - np.log(s) - 0.5 * np.log(2 * np.pi)  # noqa: E731
    np.testing.assert_allclose(fit.log_likelihood["y"], log_normal(Y, theta, SIGMA), rtol=1e-10)
    np.testing.assert_allclose(
        fit.log_prior["theta"], log_normal(theta, mu[..., None], tau[..., None]).sum(-1), rtol=1e-10
    )


def test_heavy_groups_are_computed_when_they_are_read():
    fit = fitted()
    data = fit.data
    assert "dims" in repr(data["log_likelihood"]) or "Dimensions" in repr(data["log_likelihood"])
    assert fit._groups == {}
    data["log_likelihood"]["y"].sel(school="Exeter").mean().item()
    assert set(fit._groups) == {"log_likelihood"}


def test_posterior_predictive_follows_the_posterior(fit):
    # y given theta is normal: standardised residuals of 240 draws, two-sided false alarm 1 in 16,000 each.
    residual = (fit.posterior_predictive["y"].values - fit.values["theta"]) / SIGMA
    n = residual.size
    assert abs(residual.mean()) * np.sqrt(n) < 4
    assert abs((residual**2).mean() - 1) * np.sqrt(n / 2) < 4


def test_prior_groups_follow_the_prior(fit):
    mu, theta, tau = (fit.prior[name].values for name in ("mu", "theta", "tau"))
    assert abs(mu.mean()) / 5 * np.sqrt(mu.size) < 4
    residual = (theta - mu[..., None]) / tau[..., None]
    assert abs(residual.mean()) * np.sqrt(residual.size) < 4
    noise = (fit.prior_predictive["y"].values - theta) / SIGMA
    assert abs((noise**2).mean() - 1) * np.sqrt(noise.size / 2) < 4


def test_a_prior_that_cannot_be_simulated_has_no_group():
    @ppl.model
    def tilted():
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.factor("tilt", x)
        ppl.sample("y", dist.Normal(x, 1.0))

    fit = infer(tilted().condition(y=0.5), Gaussian(draws=10), progress=False)
    assert "prior" not in fit.data.children
    assert "posterior_predictive" in fit.data.children
    with pytest.raises(AttributeError, match="no group 'prior'"):
        _ = fit.prior
    with pytest.raises(AttributeError, match="no attribute 'postirior'"):
        _ = fit.postirior


def test_the_manifest_says_what_was_run(fit):
    about = fit.manifest
    assert about["engine"] == "Gaussian"
    assert about["engine_options"]["chains"] == 2
    assert about["seed"] == 0
    assert about["precision"] == "float64"
    assert about["jax_version"] == jax.__version__
    assert about["plan"] == ["2 chains of Gaussian draws in 14 dimensions"]
    assert set(about["seconds"]) == {"warmup", "sampling"}
    json.dumps(about)
    assert fit.data.attrs["interrupted"] == 0
    assert json.loads(flat(about)["engine_options"])["draws"] == 30


# ---------------------------------------------------------------------------------------- summary


def test_summary_rows_are_labelled_and_right(fit):
    table = fit.summary()
    theta = fit.values["theta"][..., 1]
    row = table["theta[Deerfield]"]
    assert row["mean"] == pytest.approx(theta.mean(), rel=1e-12)
    assert row["sd"] == pytest.approx(theta.std(ddof=1), rel=1e-12)
    assert row["5%"] == pytest.approx(np.quantile(theta, 0.05), rel=1e-12)
    assert row["ess_tail"] == pytest.approx(float(diagnostics.ess_tail(theta)), rel=1e-12)
    assert row["r_hat"] == pytest.approx(float(diagnostics.rhat_rank(theta)), rel=1e-12)
    assert table.labels[:3] == ("mu", "tau", "precision")
    assert "pair[Choate, 1]" in table.labels
    assert len(table["mean"]) == len(table.labels) == 15
    frame = table.to_dataframe()
    assert frame.loc["mu", "mean"] == table["mu"]["mean"]
    with pytest.raises(ppl.ModelError, match=r"did you mean 'theta\[Choate\]'"):
        table["theta[choate]"]


def test_summary_agrees_with_arviz(fit):
    import arviz as az

    theirs = az.summary(fit.to_arviz(), round_to="none")
    table = fit.summary()
    theta, pair = fit.values["theta"], fit.values["pair"]
    rows = {"mu": fit.values["mu"], "theta[Exeter]": theta[..., 3], "pair[Andover, 0]": pair[..., 2, 0]}
    for label, draws in rows.items():
        for column in ("mean", "sd", "ess_bulk", "r_hat", "mcse_mean"):
            assert table[label][column] == pytest.approx(theirs.loc[label, column], rel=1e-8), (label, column)
        # The table of ArviZ 1 has the tails of its own interval, 11% and 89%, where 0.23 had these.
        tail = az.ess(draws, method="tail", prob=(0.05, 0.95))
        assert table[label]["ess_tail"] == pytest.approx(float(tail), rel=1e-8), label


def test_summary_of_some_names_and_misspelt_names(fit):
    assert fit.summary("tau").labels == ("tau",)
    with pytest.raises(ppl.ModelError, match="did you mean 'theta'"):
        fit.summary(["thta"])


def test_summary_warns_of_divergences_and_disagreement():
    with pytest.warns(UserWarning, match="not met"):
        engine = Gaussian(stuck=True, draws=30, max_draws=30)
        bad = infer(program(), engine, until=lambda z: False, progress=False)
    draws = dataclasses.replace(bad.draws, stats={"diverging": np.ones((4, 300), bool)})
    text = str(dataclasses.replace(bad, draws=draws).summary("mu"))
    assert "1200 divergent transitions (1 of all)" in text
    assert "the chains do not agree" in text
    assert "not met" in text


def test_a_long_summary_is_cut():
    fit = infer(lambda z: -0.5 * (z**2).sum(), Gaussian(draws=10), init=np.zeros(100), progress=False)
    assert "40 more rows" in str(fit.summary())
    assert len(fit.summary().labels) == 100
    assert fit.summary().labels[7] == "z[7]"


def test_a_function_gives_the_variable_z():
    fit = infer(lambda z: -0.5 * (z**2).sum(), Gaussian(draws=10), init=np.zeros(2), progress=False)
    assert list(fit.posterior.data_vars) == ["z"]
    np.testing.assert_array_equal(fit.posterior["z"], fit.draws.positions)
    assert set(fit.data.children) == {
        "posterior", "sample_stats", "unconstrained_posterior", "warmup_posterior", "warmup_sample_stats"
    }  # fmt: skip


def test_repr_is_short(fit):
    assert repr(fit) == "<Fit of mu, tau, theta, pair: 2 chains x 30 draws>"


def test_one_row_per_draw(fit):
    frame = fit.to_dataframe()
    assert len(frame) == 60
    assert frame["theta[Andover]"].iloc[31] == fit.values["theta"][1, 1, 2]
    assert (frame["chain"].iloc[31], frame["draw"].iloc[31]) == (1, 1)
    assert frame["energy"].iloc[31] == fit.draws.stats["energy"][1, 1]


@pytest.mark.standard_promotion
def test_names_are_in_the_order_of_the_model_everywhere(tmp_path):
    @ppl.model
    def f(x):
        z = ppl.sample("z", dist.Normal(0.0, 1.0))

        @ppl.plate("row", x)
        def _(x):
            q = ppl.sample("q", dist.Normal(z, 1.0))
            ppl.record("d", q * 2)
            b = ppl.sample("b", dist.Normal(q, 1.0))
            ppl.sample("y", dist.Normal(b, 1.0))
            ppl.sample("w", dist.Normal(b, 1.0))

    ones = np.ones(3)
    target = f(ones).condition(y=ones, w=ones)
    density = ppl.compile(target)
    z = np.zeros(density.dim)
    fit = infer(target, Gaussian(draws=5, warmup=3), progress=False)
    fit.save(tmp_path / "fit", groups="all")
    order = "zqdbyw"
    found = [
        target.sites, target.sample(0), target.simulate(jax.random.key(0), {}), target.factors(target.sample(0)),
        density.layout, density.constrain(z), density.generated(z), density.pointwise(z), density.log_prior(z),
        fit.values, fit.predict(names=list(order)), ppl.inference.laplace(target).mode,
        *(data for data in fit.data.children.values() if "q" in data or "y" in data),
        *(data for data in load(tmp_path / "fit").data.children.values() if "q" in data or "y" in data),
    ]  # fmt: skip
    for names in map(list, found):
        assert len(names) > 1
        assert names == [name for name in order if name in names]


# ---------------------------------------------------------------------------------------- ArviZ


def test_arviz_works_without_further_code(fit):
    import arviz as az

    data = fit.to_arviz()
    assert "theta[Choate]" in az.summary(data).index
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pareto k is large, as these draws are no posterior
        loo = az.loo(data)
        plots = az.plot_trace(data, var_names=["mu", "tau"])
    assert loo.n_data_points == 4
    if hasattr(plots, "viz"):  # ArviZ 1: a tree of what was drawn
        assert list(plots.viz["plot"].data_vars) == ["mu", "tau"]
        assert plots.viz["trace"]["tau"].sizes == {"chain": 2}
    else:
        assert plots.shape == (2, 2)


# ---------------------------------------------------------------------------------------- storage


def test_a_saved_fit_comes_back(tmp_path):
    fit = fitted()
    fit.save(tmp_path / "fit")
    back = load(tmp_path / "fit")
    np.testing.assert_array_equal(back.draws.positions, fit.draws.positions)
    np.testing.assert_array_equal(back.draws.warmup_positions, fit.draws.warmup_positions)
    assert back.draws.stats["diverging"].dtype == bool
    for name in fit.values:
        np.testing.assert_array_equal(back.values[name], fit.values[name])
    assert back.manifest == fit.manifest
    assert back.posterior["theta"].dims == ("chain", "draw", "school")
    assert str(back.summary()) == str(fit.summary())
    assert back.summary().labels == fit.summary().labels
    np.testing.assert_array_equal(back.observed_data["y"], Y)
    assert repr(back) == repr(fit)
    with pytest.raises(AttributeError, match="program is not known"):
        _ = load(tmp_path / "fit").prior
    with pytest.raises(FileExistsError):
        fit.save(tmp_path / "fit")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none")


def test_no_pickle_is_written(fit, tmp_path):
    fit.save(tmp_path / "fit")
    text = "".join(p.read_text() for p in (tmp_path / "fit").rglob("zarr.json"))
    assert "pickle" not in text


def test_heavy_groups_are_saved_when_asked_for(tmp_path):
    fit = fitted()
    fit.save(tmp_path / "few")
    fit.save(tmp_path / "some", groups=["log_likelihood"])
    fit.save(tmp_path / "all", groups="all")
    assert "log_likelihood" not in load(tmp_path / "few").stored
    np.testing.assert_array_equal(load(tmp_path / "some").log_likelihood["y"], fit.log_likelihood["y"])
    assert set(load(tmp_path / "all").stored) == set(groups.LIGHT + groups.HEAVY)
    with pytest.raises(ppl.ModelError, match="did you mean 'log_likelihood'"):
        fit.save(tmp_path / "wrong", groups=["loglikelihood"])


def test_a_loaded_fit_with_its_program_computes_the_rest(fit, tmp_path):
    fit.save(tmp_path / "fit")
    back = load(tmp_path / "fit", program())
    np.testing.assert_allclose(back.log_likelihood["y"], fit.log_likelihood["y"], rtol=1e-12)


def test_loading_with_another_program_is_refused(tmp_path):
    @ppl.model
    def other():
        ppl.sample("a", dist.Normal(0.0, 1.0))

    fit = fitted()
    lp = np.stack([[float(fit.density(z)) for z in chain] for chain in fit.draws.positions])
    fit = dataclasses.replace(fit, draws=dataclasses.replace(fit.draws, stats={"lp": lp}))
    fit.save(tmp_path / "fit")
    assert load(tmp_path / "fit", program()).program is not None
    with pytest.raises(ppl.ModelError, match="coordinates"):
        load(tmp_path / "fit", other())
    with pytest.raises(ppl.ModelError, match="not the data"):
        load(tmp_path / "fit", schools(SIGMA, NAMES).condition(y=Y + 1.0))


# ---------------------------------------------------------------------------------------- memory


def test_pieces_are_as_small_as_the_budget_asks_and_the_result_is_the_same(fit, monkeypatch):
    whole = chunks.over_draws(fit.density, "generated", fit.draws.positions)
    seen = []
    original = chunks._evaluate
    monkeypatch.setattr(chunks, "BUDGET", 4 * (8 * fit.density.work + 8 * 15))
    monkeypatch.setattr(chunks, "_evaluate", lambda d, m, x: (seen.append(x[0].shape), original(d, m, x))[1])
    pieces = chunks.over_draws(fit.density, "generated", fit.draws.positions)
    assert {shape for shape in seen if shape[0] > 1} == {(4, fit.density.dim)}
    for name, value in whole.items():
        np.testing.assert_array_equal(pieces[name], value)


def test_a_result_that_cannot_fit_is_refused_before_it_is_computed():
    with pytest.raises(MemoryError, match="ask for fewer"):
        chunks.room(10**9, {"y": jax.ShapeDtypeStruct((10**6,), np.float64)})


def test_constant_data_are_the_arrays_of_the_call_and_what_do_fixed():
    @ppl.model
    def f(x, table, n=3, scale=2.0, name="text"):
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        ppl.sample("b", dist.Normal(a, 1.0))
        ppl.sample("y", dist.Normal(a + x.sum() + table["u"].sum(), scale).expand([n]))

    target = f([1.0, 2.0], {"u": np.arange(4.0)}).condition(y=np.zeros(3)).do(b=3.0)
    found = groups.constants(target)
    assert set(found) == {"x", "table/u", "b"}
    np.testing.assert_array_equal(found["x"], [1.0, 2.0])
    np.testing.assert_array_equal(found["table/u"], np.arange(4.0))
    assert found["b"] == 3.0


def test_names_with_slashes_are_kept_and_are_points_where_a_tree_takes_none(tmp_path):
    """Sites of a called program, leaves of an argument."""

    @ppl.model
    def part(data):
        @ppl.plate("row", data["x"])
        def row(x):
            return ppl.sample("z", dist.Normal(x, 1.0))

        return row.sum()

    @ppl.model
    def whole(data):
        ppl.sample("y", dist.Normal(ppl.call("a", part(data)), 1.0))

    program = whole({"x": np.arange(2.0)}).condition(y=1.0)
    fit = infer(program, Gaussian(), progress=False)
    assert fit.posterior["a/z"].dims == ("chain", "draw", "a/row")
    assert fit.data["posterior"]["a.z"].dims == ("chain", "draw", "a.row")
    np.testing.assert_array_equal(fit.data["constant_data"]["data.x"], [0.0, 1.0])
    fit.save(tmp_path / "fit")
    again = load(tmp_path / "fit", program=program)
    np.testing.assert_array_equal(again.values["a/z"], fit.values["a/z"])
    assert again.posterior["a/z"].dims == ("chain", "draw", "a/row")
