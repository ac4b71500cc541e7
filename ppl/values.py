"""How a site gets its value and its log factor in a run: handed in, drawn, transformed, or a placeholder."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions.distribution import Distribution, validation_enabled

from . import space
from .distributions import partial
from .errors import ImproperPrior, ModelError, at
from .existence import apart, counted, drawn, proper
from .sites import SiteInfo

if TYPE_CHECKING:
    from .trace import Frame

Array = Any
TWIN = "\0twin"  # under name + TWIN the graph hands in the value that other sites see
MASK = "\0mask"  # under name + MASK a run is told which elements of a value that is handed in are known
PLACES = "\0places"  # under name + PLACES the places, in the flattened value, of elements that are latent variables
IMPUTE, MARGINALIZE = "impute", "marginalize"  # roles of name + MASK: what becomes of unknown elements in a density
FILLED = "filled"  # the role of name + MASK where the value that is handed in has its imputed elements already


def site_of(name: str) -> str:
    """The site to which something handed in belongs.

    Example:
        >>> site_of("y" + MASK)
        'y'
    """
    return name.partition("\0")[0]


def fold_name(key: Array, name: str) -> Array:
    """The key of a site: by its name, so that other sites' randomness never moves it."""
    return jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode())))


def placeholder(d: Any, dtype: Any) -> Array:
    """Zeros in place of a value of which only shape and dtype are used."""
    return jax.lax.full(d.shape(), 0, dtype)  # only its shape and dtype are ever used


def value_of(frame: Frame, name: str, d: Any, info: SiteInfo) -> Array:
    """The value of a site; of one that is partly known (``MASK``) and drawn, the unknown elements are drawn."""
    if name in frame.given:
        value = jnp.asarray(frame.given[name])
        if value.shape != info.shape:
            raise ModelError(_shape_message(info, value.shape))
        # values keep an inexact dtype of their own, so that float32 runs of float64 data are explicit
        value = value if value.dtype == info.dtype else value.astype(info.dtype)
        known = frame.given.get(name + MASK)
        value = value if known is None else _completed(frame, name, d, info, value, known)
    elif name in frame.free:
        free = frame.free[name]
        if info.states is not None:
            value = space.decode(apart(frame, free), info)
            if frame.on is not None:  # codes of an element that does not exist are uniform
                count = free.size * np.log(info.states[1])
                frame.put("logdet", name, jnp.where(frame.on, 0.0, -count).astype(free.dtype))
        else:
            value, logdet = space.constrain(d.support, apart(frame, free), info)
            frame.put("logdet", name, proper(frame, free, logdet))
    elif frame.key is not None:
        if info.improper:
            raise ImproperPrior(
                f"site {name!r} has an improper prior ({info.family}), which cannot be simulated:\n{at(info.source)}"
                "\n  Give it a proper prior, or fix it with program.do or program.condition."
            )
        value = d.sample(fold_name(frame.key, name)).astype(info.dtype)
    else:
        value = placeholder(d, info.dtype)
    frame.put("value", name, value)
    if "free" in frame.keep and info.states is not None and info.role is None:
        frame.put("free", name, space.encode(value, info))
    elif "free" in frame.keep and not info.discrete:
        if info.role is None:
            key = None if frame.key is None else fold_name(frame.key, name)
            frame.put("free", name, drawn(frame, key, space.unconstrain(d.support, value)))
        elif frame.roles.get(name + MASK) in (IMPUTE, FILLED):
            frame.put("free", name, space.unconstrain_each(d.support, value))
    return value


def _completed(frame: Frame, name: str, d: Any, info: SiteInfo, value: Array, known: Array) -> Array:
    """A value of which some elements are not known, completed: by latent variables, or drawn given the others.

    Elements that are left out of a density keep the value that stands there, which lies inside of the support.
    """
    policy = frame.roles.get(name + MASK)
    frame.put("known", name, known)
    if policy == FILLED:
        return value
    if policy == IMPUTE and name in frame.free:
        latent, logdet = space.constrain_each(d.support, frame.free[name])
        frame.put("logdet", name, jnp.where(known, jnp.zeros((), logdet.dtype), logdet).sum())
        return jnp.where(known, value, latent.astype(info.dtype))
    if frame.key is not None:
        return partial.draw(d, fold_name(frame.key, name), value, known).astype(info.dtype)
    if info.support is None:
        return jnp.where(known, value, space.inner_point(d.support, info.shape).astype(info.dtype))
    return value


def _shape_message(info: SiteInfo, shape: tuple[int, ...]) -> str:
    return (
        f"site {info.name!r} has shape {info.full_shape}"
        f"{_plate_text(info)}, but the value has shape {info.sizes + tuple(shape)}:\n{at(info.source)}\n"
        "  Values are never broadcast. Reshape the data, or change the model."
    )


def _plate_text(info: SiteInfo) -> str:
    names = [f"{name} ({size})" for name, size, _ in info.plates]
    return f" (plates {', '.join(names)})" if names else ""


def validates() -> bool:
    """Whether NumPyro's distributions mask values outside of their support, as they do unless told otherwise."""
    return bool(Distribution._validate_args)


def validity_of(frame: Frame, name: str, d: Any, value: Array) -> dict[str, Any]:
    """Whether a value and the parameters are admissible, for diagnosis; what is not known of a value is not judged."""
    report = space.validity(d, value)
    known = frame.given.get(name + MASK)
    if known is not None:
        report["support"] = report["support"] | partial.whole(~known, known.ndim - report["support"].ndim)
    return report


def _selected(frame: Frame, role: str | None, factor: Array) -> Array:
    """A log factor, zero where it is that of an observed site on the side of a branch that is not taken."""
    if role != "observed" or frame.select is None:
        return factor
    return jnp.where(frame.select, factor, jnp.zeros_like(factor))


def factor_of(frame: Frame, name: str, d: Any, value: Array, info: SiteInfo, role: str | None) -> Array:
    """The log factor of a site, of its distribution's batch shape."""
    # data whose support is fixed were checked on the host; NumPyro's mask would test every one at every step
    checked = role == "observed" and info.support is not None and not frame.mask_all
    known = frame.given.get(name + MASK) if role == "observed" else None
    latent = None
    with validation_enabled(not checked and validates()):
        if known is None:
            factor = d.log_prob(value)
        elif frame.roles.get(name + MASK) in (IMPUTE, FILLED):
            factor, latent = partial.split(d, value, known)
        else:
            factor = partial.log_prob(d, value, known)
    expected = tuple(d.batch_shape)
    if factor.shape != expected:
        raise ModelError(
            f"site {name!r}: the log density of {info.family} has shape {factor.shape}, not the batch shape "
            f"{expected}:\n{at(info.source)}"
        )
    outside = frame.mask_all or (role == "observed" and info.support is None)
    if outside:
        # several families return a finite density outside of their support
        inside = space.inside(d, value)
        rows = jnp.ones((), bool) if known is None else partial.whole(known, known.ndim - factor.ndim)
        factor = jnp.where(inside | ~rows, factor, -jnp.inf)
        latent = None if latent is None else jnp.where(inside | rows, latent, -jnp.inf)
    if latent is not None:
        frame.put("factor", name + MASK, counted(frame, latent))
        if "likelihood" in frame.keep and info.joint and info.marginalizes:
            likelihood = _selected(frame, role, partial.log_prob(d, value, known))
            frame.put("likelihood", name, counted(frame, likelihood))
    factor = _selected(frame, role, factor)
    return counted(frame, factor)
