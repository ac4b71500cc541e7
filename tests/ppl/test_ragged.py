"""Ragged plates against loops over the rows of the tidy table."""

import itertools
import math

import jax
import jax.numpy as jnp
import jax.scipy.stats as jss
import numpy as np
import pytest
import scipy.stats as st

import ppl
from ppl import dist
from ppl.ragged import rung

pytestmark = pytest.mark.standard_promotion


@ppl.model
def varying(table):
    mu = ppl.sample("mu", dist.Normal(0.0, 2.0))
    tau = ppl.sample("tau", dist.HalfNormal(1.0))

    @ppl.plate("unit", table)
    def unit(rows):
        a = ppl.sample("a", dist.Normal(mu, tau))

        @ppl.plate("obs", within=rows)
        def obs(row):
            e = ppl.sample("e", dist.LogNormal(0.3, 0.7))
            ppl.sample("y", dist.Normal(a * row["x"], e))
            return a * e

        ppl.record("total", rows.sum(obs))


def loop(values, codes, x, y):
    """Log density of constrained values, row by row."""
    total = jss.norm.logpdf(values["mu"], 0.0, 2.0) + math.log(2) + jss.norm.logpdf(values["tau"])
    for a in values["a"]:
        total += jss.norm.logpdf(a, values["mu"], values["tau"])
    for i, g in enumerate(codes):
        e = values["e"][i]
        total += jss.norm.logpdf(jnp.log(e), 0.3, 0.7) - jnp.log(e)
        total += jss.norm.logpdf(y[i], values["a"][g] * x[i], e)
    return total


def tidy_of(z, density):
    """Constrained values in the tidy order, and the padding's coordinates, read off the labels."""
    labels, n = density.labels, {"a": 0, "e": 0}
    found, padding = {}, []
    for i, label in enumerate(labels):
        if "padding" in label:
            padding.append(i)
        else:
            found[label] = i
            for name in n:
                n[name] += label.startswith(name + "[")
    values = {
        "mu": z[found["mu"]],
        "tau": jnp.exp(z[found["tau"]]),
        "a": jnp.stack([z[found[f"a[{g}]"]] for g in range(n["a"])]),
        "e": jnp.stack([jnp.exp(z[found[f"e[{i}]"]]) for i in range(n["e"])]),
    }
    return values, z[jnp.array(padding, int)]


TABLES = {
    "several groups": ([1, 0, 1, 2, 0, 1, 3, 1], None),
    "one group": ([0, 0, 0], None),
    "one row": ([0], None),
    "one row each": ([2, 1, 0], None),
    "empty groups first, between and last": ([3, 1, 3, 3, 3, 3], 6),
    "exactly a bucket": ([0, 1, 2, 3, 4, 5] * 2, None),
}


SLOW = ("exactly a bucket", "one row each")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in TABLES])
def test_density_and_gradient_equal_a_loop_over_rows(name):
    codes, groups = TABLES[name]
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, len(codes)))
    density = ppl.compile(varying(ppl.ragged(codes, x=x, groups=groups)).condition(y=y))

    def oracle(z):
        values, padding = tidy_of(z, density)
        jacobian = jnp.log(values["tau"]) + jnp.sum(jnp.log(values["e"]))
        return loop(values, codes, x, y) + jacobian + jnp.sum(jss.norm.logpdf(padding))

    compiled, both = jax.jit(jax.value_and_grad(lambda d, z: d(z), argnums=1)), jax.jit(jax.value_and_grad(oracle))
    for _ in range(3):
        z = rng.normal(size=density.dim)
        value, gradient = compiled(density, z)
        expected, slope = both(z)
        assert abs(value - expected) < 1e-10 * max(1, abs(expected))
        np.testing.assert_allclose(gradient, slope, rtol=0, atol=1e-10 * max(1, np.abs(slope).max()))


