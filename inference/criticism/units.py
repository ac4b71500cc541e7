"""What is left out: the units of cross-validation, and a posterior density without one of them.

A unit is an element of an observed site, or all elements along the dims that ``unit=`` does not name, or all with a
label; their log factors are summed. Units are numbered in the shape that a user sees; in a compiled program with ragged
plates the elements stand elsewhere, among padding, which belongs to no unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl import summed

from ..chunks import in_chunks, tidy_of
from ..compiling import jit_quick

Array = Any


@dataclass(frozen=True, eq=False)
class Units:
    """Which unit each element of the observed sites' log factors belongs to.

    Attributes:
        numbers: By site, the number of the unit of every element of the log factor.
        dims: Names of the units' axes.
        shape: Number of units along each.
        coords: Labels of the units by dim.
        counted: Which units have an observation that is known, shape (units,).
    """

    numbers: dict[str, np.ndarray]
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    coords: dict[str, np.ndarray]
    counted: np.ndarray

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the observed sites that are left out together."""
        return tuple(self.numbers)

    @property
    def several(self) -> bool:
        """Whether a unit has more than one element."""
        return sum(numbers.size for numbers in self.numbers.values()) > self.count

    @property
    def count(self) -> int:
        """Number of units."""
        return math.prod(self.shape)

    def total(self, factors: Mapping[str, np.ndarray]) -> np.ndarray:
        """Sum log factors (..., *elements) by unit, to shape (..., units).

        Example:
            >>> units = Units({"y": np.array([[0, 1], [0, 1]])}, ("side",), (2,), {}, np.ones(2, bool))
            >>> units.total({"y": np.array([[[1.0, 2.0], [3.0, 4.0]]])}).tolist()
            [[4.0, 6.0]]
        """
        found: Any = 0.0
        for site, numbers in self.numbers.items():
            value = factors[site]
            flat = value.reshape(*value.shape[: value.ndim - numbers.ndim], -1)
            order = np.argsort(numbers, axis=None, kind="stable")
            begins = np.searchsorted(numbers.ravel()[order], np.arange(self.count))
            found = found + np.add.reduceat(flat[..., order], begins, axis=-1)
        return found

    def places(self, density: Any) -> dict[str, np.ndarray]:
        """By site, the unit of every element of the compiled log factor; -1 where there is padding."""
        tidy = tidy_of(density)
        if tidy is None:
            return {site: numbers.astype(np.int32) for site, numbers in self.numbers.items()}
        shapes = jax.eval_shape(density.pointwise, jax.ShapeDtypeStruct((density.dim,), jnp.result_type(float)))
        found = {}
        for site, numbers in self.numbers.items():
            size = math.prod(shapes[site].shape)
            places = np.full(size, -1, np.int32)
            places[np.asarray(tidy.unpack(site, np.arange(size).reshape(shapes[site].shape)))] = numbers
            found[site] = places.reshape(shapes[site].shape)
        return found


