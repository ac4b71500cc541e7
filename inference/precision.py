"""Which floating point numbers a run uses.

Double precision on a CPU, single on accelerators, as a context around the work: JAX's setting is local to
a thread and stays as the user left it. A user who has set ``jax_enable_x64`` (or ``JAX_ENABLE_X64``) has
decided for every run.
"""

from __future__ import annotations

import os
import warnings
from contextlib import AbstractContextManager

import jax

PRECISIONS = ("float32", "float64")


def choose(precision: str | None = None, platform: str | None = None) -> str:
    """Name the precision of a run.

    Args:
        precision: ``"float32"``, ``"float64"`` or None for the default of the device.
        platform: Kind of the device; by default that of JAX's default backend.

    Example:
        >>> choose("float32") if not jax.config.jax_enable_x64 else "float32"
        'float32'
    """
    if precision not in (None, *PRECISIONS):
        raise ValueError(f"precision is one of {PRECISIONS}, not {precision!r}")
    decided = _decided()
    if decided is not None:
        if precision not in (None, decided):
            warnings.warn(
                f"jax_enable_x64 is set by you: the run uses {decided}, not precision={precision!r}",
                stacklevel=3,
            )
        return decided
    if precision is not None:
        return precision
    return "float64" if (platform or jax.default_backend()) == "cpu" else "float32"


def context(precision: str) -> AbstractContextManager:
    """The JAX context of a precision.

    Example:
        >>> with context("float64"):
        ...     print(jax.numpy.result_type(float))
        float64
    """
    return jax.enable_x64(precision == "float64")


def _decided() -> str | None:
    if jax.config.jax_enable_x64:
        return "float64"
    if os.environ.get("JAX_ENABLE_X64", "").lower() in ("0", "false", "off"):
        return "float32"
    return None
