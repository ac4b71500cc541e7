r"""Kernels one after the other: ``K_1 K_2 ... K_m``.

Each part leaves the density invariant, so the cycle does. It is not reversible unless the order of its parts is a
palindrome. Gibbs sampling is a cycle of blocks.

References: Geman and Geman, "Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images"
(1984); Tierney, "Markov chains for exploring posterior distributions" (1994).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import composite
from .composite import Info, State

Array = Any


@dataclass(frozen=True, init=False)
class Cycle:
    """All parts in turn, in the order given, each once per step.

    Attributes:
        kernels: The parts: ``Block``s, or kernels for all coordinates.

    Example:
        >>> from ppl.inference.core import as_density
        >>> from ppl.inference.mcmc import HMC, Block
        >>> kernel = Cycle(Block(slice(0, 2), HMC(0.5, steps=3)), Block([2], HMC(0.1, steps=3)))
        >>> density = as_density(lambda z: -0.5 * z @ z, 3)
        >>> state, info = kernel.step(jax.random.key(0), kernel.init(jnp.zeros(3), density), density)
        >>> info.titles, bool(jnp.all(state.position != 0))
        (('0..2', '2'), True)
    """

    kernels: tuple[Any, ...]

    def __init__(self, *parts: Any, kernels: tuple[Any, ...] = ()):
        """Take the parts one by one."""
        object.__setattr__(self, "kernels", (*parts, *kernels))

    @property
    def gradient(self) -> bool:
        """Whether a part follows the gradient of the whole density."""
        return any(getattr(kernel, "gradient", False) for kernel in self.kernels)

    @property
    def stochastic(self) -> bool:
        """Whether a part works with an estimate of the density."""
        return any(composite.is_stochastic(kernel) for kernel in self.kernels)

    @property
    def title(self) -> str:
        """Name in statistics."""
        return "(" + ",".join(composite.titles(self.kernels)) + ")"

    def with_part(self, i: int, kernel: Any) -> Cycle:
        """The cycle with another kernel in one place."""
        return replace(self, kernels=(*self.kernels[:i], kernel, *self.kernels[i + 1 :]))

    def adapters(self) -> tuple[Any, ...]:
        """The standard adapters of the parts."""
        return composite.adapters(self)

    def covers(self, density: Any, dim: int) -> np.ndarray:
        """Which coordinates it can move."""
        return np.any([composite.covered(kernel, density, dim) for kernel in self.kernels], axis=0)

    def expand(self, dim: int, density: Any = None) -> Cycle:
        """Give the parts' tuning its full shape, and refuse parts that do not fit the density."""
        return replace(self, kernels=tuple(composite.expanded(kernel, dim, density) for kernel in self.kernels))

    def init(self, position: Array, density: Any) -> State:
        """Make the state at a position."""
        noise = composite.first_noise(position) if self.stochastic else ()
        held = composite.Held(density, noise) if self.stochastic else density
        parts = tuple(
            composite.start(kernel, position, density if composite.is_stochastic(kernel) else held)
            for kernel in self.kernels
        )
        return State(position, composite.value(density, position, noise), parts, noise)

    def resume(self, state: State, position: Array, density: Any, noise: Any) -> State:
        """The state at another position, with the key of the current estimate."""
        return replace(state, position=position, noise=noise)

    def move(self, key: Array, state: State, density: Any) -> tuple[State, Info]:
        """Give every part its turn; the log density of the state stays behind."""
        position, noise, states, infos = state.position, state.noise, [], []
        for i, (kernel, memory) in enumerate(zip(self.kernels, state.parts, strict=True)):
            part, info, noise = composite.turn(kernel, jax.random.fold_in(key, i), memory, position, density, noise)
            position = part.position
            states.append(part)
            infos.append(info)
        used, names = jnp.ones(len(infos), bool), composite.titles(self.kernels)
        info = composite.summary(tuple(infos), used, names, position.dtype)
        return replace(state, position=position, parts=tuple(states), noise=noise), info

    def step(self, key: Array, state: State, density: Any) -> tuple[State, Info]:
        """Give every part its turn, then evaluate the density once."""
        new, info = self.move(key, state, density)
        return replace(new, log_density=composite.value(density, new.position, new.noise)), info


jax.tree_util.register_dataclass(Cycle, ["kernels"], [])
