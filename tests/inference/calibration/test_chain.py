"""The chain inside a compiled program: it adapts as the engine of chains does, and keeps the right states."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.inference.adapt.step_size import reasonable
from ppl.inference.calibration import chain
from ppl.inference.core import as_density
from ppl.inference.mcmc import HMC, NUTS

SCALES = np.array([0.01, 1.0, 100.0])


def gaussian(z):
    return -0.5 * jnp.sum((z / SCALES) ** 2)


def strong(kernel, dim):
    return jax.tree.map(lambda x: np.asarray(x, float), kernel.expand(dim))


@pytest.mark.parametrize("kernel", [NUTS(), HMC(), NUTS(dense=True)], ids=["nuts", "hmc", "dense"])
def test_scales_are_learned_in_the_graph(kernel):
    """Moments of 16 chains of 200 draws, |z| < 5 with half of the draws effective; false alarm below 1e-4."""
    density, kernel = as_density(gaussian, 3), strong(kernel, 3)

    @jax.jit
    def run(kernel, starts, keys):
        def one(shared, item):
            z, key = item
            state = chain.start(shared, density, z[None])
            return chain.chain((300, 200), density, shared, state, key, 2, 700)

        return chain.mapped_whole(one, kernel, (starts, keys))

    rng = np.random.default_rng(0)
    keys = rng.integers(2**32, size=(16, 2), dtype=np.uint32)
    (z, diverging), _ = run(kernel, 3.0 * SCALES * rng.normal(size=(16, 3)), keys)
    white = np.asarray(z).reshape(-1, 3) / SCALES
    error = 5 / np.sqrt(len(white) / 2)
    assert int(np.sum(diverging)) == 0
    assert (abs(white.mean(axis=0)) < error).all()
    assert (abs((white**2).mean(axis=0) - 1) < np.sqrt(2) * error).all()
    steps = np.abs(np.diff(np.asarray(z), axis=1)).mean(axis=(0, 1)) / SCALES
    assert (steps > 0.5).all()  # with a metric that is not learned the widest coordinate hardly moves


def test_windows_are_those_of_the_engine_of_chains():
    slow, opens, closes = (np.asarray(x) for x in chain.schedule(1000))
    np.testing.assert_array_equal(np.flatnonzero(closes), [99, 149, 249, 449, 949])
    np.testing.assert_array_equal(np.flatnonzero(opens), [0, 100, 150, 250, 450, 950])
    np.testing.assert_array_equal(np.flatnonzero(slow), np.arange(75, 950))


@pytest.mark.parametrize("step", [1e-4, 0.3, 40.0])
def test_the_guess_is_that_of_the_host(step):
    density, momentum = as_density(gaussian, 3), np.array([0.5, -1.0, 2.0])
    kernel = replace(strong(NUTS(), 3), step_size=np.asarray(step))
    state = kernel.init(SCALES * np.ones(3), density)

    def trial(steps, attempt):
        return np.array([kernel_at(s).trial(momentum, state, density)[1] for s in steps])

    def kernel_at(s):
        return replace(kernel, step_size=s)

    expected = reasonable(trial, np.array([step]))[0]
    assert float(jax.jit(chain.guess)(kernel, momentum, state, density)) == pytest.approx(expected)


@dataclass(frozen=True)
class Counter:
    """A kernel whose state is the number of steps taken."""

    def init(self, position, density):
        return Place(position)

    def step(self, key, state, density):
        return Place(state.position + 1.0), Report(state.position[0] % 2 == 0)


@dataclass(frozen=True)
class Place:
    position: Any


@dataclass(frozen=True)
class Report:
    diverging: Any


jax.tree_util.register_dataclass(Counter, [], [])
jax.tree_util.register_dataclass(Place, ["position"], [])
jax.tree_util.register_dataclass(Report, ["diverging"], [])


@pytest.mark.parametrize(("warmup", "thin"), [(0, 1), (7, 1), (7, 3), (0, 4)])
def test_every_thin_th_state_after_the_warm_up_is_kept(warmup, thin):
    length = warmup + 5 * thin
    z, diverging = chain.chain((warmup, 5), None, Counter(), Place(jnp.zeros(1)), np.zeros(2, np.uint32), thin, length)
    np.testing.assert_array_equal(z[:, 0], warmup + thin * np.arange(1, 6))
    # Iterations from an even count diverge: those of the warm-up do not count.
    assert int(diverging) == sum(i % 2 == 0 for i in range(warmup, length))


def test_a_start_is_the_first_finite_one_and_the_last_in_need():
    density = as_density(lambda z: jnp.where(z[0] > 1.0, -0.5 * z[0] ** 2, -jnp.inf), 1)
    kernel = strong(NUTS(), 1)
    points = np.array([[0.0], [2.0], [3.0], [-1.0]])
    assert float(chain.start(kernel, density, points).position[0]) == 2.0
    assert float(chain.start(kernel, density, points[[0, 0, 3]]).position[0]) == -1.0


def test_arguments_that_are_not_read_are_allowed():
    """With a larger function XLA aborts here but for the witness; the test of a kernel that ignores data shows it."""

    @jax.jit
    def run(shared, items):
        return chain.mapped_whole(lambda shared, item: jnp.ones(()), shared, items)

    result, _ = run(np.arange(3.0), (np.arange(4.0), np.ones((4, 2)), np.ones((4, 2), np.uint32)))
    np.testing.assert_array_equal(result, np.ones(4))
