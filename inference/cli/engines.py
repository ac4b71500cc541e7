"""Engines and stopping rules by the names that they have on the command line."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from ..summary import nearest
from .errors import UserError, listed

ENGINES = {"pooled": "PooledHMC", "nuts": "NUTS", "hmc": "HMC"}


def engine_of(name: str | None, options: Mapping[str, Any]) -> Any:
    """An engine or kernel with its options; None for the default without any.

    Example:
        >>> engine_of("nuts", {"target_accept": 0.95}).target_accept
        0.95
    """
    from .. import mcmc

    if name is None and not options:
        return None
    made = getattr(mcmc, ENGINES[name or "pooled"])()
    known = [field.name for field in dataclasses.fields(made)]
    for option in options:
        if option not in known:
            close = nearest(option, known)
            raise UserError(
                f"--option {option}: the engine {name or 'pooled'} has no such option{close}; it has {listed(known)}."
            )
    return dataclasses.replace(made, **options)


def rule_of(text: str | None) -> Any:
    """A stopping rule from ``ess=400``.

    Example:
        >>> rule_of("ess=400").name
        'ESS >= 400 and R-hat <= 1.01'
    """
    from ..until import ess

    if text is None:
        return None
    kind, _, value = text.partition("=")
    try:
        if kind.strip() != "ess":
            raise ValueError
        return ess(float(value))
    except ValueError:
        raise UserError(f"--until {text}: the rule is ess=N, for N effective draws of every quantity.") from None


def pairs(texts: Iterable[str], flag: str) -> dict[str, str]:
    """``name=value`` options as a dict.

    Example:
        >>> pairs(["y=effect"], "--condition")
        {'y': 'effect'}
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise UserError(f"{flag} {text}: write it as {flag} NAME=VALUE.")
        if name in found:
            raise UserError(f"{flag} {name} is given twice.")
        found[name] = value
    return found


def literal(text: str) -> Any:
    """A number, truth value or None as Python writes it; anything else is text.

    Example:
        >>> literal("3"), literal("0.5"), literal("true"), literal("north")
        (3, 0.5, True, 'north')
    """
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False}.get(text, text)
    return value if isinstance(value, bool | int | float | str | list | tuple) or value is None else text
