"""Which chains count as stuck: two modes of known mass, and chains that do not move."""

import jax.numpy as jnp
import numpy as np

from ppl.inference.core import as_density
from ppl.inference.diagnostics import ess_mean
from ppl.inference.mcmc.pooled import PooledHMC
from ppl.inference.mcmc.pooled_stuck import Watch, stuck_chains, watched


def window(gap, scale, chains=6, minority=2, dim=4, length=40, acceptance=0.9):
    """A window in which the last chains explore a Gaussian mode ``gap`` nats lower and ``scale`` times as wide."""
    rng = np.random.default_rng(5)
    z = rng.standard_normal((length, chains, dim))
    height = -0.5 * (z**2).sum(-1)
    z[:, -minority:] = 50.0 + scale * z[:, -minority:]
    height[:, -minority:] -= gap
    return z, height, acceptance


class Kept:
    """The parts of a window that the rule reads."""

    def __init__(self, z, height, acceptance):
        self.positions, self.log_density, self.dim = z, height, z.shape[-1]
        self._acceptance = np.full(height.shape, acceptance)

    def acceptance(self):
        return self._acceptance


def stuck(gap, scale, **options):
    z, height, acceptance = window(gap, scale)
    return stuck_chains(Kept(z, height, acceptance), **options)[0]


def test_a_mode_without_mass_is_given_up():
    # gap 40 nats at equal volume: a weight of e^-40
    assert stuck(40.0, 1.0).tolist() == [False] * 4 + [True] * 2


def test_a_lower_but_wider_mode_is_kept():
    # 22 nats lower, but 10^4 times the volume (9.2 nats): the rule must see the volume
    assert not stuck(22.0, 10.0).any()
    assert stuck(22.0, 1.0)[-2:].all()


def test_modes_of_comparable_mass_are_kept():
    assert not stuck(5.0, 1.0).any()


def test_early_windows_are_generous():
    assert not stuck(37.0, 1.0, crude=True).any()
    assert stuck(39.0, 1.0, crude=True)[-2:].all()


def test_a_chain_that_does_not_move_is_stuck():
    z, height, _ = window(0.0, 1.0)
    kept = Kept(z, height, 0.9)
    kept._acceptance[:, 1] = 0.0
    stuck_chains_, still = stuck_chains(kept)
    assert still.tolist() == [False, True, False, False, False, False]
    assert stuck_chains_[1]


def account(acceptance, chunk=10):
    """Run the account over a table of acceptance probabilities; changes of the step size and when."""
    watch, changes = Watch(np.zeros(acceptance.shape[1])), []
    for start in range(0, len(acceptance), chunk):
        watch, factors = watched(watch, acceptance[start : start + chunk], start + chunk)
        if factors:
            changes.append((start + chunk, factors))
    return changes


def test_homogeneous_acceptance_never_changes_the_step():
    rng = np.random.default_rng(0)
    # mean 0.9 with the spread of a real run; a spell's mean has standard deviation 0.05, the bound is 10 of them away
    assert account(rng.beta(3.6, 0.4, (3000, 16))) == []


def test_a_chain_that_sticks_halves_the_step_at_the_end_of_the_period():
    table = np.full((300, 16), 0.9)
    table[130:150, 3] = 0.0  # two spells of 160 in the second period
    assert account(table) == [(200, -1)]
    assert account(table, chunk=5) == [(200, -1)]


def test_one_unlucky_spell_does_not():
    table = np.full((300, 16), 0.9)
    table[130:140, 3] = 0.0
    assert account(table) == []


def test_the_step_is_halved_again_while_it_helps():
    table = np.full((1000, 16), 0.9)
    for period, count in enumerate((12, 5, 2, 0)):
        table[100 * period : 100 * period + 10, :count] = 0.0
    assert account(table) == [(100, -1), (200, -1), (300, -1)]


def test_a_wall_takes_the_halving_back_for_good():
    table = np.full((1000, 16), 0.9)
    table[:, :2] = 0.0
    assert account(table) == [(100, -1), (200, 1)]


def tail(z):
    """log density of z = log theta for a standard normal theta beyond 2: it ends abruptly where it is highest."""
    theta = jnp.exp(z[0])
    return jnp.where(theta > 2.0, -0.5 * theta**2 + z[0], -jnp.inf)


def test_a_wall_does_not_stop_the_sampler():
    engine, target = PooledHMC(), as_density(tail, 1)
    carry, blocks, done = engine.start(3, target), [], False
    while not done:
        carry, block, done = engine.advance(carry, target, 100)
        blocks.append(block)
    theta = np.exp(engine.finish(carry, blocks, target).positions[..., 0])
    assert float(np.exp(carry.log_step)) > 0.02
    # E[theta] = phi(2) / (1 - Phi(2)), E[theta^2] = 1 + 2 E[theta]; |z| < 4: false alarms 1e-4
    mean = 2.3732155328228763
    sd = np.sqrt(1.0 + 2.0 * mean - mean**2)
    error = sd / np.sqrt(ess_mean(theta))
    assert abs(theta.mean() - mean) < 4.0 * error
    assert error < 0.02
    assert theta.min() > 2.0
