"""The metric of low rank in many dimensions: effective draws per gradient against the diagonal and the dense one.

Counts of gradients are deterministic; no time is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest

from ppl.inference import diagnostics
from ppl.inference.checkpoint import pack, unpack
from ppl.inference.mcmc import PooledHMC


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Factors:
    """A Gaussian with covariance S (L L' + I) S, S diagonal over two decades."""

    loadings: Any
    scale: Any

    @property
    def dim(self):
        return len(self.scale)

    @property
    def work(self):
        return 2 * self.loadings.size

    def __call__(self, z):
        r = z / self.scale
        c = r @ self.loadings
        return -0.5 * (r @ r) + 0.5 * (c @ c)


def factors(dim, count):
    """The target, and the standard deviations of its coordinates."""
    rng = np.random.default_rng(0)
    loadings, scale = rng.normal(size=(dim, count)), 10.0 ** rng.uniform(-1, 1, dim)
    e, v = np.linalg.eigh(np.eye(count) + loadings.T @ loadings)
    sd = scale * np.sqrt(1.0 + (loadings**2).sum(axis=1))
    return Factors(loadings @ (v / np.sqrt(e)) @ v.T, scale), sd


def per_gradient(kind, target, sd, draws=100):
    """Least effective sample size of coordinates and projections for each gradient of a chain, warm-up included."""
    engine = PooledHMC(chains=16, draws=draws, max_draws=draws, metric=kind)
    carry, blocks, done = engine.start(1, target), [], False
    while not done:
        carry, part, done = engine.advance(carry, target, 100)
        blocks.append(part)
    z = engine.finish(carry, blocks, target).positions / sd
    shown = np.concatenate([z[..., :100], z @ np.random.default_rng(0).normal(size=(target.dim, 20))], axis=2)
    variance = (z**2).mean(axis=(0, 1))
    return diagnostics.ess_mean(shown).min() / carry.leapfrogs, variance, carry


def test_low_rank_is_ten_times_the_diagonal_on_factors():
    target, sd = factors(300, 20)
    low, variance, carry = per_gradient(None, target, sd)
    assert carry.metric.kind == "low rank" and carry.metric.basis.shape == (300, 32) and carry.window >= 4
    diagonal, _, _ = per_gradient("diagonal", target, sd)
    assert low > 10 * diagonal, (low, diagonal)
    assert abs(np.log(variance)).max() < 0.25  # 1600 draws, 300 comparisons: five standard errors
    assert carry.fit / (1 + np.sqrt(300 / 216)) ** 2 < 2.0  # of 27 trajectories, half of 16 chains each


@pytest.mark.slow
def test_low_rank_against_dense_and_in_a_thousand_dimensions():
    target, sd = factors(300, 20)
    low, dense = (per_gradient(kind, target, sd, 300)[0] for kind in ("low rank", "dense"))
    assert low > dense, (low, dense)
    target, sd = factors(1000, 20)
    low, _, carry = per_gradient(None, target, sd, 300)
    assert carry.metric.basis.shape == (1000, 64)
    assert low > 10 * per_gradient("diagonal", target, sd, 300)[0]


@pytest.mark.parametrize(
    "options", [dict(metric="low rank", rank=3, chains=8), dict(chains=80), dict(metric="diagonal")]
)
def test_a_run_goes_on_from_its_stored_carry(options):
    target, _ = factors(12, 2)
    engine = PooledHMC(draws=20, max_draws=20, **options)
    carry, made, done = engine.start(3, target), [], False
    while not done:
        carry, part, done = engine.advance(unpack(*pack(carry)), target, 10)
        made.append(part)
    carry, whole, done = engine.start(3, target), [], False
    while not done:
        carry, part, done = engine.advance(carry, target, 100)
        whole.append(part)
    stored, straight = engine.finish(carry, made, target), engine.finish(carry, whole, target)
    np.testing.assert_array_equal(stored.positions, straight.positions)
