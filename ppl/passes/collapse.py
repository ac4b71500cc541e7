"""Collapse: likelihoods replaced by their sufficient statistics, where that is cheaper.

    sum_i log N(y_i | a_i'v + c_i, s)  =  -n log s - (|Q'(y - c) - R v|^2 + rss) / (2 s^2) + const
    sum_i f(v, x_i)                    =  sum over distinct x of (number of i with x_i = x) f(v, x)
    sum_i sum_k g_k(v) T_k(y_i)        =  sum_k g_k(v) sum_i T_k(y_i)

The first with QR = (a_1, ..., a_n)'; the second also where x_i are the codes of groups; the third for exponential
families. All three come from reading a term as a sum of products of latents and data (``collapse_read``). The value
and the gradient stay the same. A term is replaced where its price falls below ``RATIO`` of what it was; what reads only
data then moves to the time when data are bound (``hoist``).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import _jax, costs
from .collapse_read import Reader
from .collapse_rows import Root, Rows, distinct, room
from .terms import FEWEST, Terms

Array = Any

WORTH = 4_000
"""Operations that a replacement must save, below which another compilation when data are bound is not paid back."""
RATIO = 0.7
"""Share of the price that a replacement may have at most."""
FORGIVEN: tuple[type[Exception], ...] = (AttributeError, AssertionError, LookupError, TypeError, ValueError)
"""Errors on an unfamiliar JAX, after which a term is left alone: slower, never wrong."""


@dataclass(frozen=True)
class Ask:
    """Inputs whose rows would have to repeat for a term to become cheaper.

    Attributes:
        term: Output of the program.
        roots: Inputs, with their axes of observations.
        count: Number of observations.
    """

    term: int
    roots: tuple[Root, ...]
    count: int


def collapse(
    terms: Terms, inputs: int, skip: Collection[str] = (), rows: Sequence[Rows] = ()
) -> tuple[Terms, tuple[Ask, ...]]:
    """Replace terms that read data by cheaper ones of the same sum.

    Args:
        terms: The program, its first ``inputs`` arguments being data.
        inputs: Number of those.
        skip: Sites whose terms are left alone.
        rows: Which rows of data repeat; the observations that stand for them and the codes become further data.

    Returns:
        The program, one output for each of before, and what could be gained if rows of data repeated.
    """
    code = terms.code
    if not isinstance(code, _jax.Code):
        return terms, ()
    found: dict[int, _Found] = {}
    asks: list[Ask] = []
    for i, (channel, site) in enumerate(terms.names):
        if channel != "factor" or site in skip:
            continue
        choice = next((r for r in rows if r.term == i), None)
        try:
            one = _look(_jax.select(code, [i]), inputs, choice)
        except FORGIVEN:
            continue
        if one is None:
            continue
        if one.code is not None:
            found[i] = one
        if one.roots:
            asks.append(Ask(i, one.roots, one.count))
    if not found:
        return terms, tuple(asks)
    used = tuple(r for r in rows if r.term in found)
    avals = [a for r in used for a in _avals(r)]
    rest = [i for i in range(len(terms.names)) if i not in found]
    parts = [_jax.widen(_jax.select(code, rest), inputs, avals)]
    for i, one in found.items():
        before = [a for r in used[: _place(used, i)] for a in _avals(r)]
        own = [a for r in used if r.term == i for a in _avals(r)]
        after = avals[len(before) + len(own) :]
        widened = _jax.widen(one.code, inputs + len(own), after)
        parts.append(_jax.widen(widened, inputs, before))
    joined = _jax.join(parts)
    order = [*rest, *found]
    notes = tuple(f"collapsed {terms.names[i][1]!r}: {one.words}" for i, one in found.items())
    whole = _jax.select(joined, [order.index(i) for i in range(len(order))])
    return replace(terms, code=whole, notes=(*terms.notes, *notes), rows=used), tuple(asks)


def _place(used: Sequence[Rows], term: int) -> int:
    return next((k for k, r in enumerate(used) if r.term == term), 0)


def _avals(rows: Rows) -> list[Any]:
    return [jax.ShapeDtypeStruct((n,), np.int32) for n in (rows.kept, rows.count)]


@dataclass(frozen=True)
class _Found:
    """What became of one term."""

    code: Any
    words: str
    roots: tuple[Root, ...]
    count: int


def _look(code: Any, inputs: int, rows: Rows | None) -> _Found | None:
    """One term read as a form, where it is long and reads both latents and data."""
    offset = len(code.consts)
    early, late, longest = set(code.jaxpr.invars[: offset + inputs]), False, 0
    for eqn in code.jaxpr.eqns:
        if eqn.effects or eqn.primitive.name == "pure_callback":
            return None
        if all(_jax.is_literal(v) or v in early for v in eqn.invars):
            early.update(eqn.outvars)
            continue
        late = True
        longest = max((longest, *(n for v in eqn.outvars for n in v.aval.shape)))
    var = code.jaxpr.outvars[0]
    floating = not _jax.is_literal(var) and jnp.issubdtype(var.aval.dtype, jnp.floating)
    if not late or not floating or var in early or longest < FEWEST or costs.price(code) < WORTH:
        return None
    old = _price(code, inputs)
    if old < WORTH:
        return None
    reader: list[Reader] = []
    totals: list[Any] = []

    def read(*args: Array) -> Array:
        own = args if rows is None else (*args[:inputs], *args[inputs + 2 :])
        reader[:] = [Reader(code, inputs, own, longest, RATIO * old)]
        if rows is not None:
            reader[0].repeat(rows.roots, *args[inputs : inputs + 2])
        totals[:] = [reader[0].total()]
        return jnp.zeros((), var.aval.dtype) if totals[0] is None else totals[0]

    invars = code.jaxpr.invars[offset:]
    args = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in invars]
    args[inputs:inputs] = [] if rows is None else _avals(rows)
    traced, _ = _jax.trace(read, *args)
    asked = tuple(sorted(reader[0].asked or ()))
    if not isinstance(traced, _jax.Code):
        return None
    if totals[0] is None:
        return _Found(None, "", asked, longest)
    traced = _jax.select(traced, [0])
    new = _price(traced, inputs + 2 * (rows is not None))
    good = new < RATIO * old and old - new > WORTH
    done = dict.fromkeys(reader[0].said) or [f"sums over {longest} observations"]
    words = f"{'; '.join(done)}; {old / max(new, 1):.3g} times less arithmetic"
    return _Found(traced if good else None, words, asked, longest)


def _price(code: Any, inputs: int) -> int:
    return costs.price(costs.divide(code, inputs)[1])


@dataclass(frozen=True)
class Collapsed:
    """What became of the terms of a density.

    Attributes:
        terms: The program.
        constants: Arrays that the program before reads besides its arguments.
        asks: What could be gained if rows of data repeated.
    """

    terms: Terms
    constants: tuple[Any, ...] = ()
    asks: tuple[Ask, ...] = ()

    def choose(self, data: Sequence[Any]) -> list[tuple[Rows, tuple[np.ndarray, np.ndarray]]]:
        """The rows that repeat often enough in given data, with what stands for them; none in data that are traced."""
        found = []
        inputs = (*self.constants, *data)
        for ask in self.asks:
            arrays = [_on_host(inputs[i], axis) for i, axis in ask.roots]
            if any(x is None or len(x) != ask.count for x in arrays):
                continue
            rows = distinct(arrays, ask.count // 2)  # type: ignore[arg-type]
            kept = 0 if rows is None else room(len(rows[0]))
            if rows is not None and kept <= ask.count // 2:
                chosen = np.full(kept, rows[0][0], np.int32)
                chosen[: len(rows[0])] = rows[0]
                found.append((Rows(ask.term, ask.roots, ask.count, kept), (chosen, rows[1].astype(np.int32))))
        return found


def _on_host(x: Any, axis: int) -> np.ndarray | None:
    """The values of an array, its axis of observations first; None where they are not known here."""
    if isinstance(x, jax.core.Tracer) or (isinstance(x, jax.Array) and not x.is_fully_addressable):
        return None
    return np.moveaxis(np.asarray(x), axis, 0)


def collapse_terms(terms: Terms, inputs: int, skip: Collection[str], rows: Sequence[Rows], wanted: bool) -> Collapsed:
    """``collapse``, where it is wanted."""
    if not wanted or not isinstance(terms.code, _jax.Code):
        return Collapsed(terms)
    found, asks = collapse(terms, inputs, skip, rows)
    return Collapsed(found, terms.code.consts, () if rows else asks)
