"""Full conditionals of a plate's elements are those of the density, cost what the plate costs, or are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist

RNG = np.random.default_rng(3)


@ppl.model
def schools(sigma):
    mu = ppl.sample("mu", dist.Normal(0.0, 5.0))
    tau = ppl.sample("tau", dist.HalfCauchy(5.0))

    @ppl.plate("school", sigma)
    def theta(s):
        theta = ppl.sample("theta", dist.Normal(mu, tau))
        ppl.sample("y", dist.Normal(theta, s))
        return theta

    ppl.record("mean", theta.mean())


@ppl.model
def nested(x):
    scale = ppl.sample("scale", dist.HalfNormal(1.0))

    @ppl.plate("a", x)
    def _(row):
        alpha = ppl.sample("alpha", dist.Normal(0.0, scale))

        @ppl.plate("b", row)
        def _(entry):
            beta = ppl.sample("beta", dist.LogNormal(alpha, 0.5))
            share = ppl.sample("share", dist.Dirichlet(jnp.array([1.0, 2.0, 0.5])))
            upper = ppl.sample("upper", dist.Uniform(0.0, beta))
            ppl.sample("y", dist.Normal(entry * share[0] + upper, beta))


@ppl.model
def walks(count):
    drift = ppl.sample("drift", dist.Normal(0.0, 1.0))

    @ppl.plate("series", count)
    def _():
        start = ppl.sample("start", dist.Normal(drift, 1.0))

        def step(x, _):
            x = ppl.sample("x", dist.Normal(x, 0.3))
            ppl.sample("seen", dist.StudentT(3.0, x, 1.0))
            return x

        ppl.markov("time", step, init=start, xs=4)


@ppl.model
def counties(codes, x):
    scale = ppl.sample("scale", dist.HalfNormal(1.0))

    @ppl.plate("county", 4)
    def effects():
        level = ppl.sample("level", dist.Normal(0.0, scale))
        slope = ppl.sample("slope", dist.Normal(jnp.array([1.0, 2.0]), scale).to_event(1))
        return level, slope

    level, slope = effects

    @ppl.plate("row", codes, x)
    def _(c, v):
        ppl.sample("y", dist.Normal(level[c] + slope[c] @ v, scale))


@ppl.model
def summed_out(x):
    @ppl.plate("i", x)
    def _(v):
        theta = ppl.sample("theta", dist.Normal(0.0, 1.0))
        k = ppl.sample("k", dist.Bernoulli(0.3))
        ppl.sample("y", dist.Normal(theta + k * v, 1.0))


@ppl.model
def centre():
    shift = ppl.plate("i", lambda: ppl.sample("shift", dist.Normal(0.0, 1.0)), 4)
    ppl.plate("i", lambda: ppl.sample("theta", dist.Normal(shift.mean(), 1.0)), 4)


ROWS = RNG.integers(4, size=9)


@ppl.model
def twice():
    ppl.plate("b", lambda: ppl.sample("w", dist.Normal(0.0, 1.0)), 2)
    ppl.plate("a", lambda: ppl.plate("b", lambda: ppl.sample("x", dist.Normal(0.0, 1.0)), 2), 3)


@ppl.model
def scoped():
    total = ppl.sample("total", dist.Normal(0.0, 1.0))
    ppl.plate("school", lambda: ppl.sample("first", dist.Normal(total, 1.0)), 5)
    ppl.call("sub", schools(np.ones(3)))


PROGRAMS = {
    "schools": (schools(np.arange(1.0, 6.0)), "theta", "school"),
    "inner": (nested(RNG.normal(size=(2, 3))), ("upper", "share"), "b"),
    "outer, all of its sites": (nested(RNG.normal(size=(2, 3))), ("alpha", "upper", "beta", "share"), "a"),
    "chains in a plate": (walks(4), ("x", "start"), "series"),
    "scoped": (scoped(), "sub/theta", "sub/school"),
    "read by rows": (counties(ROWS, RNG.normal(size=(9, 2))), "slope", "county"),
    "reading all of another": (centre(), "theta", "i"),
    "one element": (schools(np.ones(1)), "theta", "school"),
}


QUICK = ("schools", "read by rows", "reading all of another", "outer, all of its sites")


@pytest.mark.standard_promotion
@pytest.mark.parametrize("case", [pytest.param(c, marks=() if c in QUICK else pytest.mark.slow) for c in PROGRAMS])
def test_each_element_has_the_conditional_of_the_density(case):
    program, names, plate = PROGRAMS[case]
    drawn = program.sample(1)
    observed = {n: drawn[n] for n in ("y", "seen", "sub/y") if n in program.sites}
    density = ppl.compile(program.condition(observed))
    z = jnp.asarray(np.random.default_rng(1).normal(size=density.dim))
    shape = (density.restrict(names, z, each=plate).count, density.restrict(names, z, each=plate).dim)
    noise = np.random.default_rng(2).normal(size=shape)

    @jax.jit
    def compared(density, z, noise):
        elements = density.restrict(names, z, each=plate)
        x, index = elements.start(), jnp.arange(elements.count)
        moved = x + noise
        change = jax.vmap(lambda i, a, b: elements.element(i)(b) - elements.element(i)(a))(index, x, moved)
        there = jax.vmap(lambda i: elements.merge(jnp.where((index == i)[:, None], moved, x)))(index)
        whole = density.restrict(elements.names, z)
        gradient = jax.grad(whole)(whole.start())
        slopes = jax.vmap(lambda i, a: jax.grad(elements.element(i))(a))(index, x)
        gradient = [gradient[slot.start : slot.stop].reshape(len(x), -1) for slot in whole.slots.values()]
        same = elements.merge(x), density(elements.merge(moved)) - density(z)
        return change, jax.vmap(density)(there) - density(z), slopes, jnp.concatenate(gradient, axis=1), *same

    change, truth, slopes, gradient, same, joint = compared(density, z, noise)
    np.testing.assert_array_equal(same, z)
    np.testing.assert_allclose(change, truth, rtol=1e-9, atol=1e-9)  # one element moves, the others do not
    np.testing.assert_allclose(change.sum(), joint, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(slopes, gradient, rtol=1e-9, atol=1e-9)


def test_a_ragged_plate_moves_its_padding_by_standard_normals():
    table = ppl.ragged(np.array([0, 0, 1, 2, 2, 2]), x=np.arange(6.0))

    @ppl.model
    def rated(groups):
        @ppl.plate("item", groups)
        def _(rows):
            level = ppl.sample("level", dist.Normal(0.0, 1.0))
            ppl.plate("rating", lambda row: ppl.sample("r", dist.Normal(level, 1.0 + row["x"])), within=rows)

    program = rated(table)
    density = ppl.compile(program)
    z = jnp.asarray(np.random.default_rng(0).normal(size=density.dim))

    @jax.jit
    def both(density, z):
        elements, whole = density.restrict("r", z, each="rating"), density.restrict("r", z)
        values = jax.vmap(lambda i, a: elements.element(i)(a))(jnp.arange(elements.count), elements.start())
        return values.sum(), whole(whole.start())

    np.testing.assert_allclose(*both(density, z), rtol=1e-12)


def work(function, *args):
    """Array elements that a function computes, in equations outside of loops."""

    def count(jaxpr):
        total = 0
        for eqn in jaxpr.eqns:
            total += sum(int(np.prod(v.aval.shape)) for v in eqn.outvars)
            inner = eqn.params.get("jaxpr")
            total += count(inner.jaxpr) if inner is not None else 0
        return total

    return count(jax.make_jaxpr(function)(*args).jaxpr)


@ppl.model
def grouped(count, codes):
    theta = ppl.plate("school", lambda: ppl.sample("theta", dist.Normal(0.0, 1.0)), count)
    ppl.plate("row", lambda c: ppl.sample("y", dist.Normal(theta[c], 1.0)), codes)


@pytest.mark.parametrize(
    "make", [lambda n: schools(np.ones(n)), lambda n: grouped(n, np.arange(100) % n)], ids=["in", "out"]
)
def test_all_elements_cost_what_one_evaluation_of_the_plate_costs(make):
    costs = {}
    for size in (20, 40, 80):
        program = make(size)
        density = ppl.compile(program.condition(y=np.zeros(program.sites["y"].shape)))

        def every(z, x, density=density):
            elements = density.restrict("theta", z, each="school")
            return jax.vmap(lambda i, a: jax.value_and_grad(elements.element(i))(a))(jnp.arange(elements.count), x)

        costs[size] = work(every, jnp.zeros(density.dim), jnp.zeros((size, 1)))
    first, second = costs[40] - costs[20], costs[80] - costs[40]
    assert second == 2 * first, costs  # affine in the number of elements


# ---------------------------------------------------------------------------------------------- refusals


@ppl.model
def summed():
    theta = ppl.plate("i", lambda: ppl.sample("theta", dist.Normal(0.0, 1.0)), 4)
    ppl.sample("total", dist.Normal(theta.sum(), 1.0))


@ppl.model
def gathered(codes):
    theta = ppl.plate("i", lambda: ppl.sample("theta", dist.Normal(0.0, 1.0)), 4)
    ppl.plate("j", lambda c: ppl.sample("obs", dist.Normal(theta[c] - theta[c - 1], 1.0)), codes)


@ppl.model
def rolled():
    theta = ppl.plate("i", lambda: ppl.sample("theta", dist.Normal(0.0, 1.0)), 4)
    ppl.plate("i", lambda before: ppl.sample("next", dist.Normal(before, 1.0)), jnp.roll(theta, 1))


@ppl.model
def through_another():
    theta = ppl.plate("i", lambda: ppl.sample("theta", dist.Normal(0.0, 1.0)), 4)
    ppl.plate("i", lambda: ppl.sample("shift", dist.Normal(theta.mean(), 1.0)), 4)


@pytest.mark.standard_promotion
@pytest.mark.parametrize(
    "program, message",
    [
        (summed_out(np.ones(4)), "site 'k' is summed out"),
        (summed(), "'total' stands outside of plate 'i'"),
        (gathered(np.array([0, 1, 1])), "'obs' stands outside of plate 'i'"),
        (rolled(), "'next' reads other elements of the plate"),
        (through_another(), "'shift' reads other elements of the plate"),
    ],
    ids=["summed out", "summed", "gathered", "rolled", "through another"],
)
def test_elements_that_others_read_are_refused_with_the_line(program, message):
    density = ppl.compile(program)
    with pytest.raises(ppl.ModelError, match=message) as caught:
        density.restrict("theta", jnp.zeros(density.dim), each="i")
    assert "test_elements.py" in str(caught.value) and "Leave each= out" in str(caught.value)


def test_a_plate_that_is_none_is_refused():
    density = ppl.compile(schools(np.ones(3)))
    z = jnp.zeros(density.dim)
    with pytest.raises(ppl.ModelError, match="'mu' does not stand in a plate"):
        density.restrict("mu", z, each="school")
    with pytest.raises(ppl.ModelError, match="Did you mean 'school'"):
        density.restrict("theta", z, each="schol")
    with pytest.raises(ppl.ModelError, match="not a latent site"):
        density.restrict("thetta", z, each="school")
    chains = ppl.compile(walks(3))
    with pytest.raises(ppl.ModelError, match="steps of a chain depend on each other"):
        chains.restrict("x", jnp.zeros(chains.dim), each="time")
    rows = ppl.compile(counties(ROWS, np.zeros((9, 2))))
    with pytest.raises(ppl.ModelError, match="a Block of its own"):
        rows.restrict(("level", "slope"), jnp.zeros(rows.dim), each="county")
    both = ppl.compile(twice())
    with pytest.raises(ppl.ModelError, match="do not stand in the same plates"):
        both.restrict(("x", "w"), jnp.zeros(both.dim), each="b")
