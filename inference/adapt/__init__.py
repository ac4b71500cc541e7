"""Adapters: step size, metric and what else is learned while a chain warms up."""

from .metric import Variance
from .step_size import StepSize

__all__ = ["StepSize", "Variance"]
