"""Everything that reads or rewrites a jaxpr: the only file that touches ``jax.extend``.

A jaxpr is a straight-line program. Three read-only passes serve the language: which inputs an output depends on
(recursing into scan, to a fixpoint over the carry, and into cond and while), a structural key by which two traced
programs are the same, and which functions a program calls on the host. Rewrites only drop, inline or divide
(``costs``) equations; JAX itself runs the result.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.extend.core as jex
import numpy as np

Jaxpr = Any
Array = Any


def trace_state() -> Any:
    """An opaque object that changes inside every JAX transformation."""
    return jex.get_opaque_trace_state()


@dataclass(frozen=True)
class Code:
    """A traced program with its calls to jitted functions inlined.

    Attributes:
        jaxpr: Without constants; these are the first inputs.
        consts: Values of those first inputs.
    """

    jaxpr: Jaxpr
    consts: tuple[Any, ...]

    def run(self, *args: Array) -> list[Array]:
        """Evaluate, inside or outside of a JAX transformation."""
        return jex.jaxpr_as_fun(jex.ClosedJaxpr(self.jaxpr, ()))(*self.consts, *args)


def is_literal(atom: Any) -> bool:
    """Whether an operand is a constant in the text of the program."""
    return isinstance(atom, jex.Literal)


def rebuild(jaxpr: Jaxpr, invars: Sequence[Any], outvars: Sequence[Any], eqns: Sequence[Any]) -> Jaxpr:
    """The jaxpr with other equations, inputs and outputs."""
    info = jex.DebugInfo("ppl", "model", ("",) * len(invars), ("",) * len(outvars))
    return jex.Jaxpr((), tuple(invars), tuple(outvars), tuple(eqns), jaxpr.effects, info)


def trace(function: Callable, *args: Any) -> tuple[Any, Any]:
    """Trace a function of arrays; also return the structure of its output, with shapes.

    Where jaxprs cannot be rebuilt (an unfamiliar JAX), the function itself is kept: slower, never wrong.
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    try:
        invars = [*closed.jaxpr.constvars, *closed.jaxpr.invars]
        code = Code(rebuild(closed.jaxpr, invars, closed.jaxpr.outvars, closed.jaxpr.eqns), tuple(closed.consts))
        return inline(code), shape
    except (AttributeError, AssertionError, KeyError, TypeError, ValueError):
        count = len(jax.tree_util.tree_leaves(shape))
        return Opaque(function, jax.tree_util.tree_structure(args), tuple(range(count))), shape


@dataclass(frozen=True)
class Opaque:
    """A function kept as it is, in place of a ``Code``.

    Attributes:
        function: The traced function.
        treedef: Structure of its arguments.
        outputs: Which of its flattened outputs are wanted.
    """

    function: Callable
    treedef: Any
    outputs: tuple[int, ...]

    def run(self, *args: Array) -> list[Array]:
        """Evaluate, inside or outside of a JAX transformation."""
        result = jax.tree_util.tree_leaves(self.function(*jax.tree_util.tree_unflatten(self.treedef, args)))
        return [result[i] for i in self.outputs]


_CALLS = ("jit", "pjit", "closed_call", "core_call")


