r"""A kernel in the coordinates of a Gaussian that is near the posterior.

With a proposal of mean m and covariance ``L L^T`` the kernel moves u, ``z = m + L u``, whose density is pi(m + L u) up
to a constant. If the proposal fits, u is nearly standard normal, which every kernel likes, also one without a metric;
what a kernel's own adaptation learns comes on top. The proposal may be a Laplace approximation, a normal guide, or
anything that can be sampled, of which mean and covariance are then estimated once.

References: Tierney, "Markov chains for exploring posterior distributions" (1994), on normal approximations; Parno and
Marzouk, "Transport map accelerated Markov chain Monte Carlo" (2018).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import composite
from .composite import Info, State
from .proposals import GaussianProposal

Array = Any

_DRAWS = 20
"""Draws per dimension, and at least 1000, from which mean and covariance of a proposal are estimated."""


@dataclass(frozen=True)
class Preconditioned:
    """A kernel that works in the coordinates of a proposal.

    Attributes:
        proposal: A ``core.Proposal`` over the same coordinates: ``laplace(program)``, ``GaussianProposal``, a guide.
        kernel: The kernel.

    Raises:
        ValueError: From warm-up, a proposal of another dimension, or codes of finite variables.

    Example:
        >>> from ppl.inference.core import as_density
        >>> from ppl.inference.mcmc import HMC
        >>> from ppl.inference.mcmc.proposals import GaussianProposal
        >>> density = as_density(lambda z: -0.5 * ((z[0] / 1000.0) ** 2 + z[1] ** 2), 2)
        >>> kernel = Preconditioned(GaussianProposal(np.zeros(2), np.diag([1000.0, 1.0])), HMC(0.3, steps=5))
        >>> state, info = kernel.step(jax.random.key(0), kernel.init(jnp.zeros(2), density), density)
        >>> bool(info.acceptance_rate > 0.9), bool(abs(state.position[0]) > 100)
        (True, True)
    """

    proposal: Any
    kernel: Any

    @property
    def kernels(self) -> tuple[Any, ...]:
        """The kernel, as a composite's only part."""
        return (self.kernel,)

    @property
    def gradient(self) -> bool:
        """Whether the kernel follows the gradient."""
        return bool(getattr(self.kernel, "gradient", False))

    def with_part(self, i: int, kernel: Any) -> Preconditioned:
        """The same with another kernel."""
        return replace(self, kernel=kernel)

    def adapters(self) -> tuple[Any, ...]:
        """The standard adapters of the kernel."""
        return composite.adapters(self)

    def covers(self, density: Any, dim: int) -> np.ndarray:
        """Which coordinates it can move: all."""
        return np.ones(dim, bool)

    def expand(self, dim: int, density: Any = None) -> Preconditioned:
        """Find mean and factor of the proposal, and give the kernel's tuning its full shape."""
        if tuple(getattr(density, "finite", None) or ()):
            raise ValueError(
                "Preconditioned moves real coordinates; give codes of finite variables a block of their own"
            )
        mean, factor = frame(self.proposal)
        if np.shape(mean) != (dim,) or np.shape(factor) != (dim, dim):
            raise ValueError(f"the proposal has {len(mean)} coordinates, and the kernel is given {dim}")
        kernel = composite.expanded(self.kernel, dim, density)
        return replace(self, proposal=GaussianProposal(np.asarray(mean), np.asarray(factor)), kernel=kernel)

    def init(self, position: Array, density: Any) -> State:
        """Make the state at a position."""
        mean, factor = frame(self.proposal)
        target = Whitened(density, jnp.asarray(mean, position.dtype), jnp.asarray(factor, position.dtype))
        inner = self.kernel.init(target.white(position), target)
        return State(position, density(position), (inner,))

    def move(self, key: Array, state: State, density: Any) -> tuple[State, Info]:
        """Take a step from a position to which others may have moved."""
        mean, factor = frame(self.proposal)
        dtype = state.position.dtype
        target = Whitened(density, jnp.asarray(mean, dtype), jnp.asarray(factor, dtype))
        inner, info, _ = composite.turn(self.kernel, key, state.parts[0], target.white(state.position), target, ())
        new = replace(state, position=target.place(inner.position), parts=(inner,))
        return new, composite.summary((info,), jnp.ones(1, bool), ("",), dtype)

    def step(self, key: Array, state: State, density: Any) -> tuple[State, Info]:
        """Take a step."""
        new, info = self.move(key, state, density)
        return replace(new, log_density=density(new.position)), info


jax.tree_util.register_dataclass(Preconditioned, ["proposal", "kernel"], [])


@partial(jax.tree_util.register_dataclass, data_fields=["density", "mean", "factor"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Whitened:
    """A log density in the coordinates u of ``z = mean + factor u``, up to a constant."""

    density: Any
    mean: Array
    factor: Array

    def __call__(self, u: Array) -> Array:
        """Log density at u."""
        return self.density(self.place(u))

    @property
    def dim(self) -> int:
        """Length of u."""
        return int(self.mean.shape[0])

    @property
    def differentiable(self) -> bool:
        """Whether it has a gradient."""
        return bool(getattr(self.density, "differentiable", True))

    def place(self, u: Array) -> Array:
        """The position z of u."""
        return self.mean + self.factor @ u

    def white(self, position: Array) -> Array:
        """The u of a position z."""
        return jax.scipy.linalg.solve_triangular(self.factor, position - self.mean, lower=True)


def frame(proposal: Any) -> tuple[Array, Array]:
    """Mean and lower Cholesky factor of the covariance of a proposal, its own or estimated from its draws.

    Example:
        >>> mean, factor = frame(GaussianProposal(np.ones(2), np.eye(2)))
        >>> mean.tolist()
        [1.0, 1.0]
    """
    for location, scale in (("mean", "factor"), ("position", "cholesky")):
        if hasattr(proposal, location) and getattr(getattr(proposal, scale, None), "ndim", 0) == 2:
            return getattr(proposal, location), getattr(proposal, scale)
    if not callable(getattr(proposal, "sample", None)):
        raise TypeError(f"Preconditioned needs a proposal with sample(key); {type(proposal).__name__} has none")
    dim = jax.eval_shape(proposal.sample, jax.random.key(0)).shape[0]
    draws = jax.jit(jax.vmap(proposal.sample))(jax.random.split(jax.random.key(0), max(1000, _DRAWS * dim)))
    draws = np.asarray(draws, float)
    return draws.mean(0), np.linalg.cholesky(np.atleast_2d(np.cov(draws.T)))
