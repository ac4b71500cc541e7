"""Functions outside of JAX inside a model: simulators, solvers and likelihoods written in anything.

``external`` calls y = f(x_1, ..., x_k) on the host from inside the compiled program. All elements of a batch (chains,
elements of plates) arrive in one call. Without a gradient of f the model's density has none, and engines that follow
gradients refuse it before they run. With one, the chain rule goes through: the host returns the gradient of a scalar
result, or the product of the Jacobian's transpose with a cotangent.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import trace
from .errors import ModelError, at, user_line
from .host import HostCall, interned, invoke, surfacing

Array = Any


def external(
    function: Any,
    *args: Any,
    shape: tuple[int, ...] = (),
    dtype: Any = float,
    grad: Callable[..., Any] | bool | None = None,
    batched: bool = False,
    pool: Any = None,
    nan: str = "error",
) -> Array:
    """Call a function on the host, outside of JAX, on values of the model.

    The function receives NumPy arrays and returns one array. It must be pure: equal arguments, equal results. JAX
    may call it any number of times, or not at all where the result is not needed; a call that reads data only runs
    once. Where an argument is not finite (a trajectory on its way out), what the function raises or returns counts
    as NaN, which no engine accepts; elsewhere its exceptions reach the caller with their own traceback.

    Args:
        function: The function; a name for messages may stand before it, ``external("solver", solve, theta)``.
        *args: Arrays that it is called with: random variables, data, or what is computed of them.
        shape: Shape of the result for one element.
        dtype: Its dtype, ``float`` (in the precision of the run), ``int`` or ``bool``.
        grad: For a scalar result ``grad(*args)``, the gradients with respect to the arguments; else
            ``grad(*args, cotangent)``, the vector-Jacobian products. One array for one argument, otherwise a tuple
            with an entry per argument, None for those that are only data. ``True`` says that ``function`` itself
            returns ``(value, gradients)`` of a scalar value, in one call.
        batched: Whether the functions take all elements of a batch at once: every argument and result then has one
            leading axis. Otherwise they are called element by element, equal ones once.
        pool: A number of threads, or a ``concurrent.futures.Executor`` (of processes, say), in which the elements of
            a batch are evaluated; None calls one at a time, also when chains run in several threads.
        nan: ``"error"`` raises where a NaN is returned at finite arguments; ``"reject"`` lets it make the value
            inadmissible.

    Returns:
        The result, an array of ``shape``.

    Raises:
        ModelError: A result of the wrong shape or dtype, or a NaN.

    Example:
        >>> import math, ppl
        >>> from ppl import dist
        >>> @ppl.model
        ... def count(n):
        ...     rate = ppl.sample("rate", dist.LogNormal(0.0, 1.0))
        ...     ppl.factor("like", ppl.external(lambda r, n: n * math.log(r) - r, rate, n))
        >>> density = ppl.compile(count(3.0))
        >>> round(float(density([0.0])), 4), density.external, density.differentiable
        (-1.9189, ('<lambda>',), False)
    """
    name = function if isinstance(function, str) else None
    if name is not None:
        function, args = (args[0], args[1:]) if args else (None, ())
    source = user_line()
    name = _scope() + str(name or getattr(function, "__name__", type(function).__name__))
    _refuse(name, function, grad, shape, nan, source)
    values = [_argument(name, i, value, source) for i, value in enumerate(args)]
    number = {float: jnp.result_type(float), int: jnp.result_type(int)}.get(dtype, dtype)
    if grad is not None and np.dtype(number).kind != "f":
        raise ModelError(f"external function {name!r} has a gradient but the dtype {number}:\n{at(source)}")
    call = HostCall(
        name,
        _hashable(function if grad is not True else _Value(_hashable(function))),
        tuple(np.ndim(value) for value in values),
        ((tuple(int(n) for n in shape), np.dtype(number).str),),
        batched,
        pool,
        nan == "error",
        _hashable(function if grad is True else grad),
        source,
    )
    call = interned(call)
    with surfacing():
        if grad is None:
            return invoke(call, *values)[0]
        return _differentiable(call, grad is True)(*values)


def _scope() -> str:
    frame = getattr(trace._ambient, "frame", None)
    return frame.scope if frame is not None else ""


def _refuse(name: str, function: Any, grad: Any, shape: Any, nan: str, source: str) -> None:
    if not callable(function) or isinstance(function, type):
        raise ModelError(f"ppl.external takes a function, not {function!r}:\n{at(source)}")
    if nan not in ("error", "reject"):
        raise ModelError(f'external function {name!r}: nan= is "error" or "reject", not {nan!r}:\n{at(source)}')
    if not isinstance(shape, tuple | list) or not all(isinstance(n, int | np.integer) for n in shape):
        raise ModelError(
            f"external function {name!r}: shape={shape!r} is not a tuple of whole numbers that is known when the model "
            f"is compiled:\n{at(source)}"
        )
    if grad is True and tuple(shape) != ():
        raise ModelError(
            f"external function {name!r}: grad=True is for a scalar result, which has a gradient; for shape "
            f"{tuple(shape)} give grad=, a function of the arguments and a cotangent:\n{at(source)}"
        )
    if grad is not None and grad is not True and not callable(grad):
        raise ModelError(f"external function {name!r}: grad= is a function or True, not {grad!r}:\n{at(source)}")


def _argument(name: str, index: int, value: Any, source: str) -> Array:
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        raise ModelError(
            f"argument {index} of the external function {name!r} is no array but {type(value).__name__}:\n{at(source)}"
            "\n  Bind what is not an array beforehand: functools.partial(f, settings)."
        ) from None


class _ById:
    """A callable that cannot be hashed, compared by identity."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


