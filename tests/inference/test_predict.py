"""Prediction: replication, new inputs, interventions, new and known labels, refusals."""

from __future__ import annotations

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import infer, load
from tests.inference.engines import Gaussian


@ppl.model
def line(x):
    a = ppl.sample("a", dist.Normal(0.0, 1.0))
    b = ppl.sample("b", dist.Normal(0.0, 1.0))

    @ppl.plate("row", x)
    def row(x):
        mean = ppl.record("mean", a + b * x)
        ppl.sample("y", dist.Normal(mean, 0.5))


X = np.array([0.0, 1.0, 2.0])


def fit_line(**options):
    return infer(line(X).condition(y=np.zeros(3)), Gaussian(mean=[1.0, 2.0], sd=[0.1, 0.2], **options), progress=False)


@ppl.model
def groups(labels, codes):
    mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
    tau = ppl.sample("tau", dist.LogNormal(0.0, 1.0))

    @ppl.plate("group", coords=labels)
    def theta():
        return ppl.sample("theta", dist.Normal(mu, tau))

    @ppl.plate("obs", codes)
    def obs(code):
        ppl.sample("y", dist.Normal(theta[code], 0.1))


def fit_groups(labels=("a", "b", "c"), draws=500):
    codes = np.arange(len(labels))
    engine = Gaussian(mean=[1.0, 0.0] + [10.0 * i for i in range(len(labels))], sd=0.1, draws=draws)
    return infer(groups(labels, codes).condition(y=np.zeros(len(labels))), engine, progress=False)


# ---------------------------------------------------------------------------------------- replication, new inputs


def test_replicated_data_follow_the_posterior():
    fit = fit_line()
    out = fit.predict()
    assert set(out.data_vars) == {"y", "mean"}
    assert out["y"].dims == ("chain", "draw", "row")
    np.testing.assert_allclose(out["mean"], fit.values["mean"], rtol=1e-12)
    residual = (out["y"].values - fit.values["mean"]) / 0.5  # 2400 standard normals, |z| < 4
    assert abs(residual.mean()) * np.sqrt(residual.size) < 4
    assert abs((residual**2).mean() - 1) * np.sqrt(residual.size / 2) < 4
    assert np.unique(residual).size == residual.size


def test_new_inputs_of_another_size_use_the_same_draws():
    fit = fit_line()
    new = np.array([10.0, -10.0])
    out = fit.predict(line(new))
    a, b = fit.values["a"][..., None], fit.values["b"][..., None]
    np.testing.assert_allclose(out["mean"], a + b * new, rtol=1e-12)
    residual = (out["y"].values - (a + b * new)) / 0.5
    assert abs((residual**2).mean() - 1) * np.sqrt(residual.size / 2) < 4


def test_the_seed_determines_the_prediction():
    fit = fit_line(draws=20)
    one, again, other = fit.predict(seed=1), fit.predict(seed=1), fit.predict(seed=2)
    np.testing.assert_array_equal(one["y"], again["y"])
    assert not np.any(one["y"].values == other["y"].values)


def test_conditions_of_the_new_program_do_not_count():
    fit = fit_line(draws=20)
    free, fixed = fit.predict(line(X + 1)), fit.predict(line(X + 1).condition(y=np.ones(3)))
    np.testing.assert_array_equal(free["y"], fixed["y"])


def test_interventions_count():
    fit = fit_line(draws=20)
    out = fit.predict(line(X).do(b=100.0), names=["b", "mean"])
    np.testing.assert_array_equal(out["b"], 100.0)
    np.testing.assert_allclose(out["mean"], fit.values["a"][..., None] + 100.0 * X, rtol=1e-12)


def test_names_choose_and_are_checked():
    fit = fit_line(draws=20)
    assert set(fit.predict(names="y").data_vars) == {"y"}
    np.testing.assert_array_equal(fit.predict(names=["a"])["a"], fit.values["a"])
    with pytest.raises(ppl.ModelError, match="did you mean 'mean'"):
        fit.predict(names=["maen"])


def test_fewer_draws_are_evenly_spaced_draws():
    fit = fit_line(draws=21)
    out = fit.predict(names=["a", "y"], draws=3)
    assert out["y"].shape == (4, 3, 3)
    assert out["draw"].values.tolist() == [0, 10, 20]
    np.testing.assert_array_equal(out["a"], fit.values["a"][:, [0, 10, 20]])
    assert fit.predict(names="a", draws=100)["a"].shape == (4, 21)


def test_new_data_of_the_same_shape_compile_nothing():
    from ppl.inference import simulate as module

    fit = fit_line(draws=20)
    fit.predict(line(X))
    before = len(module._compiled)
    second = fit.predict(line(X + 1.0))
    assert len(module._compiled) == before
    np.testing.assert_allclose(
        second["mean"], fit.values["a"][..., None] + fit.values["b"][..., None] * (X + 1.0), rtol=1e-12
    )


