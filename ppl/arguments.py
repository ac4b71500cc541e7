"""What a model is called with: arrays and floats are data, everything else decides the program.

Data enter the compiled program as arguments, so that new data of the same shapes never compile again. Ints, bools,
strings, None and callables are part of the program's identity, as are the globals and closure variables that the
model's function reads.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from . import frames
from .coding import index
from .columns import Allowed, as_columns
from .errors import ModelError, at, user_line
from .ragged import placed

__all__ = ["Arguments", "Unstable", "abstract", "as_array", "bound", "fingerprint", "index"]


def _numbers(x: Any) -> bool:
    """Whether ``x`` is a (nested) list of plain numbers (None: no value), which users mean as an array."""
    return isinstance(x, list) and any(v is not None for v in x) and all(v is None or _number(v) for v in x)


def _number(x: Any) -> bool:
    return isinstance(x, (int, float, np.number)) or _numbers(x)


def _table(x: Any) -> bool:
    """Array-likes that are no pytrees: pandas and polars columns, xarray, masked arrays."""
    return hasattr(x, "__array__") and not isinstance(x, (np.ndarray, np.generic, jax.Array, jax.core.Tracer))


def as_array(x: Any, what: str) -> Any:
    """Bring data to a numeric array, or say why it cannot be one."""
    if isinstance(x, (jax.Array, jax.core.Tracer)):
        return x
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise ModelError(f"{what} has masked entries; leave them out or fill them first:\n{at(user_line())}")
    if frames.is_table(x):
        return _of_table(x, what)
    try:
        x = np.asarray(x)
    except ValueError:
        raise ModelError(f"{what} is a list of rows of different lengths, not an array:\n{at(user_line())}") from None
    if x.dtype == object:
        try:
            found = frames.of_array(x.ravel(), what)
        except OverflowError:
            raise ModelError(f"{what} holds numbers beyond the range of floats:\n{at(user_line())}") from None
        x = found.values.reshape(x.shape) if found.kind == "number" else x
    if x.dtype.kind not in "biuf":
        example = f", such as {x.ravel()[0]!r}" if x.size else ""
        raise ModelError(
            f"{what} holds {x.dtype} values{example}; a model computes with numbers:\n{at(user_line())}\n"
            "  Turn labels into codes with   codes, labels = ppl.index(values); labels that a model only needs by name "
            "(coords=) are passed as a tuple."
        )
    return frames.narrow(x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("=")), what)


def _of_table(x: Any, what: str) -> np.ndarray:
    """A column, or all columns of a frame side by side."""
    if frames.is_frame(x):
        found = {f"column {name!r} of {what}": c for name, c in frames.read(x, what).items()}
    else:
        found = {what: frames.column(x, what)}
    for called, c in found.items():
        if reason := frames.complaint(c, called):
            raise ModelError(f"{reason}\n{at(user_line())}")
    arrays = [frames.narrow(c.values, called) for called, c in found.items()]
    return np.stack(arrays, axis=1) if frames.is_frame(x) else arrays[0]


def prepared(function: Callable, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """The call with frames as named columns and columns as arrays, every NaN found that was not asked for."""
    names = list(inspect.signature(function).parameters)

    def leaf(path: Any, x: Any) -> Any:
        allowed = isinstance(x, Allowed)
        x = x.value if allowed else x
        if hasattr(x, "__next__"):
            raise ModelError(
                f"{_called(path, names, function)} is an iterator, which can be read once only: pass a list or an "
                f"array:\n{at(user_line())}"
            )
        tables = (frames.is_table(x), isinstance(x, np.ma.MaskedArray))
        if not (any(tables) or isinstance(x, (np.ndarray, jax.Array, float)) or _numbers(x) or _table(x)):
            return x
        what = _called(path, names, function)
        if frames.is_frame(x):
            return as_columns(x, what, allowed)
        if tables[0] and not allowed and (reason := frames.gap(column := frames.column(x, what), what)):
            if not frames.complaint(column, what):
                raise ModelError(f"{reason}\n{at(user_line())}")
        if isinstance(x, float):
            _refuse_nan(np.asarray(x), what, allowed)
            return x
        array = as_array(x, what)
        if not isinstance(array, jax.core.Tracer):
            _refuse_nan(array, what, allowed)
        return array

    def stop(x: Any) -> bool:
        return isinstance(x, Allowed) or _numbers(x) or _table(x) or frames.is_table(x) or hasattr(x, "__next__")

    return jax.tree_util.tree_map_with_path(leaf, (args, kwargs), is_leaf=stop)


def _called(path: Any, names: list[str], function: Callable) -> str:
    """An argument in words: ``argument 'x' of model 'f'``, with the way into a pytree."""
    first = path[1].key if path[0].idx else path[1].idx
    shown = names[min(first, len(names) - 1)] if isinstance(first, int) and names else first
    inner = jax.tree_util.keystr(path[2:])
    return f"argument {shown!r}{inner} of model {getattr(function, '__name__', 'model')!r}"


def _refuse_nan(x: Any, what: str, allowed: bool) -> None:
    if allowed or not jax.numpy.issubdtype(x.dtype, np.floating) or not x.size:
        return
    elsewhere = isinstance(x, jax.Array) and any(device.platform != "cpu" for device in x.devices())
    if elsewhere and not bool(jax.numpy.isnan(x).any()):  # large data stay where they are
        return
    bad = np.isnan(np.asarray(x))  # on a CPU without a copy
    if not bad.any():
        return
    place = np.unravel_index(int(np.argmax(bad)), bad.shape)
    where = f" at [{', '.join(str(int(i)) for i in place)}]" if place else ""
    raise ModelError(
        f"{what} is NaN{where} ({int(bad.sum())} of {bad.size} values are):\n{at(user_line())}\n"
        "  Leave these rows out or fill them in; a model that knows what to do with NaN takes ppl.allow_nan(values)."
    )


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

    def once(self, check: Callable[[], None]) -> None:
        """Run a check of these data, unless they have passed it."""
        if not self.__dict__.get("_checked"):
            check()
            object.__setattr__(self, "_checked", True)

    def key(self) -> Hashable:
        """Identity of everything but the data's values."""
        marks = tuple(_value_key(s) for s in self.static)
        return (self.treedef, self.where, marks)


