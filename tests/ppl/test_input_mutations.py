"""Whatever is done to an input, the answer is right or an error says where: never neither.

Every case takes a door (an argument, an observed value, counts, codes, labels) and mutates what goes through it. What
the mutated input can honestly mean is written down beside the mutation: numbers, or nothing. Where it means numbers the
program must give the log density that NumPy gives for those; where it means nothing, an error must name the place.
"""

import datetime

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import ppl
from ppl import dist
from ppl.inference import infer

pytestmark = pytest.mark.standard_promotion

N, GROUPS = 6, 3
X = np.array([0.5, -1.0, 2.0, 0.0, 1.5, -0.5])
Y = np.array([1.0, 0.0, 2.5, -0.5, 1.0, 0.25])
COUNTS = np.array([0, 3, 1, 7, 2, 0])
CODES = np.array([0, 2, 1, 1, 0, 2])
AT = {"a": 0.3, "b": np.array([-0.2, 0.1, 0.6])}


@ppl.model
def model(x, codes):
    a = ppl.sample("a", dist.Normal(0.0, 1.0))
    b = ppl.sample("b", dist.Normal(0.0, 1.0).expand([GROUPS]))

    @ppl.plate("row", x, codes)
    def _(v, g):
        ppl.sample("y", dist.Normal(a * v + b[g], 1.0))
        ppl.sample("k", dist.Poisson(jnp.exp(a + b[g])))


def exact(x=X, codes=CODES, y=Y, counts=COUNTS):
    """The log density at ``AT``, by SciPy."""
    a, b = AT["a"], AT["b"]
    prior = stats.norm.logpdf(a) + stats.norm.logpdf(b).sum()
    likelihood = stats.norm.logpdf(y, a * x + b[codes], 1.0) + stats.poisson.logpmf(counts, np.exp(a + b[codes]))
    return float(prior + likelihood.sum())


def given(x=X, codes=CODES, y=Y, counts=COUNTS):
    """What the program says."""
    return float(model(x, codes).condition(y=y, k=counts).log_prob(AT))


class Nothing:
    """The input means no numbers."""


def replaced(values, place, value, dtype=None):
    out = np.array(values, dtype=dtype or np.asarray(values).dtype)
    out[place] = value
    return out


def shapes(v):
    """Other shapes: none of them is broadcast."""
    return {
        "column": (v[:, None], Nothing),
        "row": (v[None, :], Nothing),
        "twice": (np.stack([v, v]), Nothing),
        "shorter": (v[:-1], Nothing),
        "longer": (np.append(v, v[0]), Nothing),
        "one": (v[:1], Nothing),
        "empty": (v[:0], Nothing),
        "scalar": (v[0], Nothing),
        "scalar array": (np.array(v[0]), Nothing),
        "ragged": ([[1.0], [2.0, 3.0], [], [1.0], [2.0], [0.0]], Nothing),
        "none at all": (None, Nothing),
        "strided": (np.repeat(v, 2)[::2], v),
        "reversed": (v[::-1], v[::-1]),
        "read-only": (np.broadcast_to(v, v.shape), v),
        "big-endian": (v.astype(v.dtype.newbyteorder(">")), v),
    }


def kinds(v):
    """Other types: the same numbers, or an error."""
    whole = np.round(v)
    return {
        "list": (v.tolist(), v),
        "tuple of numbers": (tuple(v.tolist()), None),
        "float16": (whole.astype(np.float16), whole),
        "float32": (whole.astype(np.float32), whole),
        "int8": (whole.astype(np.int8), whole),
        "int64": (whole.astype(np.int64), whole),
        "objects": (whole.astype(object), whole),
        "objects with text": (replaced(v.astype(object), 2, "two"), Nothing),
        "objects with lists": (replaced(v.astype(object), 2, None), Nothing),
        "text": (np.array([str(u) for u in v]), Nothing),
        "bytes": (np.array([str(u).encode() for u in v]), Nothing),
        "complex": (v.astype(complex), Nothing),
        "dates": (np.array(["2020-01-01"] * N, dtype="datetime64[D]"), Nothing),
        "durations": (np.arange(N).astype("timedelta64[D]"), Nothing),
        "python dates": ([datetime.date(2020, 1, d + 1) for d in range(N)], Nothing),
        "records": (np.array([(u,) for u in v], dtype=[("u", float)]), Nothing),
        "a dictionary": ({"v": v}, Nothing),
        "a set": (set(range(N)), Nothing),
        "a generator": ((u for u in v), Nothing),
        "masked, nothing hidden": (np.ma.masked_array(v, mask=False), v),
        "masked, one hidden": (np.ma.masked_array(v, mask=np.arange(N) == 2), Nothing),
        "jax": (jnp.asarray(v), v),
    }


