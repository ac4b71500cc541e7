"""Probabilistic programming on JAX: write a generative model in Python, condition it on data, infer.

Example:
    >>> import ppl
    >>> from ppl import dist
    >>> @ppl.model
    ... def coin(n):
    ...     p = ppl.sample("p", dist.Beta(2.0, 2.0))
    ...     ppl.sample("heads", dist.Binomial(n, p))
    >>> density = ppl.compile(coin(10).condition(heads=7))
    >>> density.dim
    1
"""

from . import distributions
from . import distributions as dist
from ._cache import enable_compilation_cache
from .arguments import index
from .chains import markov
from .check import check, check_parameters
from .columns import allow_nan
from .compile import compile
from .density import Density
from .errors import ImproperPrior, MissingSite, ModelError, ParameterError
from .external import external
from .formula import formula
from .graph import Graph
from .maps import branch, call, plate, sample_tree
from .program import Model, Program, Site, model
from .ragged import Ragged, Rows, ragged
from .subsample import SubsampledDensity
from .trace import factor, record, sample

__version__ = "0.1.0"

enable_compilation_cache()

__all__ = [
    "Density",
    "Graph",
    "ImproperPrior",
    "MissingSite",
    "Model",
    "ModelError",
    "ParameterError",
    "Program",
    "Ragged",
    "Rows",
    "Site",
    "SubsampledDensity",
    "allow_nan",
    "branch",
    "call",
    "check",
    "check_parameters",
    "compile",
    "dist",
    "distributions",
    "external",
    "factor",
    "formula",
    "index",
    "markov",
    "model",
    "plate",
    "ragged",
    "record",
    "sample",
    "sample_tree",
]