def subjaxpr(eqn: Any) -> Any:
    """The closed jaxpr of a call equation, or None."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = eqn.params.get(name)
        if inner is not None:
            return inner if hasattr(inner, "consts") else jex.ClosedJaxpr(inner, ())
    return None


def inline(code: Code) -> Code:
    """Replace calls of jitted functions by their bodies; custom derivatives stay calls."""
    constants: dict[Any, Any] = {}
    eqns: list[Any] = []

    def walk(jaxpr: Jaxpr, env: dict[Any, Any], top: bool) -> None:
        def read(atom: Any) -> Any:
            return atom if is_literal(atom) else env.get(atom, atom)

        for eqn in jaxpr.eqns:
            inner = subjaxpr(eqn) if eqn.primitive.name in _CALLS else None
            inputs = [read(v) for v in eqn.invars]
            if inner is not None:
                scope = dict(zip(inner.jaxpr.invars, inputs, strict=True))
                for var, value in zip(inner.jaxpr.constvars, inner.consts, strict=True):
                    scope[var] = constants.setdefault(id(value), (jex.Var(var.aval), value))[0]
                walk(inner.jaxpr, scope, False)
                for var, atom in zip(eqn.outvars, inner.jaxpr.outvars, strict=True):
                    env[var] = atom if is_literal(atom) else scope.get(atom, atom)
                continue
            if not top:
                fresh = [v if isinstance(v, jex.DropVar) else jex.Var(v.aval) for v in eqn.outvars]
                env.update(zip(eqn.outvars, fresh, strict=True))
                eqn = eqn.replace(invars=inputs, outvars=fresh)
            elif inputs != list(eqn.invars):
                eqn = eqn.replace(invars=inputs)
            eqns.append(eqn)

    env: dict[Any, Any] = {}
    walk(code.jaxpr, env, True)
    outvars = [v if is_literal(v) else env.get(v, v) for v in code.jaxpr.outvars]
    extra = list(constants.values())
    invars = [var for var, _ in extra] + list(code.jaxpr.invars)
    return Code(rebuild(code.jaxpr, invars, outvars, eqns), tuple(value for _, value in extra) + code.consts)


def select(code: Any, outputs: Sequence[int]) -> Any:
    """The same program with only some of its outputs, and only the equations that they need."""
    if isinstance(code, Opaque):
        return Opaque(code.function, code.treedef, tuple(code.outputs[i] for i in outputs))
    outvars = [code.jaxpr.outvars[i] for i in outputs]
    needed = {v for v in outvars if not is_literal(v)}
    kept = []
    for eqn in reversed(code.jaxpr.eqns):
        if eqn.effects or any(v in needed for v in eqn.outvars):
            kept.append(eqn)
            needed.update(v for v in eqn.invars if not is_literal(v))
    return Code(rebuild(code.jaxpr, code.jaxpr.invars, outvars, kept[::-1]), code.consts)


# ---------------------------------------------------------------------------------------------- dependence


def _fixpoint(jaxpr: Jaxpr, fixed: list[int], carry: list[int], moving: list[int]) -> list[int]:
    """Dependence of a loop body's outputs when its carry feeds back."""
    while True:
        out = _flow(jaxpr, [*fixed, *carry, *moving])
        after = [a | b for a, b in zip(carry, out[: len(carry)], strict=True)]
        if after == carry:
            return out
        carry = after


def _scan_counts(params: Any) -> tuple[int, int]:
    """Numbers of constants and of carries of a scan; since JAX 0.12 the tree of its inputs tells them."""
    if "ft_in" not in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)


def _flow_eqn(eqn: Any, masks: list[int]) -> list[int]:
    name, params = eqn.primitive.name, eqn.params
    if name == "scan":
        n, k = _scan_counts(params)
        out = _fixpoint(params["jaxpr"].jaxpr, masks[:n], masks[n : n + k], masks[n + k :])
        return [a | b for a, b in zip(out[:k], masks[n : n + k], strict=True)] + out[k:]
    if name == "while":
        c, b = params["cond_nconsts"], params["body_nconsts"]
        carry = masks[c + b :]
        out = _fixpoint(params["body_jaxpr"].jaxpr, masks[c : c + b], carry, [])
        carry = [x | y for x, y in zip(out, carry, strict=True)]
        stop = _flow(params["cond_jaxpr"].jaxpr, [*masks[:c], *carry])
        return [x | stop[0] for x in carry]
    if name == "cond":
        outs = [_flow(b.jaxpr, masks[1:]) for b in params["branches"]]
        return [functools.reduce(int.__or__, column, masks[0]) for column in zip(*outs, strict=True)]
    inner = subjaxpr(eqn)
    if inner is not None and len(inner.jaxpr.invars) == len(masks) and len(inner.jaxpr.outvars) == len(eqn.outvars):
        return _flow(inner.jaxpr, masks)
    return [functools.reduce(int.__or__, masks, 0)] * len(eqn.outvars)


def _flow(jaxpr: Jaxpr, masks: Sequence[int]) -> list[int]:
    env: dict[Any, int] = dict(zip(jaxpr.invars, masks, strict=True))
    for eqn in jaxpr.eqns:
        inputs = [0 if is_literal(v) else env.get(v, 0) for v in eqn.invars]
        env.update(zip(eqn.outvars, _flow_eqn(eqn, inputs), strict=True))
    return [0 if is_literal(v) else env.get(v, 0) for v in jaxpr.outvars]


