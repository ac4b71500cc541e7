"""Mistakes that users make: each gives an error that names site, element, value and the user's own line."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist

pytestmark = pytest.mark.standard_promotion
LABELS = ["ash", "birch", "cedar"]


@ppl.model
def counts(n):
    mu = ppl.sample("mu", dist.Normal(0.0, 5.0))

    @ppl.plate("row", n, coords=LABELS[:n])
    def _():
        ppl.sample("y", dist.Poisson(jnp.exp(mu)))


def message(action) -> str:
    with pytest.raises(ppl.ModelError) as caught:
        action()
    return str(caught.value)


def line_of(function, text) -> str:
    """``file:line`` of the line of a test's own source that holds a text."""
    lines, start = inspect.getsourcelines(function)
    offset = next(i for i, line in enumerate(lines) if text in line)
    return f"test_errors.py:{start + offset}"


def test_shape_of_data():
    text = message(lambda: counts(3).condition(y=np.ones((3, 1))))  # wrong shape
    assert "'y'" in text and "(3,)" in text and "(3, 1)" in text and "row" in text
    assert line_of(test_shape_of_data, "wrong shape") in text
    assert line_of(counts.function, 'sample("y"') in text


def test_nan_in_data():
    text = message(lambda: counts(3).condition(y=np.array([1.0, np.nan, 3.0])))
    assert "y[row=birch] is nan" in text and "1 of 3" in text
    assert line_of(test_nan_in_data, "np.nan") in text


def test_negative_count():
    text = message(lambda: counts(3).condition(y=np.array([1, -2, 3])))
    assert "y[row=birch] = -2" in text and "Poisson" in text
    assert line_of(test_negative_count, "-2, 3") in text


def test_value_outside_a_fixed_support():
    @ppl.model
    def share():
        a = ppl.sample("a", dist.HalfNormal(1.0))
        ppl.sample("y", dist.Beta(a, 1.0))

    text = message(lambda: share().condition(y=1.5))
    assert "y = 1.5" in text and "Beta" in text and "[0, 1]" in text


@pytest.mark.parametrize("verb", ["condition", "do"])
def test_misspelt_name(verb):
    text = message(lambda: getattr(counts(3), verb)(my=np.ones(3)))
    assert "'my'" in text and "Did you mean" in text and "mu, y" in text
    assert line_of(test_misspelt_name, "np.ones(3)") in text


def test_a_record_cannot_be_conditioned():
    @ppl.model
    def model():
        ppl.record("twice", 2.0 * ppl.sample("x", dist.Normal(0.0, 1.0)))

    assert "record" in message(lambda: model().condition(twice=1.0))


def test_name_used_twice():
    @ppl.model
    def model():
        ppl.sample("x", dist.Normal(0.0, 1.0))  # first
        ppl.sample("x", dist.Normal(0.0, 1.0))  # second

    text = message(lambda: model().sites)
    assert "'x'" in text and "twice" in text
    assert line_of(test_name_used_twice, "# first") in text and line_of(test_name_used_twice, "# second") in text


def test_name_used_twice_in_sibling_plates():
    @ppl.model
    def model():
        for name in ("a", "b"):

            @ppl.plate(name, 2)
            def _():
                ppl.sample("x", dist.Normal(0.0, 1.0))

    assert "'x'" in message(lambda: model().sites)


def test_plate_arrays_disagree():
    @ppl.model
    def model(a, b):
        @ppl.plate("row", a, b)
        def _(x, y):
            ppl.sample("x", dist.Normal(x, y))

    text = message(lambda: model(np.ones(3), np.ones(4)).sites)
    assert "'row'" in text and "3" in text and "4" in text
    assert line_of(test_plate_arrays_disagree, '@ppl.plate("row"') in text


def test_plate_name_with_two_sizes():
    @ppl.model
    def model():
        ppl.plate("row", lambda: ppl.sample("x", dist.Normal(0.0, 1.0)), 3)
        ppl.plate("row", lambda: ppl.sample("y", dist.Normal(0.0, 1.0)), 4)

    text = message(lambda: model().sites)
    assert "'row'" in text and "3 and 4" in text


def test_python_if_on_a_latent():
    @ppl.model
    def model():
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        if x > 0:
            ppl.sample("y", dist.Normal(x, 1.0))

    text = message(lambda: model().sites)
    assert "jnp.where" in text and "ppl.branch" in text
    assert line_of(test_python_if_on_a_latent, "if x > 0") in text


@pytest.mark.parametrize("how", ["plate", "int", "zeros"])
def test_size_from_data(how):
    @ppl.model
    def model(codes):
        if how == "plate":
            ppl.plate("g", lambda: ppl.sample("x", dist.Normal(0.0, 1.0)), codes.max() + 1)  # plate
        elif how == "int":
            ppl.sample("x", dist.Normal(jnp.zeros(int(codes.max()) + 1), 1.0))  # int
        else:
            ppl.sample("x", dist.Normal(jnp.zeros(codes.max() + 1), 1.0))  # zeros

    text = message(lambda: model(np.array([0, 1])).sites)
    assert "int(codes.max()) + 1" in text
    assert line_of(test_size_from_data, f"# {how}") in text


