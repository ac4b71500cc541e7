"""Finite sites that a kernel moves: the whole way from a program to labelled integers, predictions and files."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import infer, mcmc
from ppl.inference.core import as_density

pytestmark = pytest.mark.standard_promotion

NAMES = np.array(["ann", "bob", "cyd", "dan"])
SEEN = np.array([2, 0, 1, 0])


@ppl.model
def census(names):
    """Who exists, among those who were seen so many times of three; three possible chances of being seen."""
    chance = ppl.sample("chance", dist.DiscreteUniform(1, 3))
    share = ppl.sample("share", dist.Categorical(jnp.array([0.3, 0.7])))

    @ppl.plate("person", 4, coords=names)
    def person(i):
        here = ppl.sample("here", dist.Bernoulli(0.4 + 0.3 * share))
        ppl.sample("seen", dist.Binomial(3, here * chance / 5.0))


def program():
    return census(tuple(NAMES.tolist())).condition(seen=SEEN)


def exact():
    """Posterior means of here, chance and share by enumeration."""
    rows, weights = [], []
    for chance, share, *here in itertools.product((1, 2, 3), (0, 1), *[(0, 1)] * 4):
        weight = (1 / 3) * (0.3, 0.7)[share]
        for h, s in zip(here, SEEN, strict=True):
            p, q = 0.4 + 0.3 * share, h * chance / 5.0
            weight *= (p if h else 1 - p) * {0: 1, 1: 3, 2: 3}[s] * q**s * (1 - q) ** (3 - s)
        rows.append([*here, chance, share])
        weights.append(weight)
    return np.array(weights) / sum(weights) @ np.array(rows)


@pytest.fixture(scope="module")
def fit():
    with jax.numpy_dtype_promotion("standard"):
        return infer(program(), mcmc.Gibbs(), chains=4, warmup=50, draws=1500, progress=False, seed=3)


def test_the_posterior_is_that_of_enumeration(fit):
    """Six means, |z| < 4.5 with Monte Carlo errors of their own: false alarm below 1e-4."""
    from ppl.inference import diagnostics

    parts = [fit.values["here"], *(fit.values[name][..., None] for name in ("chance", "share"))]
    draws = np.concatenate(parts, axis=2)
    error = diagnostics.mcse_mean(draws.astype(float))
    off = np.abs(draws.mean((0, 1)) - exact())
    assert np.all(off[[0, 2]] < 1e-12)  # they were seen, and so exist
    assert np.all(off[[1, 3, 4, 5]] < 4.5 * error[[1, 3, 4, 5]])


def test_finite_sites_are_labelled_integers(fit):
    assert fit.posterior["here"].dims == ("chain", "draw", "person")
    assert fit.posterior["here"].dtype.kind == "i" and list(fit.posterior["here"]["person"].values) == list(NAMES)
    assert set(np.unique(fit.values["chance"])) == {1, 2, 3}
    assert fit.labels[-4:] == [f"here[{i}]" for i in range(4)]
    assert any("kept as codes" in line for line in fit.manifest["plan"])


def test_summaries_and_warnings_bear_codes_that_never_change(fit):
    assert fit.warnings() == []
    table = fit.summary()
    assert table["here[ann]"]["mean"] == 1.0 and table["here[ann]"]["sd"] == 0.0
    assert "nan" not in str(table)


def test_what_is_asked_of_a_fit_works_with_codes(fit):
    assert fit.log_likelihood["seen"].shape == (4, 1500, 4)
    np.testing.assert_allclose(fit.log_prior["chance"].values, np.log(1 / 3))
    assert np.isfinite(fit.log_prior["here"].values).all()
    predicted = fit.predict(names=["seen"], draws=50)["seen"].values
    kept = np.asarray(fit.values["here"])[:, np.linspace(0, 1499, 50).round().astype(int)]
    assert np.all(predicted[kept == 0] == 0) and predicted.max() > 0
    from ppl.inference import criticism

    assert np.isfinite(criticism.loo(fit).elpd)


def test_runs_are_resumed_and_files_are_read_bit_for_bit(tmp_path, fit):
    engine = mcmc.Chains(mcmc.Gibbs(), chains=2, warmup=20, draws=60)
    whole = infer(program(), engine, seed=5, progress=False)
    with pytest.raises(TimeoutError):
        infer(program(), engine, seed=5, progress=False, path=tmp_path / "run", time_budget=1e-9)
    again = infer.resume(tmp_path / "run", program(), progress=False)
    np.testing.assert_array_equal(again.draws.positions, whole.draws.positions)
    opened = infer.open(tmp_path / "run", program())
    assert opened.density.finite == (3, 2, 2, 2, 2, 2) and opened.posterior["here"].dtype.kind == "i"
    whole.save(tmp_path / "fit.zarr")
    from ppl.inference import load

    loaded = load(tmp_path / "fit.zarr", program=program())
    assert loaded.density.finite == opened.density.finite
    np.testing.assert_array_equal(loaded.values["here"], whole.values["here"])


def test_starting_values_of_finite_sites_are_taken_as_they_are():
    values = {"chance": 2, "share": 1, "here": np.array([1, 0, 1, 1])}
    engine = mcmc.Chains(mcmc.Gibbs(), chains=2, warmup=0, draws=1)
    from ppl.inference.subject import make_subject, starts

    subject = make_subject(program(), codes=("chance", "share", "here"))
    z = starts(subject, values, 2, seed=0)
    np.testing.assert_array_equal(z, np.tile([1.0, 1.0, 1.0, 0.0, 1.0, 1.0], (2, 1)))
    assert infer(program(), engine, init=values, progress=False).draws.positions.shape == (2, 1, 6)


@ppl.model
def mixed():
    k = ppl.sample("k", dist.Categorical(jnp.array([0.2, 0.5, 0.3])))
    x = ppl.sample("x", dist.Normal(2.0 * k, 1.0))
    j = ppl.sample("j", dist.Bernoulli(0.3))
    ppl.sample("y", dist.Normal(x + j, 0.5))


def test_only_what_a_kernel_moves_is_kept_and_the_rest_is_summed():
    """k is drawn, j is summed; the mean of x by enumeration of both (|z| < 4.5)."""
    kernel = mcmc.Cycle(mcmc.Block("k", mcmc.Gibbs()), mcmc.Block("x", mcmc.Exact()))
    with pytest.raises(ppl.ModelError, match=r"(?s)no exact conditional of 'x'"):  # a mixture, with j summed out
        infer(mixed().condition(y=1.0), kernel, progress=False)
    kernel = mcmc.Cycle(mcmc.Block(["k", "j"], mcmc.Exact()), mcmc.Block("x", mcmc.Exact()))
    fit = infer(mixed().condition(y=1.0), kernel, chains=4, warmup=20, draws=1000, progress=False)
    top = bottom = 0.0
    for k, j in itertools.product(range(3), range(2)):
        spread = np.sqrt(1.25)
        weight = (0.2, 0.5, 0.3)[k] * (0.7, 0.3)[j] * np.exp(-0.5 * ((1.0 - 2 * k - j) / spread) ** 2)
        top, bottom = top + weight * (2 * k + (1.0 - j - 2 * k) / 1.25), bottom + weight
    row = fit.summary()["x"]
    assert abs(row["mean"] - top / bottom) < 4.5 * row["mcse_mean"]


def test_kernels_of_real_coordinates_refuse_codes():
    density = as_density(lambda z: -0.5 * z[0] ** 2, 2, (3,))
    for kernel in (mcmc.NUTS(), mcmc.Cycle(mcmc.Gibbs(), mcmc.HMC())):
        with pytest.raises(ValueError, match=r"last 1 of this density's coordinates are codes .*with 3 states"):
            infer(density, kernel, progress=False)
    with pytest.raises(ValueError, match="no part of Gibbs updates 0"):
        infer(density, mcmc.Gibbs(), progress=False)


@ppl.model
def simulated():
    w = ppl.sample("w", dist.Beta(2.0, 3.0))

    @ppl.plate("row", 3)
    def rows(i):
        k = ppl.sample("k", dist.Bernoulli(w))
        ppl.sample("y", dist.Normal(1.5 * k, 1.0))

    c = ppl.sample("c", dist.Categorical(jnp.array([0.2, 0.5, 0.3])))
    ppl.sample("x", dist.Normal(1.0 * c, 1.0))


@pytest.mark.slow
@pytest.mark.parametrize("codes", [mcmc.Gibbs(), mcmc.Exact(), mcmc.LocallyInformed(flips=4)], ids=str)
def test_ranks_of_finite_sites_are_uniform_over_simulated_data(codes):
    """Simulation-based calibration, ties broken at random; false alarm 1e-3 each."""
    from ppl.inference.calibration import sbc

    parts = [mcmc.Block(name, codes) for name in ("k", "c")]  # k and c share nothing: exact laws one by one
    kernel = mcmc.Cycle(*parts, mcmc.Block("w", mcmc.Exact()))
    result = sbc(simulated(), kernel, observe=("y", "x"), replications=1500, draws=19, warmup=20, thin=4)
    assert result.passes(1e-3), str(result)
