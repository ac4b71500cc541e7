r"""Distributions of vectors of which some elements are not known.

For x = (x_K, x_U) with the known elements K, the log density of the known ones alone and a draw of the others given
them. Which elements are known is an array of booleans, so that every row of a batch may have a pattern of its own and
a new pattern compiles nothing. Independent elements: the sum over K. Normal: with the indicator m of K and

    S_m = m m' * S + diag(1 - m),    r = m * (x - mu),

log N(x_K; mu_K, S_KK) = -1/2 r' S_m^-1 r - 1/2 log |S_m| - |K| / 2 log 2 pi, because S_m is block diagonal with the
identity on U. A draw of x_U given x_K is that of a joint draw z corrected by the known residual (Matheron's rule;
Journel and Huijbregts, 1978), z_U + S_UK S_KK^-1 (x_K - z_K). Student t: the marginal has the same degrees of freedom
df, and given x_K the scale is inflated by (df + r' S_m^-1 r) / (df + |K|) at df + |K| degrees (Ding, 2016).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as nd
from jax.scipy.special import gammaln
from numpyro.distributions.distribution import ExpandedDistribution, Independent

__all__ = ["base_of", "draw", "joint_axes", "log_prob", "marginalizes", "split"]

Array = Any


def base_of(d: Any) -> Any:
    """The distribution inside wrappers that only arrange independent copies.

    >>> type(base_of(nd.Normal(0.0, 1.0).expand([3]).to_event(1))).__name__
    'Normal'
    """
    while isinstance(d, (ExpandedDistribution, Independent)):
        d = d.base_dist
    return d


def joint_axes(d: Any) -> int:
    """Number of trailing axes along which the elements of a draw depend on each other.

    >>> joint_axes(nd.Normal(0.0, 1.0).expand([3]).to_event(1)), joint_axes(nd.Dirichlet(jnp.ones(3)))
    (0, 1)
    """
    return len(base_of(d).event_shape)


def marginalizes(d: Any) -> bool:
    """Whether the log density of any part of a vector is known here in closed form.

    >>> marginalizes(nd.Normal(0.0, 1.0)), marginalizes(nd.Dirichlet(jnp.ones(3)))
    (True, False)
    """
    return joint_axes(d) == 0 or type(base_of(d)) in _FAMILIES


def log_prob(d: Any, value: Array, known: Array) -> Array:
    """Log density of the known elements alone, of shape ``d.batch_shape``.

    Of a joint family without closed marginals the rows that are wholly known count, and the others are left out,
    which is exact where nothing of them is known.

    Args:
        d: A distribution.
        value: Shape ``d.shape()``; finite and inside the support also where it is not known.
        known: Booleans of the same shape.

    >>> d = nd.MultivariateNormal(jnp.zeros(2), jnp.array([[4.0, 1.0], [1.0, 9.0]]))
    >>> found = log_prob(d, jnp.array([1.0, 0.0]), jnp.array([True, False]))
    >>> bool(jnp.allclose(found, nd.Normal(0.0, 2.0).log_prob(1.0)))
    True
    """
    base = base_of(d)
    marginal = _FAMILIES.get(type(base))
    if marginal is not None:
        return _summed(d, marginal(base, value, known))
    return split(d, value, known)[0]


def split(d: Any, value: Array, known: Array) -> tuple[Array, Array]:
    """The log density divided into the terms of known elements and the others.

    A joint family has one term for each row, which belongs to the known ones where the whole row is known.

    >>> d = nd.Normal(0.0, 1.0).expand([2]).to_event(1)
    >>> [round(float(x), 3) for x in split(d, jnp.array([0.0, 1.0]), jnp.array([True, False]))]
    [-0.919, -1.419]
    """
    each = base_of(d).log_prob(value)
    rows = whole(known, len(base_of(d).event_shape))
    zero = jnp.zeros((), each.dtype)
    return _summed(d, jnp.where(rows, each, zero)), _summed(d, jnp.where(rows, zero, each))


def whole(known: Array, axes: int) -> Array:
    """Whether all elements of a row are known, a row being the last ``axes`` axes."""
    return known.all(axis=tuple(range(known.ndim - axes, known.ndim))) if axes else known


def draw(d: Any, key: Array, value: Array, known: Array) -> Array:
    """A draw of the unknown elements given the known ones, which stay as they are.

    Exact for independent elements and for the families of ``marginalizes``; of other joint families a row must be
    wholly known or wholly unknown.

    >>> d = nd.MultivariateNormal(jnp.zeros(2), jnp.array([[1.0, 1.0], [1.0, 1.0 + 1e-12]]))
    >>> drawn = draw(d, jax.random.key(0), jnp.array([3.0, 0.0]), jnp.array([True, False]))
    >>> bool(abs(drawn - 3.0).max() < 1e-3)
    True
    """
    base = base_of(d)
    if type(base) not in _FAMILIES:
        return jnp.where(known, value, d.sample(key).astype(value.dtype))
    first, second = jax.random.split(key)
    shape, factor = value.shape, base.scale_tril
    noise = jnp.einsum("...ij,...j->...i", factor, jax.random.normal(first, shape, factor.dtype))
    covariance = base.covariance_matrix
    lower = _lower(covariance, known)
    residual = _residual(base, value, known)
    spread: Array = 1.0
    if type(base) is nd.MultivariateStudentT:
        count = known.sum(-1).astype(noise.dtype)
        white = _solve(lower, residual)
        degrees = base.df + count
        chi2 = 2.0 * jax.random.gamma(second, jnp.broadcast_to(degrees / 2.0, shape[:-1]), dtype=noise.dtype)
        spread = jnp.sqrt((base.df + (white**2).sum(-1)) / chi2)[..., None]
    explained = _regress(covariance, lower, known, residual)
    unexplained = noise - _regress(covariance, lower, known, jnp.where(known, noise, 0.0))
    return jnp.where(known, value, base.loc + explained + spread * unexplained)


# ---------------------------------------------------------------------------------------------- joint families


def _normal(d: Any, value: Array, known: Array) -> Array:
    lower = _lower(d.covariance_matrix, known)
    white = _solve(lower, _residual(d, value, known))
    return -0.5 * (white**2).sum(-1) - _log_diagonal(lower) - 0.5 * math.log(2.0 * math.pi) * _count(known, white)


def _student(d: Any, value: Array, known: Array) -> Array:
    lower = _lower(d.covariance_matrix, known)
    white = _solve(lower, _residual(d, value, known))
    count = _count(known, white)
    constant = gammaln(0.5 * (d.df + count)) - gammaln(0.5 * d.df) - 0.5 * count * jnp.log(d.df * math.pi)
    return constant - _log_diagonal(lower) - 0.5 * (d.df + count) * jnp.log1p((white**2).sum(-1) / d.df)


def _low_rank(d: Any, value: Array, known: Array) -> Array:
    """S = W W' + D stays of low rank: rows of W that are not known become zero, and their D one."""
    factor = jnp.where(known[..., None], d.cov_factor, 0.0)
    diagonal = jnp.where(known, d.cov_diag, 1.0)
    masked = nd.LowRankMultivariateNormal(jnp.zeros_like(diagonal), factor, diagonal, validate_args=False)
    full = masked.log_prob(_residual(d, value, known))
    return full + 0.5 * math.log(2.0 * math.pi) * (known.shape[-1] - _count(known, full))


