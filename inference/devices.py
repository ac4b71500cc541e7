r"""Where the work of a run takes place: lanes of chains on devices and processes, data over a mesh.

Chains run in *lanes* of fixed width, whose number is a matter of the model's cost and the engine's options alone. With
P processes of n devices each, lane j belongs to process j mod P and runs there on device (j div P) mod n, in a thread
of its own; what the lanes return is gathered by every process, byte by byte. Each lane executes the same machine
program on the same numbers wherever it is, so the draws do not depend on devices or processes, bit for bit.

Alternatively the data are laid out over a mesh of all devices (``inference.sharding``); then every lane runs on the
whole mesh, one after another, and each process takes part in each: equal up to the order of sums.

In several processes (``jax.distributed.initialize``, called by the user before anything else) ``infer`` is a
collective call: each process makes the same one.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from . import processes
from .processes import is_leader as is_leader


@dataclass(frozen=True, eq=False)
class Placement:
    """The devices of a run, as this process sees them.

    Attributes:
        devices: Devices of this process that lanes take in turn; () for JAX's default device.
        mesh: Mesh over which data are laid out, or None where every lane has its data on its device.
        processes: Processes that take part.
        process: Number of this one.
        asked: Whether the user named the devices.

    Example:
        >>> Placement(processes=2, process=1).mine(5)
        [1, 3]
    """

    devices: tuple[Any, ...] = ()
    mesh: Any = None
    processes: int = 1
    process: int = 0
    asked: bool = False
    _copies: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def platform(self) -> str:
        """Platform of the devices, such as ``"cpu"``."""
        if self.devices:
            return str(self.devices[0].platform)
        default = jax.config.jax_default_device
        return getattr(default, "platform", default) or jax.default_backend()

    @property
    def parts(self) -> int | None:
        """Devices over which data are laid out, or None."""
        return None if self.mesh is None else int(self.mesh.devices.size)

    @property
    def divides(self) -> bool:
        """Whether lanes are divided over processes."""
        return self.processes > 1 and self.mesh is None

    def mine(self, lanes: int) -> list[int]:
        """Lanes that this process runs; where there are fewer lanes than processes, some are run twice."""
        if not self.divides:
            return list(range(lanes))
        return list(range(self.process, lanes, self.processes)) or [self.process % lanes]

    def workers(self, lanes: int, threads: int) -> int:
        """Threads in which this process runs its lanes; one where lanes share devices that must stay in step."""
        if self.mesh is not None:
            return 1
        return max(1, min(len(self.mine(lanes)), max(threads, len(self.devices))))

    def device(self, lane: int) -> Any:
        """Where a lane runs: a device, a layout over the mesh, or None for JAX's default device."""
        if self.mesh is not None:
            return jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())
        if not self.devices:
            return None
        count = self.processes if self.divides else 1
        return self.devices[lane // count % len(self.devices)]

    def used(self, lanes: int) -> list[int]:
        """One lane of this process for each device that runs any."""
        first: dict[Any, int] = {}
        for lane in self.mine(lanes):
            first.setdefault(self.device(lane), lane)
        return list(first.values())

    def put(self, tree: Any, lane: int) -> Any:
        """Put arrays where a lane runs; arrays that are laid out over the mesh stay as they are."""
        where = self.device(lane)
        if self.mesh is None:
            return jax.device_put(tree, where)
        return jax.tree.map(lambda x: x if _laid_out(x, self.mesh) else _everywhere(x, where), tree)

    def copy(self, tree: Any, lane: int) -> Any:
        """The copy of a density's data where a lane runs, made once per device for the latest density."""
        where = self.device(lane)
        if where is None:
            return self.put(tree, lane)
        if self._copies.get("of") is not tree:
            self._copies.clear()
            self._copies["of"] = tree
        if where not in self._copies:
            self._copies[where] = self.put(tree, lane)
        return self._copies[where]

    def map(self, work: Callable[[int], Any], lanes: int, threads: int = 1, witness: Any = None) -> list[Any]:
        """Run ``work(lane)`` for all lanes, here and in the other processes.

        Args:
            work: From a lane's number to a pytree of arrays, of the same shapes for all lanes.
            lanes: Number of lanes.
            threads: Most threads where devices do not ask for more.
            witness: Host arrays that must be the same in all processes.

        Returns:
            The results of all lanes as NumPy arrays, in order, the same in every process.

        Raises:
            RuntimeError: If the processes do not compute the same run.
        """
        mine, count = self.mine(lanes), self.workers(lanes, threads)
        inside = _with_settings(lambda lane: jax.tree.map(self.host, work(lane)))
        results = list(map(inside, mine)) if count == 1 else list(_pool(count).map(inside, mine))
        return processes.gather(results, lanes, self.processes, self.process, witness) if self.divides else results

    def once(self, work: Callable[[int], Any], lanes: list[int]) -> None:
        """Run ``work(lane)`` for one lane of each device at once: what compiles must not be compiled twice."""
        first = {self.device(lane): lane for lane in reversed(lanes)}
        inside, count = _with_settings(work), len(first)
        list(map(inside, first.values()) if count == 1 else _pool(count).map(inside, first.values()))

    def host(self, array: Any) -> np.ndarray:
        """An array as NumPy array; every process must ask where it is laid out over several processes."""
        if isinstance(array, jax.Array) and not array.is_fully_addressable:
            return processes.whole(array)
        return np.asarray(array)

    def lines(self, lanes: int | None) -> list[str]:
        """Say what runs where; nothing for a run on JAX's default device.

        Args:
            lanes: Number of lanes; None for an engine that does not divide its work.
        """
        if self.mesh is not None:
            over = f" of {self.processes} processes" if self.processes > 1 else ""
            return [f"every lane runs on a mesh of {named(self.mesh.devices.flat)}{over}, one lane after another"]
        out, count = [], max(len(self.devices), 1)
        if lanes is None:
            return [] if self.processes == 1 else [f"each of {self.processes} processes runs everything"]
        if self.processes > 1:
            each = -(-lanes // self.processes)
            out.append(
                f"{lanes} lane{'s' * (lanes > 1)} over {self.processes} processes, lane j on process j mod "
                f"{self.processes}: at most {each} each; every process gathers all draws"
            )
        if self.devices:
            busy = len(self.used(lanes))
            names = named([self.device(lane) for lane in self.used(lanes)])
            each = -(-len(self.mine(lanes)) // busy)
            out.append(f"lanes on {names}, at most {each} each, data copied to each device")
        idle = self.idle(lanes)
        return [*out, *([idle] if idle else [])] if count > 1 or self.processes > 1 or self.asked else []

    def idle(self, lanes: int) -> str:
        """What is left unused and how to use it; empty where everything works."""
        places = self.processes * max(len(self.devices), 1)
        if self.mesh is not None or lanes >= places:
            return ""
        what = "devices" if self.processes == 1 else "devices of all processes"
        return (
            f"{places - lanes} of {places} {what} stay idle: the run has {lanes} lane{'s' * (lanes > 1)}, which the "
            f"engine's options decide and devices never do. More lanes: PooledHMC(lanes={places}), or "
            f"Chains(kernel, lane=1) with at least {places} chains; or lay out the data, shard=True"
        )


# ------------------------------------------------------------------------------------ the placement in force

_current: ContextVar[Placement | None] = ContextVar("placement", default=None)
_DEFAULT = Placement()


def current() -> Placement:
    """The placement in force: that of the run around, or JAX's default device.

    Example:
        >>> current().processes
        1
    """
    return _current.get() or _DEFAULT


@contextmanager
def use(placement: Placement) -> Iterator[Placement]:
    """Put a placement into force inside.

    Example:
        >>> with use(Placement(asked=True)):
        ...     current().asked
        True
    """
    token = _current.set(placement)
    try:
        yield placement
    finally:
        _current.reset(token)
        placement._copies.clear()


# ---------------------------------------------------------------------------------------------- processes


def exchange(value: Any) -> list[Any]:
    """Give a small JSON value to all processes of the run; a collective call.

    Returns:
        The values of all processes, in order; only this one's outside a run of several processes.

    Raises:
        ValueError: If the value is long.

    Example:
        >>> exchange({"stop": ""})
        [{'stop': ''}]
    """
    return processes.exchange(value, current().processes)


def agree(value: Any) -> Any:
    """Process 0's value, in all processes; a collective call for what a clock or a user decides.

    Example:
        >>> agree(100)
        100
    """
    return exchange(value)[0]


@contextmanager
def together() -> Iterator[None]:
    """Let an error of one process inside be an error of all; a collective call.

    Raises:
        RuntimeError: If another process failed.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as raised:
        error = raised
    told = exchange("" if error is None else f"{type(error).__name__}: {error}"[:600])
    if error is not None:
        raise error
    for process, text in enumerate(told):
        if text:
            raise RuntimeError(f"process {process} failed: {text}")


def check_same(describe: Callable[[], Any]) -> None:
    """Refuse a run whose processes were given different models, data or options; a collective call.

    Raises:
        RuntimeError: If the descriptions differ.
    """
    if current().processes > 1 and len(set(exchange(processes.checksum(repr(describe()).encode())))) > 1:
        raise RuntimeError("the processes were given different models, data, options or seeds; infer needs the same")


# ------------------------------------------------------------------------------------------------- threads


@functools.cache
def _pool(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="ppl-lane")


def _with_settings(work: Callable[[int], Any]) -> Callable[[int], Any]:
    """JAX's settings belong to threads: what the caller has set is set again in every worker."""
    config = jax.config
    settings = (config.jax_enable_x64, config.jax_default_device, config.jax_numpy_dtype_promotion)

    def call(lane: int) -> Any:
        x64, device, promotion = settings
        with jax.enable_x64(x64), jax.default_device(device), jax.numpy_dtype_promotion(promotion):
            return work(lane)

    return call


def threads(platform: str) -> int:
    """Threads that lanes run in where devices do not ask for more: the cores of a CPU, one elsewhere."""
    return os.cpu_count() or 1 if platform == "cpu" else 1


def _laid_out(x: Any, mesh: Any) -> bool:
    return isinstance(x, jax.Array) and getattr(x.sharding, "mesh", None) == mesh


def _everywhere(x: Any, where: Any) -> Any:
    if where.is_fully_addressable:
        return jax.device_put(x, where)
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, where, lambda index: x[index])


def named(devices: Any) -> str:
    """Devices in words.

    Example:
        >>> named(jax.devices("cpu")[:1])
        '1 cpu device (cpu:0)'
    """
    devices = list(devices)
    names = ", ".join(f"{d.platform}:{d.id}" for d in devices[:8]) + (", ..." if len(devices) > 8 else "")
    return f"{len(devices)} {devices[0].platform} device{'s' * (len(devices) > 1)} ({names})"
