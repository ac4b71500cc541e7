r"""Rank test of the invariance of a Markov kernel.

Start from exact draws of the target pi and move. *Reversible* kernels: an exact draw is put at a uniformly random
place of a chain of L + 1 states, the states before and after it are made by moving it; if the kernel leaves pi
invariant, the rank of f(exact draw) among f(chain) is uniform on 0..L whatever the correlation. *Any* kernel: the
rank of f(state after L moves) among L fresh exact draws is uniform. Ties are broken at random. Over R
replications the ranks are tested for each f by Pearson's chi-square and by the standardised mean and
mean square of the rank; with m p-values in all, the smallest times m is the combined p-value, so a correct kernel
falls below alpha with probability at most about alpha, and R and L decide the power.

References: Gandy and Scott, "Unit testing for MCMC and other Monte Carlo methods" (2020); Talts et al.,
"Validating Bayesian inference algorithms with simulation-based calibration" (2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core import as_density, host_rng

Array = Any


@dataclass(frozen=True)
class RankResult:
    """The outcome of a rank test.

    Attributes:
        ranks: Shape (replications, functions), each in 0..levels - 1.
        levels: Number of possible ranks.
        p_values: By test function and statistic.
    """

    ranks: np.ndarray
    levels: int
    p_values: dict[str, float]

    @property
    def p_value(self) -> float:
        """Bonferroni-combined p-value."""
        return min(1.0, len(self.p_values) * min(self.p_values.values()))

    def passed(self, alpha: float = 1e-4) -> bool:
        """Whether nothing speaks against invariance; a correct kernel fails with probability ``alpha``."""
        return self.p_value > alpha

    def __str__(self) -> str:
        """Name the worst statistic."""
        worst = min(self.p_values, key=lambda name: self.p_values[name])
        return (
            f"p = {self.p_value:.2g} over {len(self.p_values)} statistics of {len(self.ranks)} ranks; "
            f"smallest: {worst}, {self.p_values[worst]:.2g}"
        )


def rank_invariance(
    kernel: Any,
    density: Any,
    exact_sampler: Callable[[Array], Array],
    test_functions: Callable[[Array], Array] | None = None,
    replications: int = 4096,
    steps: int = 7,
    seed: int = 0,
    reversible: bool = True,
) -> RankResult:
    """Test that ``kernel`` leaves ``density`` invariant.

    Args:
        kernel: The kernel, tuned.
        density: The log density that the kernel is told.
        exact_sampler: Maps a JAX key to one exact draw, shape (d,).
        test_functions: Maps a position to a vector of numbers; by default the coordinates, their squares and the
            log density.
        replications: Independent repetitions, all in one compiled program.
        steps: Moves in each repetition.
        seed: Seed.
        reversible: Whether the kernel is reversible; the test is then far more powerful.

    Returns:
        Ranks and p-values.

    Example:
        >>> from ppl.inference.mcmc import HMC
        >>> normal = lambda key: jax.random.normal(key, (2,))
        >>> result = rank_invariance(HMC(0.9), lambda z: -0.5 * z @ z, normal, replications=512)
        >>> result.passed()
        True
        >>> rank_invariance(HMC(0.9), lambda z: -z @ z, normal, replications=512).passed()
        False
    """
    density = as_density(density)
    functions = test_functions or (lambda z: jnp.concatenate([z, z**2, density(z)[None]]))
    program = _chain if reversible else _forward

    @jax.jit
    def count_all(kernel: Any, density: Any, keys: Array, before: Array) -> tuple[Array, Array]:
        return jax.vmap(partial(program, kernel, density, exact_sampler, functions, steps))(keys, before)

    rng = host_rng(seed, 1)
    keys = jax.random.wrap_key_data(rng.integers(2**32, size=(replications, 2), dtype=np.uint32), impl="threefry2x32")
    before = rng.integers(steps + 1, size=replications)
    ranks = break_ties(rng, *count_all(kernel, density, keys, before))
    return RankResult(ranks, steps + 1, uniformity(ranks, steps + 1))


def break_ties(rng: np.random.Generator, below: Array, ties: Array) -> np.ndarray:
    """Return ranks from the numbers of smaller and of equal values, each place among equals equally likely."""
    return np.asarray(below) + rng.integers(np.asarray(ties) + 1)


def uniformity(ranks: np.ndarray, levels: int) -> dict[str, float]:
    """Test each column of ranks for uniformity on 0..levels-1.

    Example:
        >>> p = uniformity(np.arange(800)[:, None] % 8, 8)
        >>> p["f[0] chi-square"], p["f[0] mean"]
        (1.0, 1.0)
    """
    from scipy import stats

    number, out = len(ranks), {}
    centred = np.arange(levels) - (levels - 1) / 2
    for i, column in enumerate(ranks.T):
        counts = np.bincount(column, minlength=levels)
        chi = float(np.sum((counts - number / levels) ** 2) / (number / levels))
        out[f"f[{i}] chi-square"] = float(stats.chi2.sf(chi, levels - 1))
        for name, score in (("mean", centred), ("spread", centred**2)):
            z = (score[column].mean() - score.mean()) / max(score.std(), 1e-12) * np.sqrt(number)
            out[f"f[{i}] {name}"] = float(2 * stats.norm.sf(abs(z)))
    return out


def _chain(
    kernel: Any, density: Any, sampler: Any, functions: Any, steps: int, key: Array, before: Array
) -> tuple[Array, Array]:
    """Compare an exact draw with the states before and after it."""
    start = kernel.init(sampler(jax.random.fold_in(key, steps)), density)

    def move(state: Any, index: Array) -> tuple[Any, Array]:
        # The first moves go backwards in time, which for a reversible kernel is the same; then start afresh.
        state = jax.tree.map(lambda a, b: jnp.where(index == before, a, b), start, state)
        state, _ = kernel.step(jax.random.fold_in(key, index), state, density)
        return state, state.position

    _, visited = jax.lax.scan(move, start, jnp.arange(steps))
    return compare(functions, start.position, visited)


def _forward(
    kernel: Any, density: Any, sampler: Any, functions: Any, steps: int, key: Array, before: Array
) -> tuple[Array, Array]:
    """Compare the last of some moves from an exact draw with fresh exact draws."""
    del before
    draws = jax.vmap(lambda i: sampler(jax.random.fold_in(key, i)))(jnp.arange(steps, 2 * steps + 1))
    start = kernel.init(draws[0], density)

    def move(state: Any, index: Array) -> tuple[Any, None]:
        return kernel.step(jax.random.fold_in(key, index), state, density)[0], None

    state, _ = jax.lax.scan(move, start, jnp.arange(steps))
    return compare(functions, state.position, draws[1:])


def compare(functions: Any, position: Any, others: Any) -> tuple[Array, Array]:
    """Count how many of ``others`` give a smaller, and how many an equal value of each test function.

    Equal positions (rejected moves) count as equal values, whatever the rounding.
    """
    value, values = functions(position), jax.vmap(functions)(others)
    leaves = zip(jax.tree.leaves(others), jax.tree.leaves(position), strict=True)
    same = jnp.stack([jnp.all((a == b).reshape(len(a), -1), axis=1) for a, b in leaves]).all(0)[:, None]
    return jnp.sum(~same & (values < value), 0), jnp.sum(same | (values == value), 0)
