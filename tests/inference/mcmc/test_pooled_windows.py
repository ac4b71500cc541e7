"""What the host makes of a finished warm-up window."""

from dataclasses import replace

import numpy as np
import pytest

from ppl.inference.adapt.fisher import Metric, scaled
from ppl.inference.mcmc import pooled_warmup as warmup
from ppl.inference.mcmc.pooled_stuck import first_step
from ppl.inference.mcmc.pooled_warmup import Carry

CHAINS, DIM = 8, 2


def carry(window, change=0.0, scale=1.0, log_step=-1.0, seed=0, **fields):
    """A window of draws of N(0, scale^2) with unit metric; ``change`` is the energy change of every proposal."""
    rng = np.random.default_rng(seed)
    length = warmup.WINDOWS[window]
    z = scale * rng.normal(size=(length, CHAINS, DIM))
    g = -z / scale**2
    lp = -0.5 * np.sum((z / scale) ** 2, axis=-1, keepdims=True)
    rest = np.broadcast_to([change, log_step, 4.0], (length, CHAINS, 3))
    rows = np.concatenate([z, g, lp, rest], axis=-1)
    return Carry(
        seed=0,
        stage="window",
        state=rows[-1, :, : 2 * DIM + 1],
        goal=10,
        metric=scaled(np.ones(DIM), True),
        log_step=log_step,
        window=window,
        rows=rows,
        **fields,
    )


def test_the_metric_becomes_that_of_the_draws():
    """From a unit metric to 9 I, and a little more: winsorised gradients look small in two dimensions."""
    after = warmup.end_window(carry(5, scale=3.0), restart=True)
    np.testing.assert_allclose(after.metric.covariance(), 10 * np.eye(DIM), atol=1.0)
    assert after.rows is None


def test_where_nobody_moves_the_step_shrinks_and_the_metric_stays():
    before = carry(3, change=-1e9, log_step=-4.0)
    after = warmup.end_window(before, restart=True)
    assert after.metric is before.metric and after.log_step == -4.0 and after.window == 4
    np.testing.assert_array_equal(after.state, before.state)
    assert "no chain moves" in after.log[-1]


def test_first_windows_keep_the_step_from_collapsing():
    assert warmup.end_window(carry(0, log_step=-5.0), True).log_step == pytest.approx(np.log(first_step(DIM)))
    assert warmup.end_window(carry(2, log_step=-5.0), True).log_step == pytest.approx(-5.0)


def test_long_directions_lengthen_trajectories_threefold_at_most():
    """With draws ten times as wide as the metric says, sqrt(lA) is 10: the length is capped at 3 x 1.75."""
    assert warmup.end_window(carry(5, scale=10.0), True).length == pytest.approx(3 * warmup.LENGTH)
    assert warmup.end_window(carry(5, scale=1.0), True).length == pytest.approx(warmup.LENGTH, rel=0.1)
    assert warmup.end_window(carry(0, scale=10.0), True).length == warmup.LENGTH  # too early to tell


def test_warm_up_ends_when_height_and_fit_have_settled():
    def stage(window, **fields):
        return warmup.end_window(carry(window, **fields), True).stage

    settled = dict(height=-1.0, fit=1.2)
    assert stage(2, **settled) == "step"
    assert stage(1, **settled) == "window"  # never before the third
    assert stage(2, height=-50.0, fit=1.2) == "window"
    assert stage(2, height=None, fit=1.2) == "window"
    # the metric still improves: three leapfrogs per draw now, nine before
    wide = carry(2, scale=3.0, height=-1.0, fit=9.0)
    stretched = wide.rows.copy()
    stretched[..., 0] *= 3.0
    assert warmup.end_window(replace(wide, rows=stretched), True).stage == "window"


def test_the_last_window_ends_warm_up_with_a_warning():
    after = warmup.end_window(carry(len(warmup.WINDOWS) - 1, height=-50.0), True)
    assert after.stage == "step" and "did not settle" in after.warnings[0]


def test_the_step_stage_freezes_the_mean_of_its_last_two_thirds():
    before = replace(carry(0), stage="step")
    before.rows[:, :, -2] = np.where(np.arange(10) < 3, -9.0, -0.5)[:, None]
    after = warmup.end_step_stage(before)
    assert after.log_step == pytest.approx(-0.5) and after.stage == "sampling"
    np.testing.assert_allclose(after.moments.centre, before.rows[..., :DIM].mean(axis=(0, 1)))


def test_jitter_is_even_and_gains_decay_within_a_stage():
    plan = np.concatenate([warmup.schedule("window", i, i) for i in range(0, 100, 10)])
    np.testing.assert_allclose(plan[:, 0].mean(), 1.0, atol=0.01)
    assert 0.3 <= plan[:, 0].min() < 0.33 and 1.67 < plan[:, 0].max() <= 1.7
    np.testing.assert_allclose(plan[[0, 62], 1], [3 / 2**0.6, 3 / 64**0.6])
    np.testing.assert_allclose(warmup.schedule("step", 200, 0)[0, 1], 1.5 / 3**0.6)
    assert (warmup.schedule("sampling", 200, 5)[:, 1] == 0).all()


def wide(correlation, dim=60, seed=0, **fields):
    """The fourth window of sixteen chains on a Gaussian with unit scales, equal correlations and a dense metric."""
    rng = np.random.default_rng(seed)
    covariance = correlation * np.ones((dim, dim)) + (1 - correlation) * np.eye(dim)
    lower = np.linalg.cholesky(covariance)
    z = rng.normal(size=(warmup.WINDOWS[3], 16, dim)) @ lower.T
    g = -z @ np.linalg.inv(covariance)
    rest = np.broadcast_to([0.0, -1.0, 4.0], (*z.shape[:2], 3))
    rows = np.concatenate([z, g, rng.normal(-60.0, 3.0, (*z.shape[:2], 1)), rest], axis=-1)
    metric = Metric(lower, np.linalg.inv(lower))
    diagonal = scaled(np.sqrt(np.sqrt(1 / np.diag(np.linalg.inv(covariance)))), False)
    return Carry(0, "window", rows[-1, :, : 2 * dim + 1], 10, metric, diagonal, -1.0, window=3, rows=rows, **fields)


def test_a_diagonal_metric_is_taken_where_it_promises_nearly_as_much():
    settled = dict(height=-60.0, fit=1.2)
    after = warmup.end_window(wide(0.0, **settled), True, 1.35)
    assert after.metric.kind == "diagonal" and after.stage == "window"  # and the step size is learned anew
    assert any("diagonal metric from here" in line for line in after.log)
    kept = warmup.end_window(wide(0.9, **settled), True, 1.35)
    assert kept.metric.kind == "dense" and kept.stage == "step" and kept.diagonal is not None
    assert warmup.end_window(wide(0.0, **settled), True, 0.0).metric.kind == "dense"
    early = replace(wide(0.0, **settled), window=1)  # too few draws to hold noise against the dense metric
    assert warmup.end_window(early, True, 1.35).metric.kind == "dense"
