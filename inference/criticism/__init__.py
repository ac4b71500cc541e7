"""Criticism of models: predictive accuracy, comparison, sensitivity, evidence and predictive checks."""

from . import checks
from .bridge_sampling import bridge
from .comparison import compare
from .leave_one_out import loo
from .sensitivity import psense

__all__ = ["bridge", "checks", "compare", "loo", "psense"]
