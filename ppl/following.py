"""Labels of an axis that grows: the ones that follow.

Labels at equal distances go on at that distance, on any calendar that NumPy knows; dates that are the same day of
equally spaced months go on by months.
"""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np

from .errors import ModelError, at


def plain(labels: Any) -> np.ndarray:
    """Labels as an array; dates of Python become NumPy's.

    Example:
        >>> str(plain([datetime.date(2020, 1, 31)])[0])
        '2020-01-31'
    """
    found = np.asarray(labels)
    if found.dtype != object or not all(isinstance(label, datetime.date) for label in found.ravel()):
        return found
    return found.astype("M8[us]" if any(isinstance(x, datetime.datetime) for x in found.ravel()) else "M8[D]")


def continued(labels: Any, more: int, what: str, source: str) -> np.ndarray:
    """Labels followed by ``more`` others.

    Args:
        labels: Numbers or dates at equal distances, dates by months, or text.
        more: How many to add.
        what: What they are labels of, for errors.
        source: The user's line, likewise.

    Returns:
        All labels; text goes on as ``last+1``, ``last+2``, ...

    Raises:
        ModelError: If it is not clear how numbers or dates go on.

    Example:
        >>> continued([1990, 1995, 2000], 2, "labels", "").tolist()
        [1990, 1995, 2000, 2005, 2010]
        >>> continued(["a", "b"], 2, "labels", "").tolist()
        ['a', 'b', 'b+1', 'b+2']
        >>> continued(np.array(["2020-11-30", "2020-12-31"], "M8[D]"), 2, "labels", "").astype(str).tolist()
        ['2020-11-30', '2020-12-31', '2021-01-31', '2021-02-28']
    """
    labels = plain(labels)
    if labels.dtype.kind not in "iufM":
        last = str(labels[-1])
        return np.concatenate([labels.astype(str), np.array([f"{last}+{i}" for i in range(1, more + 1)])])
    after = _monthly(labels, more) if labels.dtype.kind == "M" else None
    after = _regular(labels, more) if after is None else after
    if after is None:
        raise ModelError(
            f"it is not clear how {what} go on after {', '.join(map(str, labels[-3:]))}:\n{at(source)}\n"
            "  Give the longer program with its labels instead of horizon=, or labels at equal distances."
        )
    return np.concatenate([labels, after.astype(labels.dtype)])


def _regular(labels: np.ndarray, more: int) -> np.ndarray | None:
    gaps = np.diff(labels)
    if not len(gaps) or (gaps[0] == gaps[0] * 0):
        return None
    even = np.allclose(gaps, gaps[0], rtol=1e-6, atol=0) if labels.dtype.kind == "f" else np.all(gaps == gaps[0])
    return labels[-1] + gaps[0] * np.arange(1, more + 1) if even else None


def _monthly(labels: np.ndarray, more: int) -> np.ndarray | None:
    """The same day and hour of months at equal distances, counted from the last or from the first day."""
    for end in (1, 0):
        moved = labels + np.timedelta64(end, "D")
        months = moved.astype("M8[M]")
        within = moved - months.astype(labels.dtype)
        after = _regular(months, more)
        if after is None or np.any(within != within[0]):
            continue
        found = after.astype(labels.dtype) + within[0]
        if np.all(found.astype("M8[M]") == after):  # not the 30th of February
            return found - np.timedelta64(end, "D")
    return None
