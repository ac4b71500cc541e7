r"""Finite coordinates: the codes 0, ..., K_j - 1 at the end of a position, and what a density knows of them.

A code's full conditional is pi(x_j = k | rest) for k < K_j. A density may know *groups* of codes that are independent
of each other given the rest, such as a site in the elements of a plate: then every state of all codes of a group is
scored by one evaluation each, K for the group and not K for each code. It says so by three members:

* ``groups``, their number on the host;
* ``members(i)``, which codes belong to group i, booleans (m,); every code belongs to exactly one group;
* ``local(position, i)``, shape (m,): for each member the sum of the terms of the log density that read it.

Two positions that differ in members of one group only have log densities that differ by the difference of the members'
``local``. For other densities each code is a group of its own, and ``local`` is the log density.

Reference: Besag, "Spatial interaction and the statistical analysis of lattice systems" (1974), for coding sets.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any


def states(density: Any) -> tuple[int, ...]:
    """Numbers of states of the codes at the end of a position."""
    return tuple(int(k) for k in getattr(density, "finite", None) or ())


def checked(density: Any, kernel: str) -> np.ndarray:
    """Numbers of states of the codes, shape (m,), of a density that has some.

    Raises:
        ValueError: If it has none.
    """
    found = states(density)
    if not found:
        raise ValueError(
            f"{kernel} moves finite coordinates, and this density has none. Of a plain function say which entries, at "
            "the end of a position, are codes: as_density(f, dim=d + m, finite=(K_1, ..., K_m)); of a program, compile "
            "with marginalize=False, or marginalize= the names of the other finite sites."
        )
    return np.asarray(found, np.int32)


def split(position: Array, count: int) -> tuple[Array, Array]:
    """The real entries of a position and its codes."""
    first = position.shape[0] - count
    return position[:first], position[first:]


def groups(density: Any) -> int:
    """Number of groups of codes."""
    found = getattr(density, "groups", None)
    return len(states(density)) if found is None else int(found)


def members(density: Any, group: Array) -> Array:
    """Which codes belong to a group, shape (m,)."""
    if hasattr(density, "groups"):
        return density.members(group)
    return jnp.arange(len(states(density)), dtype=jnp.int32) == jnp.asarray(group, jnp.int32)


def local(density: Any, position: Array, group: Array) -> Array:
    """For each code of a group, what of the log density depends on it, shape (m,); -inf for NaN."""
    if hasattr(density, "groups"):
        value = density.local(position, group)
    else:
        value = jnp.broadcast_to(density(position), (len(states(density)),))
    return jnp.where(jnp.isnan(value), -jnp.inf, value).astype(position.dtype)


def table(density: Any, position: Array, group: Array) -> Array:
    """Log conditionals, up to a constant for each code, of a group's codes at each of their states.

    Returns:
        Shape (K, m), with K the greatest number of states; -inf for states that a code does not have and for codes of
        other groups.
    """
    counts = np.asarray(states(density), np.int32)
    real, codes = split(position, len(counts))
    inside = members(density, group)

    def one(k: Array) -> Array:
        moved = jnp.where(inside, jnp.minimum(k, counts - 1).astype(codes.dtype), codes)
        value = local(density, jnp.concatenate([real, moved]), group)
        return jnp.where(inside & (k < counts), value, -jnp.inf)

    return jax.vmap(one)(jnp.arange(int(counts.max()), dtype=jnp.int32))


def tables(density: Any, position: Array) -> Array:
    """The log conditionals of all codes, each given all others at their current values; shape (K, m)."""
    counts = states(density)

    def body(i: Array, found: Array) -> Array:
        return jnp.where(members(density, i), table(density, position, i), found)

    start = jnp.full((max(counts), len(counts)), -jnp.inf, position.dtype)
    return jax.lax.fori_loop(np.int32(0), np.int32(groups(density)), body, start)


def weights(logs: Array) -> tuple[Array, Array]:
    """Conditional probabilities up to a factor for each code, shape (K, m), and for which codes there are any."""
    top = jnp.max(logs, axis=0)
    usable = jnp.isfinite(top)
    return jnp.where(usable, jnp.exp(logs - jnp.where(usable, top, 0.0)), 0.0), usable


def choose(chances: Array, uniform: Array) -> Array:
    """For each code a state with chances proportional to ``chances`` (K, m), by inversion; shape (m,).

    Example:
        >>> choose(jnp.array([[1.0], [0.0], [3.0]]), jnp.array([0.3])).tolist()
        [2]
    """
    mass = jnp.cumsum(chances, axis=0)
    place = jnp.sum(mass <= uniform * mass[-1], axis=0, dtype=jnp.int32)
    return jnp.minimum(place, chances.shape[0] - 1)


def pick(logs: Array, codes: Array) -> Array:
    """The entries (m,) of a table (K, m) at given codes."""
    rows = jnp.arange(logs.shape[0], dtype=jnp.int32)[:, None] == codes.astype(jnp.int32)
    return jnp.sum(jnp.where(rows, logs, 0.0), axis=0)


def pass_over(density: Any, key: Array, codes: Array, scan: str, move: Any) -> tuple[Array, Any]:
    """Let every group move once in turn (``systematic``), or as many groups drawn at random (``random``).

    Args:
        density: The density.
        key: Random key.
        codes: The codes (m,).
        scan: One of the two.
        move: ``(key, codes, group) -> (codes, number)``; the numbers are added up.

    Returns:
        The codes, and the sum of the numbers.
    """
    count = groups(density)

    def body(i: Array, pair: tuple[Array, Array]) -> tuple[Array, Array]:
        own = jax.random.fold_in(key, i)
        group = i
        if scan == "random" and count > 1:
            group = jax.random.randint(jax.random.fold_in(own, 1), (), 0, count, jnp.int32)
        moved, number = move(own, pair[0], group)
        return moved, pair[1] + number

    start = (codes, jnp.zeros((), codes.dtype))
    if count == 1:
        return body(jnp.zeros((), jnp.int32), start)
    return jax.lax.fori_loop(np.int32(0), np.int32(count), body, start)


def covers(density: Any, dim: int) -> np.ndarray:
    """Which coordinates kernels of codes move, shape (dim,)."""
    found = np.zeros(dim, bool)
    found[dim - len(states(density)) :] = True
    return found


def scan_checked(kernel: str, scan: str) -> None:
    """Refuse an unknown order of the groups."""
    if scan not in ("systematic", "random"):
        raise ValueError(f"{kernel}(scan={scan!r}): scan is 'systematic' or 'random'")


def drawn(rng: np.random.Generator, dim: int, density: Any) -> np.ndarray:
    """A position to start from: real entries from U(-2, 2), codes uniform over their states.

    Example:
        >>> from ppl.inference.core import as_density
        >>> z = drawn(np.random.default_rng(0), 3, as_density(lambda z: 0.0 * z[0], 3, (4, 4)))
        >>> bool(np.all(z[1:] % 1 == 0)), bool(z.max() < 4)
        (True, True)
    """
    z = rng.uniform(-2.0, 2.0, dim)
    counts = states(density)
    if counts:
        z[dim - len(counts) :] = rng.integers(counts)
    return z


def settled(positions: np.ndarray, density: Any, seed: int) -> np.ndarray:
    """Positions (chains, d) with their codes drawn from their conditionals, each twice: most are then admissible."""
    if not states(density):
        return positions
    keys = np.random.default_rng(seed).integers(2**32, size=(len(positions), 2), dtype=np.uint32)
    return np.array(_settle(keys, jnp.asarray(positions, jnp.result_type(float)), density), positions.dtype)


@jax.jit
def _settle(keys: Array, positions: Array, density: Any) -> Array:
    from .gibbs import Gibbs, State

    def one(words: Array, z: Array) -> Array:
        state = State(z, jnp.zeros((), z.dtype))
        for i in range(2):
            key = jax.random.fold_in(jax.random.wrap_key_data(words, impl="threefry2x32"), i)
            state = Gibbs().step(key, state, density)[0]
        return state.position

    return jax.vmap(one)(keys, positions)