def test_values_factors_and_shapes_are_those_of_the_tidy_table():
    codes, x = np.array([1, 0, 1, 4, 1]), np.arange(5.0)
    program = varying(ppl.ragged(codes, x=x, groups=5))
    shapes = {name: (site.shape, site.dims) for name, site in program.sites.items()}
    assert shapes == {
        "mu": ((), ()),
        "tau": ((), ()),
        "a": ((5,), ("unit",)),
        "e": ((5,), ("obs",)),
        "y": ((5,), ("obs",)),
        "total": ((5,), ("unit",)),
    }
    draw = program.sample(3)
    expected = np.zeros(5)
    np.add.at(expected, codes, draw["a"][codes] * draw["e"])
    np.testing.assert_allclose(draw["total"], expected, atol=1e-12)
    factors = program.factors(draw)
    np.testing.assert_allclose(factors["y"], st.norm.logpdf(draw["y"], draw["a"][codes] * x, draw["e"]), atol=1e-10)
    assert factors["a"].shape == (5,)
    expected = jax.jit(lambda values: loop(values, codes, x, values["y"]))(draw)
    np.testing.assert_allclose(program.log_prob(draw), expected, atol=1e-10)
    conditioned = program.condition(y=draw["y"], a=draw["a"])
    np.testing.assert_array_equal(conditioned.conditions["y"], draw["y"])
    np.testing.assert_array_equal(conditioned.observed()["a"], draw["a"])


def test_the_order_of_the_rows_does_not_matter():
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 5, 17)
    codes[:5] = range(5)
    x, y = rng.normal(size=(2, 17))
    values = varying(ppl.ragged(codes, x=x)).sample(0)
    order = rng.permutation(17)
    one = varying(ppl.ragged(codes, x=x)).condition(y=y)
    two = varying(ppl.ragged(codes[order], x=x[order])).condition(y=y[order])
    given = {name: values[name] for name in ("mu", "tau", "a", "e")}
    moved = {**given, "e": values["e"][order]}
    np.testing.assert_allclose(one.log_prob(given), two.log_prob(moved), atol=1e-10)
    np.testing.assert_allclose(one.factors(given)["y"][order], two.factors(moved)["y"], atol=1e-12)


def test_padding_is_standard_normal_and_apart_from_everything_else():
    codes = [0, 0, 1, 2, 2, 2, 2, 2, 4]
    program = varying(ppl.ragged(codes, x=np.arange(9.0), groups=5)).condition(y=np.ones(9))
    density = ppl.compile(program)
    padding = np.array(["padding" in label for label in density.labels])
    assert padding.sum() == density.dim - 2 - 5 - 9
    rng = np.random.default_rng(3)
    z, w = rng.normal(size=(2, density.dim))
    moved = np.where(padding, w, z)
    expected = np.sum(st.norm.logpdf(w[padding]) - st.norm.logpdf(z[padding]))
    assert abs(density(moved) - density(z) - expected) < 1e-10
    hessian = jax.jit(jax.hessian(density))(z)
    np.testing.assert_allclose(hessian[padding][:, padding], -np.eye(padding.sum()), atol=1e-12)
    assert np.abs(hessian[padding][:, ~padding]).max() == 0
    unpacked = program.tidy.unpacked
    for name, value in unpacked(density.generated(z)).items():
        np.testing.assert_array_equal(value, unpacked(density.generated(moved))[name])


@ppl.model
def dawid_skene(table, classes, workers):
    share = ppl.sample("share", dist.Dirichlet(jnp.ones(classes)))

    @ppl.plate("worker", workers)
    def confusion():
        return ppl.sample("confusion", dist.Dirichlet(jnp.ones((classes, classes))))

    @ppl.plate("item", table)
    def item(rows):
        rating = jnp.log(confusion[rows["worker"], :, rows["rating"]])  # (ratings of the item, true class)
        ppl.factor("ratings", jax.nn.logsumexp(jnp.log(share) + rows.sum(rating)))


def test_dawid_skene_in_long_format_equals_enumeration_of_the_true_classes():
    rng = np.random.default_rng(4)
    items, classes, workers = 4, 3, 3
    pairs = [(i, w) for i in range(items) for w in range(workers) if rng.random() < 0.6 or (i, w) == (3, 2)]
    rng.shuffle(pairs)
    item, worker = np.array(pairs).T
    rating = rng.integers(0, classes, len(item))
    program = dawid_skene(ppl.ragged(item, worker=worker, rating=rating, groups=items), classes, workers)
    values = {
        "share": rng.dirichlet(np.ones(classes)),
        "confusion": rng.dirichlet(np.ones(classes), size=(workers, classes)),
    }
    likelihood = 0.0
    for truth in itertools.product(range(classes), repeat=items):
        term = np.prod(values["share"][list(truth)])
        for i, w, r in zip(item, worker, rating, strict=True):
            term *= values["confusion"][w, truth[i], r]
        likelihood += term
    found = program.factors(values)["ratings"]
    assert found.shape == (items,)
    assert abs(found.sum() - np.log(likelihood)) < 1e-8


