"""Constrained values and the flat unconstrained vector.

A latent site x with support S is the image x = T(u) of an unconstrained u under a smooth bijection T from R^k onto
S; its density in u is p(T(u)) |det dT/du|. The bijections are NumPyro's (positive: exp; interval: scaled logistic;
simplex: stick breaking; ordered: cumulative exp; correlation: Lewandowski, Kurowicka and Joe, 2009). Bounds may
depend on other sites, since T is applied where the site stands in the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import biject_to, constraints

from .distributions.tails import bounds, interior
from .errors import ModelError, at

Array = Any


def is_discrete(support: Any) -> bool:
    """Whether a support consists of isolated points."""
    return bool(support.is_discrete)


def _leaves(support: Any) -> list[Any]:
    try:
        return jax.tree_util.tree_leaves(support)
    except (NotImplementedError, TypeError, ValueError):
        return [value for value in vars(support).values()]


def static_support(support: Any) -> bool:
    """Whether a support depends on no traced value, so that data can be checked against it on the host."""
    leaves = _leaves(support)
    base = getattr(support, "base_constraint", None)
    if base is not None:
        leaves = leaves + _leaves(base)
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)


def states(support: Any) -> tuple[int, int] | None:
    """Least value and number of values of a finite set of integers, None where they are not known or not finite.

    Example:
        >>> states(constraints.integer_interval(2, 5)), states(constraints.nonnegative_integer)
        ((2, 4), None)
    """
    one = each_support(support)
    if one is constraints.boolean:
        return 0, 2
    low, high = getattr(one, "lower_bound", None), getattr(one, "upper_bound", None)
    if not is_discrete(one) or low is None or high is None or not static_support(one):
        return None
    low, high = np.unique(np.asarray(low)), np.unique(np.asarray(high))
    if low.size != 1 or high.size != 1:
        return None
    return int(low[0]), int(high[0] - low[0]) + 1


def decode(free: Array, info: Any) -> Array:
    """The value of a finite site from its codes 0, 1, ..., which a flat vector holds as floats."""
    low, count = info.states
    return jnp.clip(jnp.rint(free), 0, count - 1).astype(info.dtype) + low


def encode(value: Array, info: Any) -> Array:
    """Inverse of ``decode``."""
    return (value - info.states[0]).astype(jnp.result_type(float))


def free_shape(support: Any, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Shape of the unconstrained value of a site of ``shape``, or None where no bijection is known."""
    try:
        return tuple(biject_to(support).inverse_shape(shape))
    except NotImplementedError:
        return None


def constrain(support: Any, free: Array, info: Any) -> tuple[Array, Array]:
    """Image of an unconstrained value, and the log-determinant summed over the element."""
    if info.free_shape is None:
        raise ModelError(
            f"site {info.name!r} has support {support}, for which no map from an unconstrained space is known:"
            f"\n{at(info.source)}\n  Observe it, or write it as a function of sites that have one."
        )
    if support is constraints.real or support is constraints.real_vector:
        return free, jnp.zeros((), free.dtype)
    transform = biject_to(support)
    value = transform(free)
    logdet = transform.log_abs_det_jacobian(free, value)
    return value.astype(info.dtype), jnp.sum(logdet)


def unconstrain(support: Any, value: Array) -> Array:
    """Preimage of a constrained value."""
    return biject_to(support).inv(value)


def each_support(support: Any) -> Any:
    """The support of one element, where that of a vector or an array is a product of them."""
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support


def elementwise(support: Any) -> bool:
    """Whether the elements of a value are free of each other: reals, positive numbers, intervals, not simplices."""
    return each_support(support).event_dim == 0


def constrain_each(support: Any, free: Array) -> tuple[Array, Array]:
    """Image of an unconstrained value under an elementwise bijection, and the log-determinant of each element."""
    support = each_support(support)
    if support is constraints.real:
        return free, jnp.zeros_like(free)
    transform = biject_to(support)
    value = transform(free)
    return value, transform.log_abs_det_jacobian(free, value)


