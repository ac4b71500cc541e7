"""Ragged tables: rows that belong to groups of different sizes, packed into arrays of quantised shapes.

A tidy table has N rows, row i in group c_i. Its rows are packed into arrays of shape (G, L), G and L the number of
groups and the longest group, rounded up to a ladder 1, 2, 3, 4, 6, 8, 12, 16, 24, ... (at most half as much again), so
that tables of nearby sizes have equal shapes and share compiled programs. A mask says which places hold a row. The
other places repeat a row of the table, so that nothing that is computed there can be worse than at the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import frames
from .coding import index
from .errors import ModelError, at, user_line

Array = Any


def rung(size: int) -> int:
    """The least size of the ladder 1, 2, 3, 4, 6, 8, 12, 16, 24, ... that is not below ``size``.

    Example:
        >>> [rung(n) for n in (1, 5, 6, 9, 13, 17, 1000)]
        [1, 6, 6, 12, 16, 24, 1024]
    """
    power = 1 << max(int(size) - 1, 0).bit_length()
    return 3 * power // 4 if power >= 4 and 3 * power // 4 >= size else power


class Names:
    """Labels of groups beside a table; equal to all others, so that labels never decide what is compiled.

    Attributes:
        labels: Labels of the groups.
        refused: Columns that are no numbers, with the reason why a model cannot compute with them.
    """

    def __init__(self, labels: np.ndarray | None = None, refused: Mapping[str, str] | None = None) -> None:
        """Keep the labels."""
        self.labels, self.refused = labels, dict(refused or {})

    def __eq__(self, other: object) -> bool:
        """Always equal to other names."""
        return isinstance(other, Names)

    def __hash__(self) -> int:
        """One value for all."""
        return 0


@partial(
    jax.tree_util.register_dataclass, data_fields=["columns", "group", "mask", "source"], meta_fields=["place", "names"]
)
@dataclass(frozen=True, eq=False)
class Rows:
    """Rows with padding: those of one group, or a plain table. What a plate over groups gives its body.

    Attributes:
        columns: Arrays with one leading entry per place.
        group: The group's own columns, one entry each; empty for a plain table.
        mask: Which places hold a row, shape (L,).
        source: The row of the tidy table at each place, shape (L,); elsewhere a row that stands in.
        place: Which of a program's tables this is; -1 before it is a model's argument.
        names: Labels of the groups.
    """

    columns: dict[str, Array]
    group: dict[str, Array]
    mask: Array
    source: Array
    place: int = -1
    names: Names = field(default_factory=Names)

    def __getitem__(self, name: str) -> Array:
        """A column, with an entry for every place; use ``mask``, ``sum`` or ``mean`` with it."""
        return _column({**self.group, **self.columns}, name, self.names)

    @property
    def count(self) -> Array:
        """Number of rows."""
        return jnp.sum(self.mask)

    def sum(self, values: Array, axis: int = 0) -> Array:
        """Sum over the rows, padding left out.

        Args:
            values: An array with an axis of the length of ``mask``.
            axis: That axis.
        """
        values = jnp.moveaxis(jnp.asarray(values), axis, 0)
        mask = jnp.reshape(self.mask, (*self.mask.shape, *(1,) * (values.ndim - 1)))
        return jnp.sum(jnp.where(mask, values, jnp.zeros_like(values)), axis=0)

    def mean(self, values: Array, axis: int = 0) -> Array:
        """Mean over the rows, zero where there are none."""
        total = self.sum(values, axis)
        return total / jnp.maximum(self.count, 1).astype(jnp.result_type(total, jnp.result_type(float)))

    def __repr__(self) -> str:
        """Columns and size."""
        return f"Rows({_listing(self.columns)}; {np.shape(self.mask)[0]} places)"


@partial(jax.tree_util.register_dataclass, data_fields=["columns"], meta_fields=["names"])
@dataclass(frozen=True, eq=False)
class Row:
    """One row of a table, in the body of a plate over rows: ``row["x"]``.

    Attributes:
        columns: Its entry in every column.
        names: Labels of the groups.
    """

    columns: dict[str, Array]
    names: Names = field(default_factory=Names)

    def __getitem__(self, name: str) -> Array:
        """The entry in a column."""
        return _column(self.columns, name, self.names)


@partial(jax.tree_util.register_dataclass, data_fields=["rows", "exists"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Ragged:
    """A tidy table packed by group, with quantised shapes; made by ``ppl.ragged`` and given to a model.

    Attributes:
        rows: The rows, every array with a leading axis for the groups.
        exists: Which groups exist, shape (G,).
    """

    rows: Rows
    exists: Array

    def __getitem__(self, name: str) -> Array:
        """A column, packed: shape (G, L, ...), or (G, ...) for a column of the groups."""
        return self.rows[name]

    @property
    def n_groups(self) -> int:
        """Number of groups, padding not counted."""
        return int(np.asarray(self.exists).sum())

    @property
    def n_rows(self) -> int:
        """Number of rows, padding not counted."""
        return int(mask_of(self).sum())

    @property
    def labels(self) -> np.ndarray | None:
        """Labels of the groups."""
        return self.rows.names.labels

    @property
    def shape(self) -> tuple[int, int]:
        """Padded numbers of groups and of rows in a group: what is compiled for."""
        return tuple(np.shape(self.rows.mask))  # type: ignore[return-value]

    def __repr__(self) -> str:
        """Columns and sizes."""
        columns = _listing([*self.rows.columns, *self.rows.group])
        if isinstance(self.exists, jax.core.Tracer):
            return f"Ragged({columns}; padded to {self.shape})"
        return f"Ragged({columns}; {self.n_rows} rows in {self.n_groups} groups, padded to {self.shape})"


def _column(columns: Mapping[str, Array], name: str, names: Names) -> Array:
    if name in columns:
        return columns[name]
    if name in names.refused:
        raise ModelError(f"{names.refused[name]}\n{at(user_line())}")
    raise ModelError(f"the table has no column {name!r}; it has {_listing(columns)}:\n{at(user_line())}")


def _listing(names: Iterable[str]) -> str:
    return ", ".join(map(str, names)) or "no columns"


def ragged(
    codes: Any, columns: Any = None, /, *, groups: Any = None, labels: Any = None, **named: Any
) -> Ragged | Rows:
    """Pack the rows of a tidy table by group, padded to quantised shapes.

    Args:
        codes: The group of each row: codes 0, 1, ... or labels of any kind, shape (N,); or the name of a column. None
            for a plain table, whose rows are padded to a quantised number and put into a plate directly.
        columns: A mapping from names to arrays with N leading entries, such as a data frame.
        groups: Number of groups, where some have no rows; or a mapping of columns with one entry per group.
        labels: Labels of the groups, in the order of their codes or of the columns of ``groups``.
        **named: More columns.

    Returns:
        A table to call a model with. ``ppl.plate(name, table)`` runs its body once per group with that group's rows,
        ``ppl.plate(name, rows)`` in there once per row. Values of sites in there have shape (N,), in the order of the
        tidy table.

    Raises:
        ModelError: Lengths that differ, a code without a group, a group whose code is missing, an empty table.

    Example:
        >>> import numpy as np, ppl
        >>> from ppl import dist
        >>> @ppl.model
        ... def varying(table):
        ...     mu = ppl.sample("mu", dist.Normal(0.0, 1.0))
        ...     @ppl.plate("unit", table)
        ...     def unit(rows):
        ...         a = ppl.sample("a", dist.Normal(mu, 1.0))
        ...         @ppl.plate("obs", rows)
        ...         def obs(row):
        ...             ppl.sample("y", dist.Normal(a + row["x"], 1.0))
        >>> table = ppl.ragged(["b", "a", "b"], x=np.array([0.1, 0.2, 0.3]))
        >>> varying(table).sites["y"].shape, varying(table).sites["a"].shape
        ((3,), (2,))
    """
    rows = {**_columns(columns), **named}
    if isinstance(codes, str):
        if codes not in rows:
            raise _wrong(f"no column {codes!r} holds the groups; the table has {_listing(rows)}")
        del rows[codes]
        codes = named[codes] if codes in named else columns[codes]
    upper, other = _numeric(_columns(None if _is_number(groups) else groups))
    if codes is None:
        if groups is not None or labels is not None:
            raise _wrong("a table without groups (codes None) has neither groups= nor labels=")
        return _plain(*_numeric(rows))
    count, codes, labels = _coded(codes, groups, upper, labels)
    packed, refused = _numeric(rows)
    for name, value in packed.items():
        if len(value) != len(codes):
            raise _wrong(f"column {name!r} has {len(value)} rows, but there are {len(codes)} codes")
    names = Names(labels, {**other, **refused})
    sizes = np.bincount(codes, minlength=count)
    height, width = rung(count), rung(max(int(sizes.max()), 1))
    order, starts = np.argsort(codes, kind="stable"), np.cumsum(sizes) - sizes
    place = np.arange(width)[None, :]
    last = np.minimum(place, np.maximum(sizes - 1, 0)[:, None])
    source = np.where(sizes[:, None] > 0, order[np.minimum(starts[:, None] + last, len(codes) - 1)], order[0])
    whole = np.minimum(np.arange(height), count - 1)
    exists = np.arange(height) < count
    mask = (place < sizes[:, None])[whole]  # a group that does not exist repeats the last one, its rows included
    source = source[whole].astype(np.int32)
    inside = {name: value[source] for name, value in packed.items()}
    return Ragged(Rows(inside, {n: v[whole] for n, v in upper.items()}, mask, source, -1, names), exists)


def _plain(columns: dict[str, np.ndarray], refused: dict[str, str]) -> Rows:
    lengths = {name: len(value) for name, value in columns.items()}
    if not lengths or len(set(lengths.values())) > 1 or not max(lengths.values()):
        raise _wrong(f"a table without groups needs columns of one length that is not zero, not {lengths or 'none'}")
    count = next(iter(lengths.values()))
    place = np.arange(rung(count))
    source = np.minimum(place, count - 1).astype(np.int32)
    inside = {name: value[source] for name, value in columns.items()}
    return Rows(inside, {}, place < count, source, names=Names(None, refused))


def _coded(codes: Any, groups: Any, upper: Mapping[str, np.ndarray], labels: Any) -> tuple[int, np.ndarray, Any]:
    """Number of groups, codes 0, 1, ... of the rows, and labels of the groups."""
    labels = None if labels is None else np.asarray(labels)
    if labels is not None and len(np.unique(labels)) != len(labels):
        raise _wrong("the labels of the groups are not all different")
    array = np.asarray(codes)
    if array.ndim != 1 or not len(array):
        raise _wrong(f"the codes of the groups have shape {array.shape}, they must be one per row and not none")
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array % 1 == 0).all()):
        raise _wrong("the codes of the groups hold numbers that are no whole numbers, such as nan")
    if array.dtype.kind in "iuf":
        codes = array
    else:
        codes, found = index(codes, labels)
        if labels is not None and len(found) > len(labels):
            raise _wrong(f"group {found[len(labels)]!r} is none of labels=")
        labels = found
    codes = codes.astype(np.int64)
    tell = {len(v) for v in upper.values()} | ({int(groups)} if _is_number(groups) else set())
    tell |= {len(labels)} if labels is not None else set()
    if len(tell) > 1:
        raise _wrong(f"groups= and labels= tell different numbers of groups: {sorted(tell)}")
    count = tell.pop() if tell else int(codes.max()) + 1
    bad = (codes < 0) | (codes >= count)
    if bad.any():
        row = int(np.argmax(bad))
        raise _wrong(f"row {row} has code {codes[row]}, but there are {count} groups, 0 to {count - 1}")
    if not (_is_number(groups) or upper or labels is not None) and len(np.unique(codes)) != count:
        raise _wrong(
            f"the codes go to {count - 1}, but only {len(np.unique(codes))} of them occur. Write groups={count} if "
            "groups without rows exist, or number the groups by   codes, labels = ppl.index(values)"
        )
    return count, codes, labels


def _columns(table: Any) -> dict[str, Any]:
    if table is None:
        return {}
    if frames.is_frame(table):
        return {str(name): column for name, column in frames.read(table, "the table").items()}
    if not hasattr(table, "keys"):
        raise _wrong(f"columns come as a mapping from names to arrays, not as {type(table).__name__}")
    return {str(name): table[name] for name in table.keys()}


def _numeric(columns: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Columns of numbers, and why the others of a frame are none."""
    found, refused = {}, {}
    for name, value in columns.items():
        what = f"column {name!r} of a ragged table"
        if isinstance(value, frames.Column):
            if reason := frames.complaint(value, what) or frames.gap(value, what):
                refused[name] = reason
            else:
                found[name] = frames.narrow(value.values, what)
        else:
            found[name] = _array(name, value)
    return found, refused


