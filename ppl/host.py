"""Calls of functions outside of JAX from inside compiled programs: the only file that makes host callbacks.

A call is a frozen value, so two traces of one model hold equal calls and share one compilation. Under ``vmap`` the
call is still one call of the host, with the batch's axes in front. The callee may fail, return the wrong shape or a
NaN: each is found here, where the arguments are at hand, and reaches the user as the error of his own function, once
it has crossed the compiled program (``surfacing``).

JAX keeps no executable with such a call in its persistent cache: a program that calls the host compiles once per
process.
"""

from __future__ import annotations

import collections
import functools
import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _jax
from .errors import ModelError, at

Array = Any

_one_at_a_time = threading.RLock()  # user code need not be safe in threads, and chains may run in several
_TOLERATED = (ArithmeticError, ValueError, RuntimeError)  # what solvers raise at arguments that are not finite


@dataclass(frozen=True)
class HostCall:
    """A function on the host with what must hold of its results; called by JAX with the batch's axes in front.

    Attributes:
        name: The user's name for it, for messages.
        function: From arrays to one array, or to a tuple of ``len(results)``.
        ndims: Numbers of axes of one element of each argument.
        results: Shape and dtype of one element of each result.
        batched: Whether the function takes all elements at once, along a leading axis.
        pool: None for one element at a time; threads or an executor for several.
        strict: Whether a NaN at finite arguments is an error.
        gradient: The function that gives the gradient of the call, where it has one.
        source: The user's line.
    """

    name: str
    function: Callable[..., Any]
    ndims: tuple[int, ...]
    results: tuple[tuple[tuple[int, ...], str], ...]
    batched: bool = False
    pool: Any = None
    strict: bool = True
    gradient: Any = None
    source: str = field(default="", compare=False)

    def __call__(self, *args: Any) -> tuple[np.ndarray, ...]:
        """Results for a batch, or an error that ``surfacing`` turns into the user's own."""
        try:
            return self._evaluate([np.asarray(arg) for arg in args])
        except (Exception, KeyboardInterrupt) as error:
            raise _Failure(_remember(error, self)) from error

    def _evaluate(self, args: list[np.ndarray]) -> tuple[np.ndarray, ...]:
        leads = [arg.shape[: arg.ndim - n] for arg, n in zip(args, self.ndims, strict=True)]
        batch = np.broadcast_shapes(*leads)
        rows = int(np.prod(batch, dtype=int))
        flat = [_rows(arg, lead, batch) for arg, lead in zip(args, leads, strict=True)]
        outside = np.zeros(rows, bool)  # where an argument is not finite: a trajectory on its way out
        for arg in flat:
            if arg.dtype.kind == "f" and rows:
                own = arg if _varies(arg) else arg[:1]
                outside |= ~np.isfinite(own).all(axis=tuple(range(1, own.ndim)))
        with nullcontext() if self.pool is not None else _one_at_a_time:
            results = (self._together if self.batched else self._apart)(flat, outside)
        for result in results:
            if self.strict and result.dtype.kind == "f":
                wrong = np.flatnonzero(np.isnan(result).any(axis=tuple(range(1, result.ndim))) & ~outside)
                if len(wrong):
                    raise ModelError(self._nan_text([arg[wrong[0]] for arg in flat]))
        return tuple(result.reshape(batch + result.shape[1:]) for result in results)

    def _together(self, flat: list[np.ndarray], outside: np.ndarray) -> list[np.ndarray]:
        rows = len(outside)
        if outside.any() and not outside.all():
            stand_in = np.where(outside, np.flatnonzero(~outside)[0], np.arange(rows))
            flat = [arg[stand_in] if _varies(arg) else arg for arg in flat]
        try:
            results = self._checked(self.function(*flat), (rows,))
        except _TOLERATED as error:
            if isinstance(error, ModelError) or not outside.all() or not rows:
                raise
            return self._nothing(rows)
        for result in results:
            if result.dtype.kind == "f" and outside.any():
                result[outside] = np.nan
        return results

    def _apart(self, flat: list[np.ndarray], outside: np.ndarray) -> list[np.ndarray]:
        rows = len(outside)
        # padded pieces and lanes repeat elements, and one call may take minutes
        varying = [arg for arg in flat if _varies(arg)]
        keys = [b"".join(arg[i].tobytes() for arg in varying) for i in range(rows)]
        first: dict[bytes, int] = {}
        for i, key in enumerate(keys):
            first.setdefault(key, i)
        wanted = list(first.values())
        elements = [tuple(arg[i] for arg in flat) for i in wanted]
        found = dict(zip(wanted, self._map(elements, outside[wanted]), strict=True))
        picked = [found[first[key]] for key in keys]
        if not picked:
            return self._nothing(0)
        return [np.stack([row[k] for row in picked]) for k in range(len(self.results))]

    def _map(self, elements: list[tuple], outside: np.ndarray) -> Iterator[Any]:
        executor = _threads(self.pool) if isinstance(self.pool, int) else self.pool
        if isinstance(executor, Executor) and len(elements) > 1:
            futures = [executor.submit(self.function, *element) for element in elements]
            calls: list[Callable[[], Any]] = [future.result for future in futures]
        else:
            calls = [functools.partial(self.function, *element) for element in elements]
        for call, odd in zip(calls, outside, strict=True):
            try:
                yield self._checked(call(), ())
            except _TOLERATED as error:
                if isinstance(error, ModelError) or not odd:
                    raise
                yield [row[0] for row in self._nothing(1)]

    def _nothing(self, rows: int) -> list[np.ndarray]:
        return [np.full((rows, *shape), np.nan, dtype) for shape, dtype in self.results]

    def _checked(self, result: Any, lead: tuple[int, ...]) -> list[np.ndarray]:
        """The results as arrays of the declared shapes and dtypes."""
        several = len(self.results) > 1
        if several and not (isinstance(result, (tuple, list)) and len(result) == len(self.results)):
            raise ModelError(f"{self._what()} must return {len(self.results)} results, not {_describe(result)}")
        parts = list(result) if several else [result]
        return [self._part(i, part, lead) for i, part in enumerate(parts)]

    def _part(self, index: int, value: Any, lead: tuple[int, ...]) -> np.ndarray:
        shape, dtype = self.results[index]
        if isinstance(value, jax.Array):
            raise ModelError(
                f"{self._what()} returned a JAX array: what JAX computes belongs into the model itself, where it is "
                "compiled and differentiated. Call the function there; on the host compute with NumPy."
            )
        array = np.asarray(value)
        if array.dtype.kind not in "biuf" or not np.can_cast(array.dtype, dtype, "same_kind"):
            raise ModelError(f"{self._what()} returned {_describe(value)} where {dtype} is declared; set dtype=")
        if array.shape != lead + shape:
            rows = " (batched: one leading entry per element)" if lead else ""
            raise ModelError(
                f"{self._what()} returned shape {array.shape}, but {lead + shape} is declared{rows}. Results are "
                f"never broadcast: return that shape, or declare it, shape={array.shape[len(lead) :]}."
            )
        return np.array(array, dtype)

    def _what(self) -> str:
        return f"external function {self.name!r}"

    def _nan_text(self, element: Sequence[Any]) -> str:
        shown = ", ".join(np.array2string(np.asarray(x), precision=6, threshold=8) for x in element)
        return (
            f"{self._what()} returned nan at ({shown}), where every argument is finite:\n{at(self.source)}\n"
            "  Return -numpy.inf as the log density of what is impossible, or say nan='reject': a value that is nan "
            "is then one that no engine accepts."
        )


