"""Exact blocks leave the joint law of a model invariant, and so do Gibbs kernels beside them.

Without observations the posterior of a model is its prior, which can be drawn from: all sites, those that would be data
among them, start at an exact draw and are moved in blocks. Rank tests; false alarm 1e-4 each.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppl
from ppl import dist
from ppl.inference.calibration.rank import rank_invariance
from ppl.inference.core import as_density
from ppl.inference.mcmc import Block, Cycle, Exact, Gibbs, LocallyInformed
from ppl.inference.mcmc import exact as module

pytestmark = pytest.mark.standard_promotion


@ppl.model
def mixture():
    """Unequal weights and means, three competing states, a mean and a precision that all rows share."""
    mu = ppl.sample("mu", dist.Normal(jnp.array([-1.0, 0.5, 2.0]), jnp.array([0.5, 1.0, 0.7])).to_event(1))
    tau = ppl.sample("tau", dist.Gamma(3.0, 2.0))

    @ppl.plate("row", 3)
    def rows(_):
        k = ppl.sample("k", dist.Categorical(jnp.array([0.2, 0.5, 0.3])))
        ppl.sample("y", dist.Normal(mu[k], 1 / jnp.sqrt(tau)))


@ppl.model
def chain():
    p = ppl.sample("p", dist.Beta(2.0, 4.0))

    def step(z, t):
        z = ppl.sample("z", dist.Categorical(jnp.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4]])[z]))
        ppl.sample("y", dist.Binomial(4, jnp.clip(p * (1.0 + z) / 3.0, 1e-6, 1.0 - 1e-6)))
        return z

    ppl.markov("t", step, init=1, xs=4)


def judged(program, kernel, replications=3000, seed=5):
    density = ppl.compile(program, marginalize=False)
    functions = lambda z: jnp.concatenate([z, z * jnp.roll(z, 1), density(z)[None]])  # noqa: E731
    settings = {"replications": replications, "steps": 3, "seed": seed, "reversible": False}
    return rank_invariance(kernel, density, density.prior, functions, **settings)


def blocks(*names, **others):
    return Cycle(*(Block(name, others.get(name, Exact())) for name in names))


@pytest.mark.slow
def test_exact_blocks_of_a_mixture_and_its_data_leave_it_invariant():
    result = judged(mixture(), blocks("k", "mu", "tau", "y"), replications=20_000)
    assert result.passed(1e-4), str(result)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [Gibbs(), Gibbs("random", True), LocallyInformed(flips=3)], ids=str)
def test_kernels_of_codes_beside_exact_blocks_leave_it_invariant(kernel):
    result = judged(mixture(), blocks("k", "mu", "tau", "y", k=kernel), replications=20_000)
    assert result.passed(1e-4), str(result)


@pytest.mark.slow
def test_gibbs_in_each_element_of_a_plate_leaves_it_invariant():
    kernel = Cycle(Block("k", Gibbs(), each="row"), Block(["mu", "y"], Exact()), Block("tau", Exact()))
    result = judged(mixture(), kernel, replications=20_000)
    assert result.passed(1e-4), str(result)


@pytest.mark.slow
def test_exact_blocks_of_a_chain_leave_it_invariant():
    kernel = Cycle(Block("z", Exact()), Block("y", Exact()), Block("z", Gibbs()))
    result = judged(chain(), kernel, replications=20_000)
    assert result.passed(1e-4), str(result)


@pytest.mark.slow
def test_a_law_at_a_stale_position_is_caught(monkeypatch):
    """Laws that take the means to be where they started, zero, and not where the block before has put them."""

    def stale(self, position, density):
        return density.conditional(None, position) if not hasattr(density, "merge") else held(density, position)

    def held(density, position):
        elsewhere = jnp.where(jnp.arange(density.position.shape[0]) < 3, 0.0, density.position)  # mu forgotten
        return replace(density, position=elsewhere).conditional(None, position)

    monkeypatch.setattr(module.Exact, "law", stale)
    result = judged(mixture(), blocks("k", "mu", "tau", "y"))
    assert not result.passed(1e-6), str(result)


def test_densities_without_conditionals_are_refused():
    with pytest.raises(ValueError, match=r"asks the density for its conditional.*Gibbs\(\)"):
        Exact().init(np.zeros(2), as_density(lambda z: -(z @ z), 2))


def test_elements_apart_have_no_conditional_of_their_own():
    density = ppl.compile(mixture(), marginalize=False)
    with pytest.raises(ValueError, match=r"all elements of a plate at once: Block\(names, Exact\(\)\) without each="):
        Block("k", Exact(), each="row").init(np.zeros(density.dim), density)


def test_a_step_lowers_for_accelerators():
    density = ppl.compile(mixture(), marginalize=False)
    kernel = blocks("k", "mu", "tau")
    step = jax.jit(lambda words, z: kernel.step(jax.random.wrap_key_data(words), kernel.init(z, density), density)[0])
    args = jax.ShapeDtypeStruct((2,), jnp.uint32), jax.ShapeDtypeStruct((density.dim,), jnp.float64)
    assert step.trace(*args).lower(lowering_platforms=("cuda", "tpu")).as_text()
