"""The transition of ChEES with a fixed tuning, as a kernel on a few chains: for tests of invariance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl.inference.mcmc import chees_block as program


@dataclass(frozen=True)
class Transition:
    """Positions are those of all chains, (chains, d)."""

    tuning: Any

    def init(self, position, density):
        return program.evaluate(position, density)

    def step(self, key, state, density):
        index = jax.random.bits(key, (), jnp.uint32)
        new, *_ = program.transition(self.tuning, 8, key, jnp.right_shift(index, 8), state, density)
        return new, None


jax.tree_util.register_dataclass(Transition, ["tuning"], [])


def tuned(target):
    """The transition with a target's step size and the lengths of its axes."""
    scale, step = np.asarray(target.scale), target.step_size
    if scale.ndim == 2:  # a dense metric's step is far too large for a diagonal one
        scale, step = np.ones(len(scale)), 1.5 * step * np.linalg.svd(scale)[1].min()
    tuning = program.first_tuning(step, len(scale), np.float64)
    return Transition(replace(tuning, scale=scale, log_length=np.log(8 * step)))
