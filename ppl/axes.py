"""Axes that are padded: what a plate over a ragged table maps over, and which of its elements exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from .columns import opened as columns_of
from .errors import ModelError, at, user_line
from .ragged import Ragged, Row, Rows, is_table, rows_of, tables

Array = Any


@dataclass(frozen=True)
class Axis:
    """What a named axis of a program stands for, if it is padded.

    Attributes:
        level: ``"group"`` or ``"row"``.
        places: The tables (by their number in the call) whose groups or rows it counts.
        source: The user's line.
    """

    level: str
    places: tuple[int, ...]
    source: str


def elements_of(name: str, arrays: tuple, source: str) -> tuple[tuple, Array | None, Axis | None]:
    """What a plate maps over, which of its elements exist, and what its axis stands for.

    Raises:
        ModelError: Groups and rows in one plate, a table that is no argument of the model, arrays of another length.
    """
    arrays = columns_of(arrays, f"a table of {name!r}")
    found = [x for x in arrays if is_table(x)]
    if not found:
        return arrays, None, None
    levels = {isinstance(x, Ragged) for x in found}
    places = tuple(dict.fromkeys(rows_of(x).place for x in found))
    if len(levels) > 1 or (False in levels and len(places) > 1):
        raise ModelError(
            f"plate {name!r} runs over {'groups and rows' if len(levels) > 1 else 'the rows of two tables'} at once:"
            f"\n{at(source)}\n  Write a plate for each."
        )
    if -1 in places:
        raise ModelError(
            f"plate {name!r} runs over a ragged table that is not an argument of the model:\n{at(source)}\n"
            "  Call the model with it: program = model(table)."
        )
    exists = found[0].exists if levels == {True} else found[0].mask
    for table in found[1:]:
        exists = exists & (table.exists if isinstance(table, Ragged) else table.mask)
    opened = tuple(_opened(x) for x in arrays)
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree_util.tree_leaves(opened)} | {np.shape(exists)}
    if len(sizes) > 1:
        what = "groups= of ppl.ragged(...)" if levels == {True} else "the columns of ppl.ragged(...)"
        raise ModelError(
            f"plate {name!r} runs over a ragged table, padded to {np.shape(exists)[0]} elements, and over arrays of "
            f"another length:\n{at(source)}\n  Put what belongs to its elements into {what}."
        )
    return opened, exists, Axis("group" if levels == {True} else "row", places, source)


def _opened(x: Any) -> Any:
    """What the body of a plate receives an element of."""
    if isinstance(x, Rows):
        return Row(x.columns, x.names)
    return x.rows if isinstance(x, Ragged) else x


def enter_table(frame: Any, name: str, axis: Axis | None, coords: Any, source: str) -> None:
    """Let a run know that an axis is padded; the same axis must not be so in one place and whole in another."""
    previous = frame.tables.setdefault(name, axis)
    if (previous is None) != (axis is None):
        padded = previous.source if axis is None and previous is not None else source
        raise ModelError(
            f"plate {name!r} runs over a ragged table in one place and not in another:\n{at(padded)}\n"
            f"{at(source)}\n  Give the table to both: ppl.plate({name!r}, table, ...)."
        )
    if axis is None or previous is None:
        return
    if (previous.level, previous.places[0]) != (axis.level, axis.places[0]):
        raise ModelError(
            f"plate {name!r} runs over two different ragged tables:\n{at(previous.source)}\n{at(source)}\n"
            "  A plate name stands for one axis. Rename one of them."
        )
    if coords is not None:
        raise ModelError(
            f"plate {name!r} runs over a ragged table, whose labels belong to it:\n{at(source)}\n"
            "  Write ppl.ragged(codes, ..., labels=labels) instead of coords=."
        )
    outer = [p[0] for p in frame.plates if getattr(frame.tables.get(p[0]), "level", "") == "row"]
    if outer and axis.level == "row":
        raise ModelError(
            f"plate {name!r} over the rows of a table stands inside plate {outer[-1]!r} over such rows:\n{at(source)}\n"
            "  Write them side by side, and combine what they return."
        )


def padded_dim(frame: Any, name: str, labels: Any, source: str) -> Any:
    """The labels of a site's own axis, None where a table stands in their place, whose rows or groups it counts."""
    if not is_table(labels):
        return labels
    level = "group" if isinstance(labels, Ragged) else "row"
    enter_table(frame, name, Axis(level, (rows_of(labels).place,), source), None, source)
    return None


def refuse_tables(program: Any, scope: str) -> None:
    """A ragged table belongs to the program that is compiled, whose values have its order."""
    found = tables(program.arguments.rebuild(program.arguments.data))
    if any(not isinstance(rows_of(table).mask, jax.core.Tracer) for table in found):
        raise ModelError(
            f"ppl.call({scope!r}, ...): the program holds a ragged table of its own:\n{at(user_line())}\n"
            f"  Give the table to the outer model as an argument, and make the program inside of it: "
            f"ppl.call({scope!r}, model(table))."
        )


def padded_axes(found: Mapping[str, Axis | None]) -> dict[str, Axis]:
    """The axes of a run that are padded."""
    return {name: axis for name, axis in found.items() if axis is not None}
