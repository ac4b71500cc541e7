"""What a model is called with: arrays and floats are data, everything else decides the program.

Data enter the compiled program as arguments, so that new data of the same shapes never compile again. Ints, bools,
strings, None and callables are part of the program's identity, as are the globals and closure variables that the
model's function reads.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import types
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from .errors import ModelError, at, user_line


def _numbers(x: Any) -> bool:
    """Whether ``x`` is a (nested) list of plain numbers, which users mean as an array."""
    return isinstance(x, list) and bool(x) and all(isinstance(v, (int, float, np.number)) or _numbers(v) for v in x)


def _table(x: Any) -> bool:
    """Array-likes that are no pytrees: pandas and polars columns, xarray, masked arrays."""
    return hasattr(x, "__array__") and not isinstance(x, (np.ndarray, np.generic, jax.Array, jax.core.Tracer))


def as_array(x: Any, what: str) -> Any:
    """Bring data to a numeric array, or say why it cannot be one."""
    if isinstance(x, (jax.Array, jax.core.Tracer)):
        return x
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise ModelError(f"{what} has masked entries; leave them out or fill them first:\n{at(user_line())}")
    x = np.asarray(x)
    if x.dtype == object:
        try:
            x = x.astype(float)
        except (TypeError, ValueError):
            pass
    if x.dtype.kind not in "biuf":
        example = f", such as {x.ravel()[0]!r}" if x.size else ""
        raise ModelError(
            f"{what} holds {x.dtype} values{example}; a model computes with numbers:\n{at(user_line())}\n"
            "  Turn labels into codes with   codes, labels = ppl.index(values)."
        )
    return x


@dataclass(frozen=True)
class Arguments:
    """The call's data and the rest.

    Attributes:
        data: Arrays, in the order of the flattened call.
        treedef: Structure of the call.
        where: For each leaf, its place in ``data`` or ``-1``.
        static: The other leaves, in order.
    """

    data: tuple[Any, ...]
    treedef: Any
    where: tuple[int, ...]
    static: tuple[Any, ...]

    def rebuild(self, data: tuple[Any, ...] | list[Any]) -> tuple[tuple, dict]:
        """The call's ``(args, kwargs)`` with other arrays in place of the data."""
        static = iter(self.static)
        leaves = [data[i] if i >= 0 else next(static) for i in self.where]
        return jax.tree_util.tree_unflatten(self.treedef, leaves)

    def key(self) -> Hashable:
        """Identity of everything but the data's values."""
        marks = tuple(_value_key(s) for s in self.static)
        return (self.treedef, self.where, marks)


def split_arguments(args: tuple, kwargs: dict, name: str) -> Arguments:
    """Divide a model's call into data and static parts."""
    leaves, treedef = jax.tree_util.tree_flatten((args, kwargs), is_leaf=lambda x: _numbers(x) or _table(x))
    data: list[Any] = []
    where: list[int] = []
    static: list[Any] = []
    for leaf in leaves:
        if isinstance(leaf, (bool, int, str, np.bool_, np.integer, type(None))) or not _is_data(leaf):
            where.append(-1)
            static.append(leaf.item() if isinstance(leaf, (np.bool_, np.integer)) else leaf)
        else:
            where.append(len(data))
            data.append(as_array(leaf, f"an argument of model {name!r}"))
    return Arguments(tuple(data), treedef, tuple(where), tuple(static))


def _is_data(leaf: Any) -> bool:
    arrays = (float, np.ndarray, np.generic, jax.Array, jax.core.Tracer)
    return isinstance(leaf, arrays) or _numbers(leaf) or _table(leaf)


def shape_key(arrays: tuple[Any, ...]) -> Hashable:
    """Shapes and dtypes, as JAX will see them."""
    return tuple((tuple(np.shape(x)), str(jax.dtypes.canonicalize_dtype(np.result_type(x)))) for x in arrays)


