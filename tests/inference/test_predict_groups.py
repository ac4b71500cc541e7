"""Unseen groups, Gaussian processes at new inputs and gaps, against closed forms given the posterior draws."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import infer
from ppl.models.varying_slopes import varying_slopes
from tests.inference.engines import Gaussian

pytestmark = pytest.mark.standard_promotion


def assert_standard(noise):
    """Standard normals by mean and variance, |z| < 4 each: false alarm 1.3e-4 a call; seeds are fixed."""
    assert abs(noise.mean()) * np.sqrt(noise.size) < 4
    assert abs((noise**2).mean() - 1) * np.sqrt(noise.size / 2) < 4


def test_an_unseen_county_equals_the_population_by_hand():
    """Given a draw, (y[1], y[2]) of a new county is N((1, x) beta, (1, x) D L L' D (1, x)' + sigma^2 I)."""
    x, group = np.array([0.0, 1.0, 0.0, 1.0, 0.0, 1.0]), np.array([0, 0, 1, 1, 2, 2])
    scales = np.array([1.0, 1.0])
    program = varying_slopes(group, x, ("a", "b", "c"), np.zeros(2), scales)
    fit = infer(program.condition(y=np.zeros(6)), Gaussian(sd=0.3, draws=1000), progress=False)
    new_x = np.array([0.5, 2.0, 1.0, -1.0])
    new = varying_slopes(np.array([1, 1, 0, 2]), new_x, ("c", "new", "a"), np.zeros(2), scales)
    with pytest.warns(UserWarning, match="'z' is drawn from its population for the new labels new$"):
        out = fit.predict(new, names=["b", "y"], seed=2)
    # the counties that are known have their draws, whatever their place
    for label, place in (("a", 0), ("c", 2)):
        np.testing.assert_allclose(out["b"].sel(group=label), fit.values["b"][:, :, place], rtol=1e-12)
    v = {name: value.reshape(-1, *value.shape[2:]) for name, value in fit.values.items()}
    y = out["y"].values.reshape(-1, 4)
    design = np.stack([np.ones(2), new_x[:2]], axis=1)
    root = design @ (v["tau"][:, :, None] * v["L"])
    cov = root @ root.transpose(0, 2, 1) + v["sigma"][:, None, None] ** 2 * np.eye(2)
    residual = y[:, :2] - v["beta"] @ design.T
    white = np.linalg.solve(np.linalg.cholesky(cov), residual[..., None])[..., 0]
    assert_standard(white[:, 0])
    assert_standard(white[:, 1])
    assert abs((white[:, 0] * white[:, 1]).mean()) * np.sqrt(len(white)) < 4
    # the predictive distribution itself: the mixture's mean and variance by hand, within 4 Monte Carlo errors
    mean, variance = v["beta"] @ design.T, np.diagonal(cov, axis1=1, axis2=2)
    error = np.sqrt(y[:, :2].var(0) / len(y))
    assert np.all(abs(y[:, :2].mean(0) - mean.mean(0)) < 4 * error)
    spread = (y[:, :2] - mean.mean(0)) ** 2
    exact = variance.mean(0) + mean.var(0)
    assert np.all(abs(spread.mean(0) - exact) < 4 * spread.std(0) / np.sqrt(len(y)))
    # observations of known counties are their lines with noise
    known = v["b"][:, [2, 0]]
    assert_standard(((y[:, 2:] - known[..., 0] - known[..., 1] * new_x[2:]) / v["sigma"][:, None]).ravel())


@ppl.model
def process(x):
    scale = ppl.sample("scale", dist.LogNormal(0.0, 0.3))
    cov = scale**2 * jnp.exp(-0.5 * (x[:, None] - x) ** 2) + 0.01 * jnp.eye(len(x))
    ppl.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), cov), dims="place")


def test_a_gaussian_process_at_new_inputs_is_drawn_given_the_data():
    old, new, y = np.array([0.0, 1.0, 2.0]), np.array([0.5, 4.0]), np.array([0.3, 1.0, -0.5])
    fit = infer(process(old).condition(y=y), Gaussian(sd=0.3, draws=500), progress=False)
    with pytest.raises(ppl.ModelError, match="one joint vector"):
        fit.predict(process(np.append(old, new)))
    both = process(np.append(old, new)).condition(y=np.append(y, [np.nan, np.nan]), missing="marginalize")
    out = fit.predict(both, names=["y"])["y"].values.reshape(-1, 5)
    np.testing.assert_array_equal(out[:, :3], np.broadcast_to(y, (2000, 3)))
    x, scale = np.append(old, new), fit.values["scale"].reshape(-1, 1, 1)
    cov = scale**2 * np.exp(-0.5 * (x[:, None] - x) ** 2) + 0.01 * np.eye(5)
    gain = np.linalg.solve(cov[:, :3, :3], cov[:, :3, 3:]).transpose(0, 2, 1)
    root = np.linalg.cholesky(cov[:, 3:, 3:] - gain @ cov[:, :3, 3:])
    white = np.linalg.solve(root, (out[:, 3:] - gain @ y)[..., None])[..., 0]
    assert_standard(white.ravel())
    assert abs((white[:, 0] * white[:, 1]).mean()) * np.sqrt(len(white)) < 4


@ppl.model
def readings():
    mu = ppl.sample("mu", dist.Normal(0.0, 1.0))

    @ppl.plate("row", 4)
    def _():
        y = ppl.sample("y", dist.Normal(mu, 1.0))
        ppl.sample("w", dist.Normal(2.0 * y, 1e-6))


def test_imputed_gaps_are_the_posterior_draws_and_what_reads_them_follows():
    y = np.array([0.3, np.nan, 1.0, np.nan])
    program = readings().condition(y=y, missing="impute").condition(w=np.zeros(4))
    fit = infer(program, Gaussian(draws=20), progress=False)
    out = fit.predict(names=["y", "w"])
    np.testing.assert_array_equal(out["y"][..., [1, 3]], fit.values["y_missing"])
    np.testing.assert_array_equal(out["y"][..., [0, 2]], np.broadcast_to(y[[0, 2]], (4, 20, 2)))
    np.testing.assert_allclose(out["w"], 2 * out["y"], atol=1e-4)
    assert np.unique(fit.posterior_predictive["y"].values[..., 0]).size == 80  # replicated data are all new


def test_marginalised_gaps_are_drawn_given_the_parameters():
    @ppl.model
    def plain():
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        ppl.sample("y", dist.Normal(mu, 0.5).expand([3]))

    fit = infer(plain().condition(y=[1.0, None, 2.0], missing="marginalize"), Gaussian(draws=500), progress=False)
    out = fit.predict()["y"].values
    np.testing.assert_array_equal(out[..., [0, 2]], np.broadcast_to([1.0, 2.0], (4, 500, 2)))
    assert_standard((out[..., 1] - fit.values["mu"]).ravel() / 0.5)


def test_a_forecast_goes_on_from_imputed_steps():
    @ppl.model
    def chain(steps):
        def step(y, _):
            return ppl.sample("y", dist.Normal(0.5 * y, 1e-3))

        ppl.markov("time", step, init=0.0, xs=steps)

    program = chain(3).condition(y=[1.0, 2.0, np.nan], missing="impute")
    fit = infer(program, Gaussian(mean=5.0, draws=20), progress=False)
    out = fit.predict(horizon=1, past=True)["y"].values
    np.testing.assert_array_equal(out[..., 2], fit.values["y_missing"][..., 0])
    np.testing.assert_allclose(out[..., 3], 0.5 * out[..., 2], atol=0.01)
