r"""The compiled block of many-chain HMC: transitions of all chains and the learning of their common tuning.

All chains take the same number of leapfrog steps, ``L = ceil(h T / step)`` with h a term of the van der Corput
sequence, so that no lane of a wide device waits for another. Positions are measured in the scales s of the chains,
``x = z / s``. In warm-up each transition teaches

* the step, by dual averaging of the harmonic mean of the chains' acceptance rates;
* the scales, by a weighted mean over transitions of the variance over chains, recent ones weighing more;
* the length T, by Adam on log T along the gradient of a criterion, of which each chain gives an unbiased term,
  weighted by its acceptance. ChEES is ``E[c^2] / 4``, ``c = |x' - m'|^2 - |x - m|^2`` the change of the squared
  distance from the mean over chains. SNAPER keeps of x its component along the direction of greatest variance, learned
  by Oja's rule, and divides by the length: change per gradient.

References: Hoffman, Radul and Sountsov, "An adaptive MCMC scheme for setting trajectory lengths in Hamiltonian Monte
Carlo" (2021); Sountsov and Hoffman, "Focusing on difficult directions for learning HMC trajectory lengths" (2021).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..adapt.step_size import DualAverage, StepSize
from . import euclidean
from .euclidean import Diagonal, State

Array = Any

_RATE, _FORGET, _SMALL = 0.025, 0.95, 1e-8  # of Adam
_MEMORY = 4.0  # the variance weighs transition i by i^3
_FLOOR = 1e-2  # acceptance rates in the harmonic mean: one stuck chain must not shrink the step of a thousand


@dataclass(frozen=True)
class Tuning:
    """What all chains share.

    Attributes:
        step_size: Leapfrog step, ().
        log_length: Logarithm of the greatest length of a trajectory, ().
        scale: Scales of the coordinates, (d,).
        average: Memory of the step's dual averaging.
        log_length_mean: Average of ``log_length`` over transitions, ().
        square: Adam's mean of squared gradients, ().
        mean: Weighted mean of positions, (d,).
        variance: Weighted variance, (d,).
        direction: Unit vector of greatest variance in units of the scales, (d,).
        count: Transitions seen, ().
    """

    step_size: Array
    log_length: Array
    scale: Array
    average: DualAverage
    log_length_mean: Array
    square: Array
    mean: Array
    variance: Array
    direction: Array
    count: Array


@dataclass(frozen=True)
class Moved:
    """A trajectory's end: state, momentum, acceptance probability (C,), energies, and whether it diverged."""

    state: State
    momentum: Array
    acceptance_rate: Array
    energy: Array
    before: Array
    diverging: Array


jax.tree_util.register_dataclass(Tuning, list(Tuning.__dataclass_fields__), [])
jax.tree_util.register_dataclass(Moved, list(Moved.__dataclass_fields__), [])


def first_tuning(step: float, dim: int, dtype: Any) -> Tuning:
    """Tuning before anything is known, as host arrays."""
    x = lambda value: np.asarray(value, dtype)  # noqa: E731
    ones, zero = np.ones(dim, dtype), np.zeros(dim, dtype)
    average = DualAverage(x(np.log(10.0 * step)), x(0.0), x(0.0), x(0.0))
    direction = np.asarray(ones / np.sqrt(dim), dtype)
    length = x(np.log(8.0 * step))
    return Tuning(x(step), length, ones, average, length, x(0.0), zero, zero, direction, x(0.0))


def corput(index: Array, dtype: Any) -> Array:
    """Term ``index`` of the van der Corput sequence of base 2, in (0, 1).

    Example:
        >>> [round(float(corput(jnp.uint32(i), jnp.float32)), 3) for i in range(4)]
        [0.5, 0.25, 0.75, 0.125]
    """
    bits = (index + 1).astype(jnp.uint32)
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF)):
        low = jnp.uint32(mask)
        bits = (jnp.right_shift(bits, shift) & low) | jnp.left_shift(bits & low, shift)
    bits = jnp.right_shift(bits, 16) | jnp.left_shift(bits, 16)
    return jnp.right_shift(bits, 8).astype(dtype) * 2.0**-24 + 2.0**-26


def trajectory(tuning: Tuning, count: Array, state: State, momentum: Array, target: Any) -> Moved:
    """``count`` leapfrog steps of all chains."""
    one = jax.vmap(lambda s, q: euclidean.leapfrog(Diagonal(tuning.scale), tuning.step_size, s, q, target))
    moved, ended = jax.lax.fori_loop(0, count, lambda _, pair: one(*pair), (state, momentum))
    energy = jax.vmap(euclidean.energy_of)
    before, after = energy(state.log_density, momentum), energy(moved.log_density, ended)
    log_ratio = jnp.where(jnp.isfinite(after), before - after, -jnp.inf)
    return Moved(moved, ended, jnp.exp(jnp.minimum(log_ratio, 0.0)), after, before, ~(log_ratio > -1000.0))


def transition(tuning: Tuning, most: int, key: Array, index: Array, state: State, target: Any) -> Any:
    """One transition of all chains.

    Returns:
        New states, the trajectories' ends, number of steps and length.
    """
    shape, dtype = state.position.shape, state.position.dtype
    first, second = jax.random.split(jax.random.fold_in(key, index))
    momentum = jax.random.normal(first, shape, dtype)
    uniform = jax.random.uniform(second, shape[:1], dtype)
    length = corput(index, dtype) * jnp.exp(tuning.log_length)
    count = jnp.clip(jnp.ceil(length / tuning.step_size), 1, most).astype(jnp.int32)
    moved = trajectory(tuning, count, state, momentum, target)
    accept = uniform < moved.acceptance_rate
    new = jax.tree.map(lambda a, b: jnp.where(accept.reshape(-1, *[1] * (a.ndim - 1)), a, b), moved.state, state)
    return new, accept, moved, count, length