def choose_units(fit: Any, site: str | Iterable[str] | None = None, unit: Any = None) -> Units:
    """Resolve what is left out.

    Args:
        fit: A fit with pointwise log likelihoods.
        site: An observed site, or several that are left out together; may be omitted where there is one.
        unit: Names of the dims whose elements are left out whole, or a label for every element of the sites' first
            axis; by default all dims of one site, and all that several sites have in common.

    Raises:
        ppl.ModelError: If there is a choice to be made, or nothing that can be left out.
    """
    from ppl import ModelError

    from ..summary import choose

    data = fit.dataset("log_likelihood")
    known = [str(name) for name in data.data_vars]
    if not known:
        why = "nothing is conditioned" if fit.program is not None else "it does not know its program"
        raise ModelError(f"this fit has no pointwise log likelihood ({why}), so no observation can be left out")
    if site is None and len(known) > 1:
        raise ModelError(
            f"this fit has {len(known)} observed sites: say which is to be predicted, site={known[0]!r}, or leave out "
            f"their elements together, site={tuple(known)!r} (of: {', '.join(known)})"
        )
    sites = tuple(choose(known, site))
    dims = {name: tuple(map(str, data[name].dims[2:])) for name in sites}
    shapes = {name: tuple(data[name].shape[2:]) for name in sites}
    if unit is not None and _are_labels(unit, dims[sites[0]]):
        return _by_label(fit, shapes, np.asarray(unit))
    if unit is None:
        kept = tuple(d for d in dims[sites[0]] if all(d in dims[name] for name in sites))
    else:
        kept = (unit,) if isinstance(unit, str) else tuple(unit)
    for name in sites:
        for dim in kept:
            if dim not in dims[name]:
                raise ModelError(
                    f"unit={dim!r} is no axis of the log factor of site {name!r}, whose axes are {_names(dims[name])}"
                )
    if not kept:
        raise ModelError(_nothing(fit, sites, dims))
    found = {tuple(shapes[name][dims[name].index(dim)] for dim in kept) for name in sites}
    if len(found) > 1:
        raise ModelError(f"sites {', '.join(sites)} have {sorted(found)} elements along {_names(kept)}: not the same")
    shape = found.pop()
    grid = np.arange(math.prod(shape)).reshape(shape)
    numbers = {}
    for name in sites:
        order = sorted(kept, key=dims[name].index)
        turned = grid.transpose([kept.index(dim) for dim in order])
        wide = turned.reshape([s if d in kept else 1 for d, s in zip(dims[name], shapes[name], strict=True)])
        numbers[name] = np.broadcast_to(wide, shapes[name])
    coords = {
        dim: np.asarray(data.coords[dim].values) if dim in data.coords else np.arange(size)
        for dim, size in zip(kept, shape, strict=True)
    }
    return Units(numbers, kept, shape, coords, _counted(fit, numbers, grid.size))


def _are_labels(unit: Any, dims: tuple[str, ...]) -> bool:
    """Whether ``unit=`` is a label for each element rather than names of dims."""
    if isinstance(unit, str):
        return False
    return isinstance(unit, np.ndarray) or not all(isinstance(entry, str) for entry in unit)


def _by_label(fit: Any, shapes: Mapping[str, tuple[int, ...]], labels: np.ndarray) -> Units:
    from ppl import ModelError

    different, codes = np.unique(labels, return_inverse=True)
    numbers = {}
    for name, shape in shapes.items():
        if labels.ndim != 1 or not shape or shape[0] != len(labels):
            raise ModelError(
                f"unit= has labels of shape {labels.shape}; site {name!r} has {shape[:1]} elements on its first axis"
            )
        numbers[name] = np.broadcast_to(codes.reshape(-1, *[1] * (len(shape) - 1)), shape)
    return Units(numbers, ("unit",), (len(different),), {"unit": different}, _counted(fit, numbers, len(different)))


def _counted(fit: Any, numbers: Mapping[str, np.ndarray], count: int) -> np.ndarray:
    """Units with at least one known value; a log factor may lack the last axes of its data."""
    given = fit.dataset("observed_data")
    found = np.zeros(count, bool)
    for name, places in numbers.items():
        data = np.asarray(given[name].values) if name in given else np.zeros(places.shape)
        known = ~np.isnan(data) if data.dtype.kind == "f" else np.ones(data.shape, bool)
        if data.shape[: places.ndim] != places.shape:
            return np.ones(count, bool)
        found[places[np.asarray(known.reshape(*places.shape, -1).any(-1))]] = True
    return found


