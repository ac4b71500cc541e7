r"""A density with a plate of N elements, computed by a program for N' > N of them.

What is divided over n devices must have a multiple of n rows. The data are given N' - N further rows, copies of the
last one, the model is traced for them, and with e_i the terms of the density that belong to element i of the plate,

    log p(z) = sum over other terms + sum_{i < N'} [i < N] e_i,

latent values of the plate being repeated likewise. Copies of an admissible row are admissible, so no NaN can come
from them, and the selection stops their gradient. This is the same density if and only if the elements meet in no other
way than in this sum: a model that takes the mean of a column, or hands the plate's result to another site, is
refused, by comparing both densities where they are evaluated first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ppl
from ppl import space
from ppl.density import Density

from . import groups
from .core import host_rng

Array = Any

_COMPUTED = ("prior", "constrain", "generated", "factors", "pointwise", "log_prior", "unconstrain", "diagnose")
_STATIC = ("dim", "layout", "labels", "work", "program", "external", "differentiable")
_TRIES, _PURPOSE = 3, 83


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["density"],
    meta_fields=["compiled", "labelling", "size", "mesh"],
)
@dataclass(frozen=True, eq=False)
class Padded:
    """The density of N elements through one of N'; a pytree of the latter's data.

    Attributes:
        density: The density of N' elements.
        compiled: The traced model of N elements, for names and shapes.
        labelling: The labels of its density.
        size: N.
        mesh: The devices that the data are laid out over, or None.
    """

    density: Any
    compiled: Any
    labelling: Any
    size: int
    mesh: Any = None

    def __call__(self, z: Array) -> Array:
        """Log density at ``z`` of shape (dim,)."""
        return self._apply("log_density", z)

    def __getattr__(self, name: str) -> Any:
        """What else a density offers."""
        if name in _COMPUTED:
            return partial(self._apply, name)
        if name in _STATIC:
            return getattr(Density(self.compiled, (), (), self.labelling), name)
        raise AttributeError(
            f"{name!r} is not offered by a density that is laid out over devices with {self.size} rows, which are no "
            "multiple of their number"
        )

    def _apply(self, name: str, argument: Any) -> Any:
        if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((self, argument))):
            return _method(self, name, argument)
        with jax.enable_x64(self.compiled.x64):
            out = _jitted(self, name, argument)
        return groups.in_order(self.program, out) if isinstance(out, dict) and name != "diagnose" else out


@partial(jax.jit, static_argnums=1)
def _jitted(density: Padded, name: str, argument: Any) -> Any:
    return _method(density, name, argument)


def _method(padded: Padded, name: str, argument: Any) -> Any:
    inner, axes = padded.density, _axes(padded)
    slots = inner.layout
    if name == "log_density":
        return _log_density(padded, axes, argument)
    if name == "prior":
        pieces = space.split(inner.prior(argument), slots)
        return space.join({n: _cut(padded, axes, n, u) for n, u in pieces.items()}, slots)
    if name == "unconstrain":
        values = {n: _extended(padded, axes, n, jnp.asarray(x)) for n, x in argument.items()}
        pieces = space.split(inner.unconstrain(values), slots)
        return space.join({n: _cut(padded, axes, n, u) for n, u in pieces.items()}, slots)
    z = space.join(_pieces(padded, axes, argument), slots)
    if name == "log_prior":
        terms = inner.factors(z)
        return {n: jnp.sum(_cut(padded, axes, n, terms[n])) for n in slots}
    cut = partial(_cut, padded, axes)
    if name == "diagnose":
        return {c: {n: _tree(cut, n, x) for n, x in kept.items()} for c, kept in inner.diagnose(z).items()}
    return {n: cut(n, x) for n, x in getattr(inner, name)(z).items()}


def _log_density(padded: Padded, axes: Mapping[str, int], z: Array) -> Array:
    compiled = padded.density.compiled
    terms = compiled.hoisted.after.run(*padded.density.residuals, *_pieces(padded, axes, z).values())
    total = jnp.zeros((), z.dtype)
    for number, term in zip(compiled.terms, terms, strict=True):
        axis = axes.get(compiled.names[number][1])
        if axis is not None:
            shape = [1] * term.ndim
            shape[axis] = term.shape[axis]
            real = jnp.arange(term.shape[axis]).reshape(shape) < padded.size
            term = jnp.where(real, term, jnp.zeros((), term.dtype))
        total = total + jnp.sum(term).astype(z.dtype)
    return total


def _axes(padded: Padded) -> dict[str, int]:
    """For each site of a plate that was given more elements, its axis."""
    before = padded.compiled.sites
    found: dict[str, int] = {}
    for name, info in padded.density.compiled.sites.items():
        for axis, (new, old) in enumerate(zip(info.sizes, before[name].sizes, strict=True)):
            if new != old:
                found.setdefault(name, axis)
    return found


def _pieces(padded: Padded, axes: Mapping[str, int], z: Array) -> dict[str, Array]:
    return {name: _extended(padded, axes, name, u) for name, u in space.split(z, padded.compiled.slots).items()}


def _extended(padded: Padded, axes: Mapping[str, int], name: str, x: Array) -> Array:
    """Repeat the last element of a site's traced value."""
    if name not in axes:
        return x
    axis, shape = axes[name], [*x.shape]
    shape[axis] = padded.density.compiled.sites[name].sizes[axis] - shape[axis]
    last = jax.lax.slice_in_dim(x, x.shape[axis] - 1, x.shape[axis], axis=axis)
    return jnp.concatenate([x, jnp.broadcast_to(last, shape)], axis)


