"""Markov chain Monte Carlo: engines and kernels, one per file."""

from .chains import Chains as Chains
from .hmc import HMC as HMC
from .nuts import NUTS as NUTS
from .pooled import PooledHMC as PooledHMC
