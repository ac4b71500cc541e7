r"""Many-chain HMC for accelerators: hundreds to thousands of chains in lockstep, short, with one tuning.

All chains run in one program whose whole block, randomness and learning included, stays on the device
(``chees_block``); the host sees the draws of a block at its end. A chain needs few draws, for chains are many: what
must be long enough is the warm-up, after which each chain has forgotten its start. That is judged by nested R-hat:
chains come in *superchains* which start at one point each, and the means of superchains must agree; as long as they do
not, sampling goes on, up to ``max_draws``.

References: Hoffman, Radul and Sountsov, "An adaptive MCMC scheme for setting trajectory lengths in Hamiltonian Monte
Carlo" (2021); Margossian et al., "Nested R-hat" (2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import jax
import numpy as np

from ..adapt.step_size import reasonable
from ..core import Block, Draws, as_density, host_rng
from ..devices import current
from . import chees_block as program
from .chain_moments import ChainMoments
from .start import StartError

Array = Any

_START, _PRIOR, _KEY, _TRIAL = 21, 22, 23, 24  # purposes of host random numbers
_TRIES, _PRIOR_TRIES = 50, 10
_BUFFER = 2**28  # bytes of the draws of one call


@dataclass
class ChEESCarry:
    """All that ``ChEES`` needs to go on: arrays and numbers."""

    seed: int
    iteration: int
    tuning: program.Tuning
    state: Any
    moments: ChainMoments
    due: int
    gradients: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ChEES:
    """Many chains of HMC that share a step, scales and a trajectory length learned from all of them.

    Attributes:
        chains: Chains, 10^2 to 10^4.
        warmup: Warm-up transitions, in which the tuning is learned.
        draws: Draws of every chain.
        max_draws: Draws of every chain at which sampling ends although nested R-hat is above ``rhat``.
        superchains: Groups of chains with a common start, a divisor of ``chains``; None for 16, or what divides.
        rhat: Nested R-hat of every coordinate at which sampling ends.
        target_accept: Harmonic mean of the acceptance rates that the step aims at.
        criterion: What the length is learned by: ``"chees"`` or ``"snaper"`` (see ``chees_block``).
        max_steps: Most leapfrog steps of a trajectory.

    Raises:
        ValueError: If the numbers of chains and superchains do not fit, or the criterion is unknown.
        StartError: If a superchain finds no start with a finite log density and gradient.

    Example:
        >>> engine = ChEES(chains=32, warmup=100, draws=20)
        >>> target = as_density(lambda z: -0.5 * z @ z, 2)
        >>> carry, blocks, done = engine.start(0, target), [], False
        >>> while not done:
        ...     carry, block, done = engine.advance(carry, target, 100)
        ...     blocks.append(block)
        >>> draws = engine.finish(carry, blocks, target)
        >>> draws.positions.shape[0], bool(max(draws.info["nested_rhat"]) < 1.01)
        (32, True)
    """

    gradient: ClassVar[bool] = True  # see ``core.Kernel``

    chains: int = 128
    warmup: int = 500
    draws: int = 100
    max_draws: int = 1000
    superchains: int | None = None
    rhat: float = 1.01
    target_accept: float = 0.651
    criterion: str = "chees"
    max_steps: int = 512

    def suited(self, target: Any) -> ChEES:
        """The same with the number of superchains decided."""
        return replace(self, superchains=self.groups())

    def groups(self) -> int:
        """Number of superchains.

        Example:
            >>> ChEES(chains=128).groups(), ChEES(chains=1000).groups(), ChEES(chains=10).groups()
            (16, 10, 5)
        """
        if self.criterion not in ("chees", "snaper"):
            raise ValueError(f"criterion={self.criterion!r} is neither 'chees' nor 'snaper'")
        if self.superchains is None:
            fitting = [k for k in range(2, 17) if self.chains % k == 0 and self.chains // k >= 2]
            if fitting:
                return fitting[-1]
        elif self.superchains >= 2 and self.chains % self.superchains == 0:
            return self.superchains
        raise ValueError(
            f"{self.chains} chains cannot be divided into {self.superchains or 'up to 16'} superchains of equal size, "
            "two or more: take, say, chains=128, superchains=16"
        )

    def plan(self, target: Any) -> list[str]:
        """Say what will be done and why."""
        groups = self.groups()
        return [
            f"ChEES: {self.chains} chains in lockstep on {current().platform} x ({self.warmup} warm-up + {self.draws} "
            f"draws, up to {max(self.max_draws, self.draws)} until nested R-hat <= {self.rhat:g})",
            f"{groups} superchains of {self.chains // groups}, each from one start; one step, diagonal metric and "
            f"length ({self.criterion}) for all chains, learned on the device",
            "pooled adaptation: a chain's draws depend on the number of chains",
        ]

    def start(self, seed: int, target: Any, init: Array | None = None) -> ChEESCarry:
        """Find a finite start for each superchain, and a first step.

        Without ``init`` superchain k tries U(-2, 2) and then, where the target offers one, its prior.
        """
        target = as_density(target)
        self.groups()  # may refuse
        dim = int(target.dim) if getattr(target, "dim", None) is not None else np.shape(np.asarray(init))[-1]
        if getattr(target, "finite", ()):
            raise ValueError("ChEES moves real coordinates only, and the target has codes of finite sites")
        dtype = np.dtype(float) if jax.config.jax_enable_x64 else np.dtype(np.float32)
        state, facts = self._first_states(seed, target, dim, init, dtype)
        tuning = program.first_tuning(0.1, dim, dtype)

        def trial(step: np.ndarray, attempt: int) -> np.ndarray:
            noise = host_rng(seed, _TRIAL, attempt).normal(size=state.position.shape).astype(dtype)
            with np.errstate(divide="ignore"):
                return current().host(program.trial(step.astype(dtype), tuning, state, noise, self._there(target)))

        step = float(reasonable(trial, np.full(1, 0.1))[0]) if self.warmup else 0.1
        moments = ChainMoments.empty(self.chains, dim)
        return ChEESCarry(
            seed, 0, program.first_tuning(step, dim, dtype), state, moments, self.warmup + self.draws, 0, facts
        )

    def advance(self, carry: ChEESCarry, target: Any, n: int) -> tuple[ChEESCarry, Block, bool]:
        """Run at most ``n`` transitions, all of warm-up or all of sampling; not past the plan unless it is done."""
        target, warm = as_density(target), carry.iteration < self.warmup
        left = (self.warmup if warm else carry.due) - carry.iteration
        stop = carry.iteration + (min(n, left) if left > 0 else n)
        capacity = self._capacity(carry.state.position)
        words = host_rng(carry.seed, _KEY).integers(2**32, size=2, dtype=np.uint32)
        there, pieces = self._there(target), []
        tuning, state, iteration = carry.tuning, carry.state, carry.iteration
        while iteration < stop:
            span = np.array([iteration, min(stop - iteration, capacity), warm], np.int32)
            options = (self.criterion, float(self.target_accept), int(self.max_steps))
            tuning, state, out = program.block(tuning, state, words, there, span, capacity, options)
            skipped = ("position", "lp", "energy") if warm else ()
            pieces.append({k: current().host(v)[: span[1]] for k, v in out.items() if k not in skipped})
            iteration += int(span[1])
        tuning, state = jax.tree.map(current().host, (tuning, state))
        if warm and iteration == self.warmup:
            tuning = _frozen(tuning)
        joined = {name: np.concatenate([p[name] for p in pieces]) for name in pieces[0]}
        facts = dict(carry.facts)
        metrics = {
            "step_size": float(tuning.step_size),
            "acceptance_rate": float(joined["acceptance_rate"].mean()),
            "n_steps": float(joined["n_steps"].mean()),
            "inadmissible": facts.pop("inadmissible", None),
        }
        total = carry.gradients + int(joined["n_steps"].sum()) * self.chains
        carry = replace(carry, iteration=iteration, tuning=tuning, state=state, gradients=total, facts=facts)
        if warm:  # thousands of chains on their way are not worth their memory
            return carry, Block("warmup", None, {}, metrics), iteration >= carry.due
        stats = {name: _by_chain(value, self.chains) for name, value in joined.items()}
        positions = stats.pop("position")
        carry = replace(carry, moments=carry.moments.add(positions))
        carry, done = self._judged(carry)
        return carry, Block("sampling", positions, stats, metrics), done

    def finish(self, carry: ChEESCarry, blocks: list[Block], target: Any) -> Draws:
        """Put the blocks together."""
        main = [b for b in blocks if b.phase == "sampling" and b.positions is not None]
        if not main:
            raise ValueError("no draws yet: the run ended in warm-up")
        info: dict[str, Any] = {
            **carry.facts,
            "seed": carry.seed,
            "iterations": carry.iteration,
            "superchains": self.groups(),
            "nested_rhat": carry.moments.nested_rhat(self.groups()).tolist(),
            "step_size": float(carry.tuning.step_size),
            "length": float(np.exp(carry.tuning.log_length)),
            "gradients": carry.gradients,
            "divergences": int(sum(b.stats["diverging"].sum() for b in main)),
        }
        names = main[0].stats
        return Draws(
            np.concatenate([b.positions for b in main], axis=1),
            {name: np.concatenate([b.stats[name] for b in main], axis=1) for name in names},
            info=info,
        )

    def _judged(self, carry: ChEESCarry) -> tuple[ChEESCarry, bool]:
        """Whether the planned work is done, and if not, when to ask again: after half as many draws more."""
        if carry.iteration < carry.due:
            return carry, False
        made, most = carry.iteration - self.warmup, max(self.max_draws, self.draws)
        worst = np.max(carry.moments.nested_rhat(self.groups()))
        if made >= most or worst <= self.rhat:
            return carry, True
        return replace(carry, due=self.warmup + min(most, math.ceil(1.5 * made))), False

    def _capacity(self, positions: Array) -> int:
        return int(np.clip(_BUFFER // max(positions.nbytes, 1), 1, 128))

    def _there(self, target: Any) -> Any:
        return current().copy(target, 0)

    def _first_states(
        self, seed: int, target: Any, dim: int, init: Array | None, dtype: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Evaluate starting points, replacing those that are not finite; the chains of a superchain share one."""
        groups = self.groups()
        if init is not None and len(np.atleast_2d(init)) == self.chains:
            z, each = np.array(np.atleast_2d(init), float), 1
        elif init is not None:
            z, each = np.resize(np.atleast_2d(np.asarray(init, float)), (groups, dim)), self.chains // groups
        else:
            z = np.stack([host_rng(seed, k, _START, 0).uniform(-2.0, 2.0, dim) for k in range(groups)])
            each = self.chains // groups
        inadmissible, attempt = None, 0
        while True:
            made = program.evaluate(np.repeat(z, each, axis=0).astype(dtype), self._there(target))
            state = jax.tree.map(current().host, made)
            good = np.isfinite(state.log_density) & np.isfinite(state.gradient).all(axis=1)
            bad = np.flatnonzero(~good[::each])
            inadmissible = z[bad] if inadmissible is None else inadmissible
            attempt += 1
            over = attempt >= _TRIES and not hasattr(target, "prior")
            if not len(bad) or init is not None or over or attempt >= _TRIES + _PRIOR_TRIES:
                break
            for k in bad:
                rng = host_rng(seed, int(k), _START if attempt < _TRIES else _PRIOR, attempt)
                z[k] = rng.uniform(-2.0, 2.0, dim) if attempt < _TRIES else _prior_draw(target, rng)
        if len(bad):
            first = int(bad[0])
            tried = "init" if init is not None else f"{_TRIES} points of U(-2, 2), then the prior where there is one"
            value, slope = float(state.log_density[first * each]), np.asarray(state.gradient[first * each])
            raise StartError(z[first], value, slope, [f"superchain {first} tried {tried}"])
        return state, {"start": ["given" if init is not None else f"attempts: {attempt}"], "inadmissible": inadmissible}


def _frozen(tuning: program.Tuning) -> program.Tuning:
    """Tuning for sampling: averages in place of the last values."""
    return replace(
        tuning,
        step_size=np.asarray(np.exp(tuning.average.log_mean), tuning.step_size.dtype),
        log_length=tuning.log_length_mean,
    )


def _by_chain(value: np.ndarray, chains: int) -> np.ndarray:
    """From (n, C, ...), or (n,) for what all chains share, to (C, n, ...)."""
    if value.ndim == 1:
        return np.repeat(value[None], chains, axis=0)
    return np.moveaxis(value, 0, 1)


def _prior_draw(target: Any, rng: np.random.Generator) -> np.ndarray:
    try:
        return current().host(target.prior(jax.random.key(int(rng.integers(2**31)))))
    except ValueError:  # the prior is improper: there is nothing to draw
        return rng.uniform(-2.0, 2.0, int(target.dim))
