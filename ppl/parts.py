"""Parts of a density: a sum of some of its terms, and the full conditional of some of its sites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from . import codes, space
from .errors import ModelError

Array = Any


def total(terms: Sequence[Array], dtype: Any) -> Array:
    """Sum of all elements of all terms."""
    found = jnp.zeros((), dtype)
    for term in terms:
        found = found + jnp.sum(term).astype(dtype)
    return found


@partial(jax.tree_util.register_dataclass, data_fields=["density"], meta_fields=["outputs"])
@dataclass(frozen=True, eq=False)
class Part:
    """A sum of some of a density's terms, over the same vector."""

    density: Any
    outputs: tuple[int, ...]

    def __call__(self, z: Array) -> Array:
        """Sum of the chosen terms."""
        compiled = self.density.compiled
        return total(list(compiled.evaluate(self.outputs, self.density.data, z).values()), z.dtype)

    @property
    def dim(self) -> int:
        """Length of the unconstrained vector."""
        return self.density.dim

    @property
    def external(self) -> tuple[str, ...]:
        """Names of the functions outside of JAX that one evaluation calls."""
        return self.density.compiled.calls(self.outputs)

    @property
    def differentiable(self) -> bool:
        """Whether it has a gradient."""
        return self.density.compiled.differentiable(self.outputs)


@partial(jax.tree_util.register_dataclass, data_fields=["density", "position"], meta_fields=["names", "outputs"])
@dataclass(frozen=True, eq=False)
class Restricted:
    """A full conditional over the unconstrained values of some sites."""

    density: Any
    position: Array
    names: tuple[str, ...]
    outputs: tuple[int, ...]

    @property
    def external(self) -> tuple[str, ...]:
        """Names of the functions outside of JAX that one evaluation calls."""
        return self.density.compiled.calls(self.outputs)

    @property
    def differentiable(self) -> bool:
        """Whether it has a gradient."""
        return self.density.compiled.differentiable(self.outputs)

    @property
    def slots(self) -> dict[str, space.Slot]:
        """Places of the sites in the vector of this conditional."""
        found, start = {}, 0
        for name in self.names:
            slot = self.density.layout[name]
            stop = start + slot.stop - slot.start
            found[name] = space.Slot(start, stop, slot.shape)
            start = stop
        return found

    @property
    def dim(self) -> int:
        """Length of the vector of this conditional."""
        return sum(self.density.layout[n].stop - self.density.layout[n].start for n in self.names)

    @property
    def finite(self) -> tuple[int, ...]:
        """Numbers of states of the last entries of the vector, which are codes of finite sites."""
        return tuple(self.density.compiled.sites[n].states[1] for n in self._finite for _ in range(self._length(n)))

    @property
    def continuous(self) -> int:
        """Number of entries of the vector that are real."""
        return self.dim - len(self.finite)

    @property
    def _finite(self) -> tuple[str, ...]:
        return tuple(name for name in self.names if self.density.compiled.sites[name].discrete)

    def _length(self, name: str) -> int:
        slot = self.density.layout[name]
        return slot.stop - slot.start

    @property
    def codes(self) -> codes.Codes:
        """Groups of the finite sites' elements that are independent given the rest."""
        return codes.Codes(self.density.compiled, self._finite)

    @property
    def groups(self) -> int:
        """Number of these groups."""
        return self.codes.groups

    def members(self, group: Array) -> Array:
        """Which codes belong to a group."""
        return self.codes.members(group)

    def local(self, x: Array, group: Array) -> Array:
        """For each code of a group the terms of the log density that read it."""
        return self.codes.local(self.density.data, self.merge(x), group)

    def conditional(self, names: Any = None, position: Array | None = None) -> Any:
        """The exact law of these sites given the others; see ``Density.conditional``.

        Raises:
            ModelError: Other names than these sites', or no such law.
        """
        if names is not None and set((names,) if isinstance(names, str) else names) != set(self.names):
            raise ModelError(f"this conditional is one of {', '.join(self.names)} and of nothing else")
        return self.density.conditional(self.names, self.position if position is None else self.merge(position))

    def split(self) -> tuple[Restricted, Restricted]:
        """Log prior of these sites given the others (with log-determinants), and the factors of what depends on them.

        Both hold the same position as this conditional, so neither can speak of an earlier one.

        Raises:
            ModelError: Where sites are summed out, so that the factors are no terms of their own.
        """
        compiled = self.density.compiled
        if compiled.summed:
            raise ModelError("split: sites are summed out of this density; compile it with marginalize=False")
        own = tuple(i for i in self.outputs if compiled.names[i][1] in self.names)
        rest = tuple(i for i in self.outputs if i not in own)
        return replace(self, outputs=own), replace(self, outputs=rest)

    def start(self) -> Array:
        """The part of the full position that belongs to these sites."""
        slots = [self.density.layout[name] for name in self.names]
        return jnp.concatenate([self.position[slot.start : slot.stop] for slot in slots])

    def merge(self, x: Array) -> Array:
        """The full position with these sites at ``x``."""
        z = self.position
        for name, slot in self.slots.items():
            z = jax.lax.dynamic_update_slice(z, x[slot.start : slot.stop], (self.density.layout[name].start,))
        return z

    def __call__(self, x: Array) -> Array:
        """Log density of the sites at ``x`` given the others, up to a constant."""
        compiled, z = self.density.compiled, self.merge(x)
        if compiled.summed:
            code = compiled.whole.code
            return total(code.run(*codes.inputs(compiled, self.density.data, z)), x.dtype)
        return total(list(compiled.evaluate(self.outputs, self.density.data, z).values()), x.dtype)
