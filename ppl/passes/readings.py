"""What the terms of a log density read of the sites that are summed, and which elements can be summed apart.

Two axes of sites belong together where a term reads both at one of its own axes. Elements along such a class are
summed side by side; where some term may read any of them, they are variables of their own, enumerated jointly.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .alignment import Place, Reads

Node = tuple[int, int]  # a site and one of its axes


@dataclass(frozen=True)
class Reading:
    """What a term reads of a site.

    Attributes:
        site: The site's number.
        places: Where its axes show in the term; None for an axis of which any element may be read.
    """

    site: int
    places: tuple[Place | None, ...]

    @property
    def late(self) -> int | None:
        """The axis along which elements before are read."""
        return next((a for a, p in enumerate(self.places) if p is not None and p.offsets != {0}), None)

    @property
    def lags(self) -> tuple[int, ...]:
        """How many steps before, along that axis."""
        return (0,) if self.late is None else tuple(sorted(-o for o in self.places[self.late].offsets))  # type: ignore[union-attr]

    @property
    def period(self) -> int:
        """After how many steps codes may repeat, so that what is read at once differs."""
        return self.lags[-1] - self.lags[0] + 1


def readings(reads: Reads, shape: tuple[int, ...], shapes: Sequence[tuple[int, ...]]) -> tuple[Reading, ...]:
    """The readings of a term of a given shape, places kept where elements can be told apart."""
    found = []
    for site, places in sorted(reads.items()):
        kept: list[Place | None] = []
        for axis, place in enumerate(places):
            fits = place is not None and (place.by is not None or shape[place.axis] == shapes[site][axis])
            fits = fits and all(o <= 0 for o in place.offsets) and (place.by is None or place.offsets == {0})  # type: ignore[union-attr]
            kept.append(place if fits else None)
        direct = [p.axis for p in kept if p is not None]
        kept = [p if p is not None and direct.count(p.axis) == 1 else None for p in kept]
        late = [a for a, p in enumerate(kept) if p is not None and p.offsets != {0}]
        kept = [None if a in late[1:] else p for a, p in enumerate(kept)]
        found.append(Reading(site, tuple(kept)))
    return tuple(found)


class Classes:
    """Axes of sites that terms read together.

    Attributes:
        apart: Classes along which elements are variables of their own.
    """

    def __init__(self, terms: Sequence[tuple[Reading, ...]], shapes: Sequence[tuple[int, ...]]) -> None:
        """Join the axes that some term reads at one axis of its own."""
        self.shapes = shapes
        self._root: dict[Node, Node] = {(s, a): (s, a) for s, shape in enumerate(shapes) for a in range(len(shape))}
        for term in terms:
            at: dict[int, Node] = {}
            for reading in term:
                for axis, place in enumerate(reading.places):
                    if place is not None and place.by is None:
                        node = (reading.site, axis)
                        self._join(at.setdefault(place.axis, node), node)
        self.terms = terms
        self.apart: set[Node] = set()
        for term in terms:
            for reading in term:
                self.part({self.of(reading.site, a) for a, p in enumerate(reading.places) if p is None})

    def part(self, labels: set[Node]) -> None:
        """Make the elements along classes variables of their own, with those that they look up in data."""
        while labels - self.apart:
            self.apart |= labels
            labels = set()
            for term in self.terms:
                alone = {p.axis for r in term for a, p in enumerate(r.places)
                         if p is not None and p.by is None and self.of(r.site, a) in self.apart}  # fmt: skip
                labels |= {self.of(r.site, a) for r in term for a, p in enumerate(r.places)
                           if p is not None and p.by is not None and p.axis in alone}  # fmt: skip

    def of(self, site: int, axis: int) -> Node:
        """The class of an axis."""
        node = (site, axis)
        while self._root[node] != node:
            node = self._root[node]
        return node

    def _join(self, a: Node, b: Node) -> None:
        a, b = self.of(*a), self.of(*b)
        self._root[max(a, b)] = min(a, b)

    def size(self, label: Node) -> int:
        """Number of elements along a class."""
        return self.shapes[label[0]][label[1]]

    def split(self, site: int) -> tuple[list[int], list[int]]:
        """Axes of a site whose elements are variables of their own, and the others."""
        axes = range(len(self.shapes[site]))
        alone = [a for a in axes if self.of(site, a) in self.apart]
        return alone, [a for a in axes if a not in alone]

    def elements(self, site: int) -> Iterator[tuple[int, ...]]:
        """Elements of a site that are variables of their own."""
        alone = self.split(site)[0]
        return itertools.product(*(range(self.shapes[site][a]) for a in alone))


@dataclass(frozen=True)
class Dim:
    """One free code of an evaluation: of elements of a site, at every ``period``-th step.

    Attributes:
        site: The site's number.
        element: Place along the axes that are enumerated jointly.
        phase: Which of the steps.
    """

    site: int
    element: tuple[int, ...]
    phase: int


@dataclass(frozen=True)
class Pattern:
    """How the codes of the sites are varied in an evaluation of some terms.

    Attributes:
        parts: ``(site, axes enumerated jointly, axis along which codes alternate or None, period)``.
    """

    parts: tuple[tuple[int, tuple[int, ...], int | None, int], ...]

    @classmethod
    def of(cls, term: Sequence[Reading], classes: Classes) -> Pattern:
        """The pattern that tells apart everything that a term reads."""
        parts = []
        for r in term:
            apart = [classes.of(r.site, a) in classes.apart for a in range(len(r.places))]
            joint = tuple(a for a, p in enumerate(r.places) if p is None or (p.by and apart[a]))
            parts.append((r.site, joint, r.late if r.period > 1 else None, r.period))
        return cls(tuple(parts))

    def dims(self, shapes: Sequence[tuple[int, ...]]) -> list[Dim]:
        """The free codes."""
        found = []
        for site, joint, _, period in self.parts:
            for element in itertools.product(*(range(shapes[site][a]) for a in joint)):
                found += [Dim(site, element, phase) for phase in range(period)]
        return found

    def which(self, part: Any, shapes: Sequence[tuple[int, ...]], dims: Sequence[Dim]) -> Any:
        """For every element of a site the number of its free code."""
        import numpy as np

        site, joint, late, period = part
        shape = shapes[site]
        first = next(i for i, dim in enumerate(dims) if dim.site == site)
        number = np.zeros(shape, np.int32)
        for axis in joint:
            number = number * shape[axis] + np.arange(shape[axis]).reshape(-1, *(1,) * (len(shape) - axis - 1))
        number = number * period
        if late is not None:
            number = number + np.arange(shape[late]).reshape(-1, *(1,) * (len(shape) - late - 1)) % period
        return (first + number).astype(np.int32)
