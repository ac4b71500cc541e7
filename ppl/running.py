"""Runs of a program at given values: its factors, and its simulation.

Both are jitted functions of the data and the values, cached by the program's identity and the names that are given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from . import missing
from .errors import MissingSite, ModelError, suggest
from .sites import in_order

Array = Any


def values_given(program: Any, values: Mapping[str, Any], need_all: bool) -> dict[str, Any]:
    """Values of sites with what the program fixes, checked by name and shape."""
    from .check import check_shape

    learned = program.learned()
    unknown = [name for name in values if name not in learned or learned[name].kind == "factor"]
    if unknown:
        raise MissingSite(f"{unknown[0]!r} is not a site of the model.{suggest(unknown[0], learned)}")
    tidy = program.tidy
    values = {
        name: tidy.pack(name, check_shape(tidy.sites[name], value))
        for name, value in values.items()
        if learned[name].kind == "sample"
    }
    found = missing.among(program.fixed, values)
    absent = [n for n in learned if program.role(n) in ("latent", "observed") and n not in found]
    absent = [n for n in absent if learned[n].role is None and n not in missing.needless(program.fixed, values)]
    if need_all and absent:
        raise ModelError(f"a value is needed for each site; missing: {', '.join(absent)}")
    return found


def factors(program: Any, values: Mapping[str, Any]) -> dict[str, Array]:
    """Log factors of all sites at given values."""

    def build() -> Callable:
        def run(data: list[Any], given: dict[str, Any]) -> dict[str, Array]:
            settings = {"given": given, "known": program.learned(), "keep": ("factor",), "mask_all": True}
            return program.play(data, **settings)[1].out.get("factor", {})

        return run

    given = values_given(program, values, True)
    traced = program._compiled(f"factors {sorted(given)}", build)
    found = traced(list(program.arguments.data), given)
    return in_order(program.learned(), program.tidy.unpacked(found))


def simulate(program: Any, key: Array, values: Mapping[str, Any]) -> dict[str, Array]:
    """Values of all sites and records, some sites clamped; traceable."""
    given = missing.among(program.fixed, {name: program.tidy.pack(name, value) for name, value in values.items()})
    settings = {"given": given, "known": program.learned(), "key": key, "keep": ("value",)}
    found = program.play(program.arguments.data, **settings)[1].out.get("value", {})
    return in_order(program.learned(), program.tidy.unpacked(found))


def simulation(program: Any, what: str, values: Mapping[str, Any], seed: Any) -> Any:
    """A compiled simulation: the model's own ``"result"``, or the ``"values"`` of all sites and records."""

    def build() -> Callable:
        def run(key: Array, data: list[Any], given: dict[str, Any]) -> Any:
            settings = {"given": given, "known": program.learned(), "key": key, "keep": ("value",)}
            result, frame = program.play(data, **settings)
            return result if what == "result" else frame.out.get("value", {})

        return run

    given = values_given(program, values, False)
    traced = program._compiled(f"{what} {sorted(given)}", build)
    key = jax.random.key(seed) if isinstance(seed, (int, np.integer)) else seed
    found = traced(key, list(program.arguments.data), given)
    return found if what == "result" else program.tidy.unpacked(found)
