r"""Multivariate slice sampling along random lines.

Given z, a height ``log y = log pi(z) - E`` with E ~ Exp(1) defines the slice {log pi > log y}. Along the line z + t v
an interval of width w is placed at random around t = 0 and *stepped out* by w at either end while that end is in the
slice, at most m - 1 times in all, shared between the ends by one random number. Then t is drawn uniformly from the
interval until it hits the slice, the interval being *shrunk* to each point that missed, always towards t = 0. The
chance to go from z to z' along one sequence of misses equals that of the way back along the same misses, since each of
them lies on one side of both, so the transition is reversible; cut off after a number of misses it stays at z, and
still is.

The direction is ``v = W u`` with u uniform on the unit sphere (hit and run), or a random column of W, and does not
depend on z. Nothing is ever rejected, no gradient is needed and the width hardly matters: a wrong one costs a few more
evaluations. Evaluations are taken one at a time by one loop in three phases (left end, right end, shrinking), so
that the density stands in the compiled program once.

References: Neal, "Slice sampling" (2003), sections 4 and 5; Bélisle, Romeijn and Smith, "Hit-and-run algorithms for
generating multivariate distributions" (1993).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from . import euclidean, metropolis
from .euclidean import Diagonal
from .metropolis import Point

Array = Any


@dataclass(frozen=True)
class SliceInfo:
    """What a transition reports: evaluations of the density, and the share of lines along which it moved."""

    acceptance_rate: Array
    n_steps: Array


@dataclass(frozen=True)
class Line:
    """A search along one line.

    Attributes:
        left: Lower end of the interval of t.
        right: Upper end.
        more: Steps still allowed at the left and at the right end, shape (2,).
        phase: 0 and 1 while the left or right end steps out, 2 while the interval shrinks, 3 when a point is found.
        found: The state, at t = 0 until a point is found.
        count: Evaluations so far.
        misses: Points drawn that missed the slice.
    """

    left: Array
    right: Array
    more: Array
    phase: Array
    found: Point
    count: Array
    misses: Array


for _cls in (SliceInfo, Line):
    jax.tree_util.register_dataclass(_cls, list(_cls.__dataclass_fields__), [])


@dataclass(frozen=True)
class Slice:
    """Slice sampling along random directions, with stepping out and shrinkage.

    Attributes:
        width: First width of the interval, in units of the metric.
        metric: ``Diagonal`` or ``Dense``; by default the identity, until warm-up learns one.
        lines: Lines in one transition; by default as many as there are dimensions.
        axes: Whether the lines follow the metric's own axes (with a diagonal metric, the coordinates).
        max_steps: The m above.
        max_misses: Points after which a line is given up, far more than needed.
        dense: Whether the standard adapter learns a dense metric.

    Example:
        >>> from ppl.inference.core import as_density
        >>> density, kernel = as_density(lambda z: jnp.where(jnp.all(z > 0), -jnp.sum(z), -jnp.inf)), Slice()
        >>> state, info = kernel.step(jax.random.key(0), kernel.init(jnp.ones(2), density), density)
        >>> bool(jnp.all(state.position > 0)), float(info.acceptance_rate)
        (True, 1.0)
    """

    gradient: ClassVar[bool] = False

    width: Array = 2.0
    metric: Any = Diagonal()
    lines: int | None = None
    axes: bool = False
    max_steps: int = 10
    max_misses: int = 200
    dense: bool = False

    def init(self, position: Array, density: Any) -> Point:
        """Make the state at a position."""
        return metropolis.point(position, density)

    def expand(self, dim: int) -> Slice:
        """Give a metric of the default kind its full shape, as adaptation needs it."""
        return replace(self, metric=euclidean.expanded(self.metric, dim, self.dense))

    def step(self, key: Array, state: Point, density: Any) -> tuple[Point, SliceInfo]:
        """Move along some random lines, one after the other."""
        lines = self.lines or len(state.position)

        def along(i: Array, loop: Any) -> Any:
            state, moved, count = loop
            inner = jax.random.fold_in(key, i)
            line = self.search(inner, self.direction(inner, state.position), state, density)
            return line.found, moved + (line.phase == 3).astype(moved.dtype), count + line.count

        zero = jnp.zeros((), state.position.dtype)
        state, moved, count = jax.lax.fori_loop(0, lines, along, (state, zero, jnp.zeros((), jnp.int32)))
        return state, SliceInfo(moved / lines, count)

    def direction(self, key: Array, like: Array) -> Array:
        """Draw the direction of a line."""
        if self.axes:
            chosen = jnp.minimum(metropolis.one_uniform(key, like.dtype, 1) * len(like), len(like) - 1).astype(
                jnp.int32
            )
            return self.metric.velocity((jnp.arange(len(like), dtype=jnp.int32) == chosen).astype(like.dtype))
        normal = euclidean.draw_momentum(key, self.metric, like)
        return self.metric.velocity(normal / jnp.sqrt(jnp.sum(normal**2)))

    def search(self, key: Array, direction: Array, state: Point, density: Any) -> Line:
        """Draw the next state on the line through ``state``."""
        dtype = state.position.dtype
        level = height(state.log_density, metropolis.one_uniform(key, dtype, 2))
        place, share = euclidean.uniform(euclidean.words(key, 3), dtype)
        steps_left = jnp.floor(self.max_steps * share).astype(jnp.int32)
        steps_left = jnp.minimum(steps_left, self.max_steps - 1)
        start = Line(
            left=-self.width * place,
            right=self.width * (1.0 - place),
            more=jnp.stack([steps_left, self.max_steps - 1 - steps_left]),
            phase=jnp.zeros((), jnp.int32),
            found=state,
            count=jnp.zeros((), jnp.int32),
            misses=jnp.zeros((), jnp.int32),
        )
        start = jax.tree.map(lambda x: jnp.asarray(x, dtype if jnp.result_type(x) != jnp.int32 else jnp.int32), start)

        def going(line: Line) -> Array:
            return (line.phase < 3) & (line.misses < self.max_misses)

        def body(line: Line) -> Line:
            draw = metropolis.one_uniform(key, dtype, 4 + line.count)
            inner = line.left + draw * (line.right - line.left)
            t = jnp.where(line.phase == 0, line.left, jnp.where(line.phase == 1, line.right, inner))
            new = metropolis.point(state.position + t * direction, density)
            return advance(self, line, t, new, inside(new, level))

        return jax.lax.while_loop(going, body, start)


jax.tree_util.register_dataclass(Slice, ["width", "metric"], ["lines", "axes", "max_steps", "max_misses", "dense"])


def height(log_density: Array, uniform: Array) -> Array:
    """Logarithm of a height uniform below the density."""
    return log_density + jnp.log(uniform)


def inside(new: Point, level: Array) -> Array:
    """Whether a point is in the slice; NaN is outside, and so is a density that is not finite."""
    return (new.log_density >= level) & jnp.isfinite(new.log_density)


def advance(kernel: Slice, line: Line, t: Array, new: Point, hit: Array) -> Line:
    """Use the evaluation at t: an end steps out, or the phase ends; a point is taken, or the interval shrinks."""
    end = line.phase  # 0 or 1 while stepping out
    out = line.phase < 2
    left_more, right_more = line.more[0], line.more[1]
    allowed = jnp.where(end == 0, left_more, right_more) > 0
    go_on = out & hit & allowed
    found = (line.phase == 2) & hit
    miss = (line.phase == 2) & ~hit
    left, right = shrunk(line.left, line.right, t)
    ends = jnp.arange(2, dtype=end.dtype)
    return Line(
        left=jnp.where(go_on & (end == 0), line.left - kernel.width, jnp.where(miss, left, line.left)),
        right=jnp.where(go_on & (end == 1), line.right + kernel.width, jnp.where(miss, right, line.right)),
        more=line.more - (go_on & (ends == end)).astype(line.more.dtype),
        phase=jnp.where((out & ~go_on) | found, line.phase + 1, line.phase),
        found=jax.tree.map(lambda a, b: jnp.where(found, a, b), new, line.found),
        count=line.count + 1,
        misses=line.misses + miss.astype(line.misses.dtype),
    )


def shrunk(left: Array, right: Array, t: Array) -> tuple[Array, Array]:
    """The interval cut at a point that missed, so that it still holds 0."""
    return jnp.where(t < 0, t, left), jnp.where(t < 0, right, t)
