"""The single ambient frame in which a model runs, and the statements that talk to it.

A model is an ordinary Python function. While it runs, one frame answers its ``sample`` statements: a site's
value is handed in (observed, forced), or is the image of an unconstrained vector, or is drawn, or (when only
the sites are to be learned) is a placeholder. Whatever the frame is asked to keep comes out as arrays, so that a
run of the model is a pure function of its inputs and JAX sees nothing but array operations.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from . import space
from ._jax import trace_state
from .axes import Axis, padded_dim
from .coding import place
from .distributions import partial
from .errors import ModelError, at, user_line
from .existence import counted
from .location import note
from .minibatch import Minibatch
from .sites import SiteInfo
from .values import TWIN, factor_of, validity_of, value_of

Array = Any
_ambient = threading.local()


@dataclass
class Frame:
    """The state of one run at one nesting level.

    Attributes:
        given: Values handed in, by site name, sliced to the current element.
        free: Unconstrained values of latent sites, likewise.
        roles: ``"observed"`` or ``"done"`` by site name.
        known: What an earlier run learned, used to hand slices into plates.
        key: Randomness for sites that are drawn; None means placeholders.
        keep: Channels to keep: ``value``, ``factor``, ``logdet``, ``free``, ``valid``.
        released: Sites that a called program conditions, to be sampled after all.
        mask_all: Mask every factor by its support (else only where the support is traced).
        plates: Enclosing plates.
        scope: Prefix of site names.
        horizon: Steps by which chains are longer than the model says, by name (forecasts).
        windows: Start and number of the elements of a plate that are run, where not all are (large predictions).
        unread: What stands for the result of such a plate: a mark that shows which values are computed from it.
        select: Predicate under which observed factors count, inside a branch.
        on: Whether the element exists, inside a ragged plate (padding does not); None for yes.
        tables: Plates and other axes that are padded, by name, shared by all levels of a run.
        minibatch: Which elements of subsampled plates are computed; None for all.
        scale: Factor of the log factors inside of subsampled plates.
        subsampled: Number of elements to draw and line of subsampled plates, shared by all levels of a run.
        axes: Size and first line of every plate, shared by all levels of a run.
        coords: Labels of plates, likewise.
        sites: What this run learned.
        out: Kept arrays, ``out[channel][name]``.
        state: JAX's trace state, to notice raw transformations.
    """

    given: dict[str, Array]
    free: dict[str, Array]
    roles: dict[str, str]
    known: Mapping[str, SiteInfo]
    key: Array | None
    keep: frozenset[str]
    mask_all: bool = False
    released: frozenset[str] = frozenset()
    plates: tuple[tuple[str, int, str], ...] = ()
    scope: str = ""
    horizon: Mapping[str, int] = field(default_factory=dict)
    windows: Mapping[str, tuple[Array, int]] = field(default_factory=dict)
    unread: Array | None = None
    select: Array | None = None
    on: Array | None = None
    tables: dict[str, Axis] = field(default_factory=dict)
    minibatch: Minibatch | None = None
    scale: Array | None = None
    subsampled: dict[str, tuple[int, str]] = field(default_factory=dict)
    branches: tuple[str, ...] = ()
    axes: dict[str, tuple[int, str]] = field(default_factory=dict)
    coords: dict[str, Any] = field(default_factory=dict)
    sites: dict[str, SiteInfo] = field(default_factory=dict)
    out: dict[str, dict[str, Array]] = field(default_factory=dict)
    state: Any = field(default_factory=trace_state)

    def put(self, channel: str, name: str, value: Array) -> None:
        """Keep an array if its channel is wanted."""
        if channel in self.keep:
            self.out.setdefault(channel, {})[name] = value

    def register(self, info: SiteInfo) -> None:
        """Enter a site; two sites of one name are an error."""
        previous = self.sites.get(info.name)
        if previous is not None:
            raise ModelError(
                f"the site name {info.name!r} is used twice:\n{at(previous.source)}\n{at(info.source)}\n"
                "  Every site of a model has a name of its own, also in sibling plates and branches. Rename one, or "
                "put a sub-model under a scope with ppl.call(scope, program)."
            )
        self.sites[info.name] = info

    def merge(self, inner: Frame) -> None:
        """Take over what a nested frame learned and kept."""
        for info in inner.sites.values():
            self.register(info)
        for channel, values in inner.out.items():
            self.out.setdefault(channel, {}).update(values)


def current(statement: str) -> Frame:
    """The ambient frame, checked against use outside a model or under a raw transformation."""
    frame = getattr(_ambient, "frame", None)
    if frame is None:
        raise ModelError(
            f"ppl.{statement} was called outside of a model:\n{at(user_line())}\n"
            "  Decorate the function with @ppl.model and call the model instead: program = model(data)."
        )
    if frame.state != trace_state():
        raise ModelError(
            f"ppl.{statement} was called under a raw JAX transformation (vmap, jit, scan, cond, grad or checkpoint), "
            f"which hides the site from the model:\n{at(user_line())}\n"
            "  Write   @ppl.plate(name, xs)            instead of jax.vmap,\n"
            "          ppl.markov(name, step, init, xs) instead of jax.lax.scan,\n"
            "          ppl.branch(name, pred, f, g)     instead of jax.lax.cond;\n"
            "  leave jax.jit out: the whole model is compiled. Functions that do not sample may use all of them."
        )
    return frame


@contextmanager
def entered(frame: Frame) -> Iterator[Frame]:
    """Make a frame the ambient one."""
    previous = getattr(_ambient, "frame", None)
    _ambient.frame = frame
    try:
        yield frame
    finally:
        _ambient.frame = previous


def _axes(frame: Frame, name: str, dims: Any, shape: tuple[int, ...], source: str) -> tuple[str, ...] | None:
    """Names of a site's own axes; labels, where ``dims`` maps names to them, become coordinates."""
    if dims is None:
        return None
    names = (dims,) if isinstance(dims, str) else tuple(dims)
    if len(names) != len(shape):
        raise ModelError(
            f"site {name!r} has {len(shape)} axes of its own (plates not counted), but dims={names!r} names "
            f"{len(names)}:\n{at(source)}"
        )
    names = tuple(frame.scope + dim for dim in names)
    for dim, size, labels in zip(names, shape, dims.values() if isinstance(dims, Mapping) else names, strict=True):
        known, first = frame.axes.setdefault(dim, (size, source))
        labels = padded_dim(frame, dim, labels, source)
        labels = None if labels is None or isinstance(labels, str) else np.asarray(labels)
        if known != size or (labels is not None and len(labels) != size):
            count = "" if labels is None else f" and has {len(labels)} labels"
            raise ModelError(
                f"dimension {dim!r} of site {name!r} has size {size}, but it is used with size {known}{count}:"
                f"\n{at(first)}\n{at(source)}\n  A dimension name stands for one axis. Rename one of them."
            )
        if labels is not None:
            place(frame.coords, dim, labels, f"labels of dimension {dim!r}", source)
    return names