# ---------------------------------------------------------------------------------------- labels


def test_known_labels_take_their_draws_in_any_order_and_nothing_is_said():
    fit = fit_groups(draws=50)
    out = fit.predict(groups(("c", "a"), np.array([0, 1])), names=["theta", "y"])
    np.testing.assert_array_equal(out["theta"].sel(group="c"), fit.values["theta"][..., 2])
    np.testing.assert_array_equal(out["theta"].sel(group="a"), fit.values["theta"][..., 0])
    assert abs(out["y"].values - out["theta"].values).max() < 1.0


def test_new_labels_are_drawn_from_the_population_and_it_says_so():
    fit = fit_groups()
    with pytest.warns(UserWarning, match="'theta' is drawn from its population for the new labels z$"):
        out = fit.predict(groups(("b", "z"), np.array([1, 1, 0])), names=["theta", "y"])
    np.testing.assert_array_equal(out["theta"].sel(group="b"), fit.values["theta"][..., 1])
    # theta of a new group is N(mu, tau^2) at the draws of mu and tau: 2000 standard normals
    residual = (out["theta"].sel(group="z").values - fit.values["mu"]) / fit.values["tau"]
    assert abs(residual.mean()) * np.sqrt(residual.size) < 4
    assert abs((residual**2).mean() - 1) * np.sqrt(residual.size / 2) < 4
    # and y of that group follows it
    assert abs(out["y"].values[..., 0] - out["theta"].values[..., 1]).max() < 1.0
    assert "new labels z" in out.attrs["prediction_notes"][0]


def test_new_elements_follow_the_known_elements_of_their_parents():
    @ppl.model
    def nested(states, counties):
        @ppl.plate("state", coords=states)
        def state():
            middle = ppl.sample("middle", dist.Normal(0.0, 100.0))

            @ppl.plate("county", coords=counties)
            def county():
                ppl.sample("theta", dist.Normal(middle, 0.01))

            return middle

        ppl.sample("y", dist.Normal(state[0], 1.0))

    engine = Gaussian(mean=[5.0, -5.0] + [5.0] * 2 + [-5.0] * 2, sd=0.1, draws=20)
    fit = infer(nested(("s", "t"), ("u", "v")).condition(y=0.0), engine, progress=False)
    with pytest.warns(UserWarning, match="new labels w$"):
        out = fit.predict(nested(("t", "s"), ("v", "w")), names=["middle", "theta"])
    np.testing.assert_array_equal(out["middle"].sel(state="t"), fit.values["middle"][..., 1])
    np.testing.assert_array_equal(out["theta"].sel(state="t", county="v"), fit.values["theta"][..., 1, 1])
    new = out["theta"].sel(county="w")
    assert float(abs(new - out["middle"]).max()) < 0.1


