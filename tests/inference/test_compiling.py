"""Quick compilation gives the same numbers, also inside another program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.inference.compiling import jit_quick, quick_options
from ppl.inference.core import as_density
from ppl.inference.mcmc import PooledHMC


def curve(x):
    return jax.lax.scan(lambda c, v: (0.9 * c + jnp.tanh(v), c * v), 0.3, x)[1]


def test_a_quick_program_equals_a_plain_one_alone_and_inside_another():
    x = jnp.linspace(-2.0, 3.0, 37)
    plain = np.asarray(jax.jit(curve)(x))
    quick = jit_quick(curve)
    assert np.allclose(quick(x), plain, rtol=1e-6, atol=1e-7)
    assert np.allclose(jax.jit(lambda v: 2.0 * quick(v))(x), 2.0 * plain, rtol=1e-6, atol=1e-7)


def test_options_belong_to_cpus_and_to_versions_that_know_them():
    assert quick_options("cuda") == {}
    assert quick_options("cpu", (99, 0, 0)) == {}
    assert quick_options("cpu", (0, 10, 2))


@pytest.mark.parametrize(("work", "word"), [(100, "compilation"), (10**7, "run")])
def test_the_plan_says_what_was_favoured(work, word):
    target = as_density(lambda z: -0.5 * jnp.sum(z**2), 2)
    object.__setattr__(target, "work", work)
    assert any(f"compiled for a short {word}" in line for line in PooledHMC().plan(target))
