"""Coordinates of hierarchical effects: the maps against changes of variables by automatic differentiation."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.models.eight_schools import eight_schools, eight_schools_noncentred

SIGMA = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
EFFECT = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])


def schools(model):
    return model(SIGMA).condition(y=EFFECT)


@ppl.model
def vector():
    scale = ppl.sample("scale", dist.HalfNormal(1.0).expand([3]))
    theta = ppl.sample("theta", dist.Normal(jnp.arange(3.0), scale).expand([2, 3]).to_event(1))
    ppl.sample("y", dist.Normal(theta, 1.0).to_event(1))


@ppl.model
def families():
    tau = ppl.sample("tau", dist.HalfNormal(1.0))
    a = ppl.sample("a", dist.LogNormal(0.3, tau).expand([2]))
    b = ppl.sample("b", dist.StudentT(4.0, a[0], tau))
    c = ppl.sample("c", dist.Laplace(b, jnp.exp(b)))
    d = ppl.sample("d", dist.Logistic(c, a[1]))
    e = ppl.sample("e", dist.Cauchy(0.0, tau))
    ppl.sample("y", dist.Normal(a.sum() + b + c + d + e, 1.0))


@ppl.model
def nested(state, county, n_state, n_county):
    top = ppl.sample("top", dist.Normal(0.0, 2.0))
    wide, narrow = (ppl.sample(n, dist.HalfNormal(1.0)) for n in ("wide", "narrow"))
    mean = ppl.plate("state", lambda _: ppl.sample("mean", dist.Normal(top, wide)), n_state)
    effect = ppl.plate("county", lambda s: ppl.sample("effect", dist.Normal(mean[s], narrow)), state)
    ppl.plate("row", lambda c: ppl.sample("y", dist.Normal(effect[c], 1.0)), county)


@ppl.model
def slopes(code, x, groups):
    """Two effects for each group, written with standard variables, in a plate and then gathered, or gathered first."""
    tau = ppl.sample("tau", dist.HalfNormal(1.0).expand([2]))
    mu = ppl.sample("mu", dist.Normal(0.0, 1.0).expand([2]))

    @ppl.plate("group", groups)
    def both(_):
        e = ppl.sample("e", dist.Normal(0.0, 1.0).expand([2]))
        return mu + tau * e

    late = ppl.sample("late", dist.Normal(0.0, 1.0).expand([groups]))
    level = ppl.sample("level", dist.HalfNormal(1.0))

    @ppl.plate("row", code, x)
    def rows(c, x):
        ppl.sample("y", dist.Normal(both[c, 0] + both[c, 1] * x + level * late[c], 1.0))


@ppl.model
def ragged(table):
    mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
    tau = ppl.sample("tau", dist.HalfNormal(1.0))

    @ppl.plate("unit", table)
    def unit(rows):
        a = ppl.sample("a", dist.Normal(mu, tau))
        e = ppl.sample("e", dist.Normal(0.0, 1.0))
        ppl.plate("obs", lambda row: ppl.sample("y", dist.Normal(a + tau * e * row["x"], 1.0)), rows)


@ppl.model
def chain(y):
    q = ppl.sample("q", dist.HalfNormal(1.0))

    def step(x, y):
        shock = ppl.sample("shock", dist.Normal(0.0, q))
        ppl.sample("y", dist.Normal(0.5 * x + shock, 1.0))
        return 0.5 * x + shock

    ppl.markov("time", step, init=0.0, xs=y)


@ppl.model
def two_plates():
    tau = ppl.sample("tau", dist.HalfNormal(1.0))

    @ppl.plate("row", 3)
    def row(_):
        s = ppl.sample("s", dist.LogNormal(0.0, tau))
        ppl.plate("column", lambda _: ppl.sample("theta", dist.Normal(0.0, s)), 2)


def funnel():
    @ppl.model
    def model():
        v = ppl.sample("v", dist.Normal(0.0, 3.0))
        ppl.sample("x", dist.Normal(0.0, jnp.exp(v / 2)).expand([4]))

    return model()


RNG = np.random.default_rng(0)
CODE = np.array([0, 0, 1, 2, 2, 3])
PROGRAMS = {
    "eight_schools": lambda: schools(eight_schools),
    "eight_schools_noncentred": lambda: schools(eight_schools_noncentred),
    "vector": lambda: vector().condition(y=np.ones((2, 3))),
    "families": lambda: families().condition(y=1.0),
    "nested": lambda: nested(np.array([0, 0, 1, 1]), CODE, 2, 4).condition(y=np.arange(6.0)),
    "slopes": lambda: slopes(CODE, np.linspace(-1, 1, 6), 4).condition(y=np.arange(6.0)),
    "ragged": lambda: ragged(ppl.ragged(CODE, x=np.linspace(-1, 1, 6))).condition(y=np.arange(6.0)),
    "chain": lambda: chain(np.arange(4.0)).condition(y=np.arange(4.0)),
    "two_plates": lambda: two_plates(),
    "funnel": funnel,
}
FOUND = {
    "eight_schools": {"theta": (False, 0)},
    "eight_schools_noncentred": {"t": (True, 0)},
    "vector": {"theta": (False, 0)},
    "families": {"a": (False, 0), "b": (False, 1), "c": (False, 2), "d": (False, 3), "e": (False, 0)},
    "nested": {"mean": (False, 0), "effect": (False, 1)},
    "slopes": {"e": (True, 0), "late": (True, 0)},
    "ragged": {"a": (False, 0), "e": (True, 0)},
    "chain": {"shock": (False, 0)},
    "two_plates": {"s": (False, 0), "theta": (False, 1)},
    "funnel": {"x": (False, 0)},
}


@functools.cache
def compiled(name):
    with jax.enable_x64(True):
        return ppl.compile(PROGRAMS[name]())


@jax.jit
def both_ways(moved, x):
    """The density of x, by itself and by a change of variables, with gradients; z, and x again."""

    def change(x):
        return moved.density(moved.base(x)) + jnp.linalg.slogdet(jax.jacfwd(moved.base)(x))[1]

    z = moved.base(x)
    return jax.value_and_grad(moved)(x), jax.value_and_grad(change)(x), z, moved.inverse(z)


def close(a, b, limit=1e-12):
    """Relative to the size of what is compared."""
    assert np.max(np.abs(np.asarray(a) - np.asarray(b))) <= limit * (1.0 + np.max(np.abs(np.asarray(b))))


def test_enough_models():
    assert set(PROGRAMS) == set(FOUND) and len(PROGRAMS) == 10


@pytest.mark.parametrize("name", PROGRAMS)
def test_effects_are_found(name):
    movable = compiled(name).movable
    found = {
        site: (bool(movable.standard[i]), int(movable.levels[i]))
        for g, site in enumerate(movable.names)
        for i in np.flatnonzero(movable.groups == g)[:1]
    }
    assert found == FOUND[name]
    slots = compiled(name).layout
    every = np.concatenate([np.arange(slots[n].start, slots[n].stop) for n in movable.names])
    np.testing.assert_array_equal(movable.columns, every)


SLOW = {"families", "vector", "ragged", "two_plates", "funnel"}  # compile long
every = pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in PROGRAMS])


@every
def test_density_gradient_and_maps_are_those_of_a_change_of_variables(name):
    density = compiled(name)
    rng = np.random.default_rng(1)
    movable, x = density.movable, 0.7 * rng.normal(size=density.dim)
    size = len(movable.columns)
    with jax.enable_x64(True):
        for k, t in ((rng.uniform(0.0, 3.0, size), rng.normal(size=size)), (np.zeros(size), np.zeros(size))):
            moved = movable.at(k, t)
            ours, exact, z, again = both_ways(moved, x)
            close(ours[0], exact[0])
            close(ours[1], exact[1])
            close(again, x)
        # for k = 0 (the last) x is the standard effect
        m, s = movable.places(z[None])
        effects = np.where(movable.standard, z[movable.columns], (z[movable.columns] - m[0]) / s[0])
        close(x[movable.columns], effects)
        rest = np.setdiff1d(np.arange(density.dim), movable.columns)
        np.testing.assert_array_equal(x[rest], z[rest])


def test_much_information_is_the_centred_form():
    density = compiled("eight_schools")
    with jax.enable_x64(True):
        moved = density.movable.at(np.full(8, 1e10), np.full(8, 3.0))
        z = np.random.default_rng(0).normal(size=(2, 10))
        x = np.stack([moved.inverse(row) for row in z])
    close(x[:, 2:] / 1e5 + 3.0, z[:, 2:], 1e-4)  # whatever mu and tau are


QUICK = {("eight_schools_noncentred", "numbers")}
HANDS = [
    pytest.param(name, form, marks=[] if (name, form) in QUICK else pytest.mark.slow)
    for name in ("eight_schools", "eight_schools_noncentred", "nested", "ragged")
    for form in ("centred", "noncentred", "numbers")
]


@pytest.mark.parametrize(("name", "form"), HANDS)
def test_by_hand_everything_speaks_of_the_users_model(name, form):
    plain, rng = compiled(name), np.random.default_rng(2)
    choice = {n: (0.8, 0.3) for n in FOUND[name]} if form == "numbers" else form
    with jax.enable_x64(True):
        density = ppl.compile(PROGRAMS[name](), reparameterize=choice)
        assert density.movable is None and density.labels == plain.labels and density.dim == plain.dim
        x = 0.7 * rng.normal(size=plain.dim)
        values = density.constrain(x)
        z = plain.unconstrain(values)
        close(density.unconstrain(values), x)
        jacobian = jax.jacfwd(lambda x: plain.unconstrain(density.constrain(x)))(x)
        change = np.linalg.slogdet(jacobian)[1]
        close(density(x), plain(z) + change)
        for method in ("generated", "pointwise", "log_prior", "factors"):
            ours, theirs = getattr(density, method)(x), getattr(plain, method)(z)
            assert list(ours) == list(theirs)
            for site in ours:
                close(ours[site], theirs[site])
        prior, likelihood = density.split()
        close(prior(x) + likelihood(x), density(x))
        close(likelihood(x), plain.split()[1](z))
        key = jax.random.key(3)
        close(plain.unconstrain(density.constrain(density.prior(key))), plain.prior(key), 1e-10)
        site = next(iter(FOUND[name]))
        conditional = density.restrict(site, x)
        y = conditional.start() + 0.1
        close(conditional(y) - conditional(conditional.start()), density(conditional.merge(y)) - density(x), 1e-11)
        np.testing.assert_array_equal(density.diagnose(x)["value"][site], values[site])


def test_by_hand_noncentred_is_what_a_user_would_write():
    with jax.enable_x64(True):
        ours = ppl.compile(schools(eight_schools), reparameterize={"theta": "noncentred"})
        theirs, back = compiled("eight_schools_noncentred"), compiled("eight_schools")
        again = ppl.compile(schools(eight_schools_noncentred), reparameterize={"t": "centred"})
        x = np.random.default_rng(0).normal(size=10)
        close(ours(x), theirs(x))
        close(again(x), back(x))


def test_what_is_learned_is_chosen():
    with jax.enable_x64(True):
        program = PROGRAMS["nested"]()
        assert ppl.compile(program, reparameterize=False).movable is None
        assert ppl.compile(program, reparameterize=True).movable.names == ("mean", "effect")
        assert ppl.compile(program, reparameterize={"mean": "learned"}).movable.names == ("mean", "effect")
        left = ppl.compile(program, reparameterize={"mean": "centred"})
        assert left.movable.names == ("effect",)
        x = np.random.default_rng(0).normal(size=left.dim)
        assert left(x) == compiled("nested")(x)
        moved = ppl.compile(program, reparameterize={"mean": "noncentred"}).movable
        assert moved.names == ("effect",)
        ours, exact, _, again = both_ways(moved.at(np.ones(4), np.ones(4)), x)
        close(ours[1], exact[1])
        close(again, x)


def test_a_scale_that_is_known_or_computed_from_the_effect_is_left_alone():
    @ppl.model
    def plain():
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        theta = ppl.sample("theta", dist.Normal(mu, 2.0).expand([3]))
        e = ppl.sample("e", dist.Normal(0.0, 1.0))
        ppl.sample("y", dist.Normal(theta.sum() + e * e, jnp.exp(e)))

    @ppl.model
    def walk():
        s = ppl.sample("s", dist.HalfNormal(1.0))
        ppl.markov("time", lambda x, t: ppl.sample("x", dist.Normal(x, s)), init=0.0, xs=4)

    assert ppl.compile(plain().condition(y=0.0)).movable is None
    assert ppl.compile(walk()).movable is None


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("non-centred", "none of 'centred'"),
        ({"thet": "centred"}, "did you mean 'theta'|not a latent site"),
        ({"tau": "noncentred"}, "HalfCauchy is none of"),
        ({"theta": (-1.0, 0.0)}, "k not negative"),
        ({"theta": (np.ones(3), 0.0)}, "have shapes"),
        (3, "write True"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(choice, message):
    with pytest.raises(ppl.ModelError, match=message):
        ppl.compile(schools(eight_schools), reparameterize=choice)


def test_a_chain_cannot_be_moved_by_hand():
    @ppl.model
    def walk():
        s = ppl.sample("s", dist.HalfNormal(1.0))
        ppl.markov("time", lambda x, t: ppl.sample("x", dist.Normal(x, s)), init=0.0, xs=4)

    with pytest.raises(ppl.ModelError, match="as along a chain"):
        ppl.compile(walk(), reparameterize={"x": "noncentred"})


def test_the_normal_density_loses_nothing_in_a_narrow_neck():
    """At a scale of e^-20 beside a location of 3, theta - mu has no digit left in float32; the density has all."""
    with jax.enable_x64(False):
        density = ppl.compile(schools(eight_schools))
        moved = density.movable.at(np.zeros(8), np.zeros(8))
        x = np.linspace(-1.0, 1.0, 10).astype(np.float32)
        x[:2] = 3.0, -20.0
        value = float(moved(x))
    tau = math.exp(-20.0)
    exact = -0.5 * (3 / 5) ** 2 - math.log(5) - 0.5 * math.log(2 * math.pi)
    exact += math.log(2 / (math.pi * 5)) - math.log1p((tau / 5) ** 2) - 20.0
    exact += float(np.sum(-0.5 * x[2:].astype(float) ** 2 - 0.5 * math.log(2 * math.pi)))
    theta = 3.0 + tau * x[2:]
    exact += float(np.sum(-0.5 * ((EFFECT - theta) / SIGMA) ** 2 - np.log(SIGMA) - 0.5 * math.log(2 * math.pi)))
    assert abs(value - exact) < 1e-4


def test_with_sites_that_are_summed_out_or_kept_as_codes():
    @ppl.model
    def mixed(n):
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        tau = ppl.sample("tau", dist.HalfNormal(1.0))

        @ppl.plate("i", n)
        def one(_):
            theta = ppl.sample("theta", dist.Normal(mu, tau))
            z = ppl.sample("z", dist.Bernoulli(0.3))
            ppl.sample("y", dist.Normal(jnp.where(z == 1, theta + 2.0, theta), 1.0))

    with jax.enable_x64(True):
        program, rng = mixed(3).condition(y=np.arange(3.0)), np.random.default_rng(0)
        plain, x = ppl.compile(program), rng.normal(size=5)
        ours, exact, _, again = both_ways(plain.movable.at(np.linspace(0, 2, 3), np.ones(3)), x)
        close(ours[0], exact[0])
        close(ours[1], exact[1])
        close(again, x)
        kept = ppl.compile(program, marginalize=False)
        moved = ppl.compile(program, marginalize=False, reparameterize="noncentred")
        full = np.concatenate([x, [0.0, 1.0, 1.0]])
        values = moved.constrain(full)
        close(moved.unconstrain(values), full)
        close(moved(full), kept(kept.unconstrain(values)) + 3 * np.log(values["tau"]))


def test_elements_of_a_plate_have_their_conditionals_in_coordinates_by_hand():
    with jax.enable_x64(True):
        density = ppl.compile(schools(eight_schools), reparameterize="noncentred")
        x = np.random.default_rng(0).normal(size=10)
        each = density.restrict("theta", x, each="school")
        y = each.start().at[3].add(0.5)
        change = density(each.merge(y)) - density(x)
        close(each.element(3)(y[3]) - each.element(3)(each.start()[3]), change)
        close(each.scores(y).sum() - each.scores(each.start()).sum(), change)


def test_subsampled_plates_are_refused_in_coordinates_by_hand():
    @ppl.model
    def big(y):
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        tau = ppl.sample("tau", dist.HalfNormal(1.0))
        theta = ppl.plate("group", lambda _: ppl.sample("theta", dist.Normal(mu, tau)), 2)
        ppl.plate("row", lambda y: ppl.sample("y", dist.Normal(theta[0], 1.0)), y, subsample=3)

    program = big(np.arange(9.0)).condition(y=np.arange(9.0))
    assert ppl.compile(program).dim == 4
    with pytest.raises(ppl.ModelError, match="subsampled plates"):
        ppl.compile(program, reparameterize="noncentred")
