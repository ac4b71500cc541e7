r"""Step-size adaptation by dual averaging, and a first guess by doubling.

After transition t with acceptance a_t, and ``H_t`` the weighted mean of ``target - a``,

    log step = mu - sqrt(t) / gamma * H_t,    H_t = (1 - 1/(t + t0)) H_{t-1} + (target - a_t) / (t + t0),

and the step to be frozen is the average of the iterates with weights ``t^-kappa``. The guess doubles or
halves a step until the acceptance of one leapfrog step crosses 0.8.

The formulas run on NumPy arrays and inside compiled programs alike.

Reference: Hoffman and Gelman, "The no-U-turn sampler" (2014), algorithms 4 to 6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any

_MOST_DOUBLINGS = 60


def namespace(*arrays: Any) -> Any:
    """Return ``jax.numpy`` when any array belongs to JAX, else ``numpy``."""
    return jnp if any(isinstance(x, jax.Array) for x in arrays) else np


@dataclass(frozen=True)
class DualAverage:
    """The memory of dual averaging; every field has the shape of the step size."""

    centre: Array
    error: Array
    log_mean: Array
    count: Array


jax.tree_util.register_dataclass(DualAverage, list(DualAverage.__dataclass_fields__), [])


@dataclass(frozen=True)
class StepSize:
    """Adapts a kernel's ``step_size`` to a mean acceptance rate.

    Attributes:
        target_accept: The acceptance rate aimed at; None for the kernel's own ``target_accept``, or else 0.8.
        gamma: Strength of the pull towards the centre.
        t0: Damping of the first iterations.
        kappa: Exponent of the averaging weights, in (0.5, 1].
        ahead: The centre, in units of the kernel's first step: above one where a larger step is worth a trial, as with
            trajectories, whose cost is inverse to it.

    Example:
        >>> from ppl.inference.mcmc import HMC
        >>> adapter, kernel = StepSize(0.8), HMC(step_size=np.array(0.1))
        >>> memory = adapter.init(kernel, None)
        >>> memory, kernel = adapter.learn(memory, kernel, np.array(1.0))
        >>> bool(kernel.step_size > 0.1)
        True
    """

    target_accept: float | None = 0.8
    gamma: float = 0.05
    t0: float = 10.0
    kappa: float = 0.75
    ahead: float = 10.0

    pooled = False
    windowed = False

    def init(self, kernel: Any, state: Any) -> DualAverage:
        """Start some way above the kernel's step, from where too large a step is quickly corrected."""
        xp = namespace(kernel.step_size)
        zero = xp.zeros_like(kernel.step_size)
        return DualAverage(xp.log(self.ahead * kernel.step_size), zero, zero, zero)

    def update(self, memory: DualAverage, kernel: Any, state: Any, info: Any) -> tuple[DualAverage, Any]:
        """Learn from one transition's ``info.acceptance_rate``."""
        return self.learn(memory, kernel, info.acceptance_rate)

    def learn(self, memory: DualAverage, kernel: Any, rate: Array) -> tuple[DualAverage, Any]:
        """Learn from one acceptance rate; NaN counts as rejection."""
        xp = namespace(rate, memory.error)
        rate = xp.where(xp.isnan(rate), 0.0, rate)
        count = memory.count + 1.0
        fresh = 1.0 / (count + self.t0)
        target = getattr(kernel, "target_accept", None) if self.target_accept is None else self.target_accept
        error = (1.0 - fresh) * memory.error + fresh * ((0.8 if target is None else target) - rate)
        log_step = memory.centre - xp.sqrt(count) / self.gamma * error
        weight = count**-self.kappa
        log_mean = weight * log_step + (1.0 - weight) * memory.log_mean
        kernel = replace(kernel, step_size=xp.exp(log_step))
        return DualAverage(memory.centre, error, log_mean, count), kernel

    def final(self, memory: DualAverage, kernel: Any) -> Any:
        """Freeze the averaged step; without a transition seen, the kernel's own."""
        xp = namespace(memory.log_mean)
        return replace(kernel, step_size=xp.where(memory.count > 0, xp.exp(memory.log_mean), kernel.step_size))


jax.tree_util.register_dataclass(StepSize, ["target_accept", "gamma", "t0", "kappa", "ahead"], [])


def reasonable(trial: Callable[[np.ndarray, int], np.ndarray], step: np.ndarray) -> np.ndarray:
    """Double or halve each chain's step until its acceptance in one leapfrog step crosses 0.8.

    Args:
        trial: Maps steps (chains,) and the number of the attempt to log Metropolis ratios (chains,).
        step: First steps, shape (chains,).

    Returns:
        Steps, shape (chains,).

    Raises:
        ValueError: If a chain has not crossed after 60 changes.

    Example:
        >>> float(reasonable(lambda step, i: -(step**2), np.array([64.0]))[0])
        0.25
    """
    threshold = np.log(0.8)
    step = np.array(step, dtype=np.float64)
    good = np.asarray(trial(step, 0)) > threshold
    factor, active = np.where(good, 2.0, 0.5), np.ones(step.shape, bool)
    for attempt in range(1, _MOST_DOUBLINGS + 1):
        step = np.where(active, step * factor, step)
        active &= (np.asarray(trial(step, attempt)) > threshold) == good
        if not active.any():
            return step
    chain = int(np.flatnonzero(active)[0])
    raise ValueError(
        f"no step size for chain {chain}: after {_MOST_DOUBLINGS} "
        + (
            "doublings every step is still accepted. The log density looks flat, so the posterior may be improper."
            if good[chain]
            else "halvings every step is still rejected. The gradient may be wrong, or not finite nearby."
        )
    )
