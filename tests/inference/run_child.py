"""A run in a process of its own, made of many small blocks, for tests that kill it.

    python run_child.py PATH ENGINE [--resume] [--pause SECONDS] [--budget SECONDS]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import run_model

from ppl.inference import ess, infer, loop, mcmc, store
from ppl.inference.runs import resume

ENGINES = {
    "pooled": lambda: mcmc.PooledHMC(chains=4, draws=120, max_draws=180),
    "nuts": lambda: mcmc.Chains(mcmc.NUTS(), chains=2, warmup=100, draws=120, capacity=16),
}


def small_blocks(pause: float) -> None:
    """Blocks of ten steps with a pause after each, and chunks of a few draws."""
    store.CHUNK_BYTES = 20_000
    loop.FIRST_BLOCK, loop.BLOCK_SECONDS = 10, (-1.0, 1e9)
    checkpoint = loop.Run._checkpoint

    def slow(self) -> None:
        checkpoint(self)
        print(self.monitor.phase, flush=True)
        time.sleep(pause)

    loop.Run._checkpoint = slow  # type: ignore[method-assign]


def main() -> None:
    """Run or resume."""
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("engine")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--budget", type=float)
    options = parser.parse_args()
    small_blocks(options.pause)
    if options.resume:
        resume(options.path, progress=False, time_budget=options.budget)
    else:
        engine = ENGINES[options.engine]()
        until = ess(150) if options.engine == "nuts" else None
        infer(
            run_model.program(), engine, seed=5, until=until, path=options.path, progress=False,
            time_budget=options.budget,
        )  # fmt: skip


if __name__ == "__main__":
    main()
