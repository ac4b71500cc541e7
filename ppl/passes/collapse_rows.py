"""Repeated rows: which observations have the same data, found on the host.

An observation's term reads, of the data, its own row of some arrays. ``Locality`` proves that on the jaxpr: the entries
i of an array along an axis are functions of the entries i of certain inputs and of nothing else that varies along it.
Observations whose rows are equal then have equal terms, so the term is computed once for each distinct row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _jax

Root = tuple[int, int]  # input of a program, axis

ELEMENTWISE = frozenset(
    "abs acos acosh add and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp "
    "convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt igamma igammac "
    "integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg nextafter not or polygamma pow "
    "regularized_incomplete_beta rem round rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan tanh "
    "xor".split()
)
CUSTOM = frozenset("xlogy xlog1py logaddexp log_ndtr relu logit".split())
REDUCTIONS = frozenset("reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or argmax argmin".split())
SAMPLE = 4096


def elementwise(eqn: Any) -> bool:
    """Whether each element of the output is a function of the operands' elements in its place."""
    return eqn.primitive.name in ELEMENTWISE or _jax.library_function(eqn) in CUSTOM


def kept_axes(before: Sequence[int], after: Sequence[int]) -> dict[int, int] | None:
    """Where the axes longer than one go in a reshape that only adds or drops axes of length one."""
    old = [a for a, n in enumerate(before) if n != 1]
    new = [a for a, n in enumerate(after) if n != 1]
    return dict(zip(old, new, strict=True)) if [before[a] for a in old] == [after[a] for a in new] else None


def gather_axis(eqn: Any) -> tuple[int, int] | None:
    """Of a gather of single entries along one axis: that axis, and the axis of the output that holds them."""
    numbers, operand, indices = eqn.params["dimension_numbers"], eqn.invars[0].aval, eqn.invars[1].aval
    sizes = eqn.params["slice_sizes"]
    if tuple(numbers.operand_batching_dims) or not indices.ndim:
        return None
    picked = [a for a, n in enumerate(operand.shape) if sizes[a] != n]
    long = [a for a, n in enumerate(indices.shape[:-1]) if n != 1]
    if len(picked) != 1 or sizes[picked[0]] != 1 or picked[0] not in numbers.start_index_map or len(long) != 1:
        return None
    free = [a for a in range(len(eqn.outvars[0].aval.shape)) if a not in numbers.offset_dims]
    return picked[0], free[long[0]]


