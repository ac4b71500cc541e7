"""Markov chain Monte Carlo: engines and kernels, one per file."""

from .pooled import PooledHMC as PooledHMC
