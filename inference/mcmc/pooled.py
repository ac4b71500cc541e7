r"""Pooled Fisher HMC, the default engine: many lockstep chains that share one learned dense metric.

Chains start dispersed and climb to the typical set (``start``); a few windows learn the geometric mean of the
pooled draws' covariance and the inverse covariance of their gradients (``pooled_warmup``); then everything but the
deterministic jitter of the trajectory length is frozen (a step size at which chains stick is still halved) and
sampling goes on until split R-hat of z and |z - mean| is small. The host adapts, and draws all random numbers,
between calls of one small compiled program (``pooled_block``), so that little is compiled.

Random numbers are keyed by (seed, purpose, block of ten trajectories), so draws do not depend on how many
trajectories one call of ``advance`` makes. Chains are pooled in warm-up: they do depend on the number of chains.

References: Neal (2011), MCMC using Hamiltonian dynamics; Margossian et al. (2024) on many short chains.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import numpy as np

from ..adapt import kinds
from ..core import Array, Block, Draws, as_density, host_rng
from ..diagnostics import rhat_nested
from . import pooled_coordinates as coordinates
from . import pooled_host as host
from . import pooled_plan as planning
from . import pooled_stuck as stuck
from . import pooled_verdict as verdict
from . import pooled_warmup as warmup
from .pooled_block import SIZE, Lanes, Rows
from .pooled_coordinates import Coordinates
from .pooled_warmup import Carry
from .start import find_start


@dataclass(frozen=True)
class PooledHMC:
    """Pooled Fisher HMC.

    Attributes:
        chains: Chains in lockstep; None chooses 16, or 32 where the density is cheap. Of more than 64, groups share
            a starting point and nested R-hat judges; give fewer draws then.
        draws: Draws per chain before the first look at R-hat.
        max_draws: Draws per chain at which it gives up on R-hat; draws grow by half after each look.
        rhat: Split R-hat of z and |z - mean| that ends sampling.
        target_accept: Mean acceptance probability sought by the step size.
        restart: Whether warm-up overwrites chains that do not move, or explore a mode without mass
            (``pooled_stuck.stuck_chains``).
        max_leapfrogs: Most leapfrogs of one trajectory.
        metric: ``"dense"``, ``"diagonal"`` or ``"low rank"`` (plus diagonal); None chooses by the dimension.
        rank: Directions of a metric of low rank; None chooses.
        lanes: Equal shares of the chains run in parallel, on threads of a CPU or on several devices; None chooses
            by the cost of the density.
        reparameterize: Whether the coordinates of hierarchical effects are learned in warm-up, between centred and
            non-centred, where the target says what its effects are (``core.Movable``).

    Example:
        >>> engine, target = PooledHMC(draws=20, max_draws=20), as_density(lambda z: -0.5 * z @ z, 3)
        >>> carry, blocks, done = engine.start(0, target), [], False
        >>> while not done:
        ...     carry, block, done = engine.advance(carry, target, 100)
        ...     blocks.append(block)
        >>> engine.finish(carry, blocks, target).positions.shape
        (16, 20, 3)
    """

    gradient: ClassVar[bool] = True  # see ``core.Kernel``

    chains: int | None = None
    draws: int = 400
    max_draws: int = 3000
    rhat: float = 1.007
    target_accept: float = 0.9
    restart: bool = True
    max_leapfrogs: int = 256
    metric: str | None = None
    rank: int | None = None
    lanes: int | None = None
    reparameterize: bool = True

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        if min(1 if self.chains is None else self.chains, self.draws, self.max_leapfrogs) < 1:
            raise ValueError("chains, draws and max_leapfrogs must be at least 1")
        if not 0.0 < self.target_accept < 1.0:
            raise ValueError(f"target_accept is a probability, got {self.target_accept}")
        if self.metric not in (None, kinds.DENSE, kinds.DIAGONAL, kinds.LOW_RANK):
            raise ValueError(f"metric is 'dense', 'diagonal', 'low rank' or None, not {self.metric!r}")
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"a metric of low rank needs at least one direction, got rank={self.rank}")
        if self.lanes is not None and (self.lanes < 1 or (self.chains or self.lanes) % self.lanes):
            raise ValueError(f"{self.chains} chains do not make {self.lanes} equal lanes")

    def suited(self, target: Any) -> PooledHMC:
        """The engine with its number of chains chosen for a target."""
        return replace(self, chains=planning.chains(self, target)[0])

    def plan(self, target: Any) -> list[str]:
        """Say what will be done on this target and why."""
        return planning.lines(self, target)

    @property
    def superchains(self) -> int | None:
        """Groups of chains that share a starting point; None up to 64 chains, each of which has its own."""
        return planning.superchains(self.chains or planning.CHAINS)

    def lane_count(self, target: Any) -> int:
        """Number of lanes, each of which runs on one device."""
        return planning.lanes(self, target)[0]

    def start(self, seed: int, target: Any, init: Array | None = None) -> Carry:
        """Make the first carry; nothing runs before ``advance``.

        Args:
            seed: Seed of every random number of the run.
            target: Log density with ``dim``.
            init: Optional starting positions, shape (chains, dim); ``find_start`` says what becomes of them.

        Raises:
            ValueError: If ``init`` has the wrong shape or the target no coordinates.
        """
        dim = planning.dimension(target)
        if self.chains is None and init is not None and np.ndim(init) == 2:
            return replace(self, chains=len(init)).start(seed, target, init)
        chains = planning.chains(self, target)[0]
        state = np.zeros((chains, 2 * dim + 1))
        state[:, -1] = -np.inf
        if init is not None:
            if np.shape(init) != (chains, dim):
                raise ValueError(f"init has shape {np.shape(init)}; this run needs {(chains, dim)}")
            state[:, :dim], state[:, -1] = np.asarray(init), np.nan  # NaN: positions given, not evaluated
        effects, state = coordinates.begin(target, self.reparameterize, state)
        log = self.plan(target)
        return Carry(seed=int(seed), stage="start", state=state, goal=self.draws, log=log, coordinates=effects)

    def advance(self, carry: Carry, target: Any, n: int) -> tuple[Carry, Block, bool]:
        """Run the start, or at most ``n`` trajectories (in warm-up a multiple of ten, and at least ten).

        After the planned work every call makes ``n`` further draws.

        Returns:
            The carry, the block and whether the planned work is finished.

        Raises:
            StartError: If no admissible starting point exists (in the first call).
        """
        if n < 1:
            raise ValueError(f"a block needs at least one trajectory, got n={n}")
        if self.chains != len(carry.state):
            return replace(self, chains=len(carry.state)).advance(carry, target, n)
        target = as_density(target)
        here = coordinates.at(carry, target)
        density, quick = target if here is None else here.density(), planning.quick(self, target)
        lanes = Lanes(density, planning.lanes(self, target)[0], os.cpu_count() or 1, quick)
        if carry.stage == "start":
            with coordinates.explained(here):
                return self._begin(carry, target, lanes, here)
        if carry.stage == "sampling":
            return self._sample(carry, lanes, n, here)
        return self._warm_up(carry, lanes, n, here, planning.simpler(self, target))

    def finish(self, carry: Carry, blocks: list[Block], target: Any) -> Draws:
        """Concatenate the sampling blocks; keep the warm-up and the facts of the run."""
        if self.chains != len(carry.state):
            return replace(self, chains=len(carry.state)).finish(carry, blocks, target)
        shape = len(carry.state), _width(carry)
        positions, stats = host.joined([b for b in blocks if b.phase == "sampling"], *shape)
        before, before_stats = host.joined([b for b in blocks if b.phase == "warmup"], *shape)
        info = {
            "engine": "PooledHMC",
            "plan": self.plan(target),
            "log": list(carry.log),
            "warnings": [*carry.warnings, *verdict.advice(self, carry, getattr(target, "labels", None))],
            "finished": carry.done,
            "step_size": math.exp(carry.log_step),
            "trajectory_length": carry.length,
            "leapfrogs_per_chain": carry.leapfrogs,
            "leapfrogs_per_independent_draw": carry.fit if math.isfinite(carry.fit) else None,
            "warmup_draws": carry.iteration,
            "restarts": carry.restarts,
            "regions": [dict(region) for region in carry.regions],
            "divergences": carry.divergences,
            "split_rhat": carry.rhat,
            **coordinates.facts(carry, target),
        }
        if self.superchains is not None and positions.shape[1] > 1:
            nested = rhat_nested(positions, self.superchains)
            info |= {"superchains": self.superchains, "nested_rhat": np.nan_to_num(nested, nan=np.inf).tolist()}
        return Draws(positions, stats, before, before_stats, info)

    def _begin(self, carry: Carry, target: Any, lanes: Lanes, here: Coordinates | None) -> tuple[Carry, Block, bool]:
        dim, given = _width(carry), bool(np.isnan(carry.state[0, -1]))
        size = 1 if given else len(carry.state) // (self.superchains or len(carry.state))
        shape = len(carry.state) // size, dim
        plain = kinds.unit(*planning.metric(self, target)[:3])
        device = lanes.put_metric(plain)
        found = find_start(
            host.in_groups(lambda z: lanes.evaluate(z, device), size),
            lambda number: host_rng(carry.seed, warmup.START, number),
            shape,
            init=carry.state[:, :dim] if given else None,
            prior=host.prior(lanes, carry.seed, shape[0]) if hasattr(target, "prior") else None,
            explain=lambda z: jax.tree.map(lanes.here.host, host.explain(lanes.target, z.astype(lanes.dtype))),
        )
        log = [*carry.log, *found.log]
        if len(found.steps):
            metric = kinds.from_pairs(found.steps, found.changes, plain)
        else:
            metric = plain
            log.append("the ascent found no curvature; warm-up starts from the unit metric")
        state = np.concatenate([found.positions, found.gradients, found.log_density[:, None]], axis=1)
        state = np.repeat(state, size, axis=0)
        carry = replace(
            carry,
            stage="window",
            state=state.astype(lanes.dtype),
            metric=metric,
            log_step=math.log(stuck.first_step(dim)),
            leapfrogs=found.evaluations,
            log=log,
        )
        metrics = {"evaluations": found.evaluations, "log": "\n".join(found.log), "inadmissible": found.inadmissible}
        if here is not None:
            metrics["inadmissible"] = here.few(found.inadmissible)
        return carry, Block("start", metrics=metrics), False

    def _warm_up(
        self, carry: Carry, lanes: Lanes, n: int, here: Coordinates | None, simpler: float
    ) -> tuple[Carry, Block, bool]:
        left = warmup.planned(carry) - (0 if carry.rows is None else len(carry.rows))
        carry, rows, block = self._trajectories(carry, lanes, max(SIZE, min(n, left) // SIZE * SIZE), here)
        past = [] if carry.rows is None else [carry.rows]
        carry = replace(carry, rows=np.concatenate([*past, rows.values]), iteration=carry.iteration + len(rows.values))
        if left == len(rows.values):
            if carry.stage == "window":
                if here is not None:
                    carry = coordinates.relearn(carry, here, lanes)
                carry = warmup.end_window(carry, self.restart, simpler)
            else:
                carry = warmup.end_step_stage(carry)
                carry = carry if here is None else coordinates.centred(carry, block)
        return carry, block, False

    def _sample(self, carry: Carry, lanes: Lanes, n: int, here: Coordinates | None) -> tuple[Carry, Block, bool]:
        count = n if carry.done else min(n, carry.goal - carry.drawn)
        carry, _, block = self._trajectories(carry, lanes, count, here)
        divergences = carry.divergences + int(block.metrics["divergences"])
        carry = replace(carry, drawn=carry.drawn + count, divergences=divergences)
        carry = carry if carry.done else self._look(carry, block)
        return carry, block, carry.done

    def _look(self, carry: Carry, block: Block) -> Carry:
        """Add draws to the running moments; at the goal decide by R-hat whether to go on."""
        assert carry.moments is not None and block.positions is not None  # noqa: S101 - made at the end of warm-up
        carry = replace(carry, moments=carry.moments.add(np.swapaxes(block.positions, 0, 1)))
        if carry.drawn < carry.goal:
            return carry
        assert carry.moments is not None  # noqa: S101
        rhat = carry.moments.rhat(self.superchains)
        if rhat <= self.rhat or carry.goal >= self.max_draws:
            carry = replace(carry, rhat=rhat)
            apart = verdict.judged(carry, block.stats["lp"].mean(axis=1))
            return replace(carry, regions=apart, done=True, moments=None)
        goal = min(self.max_draws, math.ceil(1.5 * carry.goal))
        line = f"{carry.drawn} draws: split R-hat {rhat:.4g} > {self.rhat}, going on to {goal}"
        return replace(carry, rhat=rhat, goal=goal, log=[*carry.log, line])

    def _trajectories(
        self, carry: Carry, lanes: Lanes, count: int, here: Coordinates | None
    ) -> tuple[Carry, Rows, Block]:
        """Make ``count`` trajectories at the carry's metric; adapt its state and step size only."""
        sampling = carry.stage == "sampling"
        index, dim = carry.drawn if sampling else carry.iteration, _width(carry)
        first = index
        purpose = warmup.SAMPLING if sampling else warmup.WARMUP
        most, device = warmup.cap(carry, self.max_leapfrogs), lanes.put_metric(_metric(carry))
        state, log_step, seen = carry.state, carry.log_step, 0 if carry.rows is None else len(carry.rows)
        made, draws = [], []
        while count > 0:
            size, skip = min(count, SIZE - index % SIZE), index % SIZE
            noise = host.noise(carry, _metric(carry), purpose, index // SIZE)
            noise = np.roll(noise, -skip, axis=0) if skip else noise
            tuning = (log_step, carry.length, most, self.target_accept * (1.0 - carry.wall))
            rows = lanes.run(state, noise, warmup.schedule(carry.stage, index, seen), tuning, device, size)
            state = rows.state
            made.append(rows.values)
            draws.append(noise[:size, :, dim:])
            index, seen, count = index + size, seen + size, count - size
            if sampling:
                carry, log_step = self._watch(carry, log_step, rows.acceptance(), index)
            else:
                log_step = float(rows.log_step[-1].mean(dtype=np.float64))
        rows = Rows(np.concatenate(made), dim)
        energy = host.energy(carry.state[:, 2 * dim], rows, np.concatenate(draws))
        leapfrogs = carry.leapfrogs + int(rows.leapfrogs[:, 0].sum())
        carry = replace(carry, state=state, log_step=log_step, leapfrogs=leapfrogs)
        shown = rows if here is None else here.shown(rows, first)
        return carry, rows, self._block("sampling" if sampling else "warmup", carry, shown, energy)

    def _watch(self, carry: Carry, log_step: float, acceptance: np.ndarray, index: int) -> tuple[Carry, float]:
        """Change the step size where chains stick."""
        watch = carry.watch or stuck.Watch(np.zeros(len(carry.state)))
        watch, factors = stuck.watched(watch, acceptance, index)
        if factors == 0:
            return replace(carry, watch=watch), log_step
        log_step += factors * math.log(2.0)
        why = "chains stick where the density is narrow" if factors < 0 else "a smaller step did not help"
        line = f"{index} draws: {why}; step size {'halved' if factors < 0 else 'doubled'} to {math.exp(log_step):.4g}"
        return replace(carry, watch=watch, log=[*carry.log, line]), log_step

    def _block(self, phase: str, carry: Carry, rows: Rows, energy: np.ndarray) -> Block:
        stats = {
            "lp": rows.log_density,
            "acceptance_rate": rows.acceptance(),
            "step_size": np.exp(rows.log_step),
            "diverging": rows.diverging(),
            "energy": energy,
            "n_steps": rows.leapfrogs.astype(np.int64),
        }
        metrics = {
            "step_size": math.exp(carry.log_step),
            "acceptance_rate": float(stats["acceptance_rate"].mean()),
            "divergences": int(stats["diverging"].sum()),
            "leapfrogs": int(stats["n_steps"][:, 0].sum()),
            "restarts": carry.restarts,
        }
        if carry.rhat is not None:
            metrics["split_rhat"] = carry.rhat
        positions = np.ascontiguousarray(np.swapaxes(rows.positions, 0, 1))
        return Block(phase, positions, {k: np.ascontiguousarray(v.T) for k, v in stats.items()}, metrics)


def _width(carry: Carry) -> int:
    """Dimension of the positions."""
    return (carry.state.shape[1] - 1) // 2


def _metric(carry: Carry) -> kinds.AnyMetric:
    assert carry.metric is not None  # noqa: S101 - set by the start
    return carry.metric
