"""Predictions over ragged tables: values in the table's order, chains of groups that go on, pieces of all of it."""

from __future__ import annotations

import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import infer
from tests.inference.engines import Gaussian

pytestmark = pytest.mark.standard_promotion


@ppl.model
def panel(table):
    drift = ppl.sample("drift", dist.Normal(0.0, 1.0))

    @ppl.plate("firm", table)
    def firm(rows):
        def step(state, row):
            state = ppl.sample("state", dist.Normal(state + drift * row["policy"], 0.1))
            ppl.sample("growth", dist.Normal(state, 0.1))
            return state

        ppl.markov("year", step, init=0.0, xs=rows)


def table(firms, policy):
    return ppl.ragged(firms, policy=np.asarray(policy, float), labels=["a", "b"])


def fit_panel():
    program = panel(table(["a", "b", "b", "a", "b"], [1.0, 2.0, 3.0, 4.0, 5.0]))
    return infer(program.condition(growth=np.arange(5.0)), Gaussian(draws=100), progress=False)


def test_a_ragged_panel_goes_on_in_every_group():
    fit = fit_panel()
    assert fit.values["state"].shape == (4, 100, 5)
    # firm a has rows 0 and 3 in the fit, b has 1, 2 and 4; the new table is sorted by firm, with one more year each
    policy = [1.0, 4.0, 10.0, 2.0, 3.0, 5.0, 20.0]
    out = fit.predict(panel(table(["a"] * 3 + ["b"] * 4, policy)), names=["state", "growth"])
    np.testing.assert_allclose(out["state"].values[..., [0, 1, 3, 4, 5]], fit.values["state"][..., [0, 3, 1, 2, 4]])
    np.testing.assert_array_equal(out["growth"].values[0, 0, [0, 1, 3, 4, 5]], [0.0, 3.0, 1.0, 2.0, 4.0])
    before, drift = fit.values["state"][..., [3, 4]], fit.values["drift"][..., None]
    noise = ((out["state"].values[..., [2, 6]] - before - drift * [10.0, 20.0]) / 0.1).ravel()
    # 800 standard normals, |z| < 4: false alarm 1.3e-4
    assert abs(noise.mean()) * np.sqrt(noise.size) < 4 and abs((noise**2).mean() - 1) * np.sqrt(noise.size / 2) < 4
    with pytest.raises(ppl.ModelError, match="no row 2 of group 'b' in the new program"):
        fit.predict(panel(table(["a"] * 3 + ["b"] * 2, np.ones(5))))


def test_a_ragged_plate_is_streamed_in_the_order_of_its_table(tmp_path):
    fit = fit_panel()
    whole = fit.predict(names=["state", "growth", "drift"])
    np.testing.assert_array_equal(whole["state"], fit.values["state"])
    store = fit.predict(names=["state", "growth", "drift"], path=tmp_path / "r.zarr")
    mean = fit.predict(names=["state", "growth", "drift"], reduce="mean")
    for name in ("state", "growth", "drift"):
        np.testing.assert_allclose(store[name], whole[name], rtol=1e-12)
        np.testing.assert_allclose(mean[name], whole[name].mean(("chain", "draw")), rtol=1e-10, atol=1e-12)