def slope(tuning: Tuning, criterion: str, before: Array, moved: Moved, length: Array) -> Array:
    """Estimated derivative of the criterion by log T, up to a positive factor."""
    rate = jnp.where(jnp.all(jnp.isfinite(moved.state.position), axis=1), moved.acceptance_rate, 0.0)
    total = jnp.maximum(jnp.sum(rate), _SMALL)
    after = jnp.where(rate[:, None] > 0, moved.state.position, 0.0) / tuning.scale
    x, momentum = before / tuning.scale, jnp.where(rate[:, None] > 0, moved.momentum, 0.0)
    x = x - jnp.mean(x, axis=0)
    y = after - rate @ after / total
    if criterion == "snaper":
        x, y, momentum = ((v @ tuning.direction)[:, None] for v in (x, y, momentum))
    change = jnp.sum(y**2, axis=1) - jnp.sum(x**2, axis=1)
    growth = rate @ (change * jnp.sum(y * momentum, axis=1)) / total * length
    if criterion == "snaper":
        return 4.0 * growth / jnp.maximum(rate @ change**2 / total, _SMALL) - 1.0
    return growth


def learn(
    tuning: Tuning, options: tuple[str, float, int], before: Array, new: State, moved: Moved, length: Array
) -> Any:
    """Tuning after one more transition."""
    criterion, accept, most = options
    count = tuning.count + 1.0
    harmonic = 1.0 / jnp.mean(1.0 / jnp.maximum(moved.acceptance_rate, _FLOOR))
    average, stepped = StepSize(accept).learn(tuning.average, tuning, harmonic)
    gradient = slope(tuning, criterion, before, moved, length)
    gradient = jnp.where(jnp.isfinite(gradient), gradient, 0.0)
    square = _FORGET * tuning.square + (1.0 - _FORGET) * gradient**2
    push = _RATE * gradient / (jnp.sqrt(square / (1.0 - _FORGET**count)) + _SMALL)
    log_step = jnp.log(stepped.step_size)
    log_length = jnp.clip(tuning.log_length + push, log_step, log_step + jnp.log(float(most)))
    weight = count**-0.75
    x = new.position
    mean, variance = jnp.mean(x, axis=0), jnp.var(x, axis=0)
    share = _MEMORY / (count - 1.0 + _MEMORY)
    gap = mean - tuning.mean
    variance = (1.0 - share) * tuning.variance + share * variance + share * (1.0 - share) * gap**2
    mean = tuning.mean + share * gap
    chains = float(x.shape[0])
    scale = jnp.sqrt((chains * variance + 5e-3) / (chains + 5.0))
    whitened = (x - mean) / scale
    direction = (1.0 - share) * tuning.direction + share * (whitened @ tuning.direction) @ whitened / chains
    direction = direction / jnp.maximum(jnp.linalg.norm(direction), _SMALL)
    return Tuning(
        stepped.step_size,
        log_length,
        scale,
        average,
        weight * log_length + (1.0 - weight) * tuning.log_length_mean,
        square,
        mean,
        variance,
        direction,
        count,
    )


@partial(jax.jit, static_argnames=("capacity", "options"))
def block(
    tuning: Tuning, state: State, words: Array, target: Any, span: Array, capacity: int, options: tuple[str, float, int]
) -> Any:
    """Run transitions ``span = (first, count, adapting)`` of all chains.

    Returns:
        Tuning, states and filled buffers: positions (capacity, C, d) and statistics (capacity, C) or (capacity,).
    """
    key = jax.random.wrap_key_data(words, impl="threefry2x32")
    chains, dtype = state.position.shape[0], state.position.dtype
    buffers = {
        "position": jnp.zeros((capacity, *state.position.shape), dtype),
        **{name: jnp.zeros((capacity, chains), dtype) for name in ("lp", "acceptance_rate", "energy")},
        "diverging": jnp.zeros((capacity, chains), bool),
        "n_steps": jnp.zeros(capacity, jnp.int32),
        "step_size": jnp.zeros(capacity, dtype),
    }

    def body(i: Array, loop: Any) -> Any:
        tuning, state, buffers = loop
        new, accept, moved, count, length = transition(tuning, options[2], key, span[0] + i, state, target)
        row = {
            "position": new.position,
            "lp": new.log_density,
            "acceptance_rate": moved.acceptance_rate,
            "energy": jnp.where(accept, moved.energy, moved.before),
            "diverging": moved.diverging,
            "n_steps": count,
            "step_size": tuning.step_size,
        }
        write = partial(jax.lax.dynamic_update_index_in_dim, index=i, axis=0)
        buffers = {name: write(buffers[name], value.astype(buffers[name].dtype)) for name, value in row.items()}
        learned = learn(tuning, options, state.position, new, moved, length)
        on = span[2] > 0
        return jax.tree.map(lambda a, b: jnp.where(on, a, b), learned, tuning), new, buffers

    return jax.lax.fori_loop(0, span[1], body, (tuning, state, buffers))


@jax.jit
def evaluate(positions: Array, target: Any) -> State:
    """States at positions (C, d)."""
    return jax.vmap(lambda z: euclidean.evaluate(z, target))(positions)


@jax.jit
def trial(step: Array, tuning: Tuning, state: State, momentum: Array, target: Any) -> Array:
    """Logarithm of the mean acceptance of one leapfrog step, shape (1,)."""
    moved = trajectory(replace(tuning, step_size=step[0]), jnp.int32(1), state, momentum, target)
    return jnp.log(jnp.mean(moved.acceptance_rate))[None]
