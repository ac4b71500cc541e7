r"""Parallel tempering: chains on a ladder of tempered densities that swap their states.

Between a reference q that can be sampled (the prior, or any ``Proposal``) and the target pi stand K + 1 densities
q(z)^(1-b) pi(z)^b. The chain at b = 0 draws from q afresh, so that every state which travels up the ladder is a new
start: modes are visited in proportion to their mass. Warm-up goes in rounds of doubling length; each ends with new
rungs at equal rejection, and with the kernels' own adaptation on every rung. Swaps follow the non-reversible order.
The ratios of neighbouring normalising constants, estimated while sampling, add up to the log evidence.

References: Geyer, "Markov chain Monte Carlo maximum likelihood" (1991); Hukushima and Nemoto (1996); Syed,
Bouchard-Cote, Deligiannidis and Doucet, "Non-reversible parallel tempering" (2022); ``adapt.ladder`` for the evidence.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from ..adapt import ladder
from ..core import Block, Draws, as_density, host_rng
from . import admissible
from . import tempering_block as compiled
from .chains import default_for
from .hmc import HMC
from .start import StartError

Array = Any

_KEYS, _STARTS = 31, 32
_TRIES = 60
_CAPACITY = 64
_BATCH, _MOST_BATCHES = 16, 256
_LAST = 100
"""Iterations of the last round of warm-up, which changes step sizes only."""


@dataclass(frozen=True)
class Carry:
    """All that a run needs to go on. Arrays of the rungs have leading axes (copies, rungs)."""

    seed: int
    iteration: int
    drawn: int
    round: int
    kernel: Any
    memories: list[Any]
    positions: np.ndarray
    betas: np.ndarray
    centres: np.ndarray
    rows: np.ndarray
    batches: np.ndarray
    batch: int
    fresh: np.ndarray
    tours: np.ndarray
    rejected: np.ndarray
    spec: dict[str, Any] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Tempering:
    """Parallel tempering with an adaptive ladder and non-reversible swaps; it estimates the evidence.

    Attributes:
        kernel: Moves on every rung; any kernel.
        reference: A ``Proposal`` with normalised ``log_prob``; None for the target's own prior, which it must tell
            apart from the likelihood (``target.split()`` and ``target.prior(key)``) and which must be proper.
        copies: Independent ladders; each yields one chain of draws.
        rungs: Number of rungs, or None to choose it in warm-up from the communication barrier.
        warmup: Iterations of the adaptive rounds.
        draws: Draws per copy.
        max_rungs: Most rungs that it chooses.

    Example:
        >>> import jax.numpy as jnp
        >>> from ppl.inference.mcmc import GaussianProposal, RandomWalk
        >>> bimodal = as_density(lambda z: jnp.logaddexp(-50 * (z[0] - 3) ** 2, -50 * (z[0] + 3) ** 2), 1)
        >>> engine = Tempering(RandomWalk(), GaussianProposal(np.zeros(1), 3.0 * np.eye(1)), warmup=200, draws=300)
        >>> carry, blocks, done = engine.start(0, bimodal), [], False
        >>> while not done:
        ...     carry, block, done = engine.advance(carry, bimodal, 200)
        ...     blocks.append(block)
        >>> draws = engine.finish(carry, blocks, bimodal)
        >>> bool(0.3 < (draws.positions > 0).mean() < 0.7)
        True
    """

    kernel: Any = HMC(max_steps=32)
    reference: Any = None
    copies: int = 4
    rungs: int | None = None
    warmup: int = 1000
    draws: int = 1000
    max_rungs: int = 64

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        if self.rungs is not None and self.rungs < 2:
            raise ValueError(f"a ladder has at least 2 rungs, the reference and the target; got rungs={self.rungs}")
        if min(self.copies, self.draws) < 1:
            raise ValueError("copies and draws must be at least 1")

    @property
    def chains(self) -> int:
        """Number of chains of draws."""
        return self.copies

    def plan(self, target: Any) -> list[str]:
        """Say what will be done and why."""
        count = "a number of rungs from the communication barrier" if self.rungs is None else f"{self.rungs} rungs"
        source = "the prior" if self.reference is None else type(self.reference).__name__
        return [
            f"parallel tempering: {self.copies} copies of a ladder from {source} to the target, {count}",
            f"{type(self.kernel).__name__} on every rung, {self.warmup} + {_LAST} warm-up + {self.draws} draws, "
            "non-reversible swaps; the evidence comes from a bridge between neighbours",
        ]

    def start(self, seed: int, target: Any, init: Array | None = None) -> Carry:
        """Draw starting points from the reference, where the target has mass.

        Raises:
            StartError: If no draw of the reference has a finite log density under the target.
            TypeError: If there is no reference.
        """
        target = as_density(target)
        admissible.check(self.kernel)
        ends = self._ends(target)
        count = self.rungs or 10
        positions = self._starts(seed, ends, count, init)
        kernel = self.kernel.expand(positions.shape[-1]) if hasattr(self.kernel, "expand") else self.kernel
        shape = (self.copies, count - 1)
        dtype = positions.dtype
        kernel = jax.tree.map(lambda x: _spread(x, shape, dtype), kernel)
        nothing = np.zeros((0, self.copies, count), dtype)
        pairs = np.zeros(count - 1)
        carry = Carry(
            int(seed), 0, 0, 0, kernel, [], positions, ladder.first_ladder(count), pairs, nothing,
            np.zeros((0, self.copies, count - 1, 2)), _BATCH, np.zeros((self.copies, count), bool),
            np.zeros(self.copies, int), pairs,
        )  # fmt: skip
        return self._prepared(carry, ends)

    def advance(self, carry: Carry, target: Any, n: int) -> tuple[Carry, Block, bool]:
        """Run at most ``n`` iterations, all of one round of warm-up or all of sampling."""
        ends = self._ends(as_density(target))
        warm, left = carry.round < len(self._rounds()), self._left(carry)
        n = min(n, left) if left > 0 else n
        pieces = []
        for begin in range(0, n, _CAPACITY):
            carry, out = self._run(carry, ends, min(_CAPACITY, n - begin), warm)
            pieces.append(out)
        out = {name: np.concatenate([p[name] for p in pieces], axis=1) for name in pieces[0]}
        rejected = ladder.rejections(out.pop("values"), carry.betas)
        del out["order"]
        positions = out.pop("position")
        stats = {**out, "swap_acceptance": 1.0 - rejected.mean(axis=-1)}
        metrics = {"rungs": len(carry.betas), "swap_acceptance": float(stats["swap_acceptance"].mean())}
        if warm and self._left(carry) == 0:
            carry = self._end_round(carry, ends)
        block = Block("warmup" if warm else "sampling", positions, stats, metrics)
        return carry, block, carry.round >= len(self._rounds()) and carry.drawn >= self.draws

    def finish(self, carry: Carry, blocks: list[Block], target: Any) -> Draws:
        """Put the draws of the highest rung together, with the evidence."""
        main = [b for b in blocks if b.phase == "sampling"]
        warm = [b for b in blocks if b.phase == "warmup"]
        if not main:
            raise ValueError("no draws yet: the run ended in warm-up")
        info: dict[str, Any] = {
            "engine": "Tempering",
            "plan": self.plan(target),
            "log": list(carry.log),
            "seed": carry.seed,
            "ladder": [float(b) for b in carry.betas],
            "barrier": float(carry.rejected.sum()),
            "tours": [int(t) for t in carry.tours],
            "divergences": int(sum(b.stats["diverging"].sum() for b in main if "diverging" in b.stats)),
            "warnings": _advice(carry),
        }
        if len(carry.batches) * self.copies >= 2:
            found = ladder.evidence(carry.batches, carry.centres)
            info |= {"log_evidence": found.value, "log_evidence_se": found.error}
        return Draws(
            np.concatenate([b.positions for b in main], axis=1),
            _joined(main),
            np.concatenate([b.positions for b in warm], axis=1) if warm else None,
            _joined(warm),
            info,
        )

    # ------------------------------------------------------------------------------------------ parts

    def _rounds(self) -> list[int]:
        """Lengths of the rounds of warm-up, doubling, and that of the last one."""
        rounds, length, left = [], 32, self.warmup
        while left > 0:
            length = left if left < 3 * length else length
            rounds.append(length)
            left, length = left - length, 2 * length
        return [*rounds, _LAST]

    def _left(self, carry: Carry) -> int:
        """Iterations until the next change of plan."""
        rounds = self._rounds()
        if carry.round < len(rounds):
            return rounds[carry.round] - len(carry.rows)
        return self.draws - carry.drawn

    def _ends(self, target: Any) -> compiled.Ends:
        if self.reference is not None:
            return compiled.Ends(self.reference, None, target, "proposal")
        if not (hasattr(target, "split") and hasattr(target, "prior")):
            raise TypeError(
                "Tempering needs a reference to temper from. A plain log density has no prior: give one that can be "
                "sampled and covers the target, Tempering(reference=mcmc.GaussianProposal(mean, factor))."
            )
        prior, likelihood = target.split()
        return compiled.Ends(prior, likelihood, target, "prior")

    def _adapters(self) -> tuple[Any, ...]:
        return default_for(self.kernel)

    def _starts(self, seed: int, ends: compiled.Ends, count: int, init: Array | None) -> np.ndarray:
        if init is not None:
            init = np.asarray(init)
            return np.repeat(np.broadcast_to(init, (self.copies, init.shape[-1]))[:, None], count, axis=1)
        need, kept, last = self.copies * count, [], np.zeros(0)
        for attempt in range(_TRIES):
            keys = host_rng(seed, _STARTS, attempt).integers(2**32, size=(need, 2), dtype=np.uint32)
            z, values = (np.asarray(x) for x in compiled.draw_reference(ends, keys))
            last = z[0]
            kept.extend(z[np.isfinite(values)])
            if len(kept) >= need:
                return np.stack(kept[:need]).reshape(self.copies, count, -1)
        tried = [f"{len(kept)} of {_TRIES * need} draws of the reference have a finite log density"]
        if not kept:
            raise StartError(last, -np.inf, np.zeros_like(last), tried)
        return np.stack([kept[i % len(kept)] for i in range(need)]).reshape(self.copies, count, -1)

    def _prepared(self, carry: Carry, ends: compiled.Ends) -> Carry:
        """The carry with empty memories for its kernels, and the shapes of what a block reports."""
        states = jax.tree.map(
            np.asarray, compiled.begin(carry.kernel, carry.positions[:, 1:], carry.betas[1:], ends)
        )
        memories = [_each(a.init, carry.kernel, states) for a in self._adapters()]
        carry = replace(carry, memories=memories)
        return replace(carry, spec=self._spec(carry, ends))

    def _spec(self, carry: Carry, ends: compiled.Ends) -> dict[str, Any]:
        count, dtype = carry.positions.shape[1], carry.positions.dtype.str
        spec: dict[str, Any] = {
            "position": [dtype, carry.positions.shape[-1]],
            "lp": [dtype],
            "values": [dtype, count],
            "order": ["int32", count],
        }
        state = jax.eval_shape(compiled.begin, carry.kernel, carry.positions[:, 1:], carry.betas[1:], ends)
        one = lambda tree: jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), tree)  # noqa: E731
        rung = compiled.Rung(ends, jax.ShapeDtypeStruct((), carry.positions.dtype))
        info = jax.eval_shape(
            lambda k, kernel, s, r: kernel.step(k, s, r)[1], jax.random.key(0), one(carry.kernel), one(state), rung
        )
        names = [name for name in ("acceptance_rate", "diverging") if hasattr(info, name)]
        names += ["step_size"] if hasattr(carry.kernel, "step_size") else []
        return spec | {name: [dtype] for name in names}

    def _run(self, carry: Carry, ends: compiled.Ends, count: int, warm: bool) -> tuple[Carry, dict[str, np.ndarray]]:
        buffers = {n: np.zeros((_CAPACITY, self.copies, *s[1:]), s[0]) for n, s in carry.spec.items()}
        keys = np.stack(
            [host_rng(carry.seed, _KEYS, i).integers(2**32, size=2, dtype=np.uint32) for i in range(self.copies)]
        )
        span = np.array([carry.iteration, count, warm], np.int32)
        betas = carry.betas.astype(carry.positions.dtype)
        out = compiled.block(
            buffers, self._adapters(), carry.kernel, carry.memories, carry.positions, betas, keys, ends, span
        )
        kernel, memories, positions, filled = jax.tree.map(np.asarray, out)
        filled = {n: x[:count] for n, x in filled.items()}
        fresh, tours = toured(carry.fresh, filled["order"])
        carry = replace(
            carry, iteration=carry.iteration + count, kernel=kernel, memories=memories, positions=positions,
            fresh=fresh, tours=tours + (0 if warm else carry.tours),
        )  # fmt: skip
        rows = np.concatenate([carry.rows, filled["values"]])
        carry = replace(carry, rows=rows) if warm else self._learn(carry, rows, count)
        return carry, {n: np.moveaxis(x, 0, 1) for n, x in filled.items()}

    def _learn(self, carry: Carry, rows: np.ndarray, count: int) -> Carry:
        """Turn complete batches of V into means of the bridge's terms."""
        batches, batch = list(carry.batches), carry.batch
        while len(rows) >= batch:
            batches.append(ladder.bridge_terms(rows[:batch], carry.betas, carry.centres).mean(axis=0))
            rows = rows[batch:]
            if len(batches) == _MOST_BATCHES:
                batches = [0.5 * (a + b) for a, b in zip(batches[::2], batches[1::2], strict=True)]
                batch *= 2
        stacked = np.stack(batches) if batches else carry.batches
        return replace(carry, rows=rows, batches=stacked, batch=batch, drawn=carry.drawn + count)

    def _end_round(self, carry: Carry, ends: compiled.Ends) -> Carry:
        """Place the rungs anew and freeze what the kernels learned; after the last round only the latter."""
        last = carry.round + 1 == len(self._rounds())
        rejected = ladder.rejections(carry.rows, carry.betas).mean(axis=(0, 1))
        barrier, count = float(rejected.sum()), len(carry.betas)
        for adapter, memory in zip(self._adapters(), carry.memories, strict=True):
            if not (adapter.windowed and last):
                carry = replace(carry, kernel=_each(adapter.final, memory, carry.kernel))
        line = f"round {carry.round}: {count} rungs, barrier {barrier:.2f}"
        carry = replace(carry, round=carry.round + 1, rejected=rejected, log=[*carry.log, line])
        nothing = np.zeros((0, *carry.rows.shape[1:]), carry.rows.dtype)
        if last:
            centres = ladder.centre(carry.rows.reshape(-1, count), carry.betas)
            return replace(carry, rows=nothing, centres=centres, tours=np.zeros(self.copies, int))
        if self.rungs is None and carry.round in (2, 4):
            count = ladder.advised(barrier, self.max_rungs)
        betas = ladder.placed(carry.betas, rejected, count)
        near = np.abs(betas[:, None] - carry.betas).argmin(axis=1)
        above = np.maximum(near[1:] - 1, 0)
        carry = replace(
            carry,
            betas=betas,
            positions=carry.positions[:, near],
            kernel=jax.tree.map(lambda x: np.asarray(x)[:, above], carry.kernel),
            fresh=np.zeros((self.copies, count), bool),
            rows=np.zeros((0, self.copies, count), carry.rows.dtype),
            centres=np.zeros(count - 1),
            batches=np.zeros((0, self.copies, count - 1, 2)),
        )
        return self._prepared(carry, ends)