def split_arguments(args: tuple, kwargs: dict, name: str) -> Arguments:
    """Divide a model's call into data and static parts."""
    leaves, treedef = jax.tree_util.tree_flatten(placed((args, kwargs)), is_leaf=lambda x: _numbers(x) or _table(x))
    data: list[Any] = []
    where: list[int] = []
    static: list[Any] = []
    for leaf in leaves:
        if isinstance(leaf, _SETTINGS) or not _is_data(leaf):
            where.append(-1)
            static.append(leaf.item() if isinstance(leaf, (np.bool_, np.integer)) else leaf)
        else:
            where.append(len(data))
            data.append(as_array(leaf, f"an argument of model {name!r}"))
    return Arguments(tuple(data), treedef, tuple(where), tuple(static))


_SETTINGS = (bool, int, str, bytes, np.bool_, np.integer, np.datetime64, np.timedelta64, np.character, type(None))


def _is_data(leaf: Any) -> bool:
    arrays = (float, np.ndarray, np.generic, jax.Array, jax.core.Tracer)
    return isinstance(leaf, arrays) or _numbers(leaf) or _table(leaf)


def shape_key(arrays: tuple[Any, ...]) -> Hashable:
    """Shapes and dtypes, as JAX will see them."""
    return tuple((tuple(np.shape(x)), str(_canonical(x))) for x in arrays)


def _canonical(x: Any) -> Any:
    # numpy's result_type would convert a JAX array to a dtype, which is deprecated
    return jax.dtypes.canonicalize_dtype(x.dtype if hasattr(x, "dtype") else np.result_type(x))


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
    """Identity of a setting: by value where its type defines equality, else by what it reads."""
    if hasattr(x, "conditions") and hasattr(x, "arguments"):  # a program, which a call embeds with its data
        return (_Identity(x), x.key(), *(_read_key(v, {}) for v in (*x.arguments.data, *x.fixed.values())))
    if type(x).__hash__ not in (object.__hash__, None) and not isinstance(x, _CODE):
        return (type(x), x)
    return _read_key(x, {})


def fingerprint(function: Callable) -> Hashable:
    """Identity of a function together with the globals and closure variables that it reads.

    Raises:
        Unstable: It reads a mutable object, so that no key is safe.
    """
    return _read_key(function, {})


def _fingerprint(function: types.FunctionType, seen: dict[Any, Any]) -> Hashable:
    if id(function) in seen:
        return "seen"
    seen[id(function)] = function
    cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
    names = _names(function.__code__)
    found = [function.__globals__[n] for n in sorted(names) if n in function.__globals__]
    defaults = list(function.__defaults__ or ()) + list((function.__kwdefaults__ or {}).values())
    return (_Identity(function), *(_read_key(v, seen, names) for v in [*cells, *found, *defaults]))


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _names(code: types.CodeType) -> frozenset[str]:
    """Names of globals and attributes in a function's text, nested functions included."""
    inner = (_names(const) for const in code.co_consts if isinstance(const, types.CodeType))
    return frozenset(code.co_names).union(*inner)


