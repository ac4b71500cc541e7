"""What passes rewrite: the program that computes the terms of a log density."""

from __future__ import annotations

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
