"""Programs are rewritten, not merely run: traced, inlined, told apart and divided under the installed JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl import _jax, costs

pytestmark = pytest.mark.standard_promotion


@jax.custom_vjp
def halved(x):
    return x / 2


halved.defvjp(lambda x: (x / 2, None), lambda _, ct: (ct / 2,))


def plain(a, b, x):
    """Every equation that holds other equations, but custom derivatives outside of jitted functions."""

    def step(carry, xi):
        total, power = carry
        return (total + xi * a, power * b), total

    (total, power), partial_sums = jax.lax.scan(step, (a, 1.0), x)
    bounded = jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * b), (0, b))[1]
    chosen = jax.lax.cond(b > 0, lambda v: v, lambda v: -v, a)
    kept = jax.checkpoint(lambda v: jnp.cos(v) * 2)(b)
    smooth = jax.nn.softplus(a) + jnp.where(x > 1, x, 0.0).sum() * b
    return total, power, partial_sums, bounded, chosen, kept, smooth


def program(a, b, x):
    """All of it."""
    *results, smooth = plain(a, b, x)
    return *results, smooth + jax.nn.relu(b) + halved(a)


ARGUMENTS = (1.5, 0.5, np.arange(1.0, 5.0))


@pytest.fixture(scope="module")
def code():
    with jax.enable_x64(True):
        return _jax.trace(program, *ARGUMENTS)[0]


def test_a_program_is_kept_as_equations_and_computes_the_same(code):
    assert isinstance(code, _jax.Code)
    for ours, direct in zip(code.run(*ARGUMENTS), program(*ARGUMENTS), strict=True):
        np.testing.assert_allclose(ours, direct, rtol=1e-14)


def test_calls_are_inlined_and_custom_derivatives_are_not(code):
    names = {eqn.primitive.name for eqn in code.jaxpr.eqns}
    assert names.isdisjoint({"jit", "pjit", "closed_call"})
    assert {"scan", "while", "cond", "custom_jvp_call", "custom_vjp_call"} <= names
    gradient = jax.grad(lambda a: code.run(a, *ARGUMENTS[1:])[6])(1.5)
    np.testing.assert_allclose(gradient, 1 / (1 + np.exp(-1.5)) + 0.5, rtol=1e-12)


def test_dependence_is_exact(code):
    a, b, x = 0, 1, 2
    assert _jax.dependence(code, 3) == [{a, x}, {b}, {a, x}, {b}, {a, b}, {b}, {a, b, x}]


def test_work_counts_the_steps_of_a_loop():
    def walk(x):
        return jax.lax.scan(lambda c, xi: (c + xi, c), 0.0, x)[1]

    def counted(n):
        return costs.work(_jax.trace(walk, np.zeros(n))[0])

    assert 0 < counted(100) == 10 * counted(10)


def test_equal_programs_have_equal_keys_and_others_have_not():
    first, again = (_jax.key(_jax.trace(lambda *args: plain(*args), *ARGUMENTS)[0]) for _ in range(2))
    assert first == again and hash(first) == hash(again)

    def variant(step, init=0.0, **options):
        return _jax.key(_jax.trace(lambda x: jax.lax.scan(step, init, x, **options), np.zeros(4))[0])

    forward = variant(lambda c, x: (c + x, c))
    others = [
        variant(lambda c, x: (c + x, x)),
        variant(lambda c, x: (c - x, c)),
        variant(lambda c, x: (c + x, c), init=1.0),
        variant(lambda c, x: (c + x, c), reverse=True),
    ]
    assert forward == variant(lambda c, x: (c + x, c))
    assert len({forward, *others}) == 5


def test_a_program_is_divided():
    # known: a and x; left: what reads b
    code, _ = _jax.trace(lambda a, x, b: program(a, b, x), 1.5, ARGUMENTS[2], 0.5)
    before, after, used, saved = costs.divide(code, 2)
    assert saved > 0
    assert "custom_vjp_call" in {eqn.primitive.name for eqn in before.jaxpr.eqns}
    assert "custom_vjp_call" not in {eqn.primitive.name for eqn in after.jaxpr.eqns}
    known = (1.5, ARGUMENTS[2])
    values = after.run(*before.run(*known), *(known[i] for i in used), 0.5)
    for ours, direct in zip(values, program(*ARGUMENTS), strict=True):
        np.testing.assert_allclose(ours, direct, rtol=1e-14)
