"""Conjugate conditionals against closed forms and against the density that they are the law of."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist

pytestmark = pytest.mark.standard_promotion

RNG = np.random.default_rng(8)
X, G, Y = RNG.normal(size=(20, 3)), RNG.integers(0, 4, 20), RNG.normal(size=20)


@ppl.model
def regression(x, group):
    a = ppl.sample("a", dist.Normal(0.0, 5.0))
    b = ppl.sample("b", dist.Normal(jnp.zeros(3), jnp.array([1.0, 2.0, 0.5])).to_event(1))
    tau = ppl.sample("tau", dist.Gamma(2.0, 1.0))
    s2 = ppl.sample("s2", dist.InverseGamma(2.0, 1.0))
    u = ppl.plate("g", lambda i: ppl.sample("u", dist.Normal(0.0, jnp.sqrt(s2))), 4)
    ppl.plate("row", lambda x, g: ppl.sample("y", dist.Normal(a + x @ b + u[g], 1 / jnp.sqrt(tau))), x, group)


@ppl.model
def counts(n):
    p = ppl.sample("p", dist.Beta(2.0, 3.0))
    q = ppl.sample("q", dist.Uniform(0.0, 1.0))
    theta = ppl.sample("theta", dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])))
    rate = ppl.plate("kind", lambda i: ppl.sample("rate", dist.Gamma(2.0, 1.0)), 3)
    scale = ppl.sample("scale", dist.Gamma(1.5, 2.0))

    @ppl.plate("row", n)
    def rows(i):
        ppl.sample("heads", dist.Bernoulli(p))
        ppl.sample("wins", dist.Binomial(5, q))
        z = ppl.sample("z", dist.Categorical(theta))
        ppl.sample("count", dist.Poisson(rate[z]))
        ppl.sample("time", dist.Exponential(scale))


HEADS, WINS = np.array([0, 1, 1, 0, 1, 1]), np.array([0, 5, 2, 3, 1, 1])
COUNTS, TIMES = np.arange(6), np.arange(1, 7.0) / 3
SLOW = pytest.mark.slow


def built(name):
    program = regression(X, G).condition(y=Y) if name == "regression" else None
    if name == "counts":
        program = counts(6).condition(heads=HEADS, wins=WINS, count=COUNTS, time=TIMES)
    density = ppl.compile(program, marginalize=False)
    z = np.concatenate([RNG.normal(size=density.continuous), RNG.integers(density.finite) * 1.0])
    return density, z


@pytest.mark.parametrize(
    "name, sites, kind",
    [
        ("regression", "u", "Normal"),
        pytest.param("counts", "theta", "Simplex", marks=SLOW),
        pytest.param("regression", ("a", "b", "u"), "Normal", marks=SLOW),
        pytest.param("regression", "s2", "GammaPower", marks=SLOW),
        pytest.param("counts", "rate", "GammaPower", marks=SLOW),
        pytest.param("regression", "a", "Normal", marks=SLOW),
        pytest.param("regression", "b", "Normal", marks=SLOW),
        pytest.param("regression", "tau", "GammaPower", marks=SLOW),
        pytest.param("counts", "p", "Simplex", marks=SLOW),
        pytest.param("counts", "q", "Simplex", marks=SLOW),
        pytest.param("counts", "scale", "GammaPower", marks=SLOW),
    ],
)
def test_the_law_is_that_of_the_density_and_what_is_drawn(name, sites, kind):
    """Log densities differ by a constant; E[exp(shift)] under draws: a self-normalised identity of the sampler."""
    density, z = built(name)
    kinds = []

    @jax.jit
    def look(z, x, keys):
        law, rest = density.conditional(sites, z), density.restrict(sites, z)
        kinds.append(type(law).__name__)
        draws = jax.vmap(law.sample)(keys)
        shift = 0.3 * jnp.std(draws, axis=0)
        moved = [draws + h for h in (shift, -shift * jnp.sign(jnp.arange(shift.size) % 2 - 0.5))]
        scores = jax.vmap(law.log_prob)
        return jax.vmap(lambda x: rest(x) - law.log_prob(x))(x), [jnp.exp(scores(m) - scores(draws)) for m in moved]

    x = RNG.normal(size=(8, density.restrict(sites, z).dim))
    gap, weights = look(z, x, jax.random.split(jax.random.key(2), 5_000))
    assert kinds[0] == kind
    np.testing.assert_allclose(gap, np.full(8, gap[0]), rtol=1e-10, atol=1e-9)
    # If x has density p then E[p(x + h) / p(x)] = 1 for every shift h; false alarm below 1e-4 in all (|z| < 5).
    for w in map(np.asarray, weights):
        assert abs(w.mean() - 1.0) < 5 * w.std() / np.sqrt(len(w))


def test_closed_forms():
    """Two-line posteriors of textbooks, as parameters."""
    density, z = built("counts")
    value = density.constrain(jnp.asarray(z))

    @jax.jit
    def parameters(z):
        rate = density.conditional("rate", z)
        return density.conditional("p", z).weights, density.conditional("theta", z).weights, rate.shape, rate.rate

    p, theta, shape, rate = parameters(z)
    codes = np.asarray(value["z"])
    np.testing.assert_allclose(p, [[2 + HEADS.sum(), 3 + (1 - HEADS).sum()]], rtol=1e-9)
    np.testing.assert_allclose(theta[0], np.array([1.0, 2.0, 3.0]) + np.bincount(codes, minlength=3), rtol=1e-8)
    np.testing.assert_allclose(shape, 2 + np.bincount(codes, COUNTS, 3), rtol=1e-9)
    np.testing.assert_allclose(rate, 1 + np.bincount(codes, minlength=3), rtol=1e-9)


def test_normal_laws_are_those_of_ridge_regression():
    density, z = built("regression")
    value = {name: np.asarray(x) for name, x in density.constrain(jnp.asarray(z)).items()}
    found = jax.jit(lambda z: (density.conditional("b", z).precision[0], density.conditional("b", z).slope[0]))(z)
    precision = value["tau"] * X.T @ X + np.diag(1 / np.array([1.0, 2.0, 0.5]) ** 2)
    residual = Y - value["a"] - value["u"][G]
    np.testing.assert_allclose(found[0], precision, rtol=1e-9)
    np.testing.assert_allclose(found[1], value["tau"] * X.T @ residual, rtol=1e-8, atol=1e-9)


@ppl.model
def stubborn():
    s = ppl.sample("s", dist.HalfNormal(1.0))
    m = ppl.sample("m", dist.StudentT(3.0, 0.0, 1.0))
    k = ppl.sample("k", dist.Normal(0.0, 1.0))
    ppl.sample("y", dist.Normal(m + k, s))
    ppl.factor("bend", -jnp.abs(k - 20.0))


@pytest.mark.parametrize(
    "site, blame",
    [
        ("m", "normal but for the factor of site 'm'"),
        pytest.param("s", "Gamma but for the factor of site", marks=SLOW),
        pytest.param("k", "normal but for the factor of site 'bend'", marks=SLOW),
    ],
)
def test_what_is_not_conjugate_is_refused_with_what_stands_in_the_way(site, blame):
    density = ppl.compile(stubborn().condition(y=1.0))
    with pytest.raises(ppl.ModelError, match=rf"no exact conditional of '{site}'") as error:
        density.conditional(site, np.zeros(3))
    assert blame in str(error.value) and str(error.value).count("test_conjugate.py") == 2
