r"""Independent ensembles of walkers: the engine around a kernel whose position is a set of walkers.

*What is a chain.* Walkers of one ensemble move by each other's positions, so they are dependent over time, although
at any one time independent draws once the ensemble is stationary. A chain of the result is the path of one walker,
ensemble by ensemble: its autocorrelation is an ordinary one, so that effective sample sizes and standard errors count
it; what they leave out, the correlation of one walker with another's past, has been found to be zero or slightly
negative for these moves (standard errors are then a little too large; tests hold this). Walkers of one ensemble can
all be in the wrong place together. Convergence is therefore judged between ensembles, by nested R-hat with one
superchain per ensemble, and at least two ensembles are run.

Ensembles are lanes: one in each thread of a CPU, all in lockstep on an accelerator. Ensemble e depends on (seed, e)
only, bit for bit.

References: Goodman and Weare (2010); Margossian et al., "Nested R-hat" (2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from ..core import Block, Draws, as_density, host_rng
from ..devices import current, threads
from . import admissible, lanes
from .chain_moments import ChainMoments
from .start import StartError

Array = Any

_START, _PRIOR, _SPREAD = 11, 12, 13  # purposes of host random numbers
_TRIES, _PRIOR_TRIES = 50, 10


@dataclass
class EnsembleCarry:
    """All that ``Ensemble`` needs to go on; arrays have a leading axis over ensembles."""

    seed: int
    iteration: int
    kernel: Any
    memories: list[Any]
    state: Any
    moments: ChainMoments
    refused: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ensemble:
    """Runs independent ensembles of walkers.

    Attributes:
        kernel: A kernel on sets of walkers: ``Stretch``, ``Walk`` or ``DifferentialEvolution``.
        walkers: Walkers in an ensemble, an even number above the dimension d; None for max(32, 2 d + 2).
        ensembles: Independent ensembles.
        warmup: Transitions that are thrown away.
        draws: Draws of every walker.
        capacity: Transitions in one call of the compiled program.

    Raises:
        ValueError: If there are too few walkers or ensembles, or a coordinate is a code of a finite site.
        StartError: If a walker finds no point with a finite log density.

    Example:
        >>> from ppl.inference.mcmc import Stretch
        >>> engine = Ensemble(Stretch(), walkers=8, ensembles=2, warmup=50, draws=50)
        >>> target = as_density(lambda z: -0.5 * z @ z, 2)
        >>> carry, blocks, done = engine.start(0, target), [], False
        >>> while not done:
        ...     carry, block, done = engine.advance(carry, target, 100)
        ...     blocks.append(block)
        >>> engine.finish(carry, blocks, target).positions.shape
        (16, 50, 2)
    """

    kernel: Any
    walkers: int | None = None
    ensembles: int = 4
    warmup: int = 1000
    draws: int = 500
    capacity: int = 128

    def plan(self, target: Any) -> list[str]:
        """Say what will be done and why."""
        dim = getattr(target, "dim", None)
        count = "max(32, 2 d + 2)" if dim is None and self.walkers is None else str(self.size(dim or 0))
        lines = [
            f"{type(self.kernel).__name__}: {self.ensembles} independent ensembles of {count} walkers x "
            f"({self.warmup} warm-up + {self.draws} draws), no gradient and no tuning",
            "a chain is the path of one walker; convergence is judged between ensembles (nested R-hat)",
        ]
        if dim is not None and dim > 30:
            lines.append(f"{dim} dimensions are many for an ensemble: expect to need draws in proportion, or use NUTS")
        return lines

    @property
    def superchains(self) -> int:
        """Groups of chains between which nested R-hat judges."""
        return self.ensembles

    def size(self, dim: int) -> int:
        """Number of walkers of an ensemble in ``dim`` dimensions.

        Example:
            >>> Ensemble(None).size(2), Ensemble(None).size(20)
            (32, 42)
        """
        walkers = max(32, 2 * dim + 2) if self.walkers is None else self.walkers
        if walkers % 2 or walkers < 4 or walkers <= dim:
            raise ValueError(
                f"walkers={walkers} does not fit {dim} dimensions: give an even number, at least 4 and more than {dim} "
                f"(fewer never leave the subspace that they span; {max(32, 2 * dim + 2)} is the default)"
            )
        return walkers

    def lane_count(self, target: Any) -> int:
        """Number of lanes, each of which runs on one device."""
        return math.ceil(self.ensembles / self._width())

    def start(self, seed: int, target: Any, init: Array | None = None) -> EnsembleCarry:
        """Find a finite starting point for each walker.

        Without ``init`` walkers try U(-2, 2), places near walkers that have found one and then, where the target
        offers one, its prior. Rows of ``init`` are taken in turn, spread a little unless there is one for each walker
        of all ensembles.
        """
        target = as_density(target)
        dim = int(target.dim) if getattr(target, "dim", None) is not None else np.shape(np.asarray(init))[-1]
        if not getattr(self.kernel, "ensemble", False):
            raise TypeError(
                f"Ensemble runs kernels on sets of walkers (Stretch, Walk, DifferentialEvolution), and "
                f"{type(self.kernel).__name__} moves one position: mcmc.Chains runs it"
            )
        admissible.check(self.kernel)
        if self.ensembles < 2:
            raise ValueError(f"ensembles={self.ensembles}: at least 2 are needed to judge whether they agree")
        if getattr(target, "finite", ()):
            raise ValueError("an ensemble moves real coordinates only, and the target has codes of finite sites")
        dtype = np.dtype(float) if jax.config.jax_enable_x64 else np.dtype(np.float32)
        kernel = jax.tree.map(lambda x: _spread(x, self.ensembles, dtype), self.kernel)
        state, facts = self._first_states(seed, target, kernel, dim, init, dtype)
        moments = ChainMoments.empty(self.ensembles * self.size(dim), dim)
        carry = EnsembleCarry(seed, 0, kernel, [], state, moments, facts=facts)
        refused, spec = lanes.prepare((), carry, target, self._width(), self.capacity)
        return replace(carry, refused=refused, spec=spec)

    def advance(self, carry: EnsembleCarry, target: Any, n: int) -> tuple[EnsembleCarry, Block, bool]:
        """Run at most ``n`` transitions, all of warm-up or all of sampling; not past the plan unless it is done."""
        target, warm = as_density(target), carry.iteration < self.warmup
        left = (self.warmup if warm else self.warmup + self.draws) - carry.iteration
        n = min(n, left) if left > 0 else n
        pieces: list[dict[str, Array]] = []
        stop = carry.iteration + n
        while carry.iteration < stop:
            count = min(stop - carry.iteration, self.capacity)
            carry, out = lanes.run(
                (), carry, target, self._width(), self.capacity, count, False, False, threads(current().platform)
            )
            pieces.append(out)
        joined = {name: np.concatenate([p[name] for p in pieces], axis=1) for name in pieces[0]}
        stats = {name: _by_walker(value, carry.state.position.shape[1]) for name, value in joined.items()}
        positions = stats.pop("position")
        facts = dict(carry.facts)
        metrics = {"acceptance_rate": float(np.mean(stats["acceptance_rate"]))}
        metrics["inadmissible"] = facts.pop("inadmissible", None)
        moments = carry.moments if warm else carry.moments.add(positions)
        carry = replace(carry, facts=facts, moments=moments)
        block = Block("warmup" if warm else "sampling", positions, stats, metrics)
        return carry, block, carry.iteration >= self.warmup + self.draws

    def finish(self, carry: EnsembleCarry, blocks: list[Block], target: Any) -> Draws:
        """Put the blocks together."""
        warm = [b for b in blocks if b.phase == "warmup" and b.positions is not None]
        main = [b for b in blocks if b.phase == "sampling" and b.positions is not None]
        if not main:
            raise ValueError("no draws yet: the run ended in warm-up")
        rate = float(np.mean([b.stats["acceptance_rate"].mean() for b in main]))
        info: dict[str, Any] = {
            **carry.facts,
            "seed": carry.seed,
            "iterations": carry.iteration,
            "walkers": carry.state.position.shape[1],
            "superchains": self.ensembles,
            "nested_rhat": carry.moments.nested_rhat(self.ensembles).tolist(),
            "acceptance_rate": rate,
        }
        if rate < 0.1:
            info["warnings"] = [
                f"only {100 * rate:.2g}% of the walkers' moves were accepted: walkers are apart or d is large; "
                "use more walkers, or a sampler with gradients"
            ]
        return Draws(
            np.concatenate([b.positions for b in main], axis=1),
            _join(main),
            np.concatenate([b.positions for b in warm], axis=1) if warm else None,
            _join(warm),
            info,
        )

    def _width(self) -> int:
        return 1 if current().platform == "cpu" else self.ensembles

    def _first_states(
        self, seed: int, target: Any, kernel: Any, dim: int, init: Array | None, dtype: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Evaluate starting points, replacing those without a finite log density."""
        count = self.size(dim)
        z = self._starts(seed, count, dim, init)
        state, _ = lanes.evaluate(kernel, z.astype(dtype), target, self._width())
        good = np.isfinite(state.log_density)
        inadmissible = z[~good]
        attempt = 1
        while not good.all() and init is None and attempt < _TRIES + _PRIOR_TRIES:
            if attempt >= _TRIES and not hasattr(target, "prior"):
                break
            for e, w in zip(*np.nonzero(~good), strict=True):
                rng = host_rng(seed, int(e), _START if attempt < _TRIES else _PRIOR, attempt, int(w))
                fine = np.flatnonzero(good[e])
                if attempt % 2 == 0 and len(fine):  # near a walker that has found a place
                    near = z[e, rng.choice(fine)]
                    z[e, w] = near + 0.05 * (1 + np.abs(near)) * rng.normal(size=dim)
                else:
                    z[e, w] = rng.uniform(-2.0, 2.0, dim) if attempt < _TRIES else _prior_draw(target, rng)
            state, _ = lanes.evaluate(kernel, z.astype(dtype), target, self._width())
            good, attempt = np.isfinite(state.log_density), attempt + 1
        if not good.all():
            e, w = (int(i[0]) for i in np.nonzero(~good))
            tried = "init" if init is not None else f"{_TRIES} points of U(-2, 2), then the prior where there is one"
            log = [f"walker {w} of ensemble {e} tried {tried}"]
            raise StartError(z[e, w], float(state.log_density[e, w]), np.zeros(dim), log)
        return state, {"start": ["given" if init is not None else f"attempts: {attempt}"], "inadmissible": inadmissible}

    def _starts(self, seed: int, count: int, dim: int, init: Array | None) -> np.ndarray:
        ensembles = range(self.ensembles)
        if init is None:
            return np.stack([host_rng(seed, e, _START, 0).uniform(-2.0, 2.0, (count, dim)) for e in ensembles])
        rows = np.atleast_2d(np.asarray(init, dtype=float))
        z = np.resize(rows, (self.ensembles, count, dim))
        if len(rows) == self.ensembles * count:
            return z
        noise = np.stack([host_rng(seed, e, _SPREAD).normal(size=(count, dim)) for e in ensembles])
        return z + 0.1 * (1 + np.abs(z)) * noise


def _spread(leaf: Array, ensembles: int, dtype: np.dtype) -> np.ndarray:
    leaf = np.asarray(leaf)
    leaf = leaf.astype(dtype) if leaf.dtype.kind == "f" else leaf
    return np.broadcast_to(leaf, (ensembles, *leaf.shape)).copy()


def _by_walker(value: np.ndarray, walkers: int) -> np.ndarray:
    """From (ensembles, n, walkers, ...) or (ensembles, n) to (ensembles * walkers, n, ...)."""
    if value.ndim == 2:
        value = np.repeat(value[:, :, None], walkers, axis=2)
    value = np.moveaxis(value, 2, 1)
    return value.reshape(-1, *value.shape[2:])


def _join(blocks: list[Block]) -> dict[str, np.ndarray]:
    names = blocks[0].stats if blocks else ()
    return {name: np.concatenate([b.stats[name] for b in blocks], axis=1) for name in names}


def _prior_draw(target: Any, rng: np.random.Generator) -> np.ndarray:
    try:
        return current().host(target.prior(jax.random.key(int(rng.integers(2**31)))))
    except ValueError:  # the prior is improper: there is nothing to draw
        return rng.uniform(-2.0, 2.0, int(target.dim))
