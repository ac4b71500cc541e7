r"""One of several kernels at random: ``sum_i w_i K_i``.

The choice does not depend on the state, so the mixture leaves the density invariant, and is reversible if its parts
are. A random scan over blocks, or a local kernel with an occasional bold one, are mixtures.

Reference: Tierney, "Markov chains for exploring posterior distributions" (1994).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import composite, euclidean
from .composite import Info, State

Array = Any


@dataclass(frozen=True)
class Mixture:
    """One part per step, drawn with given weights.

    Attributes:
        kernels: The parts: ``Block``s, or kernels for all coordinates.
        weights: Their probabilities up to a constant, shape (parts,); equal by default.

    Raises:
        ValueError: Weights that are negative, all zero, or not as many as parts.

    Example:
        >>> from ppl.inference.core import as_density
        >>> from ppl.inference.mcmc import HMC
        >>> kernel = Mixture((HMC(0.1, steps=3), HMC(1.0, steps=3)), weights=(0.9, 0.1))
        >>> density = as_density(lambda z: -0.5 * z @ z, 2)
        >>> state, info = kernel.step(jax.random.key(0), kernel.init(jnp.zeros(2), density), density)
        >>> int(info.used.sum())
        1
    """

    kernels: tuple[Any, ...]
    weights: Any = None

    def __post_init__(self) -> None:
        """Check the weights where they are numbers."""
        if isinstance(self.kernels, list):
            object.__setattr__(self, "kernels", tuple(self.kernels))
        if not isinstance(self.kernels, tuple):
            return  # JAX rebuilds pytrees with other things in place of the leaves
        if self.weights is None:
            object.__setattr__(self, "weights", np.full(len(self.kernels), 1.0 / len(self.kernels)))
        elif isinstance(self.weights, tuple | list):
            given = np.asarray(self.weights, float)
            if given.shape != (len(self.kernels),) or not (given >= 0).all() or given.sum() <= 0:
                raise ValueError(
                    f"Mixture has {len(self.kernels)} kernels and weights {list(self.weights)}: give one weight >= 0 "
                    "for each kernel, not all zero"
                )
            object.__setattr__(self, "weights", given / given.sum())

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

    def with_part(self, i: int, kernel: Any) -> Mixture:
        """The mixture with another kernel in one place."""
        return replace(self, kernels=(*self.kernels[:i], kernel, *self.kernels[i + 1 :]))

    def adapters(self) -> tuple[Any, ...]:
        """The standard adapters of the parts."""
        return composite.adapters(self)

    def covers(self, density: Any, dim: int) -> np.ndarray:
        """Which coordinates it can move."""
        likely = np.asarray(self.weights) > 0
        rows = [composite.covered(k, density, dim) & on for k, on in zip(self.kernels, likely, strict=True)]
        return np.any(rows, axis=0)

    def expand(self, dim: int, density: Any = None) -> Mixture:
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
        """Give one part its turn; the log density of the state stays behind."""
        dtype = state.position.dtype
        edges = jnp.cumsum(jnp.asarray(self.weights, dtype))
        draw = euclidean.uniform(euclidean.words(key, 0)[0], dtype) * edges[-1]
        which = jnp.minimum(jnp.sum(draw > edges), len(self.kernels) - 1)

        def turn(i: int, state: State) -> Any:
            return composite.turn(
                self.kernels[i], jax.random.fold_in(key, 1 + i), state.parts[i], state.position, density, state.noise
            )

        shapes = [jax.eval_shape(lambda s, i=i: turn(i, s)[1], state) for i in range(len(self.kernels))]
        blank = [jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shape) for shape in shapes]

        def arm(i: int, state: State) -> tuple[State, tuple[Any, ...]]:
            part, info, noise = turn(i, state)
            parts = _placed(state.parts, i, _like(state.parts[i], part))
            new = replace(state, position=part.position, parts=parts, noise=noise)
            return new, _placed(tuple(blank), i, info)

        arms = [lambda s, i=i: arm(i, s) for i in range(len(self.kernels))]
        new, infos = jax.lax.switch(which, arms, state)
        used = jnp.arange(len(self.kernels)) == which
        return new, composite.summary(infos, used, composite.titles(self.kernels), dtype)

    def step(self, key: Array, state: State, density: Any) -> tuple[State, Info]:
        """Give one part its turn, then evaluate the density once."""
        new, info = self.move(key, state, density)
        return replace(new, log_density=composite.value(density, new.position, new.noise)), info


jax.tree_util.register_dataclass(Mixture, ["kernels", "weights"], [])


def _placed(entries: tuple[Any, ...], i: int, entry: Any) -> tuple[Any, ...]:
    return (*entries[:i], entry, *entries[i + 1 :])


def _like(old: Any, new: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.asarray(b).astype(jnp.asarray(a).dtype), old, new)