def _is_number(x: Any) -> bool:
    return isinstance(x, int | np.integer) and not isinstance(x, bool)


def _array(name: str, value: Any) -> np.ndarray:
    from .arguments import as_array

    value = np.asarray(as_array(value, f"column {name!r} of a ragged table"))
    if not value.ndim:
        raise _wrong(f"column {name!r} is a single number; pass it to the model as an argument of its own")
    bad = np.isnan(value).reshape(len(value), -1).any(axis=1) if value.dtype.kind == "f" and len(value) else np.zeros(1)
    if bad.any():
        raise _wrong(
            f"column {name!r} is nan in row {int(np.argmax(bad))} ({int(bad.sum())} of {len(bad)} rows); leave these "
            "rows out or fill them in"
        )
    return value


def _wrong(message: str) -> ModelError:
    return ModelError(f"ppl.ragged: {message}:\n{at(user_line())}")


def is_table(x: Any) -> bool:
    """Whether an object is a ragged or a plain padded table."""
    return isinstance(x, Ragged | Rows)


def tables(tree: Any) -> list[Any]:
    """The tables of a model's call, in order."""
    return [leaf for leaf in jax.tree_util.tree_leaves(tree, is_leaf=is_table) if is_table(leaf)]


def placed(tree: Any) -> Any:
    """A model's call, its tables numbered in order; inside a run they keep the numbers that they have."""
    if not tables(tree):
        return tree
    count = iter(range(len(tables(tree))))

    def number(leaf: Any) -> Any:
        if not is_table(leaf):
            return leaf
        rows, place = rows_of(leaf), next(count)
        if isinstance(rows.mask, jax.core.Tracer) and rows.place >= 0:
            return leaf
        rows = replace(rows, place=place)
        return replace(leaf, rows=rows) if isinstance(leaf, Ragged) else rows

    return jax.tree_util.tree_map(number, tree, is_leaf=is_table)


def rows_of(table: Any) -> Rows:
    """The rows of a table."""
    return table.rows if isinstance(table, Ragged) else table


def mask_of(table: Any) -> np.ndarray:
    """Which places of a table hold a row of its own."""
    mask = np.asarray(rows_of(table).mask)
    return mask & np.asarray(table.exists)[:, None] if isinstance(table, Ragged) else mask


def as_columns(x: Any) -> Any:
    """A table as the columns that it was made of, in their order; anything else as it is."""
    if not is_table(x):
        return x
    rows = rows_of(x)
    mask, source = mask_of(x), np.asarray(rows.source)
    order = np.argsort(source[mask])
    count = x.n_groups if isinstance(x, Ragged) else 0
    inside = {name: np.asarray(value)[mask][order] for name, value in rows.columns.items()}
    return {**inside, **{name: np.asarray(value)[:count] for name, value in rows.group.items()}}
