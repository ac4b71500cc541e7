"""Coordinates of hierarchical effects in ``infer``: by hand under any engine, and through files."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import diagnostics, infer, load, mcmc


@ppl.model
def groups():
    """Centred, with a closed form given the scale: m ~ N(0, 1), s = exp(v), v ~ N(0, 0.5), y_j ~ N(theta_j, 1)."""
    m = ppl.sample("m", dist.Normal(0.0, 1.0))
    v = ppl.sample("v", dist.Normal(0.0, 0.5))

    @ppl.plate("group", 4)
    def group(_):
        theta = ppl.sample("theta", dist.Normal(m, jnp.exp(v)))
        ppl.sample("y", dist.Normal(theta, 1.0))


Y = np.array([-1.0, 0.0, 0.5, 3.0])


def exact():
    """E v, E m and E theta_j by quadrature over v: given v all is Gaussian."""
    v = np.linspace(-4, 4, 8001)
    variance = 1.0 + np.exp(2 * v)
    precision = 1.0 + 4.0 / variance
    m = Y.sum() / variance / precision
    log_weight = -0.5 * (v / 0.5) ** 2 - 2.0 * np.log(variance) - 0.5 * np.log(precision)
    log_weight += 0.5 * precision * m**2 - 0.5 * (Y**2).sum() / variance
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    share = np.exp(2 * v) / variance
    return weight @ v, weight @ m, weight @ (share[:, None] * Y + ((1 - share) * m)[:, None])


def agree(fit):
    v, m, theta = exact()
    draws = [fit.values["v"], fit.values["m"], *np.moveaxis(fit.values["theta"], -1, 0)]
    draws, mean = np.stack(draws, axis=-1), np.array([v, m, *theta])
    error = np.abs(draws.mean(axis=(0, 1)) - mean) / diagnostics.mcse_mean(draws)
    assert (error < 4.5).all(), error


def program():
    return groups().condition(y=Y)


def test_by_hand_under_nuts_and_through_files(tmp_path):
    engine = mcmc.Chains(mcmc.NUTS(), chains=4, warmup=300, draws=400)
    choice = {"theta": "noncentred"}
    fit = infer(program(), engine, seed=1, progress=False, reparameterize=choice, path=tmp_path / "run")
    agree(fit)
    z = fit.draws.positions
    theta = z[..., :1] + np.exp(z[..., 1:2]) * z[..., 2:]  # the vector holds standard effects
    np.testing.assert_allclose(fit.values["theta"], theta, rtol=1e-6, atol=1e-6)
    assert fit.manifest["reparameterize"] == choice
    fit.save(tmp_path / "fit.nc")
    for again in (infer.open(tmp_path / "run", program()), load(tmp_path / "fit.nc", program())):
        np.testing.assert_array_equal(again.draws.positions, z)
        drawn = again.predict(names=["theta"], seed=0)
        np.testing.assert_allclose(drawn["theta"].values, theta, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("choice", ["auto", "centred", {"theta": (0.9, Y)}])
def test_the_default_engine_with_any_choice(choice):
    fit = infer(program(), mcmc.PooledHMC(chains=8, draws=400, max_draws=400), seed=2, progress=False,
                reparameterize=choice)  # fmt: skip
    agree(fit)
    learned = "theta: learned between centred and non-centred" in fit.draws.info["plan"]
    assert learned == (choice == "auto")


def test_what_a_run_has_learned_serves_another():
    fit = infer(program(), mcmc.PooledHMC(chains=8, draws=50, max_draws=50), seed=3, progress=False)
    choice = {name: (kt["k"], kt["t"]) for name, kt in fit.draws.info["coordinates"].items()}
    assert max(choice["theta"][0]) > 0.3  # unit information of one observation each, shrunk
    again = infer(program(), mcmc.NUTS(), chains=2, warmup=200, draws=200, seed=4, progress=False,
                  reparameterize=choice)  # fmt: skip
    agree(again)
