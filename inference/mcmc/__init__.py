"""Markov chain Monte Carlo: engines and kernels, one per file.

Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .chains import Chains
    from .hmc import HMC
    from .nuts import NUTS
    from .pooled import PooledHMC

_HOMES = {
    "Chains": "chains",
    "HMC": "hmc",
    "NUTS": "nuts",
    "PooledHMC": "pooled",
}

__all__ = [
    "HMC",
    "NUTS",
    "Chains",
    "PooledHMC",
]


def __getattr__(name: str) -> Any:
    """Import a public name at first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
