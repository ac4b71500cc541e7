"""Starting points: the ladder, the lockstep ascent, and the failure that explains itself."""

import numpy as np
import pytest

from ppl.inference.mcmc import start


def rng(number):
    return np.random.default_rng([7, number])


def gaussian(precision, mean=0.0):
    def evaluate(z):
        g = -(z - mean) @ precision
        return 0.5 * np.sum(g * (z - mean), axis=1), g

    return evaluate


def spd(dim, decades):
    generator = np.random.default_rng(0)
    q, _ = np.linalg.qr(generator.normal(size=(dim, dim)))
    return (q * 10.0 ** np.linspace(-decades, decades, dim)) @ q.T


@pytest.mark.parametrize("dim", [1, 2, 12])
def test_ascent_reaches_the_typical_height_of_a_gaussian(dim):
    """Stopping at g'Hg < d leaves a chain within a few d of the mode, also when badly scaled."""
    found = start.find_start(gaussian(spd(dim, 1.0), mean=5.0), rng, (8, dim))
    assert np.quantile(found.log_density, 0.9) > -3.0 * dim - 3.0
    assert found.evaluations <= 151
    curvature = np.sum(found.steps * found.changes, axis=1)
    assert (curvature > 0).all()


def test_ascent_stops_below_the_mode_but_not_far():
    """Draws lie d/2 nats below the mode; chains started 1e5 nats down stop between 0 and 2 d nats below it."""
    dim = 30
    evaluate = gaussian(np.diag(10.0 ** np.linspace(-0.7, 0.7, dim)))
    z = rng(1).normal(size=(16, dim)) * 80.0
    _, height, *_ = start.ascend(evaluate, z, *evaluate(z))
    assert (height > -2.0 * dim).all() and np.median(height) < -1e-3


def test_steps_that_fail_are_tried_again_shorter():
    evaluate = gaussian(np.eye(2) * 1e6)
    z = np.full((4, 2), 2e-3)  # the first step, of length one, goes a thousand scales too far
    _, height, *_ = start.ascend(evaluate, z, *evaluate(z), iterations=15)
    assert (height > -1.0).all()


def test_two_loop_recursion_is_the_dense_quasi_newton_formula():
    generator = np.random.default_rng(1)
    precision = spd(4, 0.5)
    memory = start.Memory.empty(2, 3, 4)
    pairs = []
    for _ in range(5):  # the first two are forgotten
        s = generator.normal(size=(2, 4))
        y = s @ precision
        assert memory.store(np.array([True, True]), s, y).all()
        pairs.append((s, y))
    g = generator.normal(size=(2, 4))
    direction, slope = memory.direction(g)
    for c in range(2):
        s, y = pairs[-1][0][c], pairs[-1][1][c]
        h = np.eye(4) * (s @ y) / (y @ y)
        for all_s, all_y in pairs[-3:]:
            s, y = all_s[c], all_y[c]
            v = np.eye(4) - np.outer(y, s) / (s @ y)
            h = v.T @ h @ v + np.outer(s, s) / (s @ y)
        np.testing.assert_allclose(direction[c], h @ g[c], rtol=1e-10)
        np.testing.assert_allclose(slope[c], g[c] @ h @ g[c], rtol=1e-10)


def test_negative_curvature_is_not_stored():
    memory = start.Memory.empty(2, 3, 2)
    s = np.array([[1.0, 0.0], [1.0, 0.0]])
    y = np.array([[1.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_array_equal(memory.store(np.array([True, True]), s, y), [True, False])
    direction, slope = memory.direction(np.array([[3.0, 4.0], [3.0, 4.0]]))
    np.testing.assert_allclose(direction[1], [0.6, 0.8])  # no pairs: the unit gradient
    assert slope[1] == pytest.approx(5.0)


def half_line(z):
    """An exponential with a hard wall at zero in every coordinate."""
    lp = np.where((z > 0).all(axis=1), -z.sum(axis=1), -np.inf)
    return lp, np.where(np.isfinite(lp)[:, None], -np.ones_like(z), 0.0)


def test_inadmissible_chains_are_drawn_again():
    found = start.find_start(half_line, rng, (16, 3))
    assert (found.positions > 0).all() and np.isfinite(found.log_density).all()
    assert any("inadmissible" in line for line in found.log)
    assert len(np.unique(found.positions[:, 0])) > 8


def narrow(z):
    inside = np.abs(z[:, 0] - 100.0) < 1.0
    return np.where(inside, -0.5 * (z[:, 0] - 100.0) ** 2, -np.inf), np.where(inside[:, None], 100.0 - z, 0.0)


def test_the_prior_is_asked_when_uniform_draws_fail():
    found = start.find_start(narrow, rng, (4, 1), prior=lambda n: rng(n).normal(100.0, 0.5, size=(4, 1)))
    assert (np.abs(found.positions - 100.0) < 1.0).all()
    assert any("the prior" in line for line in found.log)


def test_an_improper_prior_is_said_and_failure_explains_itself():
    def prior(_):
        raise ValueError("beta has no proper prior")

    def raw(z):
        lp, _ = narrow(z)
        return np.where(np.abs(z[:, 0]) < 0.2, np.nan, lp), np.full(z.shape, np.nan)

    with pytest.raises(start.StartError, match="beta has no proper prior") as caught:
        start.find_start(narrow, rng, (4, 1), prior=prior, explain=raw)
    error = caught.value
    assert error.position.shape == (1,) and abs(error.position[0]) > 0.2  # -inf explains more than NaN
    assert error.log_density == -np.inf and np.isnan(error.gradient).all()
    assert len(error.log) > 5


def test_one_admissible_chain_is_enough_and_said():
    def evaluate(z):
        lp, g = gaussian(np.eye(2))(z)
        lp[1:] = -np.inf
        return lp, g

    found = start.find_start(evaluate, rng, (3, 2))
    assert any("another chain's" in line for line in found.log)


def test_init_is_kept_where_it_is_good_and_left_where_it_is_hopeless():
    evaluate = gaussian(np.eye(2) * 100.0)
    init = np.array([[0.1, 0.0], [0.05, -0.1], [50.0, 50.0]])
    found = start.find_start(evaluate, rng, (3, 2), init=init)
    np.testing.assert_array_equal(found.positions[:2], init[:2])
    np.testing.assert_allclose(found.log_density, evaluate(found.positions)[0])
    assert found.log_density[2] > -20.0 and any("leave their init" in line for line in found.log)
    with pytest.raises(ValueError, match="init has shape"):
        start.find_start(evaluate, rng, (3, 2), init=init[:2])


def test_huge_gradients_do_not_break_the_ascent():
    """A scale of 1e-3 puts U(-2, 2) at a log density of -2e6; quartic walls make trial steps overflow."""

    def evaluate(z):
        u = z / 1e-3
        with np.errstate(over="ignore"):
            lp, g = -0.5 * np.sum(u**2, axis=1) - np.sum(u**4, axis=1), -(u + 4 * u**3) / 1e-3
        return np.where(np.isfinite(lp), lp, -np.inf), np.where(np.isfinite(g), g, 0.0)

    found = start.find_start(evaluate, rng, (8, 3))
    assert np.median(found.log_density) > -15.0
