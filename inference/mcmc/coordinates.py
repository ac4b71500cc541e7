r"""Some coordinates of a flat vector, and the density of these given the others.

For a log density of z = (x, y) the full conditional of x is ``x -> log pi(x, y)`` with y held. A density that knows
its own structure does better (``StructuredDensity.restrict`` evaluates only the factors that read x); this one serves
every function of a flat vector.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any


@dataclass(frozen=True)
class Span:
    """A slice of a flat vector, in a form that can be hashed."""

    start: int | None
    stop: int | None
    step: int | None = None

    def __str__(self) -> str:
        """Like a slice, but with dots in place of the colon, which not every system takes in the name of a file."""
        text = f"{'' if self.start is None else self.start}..{'' if self.stop is None else self.stop}"
        return text if self.step is None else f"{text}..{self.step}"


Names = tuple[str, ...] | tuple[int, ...] | Span


def selection(names: Any) -> Names:
    """What a user writes for some coordinates, in a form that can be hashed: names, indices or a slice.

    Raises:
        TypeError: If it is none of these.
        ValueError: If it is empty or holds an entry twice.

    Example:
        >>> selection("mu"), selection([0, 2]), str(selection(slice(0, 3)))
        (('mu',), (0, 2), '0..3')
    """
    if isinstance(names, Span):
        return names
    if isinstance(names, slice):
        return Span(names.start, names.stop, names.step)
    if isinstance(names, str):
        return (names,)
    entries = tuple(np.atleast_1d(names).tolist() if isinstance(names, np.ndarray | range) else _listed(names))
    if not entries:
        raise ValueError("Block needs at least one name or index")
    if len(set(entries)) < len(entries):
        raise ValueError(f"Block names an entry twice: {list(entries)}")
    if all(isinstance(entry, str) for entry in entries):
        return entries
    if any(isinstance(entry, bool | str | float) for entry in entries):
        raise TypeError(f"Block takes names, or indices, or a slice of the flat vector, not {names!r}")
    return tuple(operator.index(entry) for entry in entries)


def _listed(names: Any) -> tuple[Any, ...]:
    try:
        return tuple(names)
    except TypeError:
        return (names,)


def title(names: Names) -> str:
    """A short name for statistics and messages.

    Example:
        >>> title(("mu", "tau")), title(tuple(range(9))), title(Span(0, 3))
        ('mu+tau', '0+...+8', '0..3')
    """
    if isinstance(names, Span):
        return str(names)
    shown = [str(name).replace("/", ".") for name in names]
    return "+".join(shown if len(shown) < 5 else [shown[0], "...", shown[-1]])


def indices(names: Names, density: Any, dim: int) -> np.ndarray:
    """The coordinates that are meant, in increasing order.

    Raises:
        ValueError: If one is not there; a name is looked up in the density's ``layout``.
    """
    if isinstance(names, Span):
        found = np.arange(dim)[slice(names.start, names.stop, names.step)]
        if not len(found):
            raise ValueError(f"Block(slice({names.start}, {names.stop})) holds no coordinate of a vector of {dim}")
        return np.sort(found)
    if isinstance(names[0], str):
        return np.sort(np.concatenate([np.arange(*_place(str(name), density)) for name in names]))
    for index in names:
        if not -dim <= int(index) < dim:
            raise ValueError(f"Block: index {index} is out of range for a vector of {dim} coordinates")
    found = np.sort(np.array([int(index) % dim for index in names]))
    if len(np.unique(found)) < len(found):
        raise ValueError(f"Block names a coordinate twice: {list(names)}")
    return found


def _place(name: str, density: Any) -> tuple[int, int]:
    layout = getattr(density, "layout", None)
    if layout is None:
        raise ValueError(
            f"Block({name!r}, ...): this density does not name its coordinates. Give the block a slice or indices of "
            "the flat vector, Block(slice(0, 3), kernel) or Block([0, 2], kernel)."
        )
    if name not in layout:
        import difflib

        close = difflib.get_close_matches(name, list(layout), n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"Block({name!r}, ...): there is no variable of this name.{hint} There are: {', '.join(layout)}."
        )
    return layout[name].start, layout[name].stop


def runs(index: tuple[int, ...], dim: int) -> Iterator[tuple[bool, int, int]]:
    """Stretches of the vector, each with whether it is chosen; increasing ``index``.

    Example:
        >>> list(runs((1, 2, 4), 5))
        [(False, 0, 1), (True, 1, 3), (False, 3, 4), (True, 4, 5)]
    """
    chosen = np.zeros(dim, bool)
    chosen[list(index)] = True
    cuts = [0, *(np.flatnonzero(chosen[1:] != chosen[:-1]) + 1).tolist(), dim]
    for start, stop in pairwise(cuts):
        yield bool(chosen[start]), start, stop


@partial(jax.tree_util.register_dataclass, data_fields=["density", "position"], meta_fields=["index"])
@dataclass(frozen=True, eq=False)
class Conditional:
    """The density of some coordinates given the others, up to a constant.

    Attributes:
        density: A log density, or an estimate of one, which takes a key first.
        position: The full position.
        index: The coordinates, increasing.

    Example:
        >>> given = Conditional(lambda z: -z @ z, jnp.arange(3.0), (0, 2))
        >>> given.start().tolist(), float(given(jnp.ones(2)))
        ([0.0, 2.0], -3.0)
    """

    density: Any
    position: Array
    index: tuple[int, ...]

    @property
    def dim(self) -> int:
        """Number of chosen coordinates."""
        return len(self.index)

    @property
    def finite(self) -> tuple[int, ...]:
        """Numbers of states of the chosen coordinates that are codes; they come last."""
        states = tuple(getattr(self.density, "finite", ()))
        first = self.position.shape[0] - len(states)
        return tuple(states[i - first] for i in self.index if i >= first)

    @property
    def continuous(self) -> int:
        """Number of chosen coordinates that are real."""
        return self.dim - len(self.finite)

    @property
    def differentiable(self) -> bool:
        """Whether it has a gradient."""
        return getattr(self.density, "differentiable", True)

    @property
    def unbiased(self) -> str | None:
        """What the density estimates, if it is an estimate."""
        return getattr(self.density, "unbiased", None)

    def start(self) -> Array:
        """The chosen coordinates of the full position."""
        found = runs(self.index, self.position.shape[0])
        return jnp.concatenate([self.position[start:stop] for chosen, start, stop in found if chosen])

    def merge(self, x: Array) -> Array:
        """The full position with the chosen coordinates at ``x``."""
        pieces, used = [], 0
        for chosen, start, stop in runs(self.index, self.position.shape[0]):
            if chosen:
                pieces.append(x[used : used + stop - start])
                used += stop - start
            else:
                pieces.append(self.position[start:stop])
        return jnp.concatenate(pieces)

    def __call__(self, *key_and_x: Array) -> Array:
        """Log density at ``x``; of an estimate ``(key, x)``."""
        *key, x = key_and_x
        return self.density(*key, self.merge(x))
