r"""Log distribution and survival functions of any univariate family, stable in both tails.

    log_cdf(d, x) = log P(X <= x),    log_sf(d, x) = log P(X > x),    log_between(d, a, b) = log P(a < X <= b).

Families with a closed form use it on the log scale; transformed, expanded and masked distributions are
followed to their base; others fall back on `cdf` (whose upper tail is only known to machine precision) or,
when the support is finite, on the sum of the masses. Arguments outside the support give probability 0 or 1
with zero gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as nd
from jax.nn import log_sigmoid, logsumexp, softplus
from jax.scipy.special import erf, log_ndtr
from numpyro.distributions import constraints

from .special import log1mexp, log_betainc, log_diff, log_gammainc, log_gammaincc, log_student_sf

__all__ = ["bounds", "interior", "log_between", "log_cdf", "log_sf"]

_INTERVALS = (constraints.interval, constraints.integer_interval)
_ABOVE = (constraints.greater_than, constraints.integer_greater_than)


def bounds(support: Any) -> tuple[Any, Any]:
    """Return the ends (low, high) of a scalar support, None where it is unbounded.

    >>> bounds(constraints.positive)
    (0.0, None)
    """
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if isinstance(support, _INTERVALS):
        return support.lower_bound, support.upper_bound
    if isinstance(support, _ABOVE):
        return support.lower_bound, None
    if isinstance(support, constraints.less_than):
        return None, support.upper_bound
    if support is constraints.boolean:
        return 0, 1
    if support is constraints.real or isinstance(support, type(constraints.real)):
        return None, None
    raise TypeError(f"{support} is not an interval of the line, so it has no ends")


def interior(low: Any, high: Any, loc: Any = 0.0) -> Any:
    """Return a point strictly between two ends, either of which may be None or infinite.

    >>> float(interior(0.0, None)), float(interior(2.0, 4.0))
    (1.0, 3.0)
    """
    low = as_float(-math.inf if low is None else low)
    high = as_float(math.inf if high is None else high)
    low_ok, high_ok = jnp.isfinite(low), jnp.isfinite(high)
    a, b = jnp.where(low_ok, low, 0.0), jnp.where(high_ok, high, 0.0)
    one_sided = jnp.where(low_ok, a + 1.0, jnp.where(high_ok, b - 1.0, loc))
    return jnp.where(low_ok & high_ok, 0.5 * (a + b), one_sided)


def _z(d, x):
    return (x - d.loc) / d.scale


def _ceiling(x):  # beyond it the exponential overflows and its gradient is inf * 0
    return jnp.minimum(x, 0.9 * math.log(jnp.finfo(x.dtype).max))


def _exp(x):
    return jnp.exp(_ceiling(x))


def _expm1(x):
    return jnp.expm1(_ceiling(x))


def _log_hit(log_hazard):
    """Log(1 - exp(-H)) given log H, also where H underflows."""
    small = log_hazard < -37.0
    return jnp.where(small, log_hazard, log1mexp(-_exp(jnp.where(small, 0.0, log_hazard))))


def _log_power(d, x):
    return d.concentration * (jnp.log(x) - jnp.log(d.scale))


def _half_normal(z):  # log erf(z / sqrt 2), from the side that keeps its digits
    near = z < 1.0
    small = jnp.log(erf(jnp.where(near, z, 1.0) * math.sqrt(0.5)))
    return jnp.where(near, small, log1mexp(math.log(2.0) + log_ndtr(-jnp.where(near, 1.0, z))))


def _dagum(d, x):  # log P(X <= x) = -p log(1 + (x / b)^-a)
    return -d.concentration * softplus(d.sharpness * (jnp.log(d.scale) - jnp.log(x)))


def _laplace(z):
    return jnp.where(z < 0, z, 0.0) + jnp.where(
        z < 0, -math.log(2.0), jnp.log1p(-0.5 * jnp.exp(-jnp.where(z < 0, 0.0, z)))
    )


def _asymmetric(d, x, upper):
    scale_left, scale_right = d.scale * d.asymmetry, d.scale / d.asymmetry
    z = x - d.loc
    left = 2 * jnp.log(d.asymmetry) - jnp.log1p(d.asymmetry**2) + jnp.minimum(z, 0.0) / scale_left
    right = -jnp.log1p(d.asymmetry**2) - jnp.maximum(z, 0.0) / scale_right
    return jnp.where(z >= 0, right, log1mexp(left)) if upper else jnp.where(z < 0, left, log1mexp(right))


def _hyperbolic(z):  # log of 2 atan(e^z) / pi; atan(u) = u where u^3 is lost beside it
    far = z < -20.0
    near = jnp.log(jnp.arctan(jnp.exp(jnp.where(far, 0.0, jnp.minimum(z, 40.0)))))
    return jnp.where(far, z, near) - math.log(0.5 * math.pi)


def _binomial(d, k, upper):
    n = jnp.asarray(d.total_count, k.dtype)
    k = jnp.minimum(k, n - 1.0)
    q = 1.0 - d.probs if not isinstance(d, nd.BinomialLogits) else jnp.exp(log_sigmoid(-d.logits))
    if upper:
        return log_betainc(k + 1.0, n - k, d.probs, q)
    return log_betainc(n - k, k + 1.0, q, d.probs)


def _counts(d, k, upper):  # negative binomial: Gamma(concentration, rate) mixture of Poissons
    p, q = d.rate / (1.0 + d.rate), 1.0 / (1.0 + d.rate)
    return log_betainc(k + 1.0, d.concentration, q, p) if upper else log_betainc(d.concentration, k + 1.0, p, q)


def _log_failure(d):
    return log_sigmoid(-d.logits) if isinstance(d, nd.GeometricLogits) else jnp.log1p(-d.probs)


def _bernoulli(d, upper):
    if isinstance(d, nd.BernoulliLogits):
        return log_sigmoid(d.logits if upper else -d.logits)
    return jnp.log(d.probs) if upper else jnp.log1p(-d.probs)


def _delta(d, x, upper):
    return jnp.where((d.v > x) if upper else (d.v <= x), 0.0, -jnp.inf) + d.log_density


def _survival(log_survival):
    """Pair (log cdf, log sf) of a family known by its log survival function."""
    return (lambda d, x: log1mexp(log_survival(d, x)), log_survival)


def _symmetric(half):
    """Pair of a location-scale family symmetric about `loc`, known by its log cdf at z."""
    return (lambda d, x: half(_z(d, x)), lambda d, x: half(-_z(d, x)))


def _both(function):
    return (lambda d, x: function(d, x, False), lambda d, x: function(d, x, True))


_FAMILIES: dict[type, tuple[Callable, Callable]] = {
    nd.Normal: _symmetric(log_ndtr),
    nd.Logistic: _symmetric(log_sigmoid),
    nd.Laplace: _symmetric(_laplace),
    nd.SoftLaplace: _symmetric(_hyperbolic),
    nd.Cauchy: _symmetric(lambda z: jnp.log(jnp.arctan2(1.0, -z)) - math.log(math.pi)),
    nd.StudentT: (lambda d, x: log_student_sf(d.df, -_z(d, x)), lambda d, x: log_student_sf(d.df, _z(d, x))),
    nd.AsymmetricLaplace: _both(_asymmetric),
    nd.AsymmetricLaplaceQuantile: (lambda d, x: log_cdf(d._ald, x), lambda d, x: log_sf(d._ald, x)),
    nd.Gumbel: (lambda d, x: -_exp(-_z(d, x)), lambda d, x: _log_hit(-_z(d, x))),
    nd.HalfNormal: (
        lambda d, x: _half_normal(x / d.scale),
        lambda d, x: log_ndtr(-x / d.scale) + math.log(2.0),
    ),
    nd.HalfCauchy: (
        lambda d, x: jnp.log(jnp.arctan2(x, d.scale)) - math.log(0.5 * math.pi),
        lambda d, x: jnp.log(jnp.arctan2(d.scale, x)) - math.log(0.5 * math.pi),
    ),
    nd.Exponential: _survival(lambda d, x: -d.rate * x),
    nd.Weibull: (lambda d, x: _log_hit(_log_power(d, x)), lambda d, x: -_exp(_log_power(d, x))),
    nd.Gompertz: _survival(lambda d, x: -d.concentration * _expm1(d.rate * x)),
    nd.Gamma: (
        lambda d, x: log_gammainc(d.concentration, d.rate * x),
        lambda d, x: log_gammaincc(d.concentration, d.rate * x),
    ),
    nd.Levy: (
        lambda d, x: math.log(2.0) + log_ndtr(-jnp.sqrt(d.scale / (x - d.loc))),
        lambda d, x: jnp.log(erf(jnp.sqrt(0.5 * d.scale / (x - d.loc)))),
    ),
    nd.Dagum: (_dagum, lambda d, x: log1mexp(_dagum(d, x))),
    nd.Beta: (
        lambda d, x: log_betainc(d.concentration1, d.concentration0, x),
        lambda d, x: log_betainc(d.concentration0, d.concentration1, 1.0 - x, x),
    ),
    nd.Kumaraswamy: _survival(lambda d, x: d.concentration0 * log1mexp(d.concentration1 * jnp.log(x))),
    nd.Uniform: (
        lambda d, x: jnp.log((x - d.low) / (d.high - d.low)),
        lambda d, x: jnp.log((d.high - x) / (d.high - d.low)),
    ),
    nd.Poisson: (lambda d, k: log_gammaincc(k + 1.0, d.rate), lambda d, k: log_gammainc(k + 1.0, d.rate)),
    nd.GammaPoisson: _both(_counts),
    nd.BinomialProbs: _both(_binomial),
    nd.BinomialLogits: _both(_binomial),
    nd.GeometricProbs: _survival(lambda d, k: (k + 1.0) * _log_failure(d)),
    nd.GeometricLogits: _survival(lambda d, k: (k + 1.0) * _log_failure(d)),
    nd.BernoulliProbs: _both(lambda d, k, upper: _bernoulli(d, upper)),
    nd.BernoulliLogits: _both(lambda d, k, upper: _bernoulli(d, upper)),
    nd.Delta: _both(_delta),
}


def _transformed(d, x, upper):
    sign: Any = 1
    for transform in reversed(d.transforms):
        sign = sign * transform.sign
        x = transform.inv(x)
    sign = jnp.asarray(sign)
    down = _tail(d.base_dist, x, not upper)
    return jnp.where(sign > 0, _tail(d.base_dist, x, upper), down)


def _enumerated(d, x, upper):
    values = jnp.asarray(d.enumerate_support(expand=False)).astype(x.dtype)
    shape = jnp.broadcast_shapes(x.shape, tuple(d.batch_shape))
    values = values.reshape((-1,) + (1,) * len(shape))
    keep = (values > x) if upper else (values <= x)
    mass = jnp.where(keep, d.log_prob(values), -jnp.inf)
    return logsumexp(jnp.where(mass == -jnp.inf, -jnp.inf, mass), axis=0)


def _fallback(d, x, upper):
    try:
        p = d.cdf(x)
    except NotImplementedError:
        if d.has_enumerate_support:
            return _enumerated(d, x, upper)
        raise TypeError(
            f"{type(d).__name__} has no distribution function: it cannot be censored or truncated"
        ) from None
    if upper:
        return jnp.where(p < 1, jnp.log1p(-jnp.where(p < 1, p, 0.0)), -jnp.inf)
    return jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1.0)), -jnp.inf)


def _formula(d, x, upper):
    """The tail at x inside the support."""
    for family in type(d).__mro__:
        if family in _FAMILIES:
            return _FAMILIES[family][upper](d, x)
    if isinstance(d, nd.TransformedDistribution):
        return _transformed(d, x, upper)
    return _fallback(d, x, upper)


def _tail(d, x, upper):
    """The tail at any x: 0 or 1 outside the support, which no formula or gradient ever sees."""
    if d.event_shape:
        raise TypeError(f"{type(d).__name__} has vector events: only scalar families have tails")
    if hasattr(d, "log_sf"):
        return d.log_sf(x) if upper else d.log_cdf(x)
    if isinstance(d, nd.ExpandedDistribution):
        shape = jnp.broadcast_shapes(x.shape, d.batch_shape)
        return jnp.broadcast_to(_tail(d.base_dist, x, upper), shape)
    if isinstance(d, nd.MaskedDistribution):
        return jnp.where(d._mask, _tail(d.base_dist, x, upper), 0.0)
    if isinstance(d, nd.Delta):
        return _delta(d, x, upper)
    low, high = bounds(d.support)
    discrete = d.support.is_discrete
    x = jnp.floor(x) if discrete else x
    below, above = x == -jnp.inf, x == jnp.inf
    if low is not None:
        below = below | ((x < low) if discrete else (x <= low))
    if high is not None:
        above = above | (x >= high)
    middle = interior(low, high, getattr(d, "loc", 0.0))
    middle = jnp.asarray(jnp.floor(middle) if discrete else middle, x.dtype)
    value = _formula(d, jnp.where(below | above, middle, x), upper)
    return jnp.where(below, 0.0 if upper else -jnp.inf, jnp.where(above, -jnp.inf if upper else 0.0, value))


def as_float(x: Any) -> Any:
    """Return x as an array of floats: its own type if it has one, else the working precision."""
    dtype = jnp.result_type(x)
    return jnp.asarray(x, dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float))


def log_cdf(d: nd.Distribution, x: Any) -> Any:
    """Return log P(X <= x), at most 0 and accurate in the lower tail.

    Raises:
        TypeError: the family has vector events or no distribution function.

    >>> round(float(log_cdf(nd.Normal(0.0, 1.0), -40.0)), 2)
    -804.61
    """
    return _tail(d, as_float(x), False)


def log_sf(d: nd.Distribution, x: Any) -> Any:
    """Return log P(X > x), at most 0 and accurate in the upper tail.

    Raises:
        TypeError: the family has vector events or no distribution function.

    >>> round(float(log_sf(nd.LogNormal(0.0, 1.0), jnp.exp(40.0))), 2)
    -804.61
    """
    return _tail(d, as_float(x), True)


def log_between(d: nd.Distribution, low: Any, high: Any) -> Any:
    """Return log P(low < X <= high); None stands for an infinite end.

    The difference is taken between the smaller tails, so an interval far out in either tail keeps its digits.

    >>> round(float(log_between(nd.Normal(0.0, 1.0), 40.0, 41.0)), 2)
    -804.61
    """
    if low is None and high is None:
        return jnp.zeros(())
    if low is None:
        return log_cdf(d, high)
    if high is None:
        return log_sf(d, low)
    upper_low, lower_high = log_sf(d, low), log_cdf(d, high)
    in_upper = upper_low < lower_high
    a = jnp.where(in_upper, upper_low, lower_high)
    b = jnp.where(in_upper, log_sf(d, high), log_cdf(d, low))
    return log_diff(a, b)
