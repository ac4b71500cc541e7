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
    from .chees import ChEES
    from .cycle import Cycle
    from .differential import DifferentialEvolution
    from .elliptical import EllipticalSlice
    from .ensemble import Ensemble
    from .exact import Exact
    from .finite_metropolis import FiniteMetropolis
    from .gibbs import Gibbs
    from .hmc import HMC
    from .independence import Independence
    from .informed import LocallyInformed
    from .mala import MALA
    from .microcanonical import MAMS, MCLMC
    from .mixture import Mixture
    from .nuts import NUTS
    from .pooled import PooledHMC
    from .preconditioned import Preconditioned
    from .proposals import GaussianProposal, StudentT
    from .pseudo_marginal import PseudoMarginal
    from .random_walk import RandomWalk
    from .sgmcmc import gradient_noise
    from .sgmcmc_control import control_variates
    from .sgmcmc_cyclical import Cyclical
    from .sgmcmc_hamiltonian import SGHMC
    from .sgmcmc_langevin import PSGLD, SGLD
    from .slice import Slice
    from .stretch import Stretch
    from .tempering import Tempering
    from .walk import Walk

_HOMES = {
    "Barker": "barker",
    "Block": "block",
    "Chains": "chains",
    "ChEES": "chees",
    "control_variates": "sgmcmc_control",
    "Cycle": "cycle",
    "Cyclical": "sgmcmc_cyclical",
    "DifferentialEvolution": "differential",
    "EllipticalSlice": "elliptical",
    "Ensemble": "ensemble",
    "Exact": "exact",
    "FiniteMetropolis": "finite_metropolis",
    "GaussianProposal": "proposals",
    "Gibbs": "gibbs",
    "gradient_noise": "sgmcmc",
    "HMC": "hmc",
    "Independence": "independence",
    "LocallyInformed": "informed",
    "MALA": "mala",
    "MAMS": "microcanonical",
    "MCLMC": "microcanonical",
    "Mixture": "mixture",
    "NUTS": "nuts",
    "PooledHMC": "pooled",
    "Preconditioned": "preconditioned",
    "PseudoMarginal": "pseudo_marginal",
    "PSGLD": "sgmcmc_langevin",
    "RandomWalk": "random_walk",
    "SGHMC": "sgmcmc_hamiltonian",
    "SGLD": "sgmcmc_langevin",
    "Slice": "slice",
    "Stretch": "stretch",
    "StudentT": "proposals",
    "Tempering": "tempering",
    "Walk": "walk",
}

__all__ = [
    "HMC",
    "MALA",
    "MAMS",
    "MCLMC",
    "NUTS",
    "PSGLD",
    "SGHMC",
    "SGLD",
    "Barker",
    "Block",
    "Chains",
    "ChEES",
    "Cycle",
    "Cyclical",
    "DifferentialEvolution",
    "EllipticalSlice",
    "Ensemble",
    "Exact",
    "FiniteMetropolis",
    "GaussianProposal",
    "Gibbs",
    "Independence",
    "LocallyInformed",
    "Mixture",
    "PooledHMC",
    "Preconditioned",
    "PseudoMarginal",
    "RandomWalk",
    "Slice",
    "Stretch",
    "StudentT",
    "Tempering",
    "Walk",
    "control_variates",
    "gradient_noise",
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
