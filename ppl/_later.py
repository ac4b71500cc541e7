"""Modules that are imported when they are first used, because most programs never need them."""

from __future__ import annotations

import importlib
from typing import Any


class later:  # noqa: N801 - reads as a statement: ``sums = later("ppl.passes.marginalize")``
    """A module by name, imported at the first look at one of its attributes.

    Example:
        >>> later("math").sqrt(4.0)
        2.0
    """

    def __init__(self, name: str) -> None:
        """Remember the module's full name."""
        self.__dict__["_name"] = name

    def __getattr__(self, attribute: str) -> Any:
        """An attribute of the module."""
        value = getattr(importlib.import_module(self.__dict__["_name"]), attribute)
        if callable(value):
            self.__dict__[attribute] = value
        return value
