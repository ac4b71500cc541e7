"""Is a sampler right? Simulation-based calibration and other tests of what it draws."""

from .report import SBC as SBC
from .sbc import sbc as sbc
