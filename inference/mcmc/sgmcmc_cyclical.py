r"""Cyclical stochastic-gradient MCMC: large steps find other modes, small ones describe the one that was found.

A cycle has L steps of the sizes ``h_i = h (1 + cos(pi i / L)) / 2``, i = 0, ..., L - 1. In its first part
(``explore``) no noise is added, in the rest the kernel samples, with steps that shrink to nothing, so that the draw at
the end of the cycle has little of their bias. One transition is one cycle and gives one draw: all draws have the same
weight, which those along a cycle would not.

It helps posteriors with several modes, whose weights it does not get right: they are those with which cycles end in
them.

References: Zhang, Li, Zhang, Chen and Wilson, "Cyclical stochastic gradient MCMC for Bayesian deep learning" (2020).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from .sgmcmc import NoisyInfo

Array = Any


@dataclass(frozen=True)
class Cyclical:
    """A stochastic-gradient kernel with steps that fall in cycles; a transition is a cycle.

    Attributes:
        kernel: ``SGLD``, ``PSGLD`` or ``SGHMC``; its ``step_size`` is the largest.
        length: Steps of the kernel in a cycle.
        explore: Share of the cycle without noise.

    Raises:
        TypeError: If the kernel has no ``step_size`` and ``temperature``.

    Example:
        >>> from ppl.inference.mcmc import SGLD
        >>> density, kernel = lambda z: -0.5 * jnp.sum(z**2), Cyclical(SGLD(0.5), length=20)
        >>> state, info = kernel.step(jax.random.key(1), kernel.init(jnp.zeros(2), density), density)
        >>> int(info.n_steps), [round(float(h), 2) for h in kernel.sizes()[::5]]
        (20, [0.5, 0.43, 0.25, 0.07])
    """

    gradient: ClassVar[bool] = True  # see ``core.Kernel``
    stochastic: ClassVar[bool] = True  # works with an estimate,
    estimate: ClassVar[str] = "logarithm"  # of the log density

    kernel: Any
    length: int = 50
    explore: Array = 0.5

    def adapters(self) -> tuple[Any, ...]:
        """None: nothing is learned in warm-up."""
        return ()

    def init(self, position: Array, density: Any) -> Any:
        """Make the kernel's state at a position."""
        if not (hasattr(self.kernel, "temperature") and hasattr(self.kernel, "step_size")):
            raise TypeError(
                f"Cyclical changes step_size and temperature of its kernel, which {type(self.kernel).__name__} lacks; "
                "give SGLD, PSGLD or SGHMC"
            )
        return self.kernel.init(position, density)

    def sizes(self) -> Array:
        """Step sizes of a cycle, shape (length,)."""
        phase = np.pi * np.arange(self.length) / self.length
        size = jnp.asarray(self.kernel.step_size)
        return size * jnp.asarray(0.5 * (1.0 + np.cos(phase)), jnp.result_type(size, float))

    def step(self, key: Array, state: Any, density: Any) -> tuple[Any, NoisyInfo]:
        """Run one cycle."""
        dtype, sizes = state.position.dtype, self.sizes()
        zero = jnp.zeros((), dtype), jnp.zeros((), jnp.int32), jnp.zeros((), bool)

        def body(i: Array, loop: Any) -> Any:
            state, (rate, count, diverging) = loop
            hot = (i >= self.explore * self.length).astype(dtype)
            kernel = replace(self.kernel, step_size=sizes[i].astype(dtype), temperature=hot * self.kernel.temperature)
            state, info = kernel.step(jax.random.fold_in(key, i), state, density)
            rate = rate + info.acceptance_rate.astype(dtype) / self.length
            return state, (rate, count + info.n_steps, diverging | info.diverging)

        state, totals = jax.lax.fori_loop(0, self.length, body, (state, zero))
        return state, NoisyInfo(*totals)


jax.tree_util.register_dataclass(Cyclical, ["kernel", "explore"], ["length"])
