r"""The no-U-turn sampler with multinomial weights, as one flat loop over leapfrog steps.

A trajectory through (z, q) is doubled forwards or backwards in time at random until it makes a U-turn.
Within the new half a leaf is kept with probability ``w_n / (w_1 + ... + w_n)``, ``w = exp(-H)``; the new
half's leaf replaces the sample with probability ``min(1, W_new / W_old)``. A half which itself holds a
U-turn (in any of its aligned sub-trees) or a divergence is dropped and ends the transition.

A turn between leaves a < b means ``q_a . R <= 0`` or ``q_b . R <= 0`` with ``R = q_a + ... + q_b``. Two
adjacent sub-trees [a, m-1] and [m, b] are joined only if there is no turn between a and b, none between
a and m, none between m-1 and b. So the leaves to remember are the first ones of the unfinished sub-trees
and those just before them, one row for each level: leaf n (even) goes to row 1 + popcount(n / 2), row 0 is
the far end of the trajectory, and the sub-trees that end at an odd n are consecutive rows.

References: Hoffman and Gelman, "The no-U-turn sampler" (2014); Betancourt, "A conceptual introduction to
Hamiltonian Monte Carlo" (2017), appendix A; the additional checks across sub-trees are Stan's since 2.21;
the iterative form follows Phan, Pradhan and Jankowiak, "Composable effects ..." (2019).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from . import euclidean
from .euclidean import Diagonal, State

Array = Any


@dataclass(frozen=True)
class NUTSInfo:
    """What a transition reports, by ArviZ's names; ``energy`` is that of the new state."""

    acceptance_rate: Array
    n_steps: Array
    tree_depth: Array
    diverging: Array
    energy: Array


@dataclass(frozen=True)
class Leaf:
    """A candidate for the next state."""

    state: State
    energy: Array


@dataclass(frozen=True)
class Marks:
    """Momenta at the remembered leaves, at the leaves before them, and the sums of momenta before them."""

    first: Array
    previous: Array
    before: Array


@dataclass(frozen=True)
class Tree:
    """The trajectory and the half-built sub-tree beyond its near end."""

    near: State
    near_momentum: Array
    far: State
    far_momentum: Array
    sign: Array
    total: Array
    marks: Marks
    sample: Leaf
    log_weight: Array
    pick: Leaf
    log_part: Array
    leaf: Array
    depth: Array
    steps: Array
    acceptance: Array
    early_turn: Array
    going: Array
    diverging: Array


for _cls in (NUTSInfo, Leaf, Marks, Tree):
    jax.tree_util.register_dataclass(_cls, [f for f in _cls.__dataclass_fields__], [])


@dataclass(frozen=True)
class NUTS:
    """The no-U-turn sampler.

    Attributes:
        step_size: Leapfrog step, in units of the metric.
        metric: ``Diagonal`` or ``Dense``; by default the identity, until warm-up learns one.
        target_accept: Mean acceptance that the standard step-size adapter aims at.
        dense: Whether the standard adapter learns a dense metric.
        max_depth: Most doublings in one transition.
        max_energy_error: A leaf whose energy is higher by this is a divergence.

    Example:
        >>> import numpy as np
        >>> from ppl.inference.core import as_density
        >>> density, kernel = as_density(lambda z: -0.5 * jnp.sum(z**2)), NUTS(step_size=0.5)
        >>> state = kernel.init(jnp.zeros(2), density)
        >>> state, info = kernel.step(jax.random.key(0), state, density)
        >>> bool(info.acceptance_rate > 0.8), bool(info.diverging)
        (True, False)
    """

    gradient: ClassVar[bool] = True  # see ``core.Kernel``

    step_size: Array = 0.1
    metric: Any = Diagonal()
    target_accept: float = 0.8
    dense: bool = False
    max_depth: int = 10
    max_energy_error: float = 1000.0

    def init(self, position: Array, density: Any) -> State:
        """Make the state at a position."""
        return euclidean.evaluate(position, density)

    def expand(self, dim: int) -> NUTS:
        """Give a metric of the default kind its full shape, as adaptation needs it."""
        return replace(self, metric=euclidean.expanded(self.metric, dim, self.dense))

    def trial(self, momentum: Array, state: State, density: Any) -> tuple[State, Array]:
        """Take one leapfrog step; see ``euclidean.trial``."""
        return euclidean.trial(self, momentum, state, density)

    def step(self, key: Array, state: State, density: Any) -> tuple[State, NUTSInfo]:
        """Draw a momentum and take one transition."""
        momentum = euclidean.draw_momentum(key, self.metric, state.position)
        return self.transition(key, momentum, state, density)

    def transition(self, key: Array, momentum: Array, state: State, density: Any) -> tuple[State, NUTSInfo]:
        """Take one transition from a given whitened momentum."""
        tree = plant(state, momentum, max(self.max_depth, 2))
        initial = tree.sample.energy
        tree = jax.lax.while_loop(lambda t: t.going, lambda t: grow(self, key, initial, t, density), tree)
        info = NUTSInfo(
            tree.acceptance / tree.steps.astype(tree.acceptance.dtype),
            tree.steps,
            tree.depth,
            tree.diverging,
            tree.sample.energy,
        )
        return tree.sample.state, info


jax.tree_util.register_dataclass(
    NUTS, ["step_size", "metric", "target_accept"], ["dense", "max_depth", "max_energy_error"]
)