def test_sizes_of_the_ladder():
    sizes = sorted({rung(n) for n in range(1, 2000)})
    assert sizes[:12] == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
    assert all(n <= rung(n) < 1.5 * n for n in range(1, 2000))


def test_labels_columns_of_groups_and_a_frame():
    labels = np.array(["x", "y", "z"])
    table = ppl.ragged("g", {"g": ["z", "x", "z"], "v": [1.0, 2.0, 3.0]}, groups={"u": [0.1, 0.2, 0.3]}, labels=labels)
    assert (table.n_groups, table.n_rows, table.shape) == (3, 3, (3, 2))

    @ppl.model
    def model(table):
        @ppl.plate("g", table)
        def _(rows):
            ppl.record("u", rows.group["u"])
            ppl.record("mean", rows.mean(rows["v"]))
            ppl.record("count", rows.count)

    draw = model(table).sample()
    assert draw["u"].tolist() == [0.1, 0.2, 0.3]
    assert draw["mean"].tolist() == [2.0, 0.0, 2.0]
    assert draw["count"].tolist() == [1, 0, 2]
    assert model(table).coords["g"].tolist() == ["x", "y", "z"]
    other = ppl.ragged(["c", "a", "c", "b"], v=np.ones(4), groups={"u": np.arange(3.0)})
    assert model(other).coords["g"].tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frame_gives_groups_and_columns(library):
    frame = pytest.importorskip(library).DataFrame({"g": ["b", "a", "b"], "x": [1.0, 2.0, 3.0], "n": [1.0, None, 2.0]})
    table = ppl.ragged("g", frame)

    @ppl.model
    def model(table, column):
        ppl.plate("g", lambda rows: ppl.plate("i", lambda row: ppl.record("v", row[column]), rows), table)

    assert model(table, "x").sample()["v"].tolist() == [1.0, 2.0, 3.0]
    assert model(table, "x").coords["g"].tolist() == ["a", "b"]
    with pytest.raises(ppl.ModelError, match="'n'.*no value.*row 1"):
        model(table, "n").sample()
    with pytest.raises(ppl.ModelError, match="no column 'q'; it has x"):
        model(table, "q").sample()


def test_a_plain_table_is_padded_too():
    @ppl.model
    def model(table):
        b = ppl.sample("b", dist.Normal(0.0, 1.0))

        @ppl.plate("row", table)
        def _(row):
            ppl.sample("y", dist.Normal(b * row["x"], 1.0))

    x, y = np.random.default_rng(5).normal(size=(2, 5))
    program = model(ppl.ragged(None, x=x)).condition(y=y)
    assert program.sites["y"].shape == (5,)
    expected = st.norm.logpdf(0.7) + st.norm.logpdf(y, 0.7 * x).sum()
    assert abs(ppl.compile(program)(np.array([0.7])) - expected) < 1e-10


def test_outer_and_inner_plates_keep_their_axes():
    @ppl.model
    def model(table, w):
        @ppl.plate("k", w)
        def _(s):
            @ppl.plate("g", table)
            def _(rows):
                a = ppl.sample("a", dist.Normal(0.0, s))

                @ppl.plate("j", 2)
                def _():
                    @ppl.plate("r", rows)
                    def _(row):
                        @ppl.plate("i", 4)
                        def _():
                            ppl.sample("y", dist.Normal(a + row["x"], 1.0).expand((3,)).to_event(1))

    codes, x = np.array([2, 0, 2, 1, 2]), np.arange(5.0)
    program = model(ppl.ragged(codes, x=x), np.array([1.0, 2.0, 3.0]))
    assert program.sites["y"].shape == (3, 2, 5, 4, 3)
    assert program.sites["y"].dims[:4] == ("k", "j", "r", "i")
    rng = np.random.default_rng(9)
    draw = {"a": rng.normal(size=(3, 3)), "y": rng.normal(size=(3, 2, 5, 4, 3))}
    factors = program.factors(draw)["y"]
    centre = (draw["a"][:, codes] + x)[:, None, :, None, None]
    np.testing.assert_allclose(factors, st.norm.logpdf(draw["y"], centre).sum(-1), atol=1e-10)
    np.testing.assert_array_equal(program.condition(y=draw["y"]).conditions["y"], draw["y"])


