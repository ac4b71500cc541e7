"""A plain JAX function of named values as a log density over a flat unconstrained vector.

With constraints, value x_i = T_i(u_i) of variable i is the image of an unconstrained u_i, and

    log p(u) = f(x) + sum_i log |det dT_i / du_i|,

so that f is a density over the constrained values and the determinants cannot be forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import ModelError
from ppl.space import Slot, join, split

from . import names as naming
from .names import Facts, Labelling, Named

Array = Any


@dataclass(frozen=True, eq=False)
class Support:
    """A constraint that can be hashed."""

    constraint: Any

    def __eq__(self, other: object) -> bool:
        """By the constraint's own equality."""
        return isinstance(other, Support) and bool(self.constraint == other.constraint)

    def __hash__(self) -> int:
        """By its kind."""
        return hash(type(self.constraint))


@dataclass(frozen=True)
class Shape:
    """The static part of the density of a function.

    Attributes:
        function: The user's function.
        treedef: Structure of its argument, None for a vector of the variables.
        names: Names of the leaves.
        free: Unconstrained shape of every leaf.
        constraints: Support of every leaf, None for the real line.
        values: Function of further quantities, or None.
        takes_data: Whether the functions take data as a second argument.
    """

    function: Callable[..., Any]
    treedef: Any
    names: tuple[str, ...]
    free: tuple[tuple[int, ...], ...]
    constraints: tuple[Any, ...]
    values: Callable[..., Any] | None
    takes_data: bool


@partial(jax.tree_util.register_dataclass, data_fields=["data"], meta_fields=["shape", "labelling"])
@dataclass(frozen=True, eq=False)
class FunctionTarget(Named):
    """A function with data as a log density; a pytree of the data.

    Attributes:
        shape: The function and the structure of its argument.
        data: What it takes as its second argument.
        labelling: Names, axes and labels.
    """

    shape: Shape
    data: Any
    labelling: Labelling

    @property
    def layout(self) -> dict[str, Slot]:  # type: ignore[override]
        """Places of the variables in the flat vector."""
        return naming.slots_of(dict(zip(self.shape.names, self.shape.free, strict=True)))

    def __call__(self, z: Array) -> Array:
        """Log density at ``z`` of shape (dim,), log-determinants included."""
        return naming.run(self, "_log_density", z)

    def _log_density(self, z: Array) -> Array:
        leaves, logdet = self._leaves(z)
        value = jnp.asarray(self._apply(self.shape.function, leaves))
        if value.shape != ():
            raise ModelError(f"the log density function returned shape {value.shape}; it must return a scalar")
        return value.astype(jnp.result_type(float)) + logdet

    def generated(self, z: Array) -> dict[str, Array]:
        """Values of the variables, and the further quantities."""
        found = naming.run(self, "_generated", z)
        return {name: found[name] for name in (*self.names, *(n for n in found if n not in self.names))}

    def _generated(self, z: Array) -> dict[str, Array]:
        leaves, _ = self._leaves(z)
        found = dict(zip(self.shape.names, leaves, strict=True))
        if self.shape.values is not None:
            found |= {name: jnp.asarray(x) for name, x in self._apply(self.shape.values, leaves).items()}
        return found

    def unconstrain(self, values: Mapping[str, Array]) -> Array:
        """The flat vector at which the variables have the given values."""
        free = {}
        for name, constraint in zip(self.shape.names, self.shape.constraints, strict=True):
            value = jnp.asarray(values[name])
            free[name] = value if constraint is None else _transform(constraint.constraint).inv(value)
        return join(free, self.layout)

    @property
    def work(self) -> int:
        """Array elements that one evaluation computes."""
        return self._facts().work

    @property
    def external(self) -> tuple[str, ...]:
        """Names of functions that it calls outside of JAX."""
        return self._facts().external

    @property
    def differentiable(self) -> bool:
        """Whether it has a gradient."""
        return self._facts().differentiable

    def _facts(self) -> Facts:
        kinds = tuple((np.shape(x), str(jnp.result_type(x))) for x in jax.tree.leaves(self.data))
        key = (self.shape, kinds, str(jnp.result_type(float)))
        if key not in _known:
            if len(_known) > _CACHE_SIZE:
                _known.clear()
            _known[key] = naming.facts(lambda data, z: replace(self, data=data)(z), self.data, self.dim)
        return _known[key]

    def _apply(self, function: Callable[..., Any], leaves: Sequence[Array]) -> Any:
        treedef = self.shape.treedef
        tree = jnp.stack(list(leaves)) if treedef is None else jax.tree_util.tree_unflatten(treedef, leaves)
        return function(tree, self.data) if self.shape.takes_data else function(tree)

    def _leaves(self, z: Array) -> tuple[list[Array], Array]:
        if np.shape(z) != (self.dim,):
            raise ModelError(f"a position of this density has shape ({self.dim},), not {np.shape(z)}")
        z = jnp.asarray(z)
        leaves, total = [], jnp.zeros((), z.dtype)
        for constraint, free in zip(self.shape.constraints, split(z, self.layout).values(), strict=True):
            if constraint is None:
                leaves.append(free)
                continue
            transform = _transform(constraint.constraint)
            value = transform(free)
            leaves.append(value)
            total = total + jnp.sum(transform.log_abs_det_jacobian(free, value))
        return leaves, total


