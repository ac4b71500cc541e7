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


def position(density, seed=0):
    return np.random.default_rng(seed).normal(size=density.dim)


@pytest.mark.parametrize("name", CASES)
def test_the_density_and_its_gradient_are_those_of_enumeration(name):
    program = CASES[name]()
    density = ppl.compile(program)
    z = position(density)
    value, gradient = value_and_gradient(density, z)
    expected, slope, _, _ = enumerated(program, z)
    np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(gradient, slope, rtol=1e-10, atol=1e-10)