def _library(x: Any) -> bool:
    """Whether a module, or the module that defines ``x``, is installed: such code does not change."""
    name = x.__name__ if isinstance(x, types.ModuleType) else getattr(x, "__module__", None) or ""
    root = str(name).split(".")[0]
    path = getattr(sys.modules.get(name), "__file__", "") or ""
    installed = "site-packages" in path or path.startswith(sys.base_prefix)
    return installed or root in sys.stdlib_module_names or root == (__package__ or "ppl")


_ATOMS = (bool, int, float, complex, str, bytes, np.generic, np.dtype, enum.Enum, type(None))
_CODE = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, np.ufunc, functools.partial, type)


def _read_key(x: Any, seen: dict[Any, Any], names: frozenset[str] = frozenset()) -> Hashable:
    """Identity of an object that code reads; ``names`` are the attributes that it may read of it."""
    if isinstance(x, _ATOMS):
        return (type(x), x if x == x else "nan")
    if isinstance(x, np.ndarray):
        return (x.dtype.str, x.shape, hashlib.blake2b(np.ascontiguousarray(x).tobytes(), digest_size=16).digest())
    if isinstance(x, (types.BuiltinFunctionType, np.ufunc, jax.Array)):
        return _Identity(x)
    if isinstance(x, (tuple, list)):
        return (type(x), *(_read_key(v, seen, names) for v in x))
    if isinstance(x, (set, frozenset)):
        return (type(x), frozenset(_read_key(v, seen, names) for v in x))
    if isinstance(x, slice):
        return (slice, x.start, x.stop, x.step)
    if isinstance(x, dict) and all(isinstance(k, str) for k in x):
        return (dict, *((k, _read_key(v, seen, names)) for k, v in x.items()))
    if isinstance(x, types.MethodType):
        code = getattr(x.__func__, "__code__", None)
        return (_read_key(x.__self__, seen, _names(code) if code else names), _read_key(x.__func__, seen))
    if isinstance(x, functools.partial):
        return (functools.partial, *(_read_key(v, seen, names) for v in (x.func, x.args, x.keywords)))
    if isinstance(x, (types.ModuleType, types.FunctionType, type)) or callable(x):
        if _library(x):
            return _Identity(x)
    if isinstance(x, types.FunctionType):
        return _fingerprint(x, seen)
    if isinstance(x, type) and issubclass(x, enum.Enum):
        return _Identity(x)
    if isinstance(x, (types.ModuleType, type)):
        return _attributes(x, seen, names)
    for inner in (getattr(x, "function", None), getattr(x, "__wrapped__", None)):  # another model; a jitted function
        if isinstance(inner, types.FunctionType):
            return (_Identity(x), _fingerprint(inner, seen))
    raise Unstable(f"{type(x).__name__} object")


def _attributes(x: Any, seen: dict[Any, Any], names: frozenset[str]) -> Hashable:
    """Identity of a user's module or class by the attributes that are read: of a class also its methods."""
    if (id(x), names) in seen:
        return "seen"
    seen[(id(x), names)] = x
    parts: list[Hashable] = [_Identity(x)]
    for scope in x.__mro__ if isinstance(x, type) else (x,):
        if isinstance(scope, type) and _library(scope):
            continue
        found = {n: getattr(v, "__func__", getattr(v, "fget", v)) for n, v in vars(scope).items()}
        methods = [v for v in found.values() if isinstance(v, types.FunctionType)] if isinstance(x, type) else []
        read = {n for n in names.union(*(_names(v.__code__) for v in methods)) if not n.startswith("__")}
        parts += [_read_key(v, seen, names) for v in methods]
        parts += [(n, _read_key(v, seen, names)) for n, v in sorted(found.items()) if n in read and v not in methods]
    return tuple(parts)


def bound(function: Callable, args: tuple, kwargs: dict) -> tuple[tuple, dict, dict[str, Any]]:
    """The call with its tables as arrays, and its arguments by parameter name, defaults included."""
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ModelError(f"model {function.__name__!r}: {error}\n{at(user_line())}") from None
    args, kwargs = prepared(function, args, kwargs)
    filled = signature.bind(*args, **kwargs)
    filled.apply_defaults()
    return args, kwargs, dict(filled.arguments)


def abstract(x: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of an array as JAX will see it."""
    return jax.ShapeDtypeStruct(np.shape(x), _canonical(x))
