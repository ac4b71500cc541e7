"""Which elements of which inputs an element of an output reads, axis by axis.

For every value of a traced program and every input that it depends on, each axis of the input has a place: an axis of
the value at which element t reads elements t + o for a few offsets o, or reads element index[t] for an index that is
computed from data; or it has none, and every element may read all. The rules are those of JAX's primitives; what they
do not know has no place, which is never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import _jax

MOST = 4
"""Most different offsets that are told apart."""

_ELEMENTWISE = frozenset(
    "abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp "
    "convert_element_type clz copy copy_p cos cosh digamma div eq eq_to erf erf_inv erfc exp exp2 expm1 floor ge "
    "gt igamma igamma_grad_a igammac integer_pow imag is_finite le lgamma log log1p log2 logistic lt max min mul "
    "ne neg nextafter not or polygamma population_count pow random_gamma_grad real reduce_precision "
    "regularized_incomplete_beta rem round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical "
    "sign sin sinh sqrt square stop_gradient sub tan tanh xor zeta".split()
)
_REDUCE = frozenset(
    "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin".split()
)
_CUMULATIVE = frozenset("cumsum cumprod cummax cummin cumlogsumexp".split())


@dataclass(frozen=True)
class Place:
    """Where an axis of an input shows on a value.

    Attributes:
        axis: The value's axis; negative inside of loops, for the axis that is looped over.
        offsets: Element t reads elements t + o.
        by: ``(index variable, component)``: element t reads element index[t]; or None.
    """

    axis: int
    offsets: frozenset[int] = frozenset((0,))
    by: Any = None

    def moved(self, axis: int | None) -> Place | None:
        """The same at another axis; None for nowhere."""
        return None if axis is None else replace(self, axis=axis)

    def shifted(self, offset: int) -> Place | None:
        """The same of a value whose elements were moved along the axis; None where an index tells them."""
        if self.by is not None:
            return None
        return replace(self, offsets=frozenset(o + offset for o in self.offsets))


Reads = dict[int, tuple[Place | None, ...]]


def _either(a: Place | None, b: Place | None) -> Place | None:
    if a is None or b is None or a.axis != b.axis or a.by != b.by:
        return None
    offsets = a.offsets | b.offsets
    return Place(a.axis, offsets, a.by) if len(offsets) <= MOST else None


def joined(parts: Sequence[Reads]) -> Reads:
    """What is read by a value of which each element is computed from one element of each part."""
    found: Reads = {}
    for part in parts:
        for name, places in part.items():
            known = found.get(name)
            found[name] = places if known is None else tuple(map(_either, known, places))
    return found


def _map(reads: Reads, change: Callable[[Place], Place | None]) -> Reads:
    return {n: tuple(None if p is None else change(p) for p in places) for n, places in reads.items()}


def _axes(reads: Reads, move: Callable[[int], int | None]) -> Reads:
    """Move axes; the axes of loops stay."""
    return _map(reads, lambda p: p if p.axis < 0 else p.moved(move(p.axis)))


def _lost(reads: Reads) -> Reads:
    return {name: (None,) * len(places) for name, places in reads.items()}


class Walk:
    """One pass over a program.

    Attributes:
        loops: Number of loops around the current equation.
    """

    def __init__(self, data_only: set[Any]) -> None:
        """``data_only`` are the variables of the outermost program that are computed from data."""
        self.data_only = data_only
        self.loops = 0
        self.depth = 0

    def run(self, jaxpr: Any, inputs: Sequence[Reads]) -> list[Reads]:
        """What the outputs read."""
        env: dict[Any, Reads] = dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: Any) -> Reads:
            return {} if _jax.is_literal(atom) else env.get(atom, {})

        self.depth += 1
        for eqn in jaxpr.eqns:
            reads = [read(v) for v in eqn.invars]
            if self.depth == 1 and all(_jax.is_literal(v) or v in self.data_only for v in eqn.invars):
                self.data_only.update(eqn.outvars)
            if any(reads):
                env.update(zip(eqn.outvars, self.equation(eqn, reads), strict=True))
        self.depth -= 1
        return [read(v) for v in jaxpr.outvars]

    def equation(self, eqn: Any, reads: list[Reads]) -> list[Reads]:
        """What the outputs of one equation read."""
        name, count = eqn.primitive.name, len(eqn.outvars)
        if name in _ELEMENTWISE:
            return [joined(reads)] * count
        rule = _RULES.get(name)
        if rule is not None:
            return [rule(eqn, reads)] * count
        if name in ("scan", "cond", "split", "gather"):
            return getattr(self, f"_{name}")(eqn, reads)
        inner = _jax.subjaxpr(eqn)
        if inner is not None and len(inner.jaxpr.invars) == len(reads) and len(inner.jaxpr.outvars) == count:
            return self.run(inner.jaxpr, reads)
        return [_lost(joined(reads))] * count

    def _cond(self, eqn: Any, reads: list[Reads]) -> list[Reads]:
        branches = [self.run(b.jaxpr, reads[1:]) for b in eqn.params["branches"]]
        return [joined([reads[0], *outs]) for outs in zip(*branches, strict=True)]

    def _split(self, eqn: Any, reads: list[Reads]) -> list[Reads]:
        axis, start, found = eqn.params["axis"], 0, []
        for size in eqn.params["sizes"]:
            found.append(_along(reads[0], axis, start))
            start += size
        return found

    def _scan(self, eqn: Any, reads: list[Reads]) -> list[Reads]:
        params = eqn.params
        n, k = _jax._scan_counts(params)
        self.loops += 1
        mark = -self.loops
        moving = [_axes(r, lambda axis: axis - 1 if axis else mark) for r in reads[n + k :]]
        carry = reads[n : n + k]
        while True:
            outs = self.run(params["jaxpr"].jaxpr, [*reads[:n], *carry, *moving])

            def before(place: Place) -> Place | None:
                """Of what was left by the step before."""
                return place if place.axis != mark else None if params["reverse"] else place.shifted(-1)

            after = [joined([a, _map(b, before)]) for a, b in zip(carry, outs[:k], strict=True)]
            if after == carry:
                break
            carry = after
        self.loops -= 1
        ends = [_map(r, lambda p: None if p.axis == mark else p) for r in outs[:k]]
        stacked = [_map(r, lambda p: p.moved(0 if p.axis == mark else p.axis if p.axis < 0 else p.axis + 1))
                   for r in outs[k:]]  # fmt: skip
        return ends + stacked

    def _gather(self, eqn: Any, reads: list[Reads]) -> list[Reads]:
        dims, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
        operand, index = eqn.invars[0].aval, eqn.invars[1].aval
        rank = len(eqn.outvars[0].aval.shape)
        batch = [axis for axis in range(rank) if axis not in dims.offset_dims]
        removed = {*dims.collapsed_slice_dims, *dims.operand_batching_dims}
        offset = dict(zip([a for a in range(len(operand.shape)) if a not in removed], dims.offset_dims, strict=True))
        plain = self.depth == 1 and eqn.invars[1] in self.data_only and len(batch) == 1

        def source(place: Place) -> Place | None:
            axis = place.axis
            if axis < 0:
                return place
            if axis in dims.operand_batching_dims:
                return place.moved(batch[dims.start_indices_batching_dims[dims.operand_batching_dims.index(axis)]])
            if axis in offset and sizes[axis] == operand.shape[axis]:
                return place.moved(offset[axis])
            if plain and place == Place(axis) and axis in dims.start_index_map and sizes[axis] == 1:
                return Place(batch[0], by=(eqn.invars[1], dims.start_index_map.index(axis)))
            return None

        indices = _axes(reads[1], lambda axis: batch[axis] if axis < len(index.shape) - 1 else None)
        return [joined([_map(reads[0], source), indices])]


def _along(reads: Reads, axis: int, offset: int) -> Reads:
    """Of a part of a value that starts at ``offset`` along an axis."""
    return _map(reads, lambda p: p.shifted(offset) if p.axis == axis else p)


def _broadcast(eqn: Any, reads: list[Reads]) -> Reads:
    shape, target, places = eqn.invars[0].aval.shape, eqn.params["shape"], eqn.params["broadcast_dimensions"]
    return _axes(reads[0], lambda a: places[a] if shape[a] == target[places[a]] else None)


def _reshape(eqn: Any, reads: list[Reads]) -> Reads:
    before, after = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape

    def move(axis: int) -> int | None:
        left = _product(before[:axis])
        found = [b for b, size in enumerate(after) if size == before[axis] and _product(after[:b]) == left]
        return found[0] if found else None

    return _axes(reads[0], move)


def _product(sizes: Sequence[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


def _without(removed: Sequence[int]) -> Callable[[int], int | None]:
    return lambda axis: None if axis in removed else axis - sum(r < axis for r in removed)


def _reduce(eqn: Any, reads: list[Reads]) -> Reads:
    return _axes(joined(reads), _without(eqn.params["axes"]))


def _squeeze(eqn: Any, reads: list[Reads]) -> Reads:
    return _axes(reads[0], _without(eqn.params["dimensions"]))


def _transpose(eqn: Any, reads: list[Reads]) -> Reads:
    order = list(eqn.params["permutation"])
    return _axes(reads[0], order.index)


def _except(name: str) -> Callable[[Any, list[Reads]], Reads]:
    """Elementwise but along the axes in a parameter."""

    def rule(eqn: Any, reads: list[Reads]) -> Reads:
        own = eqn.params[name]
        own = own if isinstance(own, (tuple, list)) else (own,)
        return _axes(joined(reads), lambda axis: None if axis in own else axis)

    return rule


def _slice(eqn: Any, reads: list[Reads]) -> Reads:
    start, strides = eqn.params["start_indices"], eqn.params["strides"]
    shape, limit = eqn.invars[0].aval.shape, eqn.params["limit_indices"]

    def cut(place: Place) -> Place | None:
        axis = place.axis
        step = 1 if strides is None or axis < 0 else strides[axis]
        if axis < 0 or (start[axis] == 0 and limit[axis] == shape[axis] and step == 1):
            return place
        return place.shifted(start[axis]) if step == 1 else None

    return _map(reads[0], cut)


def _dynamic_slice(eqn: Any, reads: list[Reads]) -> Reads:
    shape, sizes = eqn.invars[0].aval.shape, eqn.params["slice_sizes"]
    return joined([_axes(reads[0], lambda a: a if shape[a] == sizes[a] else None), *reads[1:]])


def _concatenate(eqn: Any, reads: list[Reads]) -> Reads:
    axis, start, parts = eqn.params["dimension"], 0, []
    for atom, read in zip(eqn.invars, reads, strict=True):
        parts.append(_along(read, axis, -start))
        start += atom.aval.shape[axis]
    return joined(parts)


def _pad(eqn: Any, reads: list[Reads]) -> Reads:
    config = eqn.params["padding_config"]

    def move(place: Place) -> Place | None:
        low, high, inner = (0, 0, 0) if place.axis < 0 else config[place.axis]
        return place if (low, high, inner) == (0, 0, 0) else None if inner or place.by else place.shifted(-low)

    return joined([_map(reads[0], move), reads[1]])


def _dot(eqn: Any, reads: list[Reads]) -> Reads:
    (left, right), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    ranks = [len(v.aval.shape) for v in eqn.invars]
    free = [[a for a in range(ranks[0]) if a not in (*left, *left_batch)],
            [a for a in range(ranks[1]) if a not in (*right, *right_batch)]]  # fmt: skip

    def side(number: int, batch: Sequence[int]) -> Callable[[int], int | None]:
        begin = len(left_batch) + (len(free[0]) if number else 0)
        return lambda a: batch.index(a) if a in batch else begin + free[number].index(a) if a in free[number] else None

    return joined([_axes(reads[0], side(0, left_batch)), _axes(reads[1], side(1, right_batch))])


def _matrix(eqn: Any, reads: list[Reads]) -> Reads:
    """Linear algebra on the last two axes."""
    ranks = [len(v.aval.shape) for v in eqn.invars]
    return joined([_axes(r, _least(n - 2)) for r, n in zip(reads, ranks, strict=True)])


def _least(count: int) -> Callable[[int], int | None]:
    return lambda axis: axis if axis < count else None


def _tile(eqn: Any, reads: list[Reads]) -> Reads:
    repeats = eqn.params["reps"]
    return _axes(reads[0], lambda a: a if repeats[a] == 1 else None)


def _unstack(eqn: Any, reads: list[Reads]) -> Reads:
    return _axes(reads[0], _without([eqn.params["axis"]]))


def _update(eqn: Any, reads: list[Reads]) -> Reads:
    """A part of a value replaced: what stays is where it was."""
    shape, part = eqn.invars[0].aval.shape, eqn.invars[1].aval.shape
    return joined([reads[0], _axes(reads[1], lambda a: a if shape[a] == part[a] else None), *reads[2:]])


def _scatter(eqn: Any, reads: list[Reads]) -> Reads:
    return joined([reads[0], *map(_lost, reads[1:])])


_SCATTERS = ("scatter", "scatter-add", "scatter-mul", "scatter-min", "scatter-max", "scatter_add", "scatter_mul")
_RULES: dict[str, Callable[[Any, list[Reads]], Reads]] = {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "concatenate": _concatenate,
    "pad": _pad,
    "dot_general": _dot,
    "rev": _except("dimensions"),
    "sort": _except("dimension"),
    "tile": _tile,
    "unstack": _unstack,
    "dynamic_update_slice": _update,
    "cholesky": _matrix,
    "triangular_solve": _matrix,
    **dict.fromkeys(_SCATTERS, _scatter),
    **dict.fromkeys(_REDUCE, _reduce),
    **dict.fromkeys(_CUMULATIVE, _except("axis")),
}


def align(code: Any, data: int, first: int, shapes: Sequence[tuple[int, ...]]) -> list[Reads]:
    """For each output, the places of the axes of some inputs.

    Args:
        code: A traced program.
        data: Number of leading arguments that are data.
        first: Number of the first of the inputs that are asked for.
        shapes: Shapes of these inputs.

    Returns:
        For each output a dict from the inputs (0, 1, ...) that it depends on to one place or None per axis.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> code, _ = _jax.trace(lambda w, k: [w[k], jnp.sum(k)], np.zeros(3), np.zeros(5, int))
        >>> [reads[0] for reads in align(code, 1, 1, [(5,)])]
        [(Place(axis=0, offsets=frozenset({0}), by=None),), (None,)]
    """
    if isinstance(code, _jax.Opaque):
        return [{n: (None,) * len(shape) for n, shape in enumerate(shapes)}] * len(code.outputs)
    jaxpr, constants = code.jaxpr, len(code.consts)
    known = set(jaxpr.invars[: constants + data])
    inputs: list[Reads] = [{} for _ in jaxpr.invars]
    for n, shape in enumerate(shapes):
        inputs[constants + first + n] = {n: tuple(Place(axis) for axis in range(len(shape)))}
    return Walk(known).run(jaxpr, inputs)