@pytest.mark.parametrize("how", ["vmap", "scan", "jit", "cond", "grad"])
def test_sample_under_a_raw_transformation(how):
    def site(x):
        return ppl.sample("x", dist.Normal(x, 1.0))

    @ppl.model
    def model(xs):
        if how == "vmap":
            jax.vmap(site)(xs)
        elif how == "scan":
            jax.lax.scan(lambda c, x: (site(x), None), 0.0, xs)
        elif how == "jit":
            jax.jit(site)(xs[0])
        elif how == "cond":
            jax.lax.cond(xs[0] > 0, site, lambda x: x, xs[0])
        else:
            jax.grad(site)(xs[0])

    text = message(lambda: model(np.ones(3)).sites)
    assert all(word in text for word in ("ppl.plate", "ppl.markov", "ppl.branch"))
    assert line_of(test_sample_under_a_raw_transformation, 'ppl.sample("x"') in text


def test_functions_that_do_not_sample_may_use_transformations():
    @ppl.model
    def model(xs):
        m = ppl.sample("m", dist.Normal(0.0, 1.0))
        ys = jax.jit(jax.vmap(lambda x: x * m))(xs)
        ppl.sample("y", dist.Normal(ys, 1.0))

    assert model(np.ones(3)).sites["y"].shape == (3,)


def test_discrete_latent():
    @ppl.model
    def model():
        k = ppl.sample("k", dist.Poisson(0.5))
        ppl.sample("y", dist.Normal(1.0 * k, 1.0))

    text = message(lambda: ppl.compile(model().condition(y=0.0)))
    assert "'k'" in text and "discrete" in text and "NUTS" in text and "mixture" in text
    assert line_of(test_discrete_latent, 'sample("k"') in text


def test_infinite_density():
    @ppl.model
    def model():
        top = ppl.sample("top", dist.HalfNormal(1.0))

        @ppl.plate("row", coords=LABELS)
        def _():
            ppl.sample("y", dist.Uniform(0.0, top))

    program = model().condition(y=np.array([0.1, 50.0, 0.2]))
    text = message(lambda: ppl.check(program))
    assert "y[row=birch] = 50" in text and "support" in text
    assert line_of(test_infinite_density, 'sample("y"') in text


def test_infinite_factor():
    @ppl.model
    def model():
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.factor("edge", jnp.where(jnp.abs(x) < 100.0, -jnp.inf, 0.0))

    text = message(lambda: ppl.check(model()))
    assert "-inf at edge" in text and "x = " in text
    assert line_of(test_infinite_factor, "ppl.factor(") in text


def test_nan_gradient():
    @ppl.model
    def model():
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.sample("y", dist.Normal(jnp.where(x > -100.0, x, jnp.sqrt(x - 1000.0)), 1.0))

    text = message(lambda: ppl.check(model().condition(y=1.0)))
    assert "gradient of site 'y' with respect to x is nan" in text
    assert line_of(test_nan_gradient, 'sample("y"') in text


def test_scale_made_negative():
    @ppl.model
    def model(x):
        b = ppl.sample("b", dist.Normal(0.0, 1.0))

        @ppl.plate("tree", x, coords=LABELS)
        def _(x):
            ppl.sample("y", dist.Normal(0.0, b * x))

    text = message(lambda: ppl.check(model(np.array([1.0, -1.0, 2.0])).condition(y=np.ones(3))))
    assert "parameter scale of Normal" in text and "tree=" in text and "scale = -" in text and "b = " in text
    assert line_of(test_scale_made_negative, 'sample("y"') in text


def test_simulating_through_a_factor():
    @ppl.model
    def model():
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.factor("tilt", x**2)

    text = message(lambda: model().sample(0))
    assert "'tilt'" in text and "reads x" in text
    assert line_of(test_simulating_through_a_factor, "ppl.factor(") in text


def test_a_factor_of_data_alone_may_be_simulated():
    @ppl.model
    def model(w):
        ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.factor("weight", jnp.sum(w))

    assert "x" in model(np.ones(2)).sample(0)


def test_simulating_an_improper_prior():
    @ppl.model
    def model():
        x = ppl.sample("x", dist.ImproperUniform(dist.constraints.real, (), ()))
        ppl.sample("y", dist.Normal(x, 1.0))

    with pytest.raises(ppl.ImproperPrior, match="'x'") as caught:
        model().sample(0)
    assert line_of(test_simulating_an_improper_prior, 'sample("x"') in str(caught.value)
    assert np.isfinite(model().do(x=1.0).sample(0)["y"])


def test_labels_as_data():
    @ppl.model
    def model(group):
        ppl.plate("row", lambda g: ppl.sample("x", dist.Normal(g, 1.0)), group)

    assert "ppl.index" in message(lambda: model(np.array(["a", "b"])))


def test_outside_of_a_model():
    text = message(lambda: ppl.sample("x", dist.Normal(0.0, 1.0)))
    assert "@ppl.model" in text


