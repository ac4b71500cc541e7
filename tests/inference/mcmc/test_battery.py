"""Every kernel of the battery leaves its targets invariant, by rank tests from exact draws.

Each test rejects a correct kernel with probability 1e-4. What they catch is tested in test_mutations*.py.
"""

import jax
import numpy as np
import pytest

from tests.inference.mcmc.battery import ROWS, judge
from tests.oracles.targets import BY_NAME, CONTINUOUS, FINITE, MIXED

QUICK = [(row, name) for row in ROWS for name in row.quick]
MANY = [(row, name) for row in ROWS for name in row.targets]


def names(case):
    return f"{case[0].name}-{case[1]}"


@pytest.mark.parametrize("case", QUICK, ids=names)
def test_kernel_leaves_target_invariant(case):
    result = judge(*case)
    assert result.passed(1e-4), str(result)


@pytest.mark.slow
@pytest.mark.parametrize("case", MANY, ids=names)
def test_kernel_leaves_target_invariant_many(case):
    result = judge(*case, replications=case[0].many, seed=2)
    assert result.passed(1e-4), str(result)


def test_every_row_names_targets_that_exist_and_suit_it():
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row.targets and set(row.quick) <= set(row.targets) <= set(BY_NAME), row.name


NEW = ("bimodal", "nested", "support", "finite", "mixed")  # the older ones are at work in the other tests


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in NEW else pytest.mark.slow) for n in BY_NAME])
def test_targets_are_what_they_sample(name):
    """Importance weights of a shifted or permuted proposal average to one: sampler and density agree.

    By draws x of the sampler and T(x) with a known Jacobian, E[pi(T(x)) |T'| / pi(x)] = 1 where T is a bijection of the
    support. False alarm below 1e-5 each (|z| < 4.5).
    """
    target = BY_NAME[name]
    continuous = len(target.scale)

    def ratio(z):
        log_weights = [
            target.log_density(moved) - target.log_density(z) + log_slope for moved, log_slope in moves(target, z)
        ]
        return jax.numpy.exp(jax.numpy.stack(log_weights))

    weights = np.asarray(
        jax.jit(jax.vmap(lambda k: ratio(target.sample(k))))(jax.random.split(jax.random.key(0), 40_000))
    )
    z = (weights.mean(0) - 1.0) / (weights.std(0) / np.sqrt(len(weights)))
    assert np.all(np.abs(z) < 4.5), z
    assert weights.shape[1] == continuous + len(target.finite)
    assert np.all(weights.std(0) > 0.01)


def moves(target, z):
    """For each coordinate a bijection of the support, with the logarithm of its slope."""
    continuous = len(target.scale)
    for j in range(continuous):
        if target.name == "support":
            factor = (1.2, 0.9, 1.1)[j]
            if j == 1:  # y / x to its power 0.9
                y = z[0] * (z[1] / z[0]) ** factor
                yield z.at[1].set(y), jax.numpy.log(factor * y / z[1])
            elif j == 0:  # x and y together
                yield z.at[:2].multiply(factor), 2 * np.log(factor)
            else:
                yield z.at[2].multiply(factor), np.log(factor)
        else:
            scale = np.asarray(target.scale)
            direction = scale[:, j] if scale.ndim == 2 else scale[j] * np.eye(continuous)[j]
            yield z.at[:continuous].add(0.2 * direction), 0.0
    for j, states in enumerate(target.finite):
        yield z.at[continuous + j].set((z[continuous + j] + 1.0) % states), 0.0


def test_the_lists_hold_what_a_kernel_needs():
    assert all(not t.finite for t in CONTINUOUS) and all(len(t.scale) == 0 for t in FINITE)
    assert all(t.finite and len(t.scale) for t in MIXED)
    assert any(int(np.prod(t.finite)) >= 3 for t in FINITE)
