"""Kernels of codes: what they refuse, that mistakes are caught, that conditionals are those of the density.

Invariance itself is tested by the rows of battery.py. A mutant passes with a probability far below 1e-6.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.inference.core import as_density
from ppl.inference.mcmc import FiniteMetropolis, Gibbs, LocallyInformed, discrete, finite_metropolis, gibbs, informed
from tests.inference.mcmc.battery import Row, judge
from tests.oracles.targets import BY_NAME

KERNELS = [Gibbs(), Gibbs(metropolised=True), FiniteMetropolis(), LocallyInformed(flips=2)]


def row(kernel):
    return Row("mutant", lambda target: kernel, ("finite",), ())


def caught(kernel):
    result = judge(row(kernel), "finite", replications=6000)
    assert not result.passed(1e-6), str(result)


def test_informed_proposals_without_their_ratio_are_caught(monkeypatch):
    monkeypatch.setattr(informed, "log_ratio", lambda gain, correction: gain)
    caught(LocallyInformed("sqrt"))


def test_a_ratio_that_forgets_the_neighbours_of_the_proposal_is_caught(monkeypatch):
    """With Z(x) in place of Z(y) all is accepted; a published correction failed only with three competing states."""
    monkeypatch.setattr(informed, "log_ratio", lambda gain, correction: jnp.zeros_like(gain))
    caught(LocallyInformed("barker"))


def test_proposing_other_states_without_accepting_rightly_is_caught(monkeypatch):
    monkeypatch.setattr(gibbs, "accept_rate", lambda here, there: jnp.where(here > 0, 1.0, 0.0))
    caught(Gibbs(scan="random", metropolised=True))


def test_metropolis_without_its_test_is_caught(monkeypatch):
    monkeypatch.setattr(finite_metropolis, "log_ratio", lambda here, there: jnp.zeros_like(here))
    caught(FiniteMetropolis(scan="random"))


@pytest.mark.slow
def test_conditionals_at_stale_codes_are_caught(monkeypatch):
    """Both codes are drawn at once, each given the other's old value."""
    table, members = discrete.table, discrete.members

    def both(density, position, group):
        rows = [jnp.where(members(density, i), table(density, position, i), 0.0) for i in range(2)]
        return rows[0] + rows[1]

    right = judge(Row("right", lambda t: Gibbs(), ("finite",), (), reversible=False), "finite", replications=6000)
    assert right.passed(1e-4), str(right)
    monkeypatch.setattr(discrete, "groups", lambda density: 1)
    monkeypatch.setattr(discrete, "table", both)
    every = lambda self, key, logs, codes, inside: drawn(self, key, logs, codes, codes == codes)  # noqa: E731
    monkeypatch.setattr(Gibbs, "draw", every)
    result = judge(Row("mutant", lambda t: Gibbs(), ("finite",), (), reversible=False), "finite", replications=6000)
    assert not result.passed(1e-6), str(result)


drawn = Gibbs.draw


def test_tables_are_the_conditionals():
    target = BY_NAME["mixed"]
    density, z = target.density(), jnp.array([0.3, 2.0, 1.0])
    tables = np.asarray(discrete.tables(density, z))
    assert tables.shape == (4, 2)
    for k in range(4):
        assert tables[k, 0] == float(target.log_density(z.at[1].set(float(k))))
    for k in range(3):
        assert tables[k, 1] == float(target.log_density(z.at[2].set(float(k))))
    assert tables[3, 1] == -np.inf


def test_impossible_and_undefined_states_are_never_taken():
    logs = jnp.array([0.0, -jnp.inf, jnp.nan, -1.0])
    density = as_density(lambda z: logs[z[0].astype(jnp.int32)], 1, (4,))
    keys = jax.random.split(jax.random.key(0), 400)
    for kernel in KERNELS:
        state = kernel.init(jnp.zeros(1), density)
        found = jax.jit(jax.vmap(lambda key, a=kernel, s=state: a.step(key, s, density)[0].position))(keys)
        assert set(np.asarray(found).ravel()) == {0.0, 3.0}, kernel


def test_a_code_with_one_state_stays():
    density = as_density(lambda z: -0.5 * z[0] ** 2, 2, (3, 1))
    for kernel in KERNELS:
        state, info = kernel.step(jax.random.key(0), kernel.init(jnp.array([1.0, 0.0]), density), density)
        assert state.position[1] == 0.0 and 0.0 <= float(info.acceptance_rate) <= 1.0


def test_densities_without_codes_and_unknown_options_are_refused():
    plain = as_density(lambda z: -(z @ z), 2)
    for kernel in KERNELS:
        with pytest.raises(ValueError, match=r"no(ne| finite).*as_density\(f, dim=d \+ m, finite="):
            kernel.init(jnp.zeros(2), plain)
    with pytest.raises(ValueError, match="systematic"):
        Gibbs(scan="sequential")
    with pytest.raises(ValueError, match="barker"):
        LocallyInformed("cube")
    with pytest.raises(ValueError, match="at least one"):
        LocallyInformed(flips=0)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: f"{type(k).__name__}{'-m' * getattr(k, 'metropolised', 0)}")
def test_kernels_lower_for_accelerators(kernel):
    density = BY_NAME["finite"].density()
    step = jax.jit(lambda key, z: kernel.step(jax.random.wrap_key_data(key), kernel.init(z, density), density))
    args = (jax.ShapeDtypeStruct((2,), jnp.uint32), jax.ShapeDtypeStruct((2,), jnp.float64))
    assert step.trace(*args).lower(lowering_platforms=("cuda", "tpu")).as_text()


def test_starting_points_have_codes_with_a_density():
    """Capture histories: who was seen exists. Random codes almost never have a density, conditionals at once."""
    seen = np.arange(40) % 2

    def log_density(z):
        codes = z[1:]
        return jnp.sum(jnp.where((codes == 0.0) & (seen == 1), -jnp.inf, -codes)) - z[0] ** 2

    density = as_density(log_density, 41, (2,) * 40)
    z = np.stack([discrete.drawn(np.random.default_rng(i), 41, density) for i in range(2)])
    assert set(np.unique(z[:, 1:])) == {0.0, 1.0}
    z[:, 1:] = 1.0
    settled = discrete.settled(z, density, 3)
    assert np.isfinite(log_density(jnp.asarray(settled[0]))) and np.all(settled[:, 0] == z[:, 0])
    assert np.any(settled[:, 1:] == 0.0)