def table(n=3):
    return ppl.ragged(np.arange(n), x=np.ones(n))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ppl.ragged([0, 2], x=[1.0, 2.0]), ["groups=3", "ppl.index"]),
        (lambda: ppl.ragged([0, 5], x=[1.0, 2.0], groups=3), ["row 1", "code 5", "3 groups"]),
        (lambda: ppl.ragged([0, -1], x=[1.0, 2.0]), ["row 1", "code -1"]),
        (lambda: ppl.ragged([0, 1], x=[1.0]), ["'x'", "1 rows", "2 codes"]),
        (lambda: ppl.ragged([], x=[]), ["not none"]),
        (lambda: ppl.ragged([0.5, 1.0], x=[1.0, 2.0]), ["whole numbers"]),
        (lambda: ppl.ragged(["a", None], x=[1.0, 2.0]), ["no label in row 1"]),
        (lambda: ppl.ragged(["a", "q"], x=[1.0, 2.0], labels=["a", "b"]), ["'q'", "labels="]),
        (lambda: ppl.ragged(["a"], x=[1.0], labels=["a", "a"]), ["not all different"]),
        (lambda: ppl.ragged("k", {"x": [1.0]}), ["'k'", "x"]),
        (lambda: ppl.ragged(None, x=[1.0], groups=2), ["without groups"]),
        (lambda: ppl.ragged([0], x=1.0), ["'x'", "single number"]),
        (lambda: ppl.ragged([0, 1, 0], x=[1.0, np.nan, np.nan]), ["'x'", "nan in row 1", "2 of 3"]),
        (lambda: varying(table()).condition(y=np.ones(4)), ["'y'", "(3,)", "(4,)"]),
    ],
)
def test_wrong_tables_are_refused_with_the_line(make, words):
    with pytest.raises(ppl.ModelError) as error:
        make()
    for word in [*words, "test_ragged.py"]:
        assert word in str(error.value)


def nested(table, body):
    ppl.plate("g", body, table)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (lambda t: ppl.plate("g", lambda rows, z: 0.0, t, jnp.ones(7)), ["another length", "groups="]),
        (lambda t: ppl.plate("g", lambda rows: 0.0, t, coords=list("abc")), ["labels="]),
        (
            lambda t: (ppl.plate("g", lambda r: 0.0, t), ppl.plate("g", lambda: 0.0, 3)),
            ["in one place and not in another"],
        ),
        (
            lambda t: ppl.plate("g", lambda r: ppl.plate("a", lambda _: ppl.plate("b", lambda _: 0.0, r), r), t),
            ["'b'", "'a'", "side by side"],
        ),
        (lambda t: ppl.plate("g", lambda rows: 0.0, table()), ["not an argument"]),
    ],
)
def test_wrong_plates_are_refused_with_the_line(body, words):
    with pytest.raises(ppl.ModelError) as error:
        _ = ppl.model(body)(table()).sites
    for word in [*words, "test_ragged.py"]:
        assert word in str(error.value)


@pytest.mark.parametrize("policy", ["marginalize", "impute"])
def test_gaps_in_ragged_data_are_those_of_the_tidy_table(policy):
    @ppl.model
    def model(table):
        @ppl.plate("unit", table)
        def _(rows):
            a = ppl.sample("a", dist.Normal(0.0, 1.0))
            ppl.plate("obs", lambda row: ppl.sample("y", dist.LogNormal(a + row["x"], 1.0)), rows)

    codes, x = np.array([3, 1, 3, 2, 1, 3, 3]), np.arange(7.0)
    y = np.exp(x)
    y[[2, 6]] = np.nan
    program = model(ppl.ragged(codes, x=x, groups=5)).condition(y=y, missing=policy)
    np.testing.assert_array_equal(program.conditions["y"], y)
    a = np.random.default_rng(6).normal(size=5)
    full = y.copy()
    known = ~np.isnan(y)
    expected = st.norm.logpdf(a).sum()
    density = ppl.compile(program)
    values = {"a": a}
    if policy == "impute":
        full[~known] = values["y_missing"] = np.array([2.0, 3.0])
        assert program.coords["y_missing_dim_0"].tolist() == ["obs=2", "obs=6"]
        expected += np.log(values["y_missing"]).sum()
        known[:] = True
    expected += (st.norm.logpdf(np.log(full), a[codes] + x) - np.log(full))[known].sum()
    z = density.unconstrain(values)
    padding = np.array([z for z, label in zip(z, density.labels, strict=True) if "padding" in label])
    assert abs(density(z) - expected - st.norm.logpdf(padding).sum()) < 1e-9
    assert np.isfinite(jax.jit(jax.grad(density))(z)).all()