def _hashable(function: Any) -> Any:
    try:
        hash(function)
    except TypeError:
        return _ById(function)
    return function


# ---------------------------------------------------------------------------------------------- gradients


@dataclass(frozen=True)
class _Value:
    """The value of a function that returns ``(value, gradients)``."""

    function: Any

    def __call__(self, *args: Any) -> Any:
        return _pair(self.function(*args))[0]


@dataclass(frozen=True)
class _Both:
    """Value and wanted gradients of such a function."""

    function: Any
    count: int
    wanted: tuple[int, ...]

    def __call__(self, *args: Any) -> Any:
        value, gradients = _pair(self.function(*args))
        return (value, *_chosen(gradients, self.count, self.wanted)) if self.wanted else value


@dataclass(frozen=True)
class _Gradients:
    """The wanted ones of what a gradient function returns."""

    function: Any
    count: int
    wanted: tuple[int, ...]

    def __call__(self, *args: Any) -> Any:
        chosen = _chosen(self.function(*args), self.count, self.wanted)
        return chosen if len(chosen) > 1 else chosen[0]


def _pair(result: Any) -> tuple[Any, Any]:
    if not (isinstance(result, tuple | list) and len(result) == 2):
        raise ModelError(f"with grad=True the function returns (value, gradients), not {type(result).__name__}")
    return result[0], result[1]


def _chosen(gradients: Any, count: int, wanted: tuple[int, ...]) -> tuple[Any, ...]:
    """Gradients by argument, of which some are wanted."""
    if count == 1 and not isinstance(gradients, tuple):
        gradients = (gradients,)
    if not isinstance(gradients, tuple | list) or len(gradients) != count:
        got = f"{len(gradients)} entries" if isinstance(gradients, tuple | list) else type(gradients).__name__
        raise ModelError(
            f"a gradient of a function of {count} arguments is a tuple of {count} entries (None for arguments that "
            f"are only data), not {got}"
        )
    missing = [i for i in wanted if gradients[i] is None]
    if missing:
        raise ModelError(
            f"the gradient with respect to argument {missing[0]} is None, but that argument is computed from what is "
            "inferred"
        )
    return tuple(gradients[i] for i in wanted)


@functools.lru_cache(maxsize=1024)
def _differentiable(call: HostCall, joint: bool) -> Any:
    """The call with its gradient as a custom derivative, one object for equal calls."""
    scalar, grad = call.results[0][0] == (), call.gradient
    count = len(call.ndims)

    def gradient_call(wanted: tuple[int, ...], values: tuple) -> HostCall:
        kinds = tuple((tuple(np.shape(values[i])), np.dtype(values[i].dtype).str) for i in wanted)
        if joint:
            made = replace(call, function=_Both(grad, count, wanted), results=(*call.results, *kinds))
        else:
            ndims = call.ndims if scalar else (*call.ndims, len(call.results[0][0]))
            name = f"gradient of {call.name}"
            made = replace(call, name=name, function=_Gradients(grad, count, wanted), ndims=ndims, results=kinds)
        return interned(made)

    @jax.custom_vjp
    def evaluate(*values: Array) -> Array:
        return invoke(call, *values)[0]

    def forward(*primals: Any) -> tuple[Array, Any]:
        values = tuple(primal.value for primal in primals)
        wanted = tuple(
            i
            for i, primal in enumerate(primals)
            if primal.perturbed and jnp.issubdtype(primal.value.dtype, jnp.inexact)
        )
        if joint:
            value, *gradients = invoke(gradient_call(wanted, values), *values)
            return value, dict(zip(wanted, gradients, strict=True))
        return invoke(call, *values)[0], (values, dict.fromkeys(wanted))

    def backward(residuals: Any, cotangent: Any) -> tuple[Any, ...]:
        zero = isinstance(cotangent, jax.custom_derivatives.SymbolicZero)
        if joint:
            wanted, gradients = tuple(residuals), tuple(residuals.values())
        else:
            values, keys = residuals
            wanted = tuple(keys)
            if zero or not wanted:
                return (None,) * count
            gradients = invoke(gradient_call(wanted, values), *values, *(() if scalar else (cotangent,)))
        if zero:
            return (None,) * count
        scaled = [cotangent * g if scalar else g for g in gradients]
        return tuple(scaled[wanted.index(i)] if i in wanted else None for i in range(count))

    evaluate.defvjp(forward, backward, symbolic_zeros=True)
    return evaluate
