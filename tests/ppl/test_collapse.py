"""Collapsed densities against plain ones and closed forms; models that must not collapse; data bound anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import ppl
from benchmarks.collapse import difference, programs
from ppl import dist
from ppl.passes import collapse
from ppl.passes.collapse_rows import distinct, room

RNG = np.random.default_rng(5)
N = 2_000
X = RNG.normal(size=(N, 4))
NOISE = RNG.normal(size=N)
GROUP = RNG.integers(0, 12, N)
OTHER = RNG.integers(0, 5, N)
FEW = RNG.integers(0, 5, N) / 2.0
COUNT = RNG.poisson(2.0, N)


@pytest.fixture(autouse=True)
def strict(monkeypatch):
    monkeypatch.setattr(collapse, "FORGIVEN", ())


def notes(density):
    return density.compiled.rewritten.notes


def both(program):
    with jax.enable_x64(True):
        return ppl.compile(program, collapse=False), ppl.compile(program)


def agree(program, close=1e-8):
    plain, collapsed = both(program)
    with jax.enable_x64(True):
        value, gradient = difference(plain, collapsed)
    assert max(value, gradient) < close, (value, gradient)
    return collapsed


def normal(mean):
    """A model with a Gaussian likelihood of the given mean function of (a, b, data)."""

    @ppl.model
    def model(*data):
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        b = ppl.sample("b", dist.Normal(0.0, 1.0))
        sigma = ppl.sample("sigma", dist.HalfNormal(1.0))
        ppl.plate("row", lambda *row: ppl.sample("y", dist.Normal(mean(a, b, *row), sigma)), *data)

    return model


# ------------------------------------------------------------------------------------------------ forms that collapse

SYNTHETIC = programs(1, N)
DEAR = ("overdispersed", "shares", "slopes")  # to compile


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in DEAR else n for n in SYNTHETIC])
def test_the_models_of_the_benchmark_collapse_and_stay_the_same(name):
    assert notes(agree(SYNTHETIC[name]))


def _crossed():
    @ppl.model
    def model(g, h):
        a = ppl.sample("a", dist.Normal(np.zeros(12), 1.0).to_event(1))
        b = ppl.sample("b", dist.Normal(np.zeros(5), 1.0).to_event(1))
        sigma = ppl.sample("sigma", dist.HalfNormal(1.0))
        ppl.sample("y", dist.Normal(a[g] + b[h], sigma).to_event(1))

    return model(GROUP, OTHER).condition(y=NOISE)


def _panel():
    @ppl.model
    def model(x):
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        sigma = ppl.sample("sigma", dist.HalfNormal(1.0))

        @ppl.plate("unit", x)
        def _(x):
            theta = ppl.sample("theta", dist.Normal(mu, 1.0))
            ppl.plate("time", lambda x: ppl.sample("y", dist.Normal(theta + mu * x, sigma)), x)

    return model(X.reshape(40, 200)[:, :150]).condition(y=RNG.normal(size=(40, 150)))


def _masked():
    y = NOISE.copy()
    y[::7] = np.nan
    return normal(lambda a, b, x: a + b * x)(X[:, 0]).condition(missing="marginalize", y=y)


def _random_slopes():
    @ppl.model
    def model(g, x):
        beta = ppl.sample("beta", dist.Normal(np.zeros((12, 4)), 1.0).to_event(2))
        sigma = ppl.sample("sigma", dist.HalfNormal(1.0))
        ppl.plate("row", lambda g, x: ppl.sample("y", dist.Normal(beta[g] @ x, sigma)), g, x)

    return model(GROUP, X).condition(y=NOISE)


def _unit_scale():
    @ppl.model
    def model(x):
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        b = ppl.sample("b", dist.Normal(0.0, 1.0))
        ppl.sample("y", dist.Normal(a + b * x - b * x**2, 1.0))

    return model(X[:, 0]).condition(y=NOISE)


def _vectors():
    @ppl.model
    def model(x, y):
        mu = ppl.sample("mu", dist.Normal(np.zeros(3), 1.0).to_event(1))
        sigma = ppl.sample("sigma", dist.HalfNormal(np.ones(3)).to_event(1))
        tau = ppl.sample("tau", dist.HalfNormal(1.0))
        ppl.plate("row", lambda x: ppl.sample("y", dist.Normal(mu * x, sigma).to_event(1)), x)
        ppl.plate("other", lambda x: ppl.sample("u", dist.Normal(mu + x, tau).to_event(1)), x)

    return model(X[:, 0], X[:, :3]).condition(y=X[:, 1:], u=X[:, :3])


def _geometric():
    @ppl.model
    def model(g):
        p = ppl.sample("p", dist.Beta(np.ones(12), 2.0).to_event(1))
        ppl.plate("row", lambda g: ppl.sample("y", dist.Geometric(p[g])), g)

    return model(GROUP).condition(y=COUNT)


def _exponential():
    @ppl.model
    def model(x):
        b = ppl.sample("b", dist.Normal(np.zeros(12), 1.0).to_event(1))
        ppl.plate("row", lambda g: ppl.sample("y", dist.Exponential(jnp.exp(b[g]))), x)

    return model(GROUP).condition(y=RNG.gamma(1.0, size=N))


def _factor():
    @ppl.model
    def model(x):
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        ppl.plate("row", lambda x, w: ppl.factor("f", -w * (a - x) ** 2), x, NOISE)

    return model(X[:, 0])


_FORMS = (_crossed, _panel, _vectors, _masked, _random_slopes, _unit_scale, _geometric, _exponential, _factor)
OTHERS = {f.__name__: f for f in _FORMS}


@pytest.mark.parametrize("name", OTHERS)
def test_other_forms_collapse_and_stay_the_same(name):
    assert notes(agree(OTHERS[name]()))


def test_a_regression_has_the_density_of_the_closed_form_and_a_rank_deficient_one_too():
    @ppl.model
    def model(X):
        beta = ppl.sample("beta", dist.Normal(np.zeros(X.shape[1]), 1.0).to_event(1))
        ppl.sample("y", dist.Normal(X @ beta, 0.5))

    wide = np.concatenate([X, X[:, :2], np.zeros((N, 1)), np.ones((N, 1))], axis=1)
    density = agree(model(wide).condition(y=1000.0 + NOISE))
    assert "QR" in notes(density)[0]
    z = RNG.normal(size=density.dim)
    expected = stats.norm.logpdf(z).sum() + stats.norm.logpdf(1000.0 + NOISE, wide @ z, 0.5).sum()
    with jax.enable_x64(True):
        assert np.isclose(float(density(z)), expected, rtol=1e-12)


# ------------------------------------------------------------------------------------------- what must not collapse


def _short():
    return normal(lambda a, b, x: a + b * x)(X[:20, 0]).condition(y=NOISE[:20])


def _curved():
    return normal(lambda a, b, x: a * jnp.exp(b * x))(X[:, 0]).condition(y=NOISE)


def _wide():
    @ppl.model
    def model(X):
        beta = ppl.sample("beta", dist.Normal(np.zeros(X.shape[1]), 1.0).to_event(1))
        ppl.sample("y", dist.Normal(X @ beta, 1.0))

    return model(RNG.normal(size=(80, 90))).condition(y=NOISE[:80])


def _own_scales():
    @ppl.model
    def model(x):
        a = ppl.sample("a", dist.Normal(0.0, 1.0))

        @ppl.plate("row", x)
        def _(x):
            s = ppl.sample("s", dist.HalfNormal(1.0))
            ppl.sample("y", dist.Normal(a * x, s))

    return model(X[:, 0]).condition(y=NOISE)


def _student():
    @ppl.model
    def model(x):
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        ppl.plate("row", lambda x: ppl.sample("y", dist.StudentT(3.0, a * x, 1.0)), x)

    return model(X[:, 0]).condition(y=NOISE)


def _chain():
    @ppl.model
    def model(x):
        a = ppl.sample("a", dist.Normal(0.0, 0.3))

        def step(level, x):
            level = a * level + x
            ppl.sample("y", dist.Normal(level, 1.0))
            return level

        ppl.markov("time", step, 0.0, x)

    return model(X[:200, 0]).condition(y=NOISE[:200])


def _branch():
    @ppl.model
    def model(x):
        a = ppl.sample("a", dist.Normal(0.0, 1.0))

        @ppl.plate("row", x)
        def _(x):
            mean = ppl.branch("side", a * x > 0, lambda: a * x, lambda: a * a * jnp.sin(x))
            ppl.sample("y", dist.Normal(mean, 1.0))

    return model(X[:, 0]).condition(y=NOISE)


def _imputed():
    @ppl.model
    def model():
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        x = ppl.sample("x", dist.Normal(np.zeros(100), 1.0).to_event(1))
        ppl.sample("y", dist.Normal(jnp.sin(a * x), 1.0))

    y = NOISE[:100].copy()
    y[:3] = np.nan
    return model().condition(missing="impute", y=y)


KEPT = {f.__name__: f for f in (_short, _curved, _wide, _own_scales, _student, _chain, _branch, _imputed)}


@pytest.mark.parametrize("name", KEPT)
def test_these_are_left_alone(name):
    plain, same = both(KEPT[name]())
    assert not notes(same)
    assert same.work == plain.work


@pytest.mark.standard_promotion
def test_an_index_as_data_a_sorted_column_and_a_cumulative_sum_are_no_repeated_rows():
    @ppl.model
    def model(x):
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        level = jnp.cumsum(x)
        ppl.sample("y", dist.StudentT(3.0, a * level, 1.0))

    assert not notes(agree(model(FEW).condition(y=FEW)))

    @ppl.model
    def by_place():
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        ppl.plate("row", lambda i: ppl.sample("y", dist.StudentT(3.0, a * jnp.sin(0.1 * i), 1.0)), N)

    assert not notes(agree(by_place().condition(y=FEW)))


def test_subsampled_and_ragged_plates_stay_the_same():
    @ppl.model
    def sub(x):
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        ppl.plate("row", lambda x: ppl.sample("y", dist.Normal(a * x, 1.0)), x, subsample=100)

    program = sub(X[:, 0]).condition(y=NOISE)
    key, z = jax.random.key(0), np.array([0.3])
    with jax.enable_x64(True):
        one, other = ppl.compile(program), ppl.compile(program, collapse=False)
        assert float(one(key, z)) == float(other(key, z))
        assert np.isclose(float(one.full()(z)), float(other.full()(z)), rtol=1e-12)


# --------------------------------------------------------------------------------------------- other questions


def test_all_other_questions_speak_of_the_model():
    plain, collapsed = both(SYNTHETIC["intercepts"])
    z = 0.3 * RNG.normal(size=plain.dim)
    with jax.enable_x64(True):
        assert collapsed.pointwise(z)["y"].shape == (N,)
        for name in ("pointwise", "factors", "log_prior", "generated"):
            for a, b in zip(*(jax.tree.leaves(getattr(d, name)(z)) for d in (plain, collapsed)), strict=True):
                np.testing.assert_array_equal(a, b)
        parts = [float(part(z)) for part in collapsed.split()]
        assert np.isclose(sum(parts), float(collapsed(z)), rtol=1e-12)
        block = collapsed.restrict("b", z)
        shift = block.start() + 0.1
        moved = block.merge(shift)
        change = float(block(shift)) - float(block(block.start()))
        assert np.isclose(change, float(collapsed(moved)) - float(collapsed(z)), rtol=1e-9)


def test_a_group_without_data_and_a_probability_of_zero_do_no_harm():
    @ppl.model
    def model(g):
        rate = ppl.sample("rate", dist.Uniform(np.zeros(12), 5.0).to_event(1))
        ppl.plate("row", lambda g: ppl.sample("y", dist.Poisson(jnp.maximum(rate[g] - 2.5, 0.0))), g)

    zero = np.where(GROUP < 6, 0, 1 + COUNT)
    plain, collapsed = both(model(np.where(GROUP == 3, 2, GROUP)).condition(y=zero))
    assert notes(collapsed)
    z = np.where(np.arange(12) < 6, -1.0, 1.0)
    with jax.enable_x64(True):
        assert np.isfinite(float(plain(z)))
        assert np.isclose(float(collapsed(z)), float(plain(z)), rtol=1e-12)
        assert float(collapsed(-z)) == float(plain(-z)) == -np.inf


def test_codes_outside_of_a_table_are_clipped_or_nan_as_in_the_program():
    @ppl.model
    def model(g):
        a = ppl.sample("a", dist.Normal(np.zeros(4), 1.0).to_event(1))
        ppl.sample("y", dist.Normal(jnp.take(a, g, mode="fill", fill_value=jnp.nan), 1.0))

    codes = GROUP % 4
    assert notes(agree(model(codes).condition(y=NOISE)))
    with jax.enable_x64(True):
        broken = ppl.compile(model(np.where(np.arange(N) == 5, 9, codes)).condition(y=NOISE))
        assert np.isnan(float(broken(np.zeros(4))))


# ----------------------------------------------------------------------------------------------- data bound anew


@pytest.fixture
def compilations():
    found = []

    def listen(name, *_, **__):
        if "backend_compile" in name:
            found.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("name", ["intercepts", "factors"])
def test_new_data_of_equal_shape_compile_nothing(name, compilations):
    value = jax.jit(lambda density, z: density(z))
    results, counts = [], []
    with jax.enable_x64(True):
        for seed in (3, 4, 5):
            density = ppl.compile(programs(seed, N)[name])
            z = np.linspace(-0.2, 0.2, density.dim)
            results.append(float(value(density, z)))
            counts.append(len(compilations))
        assert 0 < counts[0] == counts[-1]
        plain = ppl.compile(programs(5, N)[name], collapse=False)
        assert np.isclose(float(plain(z)), results[-1], rtol=1e-12)
    assert len(set(results)) == 3


def test_traced_data_collapse_without_repeated_rows():
    with jax.enable_x64(True):
        for name in ("intercepts", "factors"):
            plain, density = (ppl.compile(SYNTHETIC[name], collapse=c) for c in (False, True))
            z, ys = np.linspace(-0.2, 0.2, density.dim), [density.data[-1], density.data[-1][::-1]]

            def bound(y, d, z=z):
                return d.compiled.bind((*d.data[:-1], y))(z)

            values = jax.jit(jax.vmap(bound, (0, None)))(jnp.stack(ys), density)
            expected = [plain.compiled.bind((*plain.data[:-1], y))(z) for y in ys]
            np.testing.assert_allclose(values, expected, rtol=1e-12)


def test_data_whose_rows_do_not_repeat_are_served_by_the_plain_program():
    @ppl.model
    def model(x):
        a = ppl.sample("a", dist.Normal(0.0, 1.0))
        ppl.plate("row", lambda x: ppl.sample("y", dist.Bernoulli(logits=a * x)), x)

    flips = (NOISE > 0).astype(int)
    few, many = (agree(model(x).condition(y=flips)) for x in (FEW, X[:, 0]))
    assert "10 distinct rows" in notes(few)[0] and not notes(many)
    with jax.enable_x64(True):
        again = few.compiled.bind(many.data)
        assert np.isclose(float(again(np.ones(1))), float(many(np.ones(1))), rtol=1e-14)


def test_rows_are_counted_exactly():
    columns = [RNG.integers(0, 3, 10_000).astype(float), RNG.integers(-2, 2, (10_000, 2))]
    first, codes = distinct(columns, 1000)
    whole = np.column_stack(columns)
    assert len(first) == len(np.unique(whole, axis=0))
    np.testing.assert_array_equal(whole[first][codes], whole)
    assert distinct([RNG.normal(size=10_000)], 5_000) is None
    assert all(n <= room(n) <= 1.34 * n for n in range(4, 3000))


# ------------------------------------------------------------------------------------------------ single precision


@pytest.mark.parametrize(
    "name", ["regression", *(pytest.param(n, marks=pytest.mark.slow) for n in ("intercepts", "counts", "factors"))]
)
def test_single_precision_is_as_exact_as_the_plain_density(name):
    program = SYNTHETIC[name]
    exact = both(program)[0]
    with jax.enable_x64(False):
        plain, collapsed = ppl.compile(program, collapse=False), ppl.compile(program)
        z = np.linspace(-0.3, 0.3, plain.dim).astype(np.float32)
        values = [jax.jit(jax.value_and_grad(lambda d, z: d(z), 1))(d, z) for d in (plain, collapsed)]
    assert notes(collapsed) and values[1][0].dtype == np.float32
    with jax.enable_x64(True):
        truth = jax.value_and_grad(exact)(jnp.asarray(z, jnp.float64))
    errors = [[np.max(np.abs(np.asarray(a, float) - b)) for a, b in zip(v, truth, strict=True)] for v in values]
    assert all(c <= 4 * p + 1e-6 * np.max(np.abs(t)) for p, c, t in zip(*errors, truth, strict=True)), errors


def test_statistics_of_data_far_from_zero_are_made_in_double_precision():
    program = normal(lambda a, b, g: 300.0 + a + b * g)(GROUP.astype(float)).condition(y=np.round(300.0 + NOISE, 2))
    exact = both(program)[0]
    z = np.array([-0.27, 0.18, 0.05], np.float32)
    with jax.enable_x64(False):
        plain, collapsed = (float(ppl.compile(program, collapse=c)(z)) for c in (False, True))
    with jax.enable_x64(True):
        truth = float(exact(z.astype(float)))
    assert abs(collapsed - truth) < 2 * abs(plain - truth) + 0.01


def test_exposures_of_zero_where_nothing_was_counted():
    """``0 log 0`` is 0 in the sums over data as in the program; where something was counted the density is zero."""

    @ppl.model
    def model(exposure):
        rate = ppl.sample("rate", dist.Gamma(2.0, 1.0))
        ppl.plate("row", lambda e: ppl.sample("y", dist.Poisson(rate * e)), exposure)

    exposure = np.where(np.arange(N) < 10, 0.0, RNG.uniform(0.5, 2.0, N))
    counts = np.where(exposure == 0.0, 0, COUNT)
    collapsed = agree(model(exposure).condition(y=counts))
    assert "sums over 2000 observations" in notes(collapsed)[0]
    never = ppl.compile(model(exposure).condition(y=np.maximum(counts, 1)))
    assert float(never(np.zeros(1))) == -np.inf
