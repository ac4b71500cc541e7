"""Adaptation of a part of a kernel that is made of others.

An adapter learns from a kernel, its state and what it reports. ``Within(i, adapter)`` shows it part i of a composite
kernel, the part's own state (of the block's own coordinates) and its own report, and puts the tuned part back. Where
the elements of a plate move independently, each has its own memory and its own tuning. A part that was not at work in
a step teaches nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from .step_size import namespace

Array = Any


@dataclass(frozen=True)
class Within:
    """Adapts one part of a composite kernel.

    Attributes:
        part: Number of the part.
        adapter: What adapts it.
        each: Whether it is a block whose elements adapt apart.

    Example:
        >>> from ppl.inference.adapt.step_size import StepSize
        >>> from ppl.inference.mcmc import HMC, Cycle
        >>> kernel = Cycle(HMC(np.array(0.1)), HMC(np.array(2.0)))
        >>> adapter = Within(1, StepSize())
        >>> memory = adapter.init(kernel, None)
        >>> round(float(np.exp(memory.centre)), 3)
        20.0
    """

    part: int
    adapter: Any
    each: bool = False

    @property
    def windowed(self) -> bool:
        """Whether the adapter learns in windows."""
        return bool(self.adapter.windowed)

    @property
    def pooled(self) -> bool:
        """Whether chains learn together."""
        return bool(self.adapter.pooled)

    def init(self, kernel: Any, state: Any) -> Any:
        """Start with an empty memory, one for each element."""
        own = None if state is None else state.parts[self.part]
        return self._over(self.adapter.init, kernel.kernels[self.part], own)

    def update(self, memory: Any, kernel: Any, state: Any, info: Any) -> tuple[Any, Any]:
        """Learn from one step, if the part was at work in it."""
        own, i = kernel.kernels[self.part], self.part
        new = self._over(self.adapter.update, memory, own, state.parts[i], info.parts[i])
        xp = namespace(info.used)
        chosen = jax.tree.map(lambda a, b: xp.where(info.used[i], a, b), new, (memory, own))
        return chosen[0], kernel.with_part(i, chosen[1])

    def final(self, memory: Any, kernel: Any) -> Any:
        """Freeze the part."""
        return kernel.with_part(self.part, self._over(self.adapter.final, memory, kernel.kernels[self.part]))

    def _over(self, function: Callable[..., Any], *trees: Any) -> Any:
        """Apply a function, to each element apart where there are several: mapped if traced, else one by one."""
        if not self.each:
            return function(*trees)
        leaves = jax.tree.leaves(trees)
        if namespace(*leaves) is not np:
            return jax.vmap(function)(*trees)
        count = len(leaves[0])
        rows = [function(*jax.tree.map(lambda x, i=i: x[i], trees)) for i in range(count)]
        return jax.tree.map(lambda *row: np.stack([np.asarray(x) for x in row]), *rows)


jax.tree_util.register_dataclass(Within, ["adapter"], ["part", "each"])
