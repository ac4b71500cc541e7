"""Distributions: NumPyro's, re-exported, and the families and combinators that it lacks.

    from ppl import dist
    dist.Normal, dist.constraints, dist.transforms, dist.biject_to       # NumPyro's
    dist.censored, dist.truncated, dist.mixture, dist.flat, ...          # here

All are NumPyro `Distribution`s: pytrees with `log_prob`, `sample`, `support`, `expand` and `to_event`.
"""

from numpyro.distributions import *  # noqa: F403
from numpyro.distributions import __all__ as _numpyro_names
from numpyro.distributions import constraints, transforms  # noqa: F401

from .censoring import Censored, HalfCensored, censored, left_censored, right_censored
from .improper import Flat, FlatPositive, Improper, flat
from .mixtures import Mixed, mixture
from .tails import log_between, log_cdf, log_sf
from .truncation import (  # type: ignore[assignment]  # three of them replace NumPyro's of the same name
    Truncated,
    TruncatedCauchy,
    TruncatedDistribution,
    TruncatedNormal,
    truncated,
)

_replaced = {"TruncatedCauchy", "TruncatedDistribution", "TruncatedNormal"}
__all__ = [name for name in _numpyro_names if name not in _replaced]
__all__ += [  # the truncated ones replace NumPyro's of the same name
    "Censored",
    "Flat",
    "FlatPositive",
    "HalfCensored",
    "Improper",
    "Mixed",
    "Truncated",
    "TruncatedCauchy",
    "TruncatedDistribution",
    "TruncatedNormal",
    "censored",
    "flat",
    "left_censored",
    "log_between",
    "log_cdf",
    "log_sf",
    "mixture",
    "right_censored",
    "truncated",
]
