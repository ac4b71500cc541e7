"""What a case is: a conditioned program, and its log density written out by hand at the flat unconstrained vector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """A model with its exact answer.

    Attributes:
        program: With its observed sites conditioned.
        hand: Of the flat vector: ``(log joint in constrained space, log-determinant, {latent: value})``.
        pointwise: Shape of each observed site's log factors.
        parents: Parents of every site.
        scale: Spread of the positions at which the case is tested.
        simulable: Whether the prior is proper and no factor reads a latent.
    """

    program: Any
    hand: Callable[[Any], tuple[Any, Any, dict[str, Any]]]
    pointwise: dict[str, tuple[int, ...]]
    parents: dict[str, set[str]]
    scale: float = 0.7
    simulable: bool = True
    same: dict[str, Any] = field(default_factory=dict)


CASES: dict[str, Callable[[], Case]] = {}


def case(build: Callable[[], Case]) -> Callable[[], Case]:
    """Register a case under the name of the function that builds it."""
    CASES[build.__name__] = build
    return build


class Reader:
    """Reads a flat vector from the front, in pieces of given shapes."""

    def __init__(self, z: Any) -> None:
        self.z = z
        self.place = 0

    def __call__(self, *shape: int) -> Any:
        size = int(np.prod(shape, dtype=int))
        piece = self.z[self.place : self.place + size].reshape(shape)
        self.place += size
        return piece

    def done(self) -> None:
        assert self.place == self.z.shape[0], (self.place, self.z.shape)
