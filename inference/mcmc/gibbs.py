r"""Gibbs sampling of finite coordinates: each is drawn from its exact full conditional.

``systematic`` scan goes through the groups of codes (``discrete``) in their order; it leaves the density invariant and
is not reversible. ``random`` scan draws as many groups with replacement, and is reversible. With ``metropolised`` a
code never stays by chance: from state i it proposes j != i with probability p_j / (1 - p_i), accepted with probability
min(1, (1 - p_i) / (1 - p_j)). Its off-diagonal transition probabilities are at least those of Gibbs sampling, so under
random scan no average has a greater asymptotic variance (Peskun's order).

References: Geman and Geman, "Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images"
(1984); Liu, "Metropolized Gibbs sampler: an improvement" (1996); Peskun, "Optimum Monte-Carlo sampling using Markov
chains" (1973).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from . import discrete

Array = Any


@dataclass(frozen=True)
class State:
    """A position and its log density."""

    position: Array
    log_density: Array


@dataclass(frozen=True)
class Info:
    """What a transition reports.

    Attributes:
        acceptance_rate: Mean acceptance probability of the codes' proposals; one for exact draws.
        moved: Share of the codes that changed.
    """

    acceptance_rate: Array
    moved: Array


jax.tree_util.register_dataclass(State, ["position", "log_density"], [])
jax.tree_util.register_dataclass(Info, ["acceptance_rate", "moved"], [])


@dataclass(frozen=True)
class Gibbs:
    """Draws every code from its conditional given all else; the real entries stay.

    A code with K states costs K evaluations of the density; a site in the elements of a plate costs K for all of them,
    where the density comes from a program.

    Attributes:
        scan: ``"systematic"``, each group of codes in turn, or ``"random"``.
        metropolised: Never propose the current state.

    Raises:
        ValueError: An unknown scan; at the first step, a density without finite coordinates.

    Example:
        >>> from ppl.inference.core import as_density
        >>> logits = jnp.log(jnp.array([0.2, 0.5, 0.3]))
        >>> density = as_density(lambda z: logits[z[0].astype(int)], dim=1, finite=(3,))
        >>> kernel, state = Gibbs(), Gibbs().init(jnp.zeros(1), density)
        >>> keys = jax.random.split(jax.random.key(0), 2000)
        >>> draws = jax.vmap(lambda key: kernel.step(key, state, density)[0].position[0])(keys)
        >>> bool(jnp.abs(jnp.mean(draws == 1) - 0.5) < 0.05)
        True
    """

    finite: ClassVar[bool] = True  # see ``core.Kernel``
    covers = staticmethod(discrete.covers)

    scan: str = "systematic"
    metropolised: bool = False

    def __post_init__(self) -> None:
        """Check the scan."""
        discrete.scan_checked("Gibbs", self.scan)

    def init(self, position: Array, density: Any) -> State:
        """Make the state at a position."""
        discrete.checked(density, "Gibbs")
        return State(position, density(position))

    def step(self, key: Array, state: State, density: Any) -> tuple[State, Info]:
        """Move every group of codes once."""
        counts = discrete.checked(density, "Gibbs")
        real, codes = discrete.split(state.position, len(counts))

        def move(key: Array, codes: Array, group: Array) -> tuple[Array, Array]:
            logs = discrete.table(density, jnp.concatenate([real, codes]), group)
            return self.draw(key, logs, codes, discrete.members(density, group))

        moved, accepted = discrete.pass_over(density, key, codes, self.scan, move)
        position = jnp.concatenate([real, moved])
        info = Info(accepted / len(counts), jnp.mean((moved != codes).astype(position.dtype)))
        return State(position, density(position)), info

    def draw(self, key: Array, logs: Array, codes: Array, inside: Array) -> tuple[Array, Array]:
        """New codes from log conditionals (K, m), and the sum of the acceptance probabilities of those inside."""
        chances, usable = discrete.weights(logs)
        on = inside & usable
        first, second = jax.random.uniform(key, (2, *codes.shape), codes.dtype)
        if not self.metropolised:
            new = discrete.choose(chances, first).astype(codes.dtype)
            return jnp.where(on, new, codes), jnp.sum(inside.astype(codes.dtype))
        rows = jnp.arange(logs.shape[0], dtype=codes.dtype)[:, None]
        others = jnp.where(rows == codes, 0.0, chances)
        new = discrete.choose(others, first).astype(codes.dtype)
        here = jnp.sum(others, axis=0)
        there = jnp.sum(jnp.where(rows == new, 0.0, chances), axis=0)
        rate = accept_rate(here, there)
        accept = on & (second < rate)
        return jnp.where(accept, new, codes), jnp.sum(jnp.where(on, rate, 0.0))


jax.tree_util.register_dataclass(Gibbs, [], ["scan", "metropolised"])


def accept_rate(here: Array, there: Array) -> Array:
    """Acceptance probability of Liu's proposal, from the masses of the other states at both ends."""
    positive = here > 0
    ratio = here / jnp.where(there > 0, there, 1.0)
    return jnp.where(positive, jnp.where(there > 0, jnp.minimum(ratio, 1.0), 1.0), 0.0)


