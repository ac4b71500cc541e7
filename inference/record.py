"""A run that keeps its draws in a directory: what is written after every block, and the draws read back.

After a block its draws, their statistics, the values of all sites and records and the pointwise log likelihood are
added to the store; only the last few stay in memory. Split R-hat comes from sums over batches.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import groups
from .core import Block
from .keep import thinned
from .mcmc.batch_moments import BatchMoments
from .store import Arrays, Log, RunDirectory, StoreError

POINTWISE = 10_000
"""Most observations whose log likelihood is stored with every draw, unless it is asked for."""

GLANCED = 64 * 2**20
"""Most bytes of draws that are read for the display."""

_PIECE = 256


def stored_names(program: Any, density: Any, keep: Iterable[str] | None) -> dict[str, list[str] | None]:
    """Which quantities go into the groups ``posterior`` and ``log_likelihood``; None for all.

    Raises:
        ppl.ModelError: If a name is none of the program's.
    """
    if not hasattr(density, "generated"):
        return {"posterior": None, "log_likelihood": []}
    pointwise = groups.shapes_of(density, "pointwise") if hasattr(density, "pointwise") else {}
    if keep is None:
        size = sum(int(np.prod(x.shape)) for x in pointwise.values())
        return {"posterior": None, "log_likelihood": None if size <= POINTWISE else []}
    from .summary import choose

    names = [keep] if isinstance(keep, str) else list(keep)
    wanted = [name for name in names if name != "log_likelihood"]
    choose(groups.shapes_of(density, "generated"), wanted)
    return {"posterior": wanted, "log_likelihood": None if "log_likelihood" in names else []}


@dataclass
class Recorder:
    """Keeps draws in a run directory.

    Attributes:
        directory: The files.
        program: The program, or None.
        density: Its density.
        names: See ``stored_names``.
        thin: Keep one of so many sampling draws.
        seed: Of the run.
        seen: Sampling draws before thinning.
        moments: Batch sums of the kept draws.
        last: The last sampling block, from which an engine makes its facts.
    """

    directory: RunDirectory
    program: Any
    density: Any
    names: dict[str, list[str] | None]
    thin: int = 1
    seed: int = 0
    seen: int = 0
    moments: BatchMoments | None = None
    last: Block | None = None
    sampling: Log = field(init=False)
    warmup: Log = field(init=False)

    def __post_init__(self) -> None:
        """Name the logs."""
        self.sampling, self.warmup = Log(self.directory.draws), Log(self.directory.draws / "warmup")

    def add(self, block: Block) -> None:
        """Keep a block."""
        block, self.seen = thinned(block, self.thin, self.seen)
        if block.positions is None or not block.positions.shape[1]:
            return
        if block.phase != "sampling":
            self.warmup.append({"unconstrained": {"z": block.positions}, "sample_stats": dict(block.stats)})
            return
        found = {"unconstrained_posterior": {"z": block.positions}, "sample_stats": dict(block.stats)}
        self.sampling.append({**found, **self._derived(block.positions)})
        if self.moments is None:
            self.moments = BatchMoments.empty(block.positions.mean(axis=(0, 1)), block.positions.shape[0])
        self.moments = self.moments.add(np.swapaxes(block.positions, 0, 1))
        self.last = block

    def _derived(self, positions: np.ndarray) -> dict[str, Arrays]:
        """Values and log likelihoods of a block, computed on the device in pieces of few different sizes."""
        chains, draws, dim = positions.shape
        flat = positions.reshape(1, chains * draws, dim)
        rows = max(_PIECE, 2 ** int(np.ceil(np.log2(chains * draws))))
        padded = np.concatenate([flat, np.broadcast_to(flat[:, -1:], (1, rows - chains * draws, dim))], axis=1)
        source = SimpleNamespace(program=self.program, density=self.density)
        out: dict[str, Arrays] = {}
        if self.names["posterior"] != []:
            keys = groups.draw_keys(self.seed, chains, draws, self.sampling.total).reshape(1, chains * draws, -1)
            keys = np.concatenate([keys, np.broadcast_to(keys[:, -1:], (1, rows - chains * draws, 3))], axis=1)
            out["posterior"] = groups.generated(source, padded, keys)
        if self.names["log_likelihood"] != []:
            out["log_likelihood"] = groups.factors(source, "log_likelihood", padded)
        back = {}
        for group, arrays in out.items():
            wanted = self.names[group]
            kept = {n: v for n, v in arrays.items() if wanted is None or n in wanted}
            cut = {n: v[0, : chains * draws].reshape(chains, draws, *v.shape[2:]) for n, v in kept.items()}
            if cut:
                back[group] = cut
        return back

    def positions(self) -> np.ndarray:
        """Sampling draws so far, read from the directory."""
        return self.sampling.read("unconstrained_posterior", "z")

    def glance(self) -> np.ndarray | None:
        """Draws to show R-hat and ESS of, None where that would read too much."""
        z = self.sampling.tail.get("unconstrained_posterior", {}).get("z")
        if z is None or 8 * self.sampling.total * z.shape[0] * z.shape[2] > GLANCED:
            return None
        return self.positions()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the draws: arrays and numbers only, for readers of any version."""
        rhat = None if self.moments is None else self.moments.rhats()[0]
        return {"seen": self.seen, "rhat": rhat, "sampling": self.sampling.state(), "warmup": self.warmup.state()}

    def memory(self) -> dict[str, Any]:
        """What a checkpoint keeps besides, to go on."""
        return {"moments": self.moments, "last": self.last}

    def restore(self, state: dict[str, Any], memory: dict[str, Any]) -> None:
        """Go back to a checkpoint."""
        self.seen, self.moments, self.last = int(state["seen"]), memory["moments"], memory["last"]
        self.sampling.restore(state["sampling"])
        self.warmup.restore(state["warmup"])

    def finish(self, engine: Any, carry: Any, density: Any) -> StoredDraws:
        """The result, whose arrays are read when they are used."""
        self.sampling.close()
        self.warmup.close()
        info = engine.finish(carry, [self.last] if self.last is not None else [], density).info
        return StoredDraws(self.sampling, self.warmup, info, None if self.moments is None else self.moments.rhats()[0])


