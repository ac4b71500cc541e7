"""Data with gaps: markers, labels, plates, branches and calls; what is refused, and why."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import ppl
from ppl import dist
from ppl.missing import markers

pytestmark = pytest.mark.standard_promotion
NAN = np.nan


def message(action) -> str:
    with pytest.raises(ppl.ModelError) as caught:
        action()
    return str(caught.value)


def line_of(function, text) -> str:
    lines, start = inspect.getsourcelines(function)
    offset = next(i for i, line in enumerate(lines) if text in line)
    return f"test_missing_policies.py:{start + offset}"


@ppl.model
def normals(n):
    mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
    ppl.plate("row", lambda: ppl.sample("y", dist.Normal(mu, 1.0)), n)


@ppl.model
def counts(n):
    rate = ppl.sample("rate", dist.LogNormal(0.0, 1.0))
    ppl.plate("row", lambda: ppl.sample("y", dist.Poisson(rate)), n)


# ---------------------------------------------------------------------------------------------- markers

FLOATS = {
    "array": np.array([1.5, NAN, 3.0]),
    "list with None": [1.5, None, 3.0],
    "list with NaN": [1.5, float("nan"), 3.0],
    "objects": np.array([1.5, pd.NA, 3.0], dtype=object),
    "column": pd.Series([1.5, NAN, 3.0]),
    "nullable column": pd.Series([1.5, None, 3.0], dtype="Float64"),
    "column of objects": pd.Series([1.5, pd.NaT, 3.0], dtype=object),
    "masked array": np.ma.array([1.5, 7.0, 3.0], mask=[False, True, False]),
    "masked NaN": np.ma.array([1.5, NAN, 3.0], mask=[False, False, False]),
    "JAX array": jnp.array([1.5, NAN, 3.0]),
}
COUNTS = {
    "array": np.array([1.0, NAN, 3.0]),
    "list with None": [1, None, 3],
    "nullable column": pd.Series([1, None, 3], dtype="Int64"),
    "masked integers": np.ma.array([1, -99, 3], mask=[False, True, False]),
    "masked objects": np.ma.array(np.array([1, None, 3], dtype=object), mask=[False, False, False]),
}


@pytest.mark.parametrize("kind", FLOATS)
def test_all_markers_of_a_gap_mean_the_same(kind):
    program = normals(3).condition(y=FLOATS[kind], missing="marginalize")
    factors = program.factors({"mu": 0.5})["y"]
    np.testing.assert_allclose(factors, stats.norm.logpdf([1.5, 0, 3.0], 0.5) * [1, 0, 1], atol=1e-12)
    np.testing.assert_array_equal(program.observed()["y"], [1.5, NAN, 3.0])
    assert "y[row=1]" in message(lambda: normals(3).condition(y=FLOATS[kind]))


@pytest.mark.parametrize("kind", COUNTS)
def test_integers_with_gaps(kind):
    program = counts(3).condition(y=COUNTS[kind], missing="marginalize")
    np.testing.assert_allclose(program.factors({"rate": 2.0})["y"], stats.poisson.logpmf([1, 0, 3], 2.0) * [1, 0, 1])
    np.testing.assert_array_equal(program.conditions["y"], [1, NAN, 3])
    assert program.sample(0)["y"].dtype.kind == "i"


def test_tables_rows_and_values_without_gaps():
    frame = pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [2.0, 3.0]})
    value, known = markers(frame)
    assert known.tolist() == [[True, True], [False, True]] and value[known].tolist() == [1, 2, 3]
    plain = np.arange(3.0)
    assert markers(plain)[0] is plain and markers(plain)[1] is None
    assert markers([[1, 2], [3]])[1] is None and markers(["a", None])[1] is None
    assert markers([True, None])[0].tolist() == [1, 0]
    assert markers(2.0)[1] is None and markers(NAN)[1].tolist() is False
    big = 2**60 + 1
    assert markers([big, None])[0].tolist()[0] == big


def test_without_a_gap_a_policy_changes_nothing():
    plain, policy = normals(2).condition(y=[1.0, 2.0]), normals(2).condition(y=[1.0, 2.0], missing="impute")
    assert plain.fixed.keys() == policy.fixed.keys() and list(policy.sites) == ["mu", "y"]


# ---------------------------------------------------------------------------------------------- policies


def test_a_policy_for_each_site_and_a_site_called_missing():
    @ppl.model
    def two():
        ppl.sample("a", dist.Normal(0.0, 1.0).expand([2]))
        ppl.sample("missing", dist.Poisson(1.0).expand([2]))

    data = {"a": [NAN, 1.0], "missing": [None, 3]}
    program = two().condition(data, missing={"a": "impute", "missing": "marginalize"})
    assert [s.kind for s in program.sites.values()] == ["observed", "latent", "observed"]
    assert "'missing'" in message(lambda: two().condition(data, missing={"a": "impute"}))
    assert '{"missing": value}' in message(lambda: two().condition(missing=[1.0, 2.0]))
    assert "'drop'" in message(lambda: two().condition(data, missing="drop"))
    assert "'b'" in message(lambda: two().condition(data, missing={"b": "impute"}))


def test_the_default_says_where_and_names_both_policies():
    text = message(lambda: normals(3).condition(y=[1.0, None, NAN]))  # gaps
    assert "y[row=1]" in text and "2 of 3" in text and "marginalize" in text and "impute" in text
    assert line_of(test_the_default_says_where_and_names_both_policies, "# gaps") in text
    text = message(lambda: normals(3).do(y=[1.0, None, NAN]))
    assert "program.do" in text and "marginalize" not in text


def test_labels_say_which_elements_are_imputed():
    @ppl.model
    def schools():
        @ppl.plate("school", coords=["Ash", "Élan"])
        def _():
            ppl.sample("y", dist.Normal(0.0, 1.0).expand([3]))

    program = schools().condition(y=[[1.0, NAN, 2.0], [3.0, 4.0, NAN]], missing="impute")
    site = program.sites["y_missing"]
    assert site.shape == (2,) and site.kind == "latent" and site.dims == ("y_missing_dim_0",)
    assert program.coords["y_missing_dim_0"].tolist() == ["school=Ash,1", "school=Élan,2"]
    assert "school=Ash" not in str(program.coords["school"])


def test_conditioning_again_doing_and_releasing():
    program = normals(2).condition(y=[NAN, 1.0], missing="impute")
    assert repr(program) == "Program(normals, observed y)"
    assert list(program.condition(y=[1.0, 2.0]).sites) == ["mu", "y"]
    assert list(program.do(y=[1.0, 2.0]).sites) == ["mu", "y"]
    assert program.release().sites["y"].kind == "latent" and list(program.release().sites) == ["mu", "y"]
    again = program.condition(y=[NAN, NAN], missing="impute")
    assert again.sites["y_missing"].shape == (2,)
    assert "Give 'y' a value without gaps" in message(lambda: program.condition(y_missing=[1.0]))
    whole = program.factors({"mu": 0.0, "y": [1.0, 2.0]})
    np.testing.assert_allclose(whole["y"], stats.norm.logpdf([1.0, 2.0]))
    split = program.factors({"mu": 0.0, "y_missing": [3.0]})
    np.testing.assert_allclose(split["y"], stats.norm.logpdf([0.0, 1.0]) * [0, 1])
    np.testing.assert_allclose(split["y_missing"], stats.norm.logpdf([3.0]))
    drawn = program.simulate(jax.random.key(0), {"mu": 0.0, "y_missing": jnp.array([5.0])})
    assert drawn["y"].tolist() == [5.0, 1.0] and drawn["y_missing"].tolist() == [5.0]
    assert "y_missing" in message(lambda: program.log_prob({"mu": 0.0}))


def test_a_called_program_may_leave_out_but_not_impute():
    @ppl.model
    def outer(inner):
        ppl.call("part", inner)

    inner = normals(2)
    program = outer(inner.condition(y=[NAN, 1.0], missing="marginalize"))
    np.testing.assert_allclose(program.factors({"part/mu": 0.0})["part/y"], stats.norm.logpdf([0, 1.0]) * [0, 1])
    np.testing.assert_array_equal(program.observed()["part/y"], [NAN, 1.0])
    assert program.release().sites["part/y"].kind == "latent"
    np.testing.assert_allclose(
        program.condition({"part/y": [2.0, 3.0]}).factors({"part/mu": 0.0})["part/y"], stats.norm.logpdf([2.0, 3.0])
    )
    text = message(lambda: outer(inner.condition(y=[NAN, 1.0], missing="impute")).sites)
    assert 'program.condition({"part/y": value}, missing="impute")' in text
    over = outer(inner).condition({"part/y": [NAN, 1.0]}, missing="impute")
    assert over.sites["part/y_missing"].shape == (1,)
    assert np.isfinite(ppl.compile(over)(np.zeros(2)))


def test_an_imputed_element_keeps_its_prior_on_the_side_that_is_not_taken():
    @ppl.model
    def either():
        x = ppl.sample("x", dist.Normal(0.0, 1.0))
        ppl.branch(
            "side", x > 0, lambda: ppl.sample("y", dist.Normal(0.0, 1.0).expand([2])).sum(), lambda: jnp.zeros(())
        )

    density = ppl.compile(either().condition(y=[NAN, 1.0], missing="impute"))
    for x, taken in ((1.0, 1), (-1.0, 0)):
        expected = stats.norm.logpdf(x) + stats.norm.logpdf(0.3) + taken * stats.norm.logpdf(1.0)
        assert abs(float(density(np.array([x, 0.3]))) - expected) < 1e-12


def test_the_graph_shows_imputed_elements_and_who_reads_them():
    @ppl.model
    def regression():
        x = ppl.plate("row", lambda: ppl.sample("x", dist.Normal(0.0, 1.0)), 2)
        ppl.sample("y", dist.Normal(x.sum(), 1.0))

    graph = regression().condition(x=[NAN, 1.0], y=0.0, missing="impute").graph()
    assert graph.parents["y"] == {"x", "x_missing"} and graph.kinds["x_missing"] == "latent"
    assert "x_missing ~ Normal()" in str(graph)


# ---------------------------------------------------------------------------------------------- refusals


def test_leaving_out_what_something_reads_is_refused():
    @ppl.model
    def readers(how):
        x = ppl.plate("row", lambda: ppl.sample("x", dist.Normal(0.0, 1.0)), 2)
        if how == "site":
            ppl.sample("y", dist.Normal(x.sum(), 1.0))
        if how == "factor":
            ppl.factor("f", -x.sum() ** 2)
        if how == "record":
            ppl.record("r", x.sum())

    for how, reader in (("site", "latent 'y'"), ("factor", "factor 'f'"), ("record", "record 'r'")):
        text = message(lambda how=how: readers(how).condition(x=[NAN, 1.0], missing="marginalize"))
        assert reader in text and "'x'" in text and 'missing="impute"' in text
        assert line_of(readers.function, f'"{reader[-2]}"') in text
    assert readers("none").condition(x=[NAN, 1.0], missing="marginalize").sites["x"].kind == "observed"


@ppl.model
def shapes():
    ppl.plate("row", lambda: ppl.sample("simplex", dist.Dirichlet(jnp.ones(3))), 2)
    normal = dist.Normal(jnp.zeros(2), 1.0)
    ppl.sample("ordered", dist.TransformedDistribution(normal, dist.transforms.OrderedTransform()))
    ppl.sample("count", dist.Poisson(1.0))
    ppl.sample("clipped", dist.censored(dist.Exponential(1.0), upper=1.0))
    ppl.sample("time", dist.right_censored(dist.Exponential(1.0), 0.0))
    ppl.sample("flat", dist.flat())
    ppl.sample("count_missing", dist.Normal(0.0, 1.0))
    ppl.sample("x", dist.Normal(0.0, 1.0).expand([2]))
    ppl.sample("x_missing", dist.Normal(0.0, 1.0))


REFUSED = [
    ("simplex", [[0.2, NAN, 0.8], [0.2, 0.3, 0.5]], "marginalize", "simplex[row=0] is known in part"),
    ("simplex", [[0.2, NAN, 0.8], [0.2, 0.3, 0.5]], "impute", "constrain each other"),
    ("ordered", [NAN, 1.0], "impute", "constrain each other"),
    ("count", NAN, "impute", "dist.mixture"),
    ("clipped", NAN, "impute", "point masses"),
    ("time", NAN, "impute", "censored values"),
    ("flat", NAN, "marginalize", "improper"),
    ("x", [NAN, 1.0], "impute", "which is another site"),
]


@pytest.mark.parametrize("name, value, policy, words", REFUSED, ids=[f"{n}-{p}" for n, _, p, _ in REFUSED])
def test_refusals_name_site_and_reason(name, value, policy, words):
    text = message(lambda: shapes().condition({name: value}, missing=policy))
    assert words in text and f'missing="{policy}"' in text and name in text
    assert "test_missing_policies.py" in text


def test_known_values_are_still_checked_beside_gaps():
    text = message(lambda: counts(3).condition(y=[None, -2, 3], missing="marginalize"))
    assert "y[row=1] = -2" in text
    text = message(lambda: normals(3).condition(y=[None, 2.0], missing="marginalize"))
    assert "(3,)" in text and "(2,)" in text


# ---------------------------------------------------------------------------------------------- compilation


def test_a_new_pattern_compiles_nothing():
    events: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, _, **__: events.append(name))
    step = jax.jit(lambda density, z: jax.value_and_grad(density)(z))

    def run(policy, y):
        density = ppl.compile(normals(4).condition(y=y, missing=policy))
        return density.compiled, float(step(density, np.full(density.dim, 0.3))[0])

    for policy in ("marginalize", "impute"):
        code, first = run(policy, [NAN, NAN, 1.0, 2.0])
        start = len(events)
        again, second = run(policy, [0.5, NAN, 2.0, NAN])
        compiled = [e for e in events[start:] if "backend_compile" in e]
        assert again is code and compiled == [] and first != second


def test_a_reader_that_was_set_and_is_now_observed_is_refused():
    @ppl.model
    def pair():
        x = ppl.sample("x", dist.Normal(0.0, 1.0).expand([2]))
        ppl.sample("y", dist.Normal(x.sum(), 1.0))

    program = pair().do(y=1.0).condition(x=[NAN, 1.0], missing="marginalize")
    assert "'y' reads site 'x'" in message(lambda: program.condition(y=1.0))
    assert program.condition(y=1.0, x=[0.0, 1.0]).sites["y"].kind == "observed"


def test_a_vector_whose_conditional_law_is_unknown_is_imputed_but_not_simulated():
    @ppl.model
    def path():
        ppl.sample("y", dist.GaussianRandomWalk(0.5, num_steps=4))

    program = path().condition(y=[0.1, NAN, 0.4, NAN], missing="impute")
    value = np.array([0.1, -0.2, 0.4, 0.9])
    expected = stats.norm.logpdf(np.diff(value, prepend=0.0), scale=0.5).sum()
    assert abs(float(ppl.compile(program)(value[[1, 3]])) - expected) < 1e-10  # in order
    assert "GaussianRandomWalk" in message(lambda: program.sample(0))
    assert "known in part" in message(lambda: path().condition(y=[0.1, NAN, 0.4, NAN], missing="marginalize"))


def test_gaps_in_a_ragged_table_belong_to_its_rows():
    @ppl.model
    def ragged(table):
        mu = ppl.sample("mu", dist.Normal(0.0, 1.0))

        @ppl.plate("county", table)
        def _(rows):
            ppl.plate("house", lambda row: ppl.sample("y", dist.Gamma(2.0, jnp.exp(mu + row["x"]))), within=rows)

    x, y = np.arange(6.0), np.array([1.0, NAN, NAN, 0.3, NAN, 0.8])
    program = ragged(ppl.ragged(np.array(["c", "a", "b", "a", "c", "a"]), x=x)).condition(y=y, missing="impute")
    assert program.coords["y_missing_dim_0"].tolist() == ["house=1", "house=2", "house=4"]
    hidden = np.array([0.2, -0.4, 0.9])
    whole = y.copy()
    whole[np.isnan(y)] = np.exp(hidden)
    expected = stats.gamma(2.0, scale=np.exp(-0.3 - x)).logpdf(whole).sum() + hidden.sum() + stats.norm.logpdf(0.3)
    density = ppl.compile(program)
    assert abs(float(density(np.array([0.3, *hidden]))) - expected) < 1e-10
    np.testing.assert_allclose(density.constrain(np.array([0.3, *hidden]))["y_missing"], np.exp(hidden))
    np.testing.assert_array_equal(program.observed()["y"], y)
