"""From what a user says about devices to a placement, or an error that says how to get them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import jax

from .devices import Placement, named
from .sharding import over


def place(devices: Any = None, shard: Any = None) -> Placement:
    """Choose the devices of a run.

    Args:
        devices: How many devices of this process to use, a list of devices of this process, or None: all devices of an
            accelerator's kind, and JAX's default device on a CPU.
        shard: Whether (or along which plate) data will be laid out over all the devices of all processes.

    Raises:
        ValueError: If there are not so many devices.
        TypeError: If a device is none.

    Example:
        >>> place(1).lines(4)
        []
    """
    local = jax.local_devices()
    if devices is None:
        alone = jax.config.jax_default_device is not None or (local[0].platform == "cpu" and not shard)
        chosen = () if alone or len(local) == 1 else tuple(local)
    elif isinstance(devices, int) and not isinstance(devices, bool):
        chosen = _first_devices(devices, local)
    else:
        chosen = tuple(_device(d) for d in devices)
        if not chosen or len(set(chosen)) < len(chosen):
            raise ValueError("devices=[...] names at least one device, and each once")
    if chosen == (_default_device(),):
        chosen = ()  # the same program as without a choice
    placement = Placement(chosen, None, jax.process_count(), jax.process_index(), devices is not None)
    return replace(placement, mesh=_mesh(placement)) if shard else placement


def placed_again(about: Any, devices: Any = None) -> Placement:
    """The placement of a run that is resumed, from its manifest; data are laid out over as many devices as before."""
    before = about.get("mesh")
    if devices is None and before is not None:
        if before % jax.process_count():
            raise ValueError(
                f"data were laid out over {before} devices, which {jax.process_count()} processes cannot share"
            )
        devices = before // jax.process_count()
    return place(devices, about.get("shard"))


def _mesh(placement: Placement) -> Any:
    """All devices of all processes on one axis; each process contributes as many as this one."""
    devices = list(placement.devices)
    if placement.processes > 1:
        count, kind = max(len(devices), 1), placement.platform
        every = [[d for d in jax.devices(kind) if d.process_index == p] for p in range(placement.processes)]
        devices = [d for row in every for d in row[:count]]
    return over(devices or [_default_device()])


def _default_device() -> Any:
    default = jax.config.jax_default_device
    return default if hasattr(default, "platform") else jax.local_devices(backend=default)[0]


def _first_devices(count: int, local: list[Any]) -> tuple[Any, ...]:
    if count < 1:
        raise ValueError(f"devices={count}: a run needs a device")
    if count <= len(local):
        return tuple(local[:count])
    there = f"devices={count}, but this process has {named(local)}"
    if local[0].platform == "cpu":
        raise ValueError(
            f"{there}. A CPU is one device unless it is told to be several, before JAX starts: set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={count} in the environment, or call "
            f"jax.config.update('jax_num_cpu_devices', {count}) first. (One device uses all cores already.)"
        )
    raise ValueError(f"{there}. More of them come with more processes: jax.distributed.initialize()")


def _device(device: Any) -> Any:
    if not hasattr(device, "platform") or not hasattr(device, "process_index"):
        raise TypeError(f"devices= takes a number or a list of JAX devices (jax.local_devices()), not {device!r}")
    if device.process_index != jax.process_index():
        raise ValueError(f"{device} belongs to process {device.process_index}; each process names its own devices")
    return device


def check_engine(engine: Any, target: Any, placement: Placement) -> list[str]:
    """Say what of an engine runs where; warn where devices that the user named would do nothing.

    Raises:
        TypeError: If the engine has no lanes that could be placed.
    """
    lanes = engine.lane_count(target) if hasattr(engine, "lane_count") else None
    several = len(placement.devices) > 1 and placement.asked and placement.mesh is None
    if lanes is None and several:
        raise TypeError(
            f"{type(engine).__name__} does not divide its work into lanes, so it cannot use {len(placement.devices)} "
            "devices; PooledHMC and Chains can, and shard=True lays out the data under any engine"
        )
    idle = "" if lanes is None else placement.idle(lanes)
    if idle and (placement.asked or placement.processes > 1):
        warnings.warn(idle, stacklevel=3)
    return placement.lines(lanes)
