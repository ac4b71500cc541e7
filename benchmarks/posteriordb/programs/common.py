"""Small things that several programs share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl import dist

constraints = dist.constraints


def flat(shape: tuple[int, ...] = (), support: Any = constraints.real) -> Any:
    """The improper uniform prior on a support, in the parameter's own scale."""
    return dist.ImproperUniform(support, (), shape)


def columns(data: Mapping[str, Any], *names: str) -> tuple[np.ndarray, ...]:
    """Columns of the data as float64 arrays; JSON mixes integers and floats within one column."""
    return tuple(np.asarray(data[name], dtype=np.float64) for name in names)
