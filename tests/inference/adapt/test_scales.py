"""Log scales are found in funnels and nowhere else."""

import numpy as np

from ppl.inference.adapt.scales import log_scales


def funnel(rng, rows, members, centred):
    """A log scale v ~ N(0, 1) and effects, centred (N(0, e^v)) or not, beside two coordinates of their own."""
    v, raw, own = rng.normal(size=(rows, 1)), rng.normal(size=(rows, members)), rng.normal(size=(rows, 2))
    if not centred:
        return np.concatenate([own, v, raw], axis=1), -np.concatenate([own, v, raw], axis=1)
    gradient = np.concatenate([-own, np.sum(raw**2, axis=1, keepdims=True) - members - v, -raw * np.exp(-v)], axis=1)
    return np.concatenate([own, v, raw * np.exp(v)], axis=1), gradient


def test_a_centred_funnel_is_found():
    assert log_scales(*funnel(np.random.default_rng(0), 400, 5, True)) == {2: [3, 4, 5, 6, 7]}


def test_a_funnel_of_two_is_too_small_and_a_non_centred_one_is_none():
    assert log_scales(*funnel(np.random.default_rng(1), 400, 2, True)) == {}
    assert log_scales(*funnel(np.random.default_rng(2), 400, 5, False)) == {}


def test_growing_gradients_are_not_a_funnel():
    """Raw effects under much data have gradients that grow with the scale: non-centring would be the wrong advice."""
    z, g = funnel(np.random.default_rng(3), 400, 5, False)
    assert log_scales(z, g * np.exp(z[:, 2:3])) == {}


def test_few_draws_say_nothing():
    rng = np.random.default_rng(4)
    assert all(log_scales(rng.normal(size=(14, 10)), rng.normal(size=(14, 10))) == {} for _ in range(50))


def test_constant_and_zero_columns_are_harmless():
    assert log_scales(np.ones((20, 4)), np.zeros((20, 4))) == {}