class Locality:
    """Which inputs the rows of an intermediate read."""

    def __init__(self, jaxpr: Any, count: int) -> None:
        """Look at a jaxpr of which the first ``count`` inputs are data."""
        self.inputs = {v: i for i, v in enumerate(jaxpr.invars)}
        self.count = count
        self.producer = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}
        self.seen: dict[tuple[Any, int], frozenset[Root] | None] = {}

    def roots(self, var: Any, axis: int) -> frozenset[Root] | None:
        """Inputs whose rows determine those of ``var`` along an axis; None where more does, or it is not known."""
        if _jax.is_literal(var) or not var.aval.shape or var.aval.shape[axis] == 1:
            return frozenset()
        if (var, axis) not in self.seen:
            self.seen[var, axis] = self._roots(var, axis)
        return self.seen[var, axis]

    def _union(self, pairs: Iterable[tuple[Any, int]]) -> frozenset[Root] | None:
        found: frozenset[Root] = frozenset()
        for var, axis in pairs:
            part = self.roots(var, axis)
            if part is None:
                return None
            found |= part
        return found

    def _roots(self, var: Any, axis: int) -> frozenset[Root] | None:
        if var in self.inputs:
            return frozenset({(self.inputs[var], axis)}) if self.inputs[var] < self.count else None
        eqn = self.producer.get(var)
        if eqn is None or len(eqn.outvars) != 1:
            return None
        name, params, args = eqn.primitive.name, eqn.params, eqn.invars
        shape = args[0].aval.shape if args else ()
        if elementwise(eqn):
            if name == "clamp" or any(len(v.aval.shape) not in (0, len(var.aval.shape)) for v in args):
                return None
            return self._union((v, axis) for v in args if v.aval.shape)
        if name == "broadcast_in_dim":
            dims = list(params["broadcast_dimensions"])
            return self.roots(args[0], dims.index(axis)) if axis in dims else frozenset()
        if name in ("reshape", "squeeze"):
            where = kept_axes(shape, var.aval.shape)
            turned = name == "reshape" and params.get("dimensions") is not None
            back = {} if where is None or turned else {b: a for a, b in where.items()}
            return self.roots(args[0], back[axis]) if axis in back else None
        if name == "transpose":
            return self.roots(args[0], params["permutation"][axis])
        if name in REDUCTIONS:
            kept = [a for a in range(len(shape)) if a not in params["axes"]]
            return self.roots(args[0], kept[axis])
        if name in ("concatenate", "stack"):
            place = params["dimension" if name == "concatenate" else "axis"]
            down = name == "stack" and axis > place
            return None if axis == place else self._union((v, axis - down) for v in args)
        if name == "iota":
            return None if axis == params["dimension"] else frozenset()
        if name == "gather":
            return self._gathered(eqn, axis)
        return self._dotted(eqn, axis) if name == "dot_general" else None

    def _gathered(self, eqn: Any, axis: int) -> frozenset[Root] | None:
        numbers, found = eqn.params["dimension_numbers"], gather_axis(eqn)
        batched = tuple(numbers.operand_batching_dims)
        if len(batched) == 1 and axis == 0 and batched == (0,) == tuple(numbers.start_indices_batching_dims):
            return self._union([(eqn.invars[0], 0), (eqn.invars[1], 0)]) if 0 not in numbers.offset_dims else None
        if found is None or axis != found[1]:
            return None
        long = next(a for a, n in enumerate(eqn.invars[1].aval.shape[:-1]) if n != 1)
        return self.roots(eqn.invars[1], long)

    def _dotted(self, eqn: Any, axis: int) -> frozenset[Root] | None:
        contract, batch = eqn.params["dimension_numbers"]
        if axis < len(batch[0]):
            return self._union((v, b[axis]) for v, b in zip(eqn.invars, batch, strict=True))
        place = axis - len(batch[0])
        for var, c, b in zip(eqn.invars, contract, batch, strict=True):
            free = [a for a in range(len(var.aval.shape)) if a not in c and a not in b]
            if place < len(free):
                return self.roots(var, free[place])
            place -= len(free)
        return None


@dataclass(frozen=True)
class Rows:
    """A choice: the distinct rows of some inputs, ``kept`` of them with room to spare.

    Attributes:
        term: Output of the program that it is made for.
        roots: Inputs that make up a row, with their axes of observations.
        count: Number of observations.
        kept: Number of rows that are computed.
    """

    term: int
    roots: tuple[Root, ...]
    count: int
    kept: int


def room(count: int) -> int:
    """The next number of at most three significant bits: other data of the same shape mostly have the same.

    Example:
        >>> [room(n) for n in (3, 9, 33, 1000)]
        [4, 10, 40, 1024]
    """
    step = max(1, 1 << max(0, (max(count, 4) - 1).bit_length() - 3))
    return -(-max(count, 4) // step) * step


def distinct(columns: Sequence[np.ndarray], most: int) -> tuple[np.ndarray, np.ndarray] | None:
    """One observation of each distinct row, and for each observation the number of its row; None if more than ``most``.

    Example:
        >>> first, codes = distinct([np.array([5.0, 1.0, 5.0])], 2)
        >>> first.tolist(), codes.tolist()
        ([1, 0], [1, 0, 1])
    """
    count = len(columns[0])
    flat = [np.ascontiguousarray(x).reshape(count, -1) for x in columns]
    if count > SAMPLE:
        some = np.random.default_rng(0).choice(count, SAMPLE, replace=False)
        found = _codes([x[some] for x in flat], SAMPLE)
        if found is None or len(found[0]) > 0.97 * SAMPLE:
            return None
    return _codes(flat, most)


def _codes(flat: Sequence[np.ndarray], most: int) -> tuple[np.ndarray, np.ndarray] | None:
    codes = np.zeros(len(flat[0]), np.int64)
    for block in flat:
        for column in block.T:
            _, own = np.unique(column, return_inverse=True)
            _, codes = np.unique(codes * (own.max() + 1) + own.reshape(-1), return_inverse=True)
            codes = codes.reshape(-1)
            if codes.max() + 1 > most:
                return None
    first = np.unique(codes, return_index=True)[1]
    return first, codes
