"""New data of equal shape never compile, counted through ``jax.monitoring``; stale programs are never served."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist

pytestmark = pytest.mark.standard_promotion
_events: list[str] = []
jax.monitoring.register_event_duration_secs_listener(lambda name, _, **__: _events.append(name))
jax.monitoring.register_event_listener(lambda name, **_: _events.append(name))


def compilations(action) -> int:
    """Backend compilations and cache requests during an action."""
    start = len(_events)
    action()
    return sum("backend_compile" in e or "compilation_cache" in e for e in _events[start:])


@jax.jit
def value_and_gradient(density, z):
    return jax.value_and_grad(lambda z: density(z))(z)


def define():
    @ppl.model
    def model(x, s0):
        a = ppl.sample("a", dist.Normal(0.0, s0))
        s = ppl.sample("s", dist.HalfNormal(1.0))
        w = ppl.sample("w", dist.Dirichlet(jnp.ones(3)))

        @ppl.plate("row", x)
        def _(x):
            mean = jnp.logaddexp(a, x) + jax.nn.softplus(w[0]) + jax.scipy.special.gammaln(x)
            ppl.sample("y", dist.Normal(mean, s))

    return model


def run(model, x, s0, y):
    density = ppl.compile(model(x, s0).condition(y=y))
    return density, float(value_and_gradient(density, np.zeros(density.dim))[0])


X, Y = np.arange(1.0, 6.0), np.ones(5)


def test_the_counter_counts():
    assert compilations(lambda: jax.jit(lambda x: x + 17.0)(1.0)) > 0


def test_new_data_float_argument_and_a_definition_run_again():
    model = define()
    _, first = run(model, X, 0.5, Y)
    values = []
    assert compilations(lambda: values.append(run(model, X + 1.0, 0.5, Y)[1])) == 0
    assert compilations(lambda: values.append(run(model, X, 0.5, Y + 1.0)[1])) == 0
    assert compilations(lambda: values.append(run(model, X, 0.6, Y)[1])) == 0
    assert compilations(lambda: values.append(run(define(), X, 0.5, Y)[1])) == 0
    assert len({first, *values[:3]}) == 4
    assert values[3] == first


def test_another_constant_is_another_program():
    def with_scale(scale):
        @ppl.model
        def model():
            x = ppl.sample("x", dist.Normal(0.0, scale))
            ppl.sample("y", dist.Normal(x, 1.0))

        return ppl.compile(model().condition(y=0.0))

    a, b, again = with_scale(1.0), with_scale(2.0), with_scale(1.0)
    assert a.compiled is not b.compiled and a.compiled is again.compiled
    assert float(a(np.ones(1))) != float(b(np.ones(1)))


SCALE = 1.0
TABLE = np.array([1.0, 2.0])
SETTINGS = {"scale": 1.0}


class Mutable:
    """An object whose content no key can see."""

    scale = 1.0


BOX = Mutable()


def helper():
    return SCALE


@ppl.model
def reads_globals(which):
    x = ppl.sample("x", dist.Normal(0.0, 1.0))
    if which == "scalar":
        scale = SCALE
    elif which == "array":
        scale = TABLE[0]
    elif which == "dict":
        scale = SETTINGS["scale"]
    elif which == "object":
        scale = BOX.scale
    else:
        scale = helper()
    ppl.sample("y", dist.Normal(x, scale))


@pytest.mark.parametrize("which", ["scalar", "array", "dict", "object", "function"])
def test_changed_globals_are_noticed(which, monkeypatch):
    def density():
        return float(ppl.compile(reads_globals(which).condition(y=3.0))(np.zeros(1)))

    before = density()
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    monkeypatch.setitem(SETTINGS, "scale", 2.0)
    monkeypatch.setattr(BOX, "scale", 2.0)
    TABLE[0] = 2.0
    try:
        after = density()
    finally:
        TABLE[0] = 1.0
    assert before == pytest.approx(-2 * 0.9189385332046727 - 4.5)
    assert after == pytest.approx(-2 * 0.9189385332046727 - np.log(2.0) - 9.0 / 8.0)


def test_custom_derivatives_count_by_identity():
    def with_rule(factor):
        @jax.custom_jvp
        def f(x):
            return x

        f.defjvp(lambda primals, tangents: (primals[0], factor * tangents[0]))

        @ppl.model
        def model():
            x = ppl.sample("x", dist.Normal(0.0, 1.0))
            ppl.factor("f", f(x))

        return ppl.compile(model())

    slopes = [float(value_and_gradient(with_rule(k), np.zeros(1))[1][0]) for k in (1.0, 3.0)]
    assert slopes == [1.0, 3.0]


def test_float32_and_float64_programs_are_kept_apart():
    model = define()
    assert ppl.compile(model(X, 0.5).condition(y=Y))(np.zeros(4)).dtype == np.float64
    with jax.enable_x64(False):
        assert ppl.compile(model(X, 0.5).condition(y=Y))(np.zeros(4, np.float32)).dtype == np.float32


def test_a_jax_whose_programs_cannot_be_rebuilt_is_served_too(monkeypatch):
    expected = run(define(), X + 0.125, 0.5, Y)[1]
    density, value = _opaque(define(), monkeypatch)
    assert value == pytest.approx(expected, rel=1e-14)
    assert float(sum(part(np.zeros(4)) for part in density.split())) == pytest.approx(expected, rel=1e-14)
    assert density.work == 0


def _opaque(model, monkeypatch):
    def fail(*_):
        raise TypeError("unfamiliar")

    with monkeypatch.context() as patch:
        patch.setattr(ppl._jax, "rebuild", fail)
        program = model(X + 0.125, 0.5).condition(y=Y)
        compiled = ppl.compile.__globals__["trace_program"](program)
    density = compiled.bind((*program.arguments.data, *program.fixed.values()), program)
    return density, float(value_and_gradient(density, np.zeros(density.dim))[0])
