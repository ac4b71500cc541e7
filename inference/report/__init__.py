"""A fit as one self-contained HTML page: verdict, convergence, traces, divergences located, checks, origin.

``Fit.report(path)`` writes it. Every part is a function from the fit to markup and concerns (``section``); the page
collects the concerns into a verdict. Plots are inline SVG made with NumPy (``svg``); nothing else is needed to read it.
"""

from .page import render as render
from .page import write as write
