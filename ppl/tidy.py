"""Values of sites in ragged plates as a user sees them: one entry per row of the tidy table, no padding.

Inside of a compiled program the sites of a ragged plate have the packed axes (groups, rows in a group). Here these
become one axis of the table's rows in the table's order, and an axis of groups loses its padding. Both ways are
gathers with indices that are known on the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .axes import Axis
from .errors import ModelError, at
from .ragged import Ragged, mask_of, rows_of, tables
from .sites import SiteInfo
from .values import MASK

Array = Any


class Packing:
    """Where the rows of one table stand.

    Attributes:
        n_groups: Number of groups, None for a plain table.
        n_rows: Number of rows.
        source: For every packed place the row that stands there, or stands in.
        mask: Which places hold a row.
        labels: Labels of the groups.
    """

    def __init__(self, table: Any) -> None:
        """Read a table whose arrays are known."""
        rows = rows_of(table)
        self.mask, self.source = mask_of(table), np.asarray(rows.source)
        self.n_groups = table.n_groups if isinstance(table, Ragged) else None
        self.n_rows = int(self.mask.sum())
        self.labels = rows.names.labels

    @cached_property
    def flat(self) -> np.ndarray:
        """For every row its place in the flattened packed axes."""
        places = np.flatnonzero(self.mask)
        flat = np.empty(self.n_rows, np.int64)
        flat[self.source.ravel()[places]] = places
        return flat


class Tidy:
    """Both forms of a program's values.

    Attributes:
        axes: The padded axes by name.
        packings: The tables of the call by number; empty where they are traced, so that all stays packed.
    """

    def __init__(self, program: Any) -> None:
        """Read the tables of a program."""
        learned = program._learn()
        self.learned: dict[str, SiteInfo] = learned.sites
        self.axes: dict[str, Axis] = learned.tables
        self.packings: dict[int, Packing] = {}
        if not self.axes:
            return
        found = tables(program.arguments.rebuild(program.arguments.data))
        if any(isinstance(rows_of(table).mask, jax.core.Tracer) for table in found):
            self.axes = {}
            return
        self.packings = {place: Packing(table) for place, table in enumerate(found)}
        for name, axis in self.axes.items():
            counts = {self.packings[place].n_groups for place in axis.places}
            if axis.level == "group" and len(counts) > 1:
                raise ModelError(
                    f"plate {name!r}: its tables have {' and '.join(sorted(map(str, counts)))} groups:\n"
                    f"{at(axis.source)}\n  Give all of them the same groups: ppl.ragged(codes, ..., labels=labels)."
                )

    @cached_property
    def sites(self) -> dict[str, SiteInfo]:
        """What is known of the sites, with the plates and the shape that a user sees."""
        return {name: self._site(info) for name, info in self.learned.items()} if self.axes else self.learned

    def scored(self, name: str) -> SiteInfo:
        """What is known of a site, with the axes of its log factor where these are not the first of its value."""
        info, site = self.learned[name], self.sites[name]
        if len(site.plates) == len(info.plates) or self._pair([plate[0] for plate in info.plates]) is not None:
            return site
        own = info.dims and info.dims[: info.batch]
        return self._site(replace(info, shape=info.shape[: info.batch], dims=own))

    def coords(self, name: str) -> np.ndarray | None:
        """Labels of an axis, where a table gives them."""
        axis = self.axes.get(name)
        return self.packings[axis.places[0]].labels if axis is not None and axis.level == "group" else None

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Labels of all axes to which a table gives them."""
        found = {name: self.coords(name) for name in self.axes}
        return {name: labels for name, labels in found.items() if labels is not None}

    def pack(self, name: str, value: Array, lead: int = 0) -> Array:
        """A value with ``lead`` axes in front, from the user's shape to the program's."""
        named = self._named(self.learned[name]) if self.axes and name in self.learned else []
        pair = self._pair(named)
        for i in reversed(range(len(named))):
            axis = self.axes.get(named[i])
            if axis is None or (pair is not None and i == pair[0]):
                continue
            packing = self.packings[axis.places[0]]
            at_axis = lead + i - (pair is not None and i >= pair[1])
            if axis.level == "row":
                value = _take(value, packing.source.ravel(), at_axis)
                if pair is not None:
                    shape = value.shape
                    value = value.reshape(*shape[:at_axis], *packing.source.shape, *shape[at_axis + 1 :])
                    value = _module(value).moveaxis(value, at_axis, lead + pair[0])
            else:
                count = packing.n_groups or 1
                value = _take(value, np.minimum(np.arange(self._size(named[i])), count - 1), at_axis)
        return value

    def packed_marks(self, name: str, marks: Mapping[str, Any]) -> dict[str, Any]:
        """What tells the gaps of a site's value, for the program; padding has none."""
        if not self.axes or name not in self.learned:
            return dict(marks)
        where, shape = self._where(name), self.learned[name].full_shape
        known = next(np.asarray(value) for mark, value in marks.items() if mark.endswith(MASK)).ravel()
        packed = np.ones(shape, bool)
        packed.ravel()[where] = known
        places = where[~known].astype(np.int32)
        return {mark: packed if mark.endswith(MASK) else places for mark in marks}

    def places(self, name: str, packed: np.ndarray) -> np.ndarray:
        """Places in a site's flattened value, for the user, of places in the flattened packed one."""
        if not self.axes or name not in self.learned:
            return packed
        back = np.full(int(np.prod(self.learned[name].full_shape)), -1)
        where = self._where(name)
        back[where] = np.arange(len(where))
        return back[packed]

    def _where(self, name: str) -> np.ndarray:
        """For each element of a site's flattened value its place in the flattened packed one."""
        shape = self.learned[name].full_shape
        return self.unpack(name, np.arange(int(np.prod(shape))).reshape(shape)).ravel()

    def unpack(self, name: str, value: Array, lead: int = 0) -> Array:
        """A value (or a factor, which may lack a site's last axes) with ``lead`` axes in front, for the user."""
        if not self.axes or name not in self.learned:
            return value
        named = self._named(self.learned[name])[: np.ndim(value) - lead]
        pair = self._pair(named)
        for i in reversed(range(len(named))):
            axis = self.axes.get(named[i])
            if axis is None or (pair is not None and i == pair[0]):
                continue
            packing = self.packings[axis.places[0]]
            if axis.level == "group":
                value = _take(value, np.arange(packing.n_groups or 1), lead + i)
            elif pair is None:
                value = _take(value, packing.flat, lead + i)
            else:
                value = _module(value).moveaxis(value, lead + pair[0], lead + i - 1)
                shape = value.shape
                value = value.reshape(*shape[: lead + i - 1], -1, *shape[lead + i + 1 :])
                value = _take(value, packing.flat, lead + i - 1)
        return value

    def unpacked(self, values: Mapping[str, Array], lead: int = 0) -> dict[str, Array]:
        """Values of sites, for the user."""
        return {name: self.unpack(name, value, lead) for name, value in values.items()}

    def unpacked_shape(self, name: str, shape: Any, lead: int = 0) -> Any:
        """Shape and dtype of a value, for the user."""
        if not self.axes:
            return shape
        empty = np.broadcast_to(np.zeros((), bool), shape.shape)
        return jax.ShapeDtypeStruct(self.unpack(name, empty, lead).shape, shape.dtype)

    def element(self, info: SiteInfo, place: tuple[int, ...]) -> str:
        """The name of an entry of a packed value, in the user's counting."""
        named = self._named(info)
        pair = self._pair(named)
        shown, real = [], True
        for i, index in enumerate(place):
            axis = self.axes.get(named[i]) if i < len(named) else None
            if axis is None:
                shown.append(index)
            elif axis.level == "group" and (pair is None or i != pair[0]):
                real = real and index < (self.packings[axis.places[0]].n_groups or 1)
                shown.append(index)
            elif axis.level == "row":
                packing = self.packings[axis.places[0]]
                where = index if pair is None else (place[pair[0]], index)
                real = real and bool(packing.mask[where])
                shown.append(int(packing.source[where]))
        return ", ".join(map(str, shown)) if real else f"padding {', '.join(map(str, place))}"

    def _size(self, name: str) -> int:
        packing = self.packings[self.axes[name].places[0]]
        return int(packing.mask.shape[0])

    @staticmethod
    def _named(info: SiteInfo) -> list[str]:
        return [plate[0] for plate in info.plates] + list(info.dims or [""] * len(info.shape))

    def _pair(self, named: list[str]) -> tuple[int, int] | None:
        """The axes of the groups and of their rows, where a site has both."""
        for j, name in enumerate(named):
            row = self.axes.get(name)
            if row is None or row.level != "row":
                continue
            for i in range(j):
                group = self.axes.get(named[i])
                if group is not None and group.level == "group" and row.places[0] in group.places:
                    return i, j
        return None

    def _refuse_strays(self, info: SiteInfo, named: list[str], pair: tuple[int, int] | None) -> None:
        """Rows have an order of their own only together with their groups."""
        for name in named:
            axis = self.axes.get(name)
            if pair is None and axis and axis.level == "row" and self.packings[axis.places[0]].n_groups is not None:
                raise ModelError(
                    f"site {info.name!r} has an axis {name!r} of the rows of a group, but none of the groups:"
                    f"\n{at(info.source)}\n  Write it inside of a plate over the table, or name both axes: "
                    'dims={"group": table, "row": ...}.'
                )

    def _site(self, info: SiteInfo) -> SiteInfo:
        named = self._named(info)
        if not any(name in self.axes for name in named):
            return info
        pair = self._pair(named)
        self._refuse_strays(info, named, pair)
        sizes = dict(enumerate(info.full_shape))
        for i, name in enumerate(named):
            axis = self.axes.get(name)
            if axis is not None:
                packing = self.packings[axis.places[0]]
                sizes[i] = packing.n_rows if axis.level == "row" else packing.n_groups or 1
        kept = [i for i in range(len(named)) if pair is None or i != pair[0]]
        depth = len(info.plates)
        plates = tuple((info.plates[i][0], sizes[i], info.plates[i][2]) for i in kept if i < depth)
        shape = tuple(sizes[i] for i in kept if i >= depth)
        dims = None if info.dims is None else tuple(named[i] for i in kept if i >= depth)
        return replace(info, plates=plates, shape=shape, dims=dims)


def _module(x: Any) -> Any:
    return jnp if isinstance(x, jax.Array) else np


def _take(x: Array, index: np.ndarray, axis: int) -> Array:
    # a JAX array would compile for every new number of rows, a traced one must not leave the program
    x = x if isinstance(x, jax.core.Tracer) else np.asarray(x)
    return _module(x).take(x, index, axis=axis)