def plant(state: State, momentum: Array, rows: int) -> Tree:
    """Start a trajectory of one point.

    The first doubling goes forwards: the sign of the momentum is already random.
    """
    zero = jnp.zeros((), momentum.dtype)
    whole, no = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    leaf = Leaf(state, euclidean.energy_of(state.log_density, momentum))
    blank = jnp.zeros((rows, *momentum.shape), momentum.dtype)
    return Tree(
        near=state,
        near_momentum=momentum,
        far=state,
        far_momentum=momentum,
        sign=zero + 1.0,
        total=momentum,
        marks=Marks(blank, blank, blank),
        sample=leaf,
        log_weight=zero,
        pick=leaf,
        log_part=zero,
        leaf=whole,
        depth=whole,
        steps=whole,
        acceptance=zero,
        early_turn=no,
        going=~no,
        diverging=no,
    )


def select(condition: Array, new: Any, old: Any) -> Any:
    """Choose between two pytrees."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def log_add(a: Array, b: Array) -> Array:
    """Return log(exp(a) + exp(b)) where not both are -inf."""
    return jnp.maximum(a, b) + jnp.log1p(jnp.exp(-jnp.abs(a - b)))


def keep_leaf(log_uniform: Array, log_leaf: Array, log_part: Array) -> Array:
    """Decide whether the newest leaf becomes the sub-tree's; ``log_part`` counts it already."""
    return log_uniform < log_leaf - log_part


def keep_half(log_uniform: Array, log_part: Array, log_weight: Array) -> Array:
    """Decide whether the new half's leaf becomes the sample (biased progressive sampling)."""
    return log_uniform < log_part - log_weight


def remember(marks: Marks, tree: Tree, momentum: Array) -> Marks:
    """Write an even leaf to its row, and the far end to row 0."""
    rows = jnp.arange(marks.first.shape[0], dtype=jnp.int32)[:, None]
    row = 1 + jax.lax.population_count(tree.leaf >> 1)
    here = (rows == row) & (tree.leaf % 2 == 0)
    new = Marks(momentum, tree.near_momentum, tree.total)
    marks = jax.tree.map(lambda x, y: jnp.where(here, x, y), new, marks)
    return replace(marks, first=jnp.where(rows == 0, tree.far_momentum, marks.first))


def turns(marks: Marks, momentum: Array, total: Array) -> tuple[Array, Array]:
    """Find the turns between the newest leaf and each remembered leaf, and each one before those."""
    since = total - marks.before
    longer = since + marks.previous

    def turned(start: Array, sums: Array) -> Array:
        return ~((jnp.sum(start * sums, -1) > 0) & (jnp.sum(sums * momentum, -1) > 0))

    return turned(marks.first, since), turned(marks.previous, longer)


def half_turned(leaf: Array, first: Array, previous: Array) -> Array:
    """Say whether a sub-tree of the new half is now known to hold a turn."""
    rows = jnp.arange(first.shape[0], dtype=jnp.int32)
    odd = leaf & 1
    ends = jax.lax.population_count(leaf & ~(leaf + 1))  # trailing ones: so many sub-trees end here
    high = jax.lax.population_count(leaf >> 1) + odd
    low = high - jnp.maximum(ends, 1) + 1
    # An even leaf opens the second half of the sub-tree in row `high`: the check from a to m.
    whole = first & (rows >= jnp.maximum(low, 1)) & (rows <= high)
    return jnp.any(whole | (previous & (rows > low) & (rows <= high)))


def grow(kernel: NUTS, key: Array, initial: Array, tree: Tree, density: Any) -> Tree:
    """Add one leaf; when it completes the new half, join the halves and choose a direction."""
    step = tree.sign * kernel.step_size
    near, momentum = euclidean.leapfrog(kernel.metric, step, tree.near, tree.near_momentum, density)
    energy = euclidean.energy_of(near.log_density, momentum)
    # A NaN or infinite value or gradient makes the energy non-finite: no weight, and the end of the tree.
    log_leaf = jnp.where(jnp.isfinite(energy), initial - energy, -jnp.inf)
    diverging = ~(log_leaf > -kernel.max_energy_error)
    random = euclidean.words(key, tree.steps)
    log_uniform = jnp.log(euclidean.uniform(random, momentum.dtype))

    opening, last = tree.leaf == 0, tree.leaf + 1 == jnp.left_shift(1, tree.depth)
    log_part = jnp.where(opening, log_leaf, log_add(tree.log_part, log_leaf))
    keep = opening | keep_leaf(log_uniform[0], log_leaf, log_part)
    pick = select(keep, Leaf(near, energy), tree.pick)

    marks, total = remember(tree.marks, tree, momentum), tree.total + momentum
    first, previous = turns(marks, momentum, total)
    early_turn = jnp.where(opening, first[0], tree.early_turn)
    valid = ~(diverging | half_turned(tree.leaf, first, previous))
    join = last & valid
    accept = join & keep_half(log_uniform[1], log_part, tree.log_weight)
    depth = tree.depth + join.astype(jnp.int32)
    stop = join & (first[0] | early_turn | previous[1] | (depth >= kernel.max_depth))
    flip = join & (random[1] % 2 == 1)  # the uniform uses the upper bits
    return Tree(
        near=select(flip, tree.far, near),
        near_momentum=jnp.where(flip, tree.far_momentum, momentum),
        far=select(flip, near, tree.far),
        far_momentum=jnp.where(flip, momentum, tree.far_momentum),
        sign=jnp.where(flip, -tree.sign, tree.sign),
        total=total,
        marks=marks,
        sample=select(accept, pick, tree.sample),
        log_weight=jnp.where(join, log_add(tree.log_weight, log_part), tree.log_weight),
        pick=pick,
        log_part=log_part,
        leaf=jnp.where(last, 0, tree.leaf + 1),
        depth=depth,
        steps=tree.steps + 1,
        acceptance=tree.acceptance + jnp.exp(jnp.minimum(log_leaf, 0.0)),
        early_turn=early_turn,
        going=valid & ~stop,
        diverging=diverging,
    )