def _rows(arg: np.ndarray, lead: tuple[int, ...], batch: tuple[int, ...]) -> np.ndarray:
    """An argument with one leading axis over the batch; one that does not vary is not copied."""
    core, rows = arg.shape[len(lead) :], int(np.prod(batch, dtype=int))
    if all(size == 1 for size in lead):
        return np.broadcast_to(arg.reshape(1, *core), (rows, *core))
    return np.broadcast_to(arg, batch + core).reshape(rows, *core)


def _varies(arg: np.ndarray) -> bool:
    """Whether the elements of a batch differ in an argument."""
    return len(arg) > 1 and arg.strides[0] != 0


def _describe(value: Any) -> str:
    if value is None:
        return "None (is a return statement missing?)"
    array = np.asarray(value)
    return type(value).__name__ if array.dtype.kind == "O" else f"{array.dtype} of shape {array.shape}"


@functools.cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="ppl-external")


def invoke(call: HostCall, *args: Array) -> tuple[Array, ...]:
    """Call the host from traced code."""
    shapes = tuple(jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)) for shape, dtype in call.results)
    return tuple(jax.pure_callback(call, shapes, *args, vmap_method="expand_dims"))


@functools.lru_cache(maxsize=1024)
def interned(call: HostCall) -> HostCall:
    """One object for all equal calls, by which traced programs are compared."""
    return call


# ---------------------------------------------------------------------------------------------- errors


class _Failure(RuntimeError):
    """Carries the number of a remembered error through the compiled program."""


class _Repeated(logging.Filter):
    """Keeps JAX from logging an error that is on its way to the user."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is about another error than ours."""
        return not (record.exc_info and isinstance(record.exc_info[1], _Failure))


_repeated = _Repeated()

_failures: collections.OrderedDict[str, BaseException] = collections.OrderedDict()
_numbers = itertools.count(1)


def _remember(error: BaseException, call: HostCall) -> str:
    line = at(call.source).strip() if call.source else ""
    error.add_note(f"in the external function {call.name!r}" + (f", called {line}" if line else ""))
    token = f"[external call {next(_numbers)} failed]"
    _failures[token] = error
    while len(_failures) > 64:
        _failures.popitem(last=False)
    for handler in (*logging.getLogger("jax").handlers, *logging.getLogger().handlers, logging.lastResort):
        if handler is not None:
            handler.addFilter(_repeated)  # once, however often it is added
    return f"{token} {call.name}: {type(error).__name__}: {error}"


@contextmanager
def _surfacing() -> Iterator[None]:
    try:
        yield
    except Exception as failure:  # JaxRuntimeError, or ValueError by JAX's fast path
        text = str(failure) if _failures else ""
        for token in list(_failures):
            if token in text:
                raise _failures.pop(token) from None
        raise


def surfacing(function: Callable[..., Any] | None = None) -> Any:
    """Let an error of a function on the host reach the caller as it was raised; a decorator or a context.

    JAX reports such an error as one of its own, with the traceback as text. Here the exception itself goes on, with
    its traceback and a note that names the external function.
    """
    if function is None:
        return _surfacing()

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _surfacing():
            return function(*args, **kwargs)

    return call


def host_names(code: Any, graded: bool | None = None) -> tuple[str, ...]:
    """Names of the functions on the host that a program calls, all or those with or without a gradient."""
    found: dict[str, None] = {}
    for call in _jax.host_functions(code):
        known = isinstance(call, HostCall)
        if graded is None or graded == (known and call.gradient is not None):
            found[call.name if known else "pure_callback"] = None
    return tuple(found)
