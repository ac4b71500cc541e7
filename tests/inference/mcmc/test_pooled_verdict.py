"""What is said of posteriors that defeat the engine: the answer is right, or the verdict is loud."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from ppl.inference.core import as_density
from ppl.inference.mcmc import PooledHMC
from ppl.inference.mcmc.pooled_stuck import Watch, stuck_chains, watched
from ppl.inference.mcmc.pooled_verdict import regions
from ppl.inference.mcmc.pooled_warmup import left


def sample(engine, target, seed=0, init=None):
    carry, blocks, done = engine.start(seed, target, init), [], False
    while not done:
        carry, part, done = engine.advance(carry, target, 200)
        blocks.append(part)
    return engine.finish(carry, blocks, target)


def mixture(*parts):
    """A mixture of spherical Gaussians, from (weight, mean, standard deviation)."""
    weight, mean, sd = (np.array(column, float) for column in zip(*parts, strict=True))
    dim = mean.shape[1]

    def density(z):
        return logsumexp(np.log(weight) - dim * np.log(sd) - 0.5 * jnp.sum((z - mean) ** 2, axis=1) / sd**2)

    return as_density(density, dim)


def test_regions_are_groups_of_chains_that_are_far_apart():
    means = np.array([[0.0, 0.2], [50.0, 0.0], [0.5, -0.1], [50.2, 9.0], [49.8, 0.1], [0.1, 0.0], [0.2, 0.1]])
    found = regions(means, np.array([1.0, 1.0]), np.arange(7.0))
    assert [(r["chains"], r["coordinate"], round(r["centre"], 3)) for r in found] == [
        (4, 0, 0.2),
        (2, 0, 49.9),
        (1, 0, 50.2),
    ]
    assert [r["height"] for r in found] == [3.25, 2.5, 3.0]
    assert regions(means[[0, 2, 5]], np.ones(2), np.zeros(3)) == []
    assert regions(np.linspace(0.0, 10.0, 8)[:, None], np.ones(1), np.zeros(8)) == []  # spread out, but no gap
    assert regions(np.zeros((1, 2)), np.ones(2), np.zeros(1)) == []


@pytest.mark.parametrize("weight", [0.5, 0.1])
def test_separated_modes_are_kept_and_named(weight):
    target = mixture((1 - weight, [-20.0, 0.0], 1.0), (weight, [20.0, 0.0], 1.0))
    draws = sample(PooledHMC(draws=100, max_draws=100), target, seed=1)
    counts = np.bincount((draws.positions[:, :, 0] > 0).sum(axis=1) // 100, minlength=2)
    assert counts.min() > 0 and draws.info["restarts"] == 0
    found = draws.info["regions"]
    assert sorted(r["chains"] for r in found) == sorted(counts.tolist())
    assert sorted(round(r["centre"] / 20) for r in found) == [-1, 1]
    text = " ".join(draws.info["warnings"])
    assert "2 regions and none goes from one to another" in text and "not the modes' probabilities" in text
    assert "the scale depends on the position" not in text


def test_a_mode_of_equal_mass_and_hundredfold_width_is_not_deleted():
    """In 10 dimensions it lies 46 nats lower; its volume makes up for that, and a window shows the volume."""
    narrow, wide = np.full(10, -20.0), np.full(10, 400.0)
    target = mixture((0.5, narrow, 1.0), (0.5, wide, 100.0))
    rng = np.random.default_rng(0)
    init = np.where(
        np.arange(16)[:, None] < 8, narrow + rng.normal(size=(16, 10)), wide + 100 * rng.normal(size=(16, 10))
    )
    draws = sample(PooledHMC(draws=100, max_draws=100), target, seed=2, init=init)
    assert ((draws.positions[..., 0] > 100).mean(axis=1) > 0.5).sum() >= 6  # all but those that still travelled
    assert len(draws.info["regions"]) == 2
    text = " ".join(draws.info["warnings"])
    assert "2 regions" in text and "log scale" not in text


def test_a_narrow_peak_within_a_wide_one_is_weighed_rightly_or_reported():
    """P(|z| < 0.3) = 0.5 (0.9973 + 0.2358); |error| < 0.06 is four standard errors at an ESS of 1000."""
    draws = sample(PooledHMC(max_draws=1000), mixture((0.5, [0.0], 0.1), (0.5, [0.0], 1.0)), seed=3)
    assert abs((np.abs(draws.positions) < 0.3).mean() - 0.6166) < 0.06
    hopeless = sample(
        PooledHMC(draws=200, max_draws=200), mixture((0.5, [0.0] * 2, 0.01), (0.5, [0.0] * 2, 1.0)), seed=3
    )
    assert any("not converged" in text for text in hopeless.info["warnings"])


def test_chains_that_go_on_sticking_are_reported():
    """A step at which chains stick is halved four times at most; what then remains is said."""
    table = np.full((1000, 16), 0.9)
    table[:, :3] = 0.1
    watch = Watch(np.zeros(16))
    for start in range(0, 1000, 10):
        watch, _ = watched(watch, table[start : start + 10], start + 10)
    assert watch.last == 30
    assert watched(replace(watch, sums=np.zeros(16)), np.full((10, 16), 0.9), 1010)[0].last == 30


class Window:
    """The parts of a window that the rules read."""

    def __init__(self, z, height):
        self.positions, self.log_density, self.dim = z, height, z.shape[-1]

    def acceptance(self):
        return np.full(self.log_density.shape, 0.9)


def test_a_chain_on_its_way_is_judged_by_height_whatever_way_it_made():
    """The spread of a settled chain is a volume, that of one whose log density climbs is not."""
    rng = np.random.default_rng(4)
    z = rng.normal(size=(40, 4, 4))
    height = -0.5 * (z**2).sum(-1)
    z[:, 3] *= 1000.0
    height[:, 3] -= 27.0  # ln 1000^4 = 27.6: the same mass
    assert not stuck_chains(Window(z, height))[0].any()
    height[:, 3] += np.linspace(-20.0, 20.0, 40)  # travelling: 27 is above 10 + 3 sqrt(4) + 2 d = 24
    assert stuck_chains(Window(z, height))[0].tolist() == [False, False, False, True]


def test_modes_that_are_given_up_are_reported():
    class Carry:
        window = 3

    z = np.zeros((5, 4, 1))
    height = np.broadcast_to([0.0, 0.0, -50.0, 0.0], (5, 4))
    low = np.array([False, False, True, False])
    assert "50 nats below the others" in left(Carry(), Window(z, height), low, 0.0)[0]
    assert left(Carry(), Window(z, height), np.zeros(4, bool), 0.0) == []
    Carry.window = 1
    assert left(Carry(), Window(z, height), low, 0.0) == []
