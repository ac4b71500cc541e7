"""Compiled programs over lanes of chains: a block of iterations, and single evaluations.

A lane is a fixed number of chains in lockstep; a short one is padded with copies of its first chain, whose
results are dropped. Lanes run where the placement in force says (``inference.devices``). All arrays have a leading
chain axis outside these functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import devices
from ..core import host_rng
from . import compact

Array = Any

_KEYS = 0  # purpose of host random numbers


def block(
    buffers: Any, adapters: Any, kernel: Any, memories: Any, state: Any, keys: Array, target: Any, span: Array
) -> Any:
    """Run iterations ``span = (first, count, adapting, slow)`` of a lane.

    Returns:
        Kernel, memories, state and the filled buffers, of shape (capacity, width, ...).
    """
    first, count, adapting, slow = span[0], span[1], span[2] > 0, span[3] > 0

    def one(key: Array, kernel: Any, memories: Any, state: Any, index: Array) -> tuple[Any, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), index)
        used, (state, info) = kernel, kernel.step(key, state, target)
        learned = []
        for adapter, memory in zip(adapters, memories, strict=True):
            new = adapter.update(memory, kernel, state, info)
            on = adapting & slow if adapter.windowed else adapting
            memory, kernel = jax.tree.map(partial(jnp.where, on), new, (memory, kernel))
            learned.append(memory)
        return (kernel, learned, state), _report(used, state, info, target)

    def body(i: Array, loop: Any) -> Any:
        (kernel, memories, state), buffers = loop
        index = (first + i).astype(jnp.uint32)
        out, row = _over(keys, one)(keys, kernel, memories, state, index)
        write = partial(jax.lax.dynamic_update_index_in_dim, index=i, axis=0)
        return out, jax.tree.map(lambda b, x: write(b, x.astype(b.dtype)), buffers, row)

    loop = jax.lax.fori_loop(0, count, body, ((kernel, memories, state), buffers))
    return *loop[0], loop[1]


def _over(keys: Array, one: Callable[..., Any]) -> Callable[..., Any]:
    """Map over the lane; a lane of one needs no map, which saves the selects of a mapped loop."""
    if keys.shape[0] > 1:
        return jax.vmap(one, in_axes=(0, 0, 0, 0, None))

    def single(*args: Any) -> Any:
        *mapped, index = args
        out = one(*jax.tree.map(lambda x: x[0], tuple(mapped)), index)
        return jax.tree.map(lambda x: x[None], out)

    return single


def _report(kernel: Any, state: Any, info: Any, target: Any) -> dict[str, Array]:
    """Collect position and scalar statistics of one iteration, by ArviZ's names."""
    lp = state.log_density if hasattr(state, "log_density") else target(state.position)
    out = {"position": state.position, "lp": lp}
    if hasattr(kernel, "step_size"):
        out["step_size"] = jnp.asarray(kernel.step_size)
    own = {item.name: getattr(info, item.name) for item in fields(info)}
    named = info.statistics(kernel) if hasattr(info, "statistics") else own
    return out | {name: jnp.asarray(value) for name, value in named.items() if jnp.ndim(value) == 0}


plain_block = jax.jit(block)
compact_block = compact.marked(block)


@jax.jit
def trial_lane(kernel: Any, noise: Array, state: Any, target: Any) -> Any:
    """Try one leapfrog step in each chain of a lane."""
    return jax.vmap(lambda k, q, s: k.trial(q, s, target))(kernel, noise, state)


@jax.jit
def init_lane(kernel: Any, positions: Array, target: Any) -> Any:
    """Make the state of each chain of a lane."""
    return jax.vmap(lambda k, z: k.init(z, target))(kernel, positions)


def rows_of(chains: int, width: int) -> list[np.ndarray]:
    """Return the chains of each lane, the last one padded with copies of its first chain."""
    lanes = []
    for begin in range(0, chains, width):
        rows = np.arange(begin, begin + width)
        lanes.append(np.where(rows < chains, rows, begin))
    return lanes


def by_lane(function: Callable[..., Any], chains: int, width: int, threads: int, *trees: Any) -> Any:
    """Apply a function of a lane's number and pytrees to all lanes, and join the results along the chain axis."""
    lanes = rows_of(chains, width)

    def work(lane: int) -> Any:
        return function(lane, *jax.tree.map(lambda x: np.asarray(x)[lanes[lane]], trees))

    parts = devices.current().map(work, len(lanes), threads, witness=trees)
    return jax.tree.map(lambda *x: np.concatenate(x)[:chains], *parts)


def trial(kernel: Any, noise: Array, state: Any, target: Any, width: int) -> tuple[Any, np.ndarray]:
    """Try one leapfrog step in every chain: new states and log Metropolis ratios."""
    copies = _copies(target, len(noise), width)

    def lane(j: int, kernel: Any, noise: Array, state: Any) -> Any:
        noise = devices.current().put(noise.astype(state.position.dtype), j)
        return trial_lane(kernel, noise, state, copies[j])

    return by_lane(lane, len(noise), width, 1, kernel, noise, state)


