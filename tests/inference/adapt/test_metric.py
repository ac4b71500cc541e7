"""Welford's moments against np.cov, the regularisation, and the schedule of windows."""

import jax
import numpy as np
import pytest

from ppl.inference.adapt.metric import Moments, Variance, accumulate, merge, windows
from ppl.inference.mcmc import NUTS
from ppl.inference.mcmc.euclidean import State

RNG = np.random.default_rng(0)
DRAWS = 1e6 + RNG.normal(size=(40, 3)) @ RNG.normal(size=(3, 3))  # far from zero: naive sums would cancel


def learn(kernel, draws):
    adapter = Variance()
    memory = adapter.init(kernel, State(draws[0], 0.0, draws[0]))
    for z in draws:
        memory, _ = adapter.update(memory, kernel, State(z, 0.0, z), None)
    return adapter, memory


@pytest.mark.parametrize("dense", [False, True])
def test_moments_equal_numpy(dense):
    _, memory = learn(NUTS(dense=dense).expand(3), DRAWS)
    exact = np.cov(DRAWS.T)
    np.testing.assert_allclose(memory.squares / 39, exact if dense else np.diag(exact), rtol=1e-7)
    np.testing.assert_allclose(memory.mean, DRAWS.mean(0), rtol=1e-13)


@pytest.mark.parametrize("dense", [False, True])
def test_merged_chains_equal_one_long_chain(dense):
    kernel = NUTS(dense=dense).expand(3)
    parts = [learn(kernel, part)[1] for part in (DRAWS[:7], DRAWS[7:25], DRAWS[25:])]
    together, whole = merge(parts), learn(kernel, DRAWS)[1]
    np.testing.assert_allclose(together.squares, whole.squares, rtol=1e-6, atol=1e-6)
    assert together.count == 40


@pytest.mark.parametrize("dense", [False, True])
def test_metric_is_the_regularised_covariance(dense):
    kernel = NUTS(dense=dense).expand(3)
    adapter, memory = learn(kernel, DRAWS)
    metric = adapter.final(memory, kernel).metric
    exact = 40 / 45 * np.cov(DRAWS.T) + 1e-3 * 5 / 45 * np.eye(3)
    if dense:
        np.testing.assert_allclose(metric.factor @ metric.factor.T, exact, rtol=1e-6)
    else:
        np.testing.assert_allclose(metric.scale**2, np.diag(exact), rtol=1e-6)


@pytest.mark.parametrize("dense", [False, True])
def test_same_numbers_inside_a_program(dense):
    kernel = NUTS(dense=dense).expand(3)
    adapter, memory = learn(kernel, DRAWS - 1e6)

    @jax.jit
    def program(kernel, draws):
        memory = adapter.init(kernel, State(draws[0], 0.0, draws[0]))
        body = lambda i, m: accumulate(m, draws[i])  # noqa: E731
        return adapter.final(jax.lax.fori_loop(0, len(draws), body, memory), kernel)

    inside = jax.tree.leaves(program(kernel, DRAWS - 1e6).metric)
    for a, b in zip(inside, jax.tree.leaves(adapter.final(memory, kernel).metric), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


def test_one_draw_leaves_the_metric():
    kernel = NUTS().expand(2)
    memory = Moments(np.array(1.0), np.ones(2), np.zeros(2))
    assert Variance().final(memory, kernel).metric.scale.tolist() == [1.0, 1.0]


def test_default_schedule_is_stans():
    edges = [(w.start, w.stop, w.slow) for w in windows(1000)]
    slow = [(75, 100), (100, 150), (150, 250), (250, 450), (450, 950)]
    assert edges == [(0, 75, False), *[(a, b, True) for a, b in slow], (950, 1000, False)]


@pytest.mark.parametrize("warmup", [0, 1, 19, 20, 50, 149, 150, 151, 200, 333, 1000, 5000])
def test_windows_cover_the_warm_up_without_a_gap(warmup):
    cut = windows(warmup)
    assert [w.start for w in cut] == [0, *[w.stop for w in cut[:-1]]][: len(cut)]
    assert (cut[-1].stop if cut else 0) == warmup
    assert all(w.stop > w.start for w in cut)
    assert any(w.slow for w in cut) == (warmup >= 20)
