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
        """Heavier tails for a Gaussian, a Laplace approximation or a ``GaussianProposal``."""
        if isinstance(proposal, GaussianProposal):
            return StudentT(proposal.mean, scale * proposal.factor, df)
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
