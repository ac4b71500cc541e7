"""What the processes of one run tell each other: the results of their lanes, and small notes.

Arrays travel as bytes, in one collective of a rounded size: no precision is lost whatever JAX's settings, and few
programs are compiled. All functions but ``is_leader`` are collective: every process must call them, in the same order.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import jax
import numpy as np

_NOTE = 4096
"""Bytes of one process's note in ``exchange``."""


def is_leader() -> bool:
    """Whether this process shows progress and writes files: process 0.

    Example:
        >>> is_leader()
        True
    """
    return jax.process_index() == 0


def exchange(value: Any, count: int) -> list[Any]:
    """The JSON values of ``count`` processes, in order.

    Raises:
        ValueError: If the value is long.

    Example:
        >>> exchange([1, "a"], 1)
        [[1, 'a']]
    """
    text = json.dumps(value).encode()
    if len(text) > _NOTE:
        raise ValueError(f"a note between processes has at most {_NOTE} bytes, not {len(text)}")
    if count == 1:
        return [json.loads(text)]
    return [json.loads(row[:_NOTE]) for row in allgather(text.ljust(_NOTE), _NOTE)]


def gather(results: list[Any], lanes: int, count: int, process: int, witness: Any = None) -> list[Any]:
    """The results of all lanes, where lane j was run by process j mod ``count``.

    Args:
        results: Pytrees of NumPy arrays of this process's lanes, of the same shapes for all lanes.
        lanes: Number of lanes.
        count: Number of processes.
        process: Number of this process.
        witness: Host arrays that must be the same in all processes.

    Raises:
        RuntimeError: If the witnesses differ.
    """
    leaves, structure = jax.tree.flatten(results[0])
    parts = [b"".join(np.ascontiguousarray(x).tobytes() for x in jax.tree.leaves(r)) for r in results]
    size, rows = len(parts[0]), -(-lanes // count)
    head = np.array([checksum(witness), size], np.uint64).tobytes()
    everything = allgather(head + b"".join(parts), len(head) + rows * size)
    if any(row[: len(head)] != head for row in everything):
        raise RuntimeError(
            f"process {process} and others compute different runs. Every process must make the same call, with the "
            "same model, data, seed and options, on the same versions and kind of processor."
        )
    found = []
    for lane in range(lanes):
        at = len(head) + lane // count * size
        found.append(_unpacked(everything[lane % count][at : at + size], leaves, structure))
    return found


def allgather(data: bytes, size: int) -> list[bytes]:
    """The bytes of all processes; ``size`` is the same in each, and rounded up so that few programs are compiled."""
    from jax.experimental import multihost_utils

    unit = max(256, 1 << max(size.bit_length() - 3, 0))
    padded = np.zeros(-(-size // unit) * unit, np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    return [row.tobytes() for row in np.asarray(multihost_utils.process_allgather(padded))]


def whole(array: Any) -> np.ndarray:
    """A JAX array that is laid out over processes, as NumPy array in each."""
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def checksum(arrays: Any) -> int:
    """CRC-32 of the bytes of the arrays of a pytree.

    Example:
        >>> checksum([np.zeros(2), np.ones(1)]) == checksum([np.zeros(2), np.ones(1)])
        True
    """
    value = 0
    for leaf in jax.tree.leaves(arrays):
        value = zlib.crc32(leaf if isinstance(leaf, bytes) else np.ascontiguousarray(leaf).tobytes(), value)
    return value


def _unpacked(data: bytes, like: list[np.ndarray], structure: Any) -> Any:
    leaves, at = [], 0
    for leaf in like:
        leaves.append(np.frombuffer(data[at : at + leaf.nbytes], leaf.dtype).reshape(leaf.shape).copy())
        at += leaf.nbytes
    return jax.tree.unflatten(structure, leaves)
