"""The invariance test notices wrong kernels: each mutation here is a bug that was made somewhere before.

A mutant passes with a probability far below 1e-6; were the check blind, these tests would fail.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.inference.calibration.rank import rank_invariance
from ppl.inference.mcmc import HMC, NUTS, euclidean, hmc, nuts
from ppl.inference.mcmc.euclidean import Diagonal
from tests.oracles.targets import TARGETS, positive_log_density, simplex_log_density

BY_NAME = {target.name: target for target in TARGETS}


def judge(kernel, target, log_density=None, seed=3, replications=4096):
    """Rank test on a target; a fresh function each time, so that nothing compiled earlier is used."""
    density = log_density or target.log_density
    return rank_invariance(kernel, lambda z: density(z), target.sample, replications=replications, seed=seed)


def kernels(target):
    scale = Diagonal(target.scale)
    return [NUTS(target.step_size, scale, max_depth=6), HMC(target.step_size, scale, steps=5)]


@pytest.mark.parametrize("which", [0, 1], ids=["nuts", "hmc"])
@pytest.mark.parametrize("name, density", [("simplex", simplex_log_density), ("positive", positive_log_density)])
def test_dropped_log_determinant_is_caught(name, density, which):
    target = BY_NAME[name]
    result = judge(kernels(target)[which], target, lambda z: density(z, 0.0))
    assert not result.passed(1e-6), str(result)


@pytest.mark.parametrize("which", [0, 1], ids=["nuts", "hmc"])
def test_momentum_in_the_wrong_units_is_caught(monkeypatch, which):
    right = euclidean.draw_momentum
    monkeypatch.setattr(euclidean, "draw_momentum", lambda key, metric, like: right(key, metric, like) / metric.scale)
    target = BY_NAME["positive"]
    result = judge(kernels(target)[which], target)
    assert not result.passed(1e-6), str(result)


MUTANTS = {
    "new half always": ("keep_half", lambda u, part, weight: part > -jnp.inf),
    "uniform instead of weighted halves": ("keep_half", lambda u, part, weight: u < jnp.log(0.5)),
    "newest leaf always": ("keep_leaf", lambda u, leaf, part: part > -jnp.inf),
    "leaf against its predecessors": ("keep_leaf", lambda u, leaf, part: u < leaf),
    "ignore turns in sub-trees": ("half_turned", lambda leaf, first, previous: jnp.zeros((), bool)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_wrong_tree_is_caught(monkeypatch, mutant):
    name, function = MUTANTS[mutant]
    monkeypatch.setattr(nuts, name, function)
    target = BY_NAME["banana"]
    result = judge(kernels(target)[0], target, replications=8192)
    assert not result.passed(1e-6), str(result)


def test_hmc_without_metropolis_test_is_caught(monkeypatch):
    monkeypatch.setattr(hmc, "keep", lambda u, ratio: ratio > -jnp.inf)
    target = BY_NAME["funnel"]
    result = judge(kernels(target)[1], target)
    assert not result.passed(1e-6), str(result)


def test_lenient_reading_of_nan_is_caught(monkeypatch):
    """A bounded target, NaN outside: a kernel that took NaN for acceptance would leave the support."""
    log_density = lambda z: jnp.sum(jnp.where(z > 0, -z, jnp.nan))  # noqa: E731
    sample = lambda key: jax.random.exponential(key, (2,))  # noqa: E731
    kernel = HMC(0.5, steps=3)
    functions = lambda z: z  # noqa: E731
    fair = rank_invariance(kernel, lambda z: log_density(z), sample, functions, replications=2048)
    assert fair.passed(1e-4), str(fair)
    monkeypatch.setattr(hmc, "keep", lambda u, ratio: (u < ratio) | ~(ratio > -1e3))
    wrong = rank_invariance(kernel, lambda z: log_density(z), sample, functions, replications=2048)
    assert not wrong.passed(1e-6)
    assert np.all(np.isfinite(list(fair.p_values.values())))
