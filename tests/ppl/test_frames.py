"""Frames and columns of pandas, polars and pyarrow: the same numbers as arrays, or an error that says where."""

from __future__ import annotations

import datetime
import decimal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import ppl
from ppl import dist, frames

pytestmark = pytest.mark.standard_promotion

RAW = {"x": [0.5, 1.5, -1.0], "n": [1, 2, 3], "flag": [True, False, True], "name": ["a", "b", "é"]}
LIBRARIES = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.table}
EVERY = pytest.mark.parametrize("library", LIBRARIES)


@ppl.model
def line(df):
    b = ppl.sample("b", dist.Normal(0.0, 1.0))

    @ppl.plate("row", df["x"], df.n)
    def row(x, n):
        ppl.sample("y", dist.Normal(b * x + n, 1.0))


@ppl.model
def by_row(df):
    b = ppl.sample("b", dist.Normal(0.0, 1.0))

    @ppl.plate("row", df)
    def row(r):
        ppl.sample("y", dist.Normal(b * r["x"] + r.n, 1.0))


@ppl.model
def column(x):
    b = ppl.sample("b", dist.Normal(0.0, 1.0))

    @ppl.plate("row", x)
    def row(x):
        ppl.sample("y", dist.Normal(b * x, 1.0))


def exact(b=0.3):
    x, n, y = np.array(RAW["x"]), np.array(RAW["n"]), np.array([1.0, 2.0, 3.0])
    residual = np.append(y - b * x - n, b)
    return float((-0.5 * residual**2 - 0.5 * np.log(2 * np.pi)).sum())


def message(call):
    with pytest.raises(ppl.ModelError) as info:
        call()
    assert "test_frames.py" in str(info.value), "the error names no line of the user"
    return str(info.value)


# ---------------------------------------------------------------------------------------- arguments


@EVERY
@pytest.mark.parametrize("model", [line, by_row], ids=["columns", "rows"])
def test_a_frame_is_its_columns(library, model):
    table = LIBRARIES[library](RAW)
    program = model(table).condition(y=LIBRARIES[library]({"y": [1.0, 2.0, 3.0]})["y"])
    np.testing.assert_allclose(program.log_prob({"b": 0.3}), exact(), rtol=1e-12)


@EVERY
def test_one_frame_like_another_compiles_nothing_new(library):
    first = ppl.compile(line(LIBRARIES[library](RAW)).condition(y=np.ones(3)))
    other = ppl.compile(line(LIBRARIES[library]({**RAW, "x": [9.0, 9.0, 9.0]})).condition(y=np.ones(3)))
    assert first.compiled is other.compiled


@EVERY
def test_columns_inside_a_model(library):
    seen = {}

    @ppl.model
    def m(df):
        seen.update(columns=list(df), length=len(df), both=df[["x", "n"]].shape, has=("x" in df, "name" in df))
        seen.update(flag=df.flag.dtype, whole=df["n"].dtype)
        ppl.sample("y", dist.Normal(df["x"].sum(), 1.0))

    m(LIBRARIES[library](RAW)).learned()
    assert seen["columns"] == ["x", "n", "flag"] and seen["length"] == 3
    assert seen["both"] == (3, 2) and seen["has"] == (True, False)
    assert seen["flag"] == np.bool_ and jnp.issubdtype(seen["whole"], jnp.integer)


@EVERY
def test_text_is_refused_when_it_is_read_and_only_then(library):
    @ppl.model
    def m(df):
        ppl.sample("y", dist.Normal(df["name"].sum(), 1.0))

    table = LIBRARIES[library](RAW)
    text = message(lambda: m(table).learned())
    assert "column 'name' of argument 'df' of model 'm' holds text, such as 'a'" in text and "ppl.index" in text


def test_a_column_that_is_not_there():
    @ppl.model
    def m(df):
        ppl.sample("y", dist.Normal(df["xx"].sum(), 1.0))

    assert "Did you mean 'x'?" in message(lambda: m(pd.DataFrame(RAW)).learned())


