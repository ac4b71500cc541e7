"""State as arrays and JSON in one file, written whole or not at all; nothing is pickled.

A tree of numbers, text, lists, dictionaries, arrays and dataclasses is divided into a JSON skeleton and a list of
arrays. Both go into one ``.npz`` file that replaces its predecessor by a rename, so that a reader sees the old file or
the new one and never a part. The archive's checksums tell a damaged file from a good one. Reading makes objects of
this project's own dataclasses, and of those that the caller names, without calling anything in them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

_OWN = "ppl."
_SKELETON = "skeleton"


class Damaged(ValueError):
    """A file that cannot be what was written."""


class Unstorable(TypeError):
    """State that has no form as arrays and JSON."""


def pack(tree: Any) -> tuple[Any, list[np.ndarray]]:
    """Divide a tree into a JSON skeleton and arrays.

    Raises:
        Unstorable: Naming the place of what is neither.

    Example:
        >>> pack({"a": (1, np.ones(2))})
        ({'dict': {'a': {'tuple': [1, {'array': 0}]}}}, [array([1., 1.])])
    """
    arrays: list[np.ndarray] = []
    return _pack(tree, arrays, "state"), arrays


def _pack(x: Any, arrays: list[np.ndarray], place: str) -> Any:
    if x is None or type(x) in (bool, int, float, str):
        return x
    if isinstance(x, np.generic) or hasattr(x, "__array__"):
        value = np.asarray(x)
        if value.dtype.kind not in "biufcSU":
            raise Unstorable(f"{place} is an array of {value.dtype}, which cannot be stored")
        arrays.append(value)
        return {"scalar" if isinstance(x, np.generic) else "array": len(arrays) - 1}
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        names = [f.name for f in dataclasses.fields(x)]
        entries = {n: _pack(getattr(x, n), arrays, f"{place}.{n}") for n in names}
        return {"class": class_name(type(x)), "fields": entries}
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        entries = {n: _pack(getattr(x, n), arrays, f"{place}.{n}") for n in x._fields}
        return {"namedtuple": class_name(type(x)), "fields": entries}
    if isinstance(x, dict) and all(isinstance(k, str) for k in x):
        return {"dict": {k: _pack(v, arrays, f"{place}[{k!r}]") for k, v in x.items()}}
    if type(x) in (tuple, list):
        return {type(x).__name__: [_pack(v, arrays, f"{place}[{i}]") for i, v in enumerate(x)]}
    raise Unstorable(f"{place} is {type(x).__name__}, which has no form as arrays and JSON")


def unpack(skeleton: Any, arrays: list[np.ndarray], known: Iterable[type] = ()) -> Any:
    """Put a tree together again; the inverse of ``pack``.

    Args:
        skeleton: From ``pack``.
        arrays: Likewise.
        known: Classes, beside those of this project, that may be made.

    Raises:
        Damaged: If the skeleton asks for anything else.
    """
    classes = {class_name(c): c for c in known}

    def make(x: Any) -> Any:
        if not isinstance(x, dict):
            return x
        if "fields" in x:
            named = "namedtuple" in x
            cls = _class(x["namedtuple" if named else "class"], classes, named)
            values = {name: make(value) for name, value in x["fields"].items()}
            return _named(cls, values) if named else _filled(cls, values)
        ((kind, inner),) = x.items()
        if kind in ("array", "scalar"):
            value = arrays[int(inner)]
            return value[()] if kind == "scalar" else value
        if kind == "dict":
            return {k: make(v) for k, v in inner.items()}
        if kind in ("tuple", "list"):
            return (tuple if kind == "tuple" else list)(make(v) for v in inner)
        raise Damaged(f"{kind!r} is no form of state")

    return make(skeleton)


def class_name(cls: type) -> str:
    """Where a class is defined.

    Example:
        >>> class_name(Damaged)
        'ppl.inference.checkpoint:Damaged'
    """
    return f"{cls.__module__}:{cls.__qualname__}"


def classes_in(tree: Any) -> Iterator[type]:
    """Dataclasses and named tuples in an object's fields, its own class first."""
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        yield type(tree)
        for item in dataclasses.fields(tree):
            yield from classes_in(getattr(tree, item.name))
    elif isinstance(tree, tuple | list):
        if hasattr(tree, "_fields"):
            yield type(tree)
        for entry in tree:
            yield from classes_in(entry)
    elif isinstance(tree, dict):
        for entry in tree.values():
            yield from classes_in(entry)


def _class(name: str, classes: dict[str, type], named: bool) -> type:
    """Resolve a class by name among our own modules and those given; nothing else is imported."""
    if name in classes:
        return classes[name]
    module, _, path = str(name).partition(":")
    if module.startswith(_OWN) and all(part.isidentifier() for part in module.split(".")):
        with contextlib.suppress(ImportError, AttributeError):
            found: Any = importlib.import_module(module)
            for part in path.split("."):
                found = getattr(found, part)
            fit = hasattr(found, "_fields") if named else dataclasses.is_dataclass(found)
            if isinstance(found, type) and found.__module__ == module and fit:
                return found
    raise Damaged(f"the stored state holds an object of {name}; pass the engine that it belongs to: engine=...")


def _filled(cls: type, values: dict[str, Any]) -> Any:
    names = {f.name for f in dataclasses.fields(cls)}
    if set(values) != names:
        raise Damaged(f"{class_name(cls)} has other fields in this version: {sorted(names ^ set(values))}")
    made: Any = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def _named(cls: Any, values: dict[str, Any]) -> Any:
    if set(values) != set(cls._fields):
        raise Damaged(f"{class_name(cls)} has other fields in this version")
    return tuple.__new__(cls, [values[name] for name in cls._fields])


def write(path: Path, tree: Any) -> None:
    """Write a tree to a file that appears whole or not at all.

    Raises:
        OSError: If the disk is full; the previous file stays.
        Unstorable: As ``pack`` does.
    """
    skeleton, arrays = pack(tree)
    text = np.frombuffer(json.dumps(skeleton).encode(), np.uint8)
    entries = {_SKELETON: text, **{f"a{i}": value for i, value in enumerate(arrays)}}

    def fill(file: Any) -> None:
        np.savez(file, allow_pickle=False, **entries)

    replace_file(path, fill)


def replace_file(path: Path, fill: Any) -> None:
    """Write a file beside, force it to the disk, and rename it into its place."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    with contextlib.suppress(OSError):  # not every system can force a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read(path: Path, known: Iterable[type] = (), only: str | None = None) -> Any:
    """Read a tree.

    Args:
        path: The file.
        known: See ``unpack``.
        only: Read one entry of a dictionary, and only the arrays in it.

    Raises:
        FileNotFoundError: If there is none.
        Damaged: If its checksums or its form are wrong.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            skeleton = json.loads(archive[_SKELETON].tobytes().decode())
            if only is not None:
                skeleton = skeleton["dict"][only]
            wanted = sorted(_numbers(skeleton))
            found = {i: archive[f"a{i}"] for i in wanted}
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise Damaged(f"{path.name} is damaged: {error}") from error
    arrays = [found.get(i, np.zeros(0)) for i in range(1 + max(wanted, default=-1))]
    return unpack(skeleton, arrays, known)


def _numbers(x: Any) -> set[int]:
    """Numbers of the arrays of a skeleton."""
    if not isinstance(x, dict):
        return set()
    if "fields" in x:
        return set().union(*map(_numbers, x["fields"].values()))
    ((kind, inner),) = x.items()
    if kind in ("array", "scalar"):
        return {int(inner)}
    return set().union(*map(_numbers, inner.values() if kind == "dict" else inner))
