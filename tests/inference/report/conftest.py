"""Fits of eight schools: one with a funnel, one without; and one made by hand with hostile names."""

import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import Fit, infer, mcmc
from ppl.inference.core import Draws

EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
LABELS = list("ABCDEFGH")


@ppl.model
def centred(error):
    mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
    tau = ppl.sample("tau", dist.HalfCauchy(5.0))

    @ppl.plate("school", error, coords=LABELS)
    def _(e):
        theta = ppl.sample("theta", dist.Normal(mu, tau))
        ppl.sample("y", dist.Normal(theta, e))


@ppl.model
def non_centred(error):
    mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
    tau = ppl.sample("tau", dist.HalfCauchy(5.0))

    @ppl.plate("school", error, coords=LABELS)
    def _(e):
        z = ppl.sample("z", dist.Normal(0.0, 1.0))
        theta = ppl.record("theta", mu + tau * z)
        ppl.sample("y", dist.Normal(theta, e))


@pytest.fixture(scope="session")
def funnel():
    program = centred(ERROR).condition(y=EFFECT)
    return infer(program, mcmc.NUTS(), seed=0, chains=4, draws=500, warmup=300, progress=False)


@pytest.fixture(scope="session")
def fine():
    return infer(non_centred(ERROR).condition(y=EFFECT), seed=0, progress=False)


def by_hand(labels, seed=0, chains=4, draws=300, diverging=None, positions=None, **manifest):
    """A fit without a model: independent normal draws of quantities with given names."""
    import xarray as xr

    rng = np.random.default_rng(seed)
    z = rng.normal(size=(chains, draws, len(labels))) if positions is None else positions
    chains, draws = z.shape[:2]
    stats = {"energy": rng.normal(size=(chains, draws)), "diverging": np.zeros((chains, draws), bool)}
    if diverging is not None:
        stats["diverging"] = diverging
    dims = ("chain", "draw")
    posterior = xr.Dataset({name: (dims, z[:, :, i]) for i, name in enumerate(labels)})
    flat = xr.Dataset({"z": ((*dims, "unconstrained"), z)}, coords={"unconstrained": np.asarray(labels)})
    facts = {"engine": "Hand", "plan": ["made by hand"], "seconds": {"sampling": 1.0}, "seed": 0, **manifest}
    stored = {"posterior": posterior, "unconstrained_posterior": flat}
    return Fit(None, None, Draws(z, stats), facts, notes=tuple(manifest.get("notes", ())), stored=stored)


@pytest.fixture
def hand():
    return by_hand
