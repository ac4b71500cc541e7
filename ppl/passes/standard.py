"""Hierarchical effects that are written as a + b e, with e standard: found in a traced program, with a and b.

A site e whose law has no latent parameter is followed through the program. Where it is only ever multiplied by one
factor b that depends on other latent sites, b is its scale; where that product is only ever added to one term a, a is
its location, else zero. What is found decides how well a run mixes and never what it samples: any a and b that do not
depend on e itself make a change of variables (``reparameterize``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .. import _jax

_SHAPELESS = frozenset("reshape broadcast_in_dim squeeze convert_element_type copy".split())
_GATHERS = frozenset("gather dynamic_slice slice".split())


class Reader:
    """A traced program with who makes and who reads each of its variables."""

    def __init__(self, jaxpr: Any) -> None:
        """Index a jaxpr."""
        self.made = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}
        self.read: dict[Any, list[Any]] = {}
        for eqn in jaxpr.eqns:
            for v in {v for v in eqn.invars if not _jax.is_literal(v)}:
                self.read.setdefault(v, []).append(eqn)
        self.outputs = {v for v in jaxpr.outvars if not _jax.is_literal(v)}

    def narrow(self, atom: Any) -> Any:
        """The number that an array repeats, where it repeats one; else the array."""
        seen = atom
        while not _jax.is_literal(seen) and seen in self.made and self.made[seen].primitive.name in _SHAPELESS:
            seen = self.made[seen].invars[0]
            if np.size(np.empty(seen.aval.shape)) == 1:
                return seen
        return atom

    def scale(self, var: Any) -> tuple[Any, Any] | None:
        """The factor and the added term of a variable, None where there is no one factor.

        Returns:
            Variables ``(b, a)`` that broadcast to the shape of ``var``; ``a`` is None where none was found.
        """
        products = list(self._uses(var, ()))
        if not products or any(eqn is None or eqn.primitive.name != "mul" for eqn, _, _ in products):
            return None
        pairs = [(eqn, self._fitting(self._other(eqn, v), path, var)) for eqn, v, path in products]
        factors = {id(b): b for _, b in pairs}
        if len(factors) != 1 or None in factors.values():
            return None
        added = [self._added(eqn.outvars[0], path, var) for eqn, _, path in products]
        same = len({id(a) for a in added}) == 1
        return next(iter(factors.values())), added[0] if same else None

    def _uses(self, var: Any, path: tuple) -> Iterable[tuple[Any, Any, tuple]]:
        """Equations that compute with a variable, behind those that only move its elements about."""
        if var in self.outputs:
            yield None, var, path
        for eqn in self.read.get(var, ()):
            name = eqn.primitive.name
            chosen = name == "select_n" and eqn.invars[0] is not var  # zero where an element does not exist
            if name in _SHAPELESS or chosen or (name in _GATHERS and eqn.invars[0] is var):
                yield from self._uses(eqn.outvars[0], (*path, eqn))
            else:
                yield eqn, var, path

    def _other(self, eqn: Any, var: Any) -> Any:
        left, right = eqn.invars
        return None if left is right else right if left is var else left

    def _fitting(self, atom: Any, path: tuple, var: Any) -> Any:
        """An operand in the places of ``var``, where ``path`` has moved these about; None where it has no such form.

        It is a number or broadcasts to the shape of ``var``.
        """
        if atom is None or _jax.is_literal(atom):
            return None
        atom = self.narrow(atom)
        if np.prod(atom.aval.shape, dtype=int) == 1:
            return atom
        for eqn in reversed(path):
            if eqn.primitive.name in ("convert_element_type", "copy", "select_n"):
                continue
            made = None if _jax.is_literal(atom) else self.made.get(atom)
            if made is None or made.primitive is not eqn.primitive or made.invars[1:] != eqn.invars[1:]:
                return None
            if str(made.params) != str(eqn.params):
                return None
            atom = made.invars[0]
        shape = (1,) * (var.aval.ndim - atom.aval.ndim) + atom.aval.shape
        same = len(shape) == var.aval.ndim and all(a in (1, b) for a, b in zip(shape, var.aval.shape, strict=True))
        return atom if same else None

    def _added(self, product: Any, path: tuple, var: Any) -> Any:
        uses = list(self._uses(product, ()))
        if len(uses) != 1 or uses[0][0] is None:
            return None
        eqn, moved, further = uses[0]
        if eqn.primitive.name != "add":
            return None
        return self._fitting(self._other(eqn, moved), (*path, *further), var)
