"""The rank test and the joint-distribution test: false alarms at their rate, power against known bugs."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ppl.inference.calibration.geweke import geweke
from ppl.inference.calibration.rank import break_ties, compare, rank_invariance, uniformity
from ppl.inference.mcmc import HMC


@dataclass(frozen=True)
class Place:
    position: object


@dataclass(frozen=True)
class Shrink:
    """An exact autoregression x -> a x + b e on the standard normal; ``bias`` moves it."""

    a: float
    bias: float = 0.0

    def init(self, position, density):
        return Place(position)

    def step(self, key, state, density):
        noise = jax.random.normal(key, state.position.shape)
        return Place(self.a * state.position + jnp.sqrt(1 - self.a**2) * noise + self.bias), None


for cls, names in ((Place, ["position"]), (Shrink, ["a", "bias"])):
    jax.tree_util.register_dataclass(cls, names, [])


def normal(key):
    return jax.random.normal(key, (1,))


def log_normal(z):
    return -0.5 * jnp.sum(z**2)


@pytest.mark.parametrize("reversible", [True, False])
def test_exact_kernel_passes_however_slow(reversible):
    """Also a kernel that hardly moves; each assertion fails with probability 1e-4."""
    for a in (0.0, 0.9, 0.999):
        assert rank_invariance(Shrink(a), log_normal, normal, reversible=reversible, seed=4).passed(1e-4)


def test_kernel_that_never_moves_passes_through_ties():
    result = rank_invariance(Shrink(1.0), log_normal, normal)
    assert result.passed(1e-4), str(result)


@pytest.mark.parametrize("reversible", [True, False])
def test_drift_is_caught(reversible):
    result = rank_invariance(Shrink(0.9, 0.03), log_normal, normal, reversible=reversible)
    assert not result.passed(1e-5)
    assert "mean" in str(result)


def test_wrong_scale_is_caught_by_the_spread():
    functions = lambda z: z  # noqa: E731
    wrong = rank_invariance(HMC(0.9, steps=2), lambda z: 1.3 * log_normal(z), normal, functions)
    assert not wrong.passed(1e-5)
    assert wrong.p_values["f[0] spread"] < 1e-6 < wrong.p_values["f[0] mean"]


def test_p_values_of_uniform_ranks_are_uniform():
    """Kolmogorov's test on 400 sets of ranks, each at the 1e-4 level."""
    rng = np.random.default_rng(0)
    p = [uniformity(rng.integers(8, size=(500, 1)), 8) for _ in range(400)]
    for name in p[0]:
        assert stats.kstest([x[name] for x in p], "uniform").pvalue > 1e-4


def test_counts_and_ties():
    below, ties = compare(lambda z: z, np.array([2.0]), np.array([[1.0], [2.0], [3.0], [2.0]]))
    assert (below.tolist(), ties.tolist()) == ([1], [2])
    ranks = break_ties(np.random.default_rng(0), np.full((9000, 1), 1), np.full((9000, 1), 2))
    assert np.unique(ranks).tolist() == [1, 2, 3]
    np.testing.assert_allclose(np.bincount(ranks[:, 0])[1:] / 9000, 1 / 3, atol=0.02)


def exponentials(jacobian, rate=2.0):
    """A rate x ~ Exp(2) on the log scale, three waiting times Exp(x); ``jacobian`` 0 forgets the log-determinant."""
    return geweke(
        HMC(0.5, steps=4),
        lambda key: jnp.log(jax.random.exponential(key, (1,)) / 2.0),
        lambda key, z: jax.random.exponential(key, (3,)) * jnp.exp(-z),
        lambda y: lambda z: jnp.sum(jacobian * z - rate * jnp.exp(z)) + jnp.sum(z - y * jnp.exp(z)),
        lambda z, y: jnp.concatenate([z, z**2, jnp.log(jnp.sum(y))[None], z * jnp.log(jnp.sum(y))]),
        replications=4096,
        steps=5,
    )


def test_joint_distribution_test_passes_and_catches():
    """A correct model fails with probability 1e-4."""
    right = exponentials(1.0)
    assert right.passed(1e-4), str(right)
    assert not exponentials(0.0).passed(1e-6)
    assert not exponentials(1.0, rate=1.6).passed(1e-4)
