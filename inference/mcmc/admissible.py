"""Tuning that no kernel can run with is refused before a run, by its name and value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def _positive(x: np.ndarray) -> bool:
    return bool(np.all((x > 0) & np.isfinite(x)))


def _within(x: np.ndarray) -> bool:
    return bool(np.all((x > 0) & (x < 1)))


def _whole(x: np.ndarray) -> bool:
    return bool(np.all((x >= 1) & (x == np.floor(x))))


def _not_negative(x: np.ndarray) -> bool:
    return bool(np.all((x >= 0) & np.isfinite(x)))


_RULES: dict[str, tuple[Callable[[np.ndarray], bool], str]] = {
    **dict.fromkeys(("step_size", "length", "width", "tolerance", "friction"), (_positive, "positive and finite")),
    **dict.fromkeys(("target_accept", "decay"), (_within, "between 0 and 1")),
    **dict.fromkeys(("max_steps", "max_depth", "max_misses", "steps", "lines"), (_whole, "a positive whole number")),
    **dict.fromkeys(("jitter", "noise", "temperature"), (_not_negative, "not negative, and finite")),
}


def check(kernel: Any) -> None:
    """Look at the tuning of a kernel of this package and of its parts.

    Raises:
        ValueError: Naming the kernel, the field, its value, and what it may be.

    Example:
        >>> from ppl.inference import mcmc
        >>> check(mcmc.Cycle(mcmc.HMC(), mcmc.Slice(width=-1.0)))
        Traceback (most recent call last):
            ...
        ValueError: Slice(width=-1.0): width must be positive and finite
    """
    if isinstance(kernel, tuple):
        for part in kernel:
            check(part)
        return
    if not is_dataclass(kernel) or not type(kernel).__module__.startswith(f"{__package__}."):
        return
    name = type(kernel).__name__
    for field in fields(kernel):
        value = getattr(kernel, field.name)
        if field.name == "kernels" and not value:
            raise ValueError(f"{name} has no kernels: give it one or more, such as {name}(mcmc.NUTS())")
        if field.name in ("kernel", "kernels"):
            check(value)
        if field.name not in _RULES or not isinstance(value, int | float | np.ndarray | np.generic):
            continue
        good, words = _RULES[field.name]
        if not good(np.asarray(value)):
            raise ValueError(f"{name}({field.name}={value}): {field.name} must be {words}")
