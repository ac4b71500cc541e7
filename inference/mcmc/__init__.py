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
    from .ensemble import Ensemble
    from .finite_metropolis import FiniteMetropolis
    from .gibbs import Gibbs
    from .hmc import HMC
    from .independence import Independence, StudentT
    from .informed import LocallyInformed
    from .mala import MALA
    from .microcanonical import MAMS, MCLMC
    from .mixture import Mixture
    from .nuts import NUTS
    from .pooled import PooledHMC
    from .proposals import GaussianProposal
    from .pseudo_marginal import PseudoMarginal
    from .random_walk import RandomWalk
    from .slice import Slice
    from .stretch import Stretch
    from .tempering import Tempering
    from .walk import Walk

_HOMES = {
    "Barker": "barker",
    "Block": "block",
    "Chains": "chains",
    "Cycle": "cycle",
    "DifferentialEvolution": "differential",
    "Ensemble": "ensemble",
    "EllipticalSlice": "elliptical",
    "FiniteMetropolis": "finite_metropolis",
    "Gibbs": "gibbs",
    "GaussianProposal": "proposals",
    "HMC": "hmc",
    "Independence": "independence",
    "LocallyInformed": "informed",
    "MALA": "mala",
    "MAMS": "microcanonical",
    "MCLMC": "microcanonical",
    "Mixture": "mixture",
    "NUTS": "nuts",
    "PooledHMC": "pooled",
    "PseudoMarginal": "pseudo_marginal",
    "RandomWalk": "random_walk",
    "Slice": "slice",
    "Stretch": "stretch",
    "StudentT": "independence",
    "Tempering": "tempering",
    "Walk": "walk",
}

__all__ = [
    "HMC",
    "MALA",
    "MAMS",
    "MCLMC",
    "NUTS",
    "Barker",
    "Block",
    "Chains",
    "Cycle",
    "DifferentialEvolution",
    "Ensemble",
    "EllipticalSlice",
    "FiniteMetropolis",
    "Gibbs",
    "GaussianProposal",
    "Independence",
    "LocallyInformed",
    "Mixture",
    "PooledHMC",
    "PseudoMarginal",
    "RandomWalk",
    "Slice",
    "Stretch",
    "StudentT",
    "Tempering",
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