def floats(v):
    """Numbers that are none."""
    v = v.astype(float)
    return {
        "nan": (replaced(v, 2, np.nan), Nothing),
        "all nan": (np.full(N, np.nan), Nothing),
        "nan in a list": (replaced(v, 2, np.nan).tolist(), Nothing),
        "None in a list": ([None, *v[1:].tolist()], Nothing),
        "huge": (replaced(v, 2, 1e300), None),
        "tiny": (replaced(v, 2, 1e-320), replaced(v, 2, 1e-320)),
        "minus zero": (replaced(v, 2, -0.0), replaced(v, 2, 0.0)),
        "beyond int64": ([2**70, *v[1:].tolist()], None),
        "beyond float": ([10**400, *v[1:].tolist()], Nothing),
    }


INFINITE = {"inf": np.inf, "minus inf": -np.inf}


def whole_numbers(v):
    """Counts that are none."""
    return {
        "negative": (replaced(v, 2, -1), Nothing),
        "a fraction": (replaced(v, 2, 1.5, float), Nothing),
        "fraction in a list": ([0.5, *v[1:].tolist()], Nothing),
        "bool": ((v > 0), (v > 0).astype(int)),
        "unsigned": (v.astype(np.uint8), v),
        "floats that are whole": (v.astype(float), v),
        "large": (replaced(v, 2, 10**6), replaced(v, 2, 10**6)),
    }


def codes_only(v):
    """Codes that name no group."""
    return {
        "one too large": (replaced(v, 2, GROUPS), Nothing),
        "far too large": (replaced(v, 2, 2**31 - 1), Nothing),
        "beyond int32": (replaced(v, 2, 2**40), Nothing),
        "one-based": (v + 1, Nothing),
        "uint8": (v.astype(np.uint8), v),
        "text": (np.array(["a", "b", "c", "a", "b", "c"]), Nothing),
        "categories as floats": (v.astype(float), Nothing),
        "float with nan": (replaced(v, 2, np.nan, float), Nothing),
    }


def frames():
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    pyarrow = pytest.importorskip("pyarrow")
    return pandas, polars, pyarrow


def tables(v):
    """Columns of data frames."""
    pandas, polars, pyarrow = frames()
    whole = np.round(v).astype(int)
    index = [3, 1, 2, 0, 5, 4]
    return {
        "pandas": (pandas.Series(v), v),
        "pandas, other index": (pandas.Series(v, index=index), v),
        "pandas, double index": (pandas.Series(v, index=[0] * N), v),
        "pandas Int64": (pandas.Series(whole, dtype="Int64"), whole),
        "pandas Int64 with NA": (pandas.Series([None, *whole[1:]], dtype="Int64"), Nothing),
        "pandas Float64 with NA": (pandas.Series([None, *v[1:]], dtype="Float64"), Nothing),
        "pandas text": (pandas.Series([str(u) for u in v]), Nothing),
        "pandas category": (pandas.Series(list("abcabc"), dtype="category"), Nothing),
        "pandas frame of one column": (pandas.DataFrame({"v": v}), Nothing),
        "pandas object with text": (pandas.Series(["x", *v[1:]], dtype=object), Nothing),
        "pandas dates": (pandas.Series(pandas.date_range("2020-01-01", periods=N)), Nothing),
        "polars": (polars.Series(v), v),
        "polars with null": (polars.Series([None, *v[1:].tolist()]), Nothing),
        "polars text": (polars.Series([str(u) for u in v]), Nothing),
        "polars int": (polars.Series(whole), whole),
        "pyarrow": (pyarrow.array(v), v),
        "pyarrow with null": (pyarrow.array([None, *v[1:].tolist()]), Nothing),
        "pyarrow chunks": (pyarrow.chunked_array([v[:2], v[2:]]), v),
    }


DOORS = {
    "x": [shapes, kinds, floats, tables],
    "y": [shapes, kinds, floats, tables],
    "counts": [shapes, kinds, whole_numbers, tables],
    "codes": [shapes, codes_only],
}
BASE = {"x": X, "y": Y, "counts": COUNTS, "codes": CODES}
NAMES = {"x": ("'x'", "x", "row"), "y": ("'y'", "y["), "counts": ("'k'", "k["), "codes": ("codes", "row", "'b'", "b")}


def cases():
    for door, families in DOORS.items():
        for family in families:
            try:
                found = family(BASE[door])
            except pytest.skip.Exception:
                continue
            for name, (value, meaning) in found.items():
                yield pytest.param(door, value, meaning, id=f"{door}: {family.__name__}: {name}")
    for door in ("x", "y"):
        for name, value in INFINITE.items():
            meaning = None if door == "x" else Nothing  # an infinite argument may be a bound
            yield pytest.param(door, replaced(BASE[door], 2, value), meaning, id=f"{door}: {name}")


CASES = list(cases())


def admissible(door, meaning):
    """Whether the numbers are in the support: counts and codes that a mutation made negative are not."""
    return not (door in ("counts", "codes") and np.any(np.asarray(meaning) < 0))


