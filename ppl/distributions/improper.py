"""Flat priors: log density zero on a support, with no normaliser and no draws."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as nd
from jax import lax
from numpyro.distributions import constraints

from ..errors import ImproperPrior

__all__ = ["Flat", "FlatPositive", "Improper", "flat"]


class Improper(nd.Distribution):
    """A flat measure on a support; see `flat`. `improper` tells it from what can be drawn from."""

    arg_constraints: dict[str, Any] = {}
    pytree_data_fields = ("_support",)
    improper = True

    def __init__(self, support, shape=(), *, validate_args=None):
        """Make a measure on arrays of `shape`, batch and event axes."""
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        cut = len(shape) - support.event_dim
        if cut < 0:
            raise ValueError(f"{support} is about arrays of {support.event_dim} axes, the shape is {shape}")
        self._support = support
        super().__init__(shape[:cut], shape[cut:], validate_args=validate_args)

    def log_prob(self, value, intermediates=None):
        """Zero on the support, -inf outside."""
        inside = self.support(value)
        shape = lax.broadcast_shapes(jnp.shape(inside), self.batch_shape)
        return jnp.broadcast_to(jnp.where(inside, 0.0, -jnp.inf), shape)

    def sample(self, key=None, sample_shape=()):
        """Raise: there is nothing to draw from."""
        raise ImproperPrior(
            f"A flat prior on {self.support} is an improper prior: it has no normaliser, so nothing can be "
            "drawn from it. Condition on a value, or give the site a proper prior, for instance "
            "dist.Normal(0, 10) or dist.HalfNormal(10)."
        )

    def placeholder(self, dtype=None):
        """Return a point of the support of the right shape, for where only shape and type matter."""
        like = jnp.zeros(self.shape(), jnp.result_type(float) if dtype is None else dtype)
        return jnp.asarray(self.support.feasible_like(like), like.dtype)


def flat(support: Any = constraints.real, shape: Any = ()) -> nd.Distribution:
    """Return the flat improper prior on a support.

    Args:
        support: any constraint; its ends may be latents.
        shape: full shape, batch and event axes.

    >>> d = flat(constraints.simplex, shape=(5, 3))
    >>> d.batch_shape, d.event_shape, d.improper
    ((5,), (3,), True)
    """
    return Improper(support, shape)


def Flat(shape: Any = ()) -> nd.Distribution:  # noqa: N802 - read as a distribution in models
    """Return the flat improper prior on the real line.

    >>> float(Flat().log_prob(3.0))
    0.0
    """
    return Improper(constraints.real, shape)


def FlatPositive(shape: Any = ()) -> nd.Distribution:  # noqa: N802
    """Return the flat improper prior on the positive half-line.

    >>> float(FlatPositive().log_prob(-1.0))
    -inf
    """
    return Improper(constraints.positive, shape)
