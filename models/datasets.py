"""The published data that the models are shown on; sources and licences are in ``data/README.md``."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

_FOLDER = Path(__file__).parent / "data"


def names() -> list[str]:
    """Names of the data sets.

    Example:
        >>> "sleepstudy" in names()
        True
    """
    return sorted(path.stem for path in _FOLDER.glob("*.csv"))


def load(name: str) -> dict[str, np.ndarray]:
    """Columns of a data set by name; numbers are float64, everything else is text.

    Args:
        name: One of `names`.

    Returns:
        One array of shape (rows,) per column.

    Raises:
        ValueError: If there is no such data set.

    Example:
        >>> load("eight_schools")["effect"].tolist()
        [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]
    """
    path = _FOLDER / f"{name}.csv"
    if not path.exists():
        raise ValueError(f"no data set {name!r}; there are {', '.join(names())}")
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    return {key: _column(values) for key, values in zip(header, zip(*rows, strict=True), strict=True)}


def _column(values: tuple[str, ...]) -> np.ndarray:
    try:
        return np.array([float(value) for value in values])
    except ValueError:
        return np.array(values)