class _Identity:
    """Equal only to a wrapper of the same object, which it keeps alive."""

    __slots__ = ("thing",)

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.thing is other.thing

    def __hash__(self) -> int:
        return id(self.thing)


class Unstable(Exception):
    """A function reads an object whose content may change unnoticed."""


def _value_key(x: Any) -> Hashable:
    try:
        hash(x)
    except TypeError:
        return _Identity(x)
    return (type(x), x)


def fingerprint(function: Callable) -> Hashable:
    """Identity of a function together with the globals and closure variables that it reads.

    Raises:
        Unstable: It reads a mutable object, so that no key is safe.
    """
    return _fingerprint(function, {})


def _fingerprint(function: Any, seen: dict[int, Any]) -> Hashable:
    if id(function) in seen:
        return "seen"
    seen[id(function)] = function
    code = getattr(function, "__code__", None)
    if code is None:
        return _Identity(function)
    reads = [_Identity(function)]
    cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
    names = sorted(_global_names(code))
    found = [function.__globals__[n] for n in names if n in function.__globals__]
    defaults = list(function.__defaults__ or ()) + list((function.__kwdefaults__ or {}).values())
    return (*reads, *(_read_key(v, seen) for v in [*cells, *found, *defaults]))


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _global_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names |= _global_names(const)
    return names


def _library(function: Any) -> bool:
    module = sys.modules.get(getattr(function, "__module__", "") or "")
    path = getattr(module, "__file__", "") or ""
    return "site-packages" in path or path.startswith(sys.base_prefix) or (__package__ or "ppl") in str(
        getattr(function, "__module__", "")
    ).split(".")[:1]


def _read_key(x: Any, seen: dict[int, Any]) -> Hashable:
    if x is None or isinstance(x, (bool, int, float, complex, str, bytes, np.generic)):
        return (type(x), x if x == x else "nan")
    if isinstance(x, np.ndarray):
        return (x.dtype.str, x.shape, hashlib.blake2b(np.ascontiguousarray(x).tobytes(), digest_size=16).digest())
    if isinstance(x, (types.ModuleType, type, types.BuiltinFunctionType, np.ufunc, jax.Array)):
        return _Identity(x)
    if isinstance(x, (tuple, list)):
        return (type(x), *(_read_key(v, seen) for v in x))
    if isinstance(x, dict) and all(isinstance(k, str) for k in x):
        return (dict, *((k, _read_key(v, seen)) for k, v in x.items()))
    if isinstance(x, types.FunctionType):
        return _Identity(x) if _library(x) else _fingerprint(x, seen)
    function = getattr(x, "function", None)
    if isinstance(function, types.FunctionType):  # another model
        return (_Identity(x), _fingerprint(function, seen))
    if callable(x) and isinstance(getattr(x, "__wrapped__", None), types.FunctionType):
        return (_Identity(x), _fingerprint(x.__wrapped__, seen))
    raise Unstable(f"{type(x).__name__} object")


def argument_names(function: Callable, args: tuple, kwargs: dict) -> dict[str, Any]:
    """The call's arguments by parameter name, defaults included."""
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        raise ModelError(f"model {function.__name__!r}: {error}\n{at(user_line())}") from None
    bound.apply_defaults()
    return dict(bound.arguments)


def index(values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Integer codes of labels, and the sorted labels themselves.

    Args:
        values: Labels (strings, numbers), one per row.

    Returns:
        ``(codes, labels)`` with ``labels[codes] == values``.

    Example:
        >>> codes, labels = index(["b", "a", "b"])
        >>> codes.tolist(), labels.tolist()
        ([1, 0, 1], ['a', 'b'])
    """
    labels, codes = np.unique(np.asarray(values), return_inverse=True)
    return codes.astype(np.int32).reshape(np.shape(values)), labels


def abstract(x: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of an array as JAX will see it."""
    return jax.ShapeDtypeStruct(np.shape(x), jax.dtypes.canonicalize_dtype(np.result_type(x)))
