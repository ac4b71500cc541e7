"""The battery that every Markov kernel passes: rank invariance over targets that hide no bug.

The targets are an anisotropic Gaussian, a funnel, a simplex, a skewed heavy tail, gammas on the log scale, a banana,
two modes, and a support that depends on another site, in its own coordinates (-inf outside) and in unconstrained
ones; for kernels that move codes, twelve competing states, alone and with a real coordinate beside them.

A kernel is one ``Row``. ``test_battery.py`` runs every row: on its ``quick`` targets in the default suite, on all of
its targets with many replications where slow tests run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppl.inference.calibration.rank import RankResult, rank_invariance
from ppl.inference.core import as_stochastic
from ppl.inference.mcmc import (
    HMC,
    MALA,
    MAMS,
    MCLMC,
    NUTS,
    Barker,
    Block,
    Cycle,
    DifferentialEvolution,
    EllipticalSlice,
    FiniteMetropolis,
    Gibbs,
    Independence,
    LocallyInformed,
    Mixture,
    PseudoMarginal,
    RandomWalk,
    Slice,
    Stretch,
    Walk,
    composite,
)
from ppl.inference.mcmc.euclidean import Dense, Diagonal
from ppl.inference.mcmc.proposals import StudentT
from tests.inference.mcmc import chees_kernel
from tests.oracles import targets
from tests.oracles.targets import BY_NAME, Target

CONTINUOUS = tuple(t.name for t in targets.CONTINUOUS)
FINITE = tuple(t.name for t in targets.FINITE)
MIXED = tuple(t.name for t in targets.MIXED)
QUICK = ("support",)


@dataclass(frozen=True)
class Row:
    """One kernel in the battery.

    Attributes:
        name: Name of the test.
        kernel: Makes the kernel, tuned for a target: it has ``dim``, ``step_size`` and ``scale`` (d,) or (d, d).
        targets: Names of the targets it must leave invariant.
        quick: Those of the default suite.
        reversible: Whether the kernel is reversible; the test is then far more powerful.
        walkers: Positions are ensembles (walkers, d) of independent draws, for kernels that move these; 0 for (d,).
        density: Makes what the kernel is given of a target; by default its density.
        replications: Repetitions in the default suite.
        many: Repetitions where slow tests run.
        steps: Moves in each repetition.
    """

    name: str
    kernel: Callable[[Target], Any]
    targets: tuple[str, ...] = CONTINUOUS
    quick: tuple[str, ...] = QUICK
    reversible: bool = True
    walkers: int = 0
    density: Callable[[Target], Any] = Target.density
    replications: int = 2048
    many: int = 20_000
    steps: int = 5


def metric(target: Target) -> Any:
    """The target's scales as a metric."""
    scale = np.asarray(target.scale)
    return Dense(scale) if scale.ndim == 2 else Diagonal(scale)


def tuned(kernel: Callable[..., Any], target: Target, factor: float = 1.0, **options: Any) -> Any:
    """A kernel with the target's scales and a multiple of its step size."""
    return kernel(step_size=factor * target.step_size, metric=metric(target), **options)


def mixed(kernel: Any, target: Target) -> Any:
    """A kernel of the codes and HMC of the real coordinates, in turn."""
    count = len(target.scale)
    return Cycle(kernel, Block(slice(0, count), tuned(HMC, target, steps=3)))


def judge(row: Row, name: str, replications: int | None = None, seed: int = 1, **options: Any) -> RankResult:
    """Rank test of a row on a target; nothing compiled earlier is used, so that mutants are seen.

    Args:
        row: The kernel's row.
        name: The target's name.
        replications: Repetitions.
        seed: Seed.
        options: ``target``, a target instead of the named one, and options of ``rank_invariance``.
    """
    target = options.pop("target", BY_NAME[name])
    density = row.density(target)
    sample: Any = target.sample
    functions = lambda z: jnp.concatenate([z, z**2, target.log_density(z)[None]])  # noqa: E731
    if row.walkers:
        sample = lambda key: jax.vmap(target.sample)(jax.random.split(key, row.walkers))  # noqa: E731
        single = functions
        # One walker and a product over two: ensembles may keep each walker's law and spoil the joint one. Rounded, so
        # that the log density of a walker that stays is the same number in every state.
        functions = lambda z: jnp.concatenate([jnp.round(single(z[0]), 6), z[0] * z[1], jnp.mean(z, axis=0)])  # noqa: E731
    options = {"steps": row.steps, "reversible": row.reversible, "test_functions": functions, **options}
    return rank_invariance(
        row.kernel(target), density, sample, replications=replications or row.replications, seed=seed, **options
    )


