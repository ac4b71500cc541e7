"""Which chains count as stuck: two modes of known mass, and chains that do not move."""

import numpy as np

from ppl.inference.mcmc.pooled_warmup import stuck_chains


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