def _cut(padded: Padded, axes: Mapping[str, int], name: str, x: Array) -> Array:
    axis = axes.get(name)
    if axis is None:
        return x
    if padded.mesh is not None:  # an array of N rows cannot be divided: it is held by every device
        copied = jax.sharding.NamedSharding(padded.mesh, jax.sharding.PartitionSpec())
        x = jax.lax.with_sharding_constraint(x, copied)
    return jax.lax.slice_in_dim(x, 0, padded.size, axis=axis)


def _tree(cut: Any, name: str, tree: Any) -> Any:
    """Cut the arrays that have the plate's axis in a diagnosis, where scalars may stand for all elements."""
    return jax.tree.map(lambda x: cut(name, x), tree)


def pad(density: Any, size: int, rows: int) -> Padded:
    """The density of plates of ``size`` elements through a program for ``rows`` of them.

    Raises:
        ValueError: If the elements of the plate meet elsewhere than in the sum, so that it would be another density.

    Example:
        >>> from ppl import dist
        >>> @ppl.model
        ... def line(x):
        ...     slope = ppl.sample("slope", dist.Normal(0.0, 1.0))
        ...     ppl.plate("row", lambda x: ppl.sample("y", dist.Normal(slope * x, 1.0)), x)
        >>> density = ppl.compile(line(np.arange(5.0)).condition(y=np.ones(5)))
        >>> bool(np.isclose(pad(density, 5, 8)(np.ones(1)), density(np.ones(1)), rtol=1e-12))
        True
    """
    if density.compiled.summed:
        raise ValueError(
            f"{size} rows are no multiple of the number of devices, and the sum over "
            f"{', '.join(density.compiled.summed)} cannot leave out rows that are added; choose a number of devices "
            "that divides the rows"
        )
    more = partial(_repeated, size=size, rows=rows)
    with jax.enable_x64(density.compiled.x64):
        try:
            program = density.program
            data = tuple(more(x) for x in program.arguments.data)
            longer = replace(
                program,
                arguments=replace(program.arguments, data=data),
                fixed={name: more(value) for name, value in program.fixed.items()},
            )
            padded = Padded(ppl.compile(longer, collapse=False), density.compiled, density.labelling, size)
            _check(padded, density)
        except (ValueError, TypeError, IndexError, KeyError) as error:
            raise ValueError(
                f"{size} rows are no multiple of the number of devices, and this model cannot be given {rows - size} "
                f"rows that do not count: {error}"
            ) from error
    return padded


def _repeated(x: Any, size: int, rows: int) -> Any:
    shape = np.shape(x)
    if size not in shape:
        return x
    x, axis = np.asarray(x), shape.index(size)
    return np.concatenate([x, np.repeat(np.take(x, [-1], axis), rows - size, axis)], axis)


def _check(padded: Padded, density: Any) -> None:
    """Compare log densities and gradients with those of the density itself at random points."""
    z = host_rng(_PURPOSE).uniform(-1.0, 1.0, (_TRIES, density.dim))
    here, there = (jax.device_get(_values(target, z)) for target in (padded, density))
    loose = 1e-9 if density.compiled.x64 else 1e-3
    for one, other in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
        scale = float(np.max(np.abs(np.nan_to_num(other)), initial=1.0))
        if not np.allclose(one, other, rtol=0.0, atol=loose * scale, equal_nan=True):
            raise ValueError(
                "the density changes when rows are added, so the model uses the rows or what they compute as a whole "
                "somewhere (a mean over a column, a plate's result given to another site)"
            )


@jax.jit
def _values(density: Any, z: Array) -> Any:
    return jax.vmap(jax.value_and_grad(density))(z)