def test_known_labels_in_place_are_taken_whole():
    fit = fit_groups(draws=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = fit.predict(groups(("a", "b", "c"), np.array([2])))
    assert set(out.data_vars) == {"y"}


def test_another_shape_without_labels_is_an_error():
    @ppl.model
    def plain(n):
        @ppl.plate("group", n)
        def theta():
            return ppl.sample("theta", dist.Normal(0.0, 1.0))

        ppl.sample("y", dist.Normal(theta.sum(), 1.0))

    fit = infer(plain(3).condition(y=0.0), Gaussian(draws=20), progress=False)
    with pytest.raises(ppl.ModelError, match="no labels tell which elements"):
        fit.predict(plain(4))


def test_a_joint_axis_is_not_rearranged():
    @ppl.model
    def joint(labels):
        n = len(labels)

        @ppl.plate("t", coords=labels)
        def step():
            return ppl.sample("e", dist.Normal(0.0, 1.0))

        f = ppl.sample("f", dist.MultivariateNormal(jnp.zeros(n), jnp.eye(n)), dims="t")
        ppl.sample("y", dist.Normal(f[0] + step[0], 1.0))

    fit = infer(joint(("a", "b")).condition(y=0.0), Gaussian(draws=20), progress=False)
    with pytest.raises(ppl.ModelError, match="not independent"):
        fit.predict(joint(("b", "c")))


def test_a_chain_is_not_shortened():
    @ppl.model
    def walk(steps):
        def step(x, t):
            return ppl.sample("x", dist.Normal(x, 1.0))

        ppl.markov("t", step, init=0.0, xs=steps)
        ppl.sample("y", dist.Normal(0.0, 1.0))

    fit = infer(walk(3).condition(y=0.0), Gaussian(draws=20), progress=False)
    with pytest.raises(ppl.ModelError, match="'x' has shape"):
        fit.predict(walk(2))


# ---------------------------------------------------------------------------------------- refusals


def test_a_latent_site_that_the_fit_does_not_have_is_an_error():
    @ppl.model
    def misspelt(x):
        a = ppl.sample("aa", dist.Normal(0.0, 1.0))
        b = ppl.sample("b", dist.Normal(0.0, 1.0))
        ppl.sample("y", dist.Normal(a + b * x, 1.0))

    with pytest.raises(ppl.ModelError, match=r"no draws of 'aa' .*did you mean 'a'"):
        fit_line(draws=20).predict(misspelt(X))


def test_a_site_in_a_plate_of_new_labels_may_be_new_and_it_says_so():
    @ppl.model
    def wider(x, labels):
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        b = ppl.sample("b", dist.Normal(0.0, 1.0))

        @ppl.plate("site", coords=labels)
        def shift():
            return ppl.sample("shift", dist.Normal(0.0, 1.0))

        ppl.sample("y", dist.Normal(a + b * x + shift.sum(), 1.0))

    with pytest.warns(UserWarning, match="'shift' has no posterior draws"):
        out = fit_line(draws=20).predict(wider(X, ("n",)))
    assert set(out.data_vars) == {"shift", "y"}


def test_a_joint_observation_with_new_inputs_is_refused():
    @ppl.model
    def process(x):
        scale = ppl.sample("scale", dist.LogNormal(0.0, 1.0))
        cov = jnp.exp(-((x[:, None] - x) ** 2)) * scale + 0.1 * jnp.eye(len(x))
        ppl.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), cov))

    fit = infer(process(X).condition(y=np.zeros(3)), Gaussian(draws=20), progress=False)
    assert fit.predict()["y"].shape == (4, 20, 3)
    assert fit.predict(process(X))["y"].shape == (4, 20, 3)
    with pytest.raises(ppl.ModelError, match="one joint vector"):
        fit.predict(process(X + 1.0))


def test_a_factor_on_what_is_predicted_is_refused():
    @ppl.model
    def tilted():
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        y = ppl.sample("y", dist.Normal(a, 1.0))
        ppl.factor("tilt", -(y**2))

    fit = infer(tilted().condition(y=0.0), Gaussian(draws=20), progress=False)
    with pytest.raises(ppl.ModelError, match="factor 'tilt' reads y"):
        fit.predict()


# ---------------------------------------------------------------------------------------- loaded fits


def test_a_loaded_fit_predicts_with_a_program(tmp_path):
    fit = fit_groups(draws=20)
    fit.save(tmp_path / "fit")
    back = load(tmp_path / "fit")
    with pytest.raises(ppl.ModelError, match=r"load\(path, program="):
        back.predict()
    new = groups(("c", "z"), np.array([0]))
    with pytest.warns(UserWarning, match="new labels z"):
        ours, theirs = fit.predict(new), back.predict(new)
    np.testing.assert_array_equal(ours["theta"], theirs["theta"])
    np.testing.assert_array_equal(ours["y"], theirs["y"])


def test_unlabelled_axes_of_a_loaded_fit_stay_unlabelled(tmp_path):
    @ppl.model
    def effects(n, labels=None):
        @ppl.plate("group", n, coords=labels)
        def theta(_):
            return ppl.sample("theta", dist.Normal(0.0, 1.0))

        ppl.sample("y", dist.Normal(theta.sum(), 1.0))

    infer(effects(3).condition(y=0.0), Gaussian(draws=20), progress=False).save(tmp_path / "fit")
    # the file counts the unlabelled axis from zero; those numbers are no labels
    with pytest.raises(ppl.ModelError, match="no labels tell"):
        load(tmp_path / "fit").predict(effects(2, labels=(0, 2)))


def test_conditions_inside_a_called_program_are_released_and_shown():
    @ppl.model
    def inner():
        ppl.sample("y", dist.Normal(ppl.sample("mu", dist.Normal(0.0, 1.0)), 1.0))

    @ppl.model
    def outer():
        ppl.call("a", inner().condition(y=2.0))

    fit = infer(outer(), progress=False)
    assert float(fit.observed_data["a/y"]) == 2.0
    # the posterior is N(1, 1/2), the predictive N(1, 3/2), the prior predictive N(0, 2); 5 sd of the estimates
    replicated = fit.predict(names=["a/y"])["a/y"].values
    assert abs(replicated.mean() - 1.0) < 0.08 and abs(replicated.var() - 1.5) < 0.14
    assert abs(float(fit.prior_predictive["a/y"].var()) - 2.0) < 0.45
