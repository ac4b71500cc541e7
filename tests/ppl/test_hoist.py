"""Equations that read only data run once; nothing else changes, and new data are not forgotten."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from tests.oracles.evaluate import divided, run

pytestmark = pytest.mark.standard_promotion
N = 400


@ppl.model
def regression(X, offset):
    beta = ppl.sample("beta", dist.Normal(0.0, 1.0).expand([3]))
    design = jnp.tanh(X @ jnp.ones((3, 3)) + jnp.exp(X))

    @ppl.plate("row", design, offset)
    def _(x, o):
        ppl.sample("y", dist.Poisson(jnp.exp(x @ beta + jnp.log1p(o**2))))


def data(seed):
    rng = np.random.default_rng(seed)
    X, offset = rng.normal(size=(N, 3)), rng.normal(size=N)
    return X, offset, rng.poisson(1.0, size=N)


def by_hand(X, offset, y, beta):
    design = np.tanh(X.sum(1, keepdims=True) + np.exp(X))
    log_rate = design @ beta + np.log1p(offset**2)
    log_factorial = np.cumsum(np.log(np.maximum(np.arange(y.max() + 1), 1)))[y]
    prior = -0.5 * np.sum(beta**2) - 1.5 * np.log(2 * np.pi)
    gradient = -beta + design.T @ (y - np.exp(log_rate))
    return prior + np.sum(y * log_rate - np.exp(log_rate) - log_factorial), gradient


@pytest.fixture(scope="module")
def density():
    X, offset, y = data(0)
    return ppl.compile(regression(X, offset).condition(y=y))


def test_work_that_reads_only_data_is_taken_out(density):
    plan = density.compiled.hoisted
    assert plan.before is not None
    primitives = {eqn.primitive.name for eqn in plan.after.jaxpr.eqns}
    assert primitives.isdisjoint({"tanh", "log1p", "lgamma"})
    whole = {eqn.primitive.name for eqn in divided(density, 10**18).after.jaxpr.eqns}
    assert {"tanh", "log1p"} <= whole
    rest = divided(density, 10**18).after.jaxpr.eqns
    dear = sum(int(np.prod(e.outvars[0].aval.shape)) for e in rest if e.primitive.name in ("tanh", "log1p", "lgamma"))
    total = sum(int(np.prod(v.aval.shape)) for e in rest for v in e.outvars)
    assert dear > 0 and density.work <= total - dear


def test_value_and_gradient_are_those_of_the_whole_program_and_of_the_formula(density):
    X, offset, y = data(0)
    beta = np.array([0.3, -0.2, 0.5])
    whole = divided(density, 10**18)
    ours = jax.jit(jax.value_and_grad(lambda d, z: d(z), argnums=1))(density, beta)
    plain = jax.jit(jax.value_and_grad(lambda d, z: run(whole, d, (), z), argnums=1))(density, beta)
    exact = by_hand(X, offset, y, beta)
    for a, b, c in zip(ours, plain, exact, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)
        np.testing.assert_allclose(a, c, rtol=1e-12)


def test_new_data_are_used_and_nothing_compiles_again(density):
    X, offset, y = data(1)
    beta = np.array([0.3, -0.2, 0.5])
    traces = []

    @jax.jit
    def value(d, z):
        traces.append(1)
        return d(z)

    value(density, beta)
    other = ppl.compile(regression(X, offset).condition(y=y))
    assert other.compiled is density.compiled
    np.testing.assert_allclose(value(other, beta), by_hand(X, offset, y, beta)[0], rtol=1e-12)
    assert len(traces) == 1


def test_binding_can_be_traced_and_differentiated(density):
    X, offset, y = data(2)
    beta = np.array([0.1, 0.2, -0.3])

    def of_offset(o):
        return density.compiled.bind((X, o, y))(beta)

    value, gradient = jax.jit(jax.value_and_grad(of_offset))(offset)
    np.testing.assert_allclose(value, by_hand(X, offset, y, beta)[0], rtol=1e-12)
    design = np.tanh(X.sum(1, keepdims=True) + np.exp(X))
    rate = np.exp(design @ beta + np.log1p(offset**2))
    np.testing.assert_allclose(gradient, (y - rate) * 2 * offset / (1 + offset**2), rtol=1e-10)


def test_cheap_and_large_results_are_computed_again_and_dear_ones_kept():
    @ppl.model
    def m(x):
        s = ppl.sample("s", dist.HalfNormal(1.0))
        table = x[:, None] + x[None, :]  # n * n sums of n numbers
        ppl.sample("y", dist.Normal(jnp.sum(table * s), 1.0))
        ppl.sample("w", dist.Normal(jnp.sum(jnp.exp(x[:, None] * x[None, :]) * s), 1.0))
        ppl.sample("v", dist.Normal(jnp.sum((x[:, None] @ jnp.sin(x)[None, :]) * s), 1.0))

    n = 60
    x = np.linspace(0.0, 1.0, n)
    d = ppl.compile(m(x).condition(y=0.0, w=0.0, v=0.0))
    big = sorted((r for r in d.residuals if r.size == n * n), key=lambda r: float(r[0, 0]))
    assert len(big) == 2  # the matrix product, from n numbers, and the exponentials
    np.testing.assert_allclose(big[0], np.outer(x, np.sin(x)), rtol=1e-13, atol=1e-16)
    np.testing.assert_allclose(big[1], np.exp(np.outer(x, x)), rtol=1e-13)


def test_a_density_that_reads_no_latent_is_a_constant():
    @ppl.model
    def m(x):
        ppl.sample("y", dist.Normal(jnp.tanh(x), 1.0))

    x = np.linspace(-1.0, 1.0, 3000)
    d = ppl.compile(m(x).condition(y=x))
    exact = np.sum(-0.5 * (x - np.tanh(x)) ** 2 - 0.5 * np.log(2 * np.pi))
    np.testing.assert_allclose(d(np.zeros(0)), exact, rtol=1e-12)
