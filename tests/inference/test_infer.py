"""``infer`` from a model to a labelled posterior, against exact answers."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import ess, infer, mcmc


@ppl.model
def mean_of(sd):
    mu = ppl.sample("mu", dist.Normal(0.0, 3.0))

    @ppl.plate("row", sd)
    def row(s):
        ppl.sample("y", dist.Normal(mu, s))


SD = np.array([1.0, 2.0, 0.5, 1.5])
Y = np.array([0.5, -1.0, 2.0, 1.0])


def exact(y):
    precision = (1 / SD**2).sum() + 1 / 9
    return (y / SD**2).sum() / precision, precision**-0.5


def agrees(fit, y):
    """Mean and sd within four Monte Carlo standard errors (false alarm about 1 in 8,000 per call)."""
    row, (mean, sd) = fit.summary()["mu"], exact(y)
    assert row["r_hat"] < 1.02
    assert abs(row["mean"] - mean) < 4 * row["mcse_mean"]
    assert abs(row["sd"] / sd - 1) < 4 / np.sqrt(row["ess_bulk"] / 4)


def test_the_default_engine_finds_a_conjugate_posterior():
    fit = infer(mean_of(SD).condition(y=Y), progress=False)
    agrees(fit, Y)
    assert fit.notes == ()
    assert fit.manifest["engine"] == "PooledHMC"


def test_new_data_of_the_same_shape_compile_nothing():
    infer(mean_of(SD).condition(y=Y), progress=False).summary()
    compiled = []

    def listen(name, seconds, **_):
        if name.endswith("backend_compile_duration"):
            compiled.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        fit = infer(mean_of(SD).condition(y=Y + 3.0), progress=False)
        fit.summary()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled == []
    agrees(fit, Y + 3.0)


def test_a_bare_kernel_runs_in_chains():
    fit = infer(mean_of(SD).condition(y=Y), mcmc.NUTS(), chains=2, warmup=300, draws=600, progress=False)
    assert fit.manifest["engine"] == "Chains"
    assert fit.draws.positions.shape == (2, 600, 1)
    agrees(fit, Y)


def test_a_rule_extends_the_default_engine():
    fit = infer(mean_of(SD).condition(y=Y), chains=4, draws=100, until=ess(4000), progress=False)
    assert fit.summary()["mu"]["ess_bulk"] > 0.9 * 4000
    assert fit.draws.positions.shape[1] > 100
    agrees(fit, Y)


def test_a_model_that_is_nowhere_finite_is_explained_at_its_site():
    @ppl.model
    def broken():
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        ppl.sample("y", dist.Normal(jax.numpy.sqrt(-1.0 - mu**2), 1.0))

    with pytest.raises(ppl.ModelError, match=r"(?s)'y'.*test_infer\.py:\d+"):
        infer(broken().condition(y=1.0), progress=False)


def test_the_display_changes_no_draw():
    program = mean_of(SD).condition(y=Y)
    for engine in (mcmc.PooledHMC(draws=50), mcmc.Chains(mcmc.NUTS(), chains=2, warmup=60, draws=60)):
        shown, hidden = (infer(program, engine, seed=3, progress=progress) for progress in (True, False))
        np.testing.assert_array_equal(shown.draws.positions, hidden.draws.positions)
