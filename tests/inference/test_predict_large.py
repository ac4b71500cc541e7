"""Predictions in a bounded part of memory: stores and statistics equal the draws in memory, and memory stays flat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import infer
from ppl.inference import streams as module
from tests.inference.engines import Gaussian

pytestmark = pytest.mark.standard_promotion

ROOT = Path(__file__).resolve().parents[2]
N = 37


@ppl.model
def mixed(x, codes, labels, steps):
    """Plates of which parts can be run, a plate that others read, a chain, scalars, and a vector."""
    a = ppl.sample("a", dist.Normal(0.0, 1.0))

    @ppl.plate("group", coords=labels)
    def theta():
        return ppl.sample("theta", dist.Normal(a, 1.0))

    @ppl.plate("row", codes, x)
    def _(code, x):
        mean = ppl.record("mean", theta[code] + a * x)
        ppl.sample("y", dist.Normal(mean, 0.5).expand([2]), dims="side")
        ppl.sample("n", dist.Bernoulli(0.3))

    ppl.markov("time", lambda c, _: ppl.sample("z", dist.Normal(c, 1.0)), init=a, xs=steps)
    ppl.sample("v", dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3)))
    ppl.sample("s", dist.Normal(a, 1.0))


def fit_mixed(draws=30):
    program = mixed(np.linspace(0, 1, N), np.arange(N) % 3, ("p", "q", "r"), 30)
    found = program.condition({name: program.sample(0)[name] for name in ("y", "n", "v", "s")})
    return infer(found, Gaussian(draws=draws, chains=2), progress=False)


EVERY = ["a", "theta", "mean", "y", "n", "z", "v", "s"]


@pytest.fixture(scope="module")
def mixed_fit():
    fit = fit_mixed()
    return fit, fit.predict(names=EVERY, seed=3)


@pytest.fixture
def small(monkeypatch):
    """Pieces much smaller than the rows and the chain, of sizes that do not divide theirs."""
    monkeypatch.setattr(module, "TEMPORARIES", 1)
    monkeypatch.setattr("ppl.inference.predictions.CHUNK", 3000)
    return 40_000


def test_a_plate_that_nothing_reads_is_run_in_parts_and_no_other(mixed_fit):
    fit, _ = mixed_fit
    from ppl.inference.predict import planned

    plan, _ = planned(fit, None, EVERY, 0, None, None, False)
    parts = {p.simulation.names: (p.part.plate, p.part.site) for p in module.pieces(plan.simulation)}
    assert parts[("mean", "y", "n")] == ("row", None)
    assert parts[("theta",)] == (None, "theta") and parts[("z",)] == (None, "z") and parts[("v",)] == (None, "v")
    assert parts[("a", "s")] == (None, None)


def test_statistics_equal_those_of_the_draws(mixed_fit, small):
    fit, whole = mixed_fit
    kinds = ["mean", "sd", "median", "min", "max"]
    out = fit.predict(names=EVERY, seed=3, reduce=kinds, memory=small)
    assert out["y"].dims == ("statistic", "row", "side") and out["theta"].coords["group"].values.tolist() == list("pqr")
    flat = whole.stack(sample=("chain", "draw"))
    for name in EVERY:
        draws = np.moveaxis(flat[name].values, -1, 0)
        exact = [draws.mean(0), draws.std(0, ddof=1), np.median(draws, 0), draws.min(0), draws.max(0)]
        np.testing.assert_allclose(out[name], np.stack(exact), rtol=1e-10, atol=1e-12, err_msg=name)


def test_quantiles_and_functions_are_exact(mixed_fit, small):
    fit, whole = mixed_fit
    out = fit.predict(names=["y", "s"], seed=3, reduce=(0.1, 0.9), memory=small)
    assert out["y"].dims == ("quantile", "row", "side") and out["quantile"].values.tolist() == [0.1, 0.9]
    np.testing.assert_allclose(out["y"], whole["y"].quantile([0.1, 0.9], ("chain", "draw")), rtol=1e-10)
    np.testing.assert_allclose(out["s"], whole["s"].quantile([0.1, 0.9], ("chain", "draw")), rtol=1e-10)
    assert fit.predict(names=["y", "s"], reduce="quantiles", memory=small)["quantile"].size == 5
    share = fit.predict(names=["y", "s"], seed=3, reduce=lambda x: (x > 1.0).mean(0), memory=small)
    np.testing.assert_allclose(share["y"], (whole["y"] > 1.0).mean(("chain", "draw")), rtol=1e-12)
    assert share["y"].dims == ("row", "side") and share["s"].dims == ()
    pair = fit.predict(names=["y", "s"], reduce=lambda x: np.stack([x.min(0), x.max(0), x[0]]), memory=small)
    assert pair["y"].dims == ("reduce_dim_0", "row", "side") and pair["s"].dims == ("reduce_dim_0",)
    with pytest.raises(ValueError, match="keep the others at the end, here"):
        fit.predict(names=["y", "s"], reduce=lambda x: x.mean(), memory=small)


def test_a_store_has_the_draws_and_their_labels(mixed_fit, small, tmp_path):
    fit, whole = mixed_fit
    out = fit.predict(names=EVERY, seed=3, path=tmp_path / "draws.zarr", memory=small)
    assert list(out.data_vars) == EVERY and not any(v.variable._in_memory for v in out.data_vars.values())
    for name in EVERY:
        assert out[name].dims == whole[name].dims
        np.testing.assert_allclose(out[name], whole[name], rtol=1e-10, err_msg=name)
    assert out["theta"].sel(group="q").shape == (2, 30) and out.attrs["prediction_seed"] == 3
    with pytest.raises(FileExistsError, match="draws.zarr exists"):
        fit.predict(path=tmp_path / "draws.zarr")


def test_forecasts_and_scoped_names_are_streamed(tmp_path, small):
    @ppl.model
    def walk(steps):
        def step(x, _):
            x = ppl.sample("x", dist.Normal(x, 1.0))
            ppl.sample("y", dist.Normal(x, 1.0))
            return x

        ppl.markov("time", step, init=0.0, xs=steps)

    @ppl.model
    def outer(steps):
        ppl.call("in", walk(steps))

    fit = infer(outer(5).condition({"in/y": np.zeros(5)}), Gaussian(draws=20), progress=False)
    whole = fit.predict(horizon=3)
    store = fit.predict(horizon=3, path=tmp_path / "f.zarr", memory=small)
    assert store["in/y"].dims == ("chain", "draw", "in/time") and store["in/time"].values.tolist() == [5, 6, 7]
    np.testing.assert_allclose(store["in/y"], whole["in/y"], rtol=1e-12)
    mean = fit.predict(horizon=3, reduce="mean", memory=small)
    np.testing.assert_allclose(mean["in/y"], whole["in/y"].mean(("chain", "draw")), rtol=1e-10)


def test_options_that_do_not_go_together_are_errors(mixed_fit, tmp_path):
    fit, _ = mixed_fit
    with pytest.raises(ValueError, match="not both"):
        fit.predict(path=tmp_path / "x", reduce="mean")
    with pytest.raises(ValueError, match="memory= belongs to"):
        fit.predict(memory=1)
    for wrong in ("average", [], [0.5, 2.0], ["mean", 0.5], 3):
        with pytest.raises(ValueError, match="reduce is one or several"):
            fit.predict(reduce=wrong)
    with pytest.raises(MemoryError, match=r"all 60 draws of one element of .* or fewer draws="):
        fit.predict(reduce="mean", memory=100)


def test_a_result_that_memory_cannot_hold_is_refused_with_the_other_ways(mixed_fit, monkeypatch):
    fit, _ = mixed_fit
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    with pytest.raises(MemoryError, match=r"predict\(reduce='mean'\), or for a store .*path="):
        fit.predict()


# ---------------------------------------------------------------------------------------- memory, in another process

PROGRAM = """
import json, resource, sys, time
import numpy as np
import jax, ppl, xarray, zarr
from ppl import dist
from ppl.inference import infer
from tests.inference.engines import Gaussian

