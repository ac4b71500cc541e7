"""Markov chain Monte Carlo: engines and kernels, one per file.

Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .barker import Barker
    from .block import Block
    from .chains import Chains
    from .cycle import Cycle
    from .differential import DifferentialEvolution
    from .elliptical import EllipticalSlice
    from .hmc import HMC
    from .independence import Independence
    from .mala import MALA
    from .mixture import Mixture
    from .nuts import NUTS
    from .pooled import PooledHMC
    from .random_walk import RandomWalk
    from .slice import Slice
    from .stretch import Stretch
    from .walk import Walk

_HOMES = {
    "Barker": "barker",
    "Block": "block",
    "Chains": "chains",
    "Cycle": "cycle",
    "DifferentialEvolution": "differential",
    "EllipticalSlice": "elliptical",
    "HMC": "hmc",
    "Independence": "independence",
    "MALA": "mala",
    "Mixture": "mixture",
    "NUTS": "nuts",
    "PooledHMC": "pooled",
    "RandomWalk": "random_walk",
    "Slice": "slice",
    "Stretch": "stretch",
    "Walk": "walk",
}

__all__ = [
    "HMC",
    "MALA",
    "NUTS",
    "Barker",
    "Block",
    "Chains",
    "Cycle",
    "DifferentialEvolution",
    "EllipticalSlice",
    "Independence",
    "Mixture",
    "PooledHMC",
    "RandomWalk",
    "Slice",
    "Stretch",
    "Walk",
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
