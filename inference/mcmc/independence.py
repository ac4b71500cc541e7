r"""Independence Metropolis: proposals that do not depend on where the chain is.

A proposal z' ~ q is accepted with probability ``min(1, w(z') / w(z))``, ``w = pi / q``: q enters twice, once as where
proposals come from and once in the weights. If w is bounded by M (times the normalising constant), the chain
forgets its state at rate at least 1/M per step; where q has lighter tails than pi it is not, and the chain can stick
there, so take a proposal that is too wide rather than too narrow.

References: Hastings (1970); Tierney, "Markov chains for exploring posterior distributions" (1994); Mengersen and
Tweedie, "Rates of convergence of the Hastings and Metropolis algorithms" (1996).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from . import metropolis
from .metropolis import MoveInfo

Array = Any


@dataclass(frozen=True)
class WeighedPoint:
    """A position with its log density and the proposal's."""

    position: Array
    log_density: Array
    log_proposal: Array


jax.tree_util.register_dataclass(WeighedPoint, list(WeighedPoint.__dataclass_fields__), [])


@dataclass(frozen=True)
class Independence:
    """Independence Metropolis.

    Attributes:
        proposal: A ``core.Proposal``, a pytree with ``sample(key)`` and ``log_prob(position)`` over flat unconstrained
            positions: a Laplace approximation, a flow, ``StudentT``.

    Example:
        >>> import numpy as np
        >>> from ppl.inference.core import as_density
        >>> from ppl.inference.mcmc import StudentT
        >>> density, kernel = as_density(lambda z: -0.5 * z @ z), Independence(StudentT(np.zeros(2), np.eye(2)))
        >>> state, info = kernel.step(jax.random.key(0), kernel.init(np.zeros(2), density), density)
        >>> bool(0.0 < info.acceptance_rate <= 1.0)
        True
    """

    gradient: ClassVar[bool] = False
    proposes: ClassVar[bool] = True  # see ``PseudoMarginal``

    proposal: Any

    def init(self, position: Array, density: Any) -> WeighedPoint:
        """Make the state at a position.

        Raises:
            TypeError: If the proposal has no ``sample`` or no ``log_prob``.
        """
        missing = [name for name in ("sample", "log_prob") if not callable(getattr(self.proposal, name, None))]
        if missing:
            raise TypeError(
                "Independence needs a proposal with sample(key) and log_prob(position); "
                f"{type(self.proposal).__name__} has no {' and no '.join(missing)}"
            )
        return WeighedPoint(position, density(position), self.proposal.log_prob(position))

    def step(self, key: Array, state: WeighedPoint, density: Any) -> tuple[WeighedPoint, MoveInfo]:
        """Propose, and accept or reject."""
        position = self.proposal.sample(jax.random.fold_in(key, 1)).astype(state.position.dtype)
        moved = self.init(position, density)
        uniform = metropolis.one_uniform(key, state.position.dtype)
        return metropolis.decide(uniform, log_weight(moved) - log_weight(state), moved, state)


jax.tree_util.register_dataclass(Independence, ["proposal"], [])


def log_weight(state: WeighedPoint) -> Array:
    """Logarithm of pi / q."""
    return state.log_density - state.log_proposal