def test_a_called_program_takes_its_table_from_the_outer_model():
    codes, x = [0, 1, 0], np.arange(3.0)

    @ppl.model
    def outer(table):
        ppl.call("part", varying(table))

    values = varying(ppl.ragged(codes, x=x)).sample(0)
    whole = outer(ppl.ragged(codes, x=x))
    assert whole.sites["part/y"].shape == (3,)
    scoped = {f"part/{name}": value for name, value in values.items()}
    np.testing.assert_allclose(whole.log_prob(scoped), varying(ppl.ragged(codes, x=x)).log_prob(values), atol=1e-10)
    inner = varying(ppl.ragged(codes, x=x))
    with pytest.raises(ppl.ModelError, match="table of its own"):
        _ = ppl.model(lambda: ppl.call("part", inner))().sites


@ppl.model
def series(table):
    decay = ppl.sample("decay", dist.Beta(2.0, 2.0))

    @ppl.plate("unit", table)
    def _(rows):
        start = ppl.sample("start", dist.Normal(0.0, 1.0))

        @ppl.markov("state", init=start, xs=rows)
        def states(state, row):
            return ppl.sample("x", dist.Normal(decay * state + row["u"], 1.0))

        @ppl.markov("level", init=(0.5 * start, 0.0), xs=rows)  # a carry that is a function of the ones before
        def levels(carry, row):
            level = 0.9 * carry[0] + row["u"]
            ppl.sample("y", dist.Normal(level, 0.5))
            return level, carry[1] + 1.0

        ppl.record("last", jnp.stack([states[-1], levels[0][-1], levels[1][-1]]))


def test_series_of_different_lengths_stop_where_they_end():
    codes, u = np.array([2, 0, 2, 2, 4, 0, 2, 2]), np.linspace(-1, 1, 8)
    program = series(ppl.ragged(codes, u=u, groups=5))
    draw = program.sample(1)
    assert draw["x"].shape == draw["y"].shape == (8,) and draw["last"].shape == (5, 3)
    expected, last = st.beta.logpdf(draw["decay"], 2, 2) + st.norm.logpdf(draw["start"]).sum(), []
    for unit, start in enumerate(draw["start"]):
        state, level = start, 0.5 * start
        for i in np.flatnonzero(codes == unit):
            expected += st.norm.logpdf(draw["x"][i], draw["decay"] * state + u[i], 1.0)
            state, level = draw["x"][i], 0.9 * level + u[i]
            expected += st.norm.logpdf(draw["y"][i], level, 0.5)
        last.append([state, level, (codes == unit).sum()])
    np.testing.assert_allclose(draw["last"], last, atol=1e-12)
    values = {name: value for name, value in draw.items() if name != "last"}
    assert abs(program.log_prob(values) - expected) < 1e-10
    density = ppl.compile(program.condition(y=draw["y"]))
    z = density.unconstrain(values)
    np.testing.assert_allclose(program.tidy.unpacked(density.generated(z))["last"], last, atol=1e-12)
    padding = np.array(["padding" in label for label in density.labels])
    jacobian = np.log(draw["decay"] * (1 - draw["decay"]))
    assert abs(density(z) - expected - jacobian - st.norm.logpdf(z[padding]).sum()) < 1e-10
    gradient = jax.jit(jax.grad(density))(z)
    np.testing.assert_allclose(gradient[padding], -z[padding], atol=1e-12)


