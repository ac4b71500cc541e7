"""A data frame as an argument of a model: a pytree of its numeric columns by name.

What cannot be data (text, dates, a column with missing values) is refused when the model reads it, and only then, so
that a table may hold more than the model needs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from .errors import ModelError, at, user_line
from .frames import column, complaint, gap, is_frame, is_table, narrow, read


@dataclass(frozen=True)
class Refusal:
    """A column that a model may not read; two are equal if they belong to the same column."""

    name: Any
    reason: str = field(compare=False)


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of a frame inside a model: ``df["x"]``, ``df.x``, ``df[["x", "z"]]``, ``len(df)``.

    Attributes:
        arrays: Numeric columns by name.
        refused: The others, with the reason why a model cannot compute with them.
    """

    arrays: dict[Any, Any]
    refused: tuple[Refusal, ...] = ()

    def tree_flatten(self) -> tuple[tuple[Any, ...], Any]:
        """The arrays, in the order of the frame."""
        return tuple(self.arrays.values()), (tuple(self.arrays), self.refused)

    @classmethod
    def tree_unflatten(cls, names: Any, arrays: Any) -> Columns:
        """The same columns with other values."""
        return cls(dict(zip(names[0], arrays, strict=True)), names[1])

    @property
    def columns(self) -> list[Any]:
        """Names of the columns that can be read."""
        return list(self.arrays)

    def keys(self) -> list[Any]:
        """Names of the columns that can be read."""
        return self.columns

    def __iter__(self) -> Iterator[Any]:
        return iter(self.arrays)

    def __contains__(self, name: Any) -> bool:
        return name in self.arrays

    def __len__(self) -> int:
        return int(np.shape(next(iter(self.arrays.values())))[0])

    def __getitem__(self, name: Any) -> Any:
        """One column, or for a list of names an array of shape (rows, columns)."""
        if isinstance(name, list):
            return jax.numpy.stack([jax.numpy.asarray(self[n], float) for n in name], axis=-1)
        if name in self.arrays:
            return self.arrays[name]
        for refusal in self.refused:
            if refusal.name == name:
                raise ModelError(f"{refusal.reason}\n{at(user_line())}")
        known = [str(n) for n in self.arrays]
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ModelError(
            f"the frame has no column {name!r}.{hint} It has: {', '.join(known) or 'no numeric column'}.\n"
            f"{at(user_line())}"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except ModelError as error:
            if any(refusal.name == name for refusal in self.refused):
                raise
            raise AttributeError(str(error)) from None


def as_columns(frame: Any, what: str, allow: bool = False) -> Columns:
    """A frame as an argument of a model."""
    arrays, refused = {}, []
    for name, found in read(frame, what).items():
        called = f"column {name!r} of {what}"
        reason = complaint(found, called) or ("" if allow else gap(found, called))
        if not reason:
            try:
                arrays[name] = narrow(found.values, called)
            except ModelError as error:
                reason = str(error)
        if reason:
            refused.append(Refusal(name, reason))
    if not arrays:
        raise ModelError(f"no column of {what} can be data; the first: {refused[0].reason}\n{at(user_line())}")
    return Columns(arrays, tuple(refused))


def opened(arrays: Any, what: str) -> Any:
    """A pytree with frames as ``Columns`` and columns of frames as arrays; the rest as it is.

    Raises:
        ModelError: A column of a table that cannot be data, or with a gap.
    """

    def leaf(x: Any) -> Any:
        if not is_table(x):
            return x
        if is_frame(x):
            return as_columns(x, what)
        found = column(x, what)
        if reason := complaint(found, what) or gap(found, what):
            raise ModelError(f"{reason}\n{at(user_line())}")
        return narrow(found.values, what)

    return jax.tree_util.tree_map(leaf, arrays, is_leaf=is_table)


@dataclass(frozen=True)
class Allowed:
    """Data in which NaN is wanted; see ``ppl.allow_nan``."""

    value: Any


def allow_nan(values: Any) -> Allowed:
    """Mark an argument of a model as one that may hold NaN; else NaN in an argument is an error.

    The model receives it as it is, and has to keep NaN away from its arithmetic: ``jnp.where(isnan, 0.0, x)`` before
    computing, not after, since the gradient of what ``where`` does not take is still computed.

    Args:
        values: An array, a column or a frame.

    Example:
        >>> import jax.numpy as jnp, numpy as np, ppl
        >>> from ppl import dist
        >>> @ppl.model
        ... def m(x):
        ...     ppl.sample("y", dist.Normal(jnp.nansum(x), 1.0))
        >>> round(float(m(ppl.allow_nan(np.array([1.0, np.nan]))).log_prob({"y": 1.0})), 4)
        -0.9189
    """
    return Allowed(values)
