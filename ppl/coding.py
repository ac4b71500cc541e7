"""Labels and codes: which element of an axis a row of a table belongs to.

A label is a text, a number, a date or a bool. Codes are places in the array of labels, so that ``labels[codes]`` are
the values again. New data are coded by the labels of old ones: what is known keeps its place, what is new is
appended, and prediction draws it from its population.
"""

from __future__ import annotations

import datetime
import unicodedata
from typing import Any

import numpy as np

from . import frames
from .errors import ModelError, at, user_line


def index(values: Any, labels: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Integer codes of labels, and the labels themselves.

    Labels are sorted; those of a categorical column (pandas, polars) stand in the order of its categories, of which
    only those that occur are taken (``labels=`` takes all: ``index(column, labels=column.cat.categories)``).

    Args:
        values: Labels (texts, numbers, dates), one per row: a list, an array, or a column of a frame.
        labels: Labels that are known already. They keep their places; labels that are not among them are
            appended.

    Returns:
        ``(codes, labels)`` with ``labels[codes] == values``.

    Raises:
        ModelError: A row without a label, labels of different kinds (1 and "1"), labels that differ only in their
            Unicode form, a known label that stands twice.

    Example:
        >>> codes, labels = index(["b", "a", "b"])
        >>> codes.tolist(), labels.tolist()
        ([1, 0, 1], ['a', 'b'])
        >>> codes, labels = index(["c", "a"], labels=["b", "a"])
        >>> codes.tolist(), labels.tolist()
        ([2, 1], ['b', 'a', 'c'])
    """
    column, order, shape = _read(values)
    rows = _plain(column, "ppl.index: the values")
    known: Any = [] if labels is None else _plain(_read(labels)[0], "ppl.index: labels=")
    check_unique(known, "ppl.index: labels=", user_line())
    if not rows.size and labels is None:
        raise ModelError(f"ppl.index: there are no values:\n{at(user_line())}")
    if len(known) and rows.size and _sort(rows) != _sort(known):
        raise ModelError(
            f"ppl.index: the values hold {_sort(rows)}, such as {rows[0]!r}, but labels= holds {_sort(known)}, such as "
            f"{known[0]!r}; none could be the same:\n{at(user_line())}\n  Bring both to one type first."
        )
    found, places = np.unique(rows, return_inverse=True)
    places = places.reshape(-1)
    old = {label: i for i, label in enumerate(np.asarray(known).tolist())}
    fresh = [i for i, label in enumerate(found.tolist()) if label not in old]
    if order is not None:
        rank = {label: i for i, label in enumerate(order)}
        fresh.sort(key=lambda i: rank[found[i].item() if isinstance(found[i], np.generic) else found[i]])
    position = np.empty(len(found), np.int32)
    position[fresh] = len(old) + np.arange(len(fresh), dtype=np.int32)
    for i, label in enumerate(found.tolist()):
        if label in old:
            position[i] = old[label]
    every = np.concatenate([known, found[fresh]]) if len(known) else found[fresh]
    _alike(every)
    return position[places].reshape(shape), every


def _read(values: Any) -> tuple[frames.Column, tuple[Any, ...] | None, tuple[int, ...]]:
    """The values as one column, the order of its categories, and their shape."""
    if frames.is_frame(values):
        raise ModelError(
            f"ppl.index codes one column, not a whole {type(values).__name__}:\n{at(user_line())}\n"
            '  Write   codes, labels = ppl.index(frame["column"]).'
        )
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise ModelError(f"ppl.index takes one label per row, not {values!r}:\n{at(user_line())}")
    if frames.is_table(values):
        found = frames.column(values, "ppl.index: the column")
        return found, found.categories, (len(found.values),)
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        place = int(np.argmax(np.ma.getmaskarray(values).ravel()))
        raise ModelError(f"ppl.index: row {place} has no label (it is masked):\n{at(user_line())}")
    if not hasattr(values, "__array__"):
        flat = list(values)
        if not any(isinstance(v, (list, tuple, np.ndarray)) for v in flat):
            column = frames.of_objects(flat) if flat else frames.of_array(np.zeros(0), "ppl.index: the values")
            return column, None, (len(flat),)
    array = np.asarray(values)
    return frames.of_array(array.ravel(), "ppl.index: the values"), None, array.shape


def _plain(column: frames.Column, what: str) -> np.ndarray:
    """Labels as an array that sorts: texts, numbers, bools or dates, none of them missing."""
    if column.missing.any():
        place = int(np.argmax(column.missing))
        raise ModelError(
            f"{what} have no label in {column.row(place)} ({int(column.missing.sum())} of {len(column.missing)} rows):"
            f"\n{at(user_line())}\n  Leave these rows out, or give them a label of their own, such as 'unknown'."
        )
    values = column.values
    if values.dtype != object:
        return values
    items = values.tolist()
    if all(isinstance(v, str) for v in items):
        return np.asarray(items, dtype=str)
    if all(isinstance(v, (datetime.date, np.datetime64)) for v in items):
        return np.asarray([np.datetime64(v) for v in items])
    if column.kind == "label" and column.categories is not None:
        return _plain(frames.of_objects(items), what)
    kinds = sorted({type(v).__name__ for v in items})
    raise ModelError(
        f"{what} are of different kinds ({', '.join(kinds)}):\n{at(user_line())}\n"
        "  Bring them to one type first; 1 and '1' are two labels or one, which only you can know."
    )


def _sort(values: Any) -> str:
    kind = np.asarray(values).dtype.kind
    return {"U": "text", "M": "dates", "m": "durations", "b": "bools"}.get(kind, "numbers")


def check_unique(labels: Any, what: str, source: str) -> None:
    """Refuse labels of which two are the same.

    Raises:
        ModelError: Naming the label and its places.

    Example:
        >>> check_unique(["a", "b"], "coords", "here")
    """
    array = np.asarray(labels)
    if array.ndim != 1:
        raise ModelError(
            f"{what} are {array.ndim}-dimensional, of shape {array.shape}; an axis has one label for each element:\n"
            f"{at(source)}"
        )
    items = array.tolist()
    if len(set(items)) == len(items):
        return
    seen: dict[Any, int] = {}
    for i, label in enumerate(items):
        if label in seen:
            raise ModelError(
                f"{what} names {label!r} twice, in places {seen[label]} and {i}:\n{at(source)}\n"
                "  A label stands for one element. Make them unique, or leave them out."
            )
        seen[label] = i


def place(coords: dict[str, Any], name: str, labels: Any, what: str, source: str) -> None:
    """Enter the labels of an axis.

    Raises:
        ModelError: Two of them are the same, or the axis has others already.

    Example:
        >>> coords = {}
        >>> place(coords, "g", ["a", "b"], "coords of plate 'g'", "here")
        >>> coords["g"].tolist()
        ['a', 'b']
    """
    labels = np.asarray(labels)
    check_unique(labels, what, source)
    known = coords.get(name)
    if known is not None and known.tolist() != labels.tolist():
        first = next((a, b) for a, b in zip(known.tolist(), labels.tolist(), strict=True) if a != b)
        raise ModelError(
            f"{what} are not the labels that this axis has already: {first[0]!r} there is {first[1]!r} here:\n"
            f"{at(source)}\n  A name stands for one axis with one set of labels. Rename one of them."
        )
    coords[name] = labels


def _alike(labels: np.ndarray) -> None:
    """Refuse texts that look the same: 'e' with an accent as one character, and as two."""
    if labels.dtype.kind != "U":
        return
    forms: dict[str, str] = {}
    for label in labels.tolist():
        if label.isascii():
            continue
        form = unicodedata.normalize("NFC", label)
        if form in forms:
            raise ModelError(
                f"ppl.index: the labels {forms[form]!a} and {label!a} are the same text {form!r} in two Unicode forms:"
                f"\n{at(user_line())}\n  Bring them to one form first: unicodedata.normalize('NFC', label)."
            )
        forms[form] = label
