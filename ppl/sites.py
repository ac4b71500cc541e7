"""What is known of a model's sites: as a run learns it, and as results show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class SiteInfo:
    """What one run learns about a site.

    Attributes:
        name: Scoped name.
        kind: ``"sample"``, ``"factor"`` or ``"record"``.
        shape: Shape of one element, inside all plates.
        batch: Number of leading axes of ``shape`` that the distribution treats as independent.
        dtype: Of the value.
        plates: ``(name, size, kind)`` of the enclosing plates and chains, outermost first.
        dims: Names given to the axes of ``shape``, or None.
        source: The user's line.
        family: Name of the distribution, with its support.
        discrete: Whether the support is discrete.
        improper: Whether the prior cannot be sampled.
        atoms: Whether the law has point masses (a censored site, a mixture with a point), so no density as a latent.
        support: The constraint when it does not depend on traced values, else None.
        free_shape: Unconstrained shape of one element, or None for discrete sites.
        role: Role forced by the model text itself (a conditioned sub-program), or None.
        branches: The branch statements around the site, each with the arm's number.
        joint: Number of trailing axes of ``shape`` along which elements depend on each other.
        elementwise: Whether the support is a product of supports of the elements.
        marginalizes: Whether the density of any part of a vector is known.
        states: Least value and number of values of a finite support that is known when the model is traced, else None.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    batch: int
    dtype: Any
    plates: tuple[tuple[str, int, str], ...]
    dims: tuple[str, ...] | None
    source: str
    family: str = ""
    discrete: bool = False
    improper: bool = False
    atoms: bool = False
    support: Any = None
    free_shape: tuple[int, ...] | None = None
    role: str | None = None
    branches: tuple[str, ...] = ()
    joint: int = 0
    elementwise: bool = True
    marginalizes: bool = True
    states: tuple[int, int] | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of the enclosing plates."""
        return tuple(size for _, size, _ in self.plates)

    @property
    def full_shape(self) -> tuple[int, ...]:
        """Shape over all plates."""
        return self.sizes + self.shape


@dataclass(frozen=True)
class Site:
    """A named quantity of a program, as the labelled result shows it.

    Attributes:
        name: The site's name.
        kind: ``"latent"``, ``"observed"``, ``"done"``, ``"record"`` or ``"factor"``.
        shape: Full shape, plates first.
        dims: One name per axis of ``shape``.
        dtype: Of the value.
        plates: Names of the enclosing plates and chains, outermost first.
        source: The user's line, ``file:line``.
        discrete: Whether the support is discrete.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    dtype: Any
    plates: tuple[str, ...]
    source: str
    discrete: bool


@dataclass(frozen=True)
class Learned:
    """What an abstract run of a model learned.

    Attributes:
        sites: The sites.
        coords: Labels of plates and dims.
        tables: Padded axes by name (``axes.Axis``).
        subsampled: Number of elements to draw of subsampled plates, and the user's line.
        lookups: Where data are used as indices (``bounds.Lookups``).
    """

    sites: dict[str, SiteInfo]
    coords: dict[str, np.ndarray]
    tables: dict[str, Any] = field(default_factory=dict)
    subsampled: dict[str, tuple[int, str]] = field(default_factory=dict)
    lookups: Any = None


def in_order(sites: Iterable[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by site in the order of the model; compiled and mapped functions return dicts in alphabetical order.

    Example:
        >>> list(in_order(["tau", "mu"], {"mu": 0.0, "tau": 1.0}))
        ['tau', 'mu']
    """
    first = {name: values[name] for name in sites if name in values}
    return {**first, **values}