@pytest.mark.parametrize(("door", "value", "meaning"), CASES)
def test_a_right_answer_or_an_error_that_says_where(door, value, meaning):
    try:
        found = given(**{door: value})
    except Exception as error:
        kind, text = type(error), str(error)
        assert isinstance(error, ppl.ModelError | TypeError | ValueError | OverflowError), f"{kind.__name__}: {text}"
        assert any(name in text for name in NAMES[door]), f"the error does not say where: {text}"
        assert meaning in (Nothing, None) if meaning is Nothing or meaning is None else not admissible(door, meaning), (
            f"refused, but it means {meaning}: {text}"
        )
        return
    assert meaning is not Nothing, f"no error, and a log density of {found}"
    if meaning is not None:
        np.testing.assert_allclose(found, exact(**{door: np.asarray(meaning)}), rtol=1e-9)
    else:
        assert not np.isnan(found)


@pytest.mark.parametrize("value", list(INFINITE.values()))
def test_an_infinite_argument_is_found_before_sampling(value):
    with pytest.raises(ppl.ModelError, match="y|row"):
        infer(model(replaced(X, 2, value), CODES).condition(y=Y, k=COUNTS), progress=False)


def test_there_are_enough_of_them():
    assert len(CASES) >= 150


LABELS = ["ash", "birch", "cedar"]


@ppl.model
def labelled(y_labels):
    @ppl.plate("tree", coords=y_labels)
    def _():
        ppl.sample("h", dist.Normal(0.0, 1.0))


LABEL_CASES = {
    "plain": (tuple(LABELS), True),
    "unicode": (("Ωmega", "naïve", "日本"), True),
    "spaces and slashes": (("a/b", " ", "c\\d"), True),
    "quotes": (('"', "'", "<script>"), True),
    "numbers": ((3, 1, 2), True),
    "one": (("only",), True),
    "long": (("a" * 10_000, "b", "c"), True),
    "duplicates": (("ash", "ash", "cedar"), False),
    "duplicate numbers": ((1, 1, 2), False),
    "none": ((), False),
    "empty text": (("", "b", "c"), True),
    "mixed": (("a", 1, None), None),
    "huge integers": ((2**62, 2**62 + 1, 2**62 + 2), True),
    "nested": ((("a", "b"), ("c", "d"), ("e", "f")), None),
}


@pytest.mark.parametrize("name", list(LABEL_CASES))
def test_labels(name):
    labels, fine = LABEL_CASES[name]
    size = len(labels)
    try:
        program = labelled(labels).condition(h=np.zeros(size))
        kept = program.coords["tree"]
    except (ppl.ModelError, TypeError, ValueError) as error:
        assert fine is not True, str(error)
        assert "tree" in str(error), str(error)
        return
    assert fine is not False, f"no error: {kept}"
    assert kept.tolist() == list(labels) or fine is None
    np.testing.assert_allclose(float(program.log_prob({})), size * stats.norm.logpdf(0.0), rtol=1e-12)


NAME_CASES = ["yy", "Y", "y ", "", "ÿ", "y/y", "k", "row", "a.b", "__class__", "y\0mask", "\0"]


@pytest.mark.parametrize("verb", ["condition", "do"])
@pytest.mark.parametrize("name", NAME_CASES)
def test_names_that_are_none(verb, name):
    if name == "k":
        getattr(model(X, CODES), verb)({name: COUNTS})
        return
    with pytest.raises((ppl.ModelError, KeyError)) as caught:
        getattr(model(X, CODES), verb)({name: Y})
    assert repr(name) in str(caught.value) or name in str(caught.value)


INDEX_CASES = {
    "text": (["b", "a", "b"], ["a", "b"], [1, 0, 1]),
    "unicode": (["é", "z", "é"], ["z", "é"], [1, 0, 1]),
    "numbers": ([30, 10, 30], [10, 30], [1, 0, 1]),
    "huge": ([2**62 + 1, 2**62, 2**62], [2**62, 2**62 + 1], [1, 0, 0]),
    "bool": ([True, False, True], [False, True], [1, 0, 1]),
    "one": (["a"], ["a"], [0]),
}


@pytest.mark.parametrize("name", list(INDEX_CASES))
def test_index(name):
    values, labels, codes = INDEX_CASES[name]
    found, kept = ppl.index(values)
    assert found.tolist() == codes and kept.tolist() == labels


@pytest.mark.parametrize(
    "values", [["a", None, "b"], [1.0, np.nan, 2.0], ["a", 1, "b"]], ids=["None", "nan", "mixed"]
)
def test_index_without_an_order_or_a_label(values):
    try:
        codes, labels = ppl.index(values)
    except (ppl.ModelError, TypeError, ValueError) as error:
        assert str(error)
        return
    assert [labels.tolist()[c] for c in codes] == values


def test_all_cases_together_are_two_hundred():
    assert len(CASES) + len(LABEL_CASES) + 2 * len(NAME_CASES) + len(INDEX_CASES) + 3 >= 200
