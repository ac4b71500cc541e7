r"""Independent chains of any kernel, adapted chain by chain: the engine around a bare kernel.

The compiled program is a block of iterations of one *lane*, a fixed number of chains in lockstep (one on a CPU):
``key_i = fold_in(chain's key, i)``, kernel step, adapter updates, draws and statistics into buffers. The
number of iterations is an argument, density, kernel and adapters are arguments too, so neither new data of equal
shape nor another block size nor another number of chains compiles again, and with adapters that work on single
chains the draws of chain i depend on (seed, i) only, bit for bit. Lanes run in threads on a CPU.

Windowed adapters are closed between blocks, on the host, in the same code as inside the program; then the
step size is guessed anew.

Reference: Carpenter et al., "Stan: a probabilistic programming language" (2017), for the warm-up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from ..adapt.metric import Variance, Window, merge, windows
from ..adapt.step_size import StepSize, reasonable
from ..core import Block, Draws, as_density, host_rng
from ..devices import current, threads
from . import admissible, composite, discrete, lanes
from .start import StartError

Array = Any

_START, _PRIOR, _TRIAL = 1, 2, 3  # purposes of host random numbers
_TRIES, _PRIOR_TRIES = 50, 10


@dataclass
class Carry:
    """All that ``Chains`` needs to go on: arrays with a leading chain axis, numbers, dataclasses of those."""

    seed: int
    iteration: int
    kernel: Any
    memories: list[Any]
    state: Any
    refused: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def default_for(kernel: Any) -> tuple[Any, ...]:
    """Return the standard adapters of a kernel: for its step size and its metric, where it has them.

    A kernel that is tuned by other rules has a method ``adapters`` which returns its own.

    Example:
        >>> from ppl.inference.mcmc import NUTS
        >>> [type(a).__name__ for a in default_for(NUTS())]
        ['StepSize', 'Variance']
    """
    if hasattr(kernel, "adapters"):
        return tuple(kernel.adapters())
    adapters: list[Any] = []
    if hasattr(kernel, "step_size"):
        adapters.append(StepSize(None))
    if hasattr(kernel, "metric"):
        adapters.append(Variance())
    return tuple(adapters)


@dataclass(frozen=True)
class Chains:
    """Runs independent chains of a kernel.

    Attributes:
        kernel: Any ``Kernel`` whose state has a ``position``.
        adapt: Adapter or tuple of adapters; None for the standard ones of the kernel, () for none.
        chains: Number of chains.
        warmup: Warm-up iterations per chain.
        draws: Draws per chain.
        lane: Chains in lockstep in one compiled program; None for 1 on a CPU and all of them elsewhere.
        capacity: Iterations in one call of the compiled program.

    Example:
        >>> from ppl.inference.mcmc import NUTS
        >>> engine = Chains(NUTS(), chains=2, warmup=150, draws=50)
        >>> target = as_density(lambda z: -0.5 * z @ z, 3)
        >>> carry, blocks, done = engine.start(0, target), [], False
        >>> while not done:
        ...     carry, block, done = engine.advance(carry, target, 100)
        ...     blocks.append(block)
        >>> engine.finish(carry, blocks, target).positions.shape
        (2, 50, 3)
    """

    kernel: Any
    adapt: Any = None
    chains: int = 4
    warmup: int = 1000
    draws: int = 1000
    lane: int | None = None
    capacity: int = 128

    def plan(self, target: Any) -> list[str]:
        """Say what will be done and why."""
        width, names = self._width(), composite.adapter_names(self._adapters())
        count = self.lane_count(target)
        metric = "dense" if getattr(self.kernel, "dense", False) else "diagonal"
        backend = current().platform
        lines = [
            f"{composite.describe(self.kernel)}: {self.chains} chains x ({self.warmup} warm-up + {self.draws} draws)",
            f"{count} lanes of {width}, {current().workers(count, _threads())} at once on {backend}: "
            + ("lockstep gains nothing where one chain fills a core" if width == 1 else "lockstep fills a wide device"),
        ]
        pooled = any(a.pooled for a in self._adapters())
        if names:
            lines.append(f"adapters {', '.join(names)}" + (f", {metric} metric" if "Variance" in names else ""))
        if pooled:
            lines.append("pooled adaptation: a chain's draws depend on the number of chains")
        elif width > 1 and self.lane is None:
            lines.append("the width of the lane follows the number of chains, and so may the last bits of draws")
        else:
            lines.append("each chain adapts alone: its draws depend on the seed and its number only")
        return lines

    def lane_count(self, target: Any) -> int:
        """Number of lanes, each of which runs on one device."""
        return math.ceil(self.chains / self._width())

    def start(self, seed: int, target: Any, init: Array | None = None) -> Carry:
        """Find a finite starting point for each chain, and first tuning.

        Without ``init`` chain i tries U(-2, 2) and then, where the target offers one, its prior.

        Raises:
            StartError: If a chain finds no point with a finite log density and gradient.
        """
        target = as_density(target)
        dim = int(target.dim) if getattr(target, "dim", None) is not None else np.shape(np.asarray(init))[-1]
        admissible.check(self.kernel)
        composite.check(self.kernel, target, dim)
        kernel = composite.expanded(self.kernel, dim, target)
        dtype = np.dtype(float) if jax.config.jax_enable_x64 else np.dtype(np.float32)
        kernel = jax.tree.map(lambda x: _spread(x, self.chains, dtype), kernel)
        state, log, bad = self._first_states(seed, target, kernel, dim, init)
        carry = Carry(seed, 0, kernel, [], state, facts={"start": log, "inadmissible": bad})
        if self.warmup:
            carry = self._guess(carry, target)
        carry.memories = [self._memories(a, carry) for a in self._adapters()]
        compiled = lanes.prepare(self._adapters(), carry, target, self._width(), self.capacity)
        return replace(carry, refused=compiled[0], spec=compiled[1])

    def advance(self, carry: Carry, target: Any, n: int) -> tuple[Carry, Block, bool]:
        """Run at most ``n`` iterations, all of warm-up or all of sampling; not past the plan unless it is done."""
        target, warm = as_density(target), carry.iteration < self.warmup
        left = (self.warmup if warm else self.warmup + self.draws) - carry.iteration
        n = min(n, left) if left > 0 else n
        pieces: list[dict[str, Array]] = []
        stop = carry.iteration + n
        while carry.iteration < stop:
            window = self._window(carry.iteration)
            count = min(stop - carry.iteration, self.capacity, window.stop - carry.iteration if warm else n)
            carry, out = lanes.run(
                self._adapters(), carry, target, self._width(), self.capacity, count, warm, window.slow, _threads()
            )
            pieces.append(out)
            if warm and carry.iteration == window.stop:
                carry = self._close(carry, target, window)
        stats = {name: np.concatenate([p[name] for p in pieces], axis=1) for name in pieces[0]} if pieces else {}
        positions = stats.pop("position", None)
        facts = dict(carry.facts)
        metrics = {**_metrics(stats), "inadmissible": facts.pop("inadmissible", None)}
        carry = replace(carry, facts=facts)
        block = Block("warmup" if warm else "sampling", positions, stats, metrics)
        return carry, block, carry.iteration >= self.warmup + self.draws

    def finish(self, carry: Carry, blocks: list[Block], target: Any) -> Draws:
        """Put the blocks together."""
        warm = [b for b in blocks if b.phase == "warmup" and b.positions is not None]
        main = [b for b in blocks if b.phase == "sampling" and b.positions is not None]
        if not main:
            raise ValueError("no draws yet: the run ended in warm-up")
        info = {
            **carry.facts,
            "seed": carry.seed,
            "iterations": carry.iteration,
            "step_size": [float(x) for x in np.ravel(getattr(carry.kernel, "step_size", []))],
            "divergences": int(sum(b.stats["diverging"].sum() for b in main if "diverging" in b.stats)),
        }
        return Draws(
            np.concatenate([b.positions for b in main], axis=1),
            _join(main),
            np.concatenate([b.positions for b in warm], axis=1) if warm else None,
            _join(warm),
            info,
        )

    def _adapters(self) -> tuple[Any, ...]:
        if self.adapt is None:
            return default_for(self.kernel)
        return tuple(self.adapt) if isinstance(self.adapt, tuple | list) else (self.adapt,)

    def _width(self) -> int:
        if self.lane is not None:
            return self.lane
        return 1 if current().platform == "cpu" else self.chains

    def _window(self, iteration: int) -> Window:
        for window in windows(self.warmup):
            if iteration < window.stop:
                return window
        return Window(self.warmup, self.warmup + 1, False)

    def _memories(self, adapter: Any, carry: Carry) -> Any:
        return _stack([adapter.init(_row(carry.kernel, i), _row(carry.state, i)) for i in range(self.chains)])

    def _first_states(self, seed: int, target: Any, kernel: Any, dim: int, init: Array | None) -> tuple:
        """Evaluate starting points, replacing those that are not finite."""
        chains, log = range(self.chains), []
        if init is None:
            z = np.stack([discrete.drawn(host_rng(seed, i, _START, 0), dim, target) for i in chains])
        else:
            z = np.broadcast_to(np.asarray(init, dtype=float), (self.chains, dim)).copy()
        state, good = lanes.evaluate(kernel, z, target, self._width())
        inadmissible = z[~good]
        for attempt in range(1, _TRIES + _PRIOR_TRIES):
            bad = np.flatnonzero(~good)
            if len(bad) == 0 or init is not None:
                break
            if attempt >= _TRIES and not hasattr(target, "prior"):
                break
            for i in bad:
                rng = host_rng(seed, int(i), _START if attempt < _TRIES else _PRIOR, attempt)
                z[i] = discrete.drawn(rng, dim, target) if attempt < _TRIES else _prior_draw(target, rng)
            if attempt < _TRIES:
                z[bad] = discrete.settled(z, target, seed + attempt)[bad]
            state, good = lanes.evaluate(kernel, z, target, self._width())
        if not good.all():
            first = int(np.flatnonzero(~good)[0])
            tried = "init" if init is not None else f"{_TRIES} points of U(-2, 2), then the prior where there is one"
            log = [f"chain {first} tried {tried}"]
            slope = getattr(state, "gradient", np.zeros_like(z))
            raise StartError(z[first], float(state.log_density[first]), np.asarray(slope[first]), log)
        return state, [f"attempts: {attempt}" if init is None else "given"], inadmissible

    def _guess(self, carry: Carry, target: Any) -> Carry:
        """Guess step sizes, where an adapter wants them and the kernel can try a step."""
        if not (hasattr(carry.kernel, "trial") and any(isinstance(a, StepSize) for a in self._adapters())):
            return carry
        dim = carry.state.position.shape[1]

        def trial(step: np.ndarray, attempt: int) -> np.ndarray:
            path = (_TRIAL, carry.iteration, attempt)
            noise = np.stack([host_rng(carry.seed, i, *path).normal(size=dim) for i in range(self.chains)])
            kernel = replace(carry.kernel, step_size=step.astype(carry.kernel.step_size.dtype))
            return lanes.trial(kernel, noise, carry.state, target, self._width())[1]

        step = reasonable(trial, carry.kernel.step_size).astype(carry.kernel.step_size.dtype)
        return replace(carry, kernel=replace(carry.kernel, step_size=step))

    def _close(self, carry: Carry, target: Any, window: Window) -> Carry:
        """Let adapters speak at the end of a window: the windowed ones of a slow window, all at the very end."""
        end, adapters, learned = window.stop == self.warmup, self._adapters(), False
        for adapter, memory in zip(adapters, carry.memories, strict=True):
            if window.slow if adapter.windowed else end:
                rows = [_row(memory, i) for i in range(self.chains)]
                if adapter.pooled:
                    rows = [merge(rows)] * self.chains
                new = [adapter.final(row, _row(carry.kernel, i)) for i, row in enumerate(rows)]
                carry = replace(carry, kernel=_stack(new))
                learned |= adapter.windowed
        if learned and not end:
            carry = self._guess(carry, target)
            carry = replace(carry, memories=[self._memories(a, carry) for a in adapters])
        return carry


def _threads() -> int:
    return threads(current().platform)


def _spread(leaf: Array, chains: int, dtype: np.dtype) -> np.ndarray:
    leaf = np.asarray(leaf)
    leaf = leaf.astype(dtype) if leaf.dtype.kind == "f" else leaf
    return np.broadcast_to(leaf, (chains, *leaf.shape)).copy()


def _row(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda x: x[i], tree)


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *rows: np.stack([np.asarray(r) for r in rows]), *trees)


def _join(blocks: list[Block]) -> dict[str, np.ndarray]:
    names = blocks[0].stats if blocks else ()
    return {name: np.concatenate([b.stats[name] for b in blocks], axis=1) for name in names}


def _prior_draw(target: Any, rng: np.random.Generator) -> np.ndarray:
    try:
        return current().host(target.prior(jax.random.key(int(rng.integers(2**31)))))
    except ValueError:  # the prior is improper: there is nothing to draw
        return discrete.drawn(rng, int(target.dim), target)


def _metrics(stats: dict[str, np.ndarray]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in ("step_size", "acceptance_rate", "n_steps"):
        if name in stats:
            out[name] = float(np.mean(stats[name]))
    if "diverging" in stats:
        out["divergences"] = int(np.sum(stats["diverging"]))
    return out
