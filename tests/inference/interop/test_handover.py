"""Our densities in the hands of BlackJAX and nutpie, and their draws as labelled fits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference.interop import from_function, to_blackjax, to_nutpie

pytestmark = pytest.mark.standard_promotion

SD = np.array([1.0, 2.0, 0.5, 1.5])
Y = np.array([0.5, -1.0, 2.0, 1.0])
ROWS = ["a", "b", "c", "d"]


@ppl.model
def mean_of(sd):
    mu = ppl.sample("mu", dist.Normal(0.0, 3.0))
    ppl.record("double", 2.0 * mu)

    @ppl.plate("row", sd, coords=ROWS)
    def row(s):
        shift = ppl.sample("shift", dist.LogNormal(0.0, 0.1))
        ppl.sample("y", dist.Normal(mu, s))
        return shift


PROGRAM = mean_of(SD).condition(y=Y)
PRECISION = (1 / SD**2).sum() + 1 / 9
MEAN, SPREAD = (Y / SD**2).sum() / PRECISION, PRECISION**-0.5


def test_starting_points_are_admissible_and_keyed():
    first, again = to_blackjax(PROGRAM, chains=3, seed=1), to_blackjax(PROGRAM, chains=3, seed=1)
    assert first.position.shape == (3, 5)
    np.testing.assert_array_equal(first.position, again.position)
    assert np.isfinite(jax.vmap(first.log_density)(first.position)).all()
    assert to_blackjax(PROGRAM).position.shape == (5,)
    assert first.labels == ["mu", "shift[0]", "shift[1]", "shift[2]", "shift[3]"]


def test_somebody_elses_draws_become_a_fit():
    handed = to_blackjax(PROGRAM)
    z = np.random.default_rng(0).normal(size=(2, 30, 5))
    fit = handed.fit(z, {"lp": np.zeros((2, 30))}, sampler="mine")
    assert fit.manifest["engine"] == "mine"
    assert fit.posterior["shift"].dims == ("chain", "draw", "row")
    np.testing.assert_allclose(fit.values["shift"], np.exp(z[..., 1:] * 1.0), rtol=1e-12)
    np.testing.assert_allclose(fit.values["double"], 2 * z[..., 0], rtol=1e-12)
    assert fit.log_likelihood["y"].shape == (2, 30, 4)
    assert handed.fit(z[0]).draws.positions.shape == (1, 30, 5)
    with pytest.raises(ValueError, match="not \\(\\[chains,\\] draws, 5\\)"):
        handed.fit(z[..., :2])


def test_a_density_without_gradient_can_still_be_handed_over():
    density = from_function(lambda v: ppl.external("sim", lambda x: -x * x, v["x"]), {"x": 0.0})
    assert np.isfinite(to_blackjax(density, chains=2).position).all()
    with pytest.raises(ppl.ModelError, match="nutpie follows the gradient"):
        pytest.importorskip("nutpie")
        to_nutpie(density)


@pytest.mark.filterwarnings("ignore")
def test_blackjax_samples_our_density():
    blackjax = pytest.importorskip("blackjax", reason="blackjax is not installed")
    handed = to_blackjax(PROGRAM, seed=3)

    @jax.jit
    def run(key, density, position):
        sampler = blackjax.hmc(density, 0.25, 0.3 * jnp.ones(5), 12)

        def step(state, key):
            state, info = sampler.step(key, state)
            return state, (state.position, info.acceptance_rate)

        return jax.lax.scan(step, sampler.init(position), jax.random.split(key, 4000))[1]

    positions, acceptance = run(jax.random.key(0), handed.log_density, handed.position)
    fit = handed.fit(np.asarray(positions)[500:], {"acceptance_rate": np.asarray(acceptance)[500:]}, "BlackJAX")
    row = fit.summary()["mu"]
    assert abs(row["mean"] - MEAN) < 4 * row["mcse_mean"]
    assert abs(row["sd"] / SPREAD - 1) < 4 / np.sqrt(row["ess_bulk"] / 4)


@pytest.mark.filterwarnings("ignore")
def test_nutpie_samples_our_program_with_its_labels():
    nutpie = pytest.importorskip("nutpie", reason="nutpie is not installed")
    model = to_nutpie(PROGRAM, seed=1)
    assert model.n_dim == 5
    trace = nutpie.sample(model, draws=400, tune=200, chains=2, cores=2, seed=1, progress_bar=False)
    posterior = trace.posterior
    assert posterior["shift"].dims == ("chain", "draw", "row")
    assert posterior.coords["row"].values.tolist() == ROWS
    np.testing.assert_allclose(posterior["double"], 2 * posterior["mu"], rtol=1e-12)
    draws = posterior["mu"].values
    from ppl.inference import diagnostics

    error = float(diagnostics.mcse_mean(draws[..., None])[0])
    assert abs(draws.mean() - MEAN) < 4.5 * error
    shift = np.log(posterior["shift"].values)
    assert abs(shift.std() / 0.1 - 1) < 0.2
