"""Where a run keeps its draws: in memory, or in a run directory with a small part in memory.

Both keep every ``thin``-th sampling draw and answer what the driver asks: the draws so far (for stopping rules), how
far the chains agree, and the result.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .core import Block, Draws


@dataclass
class Memory:
    """All blocks in memory.

    Attributes:
        thin: Keep one of so many sampling draws.
        blocks: Blocks so far, thinned.
        seen: Sampling draws before thinning.
    """

    thin: int = 1
    blocks: list[Block] = field(default_factory=list)
    seen: int = 0

    def add(self, block: Block) -> None:
        """Keep a block."""
        block, self.seen = thinned(block, self.thin, self.seen)
        self.blocks.append(block)

    def positions(self) -> np.ndarray:
        """Sampling draws so far, shape (chains, draws, dim)."""
        drawn = [b.positions for b in self.blocks if b.phase == "sampling" and b.positions is not None]
        return np.concatenate(drawn, axis=1)

    def glance(self) -> np.ndarray | None:
        """Draws to show R-hat and ESS of, None where that would cost too much."""
        return self.positions()

    def finish(self, engine: Any, carry: Any, density: Any) -> Draws:
        """The result."""
        return engine.finish(carry, self.blocks, density)


def thinned(block: Block, thin: int, seen: int) -> tuple[Block, int]:
    """A sampling block with every ``thin``-th draw of the run, and the number of draws seen with it.

    Example:
        >>> block = Block("sampling", np.arange(5.0).reshape(1, 5, 1), {"lp": np.zeros((1, 5))})
        >>> kept, seen = thinned(block, 2, 1)
        >>> kept.positions.ravel().tolist(), seen
        ([0.0, 2.0, 4.0], 6)
    """
    if block.phase != "sampling" or block.positions is None:
        return block, seen
    count = block.positions.shape[1]
    if thin == 1:
        return block, seen + count
    keep = np.flatnonzero((seen + 1 + np.arange(count)) % thin == 0)
    stats = {name: value[:, keep] for name, value in block.stats.items()}
    return replace(block, positions=block.positions[:, keep], stats=stats), seen + count
