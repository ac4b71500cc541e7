r"""Censored observations: a value known only to lie at or beyond a limit.

With F the distribution function of a family with density (or mass) f,

    p(x) = F(lower) at x = lower,    P(X >= upper) at x = upper,    f(x) in between,

which is the law of X clipped to [lower, upper] and sums to one. With an indicator per observation instead
of limits (survival analysis), p(x) = f(x) where the event was seen and P(X > x) (right) or P(X <= x) (left)
where it was not. Tails are evaluated on the log scale, so an observation far beyond what the model expects still has a
finite density and a usable gradient.

Reference: Klein and Moeschberger (2003), Survival Analysis, section 3.5.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as nd
from jax import lax
from numpyro.distributions import constraints

from .support import restricted
from .tails import as_float, bounds, interior, log_cdf, log_sf

__all__ = ["Censored", "HalfCensored", "censored", "left_censored", "right_censored"]


def _scalar(d: nd.Distribution) -> None:
    if not isinstance(d, nd.Distribution) or d.event_shape:
        raise TypeError(f"only distributions of scalar events can be censored, not {d!r}")


def _safe(d: nd.Distribution, value: Any, use: Any) -> Any:
    """`value` where it is used, elsewhere a point at which density and gradient are finite."""
    middle = interior(*bounds(d.support), getattr(d, "loc", 0.0))
    if d.support is not None and d.support.is_discrete:
        middle = jnp.floor(middle)
    value = jnp.asarray(value)
    return jnp.where(use, value, middle.astype(value.dtype))


class Censored(nd.Distribution):
    """The law of a variable clipped to [lower, upper]; see `censored`."""

    arg_constraints: dict[str, Any] = {}
    pytree_data_fields = ("base_dist", "lower", "upper")
    atoms = True  # point masses at the limits: a density of an observation, never of a continuous latent

    def __init__(self, base_dist, lower=None, upper=None, *, validate_args=None):
        """Clip `base_dist`; a limit of None does not exist."""
        _scalar(base_dist)
        self.base_dist, self.lower, self.upper = base_dist, lower, upper
        ends = [jnp.shape(end) for end in (lower, upper) if end is not None]
        super().__init__(lax.broadcast_shapes(base_dist.batch_shape, *ends), (), validate_args=validate_args)

    @property
    def support(self):
        """The closed interval between the limits, within the support of the family."""
        return restricted(self.base_dist.support, self.lower, self.upper)

    def sample(self, key, sample_shape=()):
        """Draw from the family and clip."""
        x = self.base_dist.expand(self.batch_shape).sample(key, sample_shape)
        if self.lower is not None:
            x = jnp.maximum(x, jnp.asarray(self.lower).astype(x.dtype))
        if self.upper is not None:
            x = jnp.minimum(x, jnp.asarray(self.upper).astype(x.dtype))
        return x

    def log_prob(self, value, intermediates=None):
        """Log mass at the limits, log density between them, -inf outside."""
        value = jnp.asarray(value)
        # Limits are compared in the type of the data: 0.1 kept in two precisions is still the same limit.
        lower = None if self.lower is None else jnp.asarray(self.lower).astype(value.dtype)
        upper = None if self.upper is None else jnp.asarray(self.upper).astype(value.dtype)
        at_low = jnp.zeros(jnp.shape(value), bool) if lower is None else value <= lower
        at_high = jnp.zeros(jnp.shape(value), bool) if upper is None else value >= upper
        inside = ~(at_low | at_high)
        below, above = lower is not None and value < lower, upper is not None and value > upper
        if jnp.issubdtype(value.dtype, jnp.floating):
            value = value.astype(jnp.result_type(float))
        out = self.base_dist.log_prob(_safe(self.base_dist, value, inside))
        if lower is not None:
            mass = jnp.where(below, -jnp.inf, log_cdf(self.base_dist, self.lower))
            out = jnp.where(at_low, mass, out)
        if upper is not None:
            mass = jnp.where(above, -jnp.inf, self._log_at_least(self.upper))
            out = jnp.where(at_high, mass, out)
        return out

    def _log_at_least(self, x):
        """Log P(X >= x) of the family, which for counts is not P(X > x)."""
        return log_sf(self.base_dist, jnp.ceil(x) - 1.0 if self.base_dist.support.is_discrete else x)

    def log_cdf(self, x):
        """Log P(clipped X <= x)."""
        out = log_cdf(self.base_dist, x)
        out = out if self.lower is None else jnp.where(x < self.lower, -jnp.inf, out)
        return out if self.upper is None else jnp.where(x >= self.upper, 0.0, out)

    def log_sf(self, x):
        """Log P(clipped X > x)."""
        out = log_sf(self.base_dist, x)
        out = out if self.lower is None else jnp.where(x < self.lower, 0.0, out)
        return out if self.upper is None else jnp.where(x >= self.upper, -jnp.inf, out)

    def cdf(self, value):
        """Distribution function of the clipped variable."""
        return jnp.exp(self.log_cdf(as_float(value)))


class HalfCensored(nd.Distribution):
    """A variable of which some observations are only a bound; see `right_censored` and `left_censored`."""

    arg_constraints: dict[str, Any] = {}
    pytree_data_fields = ("base_dist", "event")
    pytree_aux_fields = ("right",)

    def __init__(self, base_dist, event, right=True, *, validate_args=None):
        """Take `value` for a bound of `base_dist` wherever `event` is false."""
        _scalar(base_dist)
        self.base_dist, self.event, self.right = base_dist, event, right
        shape = lax.broadcast_shapes(base_dist.batch_shape, jnp.shape(event))
        super().__init__(shape, (), validate_args=validate_args)

    @property
    def support(self):
        """The support of the family, with its lower end, where a bound may lie."""
        low, _ = bounds(self.base_dist.support)
        if self.base_dist.support.is_discrete or low is None:
            return self.base_dist.support
        return restricted(constraints.real, *bounds(self.base_dist.support))

    def sample(self, key, sample_shape=()):
        """Draw the variable itself: when it would have been censored is not part of this law."""
        return self.base_dist.expand(self.batch_shape).sample(key, sample_shape)

    def log_prob(self, value, intermediates=None):
        """Log density where the event was seen, log tail probability where only a bound is known."""
        seen = jnp.asarray(self.event).astype(bool)
        density = self.base_dist.log_prob(_safe(self.base_dist, value, seen))
        tail = log_sf if self.right else log_cdf
        return jnp.where(seen, density, tail(self.base_dist, _safe(self.base_dist, value, ~seen)))


def censored(d: nd.Distribution, lower: Any = None, upper: Any = None) -> nd.Distribution:
    """Return the law of values recorded at detection limits.

    Args:
        d: a distribution of scalars, continuous or discrete, with a distribution function.
        lower: value == lower means "at or below lower"; None for no lower limit; arrays broadcast.
        upper: value == upper means "at or above upper".

    Returns:
        A distribution; drawing from it clips.

    Raises:
        TypeError: the events are vectors, or (when evaluated) the family has no distribution function.

    >>> d = censored(nd.Normal(0.0, 1.0), lower=-1.0)
    >>> [round(float(v), 4) for v in d.log_prob(jnp.array([-1.0, 0.0]))]
    [-1.841, -0.9189]
    """
    return d if lower is None and upper is None else Censored(d, lower, upper)


def right_censored(d: nd.Distribution, event: Any) -> nd.Distribution:
    """Return the law of observations of which some are only lower bounds.

    Args:
        d: a distribution of scalars.
        event: boolean array: True (1) where the value is the variable itself, False (0) where the variable is
            only known to exceed the value.

    >>> d = right_censored(nd.Exponential(0.5), jnp.array([True, False]))
    >>> [round(float(v), 4) for v in d.log_prob(jnp.array([2.0, 2.0]))]
    [-1.6931, -1.0]
    """
    return HalfCensored(d, event, True)


def left_censored(d: nd.Distribution, event: Any) -> nd.Distribution:
    """Return the law of observations of which some are only upper bounds; the mirror of `right_censored`.

    >>> d = left_censored(nd.Exponential(0.5), jnp.array([False]))
    >>> round(float(d.log_prob(jnp.array([2.0]))[0]), 4)
    -0.4587
    """
    return HalfCensored(d, event, False)