@ppl.model
def line(x):
    a = ppl.sample("a", dist.Normal(0.0, 1.0))
    b = ppl.sample("b", dist.Normal(0.0, 1.0))

    @ppl.plate("row", x)
    def _(x):
        ppl.sample("y", dist.Normal(a + b * x, 0.5))

rows, draws, budget, what, folder = *map(int, sys.argv[1:4]), sys.argv[4], sys.argv[5]
fit = infer(line(np.zeros(3)).condition(y=np.zeros(3)), Gaussian(mean=[1.0, 2.0], sd=0.1, chains=4, draws=draws // 4),
            progress=False)
x = np.linspace(-1.0, 1.0, rows)
options = {"path": folder + "/draws.zarr"} if what == "path" else {"reduce": what}
# what compiling and importing take is the same for any size
fit.predict(line(x[:100]), **{**options, **({"path": folder + "/first.zarr"} if what == "path" else {})})
program = line(x)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, start = peak(), time.perf_counter()
out = fit.predict(program, memory=budget, **options)
seconds, took = time.perf_counter() - start, peak() - before
y = out["y"].isel(row=[0, rows // 2, rows - 1]).values
y = y.mean((0, 1)) if what == "path" else y if y.ndim == 1 else y[2]
a, b = fit.values["a"].mean(), fit.values["b"].mean()
error = np.abs(y - a - b * x[[0, rows // 2, rows - 1]])
print(json.dumps({"took": took, "shape": out["y"].shape, "error": error.max(), "seconds": seconds, "peak": peak()}))
"""


def peak(rows: int, draws: int, budget: int, what: str, folder: Path) -> dict:
    command = [sys.executable, "-c", PROGRAM, str(rows), str(draws), str(budget), what, str(folder)]
    environment = {**os.environ, "JAX_ENABLE_X64": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("what", ["mean", pytest.param("path", marks=pytest.mark.slow)])
def test_memory_stays_within_the_budget(what, tmp_path):
    # the draws take 153 MiB, and some times that while they are computed; what else there is, such as the compiler's
    # memory for another shape, has some tens of MiB
    rows, draws, budget = 200_000, 100, 96 * 2**20
    found = peak(rows, draws, budget, what, tmp_path)
    assert found["took"] < budget, found
    assert found["error"] < 5 * 0.51 / np.sqrt(draws)
    assert found["shape"] == ([rows] if what == "mean" else [4, draws // 4, rows])


@pytest.mark.slow
def test_a_million_rows_and_four_thousand_draws_in_one_gibibyte(tmp_path):
    # 32 GB of draws; peak memory of the process beyond what a small prediction took
    found = peak(1_000_000, 4000, 2**30, "mean", tmp_path)
    print(found)
    assert found["took"] < 2**30, found
    assert found["shape"] == [1_000_000] and found["error"] < 5 * 0.51 / np.sqrt(4000)
