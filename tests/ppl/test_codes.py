"""Finite sites as codes: groups of elements that are independent given the rest, and their exact conditionals."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference.core import as_density
from ppl.inference.mcmc import discrete

pytestmark = pytest.mark.standard_promotion

MEANS = np.array([-2.0, 0.0, 2.0])
MATRIX = np.array([[0.8, 0.15, 0.05], [0.1, 0.7, 0.2], [0.3, 0.3, 0.4], [0.5, 0.3, 0.2]])


@ppl.model
def mixture(n):
    w = ppl.sample("w", dist.Dirichlet(jnp.ones(3)))

    @ppl.plate("row", n)
    def rows(i):
        z = ppl.sample("z", dist.Categorical(w))
        ppl.sample("y", dist.Normal(jnp.asarray(MEANS)[z], 1.0))


@ppl.model
def chains(n, steps):
    """Hidden Markov chains that all start from a fourth row of the matrix."""
    mu = ppl.sample("mu", dist.Normal(jnp.asarray(MEANS), 1.0).to_event(1))

    @ppl.plate("series", n)
    def series(i):
        def step(z, t):
            z = ppl.sample("z", dist.Categorical(jnp.asarray(MATRIX)[z.astype(jnp.int32)]))
            ppl.sample("y", dist.Normal(mu[z], 1.0))
            return z

        ppl.markov("t", step, init=3, xs=steps)


@ppl.model
def raters(item, rater):
    """Dawid and Skene's, in long form: labels name their items by an index in the data."""
    pi = ppl.sample("pi", dist.Dirichlet(jnp.ones(3)))

    @ppl.plate("rater", 4)
    def confusion(j):
        return ppl.sample("theta", dist.Dirichlet(jnp.ones(3)).expand([3]).to_event(1))

    z = ppl.plate("item", lambda i: ppl.sample("z", dist.Categorical(pi)), 5)

    @ppl.plate("label", item, rater)
    def labels(i, j):
        ppl.sample("y", dist.Categorical(confusion[j, z[i]]))


@ppl.model
def counted(n):
    """A sum reads all codes; two sites beside each other in a plate, one with a value of its own."""

    @ppl.plate("i", n)
    def both(i):
        a = ppl.sample("a", dist.Bernoulli(0.3))
        b = ppl.sample("b", dist.Categorical(jnp.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])[a]))
        ppl.sample("y", dist.Normal(a - 1.5 * b, 1.0))
        return a

    c = ppl.sample("c", dist.DiscreteUniform(2, 4))
    ppl.sample("total", dist.Normal(jnp.sum(both) * 1.0 + c, 1.0))


RNG = np.random.default_rng(3)
LONG = RNG.integers(0, 5, 12), RNG.integers(0, 4, 12), RNG.integers(0, 3, 12)
CASES = {
    "mixture": (lambda: mixture(5).condition(y=np.array([-2.0, 0.3, 1.0, 0.1, 4.0])), 1),
    "chains": (lambda: chains(2, 4).condition(y=np.array([[0.1, -1.0, 2.0, 0.4], [1.0, 1.5, -3.0, 0.0]])), 2),
    "raters": (lambda: raters(*LONG[:2]).condition(y=LONG[2]), 1),
    "counted": (lambda: counted(3).condition(y=np.array([0.5, -1.0, -2.0]), total=3.0), 3 + 1 + 1),
}


def built(name):
    density = ppl.compile(CASES[name][0](), marginalize=False)
    real = RNG.normal(size=density.continuous)
    return density, jnp.asarray(np.concatenate([real, RNG.integers(density.finite)]))


SLOW = ("mixture", "counted")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in CASES])
def test_groups_score_their_codes_as_the_whole_density_does(name):
    density, z = built(name)
    assert density.groups == CASES[name][1]
    members = np.array([density.members(i) for i in range(density.groups)])
    assert np.all(members.sum(0) == 1)
    found = np.asarray(jax.jit(discrete.tables)(density, z))
    plain = as_density(lambda x: density(x), density.dim, density.finite)
    exact = np.asarray(jax.jit(discrete.tables)(plain, z))
    assert np.array_equal(np.isfinite(found), np.isfinite(exact))
    np.testing.assert_allclose(found - found[0], exact - exact[0], atol=1e-11)


