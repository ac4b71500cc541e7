"""Tables of log weights with one axis for each finite variable and one for each plate, and what is done to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

Array = Any
Var = tuple[int, tuple[int, ...]]  # a site's number, and an element where elements are apart
Role = tuple[Var, int]  # a variable and how many steps before
Label = Any  # a plate: a class of axes, or an axis of one term alone
Use = tuple[tuple[Label, Any], ...]  # for each axis of a variable a label of the factor, and an index or None


@dataclass(frozen=True, eq=False)
class Factor:
    """A table of log weights.

    Attributes:
        table: One axis for each role, then one for each label.
        roles: What it reads.
        axes: The plates that it stands in.
        uses: For each variable how its axes are found.
        step: The number of the step that made it, or None.
    """

    table: Array
    roles: tuple[Role, ...]
    axes: tuple[Label, ...]
    uses: Mapping[Var, Use]
    step: int | None = None


@dataclass(frozen=True, eq=False)
class Places:
    """How a factor's plates become those of a variable: others are summed, some are sorted by an index.

    Attributes:
        use: The variable's use of the factor's axes.
        sizes: Sizes of the variable's plates.
        indices: The index arrays.
    """

    use: Use
    sizes: tuple[int, ...]
    indices: Mapping[Any, Array]

    def reduce(self, x: Array, axes: tuple[Label, ...]) -> Array:
        """Add up what belongs to one element of the variable; roles in front stay."""
        front = x.ndim - len(axes)
        labels = [label for label, _ in self.use]
        x = jnp.sum(x, axis=tuple(front + i for i, label in enumerate(axes) if label not in labels))
        kept = [label for label in axes if label in labels]
        x = jnp.transpose(x, (*range(front), *(front + kept.index(label) for label in labels)))
        for i, (_, index) in enumerate(self.use):
            if index is not None:
                rows = jnp.moveaxis(x, front + i, 0)
                rows = jnp.zeros((self.sizes[i], *rows.shape[1:]), x.dtype).at[self.indices[index]].add(rows)
                x = jnp.moveaxis(rows, 0, front + i)
        return x

    def expand(self, x: Array, axes: tuple[Label, ...]) -> Array:
        """Give every element of the factor the value of its element of the variable."""
        front = x.ndim - len(self.use)
        for i, (_, index) in enumerate(self.use):
            if index is not None:
                x = jnp.take(x, self.indices[index], axis=front + i)
        labels = [label for label, _ in self.use]
        kept = [label for label in axes if label in labels]
        x = jnp.transpose(x, (*range(front), *(front + labels.index(label) for label in kept)))
        return jnp.expand_dims(x, tuple(front + i for i, label in enumerate(axes) if label not in labels))

    def others(self, x: Array, axes: tuple[Label, ...]) -> Array:
        """For every element of the factor the sum over the others of the same element of the variable."""
        if len(axes) == len(self.use) and not any(index is not None for _, index in self.use):
            return jnp.zeros_like(x)
        never = jnp.isneginf(x)
        finite = jnp.where(never, jnp.zeros_like(x), x)
        rest = self.expand(self.reduce(finite, axes), axes) - finite
        count = never.astype(x.dtype)
        return jnp.where(self.expand(self.reduce(count, axes), axes) - count > 0.5, -jnp.inf, rest)


def arranged(x: Array, have: Sequence[Role], want: Sequence[Role]) -> Array:
    """A table with its leading axes in another order, of length one for roles that it does not read."""
    order = [have.index(role) for role in want if role in have]
    x = jnp.transpose(x, (*order, *range(len(have), x.ndim)))
    return jnp.expand_dims(x, tuple(i for i, role in enumerate(want) if role not in have))


def chosen(table: Array, front: int, places: Sequence[Array]) -> Array:
    """The entries of a table at codes of the roles that follow its first ``front`` axes."""
    for code in places:
        shape = (1,) * (table.ndim - code.ndim) + code.shape
        table = jnp.squeeze(jnp.take_along_axis(table, code.reshape(shape), axis=front), axis=front)
    return table
