r"""Exact draws of a block from its full conditional.

Where pi(x | y) is a law that can be sampled, a draw from it is a kernel for x given y that accepts always and has no
tuning. The density is asked for that law: ``density.conditional(None, position)`` gives something with
``sample(key) -> x`` and ``log_prob(x)`` (``core.Proposal``). Densities of programs know finite conditionals and
conjugate ones; other densities may offer the method too.

References: Geman and Geman (1984); Gelfand and Smith, "Sampling-based approaches to calculating marginal densities"
(1990).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from .gibbs import State

Array = Any


@dataclass(frozen=True)
class ExactInfo:
    """What a transition reports: exact draws are always accepted."""

    acceptance_rate: Array


jax.tree_util.register_dataclass(ExactInfo, ["acceptance_rate"], [])


@dataclass(frozen=True)
class Exact:
    """Draws all coordinates that it is given from their exact law: ``Block(names, Exact())``.

    Raises:
        ValueError: At the first step, a density that does not know its conditionals.

    Example:
        >>> import numpy as np, ppl
        >>> from ppl.inference.mcmc import Block, Cycle
        >>> @ppl.model
        ... def f(y):
        ...     mu = ppl.sample("mu", ppl.dist.Normal(0.0, 10.0))
        ...     tau = ppl.sample("tau", ppl.dist.Gamma(2.0, 2.0))
        ...     ppl.plate("i", lambda _: ppl.sample("y", ppl.dist.Normal(mu, tau**-0.5)), y)
        >>> density = ppl.compile(f(np.zeros(3)).condition(y=np.array([1.0, 2.0, 4.0])))
        >>> kernel = Cycle(Block("mu", Exact()), Block("tau", Exact()))
        >>> state, info = kernel.step(jax.random.key(0), kernel.init(jnp.zeros(2), density), density)
        >>> float(info.acceptance_rate)
        1.0
    """

    finite: ClassVar[bool] = True  # see ``core.Kernel``

    def init(self, position: Array, density: Any) -> State:
        """Make the state at a position."""
        self.law(position, density)  # refused now rather than later
        return State(position, density(position))

    def step(self, key: Array, state: State, density: Any) -> tuple[State, ExactInfo]:
        """Draw anew."""
        position = self.law(state.position, density).sample(key).astype(state.position.dtype)
        return State(position, density(position)), ExactInfo(jnp.ones((), position.dtype))

    def law(self, position: Array, density: Any) -> Any:
        """The conditional of all coordinates of a density."""
        if not hasattr(density, "conditional"):
            raise ValueError(
                "Exact() asks the density for its conditional, and this one has none. It draws blocks of a program's "
                "sites by name, all elements of a plate at once: Block(names, Exact()) without each=. For codes of a "
                "plain function use Gibbs()."
            )
        return density.conditional(None, position)


jax.tree_util.register_dataclass(Exact, [], [])
