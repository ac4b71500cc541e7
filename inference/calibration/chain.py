r"""A Markov chain that warms up inside the compiled program, for fits that are themselves mapped.

One loop over iterations, warm-up and sampling alike: its length and thinning are arguments, and the density and
the kernel stand in it once. It adapts by the same adapters and the same windows as ``mcmc.Chains``: at the
opening of a window the step size is guessed and all adapters forget, at its end the metric is replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..adapt.metric import windows
from ..mcmc import compact
from ..mcmc.chains import default_for
from ..mcmc.euclidean import draw_momentum

Array = Any

_DOUBLINGS = 60


def mapped(function: Callable[[Any], Any], items: Any) -> Any:
    """Map over the leading axes of ``items``: by a loop on a CPU, elsewhere by ``vmap``.

    In a loop no chain waits for another one's longest trajectory, and random numbers compile faster.

    Example:
        >>> mapped(lambda x: 2.0 * x, np.arange(3.0)).tolist()
        [0.0, 2.0, 4.0]
    """
    return jax.lax.map(function, items) if jax.default_backend() == "cpu" else jax.vmap(function)(items)


def mapped_whole(function: Callable[[Any, Any], Any], shared: Any, items: Any) -> tuple[Any, Array]:
    """Map ``function(shared, item)``, on a CPU by one machine function where ``mcmc.compact`` can make it.

    Returns:
        The results, and a witness to be returned by the outermost compiled function. It reads every argument:
        XLA aborts on a machine function with an argument that it has found to be unused.
    """

    def both(shared: Any, item: Any) -> Any:
        leaves = [jnp.ravel(x)[0].astype(jnp.float32) for x in jax.tree.leaves((shared, item))]
        return function(shared, item), sum(leaves, jnp.zeros((), jnp.float32))

    def shapes(tree: Any, start: int) -> Any:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x)[start:], jnp.result_type(x)), tree)

    inputs = shapes(shared, 0), shapes(items, 1)
    empty = any(x.size == 0 for x in jax.tree.leaves(inputs))
    if jax.default_backend() != "cpu" or empty or compact.refused(jax.make_jaxpr(both)(*inputs).jaxpr):
        return mapped(partial(function, shared), items), jnp.zeros(())
    marked = compact.marked(both)
    return jax.lax.map(lambda item: marked(shared, item)[0], items)


def start(kernel: Any, density: Any, candidates: Array) -> Any:
    """The state at the first of several points (n, d) where it is finite, or else at the last."""
    states = jax.vmap(lambda z: kernel.init(z, density))(candidates)
    good = jnp.ones(len(candidates), bool)
    for leaf in jax.tree.leaves(states):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            good = good & jnp.isfinite(leaf).reshape(len(leaf), -1).all(axis=1)
    return jax.tree.map(lambda leaf: leaf[jnp.argmax(good.at[-1].set(True))], states)


def chain(size: tuple[int, int], density: Any, kernel: Any, state: Any, key: Array, thin: Array, length: Array) -> Any:
    """Run ``length`` iterations; keep each ``thin``-th position after the warm-up.

    Args:
        size: Warm-up iterations, and draws to keep.
        density: Density of the replication's data.
        kernel: Untuned kernel.
        state: First state.
        key: Key data, shape (2,).
        thin: Iterations per draw.
        length: Iterations in all.

    Returns:
        Positions (draws, d) and the number of divergent iterations after the warm-up.
    """
    warmup, draws = size
    key = jax.random.wrap_key_data(key, impl="threefry2x32")
    adapters = default_for(kernel) if warmup else ()
    kernel = jax.tree.map(jnp.asarray, kernel)
    memories = tuple(adapter.init(kernel, state) for adapter in adapters)
    slow, opens, closes = schedule(warmup)

    def body(i: Array, loop: Any) -> Any:
        kernel, memories, state, kept, diverging = loop
        warm, now = i < warmup, jnp.minimum(i, max(warmup - 1, 0))
        inner = jax.random.fold_in(key, i.astype(jnp.uint32))
        if adapters:
            kernel, memories = jax.lax.cond(
                warm & opens[now],
                partial(_open, adapters, state, inner, density),
                lambda k, m: (k, m),
                kernel,
                memories,
            )
        new, info = kernel.step(inner, state, density)
        state = _like(state, new)
        learned = []
        for adapter, memory in zip(adapters, memories, strict=True):
            on = warm & slow[now] if adapter.windowed else warm
            new = _like((memory, kernel), adapter.update(memory, kernel, state, info))
            memory, kernel = jax.tree.map(partial(jnp.where, on), new, (memory, kernel))
            end = closes[now] if adapter.windowed else i == warmup - 1
            kernel = jax.lax.cond(warm & end, partial(_close, adapter, memory), lambda k: k, kernel)
            learned.append(memory)
        row = jnp.clip((i - warmup) // thin, 0, draws - 1)
        kept = jax.lax.dynamic_update_index_in_dim(kept, state.position, row, 0)
        diverging = diverging + jnp.where(warm, 0, jnp.asarray(getattr(info, "diverging", False)).astype(jnp.int32))
        return kernel, tuple(learned), state, kept, diverging

    kept = jnp.zeros((draws, *state.position.shape), state.position.dtype)
    loop = (kernel, memories, state, kept, jnp.zeros((), jnp.int32))
    return jax.lax.fori_loop(0, length, body, loop)[3:]


def schedule(warmup: int) -> tuple[Array, Array, Array]:
    """For each warm-up iteration: do windowed adapters learn, do all start anew before it, do windows end after it."""
    slow, opens, closes = np.zeros((3, max(warmup, 1)), bool)
    opens[0] = True
    for window in windows(warmup):
        slow[window.start : window.stop] = window.slow
        closes[window.stop - 1] = window.slow
        if window.slow and window.stop < warmup:
            opens[window.stop] = True
    return jnp.asarray(slow), jnp.asarray(opens), jnp.asarray(closes)


def _like(old: Any, new: Any) -> Any:
    """Bring leaves to the dtypes of ``old``, as a loop needs them."""
    return jax.tree.map(lambda a, b: jnp.asarray(b).astype(jnp.asarray(a).dtype), old, new)


def _open(adapters: Any, state: Any, key: Array, density: Any, kernel: Any, memories: Any) -> Any:
    """Guess the step size and let all adapters forget."""
    if hasattr(kernel, "trial") and hasattr(kernel, "step_size"):
        momentum = draw_momentum(jax.random.fold_in(key, 1), getattr(kernel, "metric", None), state.position)
        kernel = replace(kernel, step_size=guess(kernel, momentum, state, density))
    new = tuple(adapter.init(kernel, state) for adapter in adapters)
    return kernel, _like(memories, new)


def _close(adapter: Any, memory: Any, kernel: Any) -> Any:
    return _like(kernel, adapter.final(memory, kernel))


def guess(kernel: Any, momentum: Array, state: Any, density: Any) -> Array:
    """Double or halve the step until the acceptance of one leapfrog step crosses 0.8."""

    def good(step: Array) -> Array:
        return replace(kernel, step_size=step).trial(momentum, state, density)[1] > np.log(0.8)

    def again(loop: Any) -> Array:
        _, up, here, count = loop
        return (here == up) & (count < _DOUBLINGS)

    def move(loop: Any) -> Any:
        step, up, _, count = loop
        step = step * jnp.where(up, 2.0, 0.5).astype(step.dtype)
        # The first pass evaluates the step itself, so that the loop holds the only copy of the density.
        step = jnp.where(count == 0, kernel.step_size, step)
        here = good(step)
        return step, jnp.where(count == 0, here, up), here, count + 1

    no = jnp.zeros((), bool)
    return jax.lax.while_loop(again, move, (kernel.step_size, no, no, jnp.zeros((), jnp.int32)))[0]
