"""What densities from elsewhere share: names of coordinates, axes and labels, and what one evaluation costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from ppl import ModelError, _jax, costs
from ppl.host import host_names, surfacing
from ppl.space import Slot

Array = Any


class Labelling:
    """Names of quantities, their axes and labels; ignored by JAX when it compares densities."""

    def __init__(
        self, names: Sequence[str], dims: Mapping[str, tuple[str, ...]], coords: Mapping[str, Any] | None = None
    ) -> None:
        """Keep them."""
        self.names, self.dims, self.coords = tuple(names), dict(dims), dict(coords or {})

    def __eq__(self, other: object) -> bool:
        """Always equal to another."""
        return isinstance(other, Labelling)

    def __hash__(self) -> int:
        """One value for all."""
        return 0


class Named:
    """Base of densities that have a ``layout`` (slots by name) and a ``labelling``."""

    layout: Any
    labelling: Any

    @property
    def dim(self) -> int:
        """Length of the flat unconstrained vector."""
        return max((slot.stop for slot in self.layout.values()), default=0)

    @property
    def labels(self) -> list[str]:
        """A name for every entry of the flat vector, such as ``theta[3]``."""
        return [label for name, slot in self.layout.items() for label in elements(name, slot.shape)]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the quantities in the order of the model."""
        return self.labelling.names

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Names of the axes of every quantity."""
        return self.labelling.dims

    @property
    def coords(self) -> dict[str, Any]:
        """Labels by axis."""
        return self.labelling.coords

    def labelled(self, coords: Mapping[str, Any] | None = None, dims: Mapping[str, Any] | None = None) -> Self:
        """The same density with labels along its axes, and other names of axes.

        Args:
            coords: Labels by the name of an axis.
            dims: Names of the axes of a quantity (one or a tuple), by its name.

        Raises:
            ppl.ModelError: If a name is unknown or labels do not fit.
        """
        renamed = {name: (axes,) if isinstance(axes, str) else tuple(axes) for name, axes in (dims or {}).items()}
        known = {**self.dims, **renamed}
        for name, axes in renamed.items():
            have = self.dims.get(name)
            if have is None or len(have) != len(axes):
                raise ModelError(f"dims: {name!r} " + _axes_text(have, self.dims))
        axes_known = {axis for axes in known.values() for axis in axes}
        unknown = [axis for axis in coords or {} if axis not in axes_known]
        if unknown:
            raise ModelError(f"coords: there is no axis {unknown[0]!r}; there are {', '.join(sorted(axes_known))}")
        labelling = Labelling(self.names, known, {**self.coords, **(coords or {})})
        return dataclasses.replace(self, labelling=labelling)  # type: ignore[type-var]


def run(density: Any, method: str, argument: Any) -> Any:
    """Call a method of a density, compiled unless it is being traced already."""
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((density, argument))):
        return getattr(density, method)(argument)
    with surfacing():
        return _jitted(density, method, jax.tree.map(_inexact, argument))


def _inexact(x: Any) -> Any:
    x = np.asarray(x) if isinstance(x, float | int | list) else x
    return x if jnp.issubdtype(x.dtype, jnp.inexact) or jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x + 0.0


@partial(jax.jit, static_argnums=1)
def _jitted(density: Any, method: str, argument: Any) -> Any:
    return getattr(density, method)(argument)


def _axes_text(have: tuple[str, ...] | None, known: Mapping[str, Any]) -> str:
    if have is None:
        return f"is unknown; known are {', '.join(known)}"
    return f"has {len(have)} axes, {have}"


def elements(name: str, shape: tuple[int, ...]) -> list[str]:
    """Labels of the elements of an array.

    Example:
        >>> elements("theta", (2,)), elements("mu", ())
        (['theta[0]', 'theta[1]'], ['mu'])
    """
    return [name + (f"[{', '.join(map(str, place))}]" if place else "") for place in np.ndindex(*shape)]


def slots_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Slot]:
    """Places of arrays in a flat vector, one after the other.

    Example:
        >>> slots_of({"a": (), "b": (2, 2)})["b"]
        Slot(start=1, stop=5, shape=(2, 2))
    """
    slots, start = {}, 0
    for name, shape in shapes.items():
        stop = start + int(np.prod(shape, dtype=int))
        slots[name], start = Slot(start, stop, tuple(shape)), stop
    return slots


def own_axes(dims: Mapping[str, tuple[str, ...]], names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Names of axes, changed where a quantity has the same name: in a labelled result these exclude each other.

    Example:
        >>> own_axes({"y": ("school", "y")}, ["y"])
        {'y': ('school', 'y_dim')}
    """
    taken = set(names)
    return {name: tuple(f"{axis}_dim" if axis in taken else axis for axis in axes) for name, axes in dims.items()}


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a trace of a log density tells.

    Attributes:
        work: Array elements that one evaluation computes.
        external: Names of functions that it calls outside of JAX.
        differentiable: Whether it has a gradient.
    """

    work: int
    external: tuple[str, ...]
    differentiable: bool


def facts(function: Callable[[Any, Array], Array], data: Any, dim: int) -> Facts:
    """Trace a log density ``function(data, z)`` and look at it."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), jnp.result_type(x)), data)
    z = jax.ShapeDtypeStruct((dim,), jnp.result_type(float))
    code, _ = _jax.trace(function, shapes, z)
    external = host_names(code)
    differentiable = True
    if host_names(code, graded=False):
        try:
            jax.eval_shape(jax.grad(lambda z, data: function(data, z)), z, shapes)
        except ValueError:  # JAX: pure callbacks do not support JVP
            differentiable = False
    return Facts(costs.work(code), external, differentiable)
