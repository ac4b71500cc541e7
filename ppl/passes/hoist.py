"""Hoist: equations that read only data run once, when data are bound, and never inside a sampler's loop.

A traced log density f(data, z) is divided into residuals r = g(data) and f(data, z) = h(r, z). What would be kept
must not be eight times larger than what it was computed from, unless computing it again costs more than reading it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from .. import _jax, costs

WORTH = 5_000  # operations; below, running the equations every time is cheaper than one more compilation


@dataclass(frozen=True)
class Hoisted:
    """A program divided by what it reads.

    Attributes:
        before: Compiled map from data to residuals, or None where there is nothing worth hoisting.
        after: Program of ``(residuals, used data, positions)``.
        used: Indices of the data that ``after`` still reads.
    """

    before: Callable[..., Any] | None
    after: Any
    used: tuple[int, ...]


def hoist(code: Any, inputs: int, worth: int = WORTH) -> Hoisted:
    """Divide a program whose first ``inputs`` arguments are data.

    Args:
        code: The traced log density.
        inputs: Number of leading data arguments.
        worth: Operations that must be saved for a division to be made.

    Returns:
        The divided program; the whole one where the division is not worth it or fails.
    """
    whole = Hoisted(None, code, tuple(range(inputs)))
    if not isinstance(code, _jax.Code):
        return whole
    try:
        before, after, used, saved = costs.divide(code, inputs)
    except (AttributeError, AssertionError, KeyError, TypeError, ValueError):
        return whole  # an unfamiliar JAX: slower, never wrong
    if saved < worth:
        return whole
    return Hoisted(jax.jit(before.run), after, tuple(used))
