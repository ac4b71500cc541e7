"""What a run was made of, as hashes, so that a resumed run can name what has changed."""

from __future__ import annotations

import ast
import hashlib
import inspect
import platform
import textwrap
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

TOLERANCE = 1e-6
"""Relative difference of a log density that other versions and machines may make, and another model does not."""


def describe(program: Any, dim: int) -> dict[str, Any]:
    """Module and text of the model, and hashes of everything that it was called with and conditioned on.

    Args:
        program: A program, or None for a bare log density.
        dim: Length of the unconstrained vector.

    Returns:
        JSON values.
    """
    if program is None:
        return {"dim": int(dim)}
    function = program.model.function
    return {
        "dim": int(dim),
        "model": f"{function.__module__}:{function.__qualname__}",
        "source": source(function),
        "python": platform.python_version_tuple()[1],
        "arguments": {name: digest(value) for name, value in program.inputs.items()},
        "fixed": {name: f"{program.roles.get(name, '')} {digest(value)}" for name, value in program.fixed.items()},
        "sites": {
            name: f"{site.kind} {program.learned()[name].family} {tuple(site.shape)}".replace("  ", " ")
            for name, site in program.sites.items()
            if name in program.learned()
        },
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What has changed between two descriptions, in words; the most telling first.

    Example:
        >>> differences({"dim": 1, "fixed": {"y": "observed a"}}, {"dim": 1, "fixed": {"y": "observed b"}})
        ["the value of site 'y'"]
    """
    found = []
    for part, what in (("arguments", "the argument"), ("fixed", "the value of site"), ("sites", "the site")):
        old, new = then.get(part) or {}, now.get(part) or {}
        for name in sorted({*old, *new}):
            site = name.partition("\0")[0]
            if name not in new:
                found.append(f"{what} {site!r}, which is gone")
            elif name not in old:
                found.append(f"{what} {site!r}, which is new")
            elif old[name] != new[name]:
                change = f" ({old[name]} has become {new[name]})" if part == "sites" else ""
                found.append(f"{what} {site!r}{change}")
    texts = then.get("source"), now.get("source")
    if all(texts) and texts[0] != texts[1] and then.get("python") == now.get("python"):
        found.append(f"the text of the model {now.get('model')}")
    if not found and then.get("dim") != now.get("dim"):
        found.append(f"the dimension ({then.get('dim')} has become {now.get('dim')})")
    return list(dict.fromkeys(found))


def source(function: Any) -> str | None:
    """Hash of a function's text without comments and layout, or None where there is no text."""
    try:
        text = textwrap.dedent(inspect.getsource(function))
        return _hash(ast.dump(ast.parse(text)).encode())
    except (OSError, TypeError, SyntaxError, ValueError):
        return None


def digest(value: Any) -> str:
    """Hash of data: arrays by dtype, shape and bytes, settings by their text.

    Example:
        >>> digest(np.ones(2)) == digest([1.0, 1.0]) != digest(np.zeros(2))
        True
    """
    state = hashlib.blake2b(digest_size=16)
    if hasattr(value, "conditions") and hasattr(value, "arguments"):  # a program in the arguments
        value = (list(value.arguments.data), dict(value.fixed))
    leaves, tree = jax.tree_util.tree_flatten(value, is_leaf=lambda x: isinstance(x, list) or hasattr(x, "__array__"))
    state.update(str(len(leaves)).encode())
    for leaf in leaves:
        try:
            array = np.asarray(leaf)
        except (TypeError, ValueError):
            array = np.asarray(getattr(leaf, "__qualname__", type(leaf).__qualname__))
        if array.dtype.kind == "O":
            array = np.asarray([getattr(x, "__qualname__", str(x)) for x in array.ravel()])
        state.update(f"{array.dtype.kind}{array.shape}".encode())
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def same_height(density: Any, position: np.ndarray, height: float) -> tuple[bool, float]:
    """Whether a density has the given log value at a position, and the value that it has."""
    here = float(density(position))
    return bool(abs(here - height) <= TOLERANCE * (1.0 + abs(height))) or here == height, here