def test_a_failed_run_leaves_no_frame_behind():
    @ppl.model
    def model():
        ppl.sample("x", dist.Normal(0.0, 1.0))
        raise RuntimeError("the user's own")

    with pytest.raises(RuntimeError, match="the user's own"):
        _ = model().sites
    assert "outside of a model" in message(lambda: ppl.sample("x", dist.Normal(0.0, 1.0)))


def test_messages_show_the_source_text():
    text = message(lambda: counts(3).condition(y=np.ones((3, 1))))
    assert re.search(r'ppl\.sample\("y", dist\.Poisson', text)


@pytest.mark.parametrize("engine", ["default", "NUTS"])
def test_a_scale_that_is_negative_at_some_starts_only(engine):
    from ppl.inference import infer, mcmc

    @ppl.model
    def model(x):
        slope = ppl.sample("slope", dist.Normal(0.0, 1.0))
        spread = ppl.sample("spread", dist.Normal(0.0, 1.0))
        ppl.plate("row", lambda x: ppl.sample("y", dist.Normal(slope * x, spread)), x)

    program = model(np.arange(4.0)).condition(y=np.arange(4.0))
    text = message(lambda: infer(program, None if engine == "default" else mcmc.NUTS(), progress=False))
    assert "parameter scale of Normal" in text and "scale = -" in text and "spread = -" in text
    assert line_of(test_a_scale_that_is_negative_at_some_starts_only, 'sample("y"') in text


def test_a_branch_not_taken_may_have_any_parameters():
    from ppl.inference import infer

    @ppl.model
    def model():
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.branch(
            "sign",
            x > 0,
            lambda: ppl.sample("y", dist.Normal(0.0, x)),
            lambda: ppl.sample("w", dist.Normal(0.0, -x)),
        )

    program = model().condition(y=1.0, w=1.0)
    fit = infer(program, progress=False, draws=100)
    assert (fit.draws.positions > 0).any() and (fit.draws.positions < 0).any()


def test_a_latent_with_point_masses():
    @ppl.model
    def model():
        x = ppl.sample("x", dist.censored(dist.Normal(0.0, 1.0), upper=1.0))
        ppl.sample("y", dist.Normal(x, 1.0))

    text = message(lambda: ppl.compile(model().condition(y=0.0)))
    assert "'x'" in text and "point masses" in text
    assert line_of(test_a_latent_with_point_masses, 'sample("x"') in text
    assert ppl.compile(model().condition(x=1.0, y=0.0)).dim == 0


@pytest.mark.parametrize("statement", [ppl.sample, ppl.factor, ppl.record])
def test_a_name_is_a_string(statement):
    @ppl.model
    def model():
        statement(3, dist.Normal(0.0, 1.0) if statement is ppl.sample else 1.0)

    assert "a non-empty string, not 3" in message(lambda: model().sites)


def test_a_list_of_labels_in_a_plate():
    @ppl.model
    def model(labels):
        ppl.plate("row", lambda _: ppl.sample("x", dist.Normal(0.0, 1.0)), labels)

    assert "ppl.index" in message(lambda: model(["a", "b"]).sites)


def test_a_ragged_list():
    assert "different lengths" in message(lambda: counts(3).condition(y=[[1.0], [2.0, 3.0]]))


def test_positions_of_the_wrong_shape_or_precision():
    @ppl.model
    def model():
        ppl.sample("x", dist.Normal(0.0, 1.0))

    density = ppl.compile(model())
    for wrong in (np.zeros(2), np.zeros((1, 1)), 0.0):
        assert "has shape (1,)" in message(lambda wrong=wrong: density(wrong))
    with jax.enable_x64(False):
        assert density(np.zeros(1)).dtype == np.float64
        assert "compiled in float64" in message(lambda: jax.jit(lambda z: density(z))(np.zeros(1, np.float32)))


def test_data_changed_in_place_after_they_were_checked():
    y = np.ones(3)
    program = counts(3).condition(y=y)
    before = float(program.log_prob({"mu": 0.0}))
    y[:] = -1.0
    assert float(program.log_prob({"mu": 0.0})) == before


def test_a_dimension_with_two_sizes():
    @ppl.model
    def model():
        ppl.sample("a", dist.Normal(0.0, 1.0).expand([2]), dims="x")
        ppl.sample("b", dist.Normal(0.0, 1.0).expand([3]), dims="x")

    text = message(lambda: model().sites)
    assert "'x'" in text and "size 3" in text and "size 2" in text


def test_labels_of_a_dimension():
    @ppl.model
    def model(labels):
        ppl.sample("b", dist.Normal(0.0, 1.0).expand([2]), dims={"x": labels})
        ppl.record("c", jnp.zeros((2, 3)), dims=("x", "y"))

    program = model(("age", "dose"))
    assert program.sites["b"].dims == ("x",) and program.coords["x"].tolist() == ["age", "dose"]
    assert program.sites["c"].dims == ("x", "y")
    assert "3 labels" in message(lambda: model(("a", "b", "c")).sites)
