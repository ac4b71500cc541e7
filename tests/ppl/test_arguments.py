"""What a program's identity follows: nothing that a model reads may change without being noticed."""

from __future__ import annotations

import dataclasses
import enum
import functools
import types

import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import arguments, dist

pytestmark = pytest.mark.standard_promotion

SCALE = 1.0
TABLE = {"s": 1.0, "nested": {"list": [1.0]}}
ARRAY = np.ones(2)
SETTINGS = types.ModuleType("settings_of_the_user")


class Constants:
    scale = 1.0

    @staticmethod
    def computed():
        return SCALE


class Kind(enum.Enum):
    ONE = 1.0
    TWO = 2.0


def read_global():
    return SCALE


def program_of(read):
    """A model whose scale is what ``read`` returns."""

    @ppl.model
    def m():
        ppl.sample("x", dist.Normal(0.0, read()))

    return m


def scale_seen(program):
    """The scale that scoring, compiling and simulating see; they must agree."""
    found = [
        np.exp(-float(program.log_prob({"x": 0.0})) - 0.5 * np.log(2 * np.pi)),
        np.exp(-float(ppl.compile(program)(np.zeros(1))) - 0.5 * np.log(2 * np.pi)),
        float(program.sample(0)["x"]) / float(program_of(lambda: 1.0)().sample(0)["x"]),
    ]
    np.testing.assert_allclose(found, found[0], rtol=1e-10)
    return round(found[0], 10)


def set_global(value):
    global SCALE
    SCALE = value


class Holder:
    def __init__(self):
        self.scale = 1.0

    def function(self):
        ppl.sample("x", dist.Normal(0.0, self.scale))

    def __call__(self):
        self.function()


def reader(name):
    """How a model reads a scale, and how it is changed to a value."""
    holder, cell, default = Holder(), [1.0], np.ones(1)
    SETTINGS.scale = 1.0

    def with_default(s=default):
        ppl.sample("x", dist.Normal(0.0, s[0]))

    @ppl.model
    def of_argument(c):
        ppl.sample("x", dist.Normal(0.0, c() if callable(c) and not isinstance(c, Holder) else c.scale))

    @ppl.model
    def of_program(p):
        ppl.sample("x", dist.Normal(0.0, jnp.exp(jnp.abs(p.conditions["x"]))))

    model, argument = ppl.model, functools.partial(of_argument, holder)
    ways = {
        "global": (program_of(lambda: SCALE), set_global),
        "global through a function": (program_of(lambda: read_global()), set_global),
        "dict": (program_of(lambda: TABLE["s"]), lambda v: TABLE.update(s=v)),
        "nested": (program_of(lambda: TABLE["nested"]["list"][0]), lambda v: TABLE["nested"]["list"].__setitem__(0, v)),
        "array in place": (program_of(lambda: ARRAY[1]), lambda v: ARRAY.__setitem__(1, v)),
        "closure": (program_of(lambda: cell[0]), lambda v: cell.__setitem__(0, v)),
        "module": (program_of(lambda: SETTINGS.scale), lambda v: setattr(SETTINGS, "scale", v)),
        "class": (program_of(lambda: Constants.scale), lambda v: setattr(Constants, "scale", v)),
        "static method": (program_of(lambda: Constants.computed()), set_global),
        "object": (program_of(lambda: holder.scale), lambda v: setattr(holder, "scale", v)),
        "bound method": (model(holder.function), lambda v: setattr(holder, "scale", v)),
        "callable object": (model(holder), lambda v: setattr(holder, "scale", v)),
        "default": (model(with_default), lambda v: default.__setitem__(0, v)),
        "partial": (model(functools.partial(lambda k: ppl.sample("x", dist.Normal(0.0, k * SCALE)), 1.0)), set_global),
        "argument that is an object": (argument, lambda v: setattr(holder, "scale", v)),
        "argument that is a function": (functools.partial(of_argument, read_global), set_global),
    }
    return ways[name]


