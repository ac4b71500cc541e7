"""Small things that several programs share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def columns(data: Mapping[str, Any], *names: str) -> tuple[np.ndarray, ...]:
    """Columns of the data as float64 arrays; JSON mixes integers and floats within one column."""
    return tuple(np.asarray(data[name], dtype=np.float64) for name in names)
