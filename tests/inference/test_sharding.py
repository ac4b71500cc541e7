"""Laid out data in one process: rows that do not count, what is refused, what is said."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import infer, mcmc
from ppl.inference.padded import pad
from ppl.inference.sharding import lay_out, shard

pytestmark = pytest.mark.standard_promotion

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(11, 2)), RNG.normal(size=11)
PANEL = RNG.normal(size=(11, 4))


@ppl.model
def simple(x):
    slope = ppl.sample("slope", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    ppl.plate("row", lambda x: ppl.record("mean", x @ slope) * 0 + ppl.sample("y", dist.Normal(x @ slope, 1.0)), x)


@ppl.model
def latents(x):
    """A positive and a vector latent value for every row: with log-determinants, and with priors to be left out."""
    tau = ppl.sample("tau", dist.HalfNormal(1.0))

    @ppl.plate("row", x)
    def _(x):
        width = ppl.sample("width", dist.LogNormal(0.0, tau))
        share = ppl.sample("share", dist.Dirichlet(jnp.ones(3)))
        ppl.sample("y", dist.Normal(x @ share[:2], width))


@ppl.model
def nested(panel):
    mu = ppl.sample("mu", dist.Normal(0.0, 1.0))

    @ppl.plate("unit", panel)
    def _(row):
        level = ppl.sample("level", dist.Normal(mu, 1.0))
        ppl.plate("time", lambda x: ppl.sample("y", dist.Normal(level + x, 1.0)), row)


PROGRAMS = {
    "simple": lambda: simple(X).condition(y=Y),
    "latents": lambda: latents(X).condition(y=Y),
    "nested": lambda: nested(PANEL).condition(y=PANEL + 1.0),
    "gaps": lambda: simple(X).condition(y=np.where(np.arange(11) % 4 == 1, np.nan, Y), missing="marginalize"),
}


@jax.jit
def values(density, z):
    return jax.vmap(jax.value_and_grad(density))(z)


@pytest.mark.parametrize("name", PROGRAMS)
def test_rows_that_do_not_count_change_nothing(name):
    density = ppl.compile(PROGRAMS[name]())
    padded = pad(density, 11, 16)
    assert padded.dim == density.dim and padded.labels == density.labels
    assert {x.shape[0] for x in jax.tree.leaves(padded) if x.ndim} <= {16}
    z = np.random.default_rng(1).normal(size=(3, density.dim))
    for one, other in zip(values(padded, z), values(density, z), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
    for method in ("constrain", "generated", "pointwise", "log_prior", "factors"):
        here, there = getattr(padded, method)(z[0]), getattr(density, method)(z[0])
        assert list(here) == list(there)
        for site in there:
            np.testing.assert_allclose(here[site], there[site], rtol=1e-12, err_msg=f"{method} {site}")
    np.testing.assert_allclose(padded.unconstrain(density.constrain(z[0])), z[0], atol=1e-9)
    assert np.shape(padded.prior(jax.random.key(0))) == (density.dim,)
    assert np.isfinite(padded(padded.prior(jax.random.key(0))))


def test_groups_of_a_ragged_plate_may_be_divided():
    table = ppl.ragged(np.repeat(np.arange(6), [3, 5, 2, 7, 4, 6]), x=RNG.normal(size=27))

    @ppl.model
    def ragged(table):
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))

        @ppl.plate("group", table)
        def _(rows):
            level = ppl.sample("level", dist.Normal(mu, 1.0))
            ppl.plate("row", lambda r: ppl.sample("y", dist.Normal(level + r["x"], 1.0)), within=rows)

    density = ppl.compile(ragged(table).condition(y=RNG.normal(size=27)))
    padded, z = pad(density, 6, 8), RNG.normal(size=(3, 7))
    for one, other in zip(values(padded, z), values(density, z), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
    assert "group': 6 rows" in lay_out(density)[1][0] and "table/rows/columns/x (6, 8)" in lay_out(density)[1][0]


@ppl.model
def centred(x):
    slope = ppl.sample("slope", dist.Normal(0.0, 1.0))
    ppl.plate("row", lambda x: ppl.sample("y", dist.Normal(slope * x, 1.0)), x - x.mean())


@ppl.model
def summed(x):
    slope = ppl.sample("slope", dist.Normal(0.0, 1.0))
    means = ppl.plate("row", lambda x: slope * x, x)
    ppl.sample("total", dist.Normal(means.sum(), 1.0))
    ppl.plate("row", lambda m: ppl.sample("y", dist.Normal(m, 1.0)), means)


@pytest.mark.parametrize("program", [centred(X[:, 0]).condition(y=Y), summed(X[:, 0]).condition(y=Y, total=1.0)])
def test_a_model_whose_rows_meet_elsewhere_is_refused(program):
    with pytest.raises(ValueError, match="the density changes when rows are added"):
        pad(ppl.compile(program), 11, 12)


def test_the_check_looks_at_gradients_and_heights():
    padded = pad(ppl.compile(PROGRAMS["simple"]()), 11, 12)
    z = np.ones(2)
    grown = padded.density(z)  # what it would be if the further row counted
    assert abs(grown - padded(z)) > 0.1


def test_a_density_over_one_device_is_the_density():
    density = ppl.compile(PROGRAMS["latents"]())
    laid, lines = lay_out(density)
    assert lay_out(density, plate="data")[1] == lay_out(density, plate="row")[1] == lines
    z = np.zeros(density.dim)
    np.testing.assert_allclose(laid(z), density(z), rtol=1e-12)
    assert lines[0] == "data over 1 device along plate 'row': 11 rows, 11 on each: x (11, 2), y (11,)"
    fit = infer(
        PROGRAMS["simple"](), mcmc.PooledHMC(chains=4, draws=10, max_draws=10), shard="row", progress=False, seed=1
    )
    assert fit.manifest["shard"] == "row" and fit.manifest["mesh"] == 1
    assert lines[0] in fit.manifest["plan"]


@ppl.model
def walk(n):
    def step(x, y):
        x = ppl.sample("x", dist.Normal(x, 1.0))
        ppl.sample("y", dist.Normal(x, 1.0))
        return x

    ppl.markov("time", step, 0.0, n)


def test_what_cannot_be_divided_is_refused():
    density = ppl.compile(PROGRAMS["simple"]())
    with pytest.raises(ValueError, match=r"shard='rows' names no plate of this density, which has 'row' \(11\)"):
        shard(density, plate="rows")
    with pytest.raises(ValueError, match="'time' is a chain"):
        shard(ppl.compile(walk(np.ones(5)).condition(y=np.ones(5))), plate="time")
    with pytest.raises(ValueError, match="pass them as arguments of the model"):
        shard(ppl.compile(walk(np.ones(5)).condition(y=np.ones(5))))
    with pytest.raises(ValueError, match="holds no arrays"):
        infer(lambda z: -0.5 * z @ z, init=np.zeros(2), shard=True, progress=False)
    with pytest.raises(AttributeError, match="'split' is not offered by a density that is laid out"):
        pad(density, 11, 12).split()


def test_functions_of_the_host_are_not_laid_out():
    @ppl.model
    def model(x):
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        twice = ppl.external("twice", lambda a: 2 * a, a, shape=(), grad=lambda a: 2 * np.ones_like(a))
        ppl.plate("row", lambda x: ppl.sample("y", dist.Normal(twice + x, 1.0)), x)

    with pytest.raises(ValueError, match="calls twice on the host"):
        shard(ppl.compile(model(X[:, 0]).condition(y=Y)))


def test_fewer_rows_than_devices_are_refused():
    class Four:
        shape = {"data": 40}

    with pytest.raises(ValueError, match="plate 'row' has 11 rows, fewer than 40 devices"):
        lay_out(ppl.compile(PROGRAMS["simple"]()), Four())
