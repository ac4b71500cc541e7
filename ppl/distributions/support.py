"""Supports of combined families: intersections and hulls of intervals of the line or of the integers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from .tails import bounds

__all__ = ["hull", "interval", "restricted"]


def _combine(function: str, a: Any, b: Any) -> Any:
    """Maximum or minimum of two ends, on the host unless one of them is traced."""
    if a is None or b is None:
        return b if a is None else a
    host = not isinstance(a, jax.Array) and not isinstance(b, jax.Array)
    return getattr(np if host else jnp, function)(a, b)


def interval(low: Any, high: Any, discrete: bool) -> constraints.Constraint:
    """Return the constraint of the closed interval with the ends given; None stands for no end.

    >>> interval(0.0, None, False)
    GreaterThanEq(lower_bound=0.0)
    """
    if discrete:
        if low is None:
            raise ValueError("a discrete support needs a lower end")
        return constraints.integer_greater_than(low) if high is None else constraints.integer_interval(low, high)
    if low is None and high is None:
        return constraints.real
    if low is None:
        return constraints.less_than_eq(high)
    return constraints.greater_than_eq(low) if high is None else constraints.interval(low, high)


def restricted(support: constraints.Constraint, low: Any, high: Any) -> constraints.Constraint:
    """Return the part of a scalar support between two ends, both inclusive.

    >>> restricted(constraints.positive, None, 5.0)
    Interval(lower_bound=0.0, upper_bound=5.0)
    """
    if low is None and high is None:
        return support
    ends = bounds(support)
    low, high = _combine("maximum", ends[0], low), _combine("minimum", ends[1], high)
    if support.is_discrete:
        low = None if low is None else _whole("ceil", low)
        high = None if high is None else _whole("floor", high)
    return interval(low, high, support.is_discrete)


def _whole(function: str, x: Any) -> Any:
    if jnp.issubdtype(jnp.result_type(x), jnp.integer):
        return x
    return getattr(jnp if isinstance(x, jax.Array) else np, function)(x)


def hull(supports: list[constraints.Constraint], points: list[Any]) -> constraints.Constraint:
    """Return the smallest interval that holds several scalar supports and points.

    >>> hull([constraints.positive, constraints.real], [])
    Real()
    """
    ends = [bounds(s) for s in supports] + [(p, p) for p in points]
    discrete = all(s.is_discrete for s in supports)
    low, high = ends[0]
    for a, b in ends[1:]:
        low = None if low is None or a is None else _combine("minimum", low, a)
        high = None if high is None or b is None else _combine("maximum", high, b)
    return interval(low, high, discrete)