def evaluate(kernel: Any, positions: np.ndarray, target: Any, width: int) -> tuple[Any, np.ndarray]:
    """Make the states at positions (chains, d), and say which are finite.

    A kernel that can try a step evaluates by a step of size zero, so that nothing else is compiled.
    """
    if hasattr(kernel, "trial"):
        from .euclidean import State

        positions = positions.astype(kernel.step_size.dtype)
        zero = np.zeros_like(positions)
        still = replace(kernel, step_size=np.zeros_like(kernel.step_size))
        state, _ = trial(still, zero, State(positions, zero[:, 0], zero), target, width)
        state = replace(state, position=positions)
    else:
        copies, here = _copies(target, len(positions), width), devices.current()
        lane = lambda j, kernel, z: init_lane(kernel, here.put(z, j), copies[j])  # noqa: E731
        state = by_lane(lane, len(positions), width, 1, kernel, positions)
    good = np.ones(len(positions), bool)
    for leaf in jax.tree.leaves(state):
        if leaf.dtype.kind == "f":
            good &= np.isfinite(leaf.reshape(len(leaf), -1)).all(1)
    return state, good


def _copies(target: Any, chains: int, width: int) -> dict[int, Any]:
    """The density's data where each lane of this process runs."""
    here = devices.current()
    return {lane: here.copy(target, lane) for lane in here.mine(len(rows_of(chains, width)))}


def chain_keys(seed: int, chains: int) -> np.ndarray:
    """Return the key data of every chain, shape (chains, 2)."""
    draw = [host_rng(seed, i, _KEYS).integers(2**32, size=2, dtype=np.uint32) for i in range(chains)]
    return np.stack(draw)


def prepare(adapters: Any, carry: Any, target: Any, width: int, capacity: int) -> tuple[str, dict[str, Any]]:
    """Decide how the block is compiled, and the shapes of what it reports.

    Returns:
        What stands against compiling the block in one piece ("" for nothing), and for each statistic the
        dtype and the shape for one chain.
    """
    rows = rows_of(len(carry.state.position), width)[0]
    own = (carry.kernel, carry.memories, carry.state)
    kernel, memories, state = jax.tree.map(lambda x: np.asarray(x)[rows], own)
    keys = np.zeros((width, 2), np.uint32)
    shapes = jax.eval_shape(_one_report, kernel, state, keys, target)
    spec = {name: [str(s.dtype), *s.shape[1:]] for name, s in shapes.items()}
    span = np.zeros(4, np.int32)  # no iterations: only compile, before threads would do it twice
    buffers = _buffers(spec, width, capacity)
    here, chains = devices.current(), len(carry.state.position)
    copies = _copies(target, chains, width)

    args = (buffers, adapters, kernel, memories, state, keys)

    def compile_with(program: Any) -> None:
        here.once(lambda j: jax.block_until_ready(program(*args, copies[j], here.put(span, j))), list(copies))

    reason = "the device is no CPU" if here.mesh is None else "the data are laid out over devices"
    if here.platform == "cpu" and here.mesh is None:
        reason = compact.refused(plain_block.trace(*args, target, span).jaxpr)
        if not reason:
            try:
                compile_with(compact_block)
            except jax.errors.JaxRuntimeError as error:  # the compiler knows better
                reason = str(error).split("\n")[0]
    if reason:
        compile_with(plain_block)
    return reason, spec


def _buffers(spec: dict[str, Any], width: int, capacity: int) -> dict[str, np.ndarray]:
    return {name: np.zeros((capacity, width, *s[1:]), s[0]) for name, s in spec.items()}


def _one_report(kernel: Any, state: Any, keys: Array, target: Any) -> dict[str, Array]:
    def one(kernel: Any, state: Any, key: Array) -> dict[str, Array]:
        new, info = kernel.step(jax.random.wrap_key_data(key, impl="threefry2x32"), state, target)
        return _report(kernel, new, info, target)

    return jax.vmap(one)(kernel, state, keys)


def run(
    adapters: Any,
    carry: Any,
    target: Any,
    width: int,
    capacity: int,
    count: int,
    adapting: bool,
    slow: bool,
    threads: int,
) -> tuple[Any, dict[str, np.ndarray]]:
    """Run ``count`` iterations of all chains.

    Returns:
        The next carry, and positions and statistics of shape (chains, count, ...).
    """
    chains = len(carry.state.position)
    buffers = _buffers(carry.spec, width, capacity)
    span = np.array([carry.iteration, count, adapting, slow], np.int32)
    program = plain_block if carry.refused else compact_block

    here, copies = devices.current(), _copies(target, chains, width)

    def lane(j: int, kernel: Any, memories: Any, state: Any, keys: Array) -> Any:
        out = program(buffers, adapters, kernel, memories, state, keys, copies[j], here.put(span, j))
        kernel, memories, state, filled = out if carry.refused else out[0]
        return kernel, memories, state, {k: np.moveaxis(here.host(b)[:count], 0, 1) for k, b in filled.items()}

    trees = (carry.kernel, carry.memories, carry.state, chain_keys(carry.seed, chains))
    kernel, memories, state, out = by_lane(lane, chains, width, threads, *trees)
    carry = replace(carry, iteration=carry.iteration + count, kernel=kernel, memories=memories, state=state)
    return carry, out
