r"""Metropolis with an estimate of the density in place of the density: exact all the same.

Let ``exp(L(k, z))`` with k ~ p be an unbiased estimate of pi(z) (up to a constant), as a particle filter's likelihood
is. On pairs (z, k) the density ``exp(L(k, z)) p(k)`` has pi as its marginal for z. A kernel that proposes z' by
q(z, z') and, with it, a fresh k' ~ p, and accepts both with probability

    min(1, exp(L(k', z') - L(k, z)) q(z', z) / q(z, z')),

leaves that density invariant. The estimate of the present point belongs to the state: it is kept, with its key, until
a proposal is accepted. Estimated anew it would be another kernel, with another, wrong limit. Other kernels of a cycle
move z with k held (``composite.Held``): the same joint density, evaluated, for their purposes, without noise.

A kernel that evaluates the density at several points in a step (HMC, slice) cannot change the key on the way. It then
moves z with k held, after which k' ~ p is proposed at the new z and accepted with probability
``min(1, exp(L(k', z) - L(k, z)))``.

References: Beaumont, "Estimation of population growth or decline in genetically monitored populations" (2003); Andrieu
and Roberts, "The pseudo-marginal approach for efficient Monte Carlo computations" (2009); Andrieu, Doucet and
Holenstein, "Particle Markov chain Monte Carlo methods" (2010).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from . import composite, metropolis
from .composite import Held, Info, State

Array = Any


@dataclass(frozen=True)
class PseudoMarginal:
    """A kernel on an unbiased estimate of the density.

    Attributes:
        kernel: The kernel for the position, such as ``RandomWalk()``. One that says ``proposes = True`` evaluates the
            density only at its proposal, and then the key is proposed with the position; else the two take turns.

    Raises:
        TypeError: From ``init``, if the target is no ``StochasticDensity`` whose exponential is unbiased.

    Example:
        >>> from ppl.inference.core import as_stochastic
        >>> from ppl.inference.mcmc import RandomWalk
        >>> noisy = as_stochastic(lambda key, z: -0.5 * z @ z + 0.3 * jax.random.normal(key) - 0.045, dim=2)
        >>> kernel = PseudoMarginal(RandomWalk(0.5))
        >>> state = kernel.init(jnp.zeros(2), noisy)
        >>> new, info = kernel.step(jax.random.key(1), state, noisy)
        >>> bool(jnp.any(new.noise != state.noise)) == bool(jnp.any(new.position != 0))
        True
    """

    stochastic: ClassVar[bool] = True

    kernel: Any

    @property
    def kernels(self) -> tuple[Any, ...]:
        """The kernel for the position, as a composite's only part."""
        return (self.kernel,)

    @property
    def gradient(self) -> bool:
        """Whether the kernel follows the gradient of the estimate."""
        return bool(getattr(self.kernel, "gradient", False))

    def with_part(self, i: int, kernel: Any) -> PseudoMarginal:
        """The same with another kernel for the position."""
        return replace(self, kernel=kernel)

    def adapters(self) -> tuple[Any, ...]:
        """The standard adapters of the kernel for the position."""
        return composite.adapters(self)

    def covers(self, density: Any, dim: int) -> np.ndarray:
        """Which coordinates it can move."""
        return composite.covered(self.kernel, density, dim)

    def expand(self, dim: int, density: Any = None) -> PseudoMarginal:
        """Give the tuning of the kernel its full shape."""
        return replace(self, kernel=composite.expanded(self.kernel, dim, density))

    def init(self, position: Array, density: Any) -> State:
        """Make the state at a position, with a first estimate."""
        checked(density)
        noise = composite.first_noise(position)
        inner = self.kernel.init(position, Held(density, noise))
        return State(position, inner.log_density, (inner,), noise)

    def resume(self, state: State, position: Array, density: Any, noise: Any) -> State:
        """The state at a position to which others moved, with the same key."""
        inner = composite.resumed(self.kernel, state.parts[0], position, Held(density, noise))
        return State(position, inner.log_density, (inner,), noise)

    def step(self, key: Array, state: State, density: Any) -> tuple[State, Info]:
        """Propose a position and a key."""
        inner, fresh = state.parts[0], jax.random.key_data(jax.random.fold_in(key, 1))
        own = jax.random.fold_in(key, 0)
        if getattr(self.kernel, "proposes", False):
            new, info = self.kernel.step(own, inner, Held(density, fresh))
            taken = differs(new, inner)
        else:
            inner, info = self.kernel.step(own, inner, Held(density, state.noise))
            other = composite.resumed(self.kernel, inner, inner.position, Held(density, fresh))
            uniform = metropolis.one_uniform(jax.random.fold_in(key, 2), inner.position.dtype)
            new, _ = metropolis.decide(uniform, other.log_density - inner.log_density, other, inner)
            taken = differs(new, inner)
        noise = jnp.where(taken, fresh, state.noise)
        report = composite.summary((info,), jnp.ones(1, bool), ("",), new.position.dtype)
        return State(new.position, new.log_density, (new,), noise), report

    move = step


jax.tree_util.register_dataclass(PseudoMarginal, ["kernel"], [])


def differs(new: Any, old: Any) -> Array:
    """Whether a proposal was accepted: its position or its estimate is another one."""
    return jnp.any(new.position != old.position) | (new.log_density != old.log_density)


def checked(density: Any) -> None:
    """Refuse what is not an unbiased estimate of a density.

    Raises:
        TypeError: Saying what it is.
    """
    kind = getattr(density, "unbiased", None)
    if kind == "density":
        return
    if kind is None:
        raise TypeError(
            "PseudoMarginal needs an estimate of the density, a function of a key and a position, and "
            f"{type(density).__name__} is none. Wrap one by core.as_stochastic(f, dim); for a log density without "
            "noise take the kernel inside."
        )
    raise TypeError(
        f"PseudoMarginal needs an estimate whose exponential is unbiased; {type(density).__name__} is an unbiased "
        f"estimate of the {kind}, whose exponential is not. Subsampled plates are for stochastic-gradient kernels."
    )
