"""Reading a posteriordb selection: data, reference draws, and the names of scalars.

A folder per posterior holds ``data.json`` (or ``data.json.gz``) and, where there is a reference,
``reference.npz`` with one (chains, draws) array per scalar under names like ``beta[1]``.
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

Draws = dict[str, np.ndarray]


def posteriors(pack: Path) -> list[str]:
    """Names of the posteriors of a pack, alphabetically."""
    return sorted(path.parent.name for path in pack.glob("*/data.json*"))


def load_data(pack: Path, name: str) -> dict[str, Any]:
    """The data of one posterior, as JSON gives them."""
    plain = pack / name / "data.json"
    if plain.exists():
        return json.loads(plain.read_text())
    with gzip.open(pack / name / "data.json.gz", "rt") as file:
        return json.load(file)


def load_reference(pack: Path, name: str) -> Draws | None:
    """Reference draws by scalar name, each (chains, draws), or None."""
    path = pack / name / "reference.npz"
    if not path.exists():
        return None
    with np.load(path) as archive:
        return {key: archive[key] for key in archive.files}


def base(scalar: str) -> str:
    """The variable of a scalar: ``beta`` for ``beta[2]``."""
    return scalar.split("[", 1)[0]


def assemble(scalars: Draws) -> Draws:
    """Put indexed scalars together: ``beta[1], beta[2]`` become ``beta`` of shape (chains, draws, 2).

    A variable of length one under an index keeps its axis; one without index is a scalar.

    Example:
        >>> assemble({"b[2]": np.full((1, 3), 2.0), "b[1]": np.ones((1, 3))})["b"][0, 0]
        array([1., 2.])
    """
    groups: dict[str, dict[int, np.ndarray]] = {}
    for key, value in scalars.items():
        index = re.search(r"\[(\d+)\]", key)
        groups.setdefault(base(key), {})[int(index.group(1)) if index else 0] = value
    return {
        name: members[0] if 0 in members else np.stack([members[i] for i in sorted(members)], axis=-1)
        for name, members in groups.items()
    }


def scalars(name: str, values: np.ndarray) -> Draws:
    """Split draws of a variable, shape (chains, draws, ...), into named scalars with 1-based indices.

    Example:
        >>> list(scalars("b", np.zeros((2, 5, 3))))
        ['b[1]', 'b[2]', 'b[3]']
    """
    if values.ndim == 2:
        return {name: values}
    return {
        f"{name}[{','.join(str(i + 1) for i in index)}]": values[(..., *index)]
        for index in np.ndindex(values.shape[2:])
    }
