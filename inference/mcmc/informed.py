r"""Locally informed proposals on finite coordinates: flips that look at what they lead to.

A flip changes one code of x. Let t = pi(y) / pi(x) for each neighbour y that one flip reaches, and g a balancing
function, g(t) = t g(1/t): ``sqrt``, g = sqrt(t); ``barker``, g = t / (1 + t); ``min``, g = min(1, t). The flip to y is
proposed with probability g(pi(y) / pi(x)) / Z(x), where Z(x) sums g over all neighbours of x, and accepted with
probability

    min(1, pi(y) g(pi(x) / pi(y)) Z(x) / (pi(x) g(pi(y) / pi(x)) Z(y))).

The neighbours of y are scored too, for Z(y): the correction is exact, in any number of states. Scoring all neighbours
costs K evaluations for each group of codes (``discrete``).

Reference: Zanella, "Informed proposals for local MCMC in discrete spaces" (2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from . import discrete
from .gibbs import Info, State

Array = Any


def balanced(log_t: Array, balancing: str) -> Array:
    """Logarithm of a balancing function at t, from log t.

    Example:
        >>> round(float(balanced(jnp.log(4.0), "sqrt")), 4), round(float(jnp.exp(balanced(0.0, "barker"))), 4)
        (0.6931, 0.5)
    """
    if balancing == "sqrt":
        return 0.5 * log_t
    if balancing == "barker":
        return -jax.nn.softplus(-log_t)
    return jnp.minimum(log_t, 0.0)


@dataclass(frozen=True)
class LocallyInformed:
    """Flips one code at a time, each flip drawn among all that are possible; the real entries stay.

    Attributes:
        balancing: ``"sqrt"``, ``"barker"`` or ``"min"``.
        flips: Flips in one step.

    Raises:
        ValueError: An unknown balancing function, or no flips; at the first step, a density without finite coordinates.

    Example:
        >>> from ppl.inference.core import as_density
        >>> density = as_density(lambda z: -jnp.sum((z - 2.0) ** 2), dim=6, finite=(5,) * 6)
        >>> kernel = LocallyInformed(flips=20)
        >>> state, info = kernel.step(jax.random.key(1), kernel.init(jnp.zeros(6), density), density)
        >>> bool(state.log_density > -8.0)
        True
    """

    finite: ClassVar[bool] = True  # see ``core.Kernel``
    covers = staticmethod(discrete.covers)

    balancing: str = "barker"
    flips: int = 1

    def __post_init__(self) -> None:
        """Check the options."""
        if self.balancing not in ("sqrt", "barker", "min"):
            raise ValueError(f"LocallyInformed(balancing={self.balancing!r}): it is 'sqrt', 'barker' or 'min'")
        if self.flips < 1:
            raise ValueError(f"LocallyInformed(flips={self.flips!r}): at least one flip")

    def init(self, position: Array, density: Any) -> State:
        """Make the state at a position."""
        discrete.checked(density, "LocallyInformed")
        return State(position, density(position))

    def step(self, key: Array, state: State, density: Any) -> tuple[State, Info]:
        """Propose and accept or reject some flips."""
        counts = discrete.checked(density, "LocallyInformed")
        real, codes = discrete.split(state.position, len(counts))

        def flip(i: Array, carry: Any) -> Any:
            codes, gains, accepted = carry
            first, second = jax.random.uniform(jax.random.fold_in(key, i), (2,), codes.dtype)
            proposal, forward, gain, possible = self.propose(first, codes, gains)
            onward = neighbours(density, real, proposal)
            correction = self.backward(onward, codes, proposal) - forward
            ratio = jnp.where(possible, log_ratio(gain, correction), -jnp.inf)
            rate = jnp.where(jnp.isnan(ratio), 0.0, jnp.exp(jnp.minimum(ratio, 0.0)))
            accept = second < rate
            new = jax.tree.map(lambda a, b: jnp.where(accept, a, b), (proposal, onward), (codes, gains))
            return (*new, accepted + rate)

        start = (codes, neighbours(density, real, codes), jnp.zeros((), codes.dtype))
        moved, _, accepted = jax.lax.fori_loop(np.int32(0), np.int32(self.flips), flip, start)
        position = jnp.concatenate([real, moved])
        info = Info(accepted / self.flips, jnp.mean((moved != codes).astype(position.dtype)))
        return State(position, density(position)), info

    def propose(self, uniform: Array, codes: Array, gains: Array) -> tuple[Array, Array, Array, Array]:
        """A flip, its log probability, its log ratio of densities, and whether there is one at all."""
        logs = balanced(gains, self.balancing)
        chances, usable = discrete.weights(logs.reshape(-1, 1))
        chosen = discrete.choose(chances, uniform)[0]
        state, place = chosen // codes.shape[0], chosen % codes.shape[0]
        proposal = jnp.where(jnp.arange(codes.shape[0], dtype=jnp.int32) == place, state.astype(codes.dtype), codes)
        own = jnp.arange(logs.size, dtype=jnp.int32) == chosen
        value = lambda table: jnp.sum(jnp.where(own, table.ravel(), 0.0))  # noqa: E731
        return proposal, value(logs) - jax.nn.logsumexp(logs), value(gains), usable[0]

    def backward(self, gains: Array, codes: Array, proposal: Array) -> Array:
        """Log probability of the flip back, at the neighbours' log ratios of the proposal."""
        logs = balanced(gains, self.balancing)
        rows = jnp.arange(logs.shape[0], dtype=jnp.int32)[:, None] == codes.astype(jnp.int32)
        back = jnp.sum(jnp.where(rows & (codes != proposal), logs, 0.0))
        return back - jax.nn.logsumexp(logs)


jax.tree_util.register_dataclass(LocallyInformed, [], ["balancing", "flips"])


def neighbours(density: Any, real: Array, codes: Array) -> Array:
    """Log ratios pi(y) / pi(x) of all y that one flip reaches, shape (K, m); -inf for x itself and what is no state."""
    logs = discrete.tables(density, jnp.concatenate([real, codes]))
    own = jnp.arange(logs.shape[0], dtype=jnp.int32)[:, None] == codes.astype(jnp.int32)
    return jnp.where(own, -jnp.inf, logs - discrete.pick(logs, codes))


def log_ratio(gain: Array, correction: Array) -> Array:
    """Log Metropolis-Hastings ratio: of the densities, and of the proposals back and forth."""
    return gain + correction