def toured(fresh: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the draws of the reference that reach the target.

    Args:
        fresh: Which rungs' states have come from the reference since they were last at the target, (copies, rungs).
        order: For each iteration and rung the rung from which its state came, (n, copies, rungs).

    Returns:
        The flags after these iterations, and the number of arrivals in each copy.

    Example:
        >>> toured(np.zeros((1, 3), bool), np.array([[[1, 0, 2]], [[0, 2, 1]]]))[1].tolist()
        [1]
    """
    fresh, tours = fresh.copy(), np.zeros(len(fresh), int)
    rows = np.arange(len(fresh))[:, None]
    for step in order:
        fresh[:, 0] = True
        fresh = fresh[rows, step]
        tours += fresh[:, -1]
        fresh[:, -1] = False
    return fresh, tours


def _advice(carry: Carry) -> list[str]:
    found = []
    least = int(carry.tours.min())
    if least < 10:
        found.append(
            f"only {least} draws of the reference travelled to the target in one copy of the ladder (barrier "
            f"{float(carry.rejected.sum()):.1f}): modes may be missing and the evidence's standard error too small. "
            "Take more draws, or a reference that is nearer to the target."
        )
    worst = float(carry.rejected.max(initial=0.0))
    if worst > 0.95:
        found.append(f"neighbouring rungs reject {worst:.0%} of their swaps: more rungs (max_rungs) would help")
    return found


def _spread(leaf: Array, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    leaf = np.asarray(leaf)
    leaf = leaf.astype(dtype) if leaf.dtype.kind == "f" else leaf
    return np.broadcast_to(leaf, (*shape, *leaf.shape)).copy()


def _each(function: Any, *trees: Any) -> Any:
    """Apply a function of one copy's one rung to all, on the host."""
    copies, rungs = np.shape(jax.tree.leaves(trees[0])[0])[:2]
    rows = [[function(*_at(trees, i, k)) for k in range(rungs)] for i in range(copies)]
    stack = lambda items: jax.tree.map(lambda *x: np.stack([np.asarray(v) for v in x]), *items)  # noqa: E731
    return stack([stack(row) for row in rows])


def _at(trees: Any, copy: int, rung: int) -> Any:
    return jax.tree.map(lambda x: np.asarray(x)[copy, rung], trees)


def _joined(blocks: list[Block]) -> dict[str, np.ndarray]:
    names = blocks[0].stats if blocks else ()
    return {name: np.concatenate([b.stats[name] for b in blocks], axis=1) for name in names}
