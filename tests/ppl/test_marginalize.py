"""Sums over finite latent sites against enumeration of all their codes."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import ppl
from tests.oracles.finite import CASES, enumerated

pytestmark = pytest.mark.standard_promotion


@jax.jit
def value_and_gradient(density, z):
    return jax.value_and_grad(lambda z: density(z))(z)

FAST = ("mixture", "long format, nested", "nested", "joint", "hmm", "panel")
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
