"""Which passes rewrite a program's log density; part of what a compiled program is cached by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ModelError


@dataclass(frozen=True)
class Passes:
    """The choice of passes.

    Attributes:
        marginalize: Whether finite latent sites are summed out of the density: all of them, none, or those named. The
            others stay in the flat vector, as codes.
        budget: Most array elements that summing finite sites may compute for one log density.
        collapse: Whether likelihoods are replaced by their sufficient statistics where that is cheaper.
        reparameterize: Whether a run may learn the coordinates of hierarchical effects, and sites with coordinates
            that are given: ``"centred"``, ``"noncentred"``, ``"learned"`` or a pair (k, t), under ``"*"`` of all.
    """

    marginalize: bool | frozenset[str] = True
    collapse: bool = True
    reparameterize: bool | tuple[tuple[str, Any], ...] = True
    budget: float = 5e7

    @classmethod
    def of(
        cls, marginalize: Any = True, collapse: bool = True, reparameterize: Any = True, budget: float | None = None
    ) -> Passes:
        """From what a user writes: names as one string or any collection.

        Example:
            >>> Passes.of(marginalize="k").marginalize == {"k"}
            True
        """
        if isinstance(marginalize, str):
            marginalize = (marginalize,)
        if not isinstance(marginalize, bool):
            marginalize = frozenset(marginalize)
        most = cls.budget if budget is None else float(budget)
        return cls(marginalize, bool(collapse), coordinates(reparameterize), most)

    def sums(self, name: str) -> bool:
        """Whether a finite latent site is summed."""
        return self.marginalize if isinstance(self.marginalize, bool) else name in self.marginalize


def coordinates(choice: Any) -> bool | tuple[tuple[str, Any], ...]:
    """The choice of coordinates, hashable.

    Example:
        >>> coordinates("auto"), coordinates({"theta": (1.5, [0.0, 2.0])})
        (True, (('theta', (((), (1.5,)), ((2,), (0.0, 2.0)))),))
    """
    if isinstance(choice, (bool, np.bool_)) or choice == "auto":
        return bool(choice)
    if isinstance(choice, str):
        return (("*", _form("*", choice)),)
    if not isinstance(choice, Mapping):
        raise ModelError(
            f"reparameterize={choice!r}: write True, False, 'centred', 'noncentred', or a mapping from sites to one of "
            "these, to 'learned' or to a pair (k, t)"
        )
    return tuple((str(name), _form(str(name), form)) for name, form in choice.items())


def _form(name: str, form: Any) -> Any:
    if isinstance(form, str):
        if form in ("centred", "noncentred") or (form == "learned" and name != "*"):
            return form
    elif isinstance(form, (tuple, list)) and len(form) == 2:
        k, t = (np.asarray(x, dtype=float) for x in form)
        if not (np.isfinite(k).all() and np.isfinite(t).all() and (k >= 0).all()):
            raise ModelError(f"reparameterize: site {name!r} has k = {k} and t = {t}; they are finite, k not negative")
        return tuple((x.shape, tuple(x.ravel().tolist())) for x in (k, t))
    raise ModelError(
        f"reparameterize: {form!r} for site {name!r} is none of 'centred', 'noncentred', 'learned' and (k, t), where k "
        "is the information of the data about an effect and t their estimate of it"
    )
