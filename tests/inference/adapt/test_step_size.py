"""Dual averaging against a transcription of its recursion and against its fixed point; the first guess."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.inference.adapt.step_size import StepSize, reasonable
from ppl.inference.mcmc import HMC


def test_matches_the_published_recursion():
    """Algorithm 5 of Hoffman and Gelman, with H summed afresh each time."""
    rates = np.random.default_rng(0).uniform(size=30)
    adapter, kernel = StepSize(0.7), HMC(step_size=np.array(0.3))
    memory = adapter.init(kernel, None)
    log_mean = 0.0
    for t, rate in enumerate(rates, 1):
        memory, kernel = adapter.learn(memory, kernel, rate)
        error = 0.0
        for s in range(1, t + 1):
            weight = 1 / (s + 10)
            error = (1 - weight) * error + weight * (0.7 - rates[s - 1])
        log_step = np.log(3.0) - np.sqrt(t) / 0.05 * error
        log_mean = t**-0.75 * log_step + (1 - t**-0.75) * log_mean
        np.testing.assert_allclose(np.log(kernel.step_size), log_step)
    np.testing.assert_allclose(np.log(adapter.final(memory, kernel).step_size), log_mean)


@pytest.mark.parametrize("target", [0.6, 0.8, 0.95])
def test_converges_to_the_target_acceptance(target):
    """Acceptance exp(-step) plus noise: the step must approach -log(target)."""
    rng = np.random.default_rng(1)
    adapter, kernel = StepSize(target), HMC(step_size=np.array(5.0))
    memory = adapter.init(kernel, None)
    for _ in range(3000):
        rate = np.clip(np.exp(-kernel.step_size) + 0.05 * rng.normal(), 0, 1)
        memory, kernel = adapter.learn(memory, kernel, rate)
    final = adapter.final(memory, kernel).step_size
    assert abs(np.exp(-final) - target) < 0.02


def test_same_numbers_inside_a_program():
    adapter, kernel = StepSize(0.8), HMC(step_size=np.array(0.2))
    rates = np.array([0.3, 0.9, np.nan, 1.0])
    memory = adapter.init(kernel, None)
    host = kernel
    for rate in rates:
        memory, host = adapter.learn(memory, host, rate)

    @jax.jit
    def program(kernel, rates):
        memory = adapter.init(kernel, None)
        for i in range(4):
            memory, kernel = adapter.learn(memory, kernel, rates[i])
        return memory, kernel.step_size

    inside, step = program(HMC(step_size=jnp.array(0.2)), rates)
    np.testing.assert_allclose(step, host.step_size, rtol=1e-12)
    np.testing.assert_allclose(jax.tree.leaves(inside), jax.tree.leaves(memory), rtol=1e-12)
    assert type(host.step_size) in (np.ndarray, np.float64)  # the host path stays on the host


def test_nan_counts_as_rejection():
    adapter, kernel = StepSize(), HMC(step_size=np.array(0.2))
    memory = adapter.init(kernel, None)
    nan, zero = (adapter.learn(memory, kernel, np.array(rate))[1].step_size for rate in (np.nan, 0.0))
    assert nan == zero < 2.0


def test_no_transition_leaves_the_step():
    adapter, kernel = StepSize(), HMC(step_size=np.array(0.2))
    assert adapter.final(adapter.init(kernel, None), kernel).step_size == 0.2


def test_guess_crosses_from_either_side_and_chains_do_not_mix():
    limits = np.array([0.01, 3.0, 700.0])
    trial = lambda step, attempt: -((step / limits) ** 2)  # noqa: E731
    steps = reasonable(trial, np.ones(3))
    cross = np.sqrt(-np.log(0.8)) * limits
    assert np.all((steps > 0.49 * cross) & (steps < 2.01 * cross))
    for i in range(3):
        alone = reasonable(lambda step, attempt, i=i: -((step / limits[i]) ** 2), np.ones(1))
        assert alone[0] == steps[i]


@pytest.mark.parametrize("ratio, words", [(0.0, "flat"), (-np.inf, "gradient")])
def test_guess_gives_up_with_a_reason(ratio, words):
    calls = []

    def trial(step, attempt):
        calls.append(attempt)
        return np.full(2, ratio)

    with pytest.raises(ValueError, match=words):
        reasonable(trial, np.ones(2))
    assert len(calls) == 61
