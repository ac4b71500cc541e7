r"""Finite mixtures of any families, the component summed out.

    p(x) = \sum_k w_k p_k(x),    log p(x) = logsumexp_k (log w_k + log p_k(x)).

A component whose support does not hold x contributes nothing, in value and in gradient. Zero inflation is
the mixture of a `Delta` and a family of counts; the mixture of a `Delta` and a continuous family is a hurdle:
at the atom only the atom counts, since a density has no mass there.

Reference: McLachlan and Peel (2000), Finite Mixture Models.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as nd
from jax import lax
from jax.nn import log_softmax
from numpyro.distributions import constraints

from .support import hull
from .tails import as_float, log_cdf, log_sf

__all__ = ["Mixed", "mixture"]


def _is_atom(d):
    while isinstance(d, nd.ExpandedDistribution | nd.Independent):
        d = d.base_dist
    return isinstance(d, nd.Delta)


def _log_sum(terms):
    """Log of the sum of exponentials over the last axis; terms of -inf get a zero gradient, not NaN."""
    top = lax.stop_gradient(jnp.max(terms, axis=-1, keepdims=True))
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    dead = terms == -jnp.inf
    total = jnp.sum(jnp.where(dead, 0.0, jnp.exp(jnp.where(dead, 0.0, terms - top))), axis=-1)
    empty = total == 0
    return jnp.where(empty, -jnp.inf, jnp.log(jnp.where(empty, 1.0, total)) + top[..., 0])


def _log_prob(d, value):
    """Log density of one component, -inf outside its support, whatever the family does there."""
    if _is_atom(d):
        return d.log_prob(value)
    inside = jnp.asarray(d.support(value))
    axes = len(d.event_shape)
    value = jnp.broadcast_to(value, inside.shape + jnp.shape(value)[jnp.ndim(value) - axes :])
    other = jnp.asarray(d.support.feasible_like(value), value.dtype)
    value = jnp.where(jnp.reshape(inside, inside.shape + (1,) * axes), value, other)
    return jnp.where(inside, d.log_prob(value), -jnp.inf)


class Mixed(nd.Distribution):
    """A finite mixture; see `mixture`. `components` is one batched family or a tuple of families."""

    arg_constraints: dict[str, Any] = {}
    pytree_data_fields = ("logits", "components")
    pytree_aux_fields = ("atoms",)

    def __init__(self, logits, components, *, validate_args=None):
        """Mix `components` by log weights whose last axis is the component."""
        self.logits, self.components = logits, components
        size = jnp.shape(logits)[-1]
        if self._batched:
            if not components.batch_shape or components.batch_shape[-1] != size:
                raise ValueError(f"{size} weights, but the last batch axis is {components.batch_shape}")
            shapes, events = [components.batch_shape[:-1]], {components.event_shape}
        else:
            if len(components) != size:
                raise ValueError(f"{size} weights for {len(components)} components")
            shapes, events = [d.batch_shape for d in components], {d.event_shape for d in components}
        if len(events) != 1:
            raise ValueError(f"components of one mixture have one event shape, not {sorted(events)}")
        kinds = {d.support.is_discrete for d in self._parts if not _is_atom(d)}
        if len(kinds) > 1:
            raise ValueError("counts and a density have no common measure; only Delta mixes with either")
        # Atoms beside a density: an observation model, never the law of a continuous latent.
        self.atoms = kinds == {False} and any(_is_atom(d) for d in self._parts)
        batch = lax.broadcast_shapes(jnp.shape(logits)[:-1], *shapes)
        super().__init__(batch, events.pop(), validate_args=validate_args)

    @property
    def _batched(self):
        return isinstance(self.components, nd.Distribution)

    @property
    def _parts(self):
        return (self.components,) if self._batched else self.components

    @property
    def log_weights(self):
        """Normalised log weights, the component last."""
        dead = self.logits == -jnp.inf
        return jnp.where(dead, -jnp.inf, log_softmax(jnp.where(dead, -jnp.inf, self.logits), axis=-1))

    @property
    def support(self):
        """The common support of the components, or the smallest interval that holds them all."""
        proper = [d for d in self._parts if not _is_atom(d)]
        if not proper:
            return self._parts[0].support
        first = proper[0].support
        if all(isinstance(d.support, type(constraints.real)) for d in proper):
            return first
        same = all(d.support is first for d in proper) and not jax.tree.leaves(first)
        points = [d.mean for d in self._parts if _is_atom(d)]
        if same and all(_surely_inside(first, p) for p in points):
            return first
        if self.event_shape:
            if all(type(d.support) is type(first) for d in proper):
                return first
            raise ValueError("components of vectors must have the same support")
        supports = [self._batch_hull(d.support) for d in proper]
        return supports[0] if len(supports) == 1 and not points else hull(supports, points)

    def _batch_hull(self, support):
        """The support of a batched family without its last axis, over which the hull is taken."""
        if not self._batched or not jax.tree.leaves(support):
            return support
        ends = {}
        for name, reduce in (("lower_bound", jnp.min), ("upper_bound", jnp.max)):
            if hasattr(support, name):
                end = getattr(support, name)
                ends[name] = reduce(end, axis=-1) if jnp.ndim(end) else end
        return type(support)(**ends)

    def _stack(self, function, value=None):
        """`function(component, value)` of all components, stacked on a last axis."""
        if self._batched:
            if value is not None:
                value = jnp.expand_dims(value, jnp.ndim(value) - len(self.event_shape))
            return function(self.components, value)
        out = [function(d, value) for d in self.components]
        shape = jnp.broadcast_shapes(*(jnp.shape(o) for o in out))
        return jnp.stack([jnp.broadcast_to(o, shape) for o in out], axis=-1)

    def log_prob(self, value, intermediates=None):
        """Log density, the component summed out."""
        terms = self._stack(_log_prob, value)
        if self.atoms:
            atom = jnp.asarray([_is_atom(d) for d in self._parts])
            hit = jnp.any(atom & (terms > -jnp.inf), axis=-1, keepdims=True)
            terms = jnp.where(hit & ~atom, -jnp.inf, terms)
        return _log_sum(terms + self.log_weights)

    def responsibilities(self, value):
        """Posterior probabilities of the components given a value, the component last."""
        terms = self._stack(_log_prob, value) + self.log_weights
        return jnp.exp(terms - _log_sum(terms)[..., None])

    def sample(self, key, sample_shape=()):
        """Draw a component, then from it."""
        first, second = jax.random.split(key)
        shape = tuple(sample_shape) + self.batch_shape
        k = jax.random.categorical(first, self.log_weights, shape=shape)
        axis = len(shape)
        if self._batched:
            draws = self.components.expand(self.batch_shape + self.logits.shape[-1:]).sample(second, sample_shape)
        else:
            keys = jax.random.split(second, len(self.components))
            parts = [
                d.expand(self.batch_shape).sample(j, sample_shape) for d, j in zip(self.components, keys, strict=True)
            ]
            parts = [jnp.broadcast_to(p, shape + self.event_shape) for p in parts]
            proper = [p.dtype for p, d in zip(parts, self.components, strict=True) if not _is_atom(d)]
            dtype = jnp.result_type(*(proper or [p.dtype for p in parts]))
            draws = jnp.stack([p.astype(dtype) for p in parts], axis)
        index = jnp.reshape(k, shape + (1,) * (1 + len(self.event_shape)))
        return jnp.squeeze(jnp.take_along_axis(draws, index, axis=axis), axis)

    def _moments(self):
        weights = jnp.exp(self.log_weights)
        weights = jnp.reshape(weights, weights.shape + (1,) * len(self.event_shape))
        axis = -1 - len(self.event_shape)
        if self._batched:
            means, variances = self.components.mean, self.components.variance
        else:
            full = self.batch_shape + self.event_shape
            means = jnp.stack([jnp.broadcast_to(d.mean, full) for d in self.components], axis)
            variances = jnp.stack([jnp.broadcast_to(d.variance, full) for d in self.components], axis)
        mean = jnp.sum(weights * means, axis)
        spread = variances + (means - jnp.expand_dims(mean, axis)) ** 2
        return mean, jnp.sum(weights * spread, axis)

    @property
    def mean(self):
        """Mean of the mixture."""
        return self._moments()[0]

    @property
    def variance(self):
        """Variance of the mixture: mean of the variances plus variance of the means."""
        return self._moments()[1]

    def log_cdf(self, x):
        """Log P(X <= x)."""
        return _log_sum(self._stack(log_cdf, x) + self.log_weights)

    def log_sf(self, x):
        """Log P(X > x)."""
        return _log_sum(self._stack(log_sf, x) + self.log_weights)

    def cdf(self, value):
        """Distribution function."""
        return jnp.exp(self.log_cdf(as_float(value)))


def _surely_inside(support, point):
    """Whether a point is known, without tracing, to lie in a support."""
    return not isinstance(point, jax.core.Tracer) and bool(np.all(support(np.asarray(point))))


def mixture(weights: Any, components: Any, *, logits: Any = None) -> nd.Distribution:
    """Return a finite mixture with its component summed out.

    Args:
        weights: probabilities with the component on the last axis (normalised if they are not), or a
            `Categorical`; None when `logits` are given.
        components: a list of K distributions of one event shape, of any families, or one distribution whose
            last batch axis has size K.
        logits: unnormalised log weights.

    Returns:
        A distribution over the values; `responsibilities(value)` gives the component's posterior.

    Raises:
        ValueError: numbers of weights and components differ, event shapes differ, or counts are mixed with a
            density (other than a `Delta`).

    >>> d = mixture(jnp.array([0.3, 0.7]), [nd.Delta(0), nd.Poisson(2.0)])      # zero-inflated counts
    >>> round(float(jnp.exp(d.log_prob(0))), 4)
    0.3947
    """
    if (weights is None) == (logits is None):
        raise ValueError("give weights or logits, one of them")
    if isinstance(weights, nd.CategoricalProbs):
        weights = weights.probs
    elif isinstance(weights, nd.CategoricalLogits):
        weights, logits = None, weights.logits
    if weights is not None:
        weights = as_float(weights)
        alive = weights > 0
        logits = jnp.where(alive, jnp.log(jnp.where(alive, weights, 1.0)), -jnp.inf)
    logits = as_float(logits)
    if not isinstance(components, nd.Distribution):
        components = tuple(components)
    return Mixed(logits, components)
