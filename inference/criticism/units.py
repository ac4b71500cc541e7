"""What is left out: the units of cross-validation, and a posterior density without one of them.

A unit is an element of an observed site, or of the plates named by ``unit=``, over all of whose observations the log
factors are summed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any


@dataclass(frozen=True)
class Units:
    """Observed sites and the axes of their log factors along which units lie; hashable, so static in a compilation.

    Attributes:
        sites: Names of the observed sites that are left out together.
        axes: For each site, the axes of its log factor that are the units', in their order.
        dims: Names of the units' axes.
        shape: Number of units along each.
    """

    sites: tuple[str, ...]
    axes: tuple[tuple[int, ...], ...]
    dims: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of units."""
        return math.prod(self.shape)

    def total(self, factors: Any, xp: Any = np, leading: int = 0) -> Array:
        """Sum log factors by unit: arrays by site to an array of shape (..., units).

        Args:
            factors: Log factors by site, with ``leading`` axes in front.
            xp: NumPy or ``jax.numpy``.
            leading: Axes in front, such as chain and draw.
        """
        found: Any = 0.0
        front = tuple(range(leading))
        for site, axes in zip(self.sites, self.axes, strict=True):
            value = factors[site]
            kept = tuple(a + leading for a in axes)
            rest = tuple(a for a in range(leading, value.ndim) if a not in kept)
            value = xp.transpose(value, (*front, *kept, *rest))
            found = found + value.reshape(*value.shape[:leading], self.count, -1).sum(-1)
        return found


def choose_units(fit: Any, site: str | Iterable[str] | None = None, unit: str | Iterable[str] | None = None) -> Units:
    """Resolve what is left out.

    Args:
        fit: A fit with pointwise log likelihoods.
        site: An observed site, or several that are left out together; may be omitted where there is one.
        unit: Names of the dims whose elements are left out whole; by default all dims of one site, and all that
            several sites have in common.

    Raises:
        ppl.ModelError: If there is a choice to be made, or nothing that can be left out.
    """
    from ppl import ModelError

    from ..summary import choose

    data = fit.dataset("log_likelihood")
    known = list(data.data_vars)
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
    shapes = {name: data[name].shape[2:] for name in sites}
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
    axes = tuple(tuple(dims[name].index(dim) for dim in kept) for name in sites)
    found = {tuple(shapes[name][a] for a in place) for name, place in zip(sites, axes, strict=True)}
    if len(found) > 1:
        raise ModelError(f"sites {', '.join(sites)} have {sorted(found)} elements along {_names(kept)}: not the same")
    return Units(sites, axes, kept, found.pop())


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


@dataclass(frozen=True, eq=False)
class LeaveOut:
    """A posterior density without the log factors of one unit; a pytree in which the unit is data.

    Refits that leave out one unit after another therefore share their compiled programs.

    Attributes:
        density: A compiled density.
        index: Place of the unit among all, a whole number.
        units: What the units are.
    """

    density: Any
    index: Array
    units: Units

    def __call__(self, z: Array) -> Array:
        """Log density at ``z`` up to a constant, with the unit's factors switched off rather than subtracted."""
        compiled = self.density.compiled
        terms = compiled.evaluate(tuple(compiled.terms), self.density.data, z)
        total = jnp.zeros((), z.dtype)
        for (channel, name), value in terms.items():
            if channel == "factor" and name in self.units.sites:
                value = self._without(name, value)
            total = total + jnp.sum(value).astype(z.dtype)
        return total

    def _without(self, name: str, value: Array) -> Array:
        axes = self.units.axes[self.units.sites.index(name)]
        here = jnp.arange(self.units.count, dtype=jnp.int32).reshape(self.units.shape) == self.index
        shape = [1] * value.ndim
        for axis, size in zip(axes, self.units.shape, strict=True):
            shape[axis] = size
        order = sorted(range(len(axes)), key=axes.__getitem__)
        return jnp.where(jnp.transpose(here, order).reshape(shape), jnp.zeros((), value.dtype), value)

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


jax.tree_util.register_dataclass(LeaveOut, data_fields=["density", "index"], meta_fields=["units"])