LAWS = [pytest.param("mixture", "z", marks=pytest.mark.slow), ("chains", "z"), ("counted", ("a", "c"))]
LAWS += [pytest.param("counted", "b", marks=pytest.mark.slow)]


@pytest.mark.parametrize("name, sites", LAWS)
def test_finite_conditionals_agree_with_enumeration(name, sites):
    density, z = built(name)
    law, rest = density.conditional(sites, z), density.restrict(sites, z)
    states = np.array(list(itertools.product(*map(range, rest.finite))), float)
    logs = np.asarray(jax.jit(jax.vmap(rest))(states))
    exact = np.exp(logs - logs.max()) / np.sum(np.exp(logs - logs.max()))
    np.testing.assert_allclose(np.exp(jax.jit(jax.vmap(law.log_prob))(states)), exact, atol=1e-12)
    draws = np.asarray(jax.jit(jax.vmap(law.sample))(jax.random.split(jax.random.key(1), 20_000)))
    # Moments of one and of two elements; at most 72 comparisons, false alarm below 1e-5 (|z| < 5.5).
    for moment in (lambda x: x, lambda x: x**2, lambda x: x * np.roll(x, 1, axis=1)):
        mean, square = exact @ moment(states), exact @ moment(states) ** 2
        error = np.abs(moment(draws).mean(0) - mean)
        assert np.all(error < 5.5 * np.sqrt((square - mean**2).clip(1e-12) / len(draws)))


def test_what_is_too_large_to_enumerate_is_refused_with_what_couples_it():
    density = ppl.compile(counted(13).condition(y=np.zeros(13), total=3.0), marginalize=False)
    with pytest.raises(ppl.ModelError, match=r"'a'.*8.19e\+03 joint states.*'total' reads several") as error:
        density.conditional("a", jnp.zeros(density.dim))
    assert "Gibbs()" in str(error.value) and str(error.value).count("test_codes.py") == 2


def test_a_finite_and_a_real_site_have_no_joint_law():
    density, z = built("mixture")
    with pytest.raises(ppl.ModelError, match="finite site 'z' together with the real site 'w'"):
        density.conditional(("z", "w"), z)


def test_sites_that_are_kept_and_sites_that_are_summed():
    """The conditional of a kept site sums the other: pi(a | y) from the joint by hand."""
    program = counted(2).condition(y=np.array([0.2, -1.0]), total=3.0)
    joint, kept = ppl.compile(program, marginalize=False), ppl.compile(program, marginalize=["b", "c"])
    assert kept.finite == (2, 2) and kept.layout.keys() == {"a"}
    states = np.array(list(itertools.product(range(2), range(2), range(3), range(3), range(3))), float)
    logs = np.asarray(jax.vmap(joint)(states[:, [joint_order(joint).index(c) for c in range(5)]]))
    pairs = list(itertools.product(range(2), range(2)))
    exact = [np.logaddexp.reduce(logs[np.all(states[:, :2] == pair, axis=1)]) for pair in pairs]
    found = [float(kept(jnp.array(pair, float))) for pair in pairs]
    np.testing.assert_allclose(found, exact, rtol=1e-10)
    tables = np.asarray(discrete.tables(kept, jnp.zeros(2)))
    np.testing.assert_allclose(tables[1] - tables[0], [exact[2] - exact[0], exact[1] - exact[0]], rtol=1e-9)


def joint_order(density):
    """Columns of (a, a, b, b, c) in the order of the vector."""
    place = {"a": [0, 1], "b": [2, 3], "c": [4]}
    return [place[name][i] for name, slot in density.layout.items() for i in range(slot.stop - slot.start)]
