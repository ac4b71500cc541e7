r"""What stochastic-gradient kernels share: estimates of the gradient, guarded moves.

They follow the gradient of an unbiased estimate of the log density, such as that of a program with subsampled plates,
and accept every move. Their stationary law is therefore not the posterior but close to it: for a step h its moments are
off by O(h), from the discretisation and from the noise of the gradient alike. The state keeps the estimate at its
position, made with the last transition's key: each minibatch is used once, and a transition costs one gradient. A move
to where the estimate is not finite is not made, and reported as a divergence.

A density without noise is taken too; the kernels are then unadjusted Langevin and Hamiltonian dynamics.

References: Ma, Chen and Fox, "A complete recipe for stochastic gradient MCMC" (2015); Nemeth and Fearnhead, "Stochastic
gradient Markov chain Monte Carlo" (2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .euclidean import Diagonal

Array = Any


@dataclass(frozen=True)
class Estimated:
    """A position with an estimate of its log density and gradient.

    Attributes:
        position: Shape (d,).
        log_density: Estimate of the log density at the position.
        gradient: Estimate of its gradient, with the same minibatch.
        memory: What a kernel keeps besides: a momentum, or sums of squared gradients; or ().
    """

    position: Array
    log_density: Array
    gradient: Array
    memory: Any = ()


@dataclass(frozen=True)
class NoisyInfo:
    """What a transition reports.

    Attributes:
        acceptance_rate: Share of the moves that led to a finite estimate; no other test is made.
        n_steps: Gradients computed.
        diverging: Whether an estimate was not finite: the step is too large.
    """

    acceptance_rate: Array
    n_steps: Array
    diverging: Array


jax.tree_util.register_dataclass(Estimated, ["position", "log_density", "gradient", "memory"], [])
jax.tree_util.register_dataclass(NoisyInfo, ["acceptance_rate", "n_steps", "diverging"], [])


def estimate(key: Array, position: Array, density: Any, memory: Any = ()) -> Estimated:
    """Estimate log density and gradient at a position.

    Raises:
        TypeError: If the target is an estimate whose exponential is unbiased, and not its logarithm.
    """
    kind = getattr(density, "unbiased", None)
    if kind not in (None, "logarithm"):
        raise TypeError(
            f"a stochastic-gradient kernel needs an unbiased estimate of the log density, and {type(density).__name__} "
            f"is one of the {kind}: its gradient is biased. Use mcmc.PseudoMarginal(kernel)."
        )
    function = density if kind is None else lambda z: density(key, z)
    value, gradient = jax.value_and_grad(function)(position)
    return Estimated(position, value, gradient, memory)


def first(position: Array, density: Any, memory: Any = ()) -> Estimated:
    """The state at a starting point, whose minibatch is the same for all chains."""
    return estimate(jax.random.key(0, impl="threefry2x32"), position, density, memory)


def guarded(new: Estimated, old: Estimated) -> tuple[Estimated, Array]:
    """The new state where all of it is finite, else the old one; and whether it is."""
    finite = jnp.isfinite(new.log_density) & jnp.all(jnp.isfinite(new.gradient) & jnp.isfinite(new.position))
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old), finite


def report(finite: Array, dtype: Any, count: Any = 1) -> NoisyInfo:
    """What one move reports."""
    return NoisyInfo(finite.astype(dtype), jnp.asarray(count, jnp.int32), ~finite)


def injected(variance: Array, noise: Array) -> Array:
    """Standard deviation of the noise to add, where the gradient's own noise gives a part of its variance.

    Example:
        >>> float(injected(1.0, 0.75)), float(injected(1.0, 2.0))
        (0.5, 0.0)
    """
    return jnp.sqrt(jnp.maximum(jnp.asarray(variance - noise), 0.0))


def gradient_noise(density: Any, position: Any, metric: Any = None, draws: int = 256, seed: int = 0) -> np.ndarray:
    """Variance of the estimated gradient over minibatches, coordinate by coordinate.

    Args:
        density: An estimate of a log density.
        position: Where, shape (d,).
        metric: With a metric ``W W^T``, the variance of ``W^T gradient``, which the kernels' ``noise`` wants.
        draws: Number of minibatches.
        seed: Seed.

    Returns:
        Shape (d,).

    Example:
        >>> from ppl.inference.core import as_stochastic
        >>> noisy = as_stochastic(lambda key, z: z @ jax.random.normal(key, (1,)), 1, unbiased="logarithm")
        >>> bool(abs(gradient_noise(noisy, np.zeros(1), draws=4000)[0] - 1.0) < 0.1)
        True
    """
    with jax.enable_x64(precise(density)):
        z = jnp.asarray(position, jnp.result_type(float))
        keys = jax.random.split(jax.random.key(seed, impl="threefry2x32"), draws)
        slopes = _slopes(density, Diagonal() if metric is None else metric, keys, z)
        return np.asarray(slopes, float).var(axis=0, ddof=1)


@jax.jit
def _slopes(density: Any, metric: Any, keys: Array, position: Array) -> Array:
    return jax.vmap(lambda key: metric.force(estimate(key, position, density).gradient))(keys)


def precise(density: Any) -> bool:
    """Whether a density is evaluated in double precision."""
    return bool(getattr(getattr(density, "compiled", None), "x64", jax.config.jax_enable_x64))
