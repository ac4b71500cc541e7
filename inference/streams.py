"""Simulations that do not fit into memory, in pieces of some draws and some elements of a plate.

The pieces have the random numbers that they have in the whole: the keys are those of the draw and of the places in
plates. Of a plate whose result nothing else reads only the elements of the piece are run. Of other sites, such as
chains, all is run for some draws, and a part of it kept, as often as there are parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .chunks import nbytes
from .groups import Arrays
from .simulate import Part, Simulation

MEMORY = 2**30
"""Bytes that a prediction to a store, or one that is reduced, may take by default."""

TEMPORARIES = 10
"""Arrays as large as a piece's sites that are alive while it is computed (measured on a CPU: keys, bits, normals)."""

CHUNK = 2**25
"""Bytes of a chunk of a store at most."""


@dataclass(frozen=True)
class Piece:
    """Sites that are computed together, and the pieces in which they are.

    Attributes:
        simulation: The simulation of these sites.
        part: What of it is run or kept.
        shapes: Shape and dtype of every site, for one draw.
        length: Elements of the first axis, zero where there is none.
        width: Elements in a piece.
        draws: Draws in a piece.
    """

    simulation: Simulation
    part: Part
    shapes: dict[str, Any]
    length: int
    width: int = 0
    draws: int = 1

    @property
    def element(self) -> int:
        """Bytes of one element of the first axis, for one draw."""
        return nbytes(self.shapes) // max(self.length, 1)

    @property
    def work(self) -> int:
        """Bytes that one element of a draw takes while it is computed, or one draw where all elements are run."""
        plate = self.part.plate
        if plate is None:
            return self.simulation.work * TEMPORARIES
        inside = [s for s in self.simulation.program.sites.values() if s.plates[:1] == (plate,)]
        return sum(8 * math.prod(s.shape[1:]) for s in inside) * TEMPORARIES

    @property
    def common(self) -> int:
        """Bytes of a draw that every piece needs: its clamped values, and the sites outside of the plate."""
        given = sum(x.dtype.itemsize * math.prod(x.shape[1:]) for x in self.simulation.given.values())
        sites = self.simulation.program.sites.values()
        outside = sum(8 * math.prod(s.shape) for s in sites if s.plates[:1] != (self.part.plate,))
        return given + (outside if self.part.plate is not None else 0)

    def sized(self, width: int, draws: int) -> Piece:
        """The same in pieces of another size."""
        width = max(1, min(width, self.length))
        part = replace(self.part, size=width if self.length else 0)
        return replace(self, part=part, width=width, draws=max(1, min(draws, len(self.simulation.rows))))

    def within(self, memory: int, width: int) -> Piece:
        """The same in pieces of at most ``width`` elements, and of as many draws as ``memory`` allows.

        Raises:
            MemoryError: If not even one draw fits.
        """
        room = memory - self.common
        if self.part.plate is not None:
            width = max(1, min(width, self.length, room // (self.work + self.element)))
        one = self.common + (self.work + self.element) * (width if self.part.plate is not None else 1)
        if one > memory and one > 2**20:
            names = ", ".join(self.simulation.names)
            raise MemoryError(
                f"one simulation of {names} takes about {one / 2**20:.0f} MiB, more than memory= leaves for it; give "
                f"memory={8 * one} bytes or more"
            )
        return self.sized(width, memory // one)

    @cached_property
    def _function(self) -> Any:
        return self.simulation.function(self.part, quick=self.simulation.short)

    def starts(self) -> list[int]:
        """Where the windows begin; the last may repeat elements of the one before."""
        last = max(self.length - self.width, 0)
        return [min(start, last) for start in range(0, max(self.length, 1), self.width)]

    def run(self, start: int, first: int, stop: int) -> Arrays:
        """Values of the draws ``first`` to ``stop`` (at most ``draws``) in the window that begins at ``start``."""
        index = np.minimum(np.arange(first, first + self.draws), stop - 1)
        given = {name: x[index] for name, x in self.simulation.given.items()}
        values = self._function(start, {"row": self.simulation.rows[index], "given": given})
        found = {name: np.asarray(values[name])[: stop - first] for name in self.simulation.names}
        found = self.simulation.program.tidy.unpacked(found, lead=1)
        if self.part.plate is None and self.part.site is None and self.length:
            found = {name: x[:, start : start + self.width] for name, x in found.items()}
        return found

    def blocks(self, start: int, first: int, stop: int) -> Iterator[tuple[int, int, Arrays]]:
        """The window that begins at ``start`` for the draws from ``first`` to ``stop``, piece by piece."""
        for at in range(first, stop, self.draws):
            end = min(at + self.draws, stop)
            yield at, end, self.run(start, at, end)


def pieces(simulation: Simulation) -> list[Piece]:
    """The sites of a simulation, those together of which a part can be run together."""
    sites, tidy = simulation.program.sites, simulation.program.tidy
    infos = simulation.program.learned()
    groups: dict[tuple[str, str], list[str]] = {}
    for name in simulation.names:
        outer = infos[name].plates[0] if infos[name].plates else ("", 0, "")
        plate = outer[2] == "plate" and outer[0] not in simulation.cuts and outer[0] not in tidy.axes
        kind, value = ("plate", outer[0]) if plate else ("site", name) if sites[name].shape else ("scalars", "")
        groups.setdefault((kind, value), []).append(name)
    found: list[Piece] = []
    for (kind, value), names in groups.items():
        part = Part(plate=value, size=1) if kind == "plate" else Part()
        chosen = replace(simulation, names=tuple(names))
        if kind == "plate" and not _separable(chosen, part):
            found += [_alone(simulation, name) for name in names]
        elif kind == "plate":
            found.append(Piece(chosen, part, _shapes(chosen), sites[names[0]].shape[0]))
        else:
            found += [_alone(simulation, names[0])] if kind == "site" else [Piece(chosen, part, _shapes(chosen), 0)]
    return found


def _alone(simulation: Simulation, name: str) -> Piece:
    """A site of which all is run and a part kept."""
    chosen = replace(simulation, names=(name,))
    shapes = _shapes(chosen)
    ragged = bool(simulation.program.tidy.axes)
    return Piece(chosen, Part() if ragged else Part(site=name), shapes, shapes[name].shape[0])


def _shapes(simulation: Simulation) -> dict[str, Any]:
    tidy = simulation.program.tidy
    return {name: tidy.unpacked_shape(name, shape) for name, shape in simulation.shapes().items()}


def _separable(simulation: Simulation, part: Part) -> bool:
    """Whether the program runs when only a part of a plate is there for the rest of it to read."""
    try:
        simulation.shapes(part)
    except Exception:  # whatever the user's code says of a plate's result that is not there
        return False
    return True

