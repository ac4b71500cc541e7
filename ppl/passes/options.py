"""Which passes rewrite a program's log density; part of what a compiled program is cached by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Passes:
    """The choice of passes.

    Attributes:
        marginalize: Whether finite latent sites are summed out of the density: all of them, none, or those named. The
            others stay in the flat vector, as codes.
        collapse: Whether likelihoods are replaced by their sufficient statistics where that is cheaper.
    """

    marginalize: bool | frozenset[str] = True
    collapse: bool = True

    @classmethod
    def of(cls, marginalize: Any = True, collapse: bool = True) -> Passes:
        """From what a user writes: names as one string or any collection.

        Example:
            >>> Passes.of(marginalize="k").marginalize == {"k"}
            True
        """
        if isinstance(marginalize, str):
            marginalize = (marginalize,)
        if not isinstance(marginalize, bool):
            marginalize = frozenset(marginalize)
        return cls(marginalize, bool(collapse))

    def sums(self, name: str) -> bool:
        """Whether a finite latent site is summed."""
        return self.marginalize if isinstance(self.marginalize, bool) else name in self.marginalize
