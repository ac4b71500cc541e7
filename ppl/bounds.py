"""Codes that point outside of what they index: found on the host, where JAX would take the last element instead.

An index of a model that is computed from data alone is computed here once more, with NumPy: the few operations by which
data become indices are followed back from every ``gather`` of the traced model. What cannot be followed is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from . import _jax
from .errors import ModelError, at, user_line


class _Unknown(Exception):
    """A value that does not follow from data by the operations below."""


@dataclass(frozen=True)
class Lookup:
    """One look-up by an index that may follow from data.

    Attributes:
        index: The index variable, or the variables of its components.
        limits: Greatest admissible value of every component.
        sizes: Sizes of the axes that are indexed.
    """

    index: tuple[Any, ...]
    limits: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Lookups:
    """All look-ups of a traced model.

    Attributes:
        found: The look-ups.
        made_by: The equation that makes each variable.
        inputs: The constants, then the data.
        consts: Values of the constants.
    """

    found: tuple[Lookup, ...]
    made_by: dict[Any, Any]
    inputs: tuple[Any, ...]
    consts: tuple[Any, ...]


NONE = Lookups((), {}, (), ())


def lookups(code: Any) -> Lookups:
    """The look-ups of a traced program of data."""
    if not isinstance(code, _jax.Code):
        return NONE
    found = []
    for eqn in code.jaxpr.eqns:
        if eqn.primitive.name == "gather" and "FILL" not in str(eqn.params["mode"]):
            axes = eqn.params["dimension_numbers"].start_index_map
            shape, sizes = eqn.invars[0].aval.shape, eqn.params["slice_sizes"]
            limits = tuple(shape[a] - sizes[a] for a in axes)
            found.append(Lookup((eqn.invars[1],), limits, tuple(shape[a] for a in axes)))
        elif eqn.primitive.name == "dynamic_slice":
            shape, sizes = eqn.invars[0].aval.shape, eqn.params["slice_sizes"]
            limits = tuple(n - k for n, k in zip(shape, sizes, strict=True))
            found.append(Lookup(tuple(eqn.invars[1:]), limits, shape))
    if not found:
        return NONE
    made_by = {out: eqn for eqn in code.jaxpr.eqns for out in eqn.outvars}
    return Lookups(tuple(found), made_by, tuple(code.jaxpr.invars), code.consts)


def check(found: Lookups, data: Any, named: Callable[[int], str]) -> None:
    """Compute every index and compare it with the size of what it indexes.

    Args:
        found: Of the model.
        data: Its arrays.
        named: The place of an array in the call, in words.

    Raises:
        ModelError: Naming the argument, the element and its value.
    """
    if not found.found or any(isinstance(x, jax.core.Tracer) for x in data):
        return
    values = dict(zip(found.inputs, (*found.consts, *data), strict=True))
    memory: dict[Any, np.ndarray] = {}
    for lookup in found.found:
        try:
            parts = [_value(var, found.made_by, values, memory) for var in lookup.index]
        except _Unknown:
            continue
        index = parts[0] if len(parts) == 1 and parts[0].ndim else np.stack(parts, axis=-1)
        for axis, limit in enumerate(lookup.limits):
            wrong = (index[..., axis] < 0) | (index[..., axis] > limit)
            if wrong.any():
                _refuse(lookup, found, data, index[..., axis], wrong, lookup.sizes[axis], named)


def _refuse(
    lookup: Lookup, found: Lookups, data: Any, index: np.ndarray, wrong: np.ndarray, size: int, named: Callable
) -> None:
    place = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    value = int(index[place])
    value = value - size if value < 0 else value  # as it was before it was counted from the end
    first = len(found.consts)
    sources = {i - first for var in lookup.index for i in _sources(var, found) if i >= first}
    what = next((named(i) for i in sorted(sources) if np.asarray(data[i]).dtype.kind in "iu"), "an argument")
    where = f" at [{', '.join(str(int(i)) for i in place)}]" if place else ""
    raise ModelError(
        f"{what} gives the index {value}{where} ({int(wrong.sum())} of {wrong.size} do not fit), but what it indexes "
        f"has {size} elements, 0 to {size - 1}:\n{at(user_line())}\n"
        "  JAX would take the nearest element without a word. Codes that count from one: subtract one. Labels: "
        "codes, labels = ppl.index(values)."
    )


def _sources(var: Any, found: Lookups, seen: set | None = None) -> set[int]:
    """The inputs from which a variable is computed."""
    seen = set() if seen is None else seen
    if _jax.is_literal(var) or var in seen:
        return set()
    seen.add(var)
    if var in found.inputs:
        return {found.inputs.index(var)}
    eqn = found.made_by.get(var)
    return set().union(*(_sources(v, found, seen) for v in eqn.invars)) if eqn is not None else set()


def _value(var: Any, made_by: dict[Any, Any], values: dict[Any, Any], memory: dict[Any, np.ndarray]) -> np.ndarray:
    if _jax.is_literal(var):
        return np.asarray(var.val)
    if var not in memory:
        if var in values:
            memory[var] = np.asarray(values[var]).astype(var.aval.dtype)
        else:
            eqn = made_by.get(var)
            rule = None if eqn is None else _RULES.get(eqn.primitive.name)
            if eqn is None or rule is None or len(eqn.outvars) != 1:
                raise _Unknown
            inputs = [_value(v, made_by, values, memory) for v in eqn.invars]
            memory[var] = np.asarray(rule(eqn.params, *inputs)).astype(var.aval.dtype)
    return memory[var]


def _broadcast(params: dict[str, Any], x: np.ndarray) -> np.ndarray:
    shape, axes = params["shape"], params["broadcast_dimensions"]
    spread = [1] * len(shape)
    for axis, size in zip(axes, x.shape, strict=True):
        spread[axis] = size
    return np.broadcast_to(x.reshape(spread), shape)


def _select(params: dict[str, Any], which: np.ndarray, *options: np.ndarray) -> np.ndarray:
    return np.choose(which.astype(int), options) if which.ndim == 0 else np.where(which, options[1], options[0])


def _slice(params: dict[str, Any], x: np.ndarray) -> np.ndarray:
    steps = params["strides"] or (1,) * x.ndim
    limits = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
    return x[tuple(slice(a, b, s) for a, b, s in limits)]


_RULES: dict[str, Callable[..., Any]] = {
    "lt": lambda p, a, b: a < b,
    "le": lambda p, a, b: a <= b,
    "gt": lambda p, a, b: a > b,
    "ge": lambda p, a, b: a >= b,
    "eq": lambda p, a, b: a == b,
    "ne": lambda p, a, b: a != b,
    "add": lambda p, a, b: a + b,
    "sub": lambda p, a, b: a - b,
    "mul": lambda p, a, b: a * b,
    "max": lambda p, a, b: np.maximum(a, b),
    "min": lambda p, a, b: np.minimum(a, b),
    "and": lambda p, a, b: a & b,
    "or": lambda p, a, b: a | b,
    "not": lambda p, a: ~a,
    "neg": lambda p, a: -a,
    "clamp": lambda p, low, a, high: np.clip(a, low, high),
    "select_n": _select,
    "broadcast_in_dim": _broadcast,
    "convert_element_type": lambda p, a: a,
    "stop_gradient": lambda p, a: a,
    "copy": lambda p, a: a,
    "reshape": lambda p, a: a.reshape(p["new_sizes"]),
    "squeeze": lambda p, a: np.squeeze(a, axis=tuple(p["dimensions"])),
    "transpose": lambda p, a: np.transpose(a, p["permutation"]),
    "concatenate": lambda p, *a: np.concatenate(a, axis=p["dimension"]),
    "slice": _slice,
}
