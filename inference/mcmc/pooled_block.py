r"""The one compiled program of pooled HMC: a block of jittered-length trajectories of all chains in lockstep.

A trajectory of the Hamiltonian H(z, p) = -log pi(z) + |p F|^2 / 2, Sigma = F F', takes n leapfrog steps

    p += eps g / 2;   n times:  z += eps p Sigma,  g = grad log pi(z),  p += eps g;   p -= eps g / 2

and is accepted with probability min(1, exp(H_old - H_new)), n = ceil(length * jitter / eps). After each
trajectory log eps moves by gain * (mean acceptance - target); a gain of zero freezes it.

On a CPU compiling is most of a cold run, so the program holds one copy of the gradient, no random numbers
(the host sends momenta and log uniforms) and no linear algebra but products. The state of a chain is packed
in one row (z, g, log pi). With eps = 0, n = 1 the same program evaluates gradients, so nothing else is
compiled. The density is an argument: new data of equal shape do not compile.

Reference: Neal (2011), MCMC using Hamiltonian dynamics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..adapt.kinds import AnyMetric
from ..compiling import jit_quick
from ..devices import current

SIZE = 10
"""Trajectories per block; also the unit by which the host keys its random numbers."""

_SURE = 1e30  # a start energy so large that any finite proposal is accepted, exact enough in float32


def _block(density, state, noise, schedule, tuning, sigma, factor, count):
    """Run ``count`` <= SIZE trajectories of C chains in dimension d.

    Args:
        density: Log density of one position, a pytree.
        state: Rows (z, g, log pi), shape (C, 2 d + 1).
        noise: Per trajectory and chain the momentum, its energy and a log uniform, shape (SIZE, C, d + 2).
        schedule: Per trajectory the jitter of the length and the gain of the step size, shape (SIZE, 2).
        tuning: Log step size, trajectory length, greatest number of leapfrogs, target acceptance.
        sigma: Inverse mass matrix, shape (d, d), or its diagonal, shape (d,), or for D (I + U E U') D the diagonal of
            D, shape (d,), U, shape (d, R), and the diagonal of E, shape (R,).
        factor: F with sigma = F F', of the same form; the last with F = D (I + U E U').
        count: Number of trajectories, an int32.

    Returns:
        Rows (z, g, log pi, H_old - H_new, adapted log step size, leapfrogs) after each trajectory,
        shape (SIZE, C, 2 d + 4).
    """
    chains, width = state.shape
    dim = (width - 1) // 2
    evaluate = jax.vmap(jax.value_and_grad(density))

    def trajectory(i, carry):
        state, log_step, out = carry
        draw = lax.dynamic_index_in_dim(noise, i, 0, keepdims=False)
        plan = lax.dynamic_index_in_dim(schedule, i, 0, keepdims=False)
        step = jnp.exp(log_step)
        leapfrogs = jnp.minimum(jnp.ceil(tuning[1] * plan[0] / step), tuning[2])

        def leapfrog(carry):
            k, row, p = carry
            p = p + jnp.where(k == 0, 0.5 * step, step) * row[:, dim : 2 * dim]
            z = row[:, :dim] + step * _product(p, sigma, True)
            lp, g = evaluate(z)
            return k + 1, jnp.concatenate([z, g, lp[:, None]], axis=1), p

        start = (jnp.zeros_like(leapfrogs), state, draw[:, :dim])
        _, row, p = lax.while_loop(lambda c: c[0] < leapfrogs, leapfrog, start)
        velocity = _product(p + 0.5 * step * row[:, dim : 2 * dim], factor, False)
        change = row[:, 2 * dim] - 0.5 * jnp.sum(velocity * velocity, axis=1) - state[:, 2 * dim] + draw[:, dim]
        accept = (draw[:, dim + 1] < change) & (change < jnp.inf)  # NaN compares false: rejected
        state = jnp.where(accept[:, None], row, state)
        probability = jnp.where(change < jnp.inf, jnp.exp(jnp.minimum(change, 0.0)), 0.0)
        log_step = log_step + plan[1] * (jnp.mean(probability) - tuning[3])
        extra = [change[:, None], jnp.full((chains, 1), log_step), jnp.full((chains, 1), leapfrogs)]
        out = lax.dynamic_update_index_in_dim(out, jnp.concatenate([state, *extra], axis=1), i, 0)
        return state, log_step, out

    out = jnp.zeros((noise.shape[0], chains, width + 3), state.dtype)
    return lax.fori_loop(0, count, trajectory, (state, tuning[0], out))[2]


def _product(rows, matrix, symmetric):
    """Rows times a matrix that is full, diagonal or of low rank plus diagonal; see ``_block``."""
    if isinstance(matrix, tuple):
        scale, basis, excess = matrix
        rows = rows * scale
        rows = rows + ((rows @ basis) * excess) @ basis.T
        return rows * scale if symmetric else rows
    return rows @ matrix if matrix.ndim == 2 else rows * matrix


block = jax.jit(_block)
quick_block = jit_quick(_block)


@dataclass(frozen=True)
class Rows:
    """Columns of what a block returns, for ``t`` trajectories of C chains."""

    values: np.ndarray
    dim: int

    @property
    def positions(self) -> np.ndarray:
        """Positions after each trajectory, shape (t, C, d)."""
        return self.values[..., : self.dim]

    @property
    def gradients(self) -> np.ndarray:
        """Gradients at the positions, shape (t, C, d)."""
        return self.values[..., self.dim : 2 * self.dim]

    @property
    def log_density(self) -> np.ndarray:
        """Log densities, shape (t, C)."""
        return self.values[..., 2 * self.dim]

    @property
    def change(self) -> np.ndarray:
        """Energy lost by the proposal, H_old - H_new, shape (t, C); not finite where it was inadmissible."""
        return self.values[..., 2 * self.dim + 1]

    @property
    def log_step(self) -> np.ndarray:
        """Log step size as adapted after each trajectory, shape (t, C)."""
        return self.values[..., 2 * self.dim + 2]

    @property
    def leapfrogs(self) -> np.ndarray:
        """Leapfrog steps of each trajectory, shape (t, C)."""
        return self.values[..., 2 * self.dim + 3]

    @property
    def state(self) -> np.ndarray:
        """Packed state after the last trajectory, shape (C, 2 d + 1)."""
        return self.values[-1, :, : 2 * self.dim + 1]

    def acceptance(self) -> np.ndarray:
        """Metropolis acceptance probabilities, shape (t, C); zero for inadmissible proposals."""
        fine = self.change < np.inf
        return np.where(fine, np.exp(np.minimum(np.where(fine, self.change, 0.0), 0.0)), 0.0)

    def diverging(self) -> np.ndarray:
        """Where the energy rose by more than 1000 or was not finite, shape (t, C)."""
        return ~((self.change > -1000.0) & (self.change < np.inf))


def precision() -> np.dtype:
    """Float type of positions under the caller's JAX settings."""
    return np.dtype(np.float64 if jax.config.jax_enable_x64 else np.float32)


