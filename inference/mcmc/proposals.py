r"""Proposals over flat positions: distributions that can be sampled and scored (``core.Proposal``).

References: any text; the heavy tails of Student's t make importance weights and independence samplers bounded where a
Gaussian's would not be (Geweke, "Bayesian inference in econometric models using Monte Carlo integration", 1989).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any


@dataclass(frozen=True)
class GaussianProposal:
    """A multivariate normal distribution N(mean, factor factor^T).

    Attributes:
        mean: Shape (d,).
        factor: Lower triangular, shape (d, d).

    Example:
        >>> round(float(GaussianProposal(np.zeros(2), 2.0 * np.eye(2)).log_prob(np.zeros(2))), 4)
        -3.2242
    """

    mean: Array
    factor: Array

    def sample(self, key: Array) -> Array:
        """Draw one position."""
        mean = jnp.asarray(self.mean, jnp.result_type(float))
        return mean + jnp.asarray(self.factor, mean.dtype) @ jax.random.normal(key, mean.shape, mean.dtype)

    def log_prob(self, position: Array) -> Array:
        """Log density at a position."""
        position = jnp.asarray(position)
        factor = jnp.asarray(self.factor, position.dtype)
        white = jax.scipy.linalg.solve_triangular(factor, position - jnp.asarray(self.mean, position.dtype), lower=True)
        scale = jnp.sum(jnp.log(jnp.abs(jnp.diagonal(factor))))
        return -0.5 * jnp.sum(white**2) - scale - 0.5 * white.shape[0] * np.log(2.0 * np.pi)


jax.tree_util.register_dataclass(GaussianProposal, ["mean", "factor"], [])
