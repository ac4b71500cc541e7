"""Errors of the language: what went wrong, at which site, on which line of the user's own code, and the fix."""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

import jax

_HERE = os.path.dirname(os.path.abspath(__file__))
_LIBRARIES = tuple(
    os.path.dirname(os.path.abspath(sys.modules[name].__file__ or ""))
    for name in ("jax", "contextlib", "functools")
    if name in sys.modules
)


class ModelError(ValueError):
    """A model, its data or the way it is used is wrong; the message names site, line and fix."""


class ImproperPrior(ModelError):
    """A draw was asked from a prior that cannot be normalised."""


class ParameterError(ModelError):
    """A distribution was given a parameter that it does not admit, such as a negative scale."""


class MissingSite(ModelError):
    """A name does not belong to the model."""


def _own(filename: str) -> bool:
    """Whether a file belongs to this package or to a library below it, rather than to the user."""
    if filename.startswith("<frozen"):
        return True
    if filename.startswith("<"):
        return False
    parts = ("/site-packages/jax", "/site-packages/numpyro", "/site-packages/equinox")
    path = os.path.realpath(filename)
    if any(part in path for part in parts):
        return True
    roots = (_HERE, os.path.realpath(os.path.join(_HERE, "inference")))
    if any(path.startswith(os.path.realpath(root) + os.sep) for root in roots):
        return True
    return any(path == library or path.startswith(library + os.sep) for library in _LIBRARIES[:1])


def user_line() -> str:
    """``file:line`` of the nearest caller that is not part of this package or of JAX."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _own(frame.f_code.co_filename):
        frame = frame.f_back
    if frame is None:
        return "unknown line"
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def source_text(location: str) -> str:
    """The text of a ``file:line`` location, empty when it cannot be read."""
    import linecache

    path, _, number = location.rpartition(":")
    return linecache.getline(path, int(number)).strip() if number.isdigit() else ""


def at(location: str) -> str:
    """A location with its source text, as error messages show it."""
    text = source_text(location)
    return f"    at {location}" + (f"\n        {text}" if text else "")


def suggest(name: str, known: Iterable[str]) -> str:
    """A did-you-mean clause for a name that is not known, with the names that are."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    listing = ", ".join(known) if known else "none"
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{hint} The model has: {listing}."


def _raised_at(error: BaseException) -> str:
    """The user's innermost line in an error's traceback."""
    found = "unknown line"
    for entry in traceback.extract_tb(error.__traceback__):
        if not _own(entry.filename):
            found = f"{entry.filename}:{entry.lineno}"
    return found


_RECIPES: tuple[tuple[type, str], ...] = (
    (
        jax.errors.TracerBoolConversionError,
        "A Python `if`, `while`, `and`, `or` or `assert` needs the value of a random variable or of data, which is "
        "not known when the model is compiled.\n"
        "  Write   jnp.where(x > 0, a, b)              for a choice between values,\n"
        "          ppl.branch(name, x > 0, f, g)       for a choice between sub-models that sample.\n"
        "  A setting that decides the shape of the model is passed as a Python bool, int or str.",
    ),
    (
        jax.errors.TracerIntegerConversionError,
        "An index or a size needs the value of an array, which is not known when the model is compiled.\n"
        "  Index with x[i] on a jnp array; pass sizes as Python ints: model(data, n_groups=int(codes.max()) + 1).",
    ),
    (
        jax.errors.NonConcreteBooleanIndexError,
        "A boolean mask selects a number of elements that is not known when the model is compiled.\n"
        "  Write   jnp.where(mask, x, other)   or select the rows before calling the model.",
    ),
    (
        jax.errors.TracerArrayConversionError,
        "A NumPy or SciPy function was given a random variable or data of the model.\n"
        "  Use the function of the same name in jax.numpy or jax.scipy.",
    ),
    (
        jax.errors.ConcretizationTypeError,
        "A size, a shape or a Python number is computed from data or from a random variable inside the model, but it "
        "must be known when the model is compiled.\n"
        "  Compute it before and pass it as a Python int: model(codes, n_groups=int(codes.max()) + 1).",
    ),
)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn JAX's tracer errors raised by the user's code into ones that show the line and the fix."""
    try:
        yield
    except ModelError:
        raise
    except TypeError as error:
        recipe = next((text for kind, text in _RECIPES if isinstance(error, kind)), None)
        if recipe is None and "concrete values" in str(error):
            recipe = _RECIPES[-1][1]
        if recipe is None:
            raise
        raise ModelError(f"{what}: {recipe}\n{at(_raised_at(error))}") from error
    except IndexError as error:
        if not isinstance(error, jax.errors.NonConcreteBooleanIndexError):
            raise
        raise ModelError(f"{what}: {_RECIPES[2][1]}\n{at(_raised_at(error))}") from error
