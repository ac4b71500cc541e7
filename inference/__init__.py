"""Inference engines, the driver that runs them, and labelled results.

Names are imported when they are first used, so that a program that never infers never pays.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import adapt, calibration, devices, interop, mcmc
    from .criticism import bridge, checks, compare, loo, psense
    from .drive import infer
    from .estimator import Estimator
    from .mode import laplace
    from .results import Fit
    from .runs import status
    from .sharding import shard
    from .storage import load
    from .until import ess

_HOMES = {
    "infer": "drive",
    "Fit": "results",
    "Estimator": "estimator",
    "ess": "until",
    "load": "storage",
    "laplace": "mode",
    "status": "runs",
    "shard": "sharding",
    "devices": None,
    "bridge": "criticism",
    "checks": "criticism",
    "compare": "criticism",
    "loo": "criticism",
    "psense": "criticism",
    "mcmc": None,
    "adapt": None,
    "calibration": None,
    "interop": None,
}

__all__ = [
    "Estimator",
    "Fit",
    "adapt",
    "bridge",
    "calibration",
    "checks",
    "compare",
    "devices",
    "ess",
    "infer",
    "interop",
    "laplace",
    "load",
    "loo",
    "mcmc",
    "psense",
    "shard",
    "status",
]


def __getattr__(name: str) -> Any:
    """Import a public name at first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    module = importlib.import_module(f"{__name__}.{home or name}")
    value = module if home is None else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