def checked_name(statement: str, name: Any, source: str) -> str:
    """The name of a site, which is a non-empty string."""
    if isinstance(name, str) and name:
        return name
    raise ModelError(
        f"ppl.{statement} takes a name first, a non-empty string, not {name!r}:\n{at(source)}\n"
        f'  Write, for example, ppl.{statement}("x", ...).'
    )


def _check_distribution(name: str, d: Any, source: str) -> None:
    if not (hasattr(d, "log_prob") and hasattr(d, "support") and callable(getattr(d, "shape", None))):
        raise ModelError(
            f"site {name!r}: the second argument of ppl.sample is {type(d).__name__}, not a distribution:"
            f"\n{at(source)}\n  Write, for example, ppl.sample({name!r}, dist.Normal(0.0, 1.0))."
        )


def _family(d: Any) -> str:
    """Name of the distribution, wrappers of shape left out."""
    while type(d).__name__ in ("ExpandedDistribution", "Independent"):
        d = d.base_dist
    return type(d).__name__


def _marked(d: Any, mark: str) -> bool:
    """Whether a distribution, or one that it wraps, carries a mark."""
    while d is not None:
        if getattr(d, mark, False):
            return True
        d = getattr(d, "base_dist", None)
    return False


def _describe(name: str, d: Any, dims: Any, frame: Frame, source: str) -> SiteInfo:
    shape = tuple(d.shape())
    discrete = bool(space.is_discrete(d.support))
    # numpyro's own draws decide between int32 and int64 only by the platform default; so do we
    dtype = jnp.result_type(int) if discrete else jnp.result_type(float)
    static = space.static_support(d.support)
    return SiteInfo(
        name=name,
        kind="sample",
        shape=shape,
        batch=len(d.batch_shape),
        dtype=dtype,
        plates=frame.plates,
        dims=_axes(frame, name, dims, shape, source),
        source=source,
        family=_family(d),
        discrete=discrete,
        improper=_marked(d, "improper") or _family(d) == "ImproperUniform",
        atoms=_marked(d, "atoms"),
        support=d.support if static else None,
        free_shape=None if discrete else space.free_shape(d.support, shape),
        branches=frame.branches,
        joint=partial.joint_axes(d),
        elementwise=space.elementwise(d.support),
        marginalizes=partial.marginalizes(d),
        states=space.states(d.support) if discrete else None,
    )


