"""Runs on ragged tables: nothing compiles again within a bucket, results have the tidy table's shapes."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import infer, laplace, mcmc
from ppl.inference.calibration import sbc

pytestmark = pytest.mark.standard_promotion
_events: list[str] = []
jax.monitoring.register_event_duration_secs_listener(lambda name, _, **__: _events.append(name))
jax.monitoring.register_event_listener(lambda name, **_: _events.append(name))

NUTS = {"engine": mcmc.NUTS(), "chains": 2, "warmup": 60, "draws": 50, "progress": False, "seed": 1}


@ppl.model
def varying(table):
    mu = ppl.sample("mu", dist.Normal(0.0, 2.0))

    @ppl.plate("unit", table)
    def _(rows):
        a = ppl.sample("a", dist.Normal(mu, 0.5))

        @ppl.plate("obs", rows)
        def _(row):
            e = ppl.sample("e", dist.LogNormal(0.0, 0.5))
            ppl.sample("y", dist.Normal(a + 0.5 * row["x"], e))

        ppl.record("top", a + rows.mean(rows["x"]))


def data(groups, most, rows, seed=0):
    """A table of a given size, in no particular order."""
    rng = np.random.default_rng(seed)
    codes = np.concatenate(
        [np.arange(groups), np.zeros(most - 1, int), rng.integers(1, groups, rows - groups - most + 1)]
    )
    codes = rng.permutation(codes)
    assert np.bincount(codes)[0] == most == np.bincount(codes).max() and len(codes) == rows
    x = rng.normal(size=rows)
    return codes, x, rng.normal(size=groups)[codes] + 0.5 * x + rng.normal(size=rows)


def program(codes, x, y, labels=None):
    return varying(ppl.ragged(codes, x=x, labels=labels)).condition(y=y)


def test_three_panels_in_one_bucket_compile_once():
    def run(groups, most, rows):
        p = program(*data(groups, most, rows))
        fit = infer(p, **NUTS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return fit, fit.summary(), fit.log_likelihood["y"].values, fit.posterior_predictive["y"].values, p.sample(0)

    first = run(10, 8, 30)
    start = len(_events)
    others = [run(12, 7, 35), run(9, 8, 31)]
    new = [e for e in _events[start:] if "backend_compile" in e or "compilation_cache" in e]
    assert new == []
    for (fit, _, likelihood, predicted, draw), groups, rows in zip(
        [first, *others], (10, 12, 9), (30, 35, 31), strict=True
    ):
        assert fit.posterior["a"].shape == (2, 50, groups) and fit.posterior["e"].shape == (2, 50, rows)
        assert likelihood.shape == predicted.shape == (2, 50, rows)
        assert draw["y"].shape == (rows,)


@pytest.fixture(scope="module")
def fit():
    codes, x, y = data(6, 5, 15)
    return codes, x, y, infer(program(codes, x, y, labels=[f"g{i}" for i in range(6)]), **NUTS)


def test_a_fit_has_the_shapes_labels_and_order_of_the_tidy_table(fit):
    codes, x, y, fit = fit
    posterior = fit.posterior
    assert posterior["a"].dims == ("chain", "draw", "unit") and posterior["e"].dims == ("chain", "draw", "obs")
    assert posterior.coords["unit"].values.tolist() == [f"g{i}" for i in range(6)]
    assert posterior.coords["obs"].values.tolist() == list(range(15))
    np.testing.assert_array_equal(fit.observed_data["y"], y)
    np.testing.assert_array_equal(fit.constant_data["table/x"], x)
    a, e = posterior["a"].values, posterior["e"].values
    expected = -0.5 * ((y - a[..., codes] - 0.5 * x) / e) ** 2 - np.log(e) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(fit.log_likelihood["y"].values, expected, atol=1e-9)
    means = np.bincount(codes, x) / np.bincount(codes)
    np.testing.assert_allclose(posterior["top"].values, a + means, atol=1e-12)
    assert fit.log_prior["e"].shape == (2, 50)
    assert len(fit.summary(names=["a"])["mean"]) == 6


def test_predictions_are_rows_of_the_table_and_groups_are_found_by_label(fit):
    codes, x, _, fit = fit
    y = fit.predict(seed=2)["y"]
    a, e = fit.posterior["a"].values, fit.posterior["e"].values
    score = (y.values - a[..., codes] - 0.5 * x) / e  # 1500 standard normals: fails by chance in one of 10^4 seeds
    assert abs(score.mean()) < 4 / np.sqrt(1500) and abs((score**2).mean() - 1) < 4 * np.sqrt(2 / 1500)
    bare = varying(ppl.ragged(["g5", "g1", "g1"], x=np.zeros(3), labels=["g1", "g5"]))
    with pytest.raises(ppl.ModelError, match="'e'"):
        fit.predict(bare)  # the rows' own latent variables belong to other rows

    @ppl.model
    def level(table):
        @ppl.plate("unit", table)
        def _(rows):
            a = ppl.sample("a", dist.Normal(0.0, 0.5))
            ppl.plate("obs", lambda row: ppl.record("mean", a + 0.5 * row["x"]), rows)

    new = level(ppl.ragged(["g5", "g1", "g5"], x=np.arange(3.0), labels=["g1", "g5"]))
    mean = fit.predict(new)["mean"]
    assert mean.dims == ("chain", "draw", "obs")
    np.testing.assert_allclose(mean.values, a[..., [5, 1, 5]] + 0.5 * np.arange(3.0), atol=1e-12)


def test_starting_values_and_modes_are_tidy(fit):
    codes, x, y, _ = fit
    values = {"mu": 0.1, "a": np.arange(6.0), "e": np.arange(1.0, 16.0)}
    p = program(codes, x, y)
    z = ppl.compile(p).unconstrain(values)
    found = p.tidy.unpacked(ppl.compile(p).constrain(z))
    for name, value in values.items():
        np.testing.assert_allclose(found[name], value, atol=1e-12)
    mode = laplace(p.do(e=np.ones(15)))
    assert mode.mode["a"].shape == (6,) and mode.mode["top"].shape == (6,)


def test_padding_leaves_the_posterior_as_it_is():
    # a conjugate model, three means with |z| < 4.5: fails by chance less than once in 10^4 seeds
    codes, x = np.array([0, 1, 1, 2, 2, 2, 2, 2]), np.zeros(8)
    y = np.array([1.0, 0.3, 0.8, -1.0, -0.5, 0.2, 0.1, -0.7])
    fit = infer(program(codes, x, y).do(mu=0.3, e=np.ones(8)), chains=16, draws=400, seed=3, progress=False)
    a = fit.posterior["a"].values
    precision = 4 + np.bincount(codes)
    mean = (4 * 0.3 + np.bincount(codes, y)) / precision
    error = fit.summary(names=["a"])["mcse_mean"]
    assert np.all(np.abs(a.mean(axis=(0, 1)) - mean) < 4.5 * error)
    np.testing.assert_allclose(a.var(axis=(0, 1)), 1 / precision, rtol=0.15)


@ppl.model
def minibatched(x):
    b = ppl.sample("b", dist.Normal(0.0, 1.0))
    ppl.plate("row", lambda x: ppl.sample("y", dist.Normal(b * x, 1.0)), x, subsample=2)


@pytest.mark.parametrize(
    "run",
    [
        lambda p: infer(p, progress=False),
        lambda p: infer(p, mcmc.NUTS(), progress=False),
        lambda p: infer(ppl.compile(p), mcmc.HMC(), progress=False),
        laplace,
    ],
)
def test_engines_that_need_the_density_itself_refuse_a_subsampled_program(run):
    with pytest.raises(ppl.ModelError) as error:
        run(minibatched(np.arange(5.0)).condition(y=np.ones(5)))
    for word in ("'row'", "2 of its 5", "subsample=None", "mcmc.SGLD", "test_ragged.py"):
        assert word in str(error.value)


@pytest.mark.slow
def test_calibration_leaves_padding_out():
    @ppl.model
    def levels(table):
        @ppl.plate("unit", table)
        def _(rows):
            a = ppl.sample("a", dist.Normal(0.0, 1.0))
            ppl.plate("obs", lambda row: ppl.sample("y", dist.Normal(a + row["x"], 1.0)), rows)

    codes, x = np.array([4, 1, 1, 0, 2, 3]), np.zeros(6)
    result = sbc(levels(ppl.ragged(codes, x=x)).condition(y=x), mcmc.NUTS(), replications=64, draws=15, seed=2)
    assert sorted(result.labels) == ["a[0]", "a[1]", "a[2]", "a[3]", "a[4]", "log_likelihood"]
    assert result.passes(1e-3)


def test_draws_of_dawid_skene_agree_with_quadrature():
    item, worker = np.array([2, 0, 1, 0, 2, 3, 2, 1]), np.array([0, 2, 1, 1, 2, 0, 1, 0])
    vote = np.array([1, 0, 1, 0, 1, 0, 0, 1])
    right = np.array([0.8, 0.7, 0.9])  # probability that a worker tells the class

    @ppl.model
    def model(table):
        share = ppl.sample("share", dist.Beta(2.0, 2.0))

        @ppl.plate("item", table)
        def _(rows):
            told = jnp.where(jnp.arange(2)[:, None] == 1, rows["right"], 1 - rows["right"])  # of a 1, by true class
            votes = dist.Bernoulli(told).mask(rows.mask).to_event(1)
            weights = jnp.stack([1 - share, share])
            ppl.sample("vote", dist.mixture(weights, votes), dims={"row": rows})
            seen = rows.sum(jnp.where(rows["vote"] == 1, jnp.log(told), jnp.log1p(-told)), axis=1)
            ppl.record("class", jax.nn.softmax(jnp.log(weights) + seen)[1])

    program = model(ppl.ragged(item, right=right[worker], vote=vote)).condition(vote=vote)
    fit = infer(program, mcmc.NUTS(), chains=4, warmup=200, draws=500, seed=5, progress=False)
    share = np.linspace(0, 1, 2001)[1:-1]
    told = np.where(vote == 1, right[worker], 1 - right[worker])
    one = np.array([np.prod(told[item == i]) for i in range(4)])
    zero = np.array([np.prod(1 - told[item == i]) for i in range(4)])
    each = share[:, None] * one + (1 - share[:, None]) * zero
    weight = share * (1 - share) * each.prod(axis=1)
    weight /= weight.sum()
    expected = weight @ (share[:, None] * one / each)
    # five means with |z| < 4.5: fails by chance less than once in 10^4 seeds
    found = fit.summary(names=["share", "class"])
    error = np.abs(found["mean"] - np.array([weight @ share, *expected]))
    assert np.all(error < 4.5 * found["mcse_mean"])
    assert fit.log_likelihood["vote"].dims == ("chain", "draw", "item")
    assert fit.posterior_predictive["vote"].dims == ("chain", "draw", "row")
    s = fit.posterior["share"].values[..., None]
    np.testing.assert_allclose(fit.log_likelihood["vote"].values, np.log(s * one + (1 - s) * zero), atol=1e-9)
