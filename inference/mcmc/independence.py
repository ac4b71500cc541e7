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
import jax.numpy as jnp
import numpy as np

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
        >>> from ppl.inference.core import as_density
        >>> density, kernel = as_density(lambda z: -0.5 * jnp.sum(z**2)), Independence(StudentT(np.zeros(2), np.eye(2)))
        >>> state, info = kernel.step(jax.random.key(0), kernel.init(jnp.zeros(2), density), density)
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


@dataclass(frozen=True)
class StudentT:
    """A multivariate Student t as a proposal, with tails heavier than those of most posteriors.

    Attributes:
        mean: Centre, shape (d,).
        factor: Lower factor of the scale matrix (d, d).
        df: Degrees of freedom.

    Example:
        >>> from scipy.stats import multivariate_t
        >>> value = StudentT(np.ones(2), 2.0 * np.eye(2), 4.0).log_prob(np.zeros(2))
        >>> bool(abs(value - multivariate_t(np.ones(2), 4.0 * np.eye(2), 4.0).logpdf(np.zeros(2))) < 1e-6)
        True
    """

    mean: Array
    factor: Array
    df: Array = 5.0

    @staticmethod
    def of(proposal: Any, df: float = 5.0, scale: float = 1.2) -> StudentT:
        """Heavier tails for a Gaussian with ``position`` and ``cholesky``, such as a Laplace approximation."""
        return StudentT(proposal.position, scale * proposal.cholesky, df)

    def sample(self, key: Array) -> Array:
        """Draw one position."""
        first, second = jax.random.split(key)
        noise = jax.random.normal(first, jnp.shape(self.mean), jnp.result_type(self.mean))
        chi = 2.0 * jax.random.gamma(second, jnp.asarray(0.5 * self.df, noise.dtype))
        return self.mean + self.factor @ noise * jnp.sqrt(self.df / chi)

    def log_prob(self, position: Array) -> Array:
        """Log density of one position."""
        dim = len(self.mean)
        white = jax.scipy.linalg.solve_triangular(self.factor, position - self.mean, lower=True)
        half = 0.5 * (self.df + dim)
        constant = jax.lax.lgamma(half) - jax.lax.lgamma(0.5 * self.df) - 0.5 * dim * jnp.log(np.pi * self.df)
        scale = jnp.sum(jnp.log(jnp.abs(jnp.diagonal(self.factor))))
        return constant - scale - half * jnp.log1p(white @ white / self.df)


jax.tree_util.register_dataclass(StudentT, ["mean", "factor", "df"], [])
