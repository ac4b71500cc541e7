"""Conditioning on the first steps of a chain: the others are marginalised exactly. Forecasts: test_forecast.py."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import infer
from tests.inference.engines import Gaussian

pytestmark = pytest.mark.standard_promotion

T, H = 4, 3
Y = np.array([0.3, -1.0, 2.0, 0.7])


@ppl.model
def walk(steps):
    rho = ppl.sample("rho", dist.Normal(0.0, 1.0))
    r = ppl.sample("r", dist.HalfNormal(1.0))

    def step(x, _):
        x = ppl.sample("x", dist.Normal(rho * x, 0.7))
        ppl.sample("y", dist.StudentT(5.0, x, r))
        return x

    ppl.markov("time", step, init=0.3, xs=steps)


@ppl.model
def autoregression(steps):
    """Two observed series that read each other's past, written as two sites."""
    rho = ppl.sample("rho", dist.Normal(0.0, 1.0))

    def step(past, _):
        y = ppl.sample("y", dist.Normal(rho * past[0] - 0.2 * past[1], 0.7))
        w = ppl.sample("w", dist.Normal(y - past[1], 0.5))
        return y, w

    ppl.markov("time", step, init=(0.3, 0.1), xs=steps)


def test_the_density_is_the_shorter_program_s_and_the_prior_of_the_other_states():
    values = {"rho": 0.4, "r": 0.9, "x": np.array([0.2, -0.4, 1.5, 0.5, 0.1, -0.3, 0.8])}
    prefix = walk(T + H).condition(y=Y)
    short = float(walk(T).condition(y=Y).log_prob({**values, "x": values["x"][:T]}))
    mean, x = 0.4 * values["x"][T - 1 : -1], values["x"][T:]
    tail = np.sum(-0.5 * ((x - mean) / 0.7) ** 2 - np.log(0.7) - 0.5 * np.log(2 * np.pi))
    np.testing.assert_allclose(float(prefix.log_prob(values)), short + tail, rtol=1e-12, atol=1e-10)
    density = ppl.compile(prefix)
    assert density.dim == 2 + T + H
    z = density.unconstrain(values)
    assert np.all(np.isfinite(jax.grad(lambda z: density(z))(z)))


def test_the_density_of_an_observed_autoregression_is_the_shorter_program_s():
    data = {"y": Y, "w": Y[::-1]}
    prefix, short = autoregression(T + H).condition(data), autoregression(T).condition(data)
    np.testing.assert_allclose(float(prefix.log_prob({"rho": 0.4})), float(short.log_prob({"rho": 0.4})), atol=1e-10)
    # the other site ends before this one: still exact; after it: it would read what is not known
    data = {"y": Y, "w": Y[:3]}
    with pytest.raises(ppl.ModelError, match="reads site 'w'"):
        autoregression(T + H).condition(data)


def test_integers_and_panels_may_be_known_for_the_first_steps():
    @ppl.model
    def counts(steps):
        @ppl.plate("unit", 2)
        def _():
            def step(x, _):
                x = ppl.sample("x", dist.Normal(x, 1.0))
                ppl.sample("n", dist.Poisson(2.0))
                return x

            ppl.markov("time", step, init=0.0, xs=steps)

    n = np.array([[1, 2, 3], [0, 5, 1]])
    factor = counts(5).condition(n=n).factors({"x": np.zeros((2, 5))})["n"]
    np.testing.assert_array_equal(factor[:, 3:], 0.0)
    np.testing.assert_allclose(factor[:, :3], counts(3).condition(n=n).factors({"x": np.zeros((2, 3))})["n"])


def test_what_is_read_beyond_the_prefix_is_refused():
    @ppl.model
    def driven(steps):
        def step(y, _):
            x = ppl.sample("x", dist.Normal(y, 1.0))
            return ppl.sample("y", dist.Normal(x, 1.0))

        ppl.markov("time", step, init=0.0, xs=steps)

    with pytest.raises(ppl.ModelError, match=r"(?s)latent 'x' reads site 'y'.*test_prefix.py:.*impute"):
        driven(T + H).condition(y=Y)
    assert driven(T + H).condition(y=Y, missing="impute").sites["y_missing"].shape == (H,)


def test_longer_values_other_axes_and_gaps_are_errors_as_before():
    with pytest.raises(ppl.ModelError, match=r"site 'y' has shape \(3,\)"):
        walk(3).condition(y=Y)
    with pytest.raises(ppl.ModelError, match=r"y\[time=1\] is"):
        walk(T + H).condition(y=[0.3, np.nan, 2.0])
    assert walk(T + H).condition(y=[0.3, np.nan, 2.0], missing="marginalize").sites["y"].kind == "observed"
    with pytest.raises(ppl.ModelError, match="shape"):
        walk(T + H).do(y=Y)


def test_prediction_goes_on_from_the_prefix():
    fit = infer(autoregression(T + H).condition(y=Y, w=Y), Gaussian(mean=0.5, sd=0.1, draws=200), progress=False)
    out = fit.predict(names=["y", "w"])
    np.testing.assert_array_equal(out["y"][..., :T], np.broadcast_to(Y, (4, 200, T)))
    y, w, rho = out["y"].values, out["w"].values, fit.values["rho"][..., None]
    noise = ((y[..., T:] - rho * y[..., T - 1 : -1] + 0.2 * w[..., T - 1 : -1]) / 0.7).ravel()  # 2400 standard normals
    assert abs(noise.mean()) * np.sqrt(noise.size) < 4 and abs((noise**2).mean() - 1) * np.sqrt(noise.size / 2) < 4
    again = fit.posterior_predictive["y"].values  # replicated data begin anew
    assert np.unique(again[..., 0]).size == 800