Tuning = dict[Any, tuple[Any, Any]]
"""The metric on each device."""


class Lanes:
    """Runs blocks where the placement in force says: one program, on ``lanes`` equal shares of the chains at once.

    The shares depend on nothing but ``lanes``, so neither threads nor devices nor processes can change a draw.
    """

    def __init__(self, target: Any, lanes: int, threads: int, quick: bool = False):
        """Put the density's data on the devices once; ``quick`` compiles for a short compilation."""
        self.block = quick_block if quick else block
        self.here = current()
        self.targets = {lane: self.here.copy(target, lane) for lane in self.here.mine(lanes)}
        self.target = next(iter(self.targets.values()))
        self.lanes, self.threads, self.dtype = lanes, threads, precision()

    def over(self, target: Any) -> Lanes:
        """The same lanes for another density of the same structure."""
        return Lanes(target, self.lanes, self.threads, self.block is quick_block)

    def run(
        self,
        state: np.ndarray,
        noise: np.ndarray,
        schedule: np.ndarray,
        tuning: tuple[float, float, float, float],
        metric: Tuning,
        count: int,
    ) -> Rows:
        """Run ``count`` trajectories; see ``block``."""
        dim = (state.shape[1] - 1) // 2
        tuned = np.asarray(tuning, self.dtype)
        schedule = schedule.astype(self.dtype)
        state, noise = state.astype(self.dtype), noise.astype(self.dtype)

        width = state.shape[0] // self.lanes

        def one(lane: int) -> np.ndarray:
            share, on = slice(lane * width, (lane + 1) * width), metric[self.here.device(lane)]
            return self.block(self.targets[lane], state[share], noise[:, share], schedule, tuned, *on, np.int32(count))

        parts = self.here.map(one, self.lanes, self.threads, witness=(state, noise, schedule, tuned))
        return Rows((parts[0] if self.lanes == 1 else np.concatenate(parts, axis=1))[:count], dim)

    def put_metric(self, metric: AnyMetric) -> Tuning:
        """The arguments ``sigma`` and ``factor`` of a block, on each device."""
        pair = jax.tree.map(lambda x: x.astype(self.dtype), metric.arguments())
        used = self.here.used(self.lanes)
        return {self.here.device(lane): self.here.put(pair, lane) for lane in used}

    def evaluate(self, positions: np.ndarray, metric: Tuning) -> tuple[np.ndarray, np.ndarray]:
        """Log densities and gradients by a trajectory of one leapfrog with step size zero.

        Args:
            positions: Shape (C, d).
            metric: From ``put_metric``; it decides the program's shapes and nothing else.

        Returns:
            Log densities (C,) and gradients (C, d); -inf and zero where either is not finite.
        """
        chains, dim = positions.shape
        state = np.concatenate([positions, np.zeros((chains, dim + 1))], axis=1)
        noise = np.zeros((SIZE, chains, dim + 2))
        noise[0, :, dim], noise[0, :, dim + 1] = _SURE, -np.inf
        schedule = np.zeros((SIZE, 2))
        schedule[:, 0] = 1.0
        rows = self.run(state, noise, schedule, (-np.inf, 1.0, 1.0, 0.0), metric, 1)
        fine = np.isfinite(rows.change[0])
        log_density = np.where(fine, rows.log_density[0], -np.inf).astype(np.float64)
        return log_density, np.where(fine[:, None], rows.gradients[0], 0.0).astype(np.float64)
