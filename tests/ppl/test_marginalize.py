"""Sums over finite latent sites against enumeration of all their codes."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest

import ppl
from ppl import dist
from tests.oracles.finite import CASES, NOISE, enumerated, hierarchical, second_order

pytestmark = pytest.mark.standard_promotion


@jax.jit
def value_and_gradient(density, z):
    return jax.value_and_grad(lambda z: density(z))(z)

FAST = ("mixture", "long format, nested", "hmm")
"""Enumerated in every run; the others are slow tests."""
EACH = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


def position(density, seed=0):
    return np.random.default_rng(seed).normal(size=density.dim)


@pytest.mark.parametrize("name", EACH)
def test_the_density_and_its_gradient_are_those_of_enumeration(name):
    program = CASES[name]()
    density = ppl.compile(program)
    z = position(density)
    value, gradient = value_and_gradient(density, z)
    expected, slope, _, _ = enumerated(program, z)
    np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(gradient, slope, rtol=1e-10, atol=1e-10)


def exact(density, program, z):
    """Log weights of all configurations, and the code of each element of each summed site in them."""
    _, _, codes, terms = enumerated(program, z)
    weights = np.exp(terms - np.logaddexp.reduce(terms))
    full = ppl.compile(program, marginalize=False, collapse=False)
    found = {}
    for name, slot in full.layout.items():
        if full.compiled.sites[name].discrete:
            start = full.continuous
            found[name] = codes[:, slot.start - start : slot.stop - start].reshape(-1, *slot.shape).astype(int)
    return weights, found


@pytest.mark.parametrize("name", EACH)
def test_probabilities_and_draws_are_those_of_enumeration(name):
    # draws: |z| < 4.5 for at most 12 marginals and 12 agreements of pairs a model: false alarm below 3e-3 in all.
    program = CASES[name]()
    density = ppl.compile(program)
    z = position(density)
    weights, codes = exact(density, program, z)
    tables = density.probabilities(z)
    assert set(tables) == set(codes) == set(density.compiled.summed)
    n = 2000
    draws = jax.jit(jax.vmap(lambda d, k: d.recover(k, jax.numpy.asarray(z)), in_axes=(None, 0)))(
        density, jax.random.split(jax.random.key(3), n)
    )
    flat, drawn = [], []
    for site, values in codes.items():
        low, count = density.compiled.sites[site].states
        one_hot = np.eye(count)[values]
        expected = np.tensordot(weights, one_hot, 1)
        np.testing.assert_allclose(tables[site], expected, rtol=1e-10, atol=1e-12)
        flat.append(values.reshape(len(weights), -1))
        drawn.append(np.asarray(draws[site]).reshape(n, -1) - low)
    flat, drawn = np.concatenate(flat, axis=1), np.concatenate(drawn, axis=1)
    for i in range(flat.shape[1]):
        for f in (lambda x, i=i: x[:, i], lambda x, i=i: x[:, i] * x[:, i - 1]):  # noqa: E731
            mean = weights @ f(flat)
            sd = np.sqrt(weights @ (f(flat) - mean) ** 2 / n)
            assert abs(f(drawn).mean() - mean) <= 4.5 * sd + 1e-12, (name, i)


@pytest.mark.parametrize("name", EACH)
def test_pointwise_is_the_density_of_each_element_given_all_others(name):
    # log p(y_i | y_-i, z) = log sum_k p(k, y | z) - log sum_k p(k, y | z) / p(y_i | k, z), by enumeration.
    program = CASES[name]()
    density = ppl.compile(program)
    z = position(density)
    full = ppl.compile(program, marginalize=False, collapse=False)
    weights, _ = exact(density, program, z)
    codes = enumerated(program, z)[2]
    each = jax.jit(jax.vmap(lambda d, c: d.pointwise(jax.numpy.concatenate([jax.numpy.asarray(z), c])), (None, 0)))
    for site, value in density.pointwise(z).items():
        factor = np.asarray(each(full, codes)[site])
        expected = -np.log(np.tensordot(weights, np.exp(-factor), 1))
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-10)


# ---------------------------------------------------------------------------------------- plans


@pytest.mark.parametrize(
    ("name", "evaluations"),
    # K codes a plate; K for each term of its own sites; K^2 for the steps of a chain, K more for what reads one state
    [("mixture", 3), ("long format", 3), ("nested", 2 + 3 + 6 + 12), ("hmm", 3 + 27 + 3), ("crossed", 4 + 2 + 2)],
)
def test_the_number_of_evaluations_follows_the_structure(name, evaluations):
    sums = ppl.compile(CASES[name]()).compiled.sums
    assert sum(group.evaluations for group in sums.groups) == evaluations
    assert f"{evaluations} evaluations" in sums.notes[0]


def test_chains_are_summed_by_the_forward_recursion_and_not_jointly():
    (note,) = ppl.compile(CASES["panel"]()).compiled.rewritten.notes
    assert "z (2 states in each of 2 elements of s, t, by the forward recursion)" in note and "jointly" not in note


@ppl.model
def shared(n):
    z = ppl.sample("z", dist.Bernoulli(0.3).expand([n]))
    ppl.sample("mu", dist.Normal(0.0, 1.0))
    ppl.sample("y", dist.Normal(1.0 * z.sum(), 1.0))


def test_too_many_joint_states_are_refused_with_the_size_and_other_ways():
    program = shared(60).condition(y=3.0)
    with pytest.raises(ppl.ModelError) as caught:
        ppl.compile(program)
    text = str(caught.value)
    offers = ("marginalize=False", "mcmc.Gibbs", "sequential Monte Carlo")
    for part in ("'z'", "2 states in each of 60 elements", "1.15e+18 evaluations of y", "test_marginalize.py", *offers):
        assert part in text, part
    assert ppl.compile(program, marginalize=False).finite == (2,) * 60
    with pytest.raises(ppl.ModelError, match="marginalize_budget is 10"):
        ppl.compile(shared(3).condition(y=1.0), marginalize_budget=10)


def test_long_chains_of_higher_order_are_refused():
    program = second_order(400).condition(y=np.zeros(400))
    with pytest.raises(ppl.ModelError, match="further back than one step"):
        ppl.compile(program)


@pytest.mark.slow
def test_only_the_named_sites_are_summed():
    program = CASES["long format, nested"]()
    density = ppl.compile(program, marginalize="m")
    assert list(density.compiled.summed) == ["m"] and density.finite == (3, 3, 3)
    z = np.concatenate([np.zeros(3), [0.0, 2.0, 1.0]])
    full = ppl.compile(program, marginalize=False)
    terms = [full(np.concatenate([z, c])) for c in itertools.product((0.0, 1.0), repeat=4)]
    np.testing.assert_allclose(density(z), np.logaddexp.reduce(terms), rtol=1e-12)
    conditional = density.restrict("k", z)
    other = np.array([1.0, 1.0, 1.0])
    expected = density(np.concatenate([np.zeros(3), other])) - density(z)
    np.testing.assert_allclose(conditional(other) - conditional(z[3:]), expected, rtol=1e-10)


@pytest.mark.slow
def test_prior_and_likelihood_add_up_and_the_prior_forgets_the_data():
    program = CASES["hierarchical"]()
    density = ppl.compile(program)
    z = position(density)
    prior, likelihood = density.split()
    np.testing.assert_allclose(prior(z) + likelihood(z), density(z), rtol=1e-12)
    far = ppl.compile(hierarchical(3).condition(y=100.0 + NOISE[:3]))
    np.testing.assert_allclose(far.split()[0](z), prior(z), rtol=1e-12)
    bare, _, _, _ = enumerated(hierarchical_prior(3), z)
    np.testing.assert_allclose(prior(z), bare, rtol=1e-12)


@ppl.model
def hierarchical_prior(n):
    mu = ppl.sample("mu", dist.Normal(0.0, 3.0).expand([2]))

    @ppl.plate("i", n)
    def row(_):
        k = ppl.sample("k", dist.Bernoulli(0.4))
        ppl.sample("x", dist.Normal(mu[k], 1.0 + k))
        ppl.sample("u", dist.Uniform(0.0, 1.0 + k))


def test_records_are_computed_at_the_codes_that_are_drawn():
    density = ppl.compile(CASES["ordinal"]())
    z = position(density)
    values = density.generated(z, jax.random.key(4))
    np.testing.assert_array_equal(values["gap"], values["x"] - values["k"])
    again = density.recover(jax.random.key(4), z)["k"]
    np.testing.assert_array_equal(values["k"], again)
    assert values["k"].min() >= 2 and density.generated(z)["k"].shape == (3,)


@ppl.model
def ragged_panel(table):
    mu = ppl.sample("mu", dist.Normal(0.0, 3.0).expand([2]))
    rows = jax.numpy.array([[0.7, 0.3], [0.2, 0.8]])

    @ppl.plate("subject", table)
    def subject(visits):
        def step(z, _):
            z = ppl.sample("z", dist.Categorical(rows[z]))
            ppl.sample("y", dist.Normal(mu[z], 1.0))
            return z

        ppl.markov("visit", step, init=0, xs=visits)


def test_series_of_different_lengths_are_summed_each():
    # each subject's chain alone, and the padding counts for nothing
    group, y = np.array([0, 0, 0, 1, 2, 2]), NOISE[:6]
    density = ppl.compile(ragged_panel(ppl.ragged(group)).condition(y=y))
    z = np.array([-1.0, 1.5])
    expected = np.sum(-0.5 * (z / 3.0) ** 2 - np.log(3.0) - 0.5 * np.log(2 * np.pi))
    P = np.log([[0.7, 0.3], [0.2, 0.8]])
    for g in range(3):
        alpha = None
        for value in y[group == g]:
            emission = -0.5 * (value - z) ** 2 - 0.5 * np.log(2 * np.pi)
            alpha = emission + (P[0] if alpha is None else np.logaddexp.reduce(alpha[:, None] + P))
        expected += np.logaddexp.reduce(alpha)
    np.testing.assert_allclose(density(z), expected, rtol=1e-12)