class OnDemand(Mapping[str, np.ndarray]):
    """The arrays of a group of a log, each read when it is asked for."""

    def __init__(self, log: Log, group: str) -> None:
        """Read nothing yet."""
        self._log, self._group = log, group

    def __getitem__(self, name: str) -> np.ndarray:
        """Read an array."""
        if name not in self._log.tail.get(self._group, {}):
            raise KeyError(name)
        return self._log.read(self._group, name)

    def __iter__(self) -> Iterator[str]:
        """Names."""
        return iter(self._log.tail.get(self._group, {}))

    def __len__(self) -> int:
        """Number of arrays."""
        return len(self._log.tail.get(self._group, {}))


@dataclass(frozen=True, eq=False)
class StoredDraws:
    """Draws in a run directory, with the attributes of ``core.Draws``; arrays are read at first use."""

    sampling: Log
    warmup: Log
    info: dict[str, Any]
    split_rhat: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Chains, draws and dimension."""
        z = self.sampling.tail["unconstrained_posterior"]["z"]
        return z.shape[0], self.sampling.total, z.shape[2]

    @cached_property
    def positions(self) -> np.ndarray:
        """Shape (chains, draws, dim)."""
        return self.sampling.read("unconstrained_posterior", "z")

    @cached_property
    def stats(self) -> Mapping[str, np.ndarray]:
        """Statistics by ArviZ's names, each (chains, draws)."""
        return OnDemand(self.sampling, "sample_stats")

    @cached_property
    def warmup_positions(self) -> np.ndarray | None:
        """Warm-up positions, None where there are none."""
        return self.warmup.read("unconstrained", "z") if self.warmup.total else None

    @cached_property
    def warmup_stats(self) -> Mapping[str, np.ndarray]:
        """Warm-up statistics."""
        return OnDemand(self.warmup, "sample_stats")


def explained(error: BaseException, path: Any) -> BaseException:
    """An error with what it means for the run, and what to do."""
    text, again = str(error), f"infer.resume({str(path)!r}) goes on from the last checkpoint"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(error.errno, f"no space is left for {path}: the draws so far are safe. Make room; {again}")
    memory = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()
    if memory:
        error.add_note(
            f"Out of memory. The draws so far are safe in {path}; {again}, on a machine with more memory, or start a "
            "run with fewer chains, with keep=() or with thin=."
        )
    return error
