"""What passes rewrite: the program that computes the terms of a log density."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Terms:
    """A traced program whose outputs, summed over their elements and added up, are the log density.

    Its inputs are the data, the values of fixed sites, and the unconstrained values of the latent sites in the order
    of their slots; before ``marginalize`` also the codes of the sites that it sums.

    Attributes:
        code: The traced program (``_jax.Code``, or ``_jax.Opaque`` where JAX is unfamiliar).
        names: ``(channel, site)`` of each output.
        notes: What passes did, in words, for the plan of a run.
        rows: Repeated rows of data that ``collapse`` computes once; for each, the observations that stand for its rows
            and the row of each observation follow the data among the inputs.
    """

    code: Any
    names: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = field(default=())
    rows: tuple[Any, ...] = field(default=())


FEWEST = 64
"""Observations below which ``collapse`` leaves a term alone."""


def large(code: Any) -> bool:
    """Whether a program has an intermediate result of so many elements that ``collapse`` is worth a look."""
    equations = getattr(getattr(code, "jaxpr", None), "eqns", ())
    return any(getattr(v.aval, "size", 0) >= FEWEST for eqn in equations for v in eqn.outvars)


@dataclass(frozen=True)
class Untouched:
    """The terms as they are, where ``collapse`` did not look."""

    terms: Terms

    def choose(self, data: Sequence[Any]) -> list[Any]:
        """No rows stand for others."""
        return []
