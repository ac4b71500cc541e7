"""Subsampled plates: the estimate averages to the log density over all minibatches."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.minibatch import subset

pytestmark = pytest.mark.standard_promotion
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(2, 6))


@ppl.model
def regression(x, count):
    slope = ppl.sample("slope", dist.Normal(0.0, 2.0))
    scale = ppl.sample("scale", dist.HalfNormal(1.0))

    @ppl.plate("row", x, subsample=count)
    def _(x):
        ppl.sample("y", dist.Normal(slope * x, scale))
        ppl.factor("penalty", -0.1 * slope**2 * x)

    @ppl.plate("row", X[:, None] + 1.0, subsample=count)
    def _(w):
        ppl.sample("v", dist.Normal(slope + w.sum(), scale))


@ppl.model
def grouped(x, outer, inner):
    level = ppl.sample("level", dist.Normal(0.0, 1.0))

    @ppl.plate("group", x, subsample=outer)
    def _(x):
        ppl.sample("u", dist.Normal(level, 2.0))

        @ppl.plate("row", x, subsample=inner)
        def _(x):
            ppl.sample("y", dist.Normal(level * x, 1.0))


def both(density, z, batches):
    """Mean of value and gradient over minibatches."""
    one = jax.jit(jax.vmap(lambda b, z: jax.value_and_grad(lambda z: density.estimate(b, z))(z), in_axes=(0, None)))
    value, gradient = one(batches, z)
    return value.mean(), gradient.mean(axis=0)


def test_the_mean_over_all_minibatches_is_the_log_density():
    density = ppl.compile(regression(X, 2).condition(y=Y, v=-Y))
    z = jnp.array([0.4, -0.3])
    exact, slope = jax.value_and_grad(density.full())(z)
    value, gradient = both(density, z, {"row": np.array(list(itertools.combinations(range(6), 2)))})
    assert abs(value - exact) < 1e-10
    np.testing.assert_allclose(gradient, slope, atol=1e-10)
    whole = ppl.compile(regression(X, 6).condition(y=Y, v=-Y))
    assert isinstance(whole, ppl.Density) and abs(whole(z) - exact) < 1e-12


def test_the_scale_is_right_for_nested_plates():
    x = RNG.normal(size=(3, 4))
    program = grouped(x, 2, 1).condition(u=x[:, 0], y=x + 1.0)
    density = ppl.compile(program)
    z = jnp.array([0.7])
    exact, slope = jax.value_and_grad(density.full())(z)
    groups = list(itertools.combinations(range(3), 2))
    rows = list(itertools.product(range(4), repeat=3))  # a minibatch of one row for each group
    pairs = list(itertools.product(groups, rows))
    batches = {"group": np.array([g for g, _ in pairs]), "row": np.array([r for _, r in pairs])[:, :, None]}
    value, gradient = both(density, z, batches)
    assert abs(value - exact) < 1e-10
    np.testing.assert_allclose(gradient, slope, atol=1e-10)


def test_elements_of_an_outer_plate_have_minibatches_of_their_own():
    @ppl.model
    def model(x):
        ppl.sample("z", dist.Normal(0.0, 1.0))
        ppl.plate("group", lambda x: ppl.plate("row", lambda x: ppl.factor("f", x), x, subsample=1), x)

    # 6 groups with rows worth 0 and 1: one common draw gives 0 or 12, own draws twice a binomial number
    density = ppl.compile(model(np.tile([0.0, 1.0], (6, 1))))
    keys = jax.random.split(jax.random.key(1), 200)
    found = np.asarray(jax.jit(jax.vmap(lambda k: density(k, jnp.zeros(1))))(keys)) + 0.5 * np.log(2 * np.pi)
    assert set(found.round(6)) == {0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0}


def test_one_key_gives_one_minibatch_to_all_statements_of_a_plate():
    @ppl.model
    def twice(x):
        ppl.sample("z", dist.Normal(0.0, 1.0))
        ppl.plate("row", lambda x: ppl.factor("a", x), x, subsample=3)
        ppl.plate("row", lambda x: ppl.factor("b", -x), x, subsample=3)

    density = ppl.compile(twice(np.arange(50.0) ** 2))
    z = np.zeros(1)
    values = [float(density(jax.random.key(i), z)) for i in range(3)]
    np.testing.assert_allclose(values, -0.5 * np.log(2 * np.pi), atol=1e-9)


@pytest.mark.slow
def test_keys_draw_every_element_as_often():
    # 2 x 12 counts of about 4000 with sd about 55: |z| < 4.5 fails by chance less than once in 5000 seeds
    for size, count in ((12, 4), (100, 4)):
        keys = jax.random.split(jax.random.key(3), 12000 if size == 12 else 100000)
        drawn = np.asarray(jax.jit(jax.vmap(lambda k, size=size, count=count: subset(k, size, count)))(keys))
        assert all(len(set(row)) == count for row in drawn[:200].tolist())
        counts = np.bincount(drawn.ravel(), minlength=size)
        p = count / size
        assert len(counts) == size
        assert np.abs(counts - len(keys) * p).max() < 4.5 * np.sqrt(len(keys) * p * (1 - p))


def test_pairs_of_a_small_plate_are_drawn_as_often_by_floyds_algorithm():
    # 66 pairs of 12 by 20000 keys: |z| < 4.5 fails by chance less than once in 2000 seeds
    keys = jax.random.split(jax.random.key(5), 20000)
    drawn = np.sort(np.asarray(jax.jit(jax.vmap(lambda k: subset(k, 100, 2)))(keys)), axis=1)
    places = np.bincount(drawn[:, 0] * 100 + drawn[:, 1], minlength=10000)
    assert places.reshape(100, 100)[np.tril_indices(100)].sum() == 0
    low = (drawn < 10).all(axis=1).sum()  # both among the first ten: 45 of 4950 pairs
    assert abs(low - 20000 / 110) < 4.5 * np.sqrt(20000 / 110)


def test_observed_data_simulation_and_factors_keep_the_whole_plate():
    program = regression(X, 2)
    assert program.sites["y"].shape == (6,)
    draw = program.do(slope=1.0, scale=1.0)
    assert draw.run() is None
    factors = program.factors({"slope": 1.0, "scale": 1.0, "y": Y, "v": Y})
    assert factors["y"].shape == (6,)
    with pytest.raises(ppl.ModelError, match="'y'"):
        program.condition(y=Y[:2])


def test_ragged_groups_are_subsampled_among_those_that_exist():
    codes = np.array([0, 1, 1, 2, 3, 4, 4, 4])

    @ppl.model
    def model(table, count):
        level = ppl.sample("level", dist.Normal(0.0, 1.0))

        @ppl.plate("group", table, subsample=count)
        def _(rows):
            @ppl.plate("row", rows)
            def _(row):
                ppl.sample("y", dist.Normal(level * row["x"], 1.0))

    x, y = np.random.default_rng(1).normal(size=(2, 8))
    program = model(ppl.ragged(codes, x=x), 2).condition(y=y)
    density = ppl.compile(program)
    z = jnp.array([0.7])
    estimates = both(density, z, {"group": np.array(list(itertools.combinations(range(5), 2)))})
    exact = jax.value_and_grad(density.full())(z)
    assert abs(estimates[0] - exact[0]) < 1e-10
    np.testing.assert_allclose(estimates[1], exact[1], atol=1e-10)
    values = np.asarray(jax.jit(jax.vmap(lambda k: density(k, z)))(jax.random.split(jax.random.key(0), 4000)))
    assert abs(values.mean() - exact[0]) < 4 * values.std() / np.sqrt(4000)
    assert len(np.unique(values.round(9))) == 10  # pairs of five groups, never of padding


def test_new_data_of_equal_shape_and_another_count():
    z, key = np.array([0.4, -0.3]), jax.random.key(0)
    one, two = (ppl.compile(regression(X, count).condition(y=Y, v=Y)) for count in (2, 3))
    f = jax.jit(lambda d, k, z: d(k, z))
    assert f(one, key, z) == one(key, z) and f(two, key, z) == two(key, z) != one(key, z)
    size = f._cache_size()
    other = ppl.compile(regression(X + 1, 2).condition(y=Y - 1, v=Y))
    assert f(other, key, z) == other(key, z)
    assert f._cache_size() == size


def latent_inside(x):
    ppl.plate(
        "row", lambda x: ppl.sample("y", dist.Normal(ppl.sample("w", dist.Normal(0.0, 1.0)), 1.0)), x, subsample=2
    )


def two_sizes(x):
    ppl.sample("z", dist.Normal(0.0, 1.0))
    ppl.plate("row", lambda x: ppl.factor("a", x), x, subsample=2)
    ppl.plate("row", lambda x: ppl.factor("b", x), x, subsample=3)


def no_number(x):
    ppl.plate("row", lambda x: ppl.factor("a", x), x, subsample=0.5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ppl.compile(ppl.model(latent_inside)(X).condition(y=Y)), ["'w'", "latent", "'row'", "subsample="]),
        (lambda: ppl.compile(ppl.model(two_sizes)(X)), ["'row'", "2 elements and to 3"]),
        (lambda: ppl.compile(ppl.model(no_number)(X)), ["'row'", "positive int", "0.5"]),
        (lambda: ppl.compile(regression(X, 2).condition(y=Y, v=Y))(np.zeros(2)), ["'row'", "2 of its 6", "full()"]),
        (lambda: ppl.compile(regression(X, 2).condition(y=Y, v=Y)).estimate({}, np.zeros(2)), ["row"]),
    ],
)
def test_what_cannot_be_subsampled_is_refused_with_the_line(make, words):
    with pytest.raises(ppl.ModelError) as error:
        make()
    for word in words:
        assert word in str(error.value)


def test_imputed_elements_of_a_subsampled_plate_are_refused():
    gap = Y.copy()
    gap[2] = np.nan
    program = regression(X, 2).condition(v=Y).condition(y=gap, missing="impute")
    with pytest.raises(ppl.ModelError, match="imputed inside of plate 'row'"):
        ppl.compile(program)
