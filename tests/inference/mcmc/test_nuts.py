"""NUTS against a recursive transcription of the algorithm that enumerates every choice, and its guards."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.inference.core import as_density
from ppl.inference.mcmc import NUTS, nuts
from ppl.inference.mcmc.euclidean import Dense, Diagonal

DEPTH = 4


def log_density(z):
    """Asymmetric in two dimensions: turns come early, at different places."""
    return -jnp.exp(z[0]) + 1.5 * z[0] - 0.5 * (z[1] - 0.3 * z[0] ** 2) ** 2 / 0.3


class Orbit:
    """Leapfrog states by integer time, in whitened momenta, with their log weights."""

    def __init__(self, z, q, step, scale):
        self.step, self.scale = step, scale
        self.grad = jax.jit(jax.value_and_grad(log_density))
        self.states = {0: (np.asarray(z), np.asarray(q))}

    def at(self, t):
        if t not in self.states:
            sign = np.sign(t)
            z, q = self.at(t - sign)
            e = sign * self.step
            half = q + 0.5 * e * self.scale * np.asarray(self.grad(z)[1])
            z = z + e * self.scale * half
            self.states[t] = (z, half + 0.5 * e * self.scale * np.asarray(self.grad(z)[1]))
        return self.states[t]

    def weight(self, t):
        z, q = self.at(t)
        return float(np.exp(self.grad(z)[0] - 0.5 * q @ q))

    def turned(self, a, b):
        """Turn between times a < b."""
        total = sum(self.at(t)[1] for t in range(a, b + 1))
        return not (self.at(a)[1] @ total > 0 and self.at(b)[1] @ total > 0)

    def joint_turned(self, a, m, b):
        """Turn of [a, b] made of [a, m] and [m + 1, b], with the checks across the two."""
        return self.turned(a, b) or self.turned(a, m + 1) or self.turned(m, b)

    def broken(self, a, b):
        """Whether any aligned sub-tree of [a, b] has turned."""
        if a == b:
            return False
        m = (a + b) // 2
        return self.broken(a, m) or self.broken(m + 1, b) or self.joint_turned(a, m, b)

    def next(self, start, low=None, high=None, chosen=None, depth=0):
        """Distribution over times of the next state of NUTS from time ``start``, every direction enumerated."""
        if low is None:
            low, high, chosen = start, start, {start: 1.0}
        if depth == DEPTH:
            return chosen
        out = {}
        for a, b, m in (
            (high + 1, high + 2**depth, high),  # forwards
            (low - 2**depth, low - 1, low - 1),  # backwards
        ):
            if self.broken(a, b):
                result = chosen
            else:
                new, old = (sum(map(self.weight, range(*r))) for r in ((a, b + 1), (low, high + 1)))
                take = min(1.0, new / old)
                result = {t: (1 - take) * p for t, p in chosen.items()}
                for t in range(a, b + 1):
                    result[t] = result.get(t, 0.0) + take * self.weight(t) / new
                ends = min(a, low), max(b, high)
                if not self.joint_turned(ends[0], m, ends[1]):
                    result = self.next(start, *ends, result, depth + 1)
            for t, p in result.items():
                out[t] = out.get(t, 0.0) + 0.5 * p
        return out


STEP, SCALE = 0.45, np.array([0.8, 1.3])
STARTS = [
    ((0.2, 0.4), (0.6, -1.0)),
    ((0.9, -0.5), (-1.4, 0.8)),
    ((1.1, -0.5), (0.8, -0.1)),  # the check from a to m decides
    ((-0.6, 0.8), (2.4, -1.7)),
    ((-0.1, 0.2), (0.7, -0.8)),  # the check from m - 1 to b decides
    ((-0.5, -1.0), (-1.3, 0.1)),
    ((0.9, -0.7), (0.9, 0.1)),  # from the far end to the opening of the new half
    ((-1.4, 2.2), (-1.4, -1.1)),
]


@pytest.mark.parametrize("start", range(len(STARTS)))
def test_the_enumerated_algorithm_keeps_the_weights_of_an_orbit(start):
    """sum_i w_i P(i -> j) = w_j over all i from which j can be reached: the oracle itself is right."""
    z, q = STARTS[start]
    orbit = Orbit(z, q, STEP, SCALE)
    reach = 2**DEPTH - 1
    flow = sum(orbit.weight(i) * orbit.next(i).get(0, 0.0) for i in range(-reach, reach + 1))
    assert flow == pytest.approx(orbit.weight(0), rel=1e-10)


@functools.cache
def program():
    kernel, density = NUTS(STEP, Diagonal(SCALE), max_depth=DEPTH), as_density(log_density)

    @jax.jit
    def run(keys, z, q):
        state = kernel.init(z, density)
        flipped = jnp.where(jnp.arange(len(keys)) % 2 == 0, 1.0, -1.0)  # the first doubling goes along q
        moved = jax.vmap(lambda k, s: kernel.transition(k, s * q, state, density))(keys, flipped)
        return moved[0].position, moved[1]

    return run


@pytest.mark.parametrize("start", range(len(STARTS)))
def test_transitions_have_the_enumerated_probabilities(start):
    """Chi-square over the states of the orbit; a correct sampler fails with probability 1e-5."""
    from scipy import stats

    z, q = map(np.array, STARTS[start])
    orbit = Orbit(z, q, STEP, SCALE)
    exact = {t: p for t, p in orbit.next(0).items() if p > 0}
    number = 100_000
    found, _ = program()(jax.random.split(jax.random.key(start), number), z, q)
    times = list(exact)
    points = np.array([orbit.at(t)[0] for t in times])
    distance = np.linalg.norm(np.asarray(found)[:, None] - points[None], axis=-1)
    assert distance.min(1).max() < 1e-9  # nothing outside the reachable states
    counts = np.bincount(distance.argmin(1), minlength=len(times))
    expected = number * np.array([exact[t] for t in times])
    large = expected > 5
    chi = np.sum((counts[large] - expected[large]) ** 2 / expected[large])
    assert len(times) > 4
    assert stats.chi2.sf(chi, large.sum() - 1) > 1e-5
    assert counts[~large].sum() < 60


@pytest.mark.parametrize("check, start", [(1, 2), (1, 3), (2, 4), (2, 5)])
def test_each_extra_check_decides_at_some_start(check, start):
    """Without it the enumerated law is another, so the test above would see its loss."""

    class Without(Orbit):
        def joint_turned(self, a, m, b):
            extra = self.turned(m, b) if check == 1 else self.turned(a, m + 1)
            return self.turned(a, b) or extra

    full, less = (kind(*STARTS[start], STEP, SCALE).next(0) for kind in (Orbit, Without))
    assert 0.5 * sum(abs(full.get(t, 0) - less.get(t, 0)) for t in full | less) > 0.1


def test_leaf_masks_name_the_subtrees_that_end():
    """Every (first leaf, newest leaf) pair that is checked inside a half is an aligned sub-tree or its opening."""
    rows = 5
    stored = {}
    for leaf in range(16):
        if leaf % 2 == 0:
            stored[1 + bin(leaf >> 1).count("1")] = leaf
        pairs = set()
        for row in range(1, rows):
            first = jnp.zeros(rows, bool).at[row].set(True)
            if nuts.half_turned(jnp.int32(leaf), first, jnp.zeros(rows, bool)):
                pairs.add((stored[row], leaf))
        whole = {(leaf + 1 - 2**k, leaf) for k in range(1, 5) if (leaf + 1) % 2**k == 0}
        if leaf % 2 == 0 and leaf:
            low_bit = leaf & -leaf
            whole = {(leaf - low_bit, leaf)}  # from the start of a sub-tree to the opening of its second half
        assert pairs == whole


def kernel_step(log_density, position, kernel, number=64, seed=0):
    density = as_density(log_density)

    @jax.jit
    def run(keys, position):
        return jax.vmap(lambda k: kernel.step(k, kernel.init(position, density), density))(keys)

    return run(jax.random.split(jax.random.key(seed), number), position)


def test_nan_density_and_gradient_never_enter_the_state():
    """NaN beyond 1 in the value; beyond 2 the value is finite and only the gradient is NaN."""

    def edge(z):
        root = jnp.where(z[1] > 2.0, 0.0, jnp.sqrt(2.0 - z[1]))  # the branch not taken has a NaN derivative
        return jnp.where(z[0] > 1.0, jnp.nan, -0.5 * jnp.sum(z**2)) + root

    value, gradient = jax.value_and_grad(edge)(jnp.array([0.0, 2.5]))
    assert np.isfinite(value) and np.isnan(gradient[1])
    state, info = kernel_step(edge, jnp.array([0.9, 1.9]), NUTS(0.5), 512)
    assert np.isfinite(state.log_density).all() and np.isfinite(state.gradient).all()
    assert state.position[:, 0].max() <= 1.0
    assert 50 < np.sum(info.diverging) < 512
    assert np.isfinite(info.acceptance_rate).all() and np.isfinite(info.energy).all()


def test_infinite_density_is_a_divergence_not_an_attractor():
    state, info = kernel_step(lambda z: jnp.where(z[0] > 0.5, jnp.inf, -0.5 * z[0] ** 2), jnp.zeros(1), NUTS(0.4), 256)
    assert state.position.max() <= 0.5
    assert np.any(info.diverging)


def test_energy_error_above_the_threshold_is_a_divergence():
    steep = lambda z: -0.5 * jnp.sum((z / 0.01) ** 2)  # noqa: E731
    state, info = kernel_step(steep, jnp.array([0.01]), NUTS(1.0))
    assert np.all(info.diverging) and np.all(info.n_steps == 1) and np.all(state.position == 0.01)


def test_flat_density_reaches_the_greatest_depth():
    _, info = kernel_step(lambda z: 0.0 * jnp.sum(z), jnp.zeros(2), NUTS(0.1, max_depth=5), 8)
    assert np.all(info.tree_depth == 5) and np.all(info.n_steps == 31)
    np.testing.assert_allclose(info.acceptance_rate, 1.0)


def test_one_doubling_is_metropolis_between_two_points():
    """With max_depth 1 the new point is taken with probability min(1, w1 / w0); |z| < 4.5 standard errors."""
    kernel, density = NUTS(0.7, max_depth=1), as_density(log_density)
    z, q = np.array([0.2, 0.4]), np.array([1.0, -0.5])
    orbit = Orbit(z, q, 0.7, np.ones(2))
    exact = min(1.0, orbit.weight(1) / orbit.weight(0))
    assert 0.1 < exact < 0.95

    @jax.jit
    def run(keys):
        state = kernel.init(z, density)
        return jax.vmap(lambda k: kernel.transition(k, q, state, density)[0].position[0])(keys)

    moved = np.asarray(run(jax.random.split(jax.random.key(1), 20_000))) != z[0]
    assert abs(moved.mean() - exact) < 4.5 * np.sqrt(exact * (1 - exact) / 20_000)


def test_dense_metric_is_a_change_of_variables():
    """NUTS with metric L L' on f is NUTS with unit metric on f(L x): the same leaves and the same choice."""
    factor = np.array([[1.2, 0.0], [-0.7, 0.5]])
    plain = kernel_step(lambda x: log_density(jnp.asarray(factor) @ x), jnp.array([0.3, 0.5]), NUTS(0.4), 32)
    dense = kernel_step(log_density, jnp.asarray(factor @ [0.3, 0.5]), NUTS(0.4, Dense(factor)), 32)
    np.testing.assert_allclose(dense[0].position, plain[0].position @ factor.T, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(dense[1].n_steps, plain[1].n_steps)


def test_log_sum_exp_holds_at_great_energies():
    np.testing.assert_allclose(nuts.log_add(jnp.array(-900.0), jnp.array(-900.0)), -900.0 + np.log(2.0))
    np.testing.assert_allclose(nuts.log_add(jnp.array(800.0), jnp.array(-jnp.inf)), 800.0)


def test_the_graph_holds_one_copy_of_the_gradient():
    calls = []

    def counted(z):
        calls.append(1)
        return -0.5 * jnp.sum(z**2)

    kernel, density = NUTS(0.4), as_density(counted)
    state = jax.eval_shape(lambda z: kernel.init(z, density), jnp.zeros(3))
    calls.clear()
    jaxpr = str(jax.make_jaxpr(lambda k, s: kernel.step(k, s, density))(jax.random.key(0), state))
    assert len(calls) == 1
    assert jaxpr.count("while[") >= 1
