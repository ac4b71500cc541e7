"""The host's share of pooled HMC: random numbers, energies, prior draws, and the joining of blocks."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ..adapt import kinds
from ..core import Block, host_rng
from . import pooled_warmup as warmup
from .pooled_block import SIZE, Lanes, Rows
from .start import Evaluate


def noise(carry: warmup.Carry, metric: kinds.AnyMetric, purpose: int, number: int) -> np.ndarray:
    """Momenta, their energies and log uniforms of one block, shape (SIZE, C, d + 2)."""
    chains, dim = carry.state.shape[0], (carry.state.shape[1] - 1) // 2
    rng = host_rng(carry.seed, purpose, number)
    normals = rng.standard_normal((SIZE, chains, dim))
    out = np.empty((SIZE, chains, dim + 2))
    out[..., :dim] = metric.momenta(normals)
    out[..., dim] = 0.5 * np.sum(normals**2, axis=-1)
    out[..., dim + 1] = np.log1p(-rng.random((SIZE, chains)))
    return out


def energy(first: np.ndarray, rows: Rows, draws: np.ndarray) -> np.ndarray:
    """Hamiltonian where each trajectory ended, or started when it was rejected, shape (t, C).

    Args:
        first: Log densities before the first trajectory, shape (C,).
        rows: The trajectories.
        draws: Their start kinetic energies and log uniforms, shape (t, C, 2).
    """
    before = np.concatenate([first[None], rows.log_density[:-1]]).astype(np.float64)
    moved = (draws[..., 1] < rows.change) & (rows.change < np.inf)
    return draws[..., 0] - before - np.where(moved, rows.change, 0.0)


def joined(blocks: list[Block], chains: int, dim: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Positions and statistics of blocks in one array each."""
    if not blocks:
        return np.zeros((chains, 0, dim)), {}
    positions = np.concatenate([b.positions for b in blocks if b.positions is not None], axis=1)
    return positions, {k: np.concatenate([b.stats[k] for b in blocks], axis=1) for k in blocks[0].stats}


@jax.jit
def explain(target, z):
    """Log densities and gradients as they are, finite or not."""
    return jax.vmap(jax.value_and_grad(target))(z)


@jax.jit
def _draw_prior(target, keys):
    return jax.vmap(target.prior)(keys)


def prior(lanes: Lanes, seed: int, chains: int) -> Any:
    """Draws of the target's prior for the chains, by the number of the round."""

    def draw(number: int) -> np.ndarray:
        key = jax.random.key(int(host_rng(seed, warmup.PRIOR, number).integers(2**31)))
        keys = lanes.here.put(jax.random.split(key, chains), 0)
        return lanes.here.host(_draw_prior(lanes.target, keys))

    return draw


def in_groups(evaluate: Evaluate, size: int) -> Evaluate:
    """An evaluation of one position for each group of ``size`` chains, by a program for all chains."""

    def once(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_density, gradients = evaluate(np.repeat(positions, size, axis=0))
        return log_density[::size], gradients[::size]

    return evaluate if size == 1 else once