def test_a_frame_is_constant_data_of_the_result():
    from ppl.inference.groups import constants

    found = constants(line(pd.DataFrame(RAW)).condition(y=np.ones(3)))
    assert any(np.array_equal(v, RAW["x"]) for v in found.values())


COLUMNS = {
    "pandas": lambda v: pd.Series(v),
    "pandas index": lambda v: pd.Index(v),
    "pandas nullable": lambda v: pd.Series(pd.array(v, dtype="Int64")),
    "pandas arrow": lambda v: pd.Series(v, dtype="int64[pyarrow]"),
    "pandas object": lambda v: pd.Series(v, dtype=object),
    "polars": lambda v: pl.Series(v),
    "pyarrow": lambda v: pa.array(v),
    "pyarrow chunks": lambda v: pa.chunked_array([v[:1], v[1:]]),
    "decimal": lambda v: pl.Series([decimal.Decimal(x) for x in v]),
    "list": lambda v: v,
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_is_an_array(kind):
    values = [1, 2, -4]
    program = column(COLUMNS[kind](values)).condition(y=COLUMNS[kind]([0, 1, 2]))
    same = column(np.array(values)).condition(y=np.array([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(program.log_prob({"b": 0.7}), same.log_prob({"b": 0.7}), rtol=1e-12)


@pytest.mark.parametrize("kind", ["boolean", "bool", "object"])
def test_booleans_are_numbers(kind):
    program = column(pd.Series([True, False, True], dtype=kind))
    np.testing.assert_array_equal(program.arguments.data[0], [True, False, True])
    assert program.arguments.data[0].dtype == bool


# ---------------------------------------------------------------------------------------- gaps

GAPS = {
    "numpy": np.array([1.0, np.nan, 3.0]),
    "jax": jnp.array([1.0, np.nan, 3.0]),
    "list": [1.0, None, 3.0],
    "list nan": [1.0, float("nan"), 3.0],
    "pandas": pd.Series([1.0, np.nan, 3.0]),
    "pandas nullable": pd.Series(pd.array([1, None, 3], dtype="Int64")),
    "pandas nullable float": pd.Series(pd.array([1.0, None, 3.0], dtype="Float64")),
    "pandas boolean": pd.Series(pd.array([True, None, False], dtype="boolean")),
    "pandas object": pd.Series([1, None, 3], dtype=object),
    "pandas NA": pd.Series([1, pd.NA, 3], dtype=object),
    "pandas arrow": pd.Series([1, None, 3], dtype="int64[pyarrow]"),
    "polars": pl.Series([1, None, 3]),
    "polars nan": pl.Series([1.0, float("nan"), 3.0]),
    "polars boolean": pl.Series([True, None, False]),
    "pyarrow": pa.array([1, None, 3]),
    "masked": np.ma.masked_invalid([1.0, np.nan, 3.0]),
}


@pytest.mark.parametrize("kind", GAPS)
def test_a_gap_in_an_argument_is_an_error_that_says_where(kind):
    text = message(lambda: column(GAPS[kind]))
    assert "argument 'x' of model 'column'" in text
    assert kind == "masked" or ("[1]" in text or "row 1" in text), text
    assert kind == "masked" or "1 of 3" in text


@pytest.mark.parametrize("kind", [k for k in GAPS if k != "masked"])
def test_a_gap_that_is_allowed_is_nan(kind):
    program = column(ppl.allow_nan(GAPS[kind]))
    found = np.asarray(program.arguments.data[0])
    assert np.isnan(found).tolist() == [False, True, False] and found[0] == 1.0


def test_a_gap_in_a_frame_counts_where_it_is_read():
    table = pd.DataFrame({**RAW, "z": [1.0, np.nan, 2.0]}, index=["u", "v", "w"])
    assert np.isfinite(line(table).condition(y=np.ones(3)).log_prob({"b": 0.3}))
    table["x"] = table["z"]
    text = message(lambda: line(table).learned())
    assert "column 'x' of argument 'df' of model 'line' has no value (NaN or NA) in row 1 (labelled 'v')" in text
    assert np.isnan(line(ppl.allow_nan(table)).arguments.data[0][1])


def test_nan_in_a_polars_column_is_a_gap_though_it_is_not_null():
    table = pl.DataFrame({"x": [1.0, float("nan"), 3.0], "n": [1, 2, 3]})
    assert "in row 1 (1 of 3 rows)" in message(lambda: line(table).learned())
    assert "row 1" in message(lambda: ppl.index(table["x"]))


def test_a_gap_deep_in_a_pytree_has_its_path():
    @ppl.model
    def m(*, data):
        ppl.sample("y", dist.Normal(data["a"][0].sum(), 1.0))

    text = message(lambda: m(data={"a": [np.array([[1.0], [np.nan]])]}))
    assert "argument 'data'['a'][0] of model 'm' is NaN at [1, 0]" in text


def test_scalars_may_not_be_nan():
    assert "argument 'x'" in message(lambda: column(float("nan")))


# ---------------------------------------------------------------------------------------- tables that are wrong


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (pd.DataFrame([[1.0, 2.0]], columns=["x", "x"]), "more than one column called 'x'"),
        (pd.DataFrame({"x": []}), "has no rows"),
        (pl.DataFrame({"x": []}), "has no rows"),
        (pa.table({"x": pa.array([], pa.float64())}), "has no rows"),
        (pd.DataFrame(index=[1, 2]), "has no columns"),
        (pd.DataFrame({"x": ["a"]}), "no column of argument 'df' of model 'line' can be data"),
        (pl.LazyFrame({"x": [1.0]}), "Collect it first"),
    ],
    ids=["twice", "pandas empty", "polars empty", "pyarrow empty", "no columns", "text only", "lazy"],
)  # fmt: skip
def test_tables_that_cannot_be_data(table, words):
    assert words in message(lambda: line(table).learned())


def test_one_row_is_a_table():
    program = line(pd.DataFrame({"x": [2.0], "n": [1]})).condition(y=[3.0])
    np.testing.assert_allclose(program.log_prob({"b": 1.0}), -0.5 - np.log(2 * np.pi), rtol=1e-12)


COLUMNS_THAT_CANNOT = {
    "mixed objects": (pd.Series([1, "a", 2.0], dtype=object), "different kinds (float, int, str)"),
    "digits as text": (np.array(["1", "2", "3"], dtype=object), "object"),
    "text": (pl.Series(["a", "b", "c"]), "holds text, such as 'a'"),
    "categories": (pd.Series(pd.Categorical(["u", "v", "u"])), "ppl.index"),
    "dates": (pd.Series(pd.to_datetime(["2020-01-01"] * 3)), "holds dates or times"),
    "polars dates": (pl.Series([datetime.date(2020, 1, 1)] * 3), "holds dates or times"),
    "lists": (pl.Series([[1], [2], [3]]), "values"),
    "huge": (np.array([1, 2**60, 3]), "neither 32 bits nor a float"),
    "huge unsigned": (np.array([1, 2**63, 3], dtype=np.uint64), "neither 32 bits nor a float"),
    "huge with a gap": (pd.Series(pd.array([2**60, None, 3], dtype="Int64")), "2**53"),
    "wider than 64 bits": ([1, 2**70, 3], ""),
    "complex": (np.array([1j, 2, 3]), "complex"),
}


@pytest.mark.parametrize("kind", COLUMNS_THAT_CANNOT)
def test_columns_that_cannot_be_data(kind):
    value, words = COLUMNS_THAT_CANNOT[kind]
    if kind == "wider than 64 bits":  # a double holds it
        assert float(column(value).arguments.data[0][1]) == 2.0**70
        return
    assert words in message(lambda: column(value).learned())


def test_integers_beyond_32_bits_never_wrap_around():
    with jax.enable_x64(False):
        program = column(np.array([2**40, 1, 2])).condition(y=[0.0, 0.0, 0.0])
        found = float(program.log_prob({"b": 2.0**-40}))
    np.testing.assert_allclose(found, -0.5 - 4 * 0.5 * np.log(2 * np.pi), rtol=1e-6)


def test_conditioning_on_columns():
    program = column(np.ones(3))
    assert "ppl.index" in message(lambda: program.condition(y=pl.Series(["a", "b", "c"])))
    assert "(3, 1)" in message(lambda: program.condition(y=pd.DataFrame({"y": [1.0, 2.0, 3.0]})))

    @ppl.model
    def matrix():
        @ppl.plate("row", 3)
        def row():
            ppl.sample("y", dist.Normal(0.0, 1.0).expand([2]))

    observed = matrix().condition(y=pl.DataFrame({"a": [1, 2, 3], "b": [0.0, 0.5, 1.0]})).conditions["y"]
    np.testing.assert_array_equal(observed, [[1, 0.0], [2, 0.5], [3, 1.0]])


# ---------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("values", "codes", "labels"),
    [
        (["b", "a", "b"], [1, 0, 1], ["a", "b"]),
        (np.array([[3, 1], [1, 3]]), [[1, 0], [0, 1]], [1, 3]),
        (pd.Series(["é", "z", "日本"]), [1, 0, 2], ["z", "é", "日本"]),
        (pl.Series([3, 1, 3]), [1, 0, 1], [1, 3]),
        (pa.array(["x", "a"]), [1, 0], ["a", "x"]),
        (pd.Categorical(["u", "v"], categories=["never", "v", "u"]), [1, 0], ["v", "u"]),
        (pl.Series(["b", "c"], dtype=pl.Enum(["c", "b"])), [1, 0], ["c", "b"]),
        (pd.Series([True, False]), [1, 0], [False, True]),
        (("only",), [0], ["only"]),
    ],
)  # fmt: skip
def test_index(values, codes, labels):
    found = ppl.index(values)
    assert found[0].tolist() == codes and found[1].tolist() == labels
    assert found[0].dtype == np.int32


@pytest.mark.parametrize("library", ["pandas", "polars", "python", "numpy"])
def test_dates_are_labels(library):
    days = [datetime.date(2021, 3, 1), datetime.date(2020, 1, 2), datetime.date(2021, 3, 1)]
    values = {
        "pandas": pd.Series(pd.to_datetime(days)), "polars": pl.Series(days), "python": days,
        "numpy": np.array(days, "datetime64[D]"),
    }[library]  # fmt: skip
    codes, labels = ppl.index(values)
    assert codes.tolist() == [1, 0, 1] and labels.astype("datetime64[D]").tolist() == sorted(set(days))

    @ppl.model
    def m(labels):
        ppl.plate("day", lambda: ppl.sample("x", dist.Normal(0.0, 1.0)), coords=labels)

    assert m(tuple(labels)).coords["day"].tolist() == labels.tolist()


def test_known_labels_keep_their_places_and_new_ones_follow():
    codes, labels = ppl.index(["z", "b", "c", "b"], labels=["c", "b", "a"])
    assert labels.tolist() == ["c", "b", "a", "z"] and codes.tolist() == [3, 1, 0, 1]
    codes, labels = ppl.index(pl.Series([5, 1]), labels=[9, 1])
    assert labels.tolist() == [9, 1, 5] and codes.tolist() == [2, 1]
    again, same = ppl.index(["a"], labels=labels.astype(str))
    assert same.tolist() == ["9", "1", "5", "a"] and again.tolist() == [3]


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (["a", None], {}, "row 1"),
        (pd.Series(["a", None], index=[7, 9]), {}, "row 1 (labelled 9)"),
        (np.array([1.0, np.nan]), {}, "row 1"),
        (pl.Series(["a", None]), {}, "row 1"),
        (np.ma.masked_array(["a", "b"], [False, True]), {}, "row 1"),
        ([1, "1"], {}, "different kinds"),
        (["e\u0301", "\u00e9"], {}, "Unicode forms"),
        ([], {}, "no values"),
        ("abc", {}, "one label per row"),
        (pd.DataFrame({"g": ["a"]}), {}, "one column"),
        (["a"], {"labels": ["a", "b", "a"]}, "names 'a' twice, in places 0 and 2"),
        (["1"], {"labels": [1, 2]}, "none could be the same"),
    ],
)
def test_labels_that_are_wrong(values, options, words):
    assert words in message(lambda: ppl.index(values, **options))