def unconstrain_each(support: Any, value: Array) -> Array:
    """Preimage of a constrained value, elementwise."""
    return biject_to(each_support(support)).inv(value)


def inner_point(support: Any, shape: tuple[int, ...]) -> Array:
    """A value of ``shape`` inside of a support, where densities and their gradients are finite.

    Example:
        >>> inner_point(constraints.interval(2.0, 4.0), (2,)).tolist()
        [3.0, 3.0]
    """
    one = each_support(support)
    try:
        low, high = bounds(one)
    except TypeError:
        if is_discrete(one):
            return jnp.zeros(shape)
        return jax.lax.stop_gradient(biject_to(support)(jnp.zeros(biject_to(support).inverse_shape(shape))))
    if is_discrete(one):
        return jnp.broadcast_to(jnp.asarray(0 if low is None else low), shape)
    return jax.lax.stop_gradient(jnp.broadcast_to(interior(low, high), shape))


def inside(d: Any, value: Array) -> Array:
    """Whether each batch element of ``value`` lies in the support; shape ``d.batch_shape``."""
    ok = jnp.asarray(d.support(value))
    extra = ok.ndim - len(d.batch_shape)
    if extra > 0:
        ok = jnp.all(ok, axis=tuple(range(ok.ndim - extra, ok.ndim)))
    return jnp.broadcast_to(ok, d.batch_shape)


def validity(d: Any, value: Array) -> dict[str, Any]:
    """For diagnosis: whether the value lies in the support, and each parameter with whether it is admissible."""
    report: dict[str, Any] = {"support": inside(d, value), "parameters": {}}
    for name, constraint in getattr(d, "arg_constraints", {}).items():
        if name not in getattr(d, "__dict__", {}) or constraints.is_dependent(constraint):
            continue
        parameter = d.__dict__[name]
        if isinstance(parameter, (int, float, np.ndarray, jax.Array)):
            parameter = jnp.asarray(parameter)
            report["parameters"][name] = (parameter, jnp.asarray(constraint(parameter)))
    return report


@dataclass(frozen=True)
class Slot:
    """Where a latent site lies in the flat unconstrained vector.

    Attributes:
        start: First entry.
        stop: One past the last entry.
        shape: Unconstrained shape over all plates.
    """

    start: int
    stop: int
    shape: tuple[int, ...]


def layout(sites: Mapping[str, Any], latent: tuple[str, ...]) -> dict[str, Slot]:
    """Slots of latent sites, in the order in which the model samples them, the codes of finite ones last."""
    slots: dict[str, Slot] = {}
    start = 0
    for name in sorted(latent, key=lambda name: sites[name].discrete):
        info = sites[name]
        if info.free_shape is None and info.states is None:
            raise ModelError(
                f"site {name!r} ({info.family}) has a support for which no map from an unconstrained space is known:"
                f"\n{at(info.source)}"
            )
        shape = info.sizes + (info.shape if info.free_shape is None else info.free_shape)
        stop = start + int(np.prod(shape, dtype=int))
        slots[name] = Slot(start, stop, shape)
        start = stop
    return slots


def split(z: Array, slots: Mapping[str, Slot]) -> dict[str, Array]:
    """Cut a flat vector into the sites' unconstrained values; its transpose is one concatenation."""
    if not slots:
        return {}
    sizes = [slot.stop - slot.start for slot in slots.values()]
    pieces = jax.lax.split(z, sizes) if len(sizes) > 1 else [z]
    return {name: piece.reshape(slot.shape) for (name, slot), piece in zip(slots.items(), pieces, strict=True)}


def join(values: Mapping[str, Array], slots: Mapping[str, Slot]) -> Array:
    """Inverse of ``split``."""
    if not slots:
        return jnp.zeros((0,))
    return jnp.concatenate([jnp.ravel(values[name]) for name in slots])
