"""A tiny engine for tests of the driver: independent Gaussian draws, whatever the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl.inference.core import Block, Draws, host_rng


@dataclass(frozen=True)
class Gaussian:
    """Independent draws of N(mean, sd^2) per coordinate, after some blocks of warm-up.

    Attributes:
        interrupt_at: Iteration at whose block Ctrl-C is pressed.
        stuck: Chains sit at different places, so that no R-hat is ever small.
    """

    mean: Any = 0.0
    sd: Any = 1.0
    chains: int = 4
    warmup: int = 200
    draws: int = 200
    max_draws: int | None = None
    interrupt_at: int | None = None
    stuck: bool = False

    def plan(self, target):
        return [f"{self.chains} chains of Gaussian draws in {target.dim} dimensions"]

    def start(self, seed, target, init=None):
        return {"seed": seed, "at": 0, "init": init, "blocks": 0}

    def advance(self, carry, target, n):
        at = carry["at"]
        phase = "warmup" if at < self.warmup else "sampling"
        n = min(n, self.warmup - at) if at < self.warmup else n
        if self.interrupt_at is not None and at + n > self.interrupt_at:
            raise KeyboardInterrupt
        shape = (self.chains, target.dim)
        # Keyed by the iteration: the draws must not depend on the sizes of the blocks.
        z = np.stack([host_rng(carry["seed"], i).normal(size=shape) for i in range(at, at + n)], axis=1)
        z = self.mean + self.sd * z
        if self.stuck:
            z = z + 100.0 * np.arange(self.chains)[:, None, None]
        stats = {"energy": 0.5 * (z**2).sum(-1), "diverging": np.zeros((self.chains, n), bool)}
        carry = {**carry, "at": at + n, "blocks": carry["blocks"] + 1}
        return carry, Block(phase, z, stats, {"step_size": 0.5}), at + n >= self.warmup + self.draws

    def finish(self, carry, blocks, target):
        def join(phase):
            kept = [b for b in blocks if b.phase == phase]
            if not kept:
                return None, {}
            stats = {k: np.concatenate([b.stats[k] for b in kept], 1) for k in kept[0].stats}
            return np.concatenate([b.positions for b in kept], 1), stats

        positions, stats = join("sampling")
        info = {"blocks": carry["blocks"], "init": None if carry["init"] is None else carry["init"].tolist()}
        return Draws(positions, stats, *join("warmup"), info=info)