def dependence(code: Any, inputs: int) -> list[set[int]]:
    """For each output, which of the ``inputs`` arguments it is computed from."""
    if isinstance(code, Opaque):
        return [set(range(inputs))] * len(code.outputs)
    constants = len(code.jaxpr.invars) - inputs
    masks = [0] * constants + [1 << i for i in range(inputs)]
    return [{i for i in range(inputs) if mask >> i & 1} for mask in _flow(code.jaxpr, masks)]


def host_functions(code: Any) -> list[Any]:
    """The functions that a program calls on the host, in order, with repetitions; those of gradients left out."""
    found: list[Any] = []

    def walk(jaxpr: Jaxpr) -> None:
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "pure_callback":
                found.append(getattr(eqn.params["callback"], "callback_func", None))
            for value in eqn.params.values():
                for inner in value if isinstance(value, (tuple, list)) else (value,):
                    inner = getattr(inner, "jaxpr", inner)
                    if isinstance(inner, jex.Jaxpr):
                        walk(inner)

    if isinstance(code, Code):
        walk(code.jaxpr)
    return found


# ---------------------------------------------------------------------------------------------- structural key


class _Same:
    """Equal only to a wrapper of the very same object."""

    __slots__ = ("thing",)

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.thing is other.thing

    def __hash__(self) -> int:
        return id(self.thing)


def _array_key(x: Any) -> Hashable:
    if isinstance(x, jax.core.Tracer):
        return _Same(x)
    x = np.asarray(x)
    return ("array", x.dtype.str, x.shape, x.tobytes())


def _param_key(x: Any) -> Hashable:
    if isinstance(x, jex.ClosedJaxpr):
        return ("closed", _jaxpr_key(x.jaxpr), tuple(_array_key(c) for c in x.consts))
    if isinstance(x, jex.Jaxpr):
        return _jaxpr_key(x)
    if isinstance(x, (np.ndarray, np.generic, jax.Array)):
        return _array_key(x)
    if isinstance(x, (tuple, list)):
        return (type(x).__name__, tuple(_param_key(v) for v in x))
    if isinstance(x, dict):
        return tuple(sorted((str(k), _param_key(v)) for k, v in x.items()))
    if isinstance(x, functools.partial):
        return _param_key(("partial", x.func, x.args, x.keywords))
    if hasattr(x, "callback_func"):  # JAX's wrapper of a function on the host is made anew by every trace
        return ("host", _param_key(x.callback_func), x.in_tree)
    if hasattr(x, "f") and hasattr(x, "transforms"):  # JAX's wrapped functions: the function inside decides
        return ("wrapped", _param_key(x.f), tuple(_param_key(t) for pair in x.transforms for t in pair))
    if callable(x) and not isinstance(x, type):
        return ("method", _Same(x.__func__), _Same(x.__self__)) if hasattr(x, "__func__") else _Same(x)
    try:
        hash(x)
    except TypeError:
        return _Same(x)
    return x


_NO_MATTER = ("name", "debug_info", "source_info", "ft_in", "ft_out")  # of the last two only the counts matter


_DERIVATIVES = ("fwd_jaxpr_thunk", "bwd", "out_trees")


def _graded(eqn: Any) -> bool:
    """Whether an equation is a call of the host that knows its own gradient: each trace wraps that anew."""
    inner = subjaxpr(eqn) if eqn.primitive.name == "custom_vjp_call" else None
    if inner is None or len(inner.jaxpr.eqns) != 1:
        return False
    calls = host_functions(Code(inner.jaxpr, ()))
    return len(calls) == 1 and getattr(calls[0], "gradient", None) is not None


def _aval_key(aval: Any) -> Hashable:
    return (tuple(getattr(aval, "shape", ())), str(getattr(aval, "dtype", aval)), getattr(aval, "weak_type", False))