def _nothing(fit: Any, sites: tuple[str, ...], dims: dict[str, tuple[str, ...]]) -> str:
    if len(sites) > 1:
        axes = "; ".join(f"{name!r} has {_names(dims[name])}" for name in sites)
        return f"sites {', '.join(sites)} have no axis in common, so nothing is left out of all of them: {axes}"
    known = {} if fit.program is None else fit.program.learned()
    info = known.get(sites[0])
    family = f" ({info.family}, {info.source})" if info is not None else ""
    return (
        f"site {sites[0]!r}{family} has one log factor for all of its values, so to leave it out is to leave out all "
        "data. Write the site element by element in a plate."
    )


def _names(dims: Iterable[str]) -> str:
    return ", ".join(map(repr, dims)) or "none"


def together(density: Any, sites: Iterable[str]) -> bool:
    """Whether elements of observed sites may depend on each other, through sites that are summed out."""
    compiled: Any = getattr(density, "compiled", None)
    if not getattr(compiled, "summed", None):
        return False
    return summed.needed(compiled, tuple(compiled.find("factor", sites=set(sites))))


def joint_log_likelihood(density: Any, units: Units, positions: np.ndarray) -> np.ndarray:
    """The log densities log p(unit | other units) of every unit at positions (draws, dim), shape (draws, units)."""
    places, work = units.places(density), 8 * units.count * int(density.work)
    return in_chunks(partial(_joint, density, places, np.arange(units.count, dtype=np.int32)), positions, work)


@jit_quick
def _joint(density: Any, places: dict[str, Array], numbers: Array, positions: Array) -> Array:
    return jax.lax.map(lambda z: jax.vmap(lambda i: likelihood_of(density, places, i, z))(numbers), positions)


def likelihood_of(density: Any, places: Mapping[str, Array], index: Array, z: Array) -> Array:
    """Log likelihood of one unit at a position; where sites are summed out, given the data of the other units."""
    if together(density, places):
        return density(z) - summed.without(density, places, index, z)
    factors = density.pointwise(z)
    total = jnp.zeros((), z.dtype)
    for site, place in places.items():
        value = factors[site]
        total = total + jnp.sum(jnp.where(place == index, value, jnp.zeros((), value.dtype))).astype(z.dtype)
    return total


@dataclass(frozen=True, eq=False)
class LeaveOut:
    """A posterior density without the log factors of one unit; a pytree in which the unit is data.

    Refits that leave out one unit after another therefore share their compiled programs.

    Attributes:
        density: A compiled density.
        index: Number of the unit, int32.
        places: By site, the unit of every element of the log factor (``Units.places``).
    """

    density: Any
    index: Array
    places: dict[str, Array]

    def __call__(self, z: Array) -> Array:
        """Log density at ``z`` up to a constant, with the unit's factors switched off rather than subtracted."""
        compiled = self.density.compiled
        if compiled.summed:
            return summed.without(self.density, self.places, self.index, z)
        terms = compiled.evaluate(tuple(compiled.terms), self.density.data, z)
        total = jnp.zeros((), z.dtype)
        for (channel, name), value in terms.items():
            if channel == "factor" and name in self.places:
                value = jnp.where(self.places[name] == self.index, jnp.zeros((), value.dtype), value)
            total = total + jnp.sum(value).astype(z.dtype)
        return total

    @property
    def dim(self) -> int:
        """Length of the unconstrained vector."""
        return self.density.dim

    @property
    def work(self) -> int:
        """Array elements computed by one evaluation."""
        return self.density.work

    @property
    def labels(self) -> list[str]:
        """Names of the entries of the unconstrained vector."""
        return self.density.labels

    @property
    def layout(self) -> Mapping[str, Any]:
        """Places of the latent sites in the unconstrained vector."""
        return self.density.layout

    @property
    def finite(self) -> tuple[int, ...]:
        """Numbers of states of the last entries of the vector, which are codes of finite sites."""
        return self.density.finite

    @property
    def continuous(self) -> int:
        """Number of entries of the vector that are real."""
        return self.density.continuous


jax.tree_util.register_dataclass(LeaveOut, data_fields=["density", "index", "places"], meta_fields=[])
