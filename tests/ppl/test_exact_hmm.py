"""Recursions of hidden Markov chains against enumeration of all paths."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest

from ppl.exact import hmm


def chain(T, K, width, seed=0, holes=0.0):
    rng = np.random.default_rng(seed)
    first, pairs = rng.normal(size=(K, width)), 2.0 * rng.normal(size=(T - 1, K, K, width))
    pairs[rng.random(pairs.shape) < holes] = -np.inf
    return first, pairs


def paths(first, pairs):
    """All paths and their log weights, shape (paths, width)."""
    T, K = len(pairs) + 1, len(first)
    every = np.array(list(itertools.product(range(K), repeat=T)))
    weights = first[every[:, 0]] + sum(pairs[t, every[:, t], every[:, t + 1]] for t in range(T - 1))
    return every, weights


@pytest.mark.parametrize(("T", "K", "holes"), [(1, 3, 0.0), (4, 3, 0.0), (5, 2, 0.3)])
def test_normaliser_and_probabilities(T, K, holes):
    first, pairs = chain(T, K, 2, seed=T, holes=holes)
    every, weights = paths(first, pairs)
    total = np.logaddexp.reduce(weights)
    log, value = hmm.forward_backward(first, pairs)
    np.testing.assert_allclose(value, total, rtol=1e-12)
    p = np.exp(weights - total)
    expected = np.einsum("ptk,pw->tkw", np.eye(K)[every], p)
    np.testing.assert_allclose(np.exp(log), expected, rtol=1e-10, atol=1e-13)
    # the derivatives of the log normaliser are the probabilities of pairs, zero where nothing is possible
    slope = np.asarray(jax.grad(lambda q: hmm.forward(first, q)[1].sum())(pairs))
    for t in range(T - 1):
        both = np.einsum("pi,pj,pw->ijw", np.eye(K)[every[:, t]], np.eye(K)[every[:, t + 1]], p)
        np.testing.assert_allclose(slope[t], both, rtol=1e-10, atol=1e-13)


def test_draws_have_the_probabilities_of_paths():
    # 8 paths x 2 chains of 20000 draws, |z| < 4.5: false alarm 1e-4.
    first, pairs = chain(3, 2, 2, seed=7)
    every, weights = paths(first, pairs)
    p = np.exp(weights - np.logaddexp.reduce(weights))
    messages, n = hmm.forward(first, pairs)[0], 20000
    keys = jax.random.split(jax.random.key(1), n)
    draws = np.asarray(jax.vmap(lambda key: hmm.backward_sample(key, messages, pairs))(keys))
    found = (draws[:, None] == every[None, :, :, None]).all(2).mean(0)
    assert np.abs((found - p) / np.sqrt(p * (1 - p) / n)).max() < 4.5


def test_nothing_possible_has_a_gradient_of_zero():
    x = np.full(3, -np.inf)
    value, slope = jax.value_and_grad(lambda x: hmm.logsumexp(x, 0))(x)
    assert value == -np.inf and np.all(np.asarray(slope) == 0)
