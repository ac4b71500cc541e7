"""What a traced program costs, and its division into what reads only data and the rest.

Work counts array elements, loops in full; the price weighs them by what computing one takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._jax import Code, Opaque, is_literal, rebuild, select, subjaxpr

_DEAR = frozenset(
    "exp exp2 log log2 log1p expm1 sin cos tan tanh logistic erf erfc erf_inv lgamma digamma pow sqrt rsqrt div atan2 "
    "asin acos atan igamma igammac bessel_i0e bessel_i1e polygamma regularized_incomplete_beta cbrt".split()
)
_SPECIAL = frozenset("lgamma digamma polygamma igamma igammac regularized_incomplete_beta erf_inv".split())
_HEAVY = frozenset(
    "dot_general cholesky triangular_solve scan while eigh svd qr lu fft sort pure_callback".split()
)
CALL = 10_000
"""Work of one call of a function on the host: some ten microseconds before that function has done anything."""


def _size(aval: Any) -> int:
    return int(np.prod(getattr(aval, "shape", ()), dtype=np.int64))


def _eqn_work(eqn: Any) -> int:
    name = eqn.primitive.name
    if name == "pure_callback":
        return CALL
    if name == "scan":
        return eqn.params["length"] * sum(_eqn_work(e) for e in eqn.params["jaxpr"].jaxpr.eqns)
    if name == "cond":
        return max(sum(_eqn_work(e) for e in b.jaxpr.eqns) for b in eqn.params["branches"])
    if name == "while":
        return sum(_eqn_work(e) for e in eqn.params["body_jaxpr"].jaxpr.eqns)
    size = max((_size(v.aval) for v in eqn.outvars), default=1)
    if name == "dot_general":
        (contract, _), _ = eqn.params["dimension_numbers"]
        return size * int(np.prod([eqn.invars[0].aval.shape[i] for i in contract], dtype=np.int64))
    if name in ("cholesky", "triangular_solve", "eigh", "svd", "qr", "lu"):
        return size * int(eqn.invars[0].aval.shape[-1]) // 3 + 1
    inner = subjaxpr(eqn)
    return sum(_eqn_work(e) for e in inner.jaxpr.eqns) if inner is not None else size


def price(code: Code) -> int:
    """Arithmetic operations of one evaluation, roughly: a logarithm counts for ten, special functions for fifty."""
    return sum(equation_price(e) for e in code.jaxpr.eqns)


def equation_price(eqn: Any) -> int:
    """The share of one equation in the price of a program."""
    return _eqn_work(eqn) * (1 if _cheap(eqn) else 50 if eqn.primitive.name in _SPECIAL else 10)


def work(code: Any) -> int:
    """Number of array elements that one evaluation computes, loops counted in full; 0 where unknown."""
    return 0 if isinstance(code, Opaque) else int(sum(_eqn_work(e) for e in code.jaxpr.eqns))


def _cheap(eqn: Any) -> bool:
    return eqn.primitive.name not in (*_DEAR, *_HEAVY) and subjaxpr(eqn) is None


def divide(code: Code, known: int) -> tuple[Code, Code, list[int], int]:
    """Split a program into what needs only its first ``known`` arguments and the rest.

    No intermediate result is handed over that is eight times larger than what it was computed from, unless
    computing it again costs more than reading it.

    Returns:
        ``(before, after, used, saved)``: ``before`` maps the known arguments to residuals; ``after`` maps
        ``(residuals, known arguments listed in used, others)`` to the outputs; ``saved`` is what runs once, priced.
    """
    jaxpr, constants = code.jaxpr, len(code.consts)
    first, rest = jaxpr.invars[: constants + known], jaxpr.invars[constants + known :]
    early = set(first)
    producer: dict[Any, Any] = {}
    late = []
    for eqn in jaxpr.eqns:
        if not eqn.effects and all(is_literal(v) or v in early for v in eqn.invars):
            early.update(eqn.outvars)
            producer.update(dict.fromkeys(eqn.outvars, eqn))
        else:
            late.append(eqn)
    residual: dict[Any, None] = {}
    again: dict[int, Any] = {}

    def need(var: Any) -> None:
        if is_literal(var) or var not in early:
            return
        eqn = producer.get(var)
        if eqn is None:
            residual.setdefault(var)
            return
        read = sum(_size(v.aval) for v in eqn.invars if not is_literal(v))
        if _cheap(eqn) and _size(var.aval) > 8 * read:
            if id(eqn) not in again:
                again[id(eqn)] = eqn
                for v in eqn.invars:
                    need(v)
        else:
            residual.setdefault(var)

    for v in (*(v for eqn in late for v in eqn.invars), *jaxpr.outvars):
        need(v)
    heads = [v for v in residual if v not in producer]
    kept = [v for v in residual if v in producer]
    order = {id(e): i for i, e in enumerate(jaxpr.eqns)}
    after_eqns = sorted([*again.values(), *late], key=lambda e: order[id(e)])
    before = select(Code(rebuild(jaxpr, first, kept, jaxpr.eqns), code.consts), range(len(kept)))
    constant_heads = [v for v in heads if first.index(v) < constants]
    data_heads = [v for v in heads if first.index(v) >= constants]
    after = Code(
        rebuild(jaxpr, [*constant_heads, *kept, *data_heads, *rest], jaxpr.outvars, after_eqns),
        tuple(code.consts[first.index(v)] for v in constant_heads),
    )
    used = [first.index(v) - constants for v in data_heads]
    return before, after, used, price(before)
