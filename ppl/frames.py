"""Data frames: columns of pandas, polars and pyarrow as arrays, read through narwhals.

A column is read into its kind (numbers, labels, dates, other), its values and the rows that have none. Whether a
thing comes from a library of tables is told by the name of its type's module, so that no such library, nor narwhals,
is imported before a table is seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import ModelError, at, user_line

LIBRARIES = frozenset({"pandas", "polars", "pyarrow", "modin", "cudf", "narwhals", "dask", "duckdb", "ibis", "pyspark"})
EXACT = 2**53
"""The largest integer up to which every one is a double."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        kind: ``"number"`` (with booleans), ``"label"`` (text, categories), ``"date"`` or ``"other"``.
        values: Its values; numbers are NaN where they are missing.
        missing: True where the table has none.
        categories: Of a categorical column, in their order.
        index: Labels of the rows, where they are not 0, 1, 2, ...
        dtype: The table's word for its type.
    """

    kind: str
    values: np.ndarray
    missing: np.ndarray
    categories: tuple[Any, ...] | None = None
    index: Any = None
    dtype: str = ""

    def row(self, place: int) -> str:
        """A row in words."""
        return f"row {place}" + ("" if self.index is None else f" (labelled {self.index[place]!r})")


def native(x: Any) -> bool:
    """Whether something comes from a library of tables, told without importing one."""
    return any(base.__module__.partition(".")[0] in LIBRARIES for base in type(x).__mro__) and not callable(x)


def _wrap(x: Any, what: str) -> Any:
    """A narwhals frame or series."""
    import narwhals.stable.v2 as nw
    from narwhals.exceptions import DuplicateError

    x = x.to_native() if type(x).__module__.startswith("narwhals") else x
    try:
        wrapped = nw.from_native(x, allow_series=True)
    except DuplicateError:
        names = list(map(str, x.columns))
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ModelError(
            f"{what} has more than one column called {', '.join(map(repr, twice))}:\n{at(user_line())}\n"
            "  Rename them: a column is known by its name."
        ) from None
    except TypeError:
        wrapped = _other(x)
    if isinstance(wrapped, nw.LazyFrame):
        raise ModelError(
            f"{what} is a lazy {type(x).__name__}, whose rows are not computed yet:\n{at(user_line())}\n"
            "  Collect it first: frame.collect() in polars, frame.compute() in dask."
        )
    return wrapped


def _other(x: Any) -> Any:
    """What narwhals leaves alone: an arrow array, an index or a categorical of pandas; None for anything else."""
    import narwhals.stable.v2 as nw

    root = type(x).__module__.partition(".")[0]
    if root == "pyarrow" and hasattr(x, "to_pylist") and hasattr(x, "type") and hasattr(x, "__len__"):
        import pyarrow as pa

        return nw.from_native(pa.chunked_array([x]), allow_series=True)
    if root == "pandas" and getattr(x, "ndim", 0) == 1:
        import pandas as pd

        return nw.from_native(pd.Series(x), allow_series=True)
    return None


def is_table(x: Any) -> bool:
    """Whether ``x`` is a frame or a column of a library of tables.

    Example:
        >>> import pandas as pd
        >>> is_table(pd.DataFrame({"x": [1.0]})), is_table({"x": [1.0]})
        (True, False)
    """
    return native(x) and (_is_frame(x) or _is_series(x))


def _is_frame(x: Any) -> bool:
    kind = type(x)  # a lazy frame computes what is asked of itself
    return hasattr(kind, "columns") and any(hasattr(kind, name) for name in ("dtypes", "column_names", "schema"))


def _is_series(x: Any) -> bool:
    dtype = hasattr(x, "dtype") or (hasattr(x, "type") and hasattr(x, "to_pylist"))
    return not _is_frame(x) and dtype and hasattr(x, "__len__")


def is_frame(x: Any) -> bool:
    """Whether ``x`` is a whole frame."""
    return native(x) and _is_frame(x)


def column(x: Any, what: str) -> Column:
    """Read one column of a table.

    Args:
        x: A series of pandas or polars, an array of pyarrow, or a narwhals series.
        what: How an error calls it.

    Raises:
        ModelError: If it holds integers with gaps that no double can hold.
    """
    import narwhals.stable.v2 as nw

    series = x if isinstance(x, nw.Series) else _wrap(x, what)
    if series is None:
        raise ModelError(f"{what} is a {type(x).__name__}, which is no column of a table:\n{at(user_line())}")
    kind, categories = _kind(series, nw)
    missing = np.array(series.is_null().to_numpy(), bool)
    index = _row_labels(series)
    if kind == "number":
        values, missing = _numbers(series, missing, what, nw)
    elif kind == "date":
        values = np.asarray(series.to_numpy())
    else:
        values = np.array(series.to_list() if len(series) else [], dtype=object)
        values = values if values.ndim == 1 else _objects(series.to_list())
        if kind == "object":
            kind, values, missing = _inspect(values)
    return Column(kind, values, missing, categories, index, str(series.dtype))


def _kind(series: Any, nw: Any) -> tuple[str, tuple[Any, ...] | None]:
    dtype = series.dtype
    if dtype.is_numeric() or dtype == nw.Boolean:
        return "number", None
    if dtype.is_temporal():
        return "date", None
    if dtype in (nw.Categorical, nw.Enum):
        return "label", tuple(series.cat.get_categories().to_list())
    if dtype == nw.String:
        return "label", None
    return "object" if dtype in (nw.Object, nw.Unknown) else "other", None


def _objects(items: list[Any]) -> np.ndarray:
    out = np.empty(len(items), dtype=object)
    out[:] = items
    return out


def _numbers(series: Any, missing: np.ndarray, what: str, nw: Any) -> tuple[np.ndarray, np.ndarray]:
    """A numeric column; integers and booleans stay what they are unless some are missing."""
    gaps = bool(missing.any())
    filled = series.fill_null(False if series.dtype == nw.Boolean else 0) if gaps else series
    values = np.asarray(filled.to_numpy())
    if values.dtype == object:  # decimals, integers wider than 64 bits
        values = _whole(values.tolist())
    if values.dtype.kind == "f":
        missing = missing | np.isnan(values)
    elif gaps:
        if values.dtype.kind in "iu" and (np.abs(values.astype(float)) > EXACT).any():
            raise ModelError(
                f"{what} holds integers beyond 2**53 and has missing ones, so no float can hold them:"
                f"\n{at(user_line())}"
            )
        values = values.astype(float)
    if missing.any():
        values = np.array(values, dtype=values.dtype if values.dtype.kind == "f" else float)
        values[missing] = np.nan
    return values, missing


def _whole(items: list[Any]) -> np.ndarray:
    """Decimals and long integers: integers where they fit, else doubles."""
    exact = all(isinstance(v, int) for v in items)
    return np.array(items, dtype=np.int64) if exact and _fits(items) else np.array([float(v) for v in items])


def _fits(items: list[int]) -> bool:
    return all(-(2**63) <= v < 2**63 for v in items)


def absent(x: Any) -> bool:
    """Whether an element of a list or of an object column stands for no value: None, NaN, NA, NaT."""
    if x is None or type(x).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(x, (float, np.floating)) and x != x


def _inspect(values: np.ndarray) -> tuple[str, np.ndarray, np.ndarray]:
    """Kind, values and gaps of a column of Python objects."""
    import datetime
    import numbers
    from decimal import Decimal

    items = values.tolist()
    missing = np.array([absent(v) for v in items], bool)
    present = [v for v, gone in zip(items, missing, strict=True) if not gone]
    if all(isinstance(v, (numbers.Real, np.bool_, Decimal)) for v in present):
        if missing.any():
            return "number", np.array([np.nan if absent(v) else float(v) for v in items]), missing
        if all(isinstance(v, (bool, np.bool_)) for v in present):
            return "number", np.array(items, dtype=bool), missing
        return "number", _whole(items), missing
    if all(isinstance(v, str) for v in present):
        return "label", values, missing
    if all(isinstance(v, (datetime.date, np.datetime64)) for v in present):
        return "date", values, missing
    return "other", values, missing


def _row_labels(series: Any) -> Any:
    """The index of a pandas series, where it is not the default one."""
    index = getattr(series.to_native(), "index", None)
    if index is None or not hasattr(index, "equals") or not hasattr(index, "tolist"):
        return None
    labels = index.tolist()
    return None if labels == list(range(len(labels))) else labels


def read(data: Any, what: str = "the table", wanted: Any = None) -> dict[Any, Column]:
    """The columns of a frame, or of a mapping from names to columns.

    Args:
        data: The table.
        what: How an error calls it.
        wanted: Names of the only columns to read, where the table has them; at least one is read.

    Raises:
        ModelError: Duplicate names, no rows, or columns of different lengths.

    Example:
        >>> import pandas as pd
        >>> read(pd.DataFrame({"x": [1, 2], "g": ["a", None]}))["g"].missing.tolist()
        [False, True]
    """
    if is_frame(data):
        frame = _wrap(data, what)
        found = {n: column(frame[n], f"column {n!r} of {what}") for n in _chosen(frame.columns, wanted)}
    elif hasattr(data, "items"):
        found = {n: of_array(data[n], f"column {n!r} of {what}") for n in _chosen(list(data), wanted)}
    else:
        raise ModelError(
            f"{what} is a {type(data).__name__}; a frame of pandas, polars or pyarrow, or a dict of columns, is "
            f"needed:\n{at(user_line())}"
        )
    sizes = {name: len(c.values) for name, c in found.items()}
    if not sizes or not max(sizes.values()):
        raise ModelError(f"{what} has no {'rows' if sizes else 'columns'}:\n{at(user_line())}")
    if len(set(sizes.values())) > 1:
        listing = ", ".join(f"{name!r}: {size}" for name, size in sizes.items())
        raise ModelError(f"the columns of {what} differ in length ({listing}):\n{at(user_line())}")
    return found


def _chosen(names: list[Any], wanted: Any) -> list[Any]:
    return names if wanted is None else [name for name in names if name in wanted] or names[:1]


def of_array(x: Any, what: str) -> Column:
    """A column from an array, a list or a series."""
    if is_table(x) and not is_frame(x):
        return column(x, what)
    values = x if isinstance(x, np.ndarray) else np.asarray(x) if hasattr(x, "__array__") else _listed(x)
    if values.ndim != 1:
        raise ModelError(f"{what} has shape {values.shape}; a column has one axis:\n{at(user_line())}")
    if values.dtype == object:
        return of_objects(values.tolist())
    kind = {"U": "label", "M": "date", "m": "date"}.get(values.dtype.kind, "number")
    kind = kind if kind != "number" or values.dtype.kind in "biuf" else "other"
    return Column(kind, values, _gaps(values), dtype=str(values.dtype))


def of_objects(items: list[Any]) -> Column:
    """A column from Python objects, each looked at."""
    kind, values, missing = _inspect(_objects(items))
    return Column(kind, values, missing, dtype="object")


def _listed(x: Any) -> np.ndarray:
    """A list as an array that keeps its elements apart: NumPy would write 1 as '1' beside a text."""
    items = list(x)
    kinds = {isinstance(v, (str, bytes)) for v in items}
    if len(kinds) > 1 or any(v is None for v in items):
        return _objects(items)
    return np.asarray(items)


def _gaps(values: np.ndarray) -> np.ndarray:
    kind = values.dtype.kind
    return np.isnan(values) if kind == "f" else np.isnat(values) if kind in "mM" else np.zeros(len(values), bool)


def complaint(found: Column, what: str) -> str:
    """Why a column cannot be data of a model, or nothing."""
    shown = f", such as {found.values[int(np.argmin(found.missing))]!r}" if not found.missing.all() else ""
    if found.kind == "label":
        return (
            f"{what} holds text{shown}; a model computes with numbers.\n"
            "  Turn labels into codes with   codes, labels = ppl.index(values)   and pass the codes."
        )
    if found.kind == "date":
        return (
            f"{what} holds dates or times ({found.dtype}{shown}); a model computes with numbers.\n"
            "  Pass a number such as days since the first, or turn dates into codes with ppl.index(values)."
        )
    if found.kind == "other":
        kinds = sorted({type(v).__name__ for v in found.values.tolist() if not absent(v)})
        held = f"values of different kinds ({', '.join(kinds)})" if len(kinds) > 1 else f"{found.dtype} values{shown}"
        return f"{what} holds {held}; a model computes with numbers."
    return ""


def gap(found: Column, what: str) -> str:
    """Where a numeric column has no value, or nothing."""
    if not found.missing.any():
        return ""
    place = int(np.argmax(found.missing))
    return (
        f"{what} has no value (NaN or NA) in {found.row(place)} ({int(found.missing.sum())} of {len(found.missing)} "
        "rows).\n  Leave these rows out or fill them in; a model that knows what to do with NaN takes "
        "ppl.allow_nan(values)."
    )


def narrow(values: np.ndarray, what: str) -> np.ndarray:
    """Integers beyond 32 bits as doubles: in single precision JAX would wrap them around.

    Raises:
        ModelError: If a double cannot hold them.

    Example:
        >>> narrow(np.array([1, 2**40]), "x").dtype.name
        'float64'
    """
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 4 or values.dtype == np.int32 or not values.size:
        return values
    low, high = int(values.min()), int(values.max())
    if -(2**31) <= low and high < 2**31:
        return values
    if max(-low, high) <= EXACT:
        return values.astype(float)
    raise ModelError(
        f"{what} holds integers such as {high if high > EXACT else low}, which neither 32 bits nor a float can hold:"
        f"\n{at(user_line())}\n  Turn labels into codes with ppl.index(values); subtract an origin from times."
    )