def _jaxpr_key(jaxpr: Jaxpr) -> Hashable:
    number: dict[Any, int] = {}

    def ref(atom: Any) -> Hashable:
        if is_literal(atom):
            return ("literal", _array_key(atom.val), _aval_key(atom.aval))
        return number.setdefault(atom, len(number))

    heads = tuple((ref(v), _aval_key(v.aval)) for v in (*jaxpr.constvars, *jaxpr.invars))

    def eqn_key(eqn: Any) -> Hashable:
        drop = (*_NO_MATTER, *_DERIVATIVES) if _graded(eqn) else _NO_MATTER
        names = sorted(name for name in eqn.params if name not in drop)
        counts = _scan_counts(eqn.params) if eqn.primitive.name == "scan" else ()
        inputs = tuple(ref(v) for v in eqn.invars)
        outputs = tuple((ref(v), _aval_key(v.aval)) for v in eqn.outvars)
        params = tuple((name, _param_key(eqn.params[name])) for name in names)
        return (eqn.primitive.name, counts, inputs, outputs, params)

    body = tuple(eqn_key(eqn) for eqn in jaxpr.eqns)
    return (heads, body, tuple(ref(v) for v in jaxpr.outvars))


def key(code: Any) -> Hashable:
    """A hashable key, equal for two programs that compute the same by the same steps.

    Functions held by equations (custom derivatives) count by identity; constants by content.
    """
    if isinstance(code, Opaque):
        return _Same(code)
    return (_jaxpr_key(code.jaxpr), tuple(_array_key(c) for c in code.consts))


# ------------------------------------------------------------------------------------------ joining programs


def library_function(eqn: Any) -> str | None:
    """The name of the function of JAX with a derivative of its own that an equation calls, None for any other."""
    if eqn.primitive.name != "custom_jvp_call" or eqn.params.get("num_consts"):
        return None
    try:
        info = eqn.params["call_jaxpr"].jaxpr.debug_info
        own = os.path.dirname(os.path.abspath(jax.__file__)) in info.func_src_info
        return info.func_name if own else None
    except (AttributeError, KeyError, TypeError):
        return None


def parameter_key(x: Any) -> Hashable:
    """A hashable key of a parameter of an equation."""
    return _param_key(x)


def evaluate(jaxpr: Jaxpr, eqn: Any, args: Sequence[Array]) -> list[Array]:
    """The outputs of one equation of a jaxpr."""
    if subjaxpr(eqn) is None and not any(isinstance(v, (tuple, list, jex.ClosedJaxpr)) for v in eqn.params.values()):
        found = eqn.primitive.bind(*args, **eqn.params)
        return list(found) if eqn.primitive.multiple_results else [found]
    return _one(jaxpr, eqn, args)


def _one(jaxpr: Jaxpr, eqn: Any, args: Sequence[Array]) -> list[Array]:
    invars = [jex.Var(v.aval) for v in eqn.invars]
    outvars = [jex.Var(v.aval) for v in eqn.outvars]
    code = Code(rebuild(jaxpr, invars, outvars, [eqn.replace(invars=invars, outvars=outvars)]), ())
    return code.run(*args)


def widen(code: Code, place: int, avals: Sequence[Any]) -> Code:
    """The same program with arguments that it does not read, at a place among its arguments."""
    at = len(code.consts) + place
    invars = list(code.jaxpr.invars)
    invars[at:at] = [jex.Var(jax.core.ShapedArray(a.shape, a.dtype)) for a in avals]
    return Code(rebuild(code.jaxpr, invars, code.jaxpr.outvars, code.jaxpr.eqns), code.consts)


def join(codes: Sequence[Code]) -> Code:
    """One program of the same arguments with the outputs of all."""
    count = len(codes[0].jaxpr.invars) - len(codes[0].consts)
    shared = [jex.Var(v.aval) for v in codes[0].jaxpr.invars[len(codes[0].jaxpr.invars) - count :]]
    heads: list[Any] = []
    consts: list[Any] = []
    eqns: list[Any] = []
    outvars: list[Any] = []
    for code in codes:
        own = [jex.Var(v.aval) for v in code.jaxpr.invars[: len(code.consts)]]
        env: dict[Any, Any] = dict(zip(code.jaxpr.invars, (*own, *shared), strict=True))
        for eqn in code.jaxpr.eqns:
            fresh = [v if isinstance(v, jex.DropVar) else jex.Var(v.aval) for v in eqn.outvars]
            inputs = [v if is_literal(v) else env[v] for v in eqn.invars]
            env.update(zip(eqn.outvars, fresh, strict=True))
            eqns.append(eqn.replace(invars=inputs, outvars=fresh))
        outvars += [v if is_literal(v) else env[v] for v in code.jaxpr.outvars]
        heads += own
        consts += code.consts
    return Code(rebuild(codes[0].jaxpr, [*heads, *shared], outvars, eqns), tuple(consts))