def moments(target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Mean and Cholesky factor of the covariance of a target, roughly, from exact draws."""
    draws = np.asarray(jax.vmap(target.sample)(jax.random.split(jax.random.key(7), 500)))
    return draws.mean(0), np.linalg.cholesky(np.cov(draws.T))


def elliptical(target: Target) -> Any:
    """An ellipse that fits, moved and stretched a little."""
    mean, factor = moments(target)
    return EllipticalSlice(mean=mean + 0.3 * np.diag(factor), factor=1.3 * factor)


def independence(target: Target) -> Any:
    """A proposal that fits only roughly, so that its density matters."""
    mean, factor = moments(target)
    return Independence(StudentT(mean - 0.3 * np.diag(factor), 1.2 * factor, 4.0))


def part(kernel: Callable[..., Any], target: Target, names: Any, factor: float = 1.0, **options: Any) -> Block:
    """A block of some coordinates with the target's scales."""
    scale = np.asarray(target.scale)
    scale = np.abs(np.diag(scale)) if scale.ndim == 2 else scale
    own = scale[names if isinstance(names, slice) else list(names)]
    return Block(names, kernel(step_size=factor * target.step_size, metric=Diagonal(own), **options))


def there_and_back(target: Target) -> Cycle:
    """Two blocks by kernels of two kinds, in an order that makes the cycle reversible."""
    first = part(HMC, target, [0], steps=3)
    return Cycle(first, part(RandomWalk, target, slice(1, None), 1.5), first)


def either(target: Target) -> Mixture:
    """Overlapping blocks and a kernel for everything, at random."""
    last = part(HMC, target, slice(1, None), steps=3)
    return Mixture((part(RandomWalk, target, [0, 1], 1.5), last, tuned(RandomWalk, target)), (0.5, 0.3, 0.2))


def codes_by_block(target: Target) -> Cycle:
    """Each code and the real coordinate in a block of its own."""
    return Cycle(
        Block([2], Gibbs()), part(HMC, target, [0], steps=3), Block([1], FiniteMetropolis()), Block([2], Gibbs())
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Settled:
    """A pseudo-marginal kernel whose first key is drawn from its law given the position, among very many."""

    kernel: Any

    def init(self, position: Any, density: Any) -> Any:
        """The state at an exact draw of position and key."""
        first = composite.first_noise(position)
        keys = jax.random.split(composite.wrapped(first), 1001)
        logs = jax.vmap(lambda key: density(key, position))(keys[1:])
        chosen = keys[1 + jax.random.categorical(keys[0], logs)]
        return self.kernel.resume(self.kernel.init(position, density), position, density, jax.random.key_data(chosen))

    def step(self, key: Any, state: Any, density: Any) -> Any:
        """A step of the kernel."""
        return self.kernel.step(key, state, density)


def noisy(target: Target) -> Any:
    """The target with log-normal noise of mean one, wider in some places than in others."""

    def estimate(key: Any, z: Any) -> Any:
        spread = 0.4 + 0.6 * jax.nn.sigmoid(z[0])
        return target.log_density(z) + spread * jax.random.normal(key) - 0.5 * spread**2

    return as_stochastic(estimate, target.dim)


def estimated(target: Target) -> Settled:
    """Two pseudo-marginal blocks, reversible."""
    walk = part(RandomWalk, target, [0], 1.5)
    first = replace(walk, kernel=PseudoMarginal(walk.kernel))
    return Settled(Cycle(first, part(HMC, target, slice(1, None), steps=3), first))


ROWS = [
    Row("nuts", lambda t: tuned(NUTS, t, max_depth=6), quick=()),  # the default suite has test_invariance.py
    Row("hmc", lambda t: tuned(HMC, t, length=7 * t.step_size), quick=()),
    Row("mala", lambda t: tuned(MALA, t, 1.5), quick=()),
    Row("barker", lambda t: tuned(Barker, t, 2.0)),
    Row("barker-narrow", lambda t: tuned(Barker, t, 2.0, width=0.1), quick=()),
    Row("mams", lambda t: tuned(MAMS, t, length=5 * t.step_size)),
    # Unadjusted: with short steps its bias is below what the test can see. test_microcanonical.py has its order.
    Row("mclmc", lambda t: tuned(MCLMC, t, 0.02, length=0.2), ("gaussian", "bimodal"), ("bimodal",), reversible=False),
    Row("random-walk", lambda t: tuned(RandomWalk, t, 2.0)),
    Row("slice", lambda t: Slice(metric=metric(t), lines=1, max_steps=4)),
    Row("slice-axes", lambda t: Slice(width=0.5, metric=metric(t), axes=True), quick=()),
    # Both loops cut short nearly always: what is left must be reversible too.
    Row("slice-cut", lambda t: Slice(1.0, metric(t), lines=2, max_steps=1, max_misses=1), quick=()),
    Row("elliptical-cut", lambda t: replace(elliptical(t), max_misses=1), quick=()),
    Row("elliptical", elliptical),
    Row("independence", independence),
    Row("stretch", lambda t: Stretch(), walkers=12, quick=("bimodal",)),
    Row("walk", lambda t: Walk(), walkers=12, quick=()),  # the default suite has test_ensemble_moves.py
    Row("differential", lambda t: DifferentialEvolution(), walkers=12, quick=()),
    Row("chees", chees_kernel.tuned, walkers=2, quick=("gaussian",)),
    Row("gibbs", lambda t: Gibbs(), FINITE, (), reversible=False),
    Row("gibbs-random", lambda t: Gibbs(scan="random"), FINITE, ()),
    Row("gibbs-metropolised", lambda t: Gibbs(scan="random", metropolised=True), FINITE, FINITE),
    Row("finite-metropolis", lambda t: FiniteMetropolis(scan="random"), FINITE, ()),
    Row("informed", lambda t: LocallyInformed(flips=2), FINITE, FINITE),
    Row("informed-sqrt", lambda t: LocallyInformed("sqrt"), FINITE, ()),
    Row("informed-min", lambda t: LocallyInformed("min"), FINITE, ()),
    Row("gibbs-hmc", lambda t: mixed(Gibbs(), t), MIXED, MIXED, reversible=False),
    Row("cycle", there_and_back, quick=("nested", "support")),
    Row("mixture", either, quick=("support",)),
    Row("blocks-mixed", codes_by_block, MIXED, (), reversible=False),
    Row(
        "pseudo-marginal",
        lambda t: Settled(PseudoMarginal(tuned(RandomWalk, t, 1.5))),
        quick=("positive",),
        density=noisy,
    ),
    Row("pseudo-marginal-cycle", estimated, quick=(), density=noisy),
    Row("informed-hmc", lambda t: mixed(LocallyInformed(), t), MIXED, (), reversible=False),
]
"""Every kernel; add a row for a new one."""
