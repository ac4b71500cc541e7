"""Is a sampler right? Simulation-based calibration and other tests of what it draws."""

from .geweke import geweke as geweke
from .rank import rank_invariance as rank_invariance
from .report import SBC as SBC
from .sbc import sbc as sbc