def test_what_padding_returns_and_computes_reaches_nothing():
    @ppl.model
    def model(table):
        tau = ppl.sample("tau", dist.HalfNormal(1.0))

        @ppl.plate("unit", table)
        def units(rows):
            a = ppl.sample("a", dist.LogNormal(0.0, tau * rows.count))  # a scale of zero, if padding had no rows
            ppl.plate("obs", lambda row: ppl.factor("tilt", -0.1 * a * row["x"] ** 2), rows)
            b = ppl.sample("b", dist.Normal(0.0, 1.0))
            ppl.factor("steep", -tau * jnp.exp(b))  # not finite where b is large
            ppl.sample("c", dist.Normal(0.0, b**2))  # no scale where b is zero
            return a, a**2

        ppl.sample("sum", dist.Normal(jnp.sum(units[0]), 1.0))
        ppl.sample("squares", dist.Normal(jnp.sum(units[1]), 1.0))

    codes, x = np.array([0, 1, 1, 2, 2, 3, 4]), np.arange(7.0)  # five groups of six places
    program = model(ppl.ragged(codes, x=x)).condition(sum=4.0, squares=5.0)
    ppl.check(program)
    density = ppl.compile(program)
    rng = np.random.default_rng(7)
    z = rng.normal(size=density.dim)
    padding = np.array(["padding" in label for label in density.labels])
    (tau, a), (b, c) = (np.exp(z[0]), np.exp(z[1:6])), (z[7:12], z[13:18])
    assert [density.labels[i] for i in (1, 5, 7, 13, 17)] == ["a[0]", "a[4]", "b[0]", "c[0]", "c[4]"]
    expected = math.log(2) + st.norm.logpdf(tau) + np.log(tau) - 0.1 * np.sum(a[codes] * x**2)
    expected += st.norm.logpdf(np.log(a), 0, tau * np.bincount(codes)).sum()
    expected += np.sum(st.norm.logpdf(b) - tau * np.exp(b) + st.norm.logpdf(c, 0.0, b**2))
    expected += st.norm.logpdf(4.0 - a.sum()) + st.norm.logpdf(5.0 - (a**2).sum())
    assert abs(density(z) - expected - st.norm.logpdf(z[padding]).sum()) < 1e-9
    gradient = jax.jit(jax.grad(density))
    near, far = gradient(z), gradient(np.where(padding, 1e4, z))
    assert np.isfinite(near).all() and padding.sum() == 3
    np.testing.assert_allclose(far[~padding], near[~padding], atol=1e-12)


@pytest.mark.slow
def test_a_site_whose_own_axis_are_the_rows_of_its_group():
    @ppl.model
    def model(table, classes):
        share = ppl.sample("share", dist.Dirichlet(jnp.ones(classes)))
        probs = ppl.sample("probs", dist.Dirichlet(jnp.ones((3, classes, 2))))

        @ppl.plate("item", table)
        def _(rows):
            votes = dist.Categorical(jnp.moveaxis(probs[rows["worker"]], 1, 0)).mask(rows.mask).to_event(1)
            ppl.sample("vote", dist.mixture(share, votes), dims={"row": rows})

    rng = np.random.default_rng(8)
    item, worker, vote = np.array([2, 0, 2, 0, 2, 1]), np.array([0, 2, 1, 1, 2, 0]), rng.integers(0, 2, 6)
    program = model(ppl.ragged(item, worker=worker, groups=5), 2)
    assert (program.sites["vote"].shape, program.sites["vote"].dims) == ((6,), ("row",))
    program = program.condition(vote=vote)
    np.testing.assert_array_equal(program.conditions["vote"], vote)
    values = {"share": np.array([0.3, 0.7]), "probs": rng.dirichlet(np.ones(2), size=(3, 2))}
    found = program.factors(values)["vote"]
    terms = np.ones((5, 2)) * values["share"]
    for i, w, v in zip(item, worker, vote, strict=True):
        terms[i] *= values["probs"][w, :, v]
    np.testing.assert_allclose(found, np.log(terms.sum(axis=1)), atol=1e-10)
    ppl.check(program)
    assert program.release().sample(0)["vote"].shape == (6,)


def test_results_of_a_plate_can_be_recorded_outside():
    @ppl.model
    def model(table):
        @ppl.plate("unit", table)
        def units(rows):
            a = ppl.sample("a", dist.Normal(0.0, 1.0))
            return a, ppl.plate("obs", lambda row: a * row["x"], rows)

        ppl.record("centred", units[0] - jnp.sum(units[0]) / 3, dims={"unit": table})
        ppl.record("fitted", units[1], dims={"unit": table, "obs": table.rows})

    codes, x = np.array([1, 0, 1, 2, 1]), np.arange(5.0)
    draw = model(ppl.ragged(codes, x=x)).sample(0)
    np.testing.assert_allclose(draw["centred"], draw["a"] - draw["a"].mean(), atol=1e-12)
    np.testing.assert_allclose(draw["fitted"], draw["a"][codes] * x, atol=1e-12)
    stray = ppl.model(lambda t: ppl.record("r", t["x"][0], dims={"obs": t.rows}))
    with pytest.raises(ppl.ModelError, match="'obs' of the rows of a group, but none of the groups"):
        _ = stray(ppl.ragged(codes, x=x)).sites
