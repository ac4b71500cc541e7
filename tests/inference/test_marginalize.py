"""Fits of programs whose finite sites are summed out: their values, labels, predictions and leave-one-out."""

from __future__ import annotations

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import infer, load, loop, mcmc
from ppl.inference.record import Recorder

pytestmark = pytest.mark.standard_promotion
ENGINE = mcmc.PooledHMC(chains=4, draws=250, max_draws=250)
Y = np.random.default_rng(4).normal([-2.0] * 9 + [2.0] * 6, 1.0)
NAMES = [f"row{i}" for i in range(len(Y))]


@ppl.model
def clusters(names):
    w = ppl.sample("w", dist.Beta(2.0, 2.0))
    low = ppl.sample("low", dist.Normal(-2.0, 1.0))
    high = ppl.sample("high", dist.Normal(2.0, 1.0))

    def row(_):
        k = ppl.sample("k", dist.Bernoulli(w))
        ppl.record("centre", jnp.where(k == 1, high, low))
        ppl.sample("y", dist.Normal(jnp.where(k == 1, high, low), 1.0))

    ppl.plate("row", row, len(names), coords=names)


@ppl.model
def by_hand(n):
    w = ppl.sample("w", dist.Beta(2.0, 2.0))
    low = ppl.sample("low", dist.Normal(-2.0, 1.0))
    high = ppl.sample("high", dist.Normal(2.0, 1.0))

    @ppl.plate("row", n)
    def row(_):
        weights, centres = jnp.stack([1.0 - w, w]), jnp.stack([low, high])
        ppl.sample("y", dist.mixture(weights, dist.Normal(centres, 1.0)))


@pytest.fixture(scope="module")
def fit():
    return infer(clusters(tuple(NAMES)).condition(y=Y), ENGINE, seed=5, progress=False)


@pytest.fixture(scope="module")
def hand():
    return infer(by_hand(len(Y)).condition(y=Y), ENGINE, seed=5, progress=False)


def test_the_posterior_has_the_summed_sites_with_dims_and_labels(fit):
    k = fit.posterior["k"]
    assert k.dims == ("chain", "draw", "row") and k.coords["row"].values.tolist() == NAMES
    assert k.dtype.kind == "i" and set(np.unique(k)) == {0, 1}
    low, high = (fit.posterior[n].values[..., None] for n in ("low", "high"))
    np.testing.assert_array_equal(fit.posterior["centre"], np.where(k == 1, high, low))
    assert any("summed exactly: k" in line for line in fit.manifest["plan"])


def test_draws_of_the_codes_have_the_exact_conditional_probabilities(fit):
    # 15 means of 1000 Bernoulli draws given z, |z| < 4.5: false alarm 1e-4.
    tables = fit.probabilities("k", draws=True)
    p, k = tables[..., 1], fit.values["k"]
    low, high, w = (fit.values[n][..., None] for n in ("low", "high", "w"))
    odds = w / (1 - w) * np.exp(-0.5 * (Y - high) ** 2 + 0.5 * (Y - low) ** 2)
    np.testing.assert_allclose(p, odds / (1 + odds), rtol=1e-10)
    z = (k - p).sum((0, 1)) / np.sqrt((p * (1 - p)).sum((0, 1)))
    assert np.abs(z).max() < 4.5
    table = fit.probabilities("k")
    assert table.dims == ("row", "k_state") and table.coords["k_state"].values.tolist() == [0, 1]
    np.testing.assert_allclose(table, tables.mean((0, 1)))