def sample(name: str, d: Any, dims: Any = None) -> Array:
    """Draw a random variable called ``name`` from the distribution ``d``.

    The model text never says whether the site is observed: ``program.condition(name=data)`` does.

    Args:
        name: The site's name, unique in the model.
        d: A distribution (``ppl.dist``). Inside a plate, that of one element.
        dims: Names of the axes of ``d.shape()``, for the labelled result; or a mapping from names to labels,
            ``dims={"x": ["age", "dose"]}``. With the rows of a ragged group in place of labels, ``dims={"obs": rows}``,
            an axis counts these rows.

    Returns:
        The value, of shape ``d.shape()``.

    Raises:
        ModelError: A name used twice, or a call outside a model or under a raw JAX transformation.

    Example:
        >>> import ppl
        >>> from ppl import dist
        >>> @ppl.model
        ... def coin():
        ...     p = ppl.sample("p", dist.Beta(2.0, 2.0))
        ...     ppl.sample("heads", dist.Binomial(10, p))
        >>> round(float(coin().log_prob({"p": 0.5, "heads": 5})), 4)
        -0.9966
    """
    frame = current("sample")
    source = user_line()
    name = frame.scope + checked_name("sample", name, source)
    _check_distribution(name, d, source)
    info = _describe(name, d, dims, frame, source)
    role = frame.roles.get(name)
    if role is not None:
        info = replace(info, role=role)
    frame.register(info)
    value = value_of(frame, name, d, info)
    note(frame, name, d, info)
    if role != "done" and ("factor" in frame.keep):
        frame.put("factor", name, factor_of(frame, name, d, value, info, role))
    if "valid" in frame.keep:
        frame.put("valid", name, validity_of(frame, name, d, value))
    return frame.given.get(name + TWIN, value)


def factor(name: str, value: Array) -> None:
    """Multiply the density by ``exp(value)``.

    Args:
        name: The factor's name, unique in the model.
        value: Log weight, a scalar or an array (its sum counts).

    Example:
        >>> import ppl
        >>> from ppl import dist
        >>> @ppl.model
        ... def tilted():
        ...     x = ppl.sample("x", dist.Normal(0.0, 1.0))
        ...     ppl.factor("tilt", 2.0 * x)
        >>> round(float(tilted().log_prob({"x": 0.0})), 4)
        -0.9189
    """
    frame = current("factor")
    name = frame.scope + checked_name("factor", name, user_line())
    value = jnp.asarray(value)
    value = value if jnp.issubdtype(value.dtype, jnp.inexact) else value.astype(jnp.result_type(float))
    info = SiteInfo(
        name, "factor", value.shape, value.ndim, value.dtype, frame.plates, None, user_line(), branches=frame.branches
    )
    frame.register(info)
    if frame.select is not None:
        value = jnp.where(frame.select, value, jnp.zeros_like(value))
    frame.put("factor", name, counted(frame, value))


def record(name: str, value: Array, dims: Any = None) -> Array:
    """Keep a deterministic quantity under a name; it appears in the posterior beside the latent sites.

    Args:
        name: The record's name, unique in the model.
        value: The quantity.
        dims: Names of the axes of ``value``, or a mapping from names to labels.

    Returns:
        ``value`` as an array.

    Example:
        >>> import ppl
        >>> from ppl import dist
        >>> @ppl.model
        ... def scaled():
        ...     x = ppl.sample("x", dist.Normal(0.0, 1.0))
        ...     ppl.record("twice", 2.0 * x)
        >>> draw = scaled().sample(0)
        >>> bool(draw["twice"] == 2 * draw["x"])
        True
    """
    frame = current("record")
    source = user_line()
    name = frame.scope + checked_name("record", name, source)
    value = jnp.asarray(value)
    axes = _axes(frame, name, dims, value.shape, source)
    frame.register(
        SiteInfo(
            name, "record", value.shape, 0, value.dtype, frame.plates, axes, source, branches=frame.branches
        )
    )
    frame.put("value", name, value)
    return value