def test_labels_of_an_axis_are_unique_and_one_set():
    def plates(first, second=None):
        @ppl.model
        def m():
            ppl.plate("g", lambda: ppl.sample("x", dist.Normal(0.0, 1.0)), coords=first)
            if second is not None:
                ppl.plate("g", lambda: ppl.sample("z", dist.Normal(0.0, 1.0)), coords=second)

        return m().learned()

    plates(["a", "b"], ["a", "b"])
    assert "names 'a' twice, in places 0 and 2" in message(lambda: plates(["a", "b", "a"]))
    assert "'b' there is 'c' here" in message(lambda: plates(["a", "b"], ["a", "c"]))

    @ppl.model
    def dims():
        ppl.sample("x", dist.Normal(0.0, 1.0).expand([2]), dims={"k": ["a", "a"]})

    assert "dimension 'k' names 'a' twice" in message(lambda: dims().learned())


# ---------------------------------------------------------------------------------------- imports


def test_no_table_no_import():
    code = """
import sys, numpy as np, ppl
from ppl import dist
@ppl.model
def m(x):
    ppl.sample("y", dist.Normal(x.sum(), 1.0))
m(np.ones(3)).condition(y=1.0); ppl.index(["a", "b"])
print(sorted(set(sys.modules) & {"narwhals", "pandas", "polars", "pyarrow"}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_columns_are_read_from_dicts_too():
    found = frames.read({"a": [1, 2], "b": np.array(["u", "v"]), "c": [None, 2.0]})
    assert [c.kind for c in found.values()] == ["number", "label", "number"]
    assert found["c"].missing.tolist() == [True, False]
    with pytest.raises(ppl.ModelError, match="differ in length"):
        frames.read({"a": [1, 2], "b": [1]})


def test_counts_beyond_32_bits_are_refused_as_single_precision_would_wrap_them():
    @ppl.model
    def counts():
        ppl.sample("y", dist.Poisson(1e9).expand([2]))

    assert counts().condition(y=[2**31 - 1, 0]).conditions["y"].tolist() == [2**31 - 1, 0]
    assert "y[0] = 4.29497e+09 is beyond 32 bits" in message(lambda: counts().condition(y=[2**32 + 5, 1]))


@EVERY
def test_tables_that_are_no_arguments_are_opened_by_plates_and_chains(library):
    """A model may read a table from outside; a plate or a chain takes it as it takes arrays."""
    table = LIBRARIES[library](RAW)

    @ppl.model
    def outside():
        b = ppl.sample("b", dist.Normal(0.0, 1.0))

        @ppl.plate("row", table)
        def row(r):
            ppl.sample("y", dist.Normal(b * r["x"] + r.n, 1.0))

        @ppl.markov("walk", init=0.0, xs=table["x"])
        def walk(carry, x):
            return ppl.sample("w", dist.Normal(carry + x, 1.0))

    program = outside().condition(y=[1.0, 2.0, 3.0], w=np.cumsum(RAW["x"]))
    np.testing.assert_allclose(program.log_prob({"b": 0.3}), exact() - 1.5 * np.log(2 * np.pi), rtol=1e-12)
    gaps = LIBRARIES[library]({"x": [1.0, None, 2.0]})["x"]

    @ppl.model
    def broken():
        ppl.plate("row", lambda x: ppl.sample("y", dist.Normal(x, 1.0)), gaps)

    assert "a table of 'row' has no value (NaN or NA) in row 1" in message(lambda: broken().learned())