_FAMILIES: dict[type, Callable[[Any, Array, Array], Array]] = {
    nd.MultivariateNormal: _normal,
    nd.MultivariateStudentT: _student,
    nd.LowRankMultivariateNormal: _low_rank,
}


def _residual(d: Any, value: Array, known: Array) -> Array:
    return jnp.where(known, value - d.loc, 0.0)


def _count(known: Array, like: Array) -> Array:
    return known.sum(-1).astype(like.dtype)


def _lower(covariance: Array, known: Array) -> Array:
    """Cholesky factor of the covariance with the identity in place of unknown rows and columns."""
    both = known[..., :, None] & known[..., None, :]
    return jnp.linalg.cholesky(jnp.where(both, covariance, jnp.eye(known.shape[-1], dtype=covariance.dtype)))


def _solve(lower: Array, x: Array) -> Array:
    """L^-1 x, along the last axis."""
    return jax.lax.linalg.triangular_solve(lower, x[..., None], left_side=True, lower=True)[..., 0]


def _log_diagonal(lower: Array) -> Array:
    return jnp.log(jnp.diagonal(lower, axis1=-2, axis2=-1)).sum(-1)


def _regress(covariance: Array, lower: Array, known: Array, residual: Array) -> Array:
    """S_UK S_KK^-1 r, for all elements."""
    weights = jax.lax.linalg.triangular_solve(
        lower, _solve(lower, residual)[..., None], left_side=True, lower=True, transpose_a=True
    )[..., 0]
    return jnp.einsum("...ij,...j->...i", covariance, jnp.where(known, weights, 0.0))


def _summed(d: Any, each: Array) -> Array:
    """Sum over the axes that the wrappers make part of the event."""
    extra = each.ndim - len(d.batch_shape)
    return each.sum(tuple(range(each.ndim - extra, each.ndim))) if extra else each