@pytest.mark.parametrize(
    "name",
    [
        "global", "global through a function", "dict", "nested", "array in place", "closure", "module", "class",
        "static method", "object", "bound method", "callable object", "default", "partial",
        "argument that is an object", "argument that is a function",
    ],
)  # fmt: skip
def test_nothing_stale_is_returned_when_what_a_model_reads_has_changed(name):
    model, change = reader(name)
    change(1.0)
    assert scale_seen(model()) == 1.0
    change(2.5)
    assert scale_seen(model()) == 2.5
    change(1.0)


def test_a_program_that_is_an_argument_is_followed_with_its_data():
    @ppl.model
    def part(x):
        ppl.sample("x", dist.Normal(0.0, SCALE * x[0]))

    @ppl.model
    def whole(p):
        ppl.call("a", p)

    def seen(program):
        return round(float(np.exp(-program.log_prob({"a/x": 0.0}) - 0.5 * np.log(2 * np.pi))), 10)

    data = np.ones(1)
    program = part(data)
    set_global(1.0)
    assert seen(whole(program)) == 1.0
    set_global(3.0)
    assert seen(whole(program)) == 3.0
    data[0] = 2.0
    assert seen(whole(program)) == 6.0
    set_global(1.0)


def test_models_made_in_a_loop_keep_their_own_closures():
    models = [program_of(lambda s=s: s) for s in (1.0, 2.0, 3.0)]
    assert [scale_seen(m()) for m in models] == [1.0, 2.0, 3.0]


def test_a_model_is_recognised_when_it_is_called_again():
    def prior(path, leaf):
        return dist.Normal(0.0, SCALE)

    @ppl.model
    def m(x, n, kind, f, flag=True, label="a"):
        w = ppl.sample_tree("w", {"a": jnp.zeros(2)}, prior)
        assert kind is Kind.ONE and Constants.scale == 1.0
        ppl.sample("y", dist.Normal(f(jnp.tanh(w["a"] @ x)), SCALE).expand([n]))

    x = np.ones(2)
    first, second = (m(x + i, 3, Kind.ONE, jnp.exp) for i in range(2))
    assert first.key() == second.key()
    assert ppl.compile(first.condition(y=np.ones(3))).compiled is ppl.compile(second.condition(y=np.zeros(3))).compiled
    for other in (m(x, 4, Kind.ONE, jnp.exp), m(x, 3, Kind.ONE, jnp.sin), m(x, 3, Kind.ONE, jnp.exp, label="b")):
        assert other.key() != first.key()


def test_settings_count_by_value_where_their_type_says_so():
    @dataclasses.dataclass(frozen=True)
    class Options:
        scale: float

    @ppl.model
    def m(options):
        ppl.sample("x", dist.Normal(0.0, options.scale))

    assert m(Options(1.0)).key() == m(Options(1.0)).key()
    assert scale_seen(m(Options(1.0))) == 1.0
    assert scale_seen(m(Options(2.0))) == 2.0


def test_one_and_true_are_different_settings():
    @ppl.model
    def m(k):
        ppl.sample("x", dist.Normal(0.0, 2.0 if k is True else 1.0))

    assert scale_seen(m(1)) == 1.0
    assert scale_seen(m(True)) == 2.0


def test_data_are_bound_when_a_density_is_compiled():
    @ppl.model
    def m(x):
        b = ppl.sample("b", dist.Normal(0.0, 1.0))
        ppl.sample("y", dist.Normal(b * x, 1.0))

    x, y = np.ones(3), np.ones(3)
    density = ppl.compile(m(x).condition(y=y))
    before = float(density(np.ones(1)))
    x[:], y[:] = 7.0, 9.0
    assert float(density(np.ones(1))) == before


def test_jax_arrays_are_data_without_a_warning():
    assert arguments.shape_key((jnp.zeros(3), np.zeros(3), 1.0))[0] == ((3,), "float64")
