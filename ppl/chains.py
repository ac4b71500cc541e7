"""``markov``: a sub-model along a chain, c_t = step(c_{t-1}, x_t).

A chain is simulated step by step. When the values of its sites are known, as in every density, only the carries need
a loop, and not even they where the carry is the latent state itself; the factors of all steps are then one map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from . import _jax
from .axes import elements_of, enter_table
from .errors import ModelError, at, user_line
from .following import continued, plain
from .maps import check_size, inner_frame, inner_names, is_size, leading, static_size
from .trace import Array, Frame, current, entered
from .values import MASK, site_of


def markov(name: str, step: Callable | None = None, init: Any = None, xs: Any = None, *, coords: Any = None) -> Any:
    """Run a sub-model along a chain: ``carry_t = step(carry_{t-1}, x_t)`` for t = 1..T.

    Used as a decorator (``@ppl.markov("t", init=..., xs=...)``) it runs at once. Every site of the step gains a
    leading axis called ``name``; the sites of ``init`` do not. The state of the chain is the step's latent sites,
    of which the carry must be a function.

    Args:
        name: The chain's name, which becomes a dimension of the result.
        step: ``step(carry, x) -> carry``; may sample.
        init: First carry, or a function without arguments that returns it and may sample.
        xs: Inputs with one leading entry per step, or an int, the number of steps (the step receives the index); or
            the rows of one group of a ragged table, in their order, after whose end the carry stays as it is.
        coords: Labels of the steps; alone they also give their number.

    Returns:
        The carries stacked over time, shape (T, ...).

    Raises:
        ModelError: Inputs of different lengths, no inputs, a carry of another structure than ``init``, or labels
            of another number than the steps.

    Example:
        >>> import ppl
        >>> from ppl import dist
        >>> @ppl.model
        ... def walk():
        ...     def step(x, t):
        ...         return ppl.sample("x", dist.Normal(x, 1.0))
        ...     return ppl.markov("time", step, init=0.0, xs=5)
        >>> walk().sites["x"].shape
        (5,)
    """
    source = user_line()
    if step is None:
        return lambda body: _run_markov(name, body, init, xs, coords, source)
    return _run_markov(name, step, init, xs, coords, source)


def _steps(frame: Frame, name: str, xs: Any, exists: Any, coords: Any, source: str) -> tuple[Any, int]:
    """The inputs of all steps, and how many there are; a forecast adds some to a number of steps."""
    more = frame.horizon.get(name, 0)
    if xs is None and coords is not None:
        xs = len(coords)
    if is_size(xs):
        size = static_size("markov", name, xs, source) + more
        xs = jnp.arange(size, dtype=jnp.int32)
    elif xs is None:
        raise ModelError(f"markov {name!r} needs xs, its inputs or its number of steps:\n{at(source)}")
    elif more:
        raise ModelError(
            f"the chain {name!r} has inputs xs, whose next {more} entries are not known:\n{at(source)}\n"
            "  Instead of horizon=, give the program with the longer inputs: fit.predict(model(longer_xs))."
        )
    else:
        xs = jax.tree_util.tree_map(jnp.asarray, xs)
        size = leading("markov", name, (xs, exists), source)
        for index, leaf in enumerate(jax.tree_util.tree_leaves(xs)):
            frame.put("inputs", f"{name}/{index}", leaf)
    if coords is not None:
        coords = continued(coords, more, f"the labels of the chain {name!r}", source) if more else plain(coords)
    check_size(frame, name, size, coords, source)
    return xs, size


def _run_markov(name: str, step: Callable, init: Any, xs: Any, coords: Any, source: str) -> Any:
    frame = current("markov")
    name = frame.scope + name
    (xs,), exists, axis = elements_of(name, (xs,), source)
    if axis is not None and axis.level == "group":
        raise ModelError(
            f"markov {name!r} runs over the groups of a ragged table, which have no order:\n{at(source)}\n"
            "  Give it the rows of one group, inside a plate over the table."
        )
    xs, size = _steps(frame, name, xs, exists, coords, source)
    enter_table(frame, name, axis, coords, source)
    carry = init() if callable(init) else init
    carry = jax.tree_util.tree_map(jnp.asarray, carry)
    inner = set(inner_names(frame, name))
    given = {site: value for site, value in frame.given.items() if site_of(site) in inner}
    free = {site: value for site, value in frame.free.items() if site in inner}
    seen: list[Frame] = []

    def run(carry: Any, inputs: tuple, keep: frozenset[str]) -> tuple[Any, Frame]:
        index, x, given, free, exists = inputs
        key = None if frame.key is None else jax.random.fold_in(frame.key, index)
        with entered(replace(inner_frame(frame, name, size, "markov", given, free, key, exists), keep=keep)) as nested:
            return step(carry, x), nested

    def body(carry: Any, inputs: tuple, keep: frozenset[str]) -> tuple[Any, dict]:
        after, nested = run(carry, inputs, keep)
        seen[:] = [nested]
        return _same_structure(name, carry, after, source), nested.out

    inputs = (jnp.arange(size, dtype=jnp.int32), xs, given, free, exists)
    carry = _widened(lambda c, i: run(c, i, frozenset())[0], carry, inputs)
    samples = [site for site in inner if frame.known[site].kind == "sample"]
    drawn = [s for s in samples if (s not in given and s not in free) or (s + MASK in given and frame.key is not None)]
    if not inner or drawn:
        carries, out = _along(body, carry, inputs, frame.keep)
    else:
        carries, out = _across(body, carry, inputs, frame.keep)
    nested = seen[0]
    nested.out = out
    frame.merge(nested)
    return carries


def _along(body: Callable, carry: Any, inputs: tuple, keep: frozenset[str]) -> tuple[Any, dict]:
    """Run a chain step by step."""

    def step(carry: Any, inputs: tuple) -> tuple[Any, tuple]:
        after, out = body(carry, inputs, keep)
        after = _going(inputs[-1], after, carry)
        return after, (after, out)

    return jax.lax.scan(step, carry, inputs)[1]


def _across(body: Callable, carry: Any, inputs: tuple, keep: frozenset[str]) -> tuple[Any, dict]:
    """Run a chain whose sites all have values: first its carries, then everything else for all steps at once.

    Only the carries need a loop, and none is needed where a step's carry does not read the one before (a state
    that is a latent site). What is kept is then computed by one map, which is several times faster than a loop.
    """
    first = jax.tree_util.tree_map(lambda leaf: leaf[0], inputs)
    leaves, treedef = jax.tree_util.tree_flatten(carry)
    code, _ = _jax.trace(lambda c, i: body(jax.tree_util.tree_unflatten(treedef, c), i, frozenset())[0], leaves, first)
    count = len(leaves) + len(jax.tree_util.tree_leaves(first))
    reads = set().union(*_jax.dependence(code, count)) if leaves else set()

    def advance(state: list[Array], i: tuple) -> tuple[list[Array], list[Array]]:
        after = _going(i[-1], code.run(*state, *jax.tree_util.tree_leaves(i)), state)
        return after, after

    if reads & set(range(len(leaves))):
        carries = left = jax.lax.scan(advance, leaves, inputs)[1]
    else:
        carries = left = jax.vmap(lambda i: advance(leaves, i)[1])(inputs)
        if inputs[-1] is not None:  # the rows come first, so that the last one's carry is the one that stays
            last = jnp.minimum(inputs[0], jnp.maximum(jnp.sum(inputs[-1]).astype(inputs[0].dtype) - 1, 0))
            carries = [after[last] for after in carries]
    before = [jnp.concatenate([start[None], after[:-1]]) for start, after in zip(leaves, left, strict=True)]
    out = jax.vmap(lambda c, i: body(c, i, keep)[1])(jax.tree_util.tree_unflatten(treedef, before), inputs)
    return jax.tree_util.tree_unflatten(treedef, carries), out


def _going(exists: Array | None, after: Any, before: Any) -> Any:
    """The carry after a step, the one before it where the step does not exist."""
    if exists is None:
        return after
    return jax.tree_util.tree_map(lambda a, b: jnp.where(exists, a, b), after, before)


def _same_structure(name: str, carry: Any, after: Any, source: str) -> Any:
    """The next carry, checked and brought to the dtypes of the one before."""
    before, found = jax.tree_util.tree_structure(carry), jax.tree_util.tree_structure(after)
    shapes = [jnp.shape(leaf) for leaf in jax.tree_util.tree_leaves(carry)]
    returned = [jnp.shape(leaf) for leaf in jax.tree_util.tree_leaves(after)]
    if found != before or shapes != returned:
        raise ModelError(
            f"markov {name!r}: the step returns {found} of shapes {returned}, but its carry is {before} of shapes "
            f"{shapes}:\n{at(source)}\n"
            "  The step returns the next carry: the same structure as init, of the same shapes."
        )
    return jax.tree_util.tree_map(lambda a, b: jnp.asarray(a, jnp.asarray(b).dtype), after, carry)


def _widened(step: Callable, carry: Any, inputs: tuple) -> Any:
    """A first carry of which those integers are floats that the step makes floats: a start 0 truncates no state."""
    leaves, treedef = jax.tree_util.tree_flatten(carry)
    if all(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves):
        return carry
    first = jax.tree_util.tree_map(lambda leaf: leaf[0], inputs)
    for _ in leaves:
        after = jax.eval_shape(lambda c, i: step(treedef.unflatten(c), i), leaves, first)
        found = jax.tree_util.tree_leaves(after)
        if len(found) != len(leaves):
            break
        wider = [a if a.dtype == b.dtype else a.astype(jnp.promote_types(a.dtype, b.dtype))
                 for a, b in zip(leaves, found, strict=True)]  # fmt: skip
        if all(a is b for a, b in zip(leaves, wider, strict=True)):
            break
        leaves = wider
    return treedef.unflatten(leaves)
