"""The battery is red for wrong kernels: in each, one plausible bug is re-injected.

A mutant passes with a probability far below 1e-6; were the battery blind, these tests would fail. The correct kernel
passes in test_battery.py on the same target.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.inference.calibration.rank import rank_invariance
from ppl.inference.core import as_density
from ppl.inference.mcmc import (
    Block,
    Cycle,
    EllipticalSlice,
    Slice,
    barker,
    elliptical,
    independence,
    mala,
    metropolis,
    microcanonical,
    slice,
)
from tests.inference.mcmc.battery import ROWS, judge
from tests.oracles.targets import BY_NAME, nested_log_density

ROW = {row.name: row for row in ROWS}


def turn_with(freedom, change):
    """``microcanonical.turn`` with another number of degrees of freedom and a multiple of the change of weight."""
    right = microcanonical.turn

    def wrong(direction, gradient, time):
        factor = (direction.shape[0] - 1.0) / (direction.shape[0] - 1.0 + freedom)
        direction, weight = right(direction, factor * gradient, time)
        return direction, change * weight / factor

    return wrong


def both(low, high, t):
    """An interval that shrinks at either end, whichever end the miss lay on."""
    return jnp.maximum(low, -jnp.abs(t)), jnp.minimum(high, jnp.abs(t))


SUBTLE = ("slice, both", "barker, old")  # nearly right: these take more replications to see

MUTANTS = {
    "mala, no proposal correction": ("mala", "bimodal", mala, "correction", lambda noise, back: 0.0),
    "mala, gradient of the proposal forgotten": (
        "mala",
        "bimodal",
        mala,
        "reverse_noise",
        lambda noise, push, push_back: -(noise + 2 * push),
    ),
    "barker, no proposal correction": ("barker", "banana", barker, "correction", lambda change, forth, back: 0.0),
    "barker, old gradient for the way back": (
        "barker",
        "banana",
        barker,
        "correction",
        lambda change, forth, back: jnp.sum(jax.nn.softplus(-change * forth) - jax.nn.softplus(change * forth)),
    ),
    "random walk, always accepted": ("random-walk", "banana", metropolis, "keep", lambda u, ratio: ratio > -jnp.inf),
    "random walk, Barker's acceptance by mistake": (
        "random-walk",
        "banana",
        metropolis,
        "keep",
        lambda u, ratio: u < 0.5 * ratio,
    ),
    "slice, share of the log density as height": ("slice", "banana", slice, "height", lambda value, u: value * u),
    "slice, both ends shrunk": ("slice-axes", "bimodal", slice, "shrunk", both),
    "slice, outside of the support counts": (
        "slice",
        "support",
        slice,
        "inside",
        lambda new, level: ~(new.log_density < jnp.maximum(level, -1e300)) | ~jnp.isfinite(new.log_density),
    ),
    "elliptical, first angle always taken": (
        "elliptical",
        "banana",
        elliptical,
        "inside",
        lambda new, level: jnp.isfinite(new.log_density),
    ),
    "elliptical, prior counted twice": ("elliptical", "banana", elliptical, "unspread", lambda factor, x: 0.0 * x),
    "independence, no proposal correction": (
        "independence",
        "banana",
        independence,
        "log_weight",
        lambda state: state.log_density,
    ),
    "mams, weight of the turns forgotten": ("mams", "banana", microcanonical, "turn", turn_with(0.0, 0.0)),
    "mams, weight of the turns doubled": (
        "mams",
        "positive",
        microcanonical,
        "turn",
        turn_with(0.0, 2.0),
    ),
    "mclmc, d for d - 1": ("mclmc", "bimodal", microcanonical, "turn", turn_with(1.0, 1.0)),
}

FAST = (
    "barker, no",
    "independence",
    "mams, weight of the turns forgotten",
)


@pytest.mark.parametrize(
    "mutant", [pytest.param(m, marks=() if m.startswith(FAST) else pytest.mark.slow) for m in MUTANTS]
)
def test_mutant_is_caught(monkeypatch, mutant):
    row, target, module, name, wrong = MUTANTS[mutant]
    monkeypatch.setattr(module, name, wrong)
    options = {} if row != "mclmc" else {"steps": 60}
    result = judge(ROW[row], target, replications=50_000 if mutant.startswith(SUBTLE) else 4096, seed=3, **options)
    assert not result.passed(1e-6), str(result)


NAMES = ("mala", "barker", "random-walk", "slice", "elliptical", "independence", "mams")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "random-walk" else pytest.mark.slow) for n in NAMES])
def test_dropped_log_determinant_is_caught(name):
    target = BY_NAME["nested"]
    wrong = lambda z: nested_log_density(z, jacobian=0.0)  # noqa: E731
    result = rank_invariance(ROW[name].kernel(target), wrong, target.sample, replications=4096, seed=3)
    assert not result.passed(1e-6), str(result)


@pytest.mark.parametrize("stale", [pytest.param(False, marks=pytest.mark.slow), True])
def test_stale_prior_mean_of_a_block_is_caught(stale):
    """x | mu ~ N(mu, 1), the likelihood given apart: a Gaussian with the mean of an earlier mu is a wrong kernel."""
    likelihood = lambda x: -jnp.sum((4.0 - x) ** 2)  # noqa: E731
    density = as_density(lambda z: -0.5 * (z[0] / 2) ** 2 - 0.5 * (z[1] - z[0]) ** 2 + likelihood(z[1:]), 2)

    def held(conditional):
        return conditional.position[:1], 1.0

    prior = {"mean": 1.0} if stale else {"prior": held}
    inner = EllipticalSlice(likelihood=likelihood, **prior)
    covariance = np.linalg.inv(np.array([[0.25 + 1.0, -1.0], [-1.0, 1.0 + 2.0]]))
    mean, factor = covariance @ np.array([0.0, 8.0]), np.linalg.cholesky(covariance)
    kernel = Cycle(Block([0], Slice()), Block([1], inner)).expand(2, density)
    result = rank_invariance(
        kernel,
        density,
        lambda key: mean + factor @ jax.random.normal(key, (2,)),
        replications=2048,
        reversible=False,
        seed=1,
    )
    assert result.passed(1e-4) if not stale else not result.passed(1e-6), str(result)
