r"""The compiled part of parallel tempering: a local move on every rung, then swaps of neighbours.

The lowest rung draws from the reference. Pairs (k, k + 1) with k even swap in even iterations, the others in odd ones;
a swap is accepted with probability min(1, exp((b_{k+1} - b_k)(V_k - V_{k+1}))). That order is not reversible, and lets
states cross the ladder in a time that grows with its length, not with its square (Okabe et al., 2001; Syed et al.,
2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

Array = Any


@partial(jax.tree_util.register_dataclass, data_fields=["reference", "likelihood", "target"], meta_fields=["kind"])
@dataclass(frozen=True)
class Ends:
    """The two ends of a ladder.

    Attributes:
        reference: A normalised log density (kind "prior"), or a ``Proposal``.
        likelihood: Log density over the same vector (kind "prior"), or None.
        target: The density itself.
        kind: "prior", where the target tells its prior and its likelihood apart, or "proposal".
    """

    reference: Any
    likelihood: Any
    target: Any
    kind: str

    def draw(self, key: Array) -> Array:
        """Draw from the reference."""
        return self.target.prior(key) if self.kind == "prior" else self.reference.sample(key)

    def base(self, z: Array) -> Array:
        """Log density of the reference."""
        return self.reference(z) if self.kind == "prior" else self.reference.log_prob(z)

    def value(self, z: Array) -> Array:
        """V at a position; -inf where the target has no mass."""
        found = self.likelihood(z) if self.kind == "prior" else self.target(z) - self.base(z)
        return jnp.where(jnp.isnan(found), -jnp.inf, found)


@partial(jax.tree_util.register_dataclass, data_fields=["ends", "beta"], meta_fields=[])
@dataclass(frozen=True)
class Rung:
    """The log density log q + b V at one inverse temperature."""

    ends: Ends
    beta: Array

    def __call__(self, z: Array) -> Array:
        """Log density at a position."""
        if self.ends.kind == "prior":
            return self.ends.base(z) + self.beta * self.ends.likelihood(z)
        return (1.0 - self.beta) * self.ends.base(z) + self.beta * self.ends.target(z)


@jax.jit
def draw_reference(ends: Ends, keys: Array) -> tuple[Array, Array]:
    """Draws of the reference and their V, for key data of shape (n, 2)."""

    def one(key: Array) -> tuple[Array, Array]:
        z = ends.draw(jax.random.wrap_key_data(key, impl="threefry2x32"))
        return z, ends.value(z)

    return jax.vmap(one)(keys)


@jax.jit
def begin(kernel: Any, positions: Array, betas: Array, ends: Ends) -> Any:
    """States of the kernels at positions (copies, K, d) of the rungs above the lowest."""
    one = lambda k, z, b: k.init(z, Rung(ends, b))  # noqa: E731
    return jax.vmap(jax.vmap(one), in_axes=(0, 0, None))(kernel, positions, betas)


@jax.jit
def block(
    buffers: dict, adapters: Any, kernel: Any, memories: Any, positions: Array, betas: Array, keys: Array, ends: Ends,
    span: Array,
) -> Any:
    """Run iterations ``span = (first, count, adapting)``.

    Args:
        buffers: Arrays of shape (capacity, copies, ...) for what is reported.
        adapters: Adapters of the kernels.
        kernel: Kernels of the rungs above the lowest, leaves of shape (copies, K, ...).
        memories: Memories of the adapters, likewise.
        positions: Shape (copies, K + 1, d).
        betas: Shape (K + 1,).
        keys: Key data of the copies, shape (copies, 2).
        ends: The ends of the ladder.
        span: Three integers.

    Returns:
        Kernel, memories, positions, buffers.
    """
    count = positions.shape[1]

    def rung(key: Array, kernel: Any, memories: Any, z: Array, beta: Array) -> tuple:
        density = Rung(ends, beta)
        used, (state, info) = kernel, kernel.step(key, kernel.init(z, density), density)
        learned = []
        for adapter, memory in zip(adapters, memories, strict=True):
            new = adapter.update(memory, kernel, state, info)
            memory, kernel = jax.tree.map(partial(jnp.where, span[2] > 0), new, (memory, kernel))
            learned.append(memory)
        names = [name for name in ("acceptance_rate", "diverging") if hasattr(info, name)]
        report = {name: jnp.asarray(getattr(info, name), z.dtype) for name in names}
        if hasattr(used, "step_size"):
            report["step_size"] = jnp.asarray(used.step_size, z.dtype)
        return kernel, learned, state.position, report

    def copy(key: Array, kernel: Any, memories: Any, positions: Array, index: Array) -> tuple:
        key = jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), index)
        own = jax.vmap(lambda k: jax.random.fold_in(key, k))(jnp.arange(count, dtype=jnp.uint32))
        kernel, memories, moved, report = jax.vmap(rung)(own[1:], kernel, memories, positions[1:], betas[1:])
        positions = jnp.concatenate([ends.draw(own[0])[None].astype(moved.dtype), moved])
        values = jax.vmap(ends.value)(positions)
        new, order = swapped(jax.random.fold_in(key, 2**31), positions, values, betas, index)
        report = {name: value[-1] for name, value in report.items()}
        lp = Rung(ends, jnp.ones((), new.dtype))(new[-1])
        out = {"position": new[-1], "lp": lp, "values": values, "order": order, **report}
        return kernel, memories, new, out

    def body(i: Array, loop: Any) -> Any:
        (kernel, memories, positions), buffers = loop
        index = (span[0] + i).astype(jnp.uint32)
        *state, row = jax.vmap(copy, in_axes=(0, 0, 0, 0, None))(keys, kernel, memories, positions, index)
        write = partial(jax.lax.dynamic_update_index_in_dim, index=i, axis=0)
        return tuple(state), {n: write(b, row[n].astype(b.dtype)) for n, b in buffers.items()}

    (kernel, memories, positions), buffers = jax.lax.fori_loop(
        0, span[1], body, ((kernel, memories, positions), buffers)
    )
    return kernel, memories, positions, buffers


def swapped(key: Array, positions: Array, values: Array, betas: Array, index: Array) -> tuple[Array, Array]:
    """Swap neighbouring rungs whose lower one has the parity of the iteration.

    Returns:
        The positions, and for each rung the rung from which its position came.
    """
    count = positions.shape[0]
    lower = jnp.arange(count - 1)
    log_ratio = (betas[1:] - betas[:-1]) * (values[:-1] - values[1:])
    log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
    accept = jnp.log(jax.random.uniform(key, (count - 1,), values.dtype)) < log_ratio
    accept &= lower % 2 == (index % 2).astype(lower.dtype)
    order = jnp.arange(count)
    order = order.at[:-1].add(accept.astype(order.dtype))
    order = order.at[1:].add(-accept.astype(order.dtype))
    return positions[order], order
