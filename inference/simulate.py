"""Simulate a program once per posterior draw, some sites clamped, in compiled pieces.

The random numbers are keyed by the draw's number, the site's name and the places in plates and chains, so a piece
(some draws, some elements of a plate) has the numbers that it has in the whole.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np

from ppl.values import MASK

from .chunks import in_chunks
from .compiling import jit_quick
from .groups import Arrays

_compiled: OrderedDict[Hashable, Any] = OrderedDict()
_KEPT = 32
_LONG = 2**30  # bytes of sites beyond which a simulation is compiled to run fast rather than fast to compile


def kept(identity: Hashable, build: Callable[[], Any]) -> Any:
    """What was compiled, kept for programs that differ by their data only."""
    if identity not in _compiled:
        _compiled[identity] = build()
        while len(_compiled) > _KEPT:
            _compiled.popitem(last=False)
    _compiled.move_to_end(identity)
    return _compiled[identity]


@dataclass(frozen=True)
class Part:
    """Which part of the results a simulation returns.

    Attributes:
        plate: Run only a window of this plate's elements, if one is named.
        site: Return only a window of this site's first axis, if one is named (all of it is run).
        size: Elements in the window.
    """

    plate: str | None = None
    site: str | None = None
    size: int = 0


@dataclass(frozen=True)
class Simulation:
    """A program to be simulated once per row.

    Attributes:
        program: An unconditioned program.
        given: Clamped sites that differ from row to row, shape (rows, ...), as ``Clamped.packed`` leaves them.
        fixed: Clamped sites that do not; under name + MASK also which elements of a site are clamped.
        names: Sites to return.
        rows: Number of every row; its random numbers are keyed by it.
        seed: Determines all of them.
        cuts: Steps to leave out at the beginning of a dim.
    """

    program: Any
    given: Arrays
    fixed: Mapping[str, Any]
    names: tuple[str, ...]
    rows: np.ndarray
    seed: int
    cuts: Mapping[str, int] = field(default_factory=dict)

    def run(self) -> Arrays:
        """All sites of all rows, in memory."""
        function = self.function(quick=self.short)
        inputs = {"row": self.rows, "given": self.given}
        values = in_chunks(lambda inputs: function(0, inputs), inputs, self.work)
        return self.program.tidy.unpacked({name: values[name] for name in self.names}, lead=1)

    @property
    def work(self) -> int:
        """Bytes of one row's sites."""
        return sum(int(np.prod(site.shape)) * 8 for site in self.program.sites.values())

    @property
    def short(self) -> bool:
        """Whether all of it runs for less time than an optimised compilation saves."""
        return len(self.rows) * self.work < _LONG

    @cached_property
    def _arguments(self) -> tuple:
        """The arguments that do not differ from piece to piece, on the device."""
        arrays = (np.uint32(self.seed), list(self.program.arguments.data), dict(self.fixed))
        return jax.tree.map(jax.numpy.asarray, arrays)

    def function(self, part: Part | None = None, quick: bool = False) -> Callable[[Any, Any], dict[str, Any]]:
        """The simulation, from the start of a window and rows to values; compiled, in a hurry if it is short."""
        part = part or Part()
        cuts = tuple(sorted(self.cuts.items()))
        identity = (
            *(self.program.key(), tuple(self.program.roles.items())),
            *(tuple(self.given), tuple(self.fixed), self.names, cuts, part, quick),
        )
        build = partial(_build, self.program, self.names, dict(cuts), part, jit_quick if quick else jax.jit)
        return partial(kept(identity, build), *self._arguments)

    def shapes(self, part: Part | None = None) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of one row's values.

        Raises:
            Exception: Whatever the program raises when only a window of a plate is run.
        """
        rows = jax.ShapeDtypeStruct((1,), np.uint32)
        given = {
            name: jax.ShapeDtypeStruct((1, *x.shape[1:]), jax.dtypes.canonicalize_dtype(x.dtype))
            for name, x in self.given.items()
        }
        found = jax.eval_shape(self.function(part), 0, {"row": rows, "given": given})
        return {name: jax.ShapeDtypeStruct(found[name].shape[1:], found[name].dtype) for name in self.names}


def _build(program: Any, names: tuple[str, ...], cuts: dict[str, int], part: Part, jit: Any) -> Any:
    known = program.learned()
    dims = {name: [plate[0] for plate in known[name].plates] + list(known[name].dims or ()) for name in names}

    def one(seed: Any, data: Any, fixed: Any, start: Any, inputs: Any) -> dict[str, Any]:
        key = jax.random.fold_in(jax.random.key(seed), inputs["row"])
        settings = {"given": {**inputs["given"], **fixed}, "known": known, "key": key, "keep": ("value",)}
        if part.plate is not None:
            settings["windows"] = {part.plate: (start, part.size)}
        values = program.play(data, **settings)[1].out.get("value", {})
        found = {}
        for name in names:
            value = values[name]
            for axis, dim in enumerate(dims[name]):
                if dim in cuts:
                    value = jax.lax.slice_in_dim(value, cuts[dim], None, axis=axis)
            found[name] = jax.lax.dynamic_slice_in_dim(value, start, part.size) if name == part.site else value
        return found

    return jit(jax.vmap(one, in_axes=(None, None, None, None, 0)))


@dataclass(frozen=True)
class Clamped:
    """Values of sites that a simulation takes instead of drawing them, in the user's shapes.

    Attributes:
        rows: Sites that differ from row to row, shape (rows, ...).
        values: Sites that do not.
        masks: Of sites that are clamped in part, which elements are.
    """

    rows: Arrays = field(default_factory=dict)
    values: Arrays = field(default_factory=dict)
    masks: Arrays = field(default_factory=dict)

    def __or__(self, other: Clamped) -> Clamped:
        known = {*other.rows, *other.values}
        mine = ({n: x for n, x in part.items() if n not in known} for part in (self.rows, self.values, self.masks))
        rows, values, masks = mine
        return Clamped({**rows, **other.rows}, {**values, **other.values}, {**masks, **other.masks})

    def packed(self, program: Any) -> tuple[Arrays, dict[str, Any]]:
        """What ``Simulation`` calls ``given`` and ``fixed``: of ragged plates, in the program's own shapes."""
        tidy = program.tidy
        marks: dict[str, Any] = {}
        for name, mask in self.masks.items():
            marks |= tidy.packed_marks(name, {name + MASK: mask})
        given = {name: tidy.pack(name, value, lead=1) for name, value in self.rows.items()}
        return given, {**{name: tidy.pack(name, value) for name, value in self.values.items()}, **marks}
