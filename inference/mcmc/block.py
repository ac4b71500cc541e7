r"""A kernel for some coordinates, given the others.

With z = (x, y) the inner kernel leaves the full conditional pi(x | y) invariant; moving x alone then leaves pi(x, y)
invariant. The conditional, and everything that the inner kernel keeps of it, is made anew from the current position at
every step. Turning a position into the other variables' scale is part of the density, so a variable whose support
depends on a moved one moves with it: its *unconstrained* value is what is held.

With ``each`` the block is a plate, whose elements are independent given the rest, pi(x | y) = prod_i pi_i(x_i | y).
Every element makes its own step, with its own acceptance and its own tuning, all in parallel; the density says what
one element's conditional is (``restrict(names, position, each=plate)``), so that a step costs what one evaluation of
the plate does.

Reference: Geman and Geman (1984); Besag and Green, "Spatial statistics and Bayesian computation" (1993).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import composite
from .composite import Info, State
from .coordinates import Conditional, indices, selection, title

Array = Any


@dataclass(frozen=True)
class Block:
    """Moves some coordinates by a kernel, the others held.

    Attributes:
        names: One name or several of the density's variables; or a slice or indices of the flat vector.
        kernel: The kernel for their full conditional.
        each: A plate whose elements move independently of each other, each with its own acceptance.
        elements: Number of elements for which the kernel's tuning has a leading axis; set by the warm-up.

    Raises:
        ValueError: From warm-up, or the first step: a name or an index that is not there.

    Example:
        >>> from ppl.inference.core import as_density
        >>> from ppl.inference.mcmc import HMC
        >>> kernel, density = Block([0, 2], HMC(0.5, steps=3)), as_density(lambda z: -0.5 * z @ z, 3)
        >>> state, info = kernel.step(jax.random.key(0), kernel.init(jnp.zeros(3), density), density)
        >>> (state.position != 0).tolist()
        [True, False, True]
    """

    names: Any
    kernel: Any
    each: str | None = None
    elements: int | None = None

    def __post_init__(self) -> None:
        """Bring the names to a form that can be hashed."""
        object.__setattr__(self, "names", selection(self.names))

    @property
    def kernels(self) -> tuple[Any, ...]:
        """The inner kernel, as a composite's only part."""
        return (self.kernel,)

    @property
    def gradient(self) -> bool:
        """Whether the inner kernel follows the gradient; a conditional given by name answers for itself."""
        return not self._named and getattr(self.kernel, "gradient", False)

    @property
    def stochastic(self) -> bool:
        """Whether the inner kernel works with an estimate of the density."""
        return composite.is_stochastic(self.kernel)

    @property
    def title(self) -> str:
        """Name in statistics."""
        return title(self.names)

    @property
    def _named(self) -> bool:
        return isinstance(self.names, tuple) and isinstance(self.names[0], str)

    def with_part(self, i: int, kernel: Any) -> Block:
        """The block with another inner kernel."""
        return replace(self, kernel=kernel)

    def adapters(self) -> tuple[Any, ...]:
        """The standard adapters of the parts."""
        return composite.adapters(self)

    def covers(self, density: Any, dim: int) -> np.ndarray:
        """Which coordinates it can move."""
        found = np.zeros(dim, bool)
        own = indices(self.names, density, dim)
        found[own] = True
        if composite.is_composite(self.kernel) and self.each is None:
            found[own] = composite.covered(self.kernel, Conditional(density, np.zeros(dim), tuple(own)), len(own))
        return found

    def expand(self, dim: int, density: Any = None) -> Block:
        """Give the inner kernel's tuning the shape of the block's coordinates, per element under ``each``."""
        target = self.conditional(density, np.zeros(dim, np.result_type(float)))
        if not composite.is_composite(self.kernel):
            composite.suits(self.kernel, target, f"Block({self.title!r}): ")
        inner = composite.expanded(self.kernel, int(target.dim), target)
        if self.each is None:
            return replace(self, kernel=inner)
        count = int(target.count)
        spread = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (count, *np.shape(x))).copy(), inner)
        return replace(self, kernel=spread, elements=count)

    def conditional(self, density: Any, position: Array) -> Any:
        """The density of the block's coordinates, the others held at a position; under ``each`` those of all elements.

        Raises:
            ValueError: A name or an index that is not there, or elements that are not independent.
        """
        if self.each is not None:
            if not self._named or not hasattr(density, "restrict"):
                raise ValueError(
                    f"Block({self.title!r}, each={self.each!r}) needs a density that knows its plates, and names: the "
                    "elements of a plain function are unknown. Give each of them a Block of indices."
                )
            if self.stochastic:
                raise ValueError(f"Block({self.title!r}, each={self.each!r}): one estimate cannot serve elements apart")
            return density.restrict(self.names, position, each=self.each)
        if self._named and hasattr(density, "restrict"):
            return density.restrict(self.names, position)
        return Conditional(density, position, tuple(indices(self.names, density, position.shape[0]).tolist()))

    def init(self, position: Array, density: Any) -> State:
        """Make the state at a position."""
        noise = composite.first_noise(position) if self.stochastic else ()
        target = self.conditional(density, position)
        if self.each is None:
            part = composite.start(self.kernel, target.start(), target)
        else:
            place = 0 if self.elements is not None else None
            over = jax.vmap(lambda i, k, x: composite.start(k, x, target.element(i)), in_axes=(0, place, 0))
            part = over(jnp.arange(target.count), self.kernel, target.start())
        return State(position, composite.value(density, position, noise), (part,), noise)

    def resume(self, state: State, position: Array, density: Any, noise: Any) -> State:
        """The state at another position, with the key of the current estimate."""
        return replace(state, position=position, noise=noise)

    def move(self, key: Array, state: State, density: Any) -> tuple[State, Info]:
        """Move the block; the log density of the state stays behind."""
        target, memory, noise = self.conditional(density, state.position), state.parts[0], state.noise
        if self.each is None:
            part, info, noise = composite.turn(self.kernel, key, memory, target.start(), target, noise)
        else:
            part, info = self._elements(key, memory, target)
        position = target.merge(part.position)
        new = replace(state, position=position, parts=(part,), noise=noise)
        return new, composite.summary((info,), jnp.ones(1, bool), ("",), position.dtype)

    def _elements(self, key: Array, memory: Any, target: Any) -> tuple[Any, Any]:
        """One step of every element."""

        def one(i: Array, kernel: Any, memory: Any, x: Array) -> tuple[Any, Any]:
            own = jax.random.fold_in(key, i)
            return composite.turn(kernel, own, memory, x, target.element(i), ())[:2]

        place = 0 if self.elements is not None else None
        over = jax.vmap(one, in_axes=(0, place, 0, 0))
        return over(jnp.arange(target.count), self.kernel, memory, target.start())

    def step(self, key: Array, state: State, density: Any) -> tuple[State, Info]:
        """Move the block, then evaluate the whole density once."""
        new, info = self.move(key, state, density)
        return replace(new, log_density=composite.value(density, new.position, new.noise)), info


jax.tree_util.register_dataclass(Block, ["kernel"], ["names", "each", "elements"])
