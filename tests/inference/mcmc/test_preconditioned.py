"""Kernels in the coordinates of a proposal: the same moves as with its covariance as metric, and warm starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference import infer, laplace
from ppl.inference.core import as_density
from ppl.inference.mcmc import HMC, Block, Chains, Cycle, Preconditioned, RandomWalk, Slice
from ppl.inference.mcmc.euclidean import Dense
from ppl.inference.mcmc.preconditioned import frame
from ppl.inference.mcmc.proposals import GaussianProposal
from ppl.inference.subject import make_subject, starts

RNG = np.random.default_rng(1)
AXES = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
COVARIANCE = AXES @ np.diag([1e4, 1.0, 1e-2, 1e-4]) @ AXES.T
FACTOR, MEAN = np.linalg.cholesky(COVARIANCE), np.array([3.0, 0.0, -1.0, 2.0])
TARGET = as_density(lambda z: -0.5 * (z - MEAN) @ np.linalg.inv(COVARIANCE) @ (z - MEAN), 4)
PROPOSAL = GaussianProposal(MEAN + 0.1, FACTOR)


class Empirical:
    """A proposal that can only be sampled and scored."""

    def sample(self, key):
        """Draw."""
        return PROPOSAL.sample(key)

    def log_prob(self, position):
        """Score."""
        return PROPOSAL.log_prob(position)


def test_moves_are_those_with_the_covariance_as_metric():
    key, start = jax.random.key(3), jnp.asarray(MEAN + FACTOR @ RNG.normal(size=4))
    step = jax.jit(lambda kernel: kernel.step(key, kernel.init(start, TARGET), TARGET))
    new, info = step(Preconditioned(PROPOSAL, HMC(0.3, steps=5)))
    truth, report = step(HMC(0.3, Dense(FACTOR), steps=5))
    np.testing.assert_allclose(np.linalg.solve(FACTOR, new.position - truth.position), 0.0, atol=1e-6)
    np.testing.assert_allclose(info.acceptance_rate, report.acceptance_rate, rtol=1e-6)
    np.testing.assert_allclose(new.log_density, TARGET(new.position), rtol=1e-12)


def test_a_kernel_without_a_metric_crosses_a_narrow_ridge():
    """Standard deviations from 0.01 to 100: means and variances within 4.5 standard errors by 40 chains."""
    engine = Chains(Preconditioned(PROPOSAL, Slice()), chains=40, warmup=0, draws=300, lane=40)
    fit = infer(TARGET, engine, init=PROPOSAL, seed=2, progress=False)
    u = np.linalg.solve(FACTOR, (np.asarray(fit.values["z"]) - MEAN).reshape(-1, 4).T).T.reshape(40, 300, 4)
    for rows, truth in ((u.mean(1), 0.0), ((u**2).mean(1), 1.0)):
        z = (rows.mean(0) - truth) / (rows.std(0, ddof=1) / np.sqrt(40))
        assert np.all(np.abs(z) < 4.5), z


def test_laplace_starts_and_preconditions_a_program():
    @ppl.model
    def regression(x):
        slope = ppl.sample("slope", dist.Normal(0.0, 10.0))
        sigma = ppl.sample("sigma", dist.HalfNormal(1.0))
        ppl.plate("i", lambda v: ppl.sample("y", dist.Normal(slope * v, sigma)), x)

    x = np.linspace(100.0, 200.0, 30)
    program = regression(x).condition(y=0.5 * x + np.random.default_rng(0).normal(size=30))
    near = laplace(program)
    engine = Chains(Preconditioned(near, HMC()), chains=4, warmup=100, draws=200)
    fit = infer(program, engine, init=near, seed=0, progress=False)
    slope = np.asarray(fit.values["slope"])
    sd = np.sqrt(near.covariance[0, 0])
    assert abs(slope.mean() - near.position[0]) < sd and 0.7 < slope.std() / sd < 1.5
    assert float(fit.sample_stats["acceptance_rate"].mean()) > 0.6


def test_every_chain_starts_at_its_own_draw():
    made = make_subject(TARGET)
    points = starts(made, PROPOSAL, 500, seed=1)
    np.testing.assert_array_equal(points[:3], starts(made, PROPOSAL, 3, seed=1))
    u = np.linalg.solve(FACTOR, (points - MEAN - 0.1).T)
    assert np.all(np.abs(u.mean(1)) < 4.5 / np.sqrt(500)) and np.all(np.abs(u.var(1) - 1.0) < 4.5 * np.sqrt(2 / 500))
    assert make_subject(lambda z: -z @ z, PROPOSAL).dim == 4


@pytest.mark.slow
def test_it_works_inside_of_a_block_and_around_a_cycle():
    inner = GaussianProposal(np.zeros(2), np.array([[1.0, 0.0], [0.5, 2.0]]))
    density = as_density(lambda z: -0.5 * z @ z, 4)
    for kernel in (
        Cycle(Block([0, 2], Preconditioned(inner, HMC(0.3, steps=3))), Block([1, 3], RandomWalk(step_size=1.0))),
        Preconditioned(PROPOSAL, Cycle(Block([0], Slice()), Block([1, 2, 3], RandomWalk(step_size=1.0)))),
    ):
        carry = Chains(kernel, chains=2, warmup=30, draws=5).start(0, density, np.full(4, 0.5))
        engine = Chains(kernel, chains=2, warmup=30, draws=5)
        carry, block, _ = engine.advance(carry, density, 30)
        assert np.all(np.std(block.positions, axis=1) > 0)


def test_frames_of_proposals():
    mean, factor = frame(Empirical())
    whitened = np.linalg.solve(FACTOR, factor)
    np.testing.assert_allclose(whitened @ whitened.T, np.eye(4), atol=0.25)
    np.testing.assert_allclose(np.linalg.solve(FACTOR, mean - MEAN - 0.1), 0.0, atol=0.2)
    with pytest.raises(TypeError, match="needs a proposal with sample"):
        frame(object())
    with pytest.raises(ValueError, match="4 coordinates, and the kernel is given 3"):
        Preconditioned(PROPOSAL, HMC()).expand(3, None)
    with pytest.raises(ValueError, match="codes of finite variables"):
        Preconditioned(PROPOSAL, HMC()).expand(4, as_density(lambda z: z[0], 4, finite=(2,)))