def test_the_pointwise_log_likelihood_is_that_of_the_mixture(fit, hand):
    import arviz as az

    low, high, w = (fit.values[n][..., None] for n in ("low", "high", "w"))
    expected = np.logaddexp(np.log1p(-w) - 0.5 * (Y - low) ** 2, np.log(w) - 0.5 * (Y - high) ** 2)
    expected = expected - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(fit.log_likelihood["y"], expected, rtol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours, theirs = az.loo(fit.to_arviz(), var_name="y"), az.loo(hand.to_arviz(), var_name="y")
    # two runs of 1000 draws: their difference is Monte Carlo error
    assert abs(ours.elpd_loo - theirs.elpd_loo) < 0.5


def test_the_summary_has_finite_numbers_for_codes_that_vary(fit):
    table = fit.summary()
    assert "k[row0]" in table.labels and np.isfinite(table["low"]["r_hat"])
    assert fit.to_dataframe().shape[0] == 1000


@pytest.mark.filterwarnings("ignore:'k' is drawn:UserWarning")
def test_predictions_use_the_codes(fit):
    centre = fit.predict(names=["centre"])["centre"]
    np.testing.assert_array_equal(centre, fit.posterior["centre"])
    new = fit.predict(clusters(("a", "b")), names=["k", "y"])
    # new rows have the weight w, not the codes of old rows: 2000 Bernoulli draws, |z| < 4.5
    w = fit.values["w"].reshape(-1)
    assert abs(float(new["k"].mean()) - w.mean()) < 4.5 * np.sqrt(0.25 / 2000)
    old = fit.predict(names=["y"])["y"]
    assert np.abs(old.mean(("chain", "draw")) - fit.posterior["centre"].mean(("chain", "draw"))).max() < 0.3


def test_saved_streamed_and_resumed_fits_have_the_same_codes(fit, tmp_path, monkeypatch):
    fit.save(tmp_path / "fit.zarr")
    again = load(tmp_path / "fit.zarr")
    np.testing.assert_array_equal(again.posterior["k"], fit.posterior["k"])
    streamed = infer(fit.program, ENGINE, seed=5, progress=False, path=tmp_path / "run")
    np.testing.assert_array_equal(streamed.draws.positions, fit.draws.positions)
    np.testing.assert_array_equal(streamed.posterior["k"], fit.posterior["k"])
    add, sampled = Recorder.add, []

    def crash(self, block):
        sampled.extend([block] if block.phase == "sampling" else [])
        if len(sampled) == 2:
            raise RuntimeError("crash")
        add(self, block)

    monkeypatch.setattr(loop, "FIRST_BLOCK", 50)
    monkeypatch.setattr(loop, "BLOCK_SECONDS", (-1.0, 1e9))
    monkeypatch.setattr(Recorder, "add", crash)
    with pytest.raises(RuntimeError, match="crash"):
        infer(fit.program, ENGINE, seed=5, progress=False, path=tmp_path / "crashed")
    monkeypatch.undo()
    resumed = infer.resume(tmp_path / "crashed", fit.program, progress=False)
    np.testing.assert_array_equal(resumed.draws.positions, fit.draws.positions)
    np.testing.assert_array_equal(resumed.posterior["k"], fit.posterior["k"])


def test_equal_positions_have_codes_of_their_own():
    from ppl.inference import groups

    density = ppl.compile(clusters(tuple(NAMES)).condition(y=Y * 0.0))

    class Source:
        program = None
        manifest = {"seed": 1}

    Source.density = density
    codes = groups.generated(Source, np.zeros((2, 500, density.dim)))["k"]
    # 2 x 500 draws of 15 codes at one position, probability 1/2 each: |z| < 4.5
    assert np.abs(codes.mean((0, 1)) - 0.5).max() < 4.5 * np.sqrt(0.25 / 1000)


@ppl.model
def grouped(groups, n):
    mu = ppl.sample("mu", dist.Normal(0.0, 1.0))

    @ppl.plate("group", groups)
    def group(_):
        k = ppl.sample("k", dist.Bernoulli(0.4))

        @ppl.plate("row", n)
        def row(_):
            ppl.sample("y", dist.Normal(mu + 1.5 * jnp.where(k == 1, 1.0, 0.0), 1.0))


def test_leaving_out_rows_and_whole_groups_agrees_with_quadrature():
    from scipy.special import logsumexp

    from ppl.inference import loo

    y = np.random.default_rng(8).normal(size=(6, 3)) + np.array([0, 0, 1.5, 0, 1.5, 0])[:, None]
    fit = infer(grouped(6, 3).condition(y=y), mcmc.PooledHMC(chains=4, draws=1000, max_draws=1000), seed=2,
                progress=False)  # fmt: skip
    mu = np.linspace(-4, 4, 801)[:, None, None]
    each = -0.5 * (y[..., None] - mu[..., None] - np.array([0.0, 1.5])) ** 2 - 0.5 * np.log(2 * np.pi)
    each = np.moveaxis(each, -1, 0)  # (state, mu, group, row)
    weights, prior = np.log([0.6, 0.4])[:, None, None], -0.5 * mu[:, 0, 0] ** 2

    def evidence(rows):
        groups = logsumexp(weights + (each * rows).sum(-1), axis=0)
        return logsumexp(prior + groups.sum(1))

    whole = evidence(np.ones((6, 3)))
    for unit, shape in ((None, (6, 3)), ("group", (6,))):
        ours = loo(fit, unit=unit).pointwise
        for place in np.ndindex(*shape):
            rows = np.ones((6, 3))
            rows[place] = 0.0
            # 4000 draws, importance weights of a scalar: Monte Carlo error below 0.01
            elpd = float(ours["elpd"].values[place])
            assert abs(elpd - (whole - evidence(rows))) < 0.05, (unit, place)