_known: dict[Any, Facts] = {}
_CACHE_SIZE = 256


def _transform(constraint: Any) -> Any:
    from numpyro.distributions import biject_to

    return biject_to(constraint)


def from_function(
    f: Callable[..., Any],
    like: Any,
    *,
    data: Any = None,
    constraints: Mapping[str, Any] | None = None,
    names: Sequence[str] | None = None,
    generated: Callable[..., Mapping[str, Any]] | None = None,
    dims: Mapping[str, Any] | None = None,
    coords: Mapping[str, Any] | None = None,
) -> FunctionTarget:
    """Make a labelled log density of a plain JAX function.

    Args:
        f: From values of the structure of ``like`` to a scalar log density; with ``data``, ``f(values, data)``.
        like: Example values, a pytree of arrays (their numbers do not matter), or the length of one vector ``z``.
        data: A pytree of arrays. New data of equal shapes do not compile again, as what ``f`` closes over does.
        constraints: By variable, a constraint of ``numpyro.distributions`` (``constraints.positive``). ``f`` is then
            a density over the constrained values; the log-determinants are added here.
        names: For a vector, the names of its entries, each a variable of its own in the result.
        generated: From values (and data) to a dict of further quantities that the result shows.
        dims: Names of the axes of a variable, one or a tuple.
        coords: Labels by the name of an axis.

    Returns:
        The density at a flat unconstrained vector. Leaves of a pytree are named by their path, ``net/w/0``.

    Raises:
        ppl.ModelError: If a name is unknown, or has no map from an unconstrained space.

    Example:
        >>> from numpyro.distributions import constraints
        >>> def gamma(values):
        ...     return 2.0 * jnp.log(values["rate"]) - values["rate"]
        >>> density = from_function(gamma, {"rate": 1.0}, constraints={"rate": constraints.positive})
        >>> density.labels, float(density(np.zeros(1))), density.generated(np.zeros(1))["rate"].item()
        (['rate'], -1.0, 1.0)
    """
    leaves, treedef, labels = _structure(like, names)
    if any(leaf is not f for leaf in jax.tree_util.tree_leaves(f)):
        raise ModelError(
            f"the function is a {type(f).__name__} with arrays of its own: pass them as data, "
            "from_function(lambda values, net: net(values), like, data=net)"
        )
    constraints = dict(constraints or {})
    unknown = sorted(set(constraints) - set(labels))
    if unknown:
        raise ModelError(f"constraints: {unknown[0]!r} is unknown; the variables are {', '.join(labels)}")
    free = tuple(_free_shape(n, x, constraints.get(n)) for n, x in zip(labels, leaves, strict=True))
    kinds = tuple(None if _real(constraints.get(n)) else Support(constraints[n]) for n in labels)
    shape = Shape(f, treedef, labels, free, kinds, generated, data is not None)
    shapes = {name: np.shape(x) for name, x in zip(labels, leaves, strict=True)}
    bare = FunctionTarget(shape, data, Labelling(labels, {}))
    if generated is not None:
        found = jax.eval_shape(bare.generated, jax.ShapeDtypeStruct((bare.dim,), jnp.result_type(float)))
        shapes |= {name: x.shape for name, x in found.items() if name not in shapes}
    axes = {name: tuple(f"{name}_dim_{i}" for i in range(len(x))) for name, x in shapes.items()}
    return replace(bare, labelling=Labelling(tuple(shapes), axes)).labelled(coords, dims)


def _real(constraint: Any) -> bool:
    from numpyro.distributions import constraints

    return constraint is None or constraint is constraints.real or constraint is constraints.real_vector


def _structure(like: Any, names: Sequence[str] | None) -> tuple[list[Any], Any, tuple[str, ...]]:
    """Leaves, structure and names of the variables."""
    if isinstance(like, int | np.integer) and not isinstance(like, bool):
        if names is None:
            return [np.zeros(int(like))], jax.tree_util.tree_structure(0), ("z",)
        if len(names) != like or len(set(names)) != like:
            raise ModelError(f"names= must be {like} different names for a vector of length {like}, not {list(names)}")
        return [np.zeros(())] * int(like), None, tuple(map(str, names))
    if names is not None:
        raise ModelError("names= is for a vector, from_function(f, dim, names=...); a pytree's leaves have their paths")
    entries, treedef = jax.tree_util.tree_flatten_with_path(like)
    if not entries:
        raise ModelError("like= has no arrays: there is nothing to infer")
    labels = tuple("/".join(_key(entry) for entry in path) or "z" for path, _ in entries)
    for label, (_, leaf) in zip(labels, entries, strict=True):
        if not (hasattr(leaf, "shape") or isinstance(leaf, float | int)):
            raise ModelError(f"like= has {type(leaf).__name__} at {label!r}, not an array")
    return [leaf for _, leaf in entries], treedef, labels


def _key(entry: Any) -> str:
    return str(getattr(entry, "key", getattr(entry, "idx", getattr(entry, "name", entry))))


def _free_shape(name: str, leaf: Any, constraint: Any) -> tuple[int, ...]:
    shape = tuple(np.shape(leaf))
    if _real(constraint):
        return shape
    try:
        return tuple(_transform(constraint).inverse_shape(shape))
    except NotImplementedError:
        raise ModelError(
            f"constraints: for {name!r} ({constraint}) no map from an unconstrained space is known"
        ) from None
